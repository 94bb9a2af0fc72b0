"""A second view of an image on the device: other colours and less sharp, with every pixel where it was."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxseg.arguments import Share, checked
from jaxseg.data.colors import adjust_brightness, adjust_contrast, adjust_saturation
from jaxseg.data.degrade import blur
from jaxseg.types import Array, Key

# The strengths of ST++ (Yang et al. 2022, section 4.1) and UniMatch (Yang et al. 2023), without the hue.
_COLOR_JITTER, _COLOR_LIMIT = 0.8, 0.5
_GREY = 0.2
_BLUR = 0.5
_BLUR_SIDE = 2.0 / 320.0  # largest standard deviation of the blur as a share of the shorter side


@checked
def make_stronger(strength: Share = 1.0) -> Callable[[Key, Array], jax.Array]:
    """Returns stronger(key, image f32[h,w,c] in [0, 1]) -> image f32[h,w,c], for one example.

    At strength 1, brightness, contrast and saturation change by a factor in [.5, 1.5] with probability .8; the image
    turns grey with probability .2 (three channels or four); it is blurred with probability .5 by a Gaussian whose
    standard deviation is at most 1/160 of the shorter side. A smaller strength scales the limits of the factors and of
    the blur, and the probability of grey. At 0 the image stays as it is.

    Raises:
        ArgumentError: if the strength is not in [0, 1].
    """

    def stronger(key: Key, image: Array) -> jax.Array:
        image = jnp.asarray(image)
        if not strength:
            return image
        draw = jax.random.uniform(key, (7,))
        brightness, contrast, saturation = 1.0 + (2.0 * draw[:3] - 1.0) * _COLOR_LIMIT * strength
        changed = adjust_contrast(adjust_brightness(image, brightness), contrast)
        colored = image.shape[2] in (1, 3, 4)  # images of other channels have no colours
        changed = adjust_saturation(changed, saturation) if colored else changed
        image = jnp.where(draw[3] < _COLOR_JITTER, changed, image)
        image = adjust_saturation(image, jnp.where(draw[4] < _GREY * strength, 0.0, 1.0)) if colored else image
        limit = _BLUR_SIDE * strength * min(image.shape[:2])
        return blur(image, jnp.where(draw[5] < _BLUR, draw[6] * limit, 0.0), limit)

    return stronger
