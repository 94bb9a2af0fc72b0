"""Back-propagation by hand: gradients derived on paper, in float64 NumPy, that `jax.grad` must give.

Each derivation stands in the docstring of its function, with a layer's output gradient called g = dL/dy. Only sums and
products of NumPy appear below, no derivative of any library.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from jaxseg import losses, nn
from jaxseg.types import IGNORE

RNG = np.random.default_rng(0)


def close(ours, by_hand) -> None:
    """Equal to float32 accuracy, measured against the largest entry."""
    by_hand = np.asarray(by_hand)
    np.testing.assert_allclose(ours, by_hand, rtol=1e-5, atol=2e-6 * max(np.abs(by_hand).max(), 1e-3))


def batch(k: int, ignored: bool = True):
    """Logits f64[n,k], labels i[n] with some IGNORE."""
    labels = RNG.integers(0, max(k, 2), 40)
    if ignored:
        labels[::7] = IGNORE
    return RNG.normal(0, 2, (40, k)), labels


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def through_softmax(p, g):
    """dL/dz_j = Σ_c g_c dp_c/dz_j with dp_c/dz_j = p_c (δ_cj - p_j), so p_j (g_j - Σ_c g_c p_c)."""
    return p * (g - (g * p).sum(-1, keepdims=True))


def through_sigmoid(p, g):
    """dp/dz = p (1 - p)."""
    return g * p * (1 - p)


def loss_gradient(name: str, logits, labels, **options):
    """The gradient of the library's loss for logits [n,k], computed as for an image of n pixels in a row."""
    loss = losses.make_loss(name, num_classes=logits.shape[-1], **options)
    z = jnp.asarray(logits, jnp.float32)[None, None]
    return np.asarray(jax.jit(jax.grad(partial(loss, labels=labels[None, None])))(z))[0, 0]


def targets(labels, k: int):
    """(one-hot truth f64[n,k], valid f64[n,1]); the single column of k = 1 is the foreground."""
    valid = (labels != IGNORE)[:, None].astype(np.float64)
    onehot = np.eye(max(k, 2))[np.where(labels == IGNORE, 0, labels)]
    return onehot[:, -k:] * valid, valid


@pytest.mark.parametrize("k", [1, 4])
def test_mean_squared_error(k):
    """L = Σ_i v_i Σ_c (p_ic - t_ic)² / (k N), N = Σ v_i: dL/dp = 2 v (p - t) / (k N), then through the probability."""
    logits, labels = batch(k)
    t, valid = targets(labels, k)
    p = sigmoid(logits) if k == 1 else softmax(logits)
    g = 2 * valid * (p - t) / (k * valid.sum())
    close(loss_gradient("mse", logits, labels), through_sigmoid(p, g) if k == 1 else through_softmax(p, g))


@pytest.mark.parametrize("k", [1, 3])
def test_binary_cross_entropy(k):
    """L = -Σ v (t log p + (1-t) log(1-p)) / (k N): dL/dp = v (p - t) / (p (1-p) k N), so dL/dz = v (p - t) / (k N)."""
    logits, labels = batch(k)
    t, valid = targets(labels, k)
    p = sigmoid(logits)
    close(loss_gradient("binary_cross_entropy", logits, labels), valid * (p - t) / (k * valid.sum()))
    through_the_quotient = through_sigmoid(p, valid * (p - t) / (p * (1 - p)) / (k * valid.sum()))
    close(loss_gradient("binary_cross_entropy", logits, labels), through_the_quotient)


def test_cross_entropy():
    """L = -Σ v Σ_c t_c log p_c / N: dL/dp_c = -t_c / p_c / N; through softmax p_j (-t_j / p_j + Σ t_c) = p_j - t_j."""
    logits, labels = batch(5)
    t, valid = targets(labels, 5)
    p = softmax(logits)
    close(loss_gradient("cross_entropy", logits, labels), valid * (p - t) / valid.sum())
    close(loss_gradient("cross_entropy", logits, labels), through_softmax(p, -t / p / valid.sum()))


def test_weighted_and_smoothed_cross_entropy():
    """With a_c = w_c ((1-s) t_c + s/k): L = -Σ v Σ_c a_c log p_c / Σ v w_y, dL/dz = v (p Σ_c a_c - a) / Σ v w_y."""
    logits, labels = batch(4)
    t, valid = targets(labels, 4)
    w, s = np.array([0.5, 1.0, 2.0, 3.0]), 0.1
    a = valid * w * ((1 - s) * t + s / 4)
    expected = (softmax(logits) * a.sum(-1, keepdims=True) - a) / (t * w).sum()
    close(loss_gradient("cross_entropy", logits, labels, class_weights=w, label_smoothing=s), expected)


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("squared", [True, False])
def test_dice(squared, k):
    """L = (1/k) Σ_c 1 - 2 I_c / U_c, I = Σ v p t and U = Σ v p^q + Σ t, q = 2 or 1.

    Quotient rule: dL/dp = -(2/k) v (t U - I q p^(q-1)) / U², then through the probability.
    """
    logits, labels = batch(k)
    t, valid = targets(labels, k)
    p = sigmoid(logits) if k == 1 else softmax(logits)
    intersection = (p * t).sum(0)
    union = (valid * (p * p if squared else p)).sum(0) + t.sum(0)
    inner = 2 * p if squared else 1.0
    g = -(2 / k) * valid * (t * union - intersection * inner) / union**2
    expected = through_sigmoid(p, g) if k == 1 else through_softmax(p, g)
    close(loss_gradient("dice", logits, labels, args={"dice": {"squared": squared}}), expected)


def test_dense_layer():
    """y = x W + b: dL/dW = xᵀ g, dL/db = Σ_i g_i, dL/dx = g Wᵀ."""
    x, w, b, g = (RNG.normal(size=s) for s in ((6, 5), (5, 3), (3,), (6, 3)))
    layer = linen.Dense(3)

    def total(params, x):
        return jnp.sum(layer.apply({"params": params}, x) * jnp.asarray(g, jnp.float32))

    params = {"kernel": jnp.asarray(w, jnp.float32), "bias": jnp.asarray(b, jnp.float32)}
    by_params, by_x = jax.grad(total, (0, 1))(params, jnp.asarray(x, jnp.float32))
    close(by_params["kernel"], x.T @ g)
    close(by_params["bias"], g.sum(0))
    close(by_x, g @ w.T)


def test_two_dense_layers_and_a_softmax():
    """The chain: with h = relu(x W1 + b1), z = h W2 + b2 and δ2 = (p - t)/n, δ1 = (δ2 W2ᵀ) · [h > 0]."""
    x, w1, b1, w2, b2 = (RNG.normal(size=s) for s in ((8, 4), (4, 6), (6,), (6, 3), (3,)))
    labels = RNG.integers(0, 3, 8)
    h = np.maximum(x @ w1 + b1, 0)
    d2 = (softmax(h @ w2 + b2) - np.eye(3)[labels]) / 8
    d1 = (d2 @ w2.T) * (h > 0)

    def value(params):
        w1, b1, w2, b2 = params
        hidden = jax.nn.relu(jnp.asarray(x, jnp.float32) @ w1 + b1[None])
        return losses.divide(*losses.cross_entropy(hidden @ w2 + b2[None], jnp.asarray(labels)))

    ours = jax.jit(jax.grad(value))([jnp.asarray(a, jnp.float32) for a in (w1, b1, w2, b2)])
    for gradient, by_hand in zip(ours, (x.T @ d1, d1.sum(0), h.T @ d2, d2.sum(0))):
        close(gradient, by_hand)


def convolution_by_hand(x, kernel, g, stride: int, dilation: int, groups: int):
    """Gradients of y[i,j,o] = Σ_{u,v,c} xp[s i + d u, s j + d v, c] K[u,v,c,o], xp padded by p = d (k-1)/2.

    y touches each xp once per tap, so dL/dK[u,v,c,o] = Σ_{b,i,j} g[i,j,o] xp[s i + d u, s j + d v, c] (a correlation of
    input and output gradient) and dL/dxp[s i + d u, s j + d v, c] += Σ_o g[i,j,o] K[u,v,c,o] (the transposed
    convolution); dL/dx cuts the padding off. Returns (dL/dx, dL/dK, dL/db).
    """
    k, pad = kernel.shape[0], dilation * (kernel.shape[0] - 1) // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    d_padded, d_kernel = np.zeros_like(padded), np.zeros_like(kernel)
    rows, columns = g.shape[1:3]
    inputs, outputs = x.shape[-1] // groups, g.shape[-1] // groups
    for u in range(k):
        for v in range(k):
            at = (
                slice(None),
                slice(dilation * u, dilation * u + stride * (rows - 1) + 1, stride),
                slice(dilation * v, dilation * v + stride * (columns - 1) + 1, stride),
            )
            for q in range(groups):
                c, o = slice(q * inputs, (q + 1) * inputs), slice(q * outputs, (q + 1) * outputs)
                d_kernel[u, v, :, o] = np.einsum("bijc,bijo->co", padded[at][..., c], g[..., o])
                d_padded[at][..., c] += np.einsum("bijo,co->bijc", g[..., o], kernel[u, v, :, o])
    h, w = x.shape[1:3]
    return d_padded[:, pad : pad + h, pad : pad + w], d_kernel, g.sum((0, 1, 2))


@pytest.mark.parametrize(
    "size, kernel_size, stride, dilation, groups",
    [
        ((6, 7), 3, 1, 1, 1),
        ((6, 7), 3, 2, 1, 1),
        ((9, 8), 3, 1, 2, 1),
        ((5, 5), 1, 1, 1, 1),
        ((6, 6), 1, 2, 1, 1),
        ((7, 6), 5, 2, 1, 1),
        ((6, 7), 3, 1, 1, 2),
        ((6, 7), 3, 2, 1, 4),
        ((1, 1), 3, 1, 1, 1),
    ],
)
def test_convolution(size, kernel_size, stride, dilation, groups):
    c, o = 4, 8
    x = RNG.normal(size=(2, *size, c))
    kernel = RNG.normal(size=(kernel_size, kernel_size, c // groups, o))
    layer = nn.Conv(o, kernel_size=kernel_size, stride=stride, dilation=dilation, groups=groups)
    params = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.zeros(o)}
    x32 = jnp.asarray(x, jnp.float32)
    shape = jax.eval_shape(layer.apply, {"params": params}, x32).shape
    g = RNG.normal(size=shape)

    @jax.jit
    def gradients(params, x):
        return jax.grad(lambda p, x: jnp.sum(layer.apply({"params": p}, x) * jnp.asarray(g, jnp.float32)), (0, 1))(
            params, x
        )

    by_params, by_x = gradients(params, x32)
    d_x, d_kernel, d_bias = convolution_by_hand(x, kernel, g, stride, dilation, groups)
    close(by_x, d_x)
    close(by_params["kernel"], d_kernel)
    close(by_params["bias"], d_bias)


def max_pool_by_hand(x, g, window: int, stride: int):
    """y = max over a window: the whole of g goes to the first pixel that holds the maximum, and windows add."""
    d_x = np.zeros(x.shape)
    b, rows, columns, c = g.shape
    for n, i, j, f in np.ndindex(b, rows, columns, c):
        tile = x[n, i * stride : i * stride + window, j * stride : j * stride + window, f]
        u, v = np.unravel_index(np.argmax(tile), tile.shape)
        d_x[n, i * stride + u, j * stride + v, f] += g[n, i, j, f]
    return d_x


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("size, window, stride", [((6, 8), 2, 2), ((5, 7), 2, 2), ((7, 7), 3, 2), ((6, 6), 3, 1)])
def test_max_pooling(size, window, stride, ties):
    x = RNG.normal(size=(2, *size, 3)).astype(np.float32)
    if ties:
        x = np.round(x)  # a handful of values, so that most windows have several maxima
    shape = jax.eval_shape(lambda x: nn.max_pool(x, window, stride), x).shape
    g = RNG.normal(size=shape).astype(np.float32)
    ours = jax.jit(jax.grad(lambda x: jnp.sum(nn.max_pool(x, window, stride) * g)))(x)
    close(ours, max_pool_by_hand(x, g.astype(np.float64), window, stride))


def test_a_small_network_end_to_end():
    """Convolution, ReLU, 2x2 max pooling, 1x1 convolution, Dice and cross-entropy: each rule above, chained."""
    x, kernel, head = (RNG.normal(size=s) for s in ((2, 6, 6, 2), (3, 3, 2, 4), (1, 1, 4, 3)))
    labels = RNG.integers(0, 3, (2, 3, 3))
    labels[0, 0] = IGNORE
    loss = losses.make_loss("cross_entropy + 0.5 * dice", num_classes=3)

    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    a = sum(
        np.einsum("bijc,co->bijo", padded[:, u : u + 6, v : v + 6], kernel[u, v]) for u in range(3) for v in range(3)
    )
    r = np.maximum(a, 0)
    m = r.reshape(2, 3, 2, 3, 2, 4).max((2, 4))
    z = m @ head[0, 0]
    p = softmax(z).reshape(-1, 3)
    t, valid = targets(labels.ravel(), 3)
    present, n = t.sum(0) > 0, valid.sum()
    intersection, union = (p * t).sum(0), (valid * p * p).sum(0) + t.sum(0)
    g_dice = np.where(present, -(2 / 3) * valid * (t * union - intersection * 2 * p) / union**2, 0.0)
    d_z = (valid * (p - t) / n + 0.5 * through_softmax(p, g_dice)).reshape(z.shape)
    d_head = np.einsum("bijc,bijo->co", m, d_z)[None, None]
    d_a = max_pool_by_hand(r, d_z @ head[0, 0].T, 2, 2) * (a > 0)
    d_x, d_kernel, _ = convolution_by_hand(x, kernel, d_a, 1, 1, 1)

    @jax.jit
    def gradients(x, kernel, head):
        def value(x, kernel, head):
            hidden = nn.max_pool(jax.nn.relu(nn.conv2d(x, kernel, padding=1)), 2)
            return loss(nn.conv2d(hidden, head), labels)

        return jax.grad(value, (0, 1, 2))(x, kernel, head)

    ours = gradients(*(jnp.asarray(v, jnp.float32) for v in (x, kernel, head)))
    for gradient, by_hand in zip(ours, (d_x, d_kernel, d_head)):
        close(gradient, by_hand)
