"""Changes of colour on the device: the pixels stay where they are, and the labels too."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxseg.types import Array

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def adjust_brightness(image: Array, factor: Array | float) -> jax.Array:
    """Returns the colours of image f32[h,w,c] times `factor`, clipped to [0, 1]. A fourth channel (alpha) is kept."""
    return _on_colors(image, lambda colors: colors * factor)


def adjust_contrast(image: Array, factor: Array | float) -> jax.Array:
    """Returns image f32[h,w,c] with the distance of its colours from their common mean times `factor`, within [0, 1].

    A fourth channel (alpha) is kept.
    """
    return _on_colors(image, lambda colors: jnp.mean(colors) + (colors - jnp.mean(colors)) * factor)


def adjust_saturation(image: Array, factor: Array | float) -> jax.Array:
    """Returns image f32[h,w,c] with the distance of its colours from their luma (BT.601) times `factor`, within [0, 1].

    A grey image (c = 1) and a fourth channel (alpha) are kept.

    Raises:
        ValueError: unless c is 1, 3 or 4.
    """
    if _is_grey(image, "saturation"):
        return jnp.asarray(image)

    def adjust(colors: jax.Array) -> jax.Array:
        grey = sum(weight * colors[:, :, i : i + 1] for i, weight in enumerate(LUMA))
        return grey + (colors - grey) * factor

    return _on_colors(image, adjust)


def adjust_gamma(image: Array, exponent: Array | float) -> jax.Array:
    """Returns the colours of image f32[h,w,c] in [0, 1] to the power `exponent`; above 1 the middle turns darker.

    Black, white and a fourth channel (alpha) are kept.
    """
    return _on_colors(image, lambda colors: jnp.maximum(colors, 0.0) ** exponent)


def adjust_hue(image: Array, turn: Array | float) -> jax.Array:
    """Returns image f32[h,w,c] with its hues turned on the colour circle, within [0, 1]; `turn` 1 is the whole circle.

    The hue is that of HSV: the largest and the smallest of the three colours keep their values. A grey image (c = 1)
    and a fourth channel (alpha) are kept.

    Raises:
        ValueError: unless c is 1, 3 or 4.
    """
    if _is_grey(image, "hue"):
        return jnp.asarray(image)

    def adjust(colors: jax.Array) -> jax.Array:
        red, green, blue = jnp.moveaxis(colors, 2, 0)
        top, low = jnp.max(colors, axis=2), jnp.min(colors, axis=2)
        spread = jnp.where(top > low, top - low, 1.0)
        sixths = jnp.where(
            top == red,
            (green - blue) / spread,
            jnp.where(top == green, 2.0 + (blue - red) / spread, 4.0 + (red - green) / spread),
        )
        sixths = sixths + 6.0 * turn

        def channel(first: int) -> jax.Array:
            place = jnp.mod(first + sixths, 6.0)
            return top - (top - low) * jnp.clip(jnp.minimum(place, 4.0 - place), 0.0, 1.0)

        turned = (top > low) & (jnp.asarray(turn) != 0)
        return jnp.where(turned[:, :, None], jnp.stack([channel(5), channel(3), channel(1)], axis=2), colors)

    return _on_colors(image, adjust)


def _is_grey(image: Array, what: str) -> bool:
    """Returns whether an image has one channel; raises ValueError unless it has 1, 3 or 4, of which `what` is asked."""
    if image.shape[2] not in (1, 3, 4):
        raise ValueError(f"Only images with 1, 3 or 4 channels have a {what}, got {image.shape[2]} channels.")
    return image.shape[2] == 1


def _on_colors(image: Array, change: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Applies `change` to all channels except a fourth one (alpha), and clips the result to [0, 1]."""
    colors, rest = (image[:, :, :3], image[:, :, 3:]) if image.shape[2] == 4 else (image, image[:, :, :0])
    return jnp.concatenate([jnp.clip(change(jnp.asarray(colors)), 0.0, 1.0), rest], axis=2)
