"""Seg-Grad-CAM: which places of a layer speak for a class at some pixels (Vinogradova et al. 2020).

"Towards Interpretable Semantic Segmentation via Gradient-Weighted Class Activation Mapping", AAAI student abstracts;
after Grad-CAM of Selvaraju et al. (2017).
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.explain.stages import split_at
from jaxseg.nn import resize
from jaxseg.types import PyTree


def seg_grad_cam(model: nn.Module, variables: PyTree, image: jax.Array, target: jax.Array, layer: str) -> jax.Array:
    """Returns the map f32[h,w] of an image f32[1,h,w,c] (eqs. 1 and 2 of Vinogradova 2020).

    The map is relu(Σ_c α_c A_c), where A_c are the channels of the layer and α_c is the mean over its places of the
    gradient of Σ target · logits with respect to A_c. It is resized to the image bilinearly. Since α_c has no place,
    the map of one pixel may be high far away from it.

    Args:
        model: a network.
        variables: its variables; batch norm has its running statistics.
        image: one normalised image.
        target: f32[h,w,k], the weight of each logit in what is explained.
        layer: a name of `stages.layer_shapes`.

    Raises:
        ArgumentError: for an unknown layer, with the nearest right one.
    """
    activations, rest = split_at(model, variables, image, layer)
    logits, backward = jax.vjp(rest, activations)
    (gradient,) = backward(target[None].astype(logits.dtype))
    weights = jnp.mean(gradient.astype(jnp.float32), axis=(1, 2), keepdims=True)
    cam = jax.nn.relu(jnp.sum(weights * activations.astype(jnp.float32), axis=-1, keepdims=True))
    return on_image(cam, image.shape[1:3])[0, :, :, 0]


def on_image(x: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Resizes a layer f[b,y,x,c] bilinearly to an image of (height, width) `size`: f[b,h,w,c].

    Networks extend an image at the bottom and right to multiples of their strides, which are powers of two. What a
    layer has beyond the image is cut off.
    """
    strides = [2 ** max(0, round(math.log2(side / length))) for side, length in zip(size, x.shape[1:3])]
    covered = [max(side, length * stride) for side, length, stride in zip(size, x.shape[1:3], strides)]
    return resize(x, (covered[0], covered[1]))[:, : size[0], : size[1]]
