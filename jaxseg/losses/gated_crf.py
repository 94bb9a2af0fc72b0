"""The gated CRF loss: pixels that are near and look alike should have the same class, whether they are labelled or not.

The energy is that of a dense CRF with its kernel cut off at a window, so that it needs no lattice and is a loss: no
inference runs, and the network learns what the CRF would correct.
"""

import jax
import jax.numpy as jnp

from jaxseg.arguments import Count, Positive
from jaxseg.losses.pixels import SumWeight, probabilities
from jaxseg.types import Array


def gated_crf(
    guide: tuple[Array, Array],
    inside: Array | None = None,
    *,
    radius: Count = 5,
    sigma_xy: Positive = 6.0,
    sigma_color: Positive = 0.5,
    reduce: Count = 2,
) -> SumWeight:
    """Gated CRF loss, image f32[b,h,w,c] and logits f32[b,h,w,k] -> (Σ_i E_i f32[], number of pixels i f32[]).

    E_i = Σ_j k_ij (1 - Σ_c p_ic p_jc) over the pixels j of a window around i, with the kernel
    k_ij = exp(-|x_i - x_j|² / 2 sigma_xy² - |I_i - I_j|² / 2 sigma_color²) and Potts' penalty of two classes: Obukhov
    et al., Gated CRF Loss for Weakly Supervised Semantic Image Segmentation, 2019, section 3, with one kernel. The
    gates leave out pixels beyond the image. Labels are not used. The energy is least where all pixels have one class,
    so that it needs a loss of labelled pixels beside it.

    Image and probabilities are first averaged over squares of `reduce` pixels; i and j are these. The gradient is
    exact and computed with the value, in one pass over the (2 radius + 1)² places of the window, which keeps no array
    for each of them: the memory is a few arrays of the size of the averaged probabilities. No gradient flows to the
    image.

    Args:
        guide: (image, logits). The image is what the network takes, so that its colours are in standard deviations of
            the normalisation.
        inside: bool[b,h,w], False for pixels that pad an image; None: all count.
        radius: of the window, in averaged pixels.
        sigma_xy: standard deviation of the distance in the kernel, in averaged pixels.
        sigma_color: standard deviation of the difference in colour, in units of the image.
        reduce: the side of the squares that are averaged, in pixels; 1: none.

    Raises:
        ValueError: if the shapes disagree.
    """
    image, logits = (jnp.asarray(array, jnp.float32) for array in guide)
    if image.ndim != 4 or logits.ndim != 4 or image.shape[:3] != logits.shape[:3]:
        raise ValueError(
            f"gated_crf takes an image [b,h,w,c] and logits [b,h,w,k] of one size, got {image.shape} and "
            f"{logits.shape}."
        )
    gate = jnp.ones(image.shape[:3], jnp.float32) if inside is None else jnp.asarray(inside, jnp.float32)
    if gate.shape != image.shape[:3]:
        raise ValueError(f"inside needs the image's shape {image.shape[:3]}, got {gate.shape}.")
    p = probabilities(logits)
    p = jnp.concatenate([1.0 - p, p], axis=-1) if p.shape[-1] == 1 else p
    number = _sums_of_squares(gate[..., None], reduce)
    image, p = (_sums_of_squares(each * gate[..., None], reduce) / jnp.maximum(number, 1.0) for each in (image, p))
    gate = (number > 0).astype(jnp.float32)
    fixed = jax.lax.stop_gradient(jnp.concatenate([gate * p, gate], axis=-1))
    message = _filtered(jax.lax.stop_gradient(image), fixed, radius, sigma_xy, sigma_color)
    alike, all_ = message[..., :-1], message[..., -1:]
    # Σ_i p_i·m_i with m = K p is quadratic in p, and K is symmetric: its gradient is 2 m, its value half of 2 p·m.
    agreement = jnp.sum(gate * p * alike)
    return jnp.sum(gate * all_) - 2.0 * agreement + jax.lax.stop_gradient(agreement), jnp.sum(gate)


def _sums_of_squares(x: jax.Array, side: int) -> jax.Array:
    """The sums over squares of `side` pixels, f32[b,h,w,c] -> f32[b,⌈h/side⌉,⌈w/side⌉,c]; what is beyond adds 0."""
    if side == 1:
        return x
    b, h, w, c = x.shape
    rows, columns = -(-h // side), -(-w // side)
    padded = jnp.pad(x, ((0, 0), (0, rows * side - h), (0, columns * side - w), (0, 0)))
    return jnp.sum(padded.reshape(b, rows, side, columns, side, c), axis=(2, 4))


def _filtered(image: jax.Array, x: jax.Array, radius: int, sigma_xy: float, sigma_color: float) -> jax.Array:
    """Σ_j k_ij x_j over the window around each pixel i but i itself: f32[b,h,w,c], f32[b,h,w,n] -> f32[b,h,w,n]."""
    around = ((0, 0), (radius, radius), (radius, radius), (0, 0))
    guide, values = jnp.pad(image / sigma_color, around), jnp.pad(x, around)  # beyond the image x is 0
    here, side = image / sigma_color, 2 * radius + 1

    def add(place: jax.Array, total: jax.Array) -> jax.Array:
        dy, dx = place // side, place % side
        there = jax.lax.dynamic_slice(guide, (0, dy, dx, 0), here.shape)
        near = (jnp.square(dy - radius) + jnp.square(dx - radius)).astype(jnp.float32) / sigma_xy**2
        kernel = jnp.exp(-0.5 * (near + jnp.sum(jnp.square(here - there), axis=-1, keepdims=True)))
        kernel = jnp.where(place == side * side // 2, 0.0, kernel)
        return total + kernel * jax.lax.dynamic_slice(values, (0, dy, dx, 0), x.shape)

    return jax.lax.fori_loop(0, side * side, add, jnp.zeros_like(x))
