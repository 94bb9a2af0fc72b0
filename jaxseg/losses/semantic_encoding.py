"""The semantic encoding loss (Zhang et al. 2018, "Context Encoding for Semantic Segmentation", section 3.1, "SE-loss").

A network with a context encoding predicts the class of each pixel and also which classes are present in the image. The
loss is the binary cross-entropy of these presences; small and large objects have the same weight in it.
"""

import jax
import jax.numpy as jnp

from jaxseg.losses.pixels import SumWeight, check_integers, one_hot, scored, valid
from jaxseg.types import Array


def semantic_encoding(presence: Array, labels: Array) -> SumWeight:
    """Sigmoid cross-entropy of class presence, f32[b,k] and i32[b,h,w] -> (sum f32[], weight f32[]).

    A class is present in an image that has a pixel of it. An image adds Σ_c BCE(σ(z_c), present_c) / k to the sum and 1
    to the weight; an image without any labelled pixel adds to neither. For k = 1 the one class is the foreground. A
    label outside the classes makes the loss NaN.

    Args:
        presence: f32[b,k], logits of the presence of each class.
        labels: i32[b,h,w] of any height and width, 0..k-1 (0..1 for k = 1) or IGNORE.

    Raises:
        ValueError: if the shapes disagree or labels are not integers.
    """
    if presence.ndim != 2 or labels.ndim != 3 or presence.shape[0] != labels.shape[0]:
        raise ValueError(
            f"semantic_encoding takes presences [b,k] and labels [b,h,w], got {presence.shape} and {labels.shape}."
        )
    check_integers(labels)
    logits, k = jnp.asarray(presence, jnp.float32), presence.shape[-1]
    classes = max(k, 2)
    present = jnp.any(scored(one_hot(labels, classes), k), axis=(1, 2))
    counts = jnp.sum(valid(labels, classes), axis=(1, 2))
    weight = jnp.where(counts > 0, 1.0, counts)  # 0 and NaN are kept
    # -t log σ(z) - (1-t) log(1-σ(z)) = softplus(z) - t z, finite for every finite z.
    image = jnp.mean(jax.nn.softplus(logits) - jnp.where(present, logits, 0.0), axis=-1)
    return jnp.sum(weight * image), jnp.sum(weight)
