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


def adjust_contrast_of_channels(image: Array, factor: Array | float) -> jax.Array:
    """Returns image f32[h,w,c] with the distance of each colour from its own mean times `factor`, within [0, 1].

    A fourth channel (alpha) is kept.
    """

    def adjust(colors: jax.Array) -> jax.Array:
        means = jnp.mean(colors, axis=(0, 1), keepdims=True)
        return means + (colors - means) * factor

    return _on_colors(image, adjust)


def add_value(image: Array, amount: Array | float) -> jax.Array:
    """Returns image f32[h,w,c] with `amount` added to the value of HSV, the largest of the colours, within [0, 1].

    Hue and saturation are kept: all colours of a pixel have one factor. Black turns grey. A grey image (c = 1) is
    its own value, and a fourth channel (alpha) is kept.

    Raises:
        ValueError: unless c is 1, 3 or 4.
    """
    _is_grey(image, "value")

    def adjust(colors: jax.Array) -> jax.Array:
        top = jnp.max(colors, axis=2, keepdims=True)
        bright = jnp.clip(top + amount, 0.0, 1.0)
        return jnp.where(top > 0, colors * (bright / jnp.where(top > 0, top, 1.0)), bright)

    return _on_colors(image, adjust)


def scale_saturation(image: Array, factor: Array | float, amount: Array | float = 0.0) -> jax.Array:
    """Returns image f32[h,w,c] with the saturation of HSV times `factor` plus `amount`, within [0, 1].

    Hue and value are kept. Grey has the hue 0, red, as HSV has it, so that an `amount` above 0 reddens grey pixels. A
    fourth channel (alpha) is kept.

    Raises:
        ValueError: unless c is 3 or 4.
    """
    if image.shape[2] not in (3, 4):
        raise ValueError(f"Only images with 3 or 4 channels have a saturation of HSV, got {image.shape[2]} channels.")

    def adjust(colors: jax.Array) -> jax.Array:
        top, low = jnp.max(colors, axis=2, keepdims=True), jnp.min(colors, axis=2, keepdims=True)
        spread = top - low
        before = spread / jnp.where(top > 0, top, 1.0)
        after = jnp.clip(before * factor + amount, 0.0, 1.0)
        # How far each colour is below the largest, in shares of the spread; red has 0 and the others 1 in a grey pixel.
        below = jnp.where(spread > 0, (top - colors) / jnp.where(spread > 0, spread, 1.0), jnp.array([0.0, 1.0, 1.0]))
        return top * (1.0 - after * below)

    return _on_colors(image, adjust)


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
