"""The semantic encoding loss (Zhang et al. 2018, "Context Encoding for Semantic Segmentation", section 3.1, "SE-loss").

A network with a context encoding predicts, besides the class of each pixel, which classes the image holds. The loss is
the binary cross-entropy of those presences; small and large objects weigh the same in it.
"""

import jax
import jax.numpy as jnp

from jaxseg.types import IGNORE, Array


def semantic_encoding(presence: Array, labels: Array) -> tuple[jax.Array, jax.Array]:
    """Sigmoid cross-entropy of class presence, f32[b,k] and i32[b,h,w] -> (sum f32[], weight f32[]).

    A class is present in an image that has a pixel of it. An image adds Σ_c BCE(σ(z_c), present_c) / k to the sum and 1
    to the weight; one without any labelled pixel says nothing of its classes and adds to neither. For k = 1 the one
    class is the foreground. A label outside the classes makes the loss NaN.

    Args:
        presence: f32[b,k], logits of the presence of each class.
        labels: i32[b,h,w] of any height and width, 0..k-1 (0..1 for k = 1) or IGNORE.

    Raises:
        ValueError: if the shapes disagree or labels are no integers.
    """
    if presence.ndim != 2 or labels.ndim != 3 or presence.shape[0] != labels.shape[0]:
        raise ValueError(
            f"semantic_encoding takes presences [b,k] and labels [b,h,w], got {presence.shape} and {labels.shape}."
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"Labels must be integers, got {labels.dtype}.")
    logits, labels = jnp.asarray(presence, jnp.float32), jnp.asarray(labels, jnp.int32)
    k = logits.shape[-1]
    first, classes = (1, 2) if k == 1 else (0, k)
    present = jnp.stack([jnp.any(labels == c, axis=(1, 2)) for c in range(first, classes)], axis=-1)
    labelled = jnp.any(labels != IGNORE, axis=(1, 2))
    inside = jnp.all((labels == IGNORE) | ((labels >= 0) & (labels < classes)), axis=(1, 2))
    weight = jnp.where(inside, labelled.astype(jnp.float32), jnp.nan)
    # -t log σ(z) - (1-t) log(1-σ(z)) = softplus(z) - t z, finite for every finite z.
    image = jnp.mean(jax.nn.softplus(logits) - jnp.where(present, logits, 0.0), axis=-1)
    return jnp.sum(weight * image), jnp.sum(weight)
