"""Mean-field inference in a conditional random field (CRF) in which every pixel is connected with every other one.

Krähenbühl and Koltun 2011, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials". The pairwise
kernels are a Gaussian of the distance between two pixels (smoothness) and one of distance and colour (appearance).
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg.arguments import check_value
from jaxseg.errors import ArgumentError
from jaxseg.nn.ops.by_device import by_device
from jaxseg.nn.ops.permutohedral import lattice, lattice_filter

Normalization = Literal["after", "symmetric", "none"]
Method = Literal["fast", "exact"]
Filter: TypeAlias = Callable[[jax.Array], jax.Array]
"""A linear map of images, f[b,h,w,k] -> f[b,h,w,k], the same for each of the k channels."""
Weight: TypeAlias = float | jax.Array

REACH = 4.0
"""A smoothness kernel ends at this many standard deviations, where it is 3e-4 of its height."""
_PAIRS = 2**22  # pairs of pixels of one block of the exact filter
_FEWEST_VERTICES = 2**14


def dense_crf(
    logits: jax.Array,
    image: jax.Array,
    *,
    smooth_weight: Weight = 3.0,
    smooth_xy: Weight = 3.0,
    appearance_weight: Weight = 4.0,
    appearance_xy: Weight = 49.0,
    appearance_rgb: Weight = 5.0,
    compatibility: jax.Array | None = None,
    iterations: int = 10,
    normalization: str = "after",
    method: str = "fast",
    capacity: int | None = None,
    radius: int | None = None,
) -> jax.Array:
    """Refines f[b,h,w,k], unary logits, to f[b,h,w,k], whose softmax is the mean field Q after the iterations.

    One iteration is algorithm 1 of Krähenbühl and Koltun 2011, from Q = softmax(logits):
    m = Σ_n w_n K_n Q, and then Q = softmax(logits - m μᵀ). The kernels are those of equation 3:
    exp(-|p_i - p_j|² / 2 θ_γ² ) and exp(-|p_i - p_j|² / 2 θ_α² - |I_i - I_j|² / 2 θ_β²). As in the code of the authors,
    the sum over j includes the pixel itself. It is differentiable with respect to logits, weights and compatibility;
    no gradient flows to the image.

    Args:
        logits: ψ = -logits are the unary potentials, up to a constant for each pixel.
        image: f[b,h,w,c], colours from 0 to 255.
        smooth_weight: w of the smoothness kernel: a number, or one for each class, f[k].
        smooth_xy: θ_γ, its standard deviation in pixels.
        appearance_weight: w of the appearance kernel: a number, or one for each class, f[k].
        appearance_xy: θ_α, its standard deviation in pixels.
        appearance_rgb: θ_β, its standard deviation in units of colour.
        compatibility: μ f[k,k], the penalty for class l (row) beside class m (column); None: Potts, μ = [l ≠ m].
        iterations: of the mean field.
        normalization: of each kernel: "after" divides the message to pixel i by Σ_j k_ij, "symmetric" divides k_ij by
            the root of this at i and at j, "none" keeps the sums.
        method: of the appearance kernel: "fast", by a permutohedral lattice in time that grows with the pixels, or
            "exact", over all pairs of pixels in blocks.
        capacity: vertices of the lattice of an image, see `default_capacity`; what is above it is left out.
        radius: pixels at which the smoothness kernel ends. Default: REACH * smooth_xy, which is then a number.

    Raises:
        ArgumentError: for shapes that do not fit, or an unknown normalisation or method.
    """
    check_value("normalization", normalization, Normalization)
    check_value("method", method, Method)
    if logits.ndim != 4 or image.ndim != 4 or logits.shape[:3] != image.shape[:3]:
        raise ArgumentError(
            f"dense_crf takes logits [b,h,w,k] and an image [b,h,w,c] of one size, got {logits.shape} and "
            f"{image.shape}."
        )
    h, w, k = logits.shape[1:]
    if compatibility is not None and compatibility.shape != (k, k):
        raise ArgumentError(f"compatibility of {k} classes has the shape ({k}, {k}), got {compatibility.shape}.")
    if radius is None:
        radius = kernel_radius(float(smooth_xy))
    if capacity is None:
        capacity = default_capacity(h, w, image.shape[-1])

    def infer(logits: jax.Array, image: jax.Array, *numbers: jax.Array) -> jax.Array:
        smooth, appearance, theta, theta_xy, theta_rgb, *mu = numbers
        shape = (*logits.shape[:3], 1)
        features = pixel_features(image.astype(logits.dtype), theta_xy, theta_rgb)
        filters: list[Filter] = [functools.partial(smooth_filter, theta=theta, radius=radius)]
        filters.append(exact_filter(features) if method == "exact" else fast_filter(features, capacity))
        filters = [normalized(each, shape, logits.dtype, normalization) for each in filters]
        return mean_field(logits, filters, (smooth, appearance), mu[0] if mu else None, iterations)

    numbers = [jnp.asarray(v, logits.dtype) for v in (smooth_weight, appearance_weight)]
    numbers += [jnp.asarray(v, logits.dtype) for v in (smooth_xy, appearance_xy, appearance_rgb)]
    numbers += [] if compatibility is None else [compatibility]
    return by_device(infer, logits, image, *numbers, axes=[0, 0, *[None] * len(numbers)])


def default_capacity(height: int, width: int, channels: int) -> int:
    """Returns how many vertices an image of this size gets: one for each pixel, or as many as a small one may need.

    Photographs need 0.05 to 0.6 for each pixel, with the published θ. Noise in the colours may need up to d + 1 = 6.
    """
    pixels = height * width
    return min((channels + 3) * pixels, max(pixels, _FEWEST_VERTICES))


def kernel_radius(theta: float) -> int:
    """Returns the pixels at which a smoothness kernel of standard deviation `theta` ends."""
    return max(1, math.ceil(REACH * theta))


def mean_field(
    logits: jax.Array,
    filters: Sequence[Filter],
    weights: Sequence[Weight],
    compatibility: jax.Array | None,
    iterations: int,
) -> jax.Array:
    """f[b,h,w,k] -> f[b,h,w,k]: the logits after the iterations of the mean field; see `dense_crf`."""
    k = logits.shape[-1]
    weights = [jnp.broadcast_to(jnp.asarray(weight, logits.dtype), (k,)).reshape(1, 1, 1, k) for weight in weights]

    def iterate(refined: jax.Array, _: None) -> tuple[jax.Array, None]:
        q = jax.nn.softmax(refined)
        message = jnp.asarray(sum(weight * each(q) for weight, each in zip(weights, filters, strict=True)))
        if compatibility is None:  # Σ_m [l ≠ m] message_m is a constant without message_l, and softmax drops constants
            return logits + message, None
        return logits - jnp.einsum("bhwm,lm->bhwl", message, compatibility, precision="highest"), None

    # The backward pass computes each iteration again from its Q.
    return lax.scan(jax.checkpoint(iterate), logits, None, length=iterations)[0]


def normalized(each: Filter, shape: tuple[int, ...], dtype: jnp.dtype, normalization: str) -> Filter:
    """Returns a filter with a symmetric kernel k as D⁻¹ k ("after") or D^-½ k D^-½ ("symmetric"), D_i = Σ_j k_ij.

    Args:
        each: the filter.
        shape: (b, h, w, 1).
        dtype: of the images.
        normalization: "after", "symmetric" or "none".
    """
    if normalization == "none":
        return each
    total = jnp.maximum(each(jnp.ones(shape, dtype)), jnp.finfo(dtype).tiny ** 0.5)
    if normalization == "after":
        return lambda x: each(x) / total
    root = lax.rsqrt(total)
    return lambda x: root * each(root * x)


def pixel_features(image: jax.Array, theta_xy: Weight, theta_rgb: Weight) -> jax.Array:
    """f[b,h,w,c] -> f[b,h,w,2+c]: place and colour of each pixel, in standard deviations."""
    b, h, w, _ = image.shape
    y, x = jnp.meshgrid(jnp.arange(h, dtype=image.dtype), jnp.arange(w, dtype=image.dtype), indexing="ij")
    place = jnp.broadcast_to(jnp.stack([y, x], -1), (b, h, w, 2))
    return lax.stop_gradient(jnp.concatenate([place / theta_xy, image / theta_rgb], -1))


def smooth_filter(x: jax.Array, theta: Weight, radius: int) -> jax.Array:
    """f[b,h,w,k] -> f[b,h,w,k]: Σ_j exp(-|p_i - p_j|² / 2 θ²) x_j over the pixels within `radius` in each axis."""
    b, h, w, k = x.shape
    x = _blur_axis(x.reshape(b, h, w * k), theta, min(radius, h - 1))
    return _blur_axis(x.reshape(b * h, w, k), theta, min(radius, w - 1)).reshape(b, h, w, k)


def _blur_axis(x: jax.Array, theta: Weight, radius: int) -> jax.Array:
    """Blurs the middle axis of f[r,n,c] by shifted sums, which XLA makes one loop of."""
    return _blurred(x, jnp.exp(-0.5 * (jnp.arange(radius + 1, dtype=x.dtype) / theta) ** 2))


@jax.custom_vjp
def _blurred(x: jax.Array, taps: jax.Array) -> jax.Array:
    radius, size = len(taps) - 1, x.shape[1]
    padded = lax.optimization_barrier(jnp.pad(x, ((0, 0), (radius, radius), (0, 0))))
    at = functools.partial(lax.dynamic_slice_in_dim, padded, slice_size=size, axis=1)
    y = taps[0] * at(radius)
    for t in range(1, radius + 1):
        y = y + taps[t] * (at(radius - t) + at(radius + t))
    return lax.optimization_barrier(y)


# The kernel is symmetric, so that the gradient is the same blur.
_blurred.defvjp(lambda x, taps: (_blurred(x, taps), taps), lambda taps, dy: (_blurred(dy, taps), None))


def fast_filter(features: jax.Array, capacity: int) -> Filter:
    """Returns the filter with the kernel exp(-|f_i - f_j|² / 2) of f[b,h,w,d], approximately, by a lattice."""
    b, h, w, d = features.shape
    graph = lattice(features.reshape(b, h * w, d), capacity)
    return lambda x: lattice_filter(graph, x.reshape(b, h * w, x.shape[-1])).reshape(x.shape)


def exact_filter(features: jax.Array) -> Filter:
    """Returns the filter with the kernel exp(-|f_i - f_j|² / 2) of f[b,h,w,d], over all pairs, in blocks of pixels."""
    b, h, w, d = features.shape
    flat = features.reshape(b, h * w, d)
    return lambda x: _all_pairs(flat, x.reshape(b, h * w, x.shape[-1])).reshape(x.shape)


@jax.custom_vjp
def _all_pairs(features: jax.Array, x: jax.Array) -> jax.Array:
    b, n, d = features.shape
    block = min(n, max(1, _PAIRS // n))
    blocks = -(-n // block)
    rows = jnp.pad(features, ((0, 0), (0, blocks * block - n), (0, 0))).reshape(b, blocks, block, d)

    def filtered(rows: jax.Array, features: jax.Array, x: jax.Array) -> jax.Array:
        distance = jnp.asarray(sum((rows[:, i, None] - features[None, :, i]) ** 2 for i in range(d)))
        return jnp.matmul(jnp.exp(-0.5 * distance), x, precision="highest")

    def image(arrays: tuple[jax.Array, ...]) -> jax.Array:
        rows, features, x = arrays
        return lax.map(lambda each: filtered(each, features, x), rows).reshape(blocks * block, -1)[:n]

    return lax.map(image, (rows, features, x))


_all_pairs.defvjp(
    lambda features, x: (_all_pairs(features, x), features), lambda features, dy: (None, _all_pairs(features, dy))
)
