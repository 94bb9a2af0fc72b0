"""RandAugment: a few operations for each image, drawn evenly, all of one magnitude (Cubuk et al. 2020, "RandAugment").

The operations are those of `jaxseg.data.geometry`, `jaxseg.data.colors` and `jaxseg.data.degrade`. They are drawn
without replacement and follow in the order of `OPERATIONS`, so that the program has each of them once, and those that
move pixels are one matrix, which moves the label too. (The paper draws with replacement and in any order.)
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data.colors import adjust_brightness, adjust_contrast, adjust_gamma, adjust_hue, adjust_saturation
from jaxseg.data.degrade import add_noise, blur, compress, lower_resolution
from jaxseg.data.geometry import Size, rotation_matrix, shear_matrix, tilt_matrix, zoom_matrix
from jaxseg.types import Array, Key

# {operation: its amount at magnitude 10}. Rotation, shear and colours are those of the paper's code; the others are
# chosen to change an image about as much. Zoom and gamma are factors, or one through them.
OPERATIONS = {
    "unchanged": 0.0,
    "zoom": 1.5,  # about a random point
    "shear": 0.3,  # tangent
    "rotate": 30.0,  # degrees
    "perspective": 0.2,  # relative change of scale, split over both directions
    "brightness": 0.9,
    "contrast": 0.9,
    "saturation": 0.9,
    "gamma": 2.5,
    "hue": 0.2,  # of the circle
    "blur": 2.0,  # standard deviation in pixels
    "low_resolution": 0.75,  # of the side that is lost
    "noise": 0.2,  # standard deviation
    "jpeg": 90.0,  # below quality 100
}


def rand_matrix(key: Key, size: Size, count: int, magnitude: float) -> jax.Array:
    """Returns f32[3,3] of the operations of one example that move the pixels of an image of `size` (h, w).

    Args:
        key: of the example.
        size: (height, width).
        count: operations that are drawn, of all of `OPERATIONS`.
        magnitude: from 0, where nothing moves, to 10.
    """
    on, signed, draw = _drawn(key, count, magnitude)

    def amount(name: str) -> jax.Array:
        return jnp.where(on[name], signed[name] * OPERATIONS[name], 0.0)

    zoom = OPERATIONS["zoom"] ** jnp.where(on["zoom"], signed["zoom"], 0.0)
    lean = amount("perspective")
    steps = [
        zoom_matrix(zoom, draw[0] * size[0] - 0.5, draw[1] * size[1] - 0.5),
        shear_matrix(amount("shear"), size),
        rotation_matrix(amount("rotate"), size),
        tilt_matrix(lean * draw[2], jnp.where(draw[3] < 0.5, -lean, lean) * (1.0 - draw[2]), size),
    ]
    return functools.reduce(functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST), steps)


def rand_colors(key: Key, image: Array, count: int, magnitude: float) -> jax.Array:
    """Returns image f32[h,w,c] in [0, 1] under the operations of one example that leave its pixels where they are.

    The arguments are those of `rand_matrix`, and so is the key; at magnitude 0 nothing changes. Images
    that have no colours (c other than 1, 3 and 4) keep their saturation and hue.
    """
    if magnitude == 0:  # JPEG of quality 100 and the logarithms of gamma would round
        return jnp.asarray(image)
    on, signed, _ = _drawn(key, count, magnitude)
    share = magnitude / 10.0
    scaled = {name: signed[name] * top for name, top in OPERATIONS.items()}
    changes: dict[str, Callable[[jax.Array], jax.Array]] = {
        "brightness": lambda image: adjust_brightness(image, 1.0 + scaled["brightness"]),
        "contrast": lambda image: adjust_contrast(image, 1.0 + scaled["contrast"]),
        "saturation": lambda image: adjust_saturation(image, 1.0 + scaled["saturation"]),
        "gamma": lambda image: adjust_gamma(image, OPERATIONS["gamma"] ** signed["gamma"]),
        "hue": lambda image: adjust_hue(image, scaled["hue"]),
        "blur": lambda image: blur(image, share * OPERATIONS["blur"], share * OPERATIONS["blur"]),
        "low_resolution": lambda image: lower_resolution(image, 1.0 - share * OPERATIONS["low_resolution"]),
        "noise": lambda image: add_noise(jax.random.fold_in(key, 0), image, share * OPERATIONS["noise"]),
        "jpeg": lambda image: compress(image, 100.0 - share * OPERATIONS["jpeg"]),
    }
    result = jnp.asarray(image)
    for name, change in changes.items():
        if name not in ("saturation", "hue") or result.shape[2] in (1, 3, 4):
            result = jnp.where(on[name], change(result), result)
    return result


def _drawn(key: Key, count: int, magnitude: float) -> tuple[dict[str, jax.Array], dict[str, jax.Array], jax.Array]:
    """Returns which operations are drawn, their shares of the largest amount with a random sign, and f32[4] of more."""
    number = len(OPERATIONS)
    draw = jax.random.uniform(key, (2 * number + 4,))
    rank = jnp.argsort(jnp.argsort(draw[:number]))
    signs = jnp.where(draw[number : 2 * number] < 0.5, -1.0, 1.0) * np.float32(magnitude / 10.0)
    on = {name: rank[i] < count for i, name in enumerate(OPERATIONS)}
    return on, {name: signs[i] for i, name in enumerate(OPERATIONS)}, draw[2 * number :]
