"""Attention over tokens and over pixels, the attention gate of skips, and squeeze-and-excitation."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jaxseg.arguments import check_value
from jaxseg.nn.conv import Conv, check_image
from jaxseg.nn.dense import Dense, parameter
from jaxseg.nn.initializers import lecun_normal, normal, xavier_uniform
from jaxseg.nn.layers import BARE, Layers
from jaxseg.nn.ops.dot_product import dot_product_attention
from jaxseg.nn.ops.pooling import global_avg_pool
from jaxseg.nn.ops.resize import resize
from jaxseg.nn.ops.sizes import Side, array_module, is_known
from jaxseg.types import Activation, Array, Initializer


class MultiHeadAttention(nn.Module):
    """Multi-head attention (Vaswani 2017, section 3.2.2): query f[b,q,c], key and value f[b,t,e] -> f[b,q,c].

    The caller adds positions, residual connection and norm. Children: "query", "key", "value", "out".

    Attributes:
        num_heads: n; must divide c.
        kernel_init: initialiser of the kernels of all four projections.
        key_bias: whether the projection of the keys has a bias. Without rotation it has no effect on the result.
        dtype: compute dtype; the softmax is float32.

    Raises:
        ValueError: if the heads do not divide c.
    """

    num_heads: int
    kernel_init: Initializer = xavier_uniform
    key_bias: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        query: jax.Array,
        key: jax.Array | None = None,
        value: jax.Array | None = None,
        mask: jax.Array | None = None,
        rotate: Callable[[jax.Array], jax.Array] | None = None,
    ) -> jax.Array:
        """Attends; the key defaults to the query, the value to the key.

        Args:
            query: f[b,q,c].
            key: f[b,t,e].
            value: f[b,t,v].
            mask: bool[b,n,q,t] or bool[b,1,q,t], False where a query must not attend.
            rotate: f[b,t,n,d] -> f[b,t,n,d], applied to queries and keys of each head: a rotary position encoding.
        """
        key = query if key is None else key
        value = key if value is None else value
        width = query.shape[-1]
        if width % self.num_heads:
            raise ValueError(f"MultiHeadAttention of {width} features cannot have {self.num_heads} heads.")

        def project(x: jax.Array, name: str, bias: bool = True) -> jax.Array:
            y = Dense(width, use_bias=bias, dtype=self.dtype, kernel_init=self.kernel_init, name=name)(x)
            return y.reshape(*x.shape[:2], self.num_heads, width // self.num_heads)

        q, k, v = project(query, "query"), project(key, "key", self.key_bias), project(value, "value")
        if rotate is not None:
            q, k = rotate(q), rotate(k)
        y = dot_product_attention(q, k, v, mask=mask).reshape(query.shape)
        return Dense(width, dtype=self.dtype, kernel_init=self.kernel_init, name="out")(y)


class SelfAttention2D(nn.Module):
    """Multi-head self-attention over the t = h w pixels (Vaswani 2017, eq. 1): f[b,h,w,c] -> f[b,h,w,c].

    The caller adds residual connection and norm. Children: "query", "key", "value", "out".

    Attributes:
        num_heads: n.
        qkv_features: n d, the width of queries, keys and values together; None is c.
        position: encoding of a pixel's position that is added to the input. "sincos": half of the channels encode the
            row and half the column (Vaswani 2017, section 3.5, for each axis). "learned": a table f32[*table_size,c],
            resized bilinearly to h x w. "none": no encoding.
        table_size: rows and columns of the learned table.
        sow_weights: stores the attention weights f32[b,n,t,t] in the collection "intermediates" as "attention"; this
            computes them a second time.
        out_init: initialiser of the kernel of "out"; with zeros a residual block starts as the identity.
        dtype: compute dtype; the softmax is float32.

    Raises:
        ValueError: if the heads do not divide qkv_features, or for an unknown position.
    """

    num_heads: int = 4
    qkv_features: int | None = None
    position: str = "sincos"
    table_size: tuple[int, int] = (16, 16)
    sow_weights: bool = False
    out_init: Initializer = lecun_normal
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        check_image(x, "SelfAttention2D")
        b, h, w, c = x.shape
        width = self.qkv_features or c
        if width % self.num_heads:
            raise ValueError(f"SelfAttention2D of {width} features cannot have {self.num_heads} heads of equal width.")
        (x,) = promote_dtype(x, dtype=self.dtype)
        tokens = (x + self._position(h, w, c).astype(x.dtype)).reshape(b, h * w, c)

        def project(name: str) -> jax.Array:
            y = Dense(width, dtype=self.dtype, kernel_init=xavier_uniform, name=name)(tokens)
            return y.reshape(b, h * w, self.num_heads, width // self.num_heads)

        query, key, value = project("query"), project("key"), project("value")
        y = dot_product_attention(query, key, value).reshape(b, h * w, width)
        if self.sow_weights:
            scores = jnp.einsum("bqnd,bknd->bnqk", query, key, preferred_element_type=jnp.float32)
            self.sow("intermediates", "attention", jax.nn.softmax(scores / np.sqrt(width // self.num_heads), axis=-1))
        return Dense(c, dtype=self.dtype, kernel_init=self.out_init, name="out")(y).reshape(b, h, w, c)

    def _position(self, h: int, w: int, c: int) -> jax.Array:
        if self.position == "sincos":
            return jnp.asarray(sincos_position(h, w, c))[None]
        if self.position == "learned":
            table = parameter(self, "position", normal(0.02), (*self.table_size, c))
            return resize(table[None], (h, w))
        check_value("SelfAttention2D.position", self.position, Literal["sincos", "learned", "none"])
        return jnp.zeros((1, 1, 1, 1), jnp.float32)


def sincos_position(h: Side, w: Side, c: int, temperature: float = 10000.0) -> Array:
    """Returns sines and cosines of row and column at c / 4 geometric frequencies, f32[h,w,c] (Vaswani 2017, sec. 3.5).

    Channels repeat (sin row, cos row, sin column, cos column); where 4 does not divide c, the last group is cut.
    """
    quarter = -(-c // 4)
    frequency = (temperature ** (-np.arange(quarter) / quarter)).reshape(1, 1, -1)
    xp = array_module(h, w)
    row = xp.arange(h)[:, None, None] * frequency + xp.zeros((1, w, 1))
    column = xp.arange(w)[None, :, None] * frequency + xp.zeros((h, 1, 1))
    waves = xp.stack([xp.sin(row), xp.cos(row), xp.sin(column), xp.cos(column)], axis=-1)
    return waves.reshape(h, w, 4 * quarter)[..., :c].astype(np.float32)


class AttentionGate(nn.Module):
    """Weights a skip by a coarser gate (Oktay 2018, eqs. 1-2): f[b,h,w,c], f[b,y,x,g] -> (f[b,h,w,c], f[b,h,w,1]).

    alpha = sigmoid(psi(relu(theta(skip) + phi(gate)))) on the gate's grid, resized bilinearly to the skip's, and
    multiplied with it; alpha is the second result. Children: "theta" (kernel = stride = the ratio of the sizes), "phi"
    and "psi".

    Attributes:
        inter_features: channels of theta and phi; None is c / 2.
        common: gives the activation between them and the dtype.
    """

    inter_features: int | None = None
    common: Layers = BARE

    @nn.compact
    def __call__(self, skip: jax.Array, gate: jax.Array, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        del train
        check_image(skip, "AttentionGate")
        check_image(gate, "AttentionGate")
        h, w, c = skip.shape[1:]
        features = self.inter_features or max(1, c // 2)
        known = is_known(h, w, gate.shape[1])
        ratio = min(max(1, round(h / gate.shape[1])), h, w) if known else h // gate.shape[1]
        dtype = self.common.dtype
        # Windows that cover the map, extended at its end: alpha, enlarged by their ratio, then lies where they do.
        bottom, right = -h % ratio, -w % ratio
        extended = (bottom, right) != (0, 0)
        whole = jnp.pad(skip, ((0, 0), (0, bottom), (0, right), (0, 0)), mode="edge") if extended else skip
        theta = Conv(features, ratio, stride=ratio, padding=0, use_bias=False, dtype=dtype, name="theta")(whole)
        phi = Conv(features, 1, dtype=dtype, name="phi")(gate)
        score = Conv(1, 1, dtype=dtype, name="psi")(self.common.activate(theta + resize(phi, theta.shape[1:3])))
        alpha = resize(nn.sigmoid(score), (h + bottom, w + right)).astype(skip.dtype)
        alpha = alpha[:, :h, :w] if extended else alpha
        return skip * alpha, alpha


class SqueezeExcite(nn.Module):
    """Channel gates from the image's mean (Hu 2018, eqs. 2-4): f[b,h,w,c] -> f[b,h,w,c]. Children: "reduce", "expand".

    Attributes:
        ratio: the layer between the two convolutions has c / ratio features, at least 1.
        features: the number of these features itself; it replaces the ratio.
        act: the activation between the convolutions.
        gate: the activation after them, whose results multiply the channels.
        dtype: compute dtype.
    """

    ratio: int = 16
    features: int | None = None
    act: Activation = nn.relu
    gate: Activation = nn.sigmoid
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        check_image(x, "SqueezeExcite")
        c = x.shape[-1]
        features = max(1, c // self.ratio) if self.features is None else self.features
        y = Conv(features, 1, dtype=self.dtype, name="reduce")(global_avg_pool(x))
        gate = self.gate(Conv(c, 1, dtype=self.dtype, name="expand")(self.act(y)))
        return x * gate.astype(x.dtype)
