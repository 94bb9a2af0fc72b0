"""Products in the forms that suit a GPU: of half precision in the gradient too, and of images without transposes.

A GPU multiplies matrices of half precision several times as fast as those of float32. Where a product is summed in
float32, so is the gradient that comes back to it, and the automatic one multiplies float32 with half precision, which
XLA does in float32. Here that gradient is rounded before it is multiplied.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxseg.nn.ops.forms import convolution_forms
from jaxseg.nn.ops.tracing import traced_once

_einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def product(pattern: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """`jnp.einsum(pattern, a, b)` of two arrays of one dtype, summed in float32 -> f32.

    Args:
        pattern: such as "byxc,bqc->byxq"; each letter of an operand must be in the result or in the other operand.
        a: left operand.
        b: right operand.
    """
    return _product(pattern, a, b) if _is_half(a) else _einsum(pattern, a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(pattern: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return _einsum(pattern, a, b)


def _backward(pattern: str, saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    a, b = saved
    operands, _, result = pattern.partition("->")
    left, _, right = operands.partition(",")
    dy = dy.astype(a.dtype)
    da = _einsum(f"{result},{right}->{left}", dy, b)
    db = _einsum(f"{left},{result}->{right}", a, dy)
    return da.astype(a.dtype), db.astype(b.dtype)


_product.defvjp(lambda pattern, a, b: (_einsum(pattern, a, b), (a, b)), _backward)


def along_axis(matrix: np.ndarray, x: jax.Array, axis: int) -> jax.Array:
    """Multiplies the rows (axis 1) or columns (axis 2) of f[b,h,w,c] by a constant f32[n,m], where m is h or w.

    It is summed in float32 and has the dtype of x: f[b,n,w,c] or f[b,h,n,c].
    """
    if convolution_forms() == "plain":
        return _in_float32(matrix, x, axis)
    return lax.platform_dependent(
        x,
        cpu=lambda x: _in_float32(matrix, x, axis),
        default=lambda x: _in_place(matrix, x, axis),
    )


@traced_once("axis")
def _in_float32(matrix: np.ndarray, x: jax.Array, axis: int) -> jax.Array:
    pattern = "yh,bhwc->bywc" if axis == 1 else "xw,bhwc->bhxc"
    return jnp.einsum(pattern, matrix, x.astype(jnp.float32), precision="highest").astype(x.dtype)


def _in_place(matrix: np.ndarray, x: jax.Array, axis: int) -> jax.Array:
    """Each image (axis 1) or row (axis 2) has a copy of the matrix, and with it a product of its own: x stays in place.

    One product with all images would transpose x and the result. Where the copies would need more memory than these,
    which few channels do, it is one product after all.

    In half precision the matrix is the sum of two of half precision, so that its values keep 16 bits: a single one
    would move samples and change means.
    """

    def multiply(matrix: np.ndarray, x: jax.Array) -> jax.Array:
        if axis == 1:
            pattern, shared = "bnh,bhwc->bnwc", x.shape[:1]
        elif matrix.size <= sum(matrix.shape) * x.shape[-1]:
            pattern, shared = "bhnw,bhwc->bhnc", x.shape[:2]
        else:
            pattern, shared = "nw,bhwc->bhnc", ()

        def with_part(part: np.ndarray) -> jax.Array:
            return _einsum(pattern, jnp.broadcast_to(part, (*shared, *part.shape)), x, precision="highest")

        if not _is_half(x):
            return with_part(matrix).astype(x.dtype)
        coarse = matrix.astype(x.dtype)
        fine = (matrix - coarse.astype(np.float32)).astype(x.dtype)
        return (with_part(coarse) + with_part(fine)).astype(x.dtype)

    @jax.custom_vjp
    def forward(x: jax.Array) -> jax.Array:
        return multiply(matrix, x)

    forward.defvjp(lambda x: (multiply(matrix, x), None), lambda _, dy: (multiply(matrix.T, dy),))
    return forward(x)


def _is_half(x: jax.Array) -> bool:
    return x.dtype in (jnp.bfloat16, jnp.float16)
