"""EncNet against its paper: the encoding layer in float64, the whole network in torch, and the loss of presences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.papers import compare, conv, count, normed
from helpers.parity import images
from helpers.tiny_models import tiny
from helpers.variables import drawn, paths, shapes
from jax.test_util import check_grads

from jaxseg import models
from jaxseg.losses import make_loss
from jaxseg.losses.semantic_encoding import semantic_encoding
from jaxseg.models.encnet import ContextEncoding, Encoding
from jaxseg.types import IGNORE


def encode(x: np.ndarray, d: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Equation 1, pixel by pixel: f[n,c], f[q,c], f[q] -> f[q,c]."""
    e = np.zeros(d.shape)
    for pixel in x.astype(np.float64):
        residual = pixel - d
        share = np.exp(-s * (residual**2).sum(-1))
        e += (share / share.sum())[:, None] * residual
    return e


@pytest.mark.parametrize("aggregate", ["sum", "mean"])
def test_encoding_is_equation_1(aggregate):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 3, 6)) + 2.0  # off centre: where the expanded square could lose digits
    d, s = rng.normal(size=(4, 6)) + 2.0, rng.uniform(0.1, 1.0, 4)
    variables = {"params": {"codewords": jnp.asarray(d, jnp.float32), "scale": jnp.asarray(s, jnp.float32)}}
    layer = Encoding(4, aggregate)
    found = jax.jit(layer.apply)(variables, jnp.asarray(x, jnp.float32))
    expected = np.stack([encode(image.reshape(15, 6), d, s) for image in x])
    np.testing.assert_allclose(found, expected / (15 if aggregate == "mean" else 1), rtol=1e-4, atol=1e-4)


def test_gradient_of_the_encoding():
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(1, 2, 2, 3)), jnp.float32)
    variables = drawn(Encoding(3), x)
    check_grads(lambda v, x: Encoding(3).apply(v, x), (variables, x), order=1, modes=["rev"], rtol=1e-2, atol=1e-2)


def test_context_gates_channels():
    """Every pixel of a channel is multiplied by the same number between 1 and 2."""
    x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 4, 3, 5)), jnp.float32)
    model = ContextEncoding(3)
    (gated, context), _ = jax.jit(lambda v, x: (model.apply(v, x), 0))(drawn(model, x), x)
    factor = np.asarray(gated / x)
    assert (factor > 1).all() and (factor < 2).all() and context.shape == (2, 5)
    np.testing.assert_allclose(factor, np.broadcast_to(factor[:, :1, :1], factor.shape), rtol=1e-4)
    assert np.ptp(factor[0, 0, 0]) > 1e-3


def test_is_figure_2():
    def network(t, x):
        size = x.shape[2:]
        x = t.layer(x, "encoder/stage0/conv1")
        x = t.layer(t.f.max_pool2d(x, 2), "encoder/stage1/conv1")
        x = t.layer(x, "neck")
        y = t.layer(x, "context/reduce", padding=0)
        d, s = t.leaves["context/encoding/codewords"], t.leaves["context/encoding/scale"]
        residual = y.flatten(2).transpose(1, 2)[:, :, None] - d  # [b,n,q,c]
        share = t.torch.softmax(-s * residual.square().sum(-1), -1)
        e = (share[..., None] * residual).sum(1)  # [b,q,c]
        context = t.f.relu(t.norm(e, "context/norm")).mean(1)
        gate = context @ t.leaves["context/gate/kernel"] + t.leaves["context/gate/bias"]
        x = x * (1 + gate.sigmoid()[:, :, None, None])
        return t.f.interpolate(t.conv(x, "head"), size=size, mode="bilinear", align_corners=False)

    fields = {"encoder": "plain", "encoder_args": {"widths": [4, 6], "convs": 1}, "aux": False}
    compare(models.build("encnet", num_classes=2, width=5, codewords=3, **fields), network)


def test_count():
    # ResNet-50 without its classifier: 25,557,032 - (2048·1000 + 1000).
    encoder = 23_508_032
    neck = normed(3, 2048, 512)
    context = normed(1, 512, 512) + 32 * 512 + 32 + 2 * 32 + 512 * 512 + 512
    aux = normed(3, 1024, 256) + conv(1, 256, 21)
    expected = encoder + neck + context + conv(1, 512, 21) + (512 * 21 + 21) + aux
    assert count("encnet", 3, num_classes=21) == expected == 35_875_295


def test_default_encoder_has_output_stride_8():
    variables, logits, out = shapes(models.build("encnet", num_classes=21), (1, 65, 80, 3), train=True)
    assert out["encoder/stage4"].shape == (1, 9, 10, 2048) and out["decoder/stage0"].shape == (1, 9, 10, 512)
    assert out["semantic_encoding"].shape == (1, 21) and logits.shape == (1, 65, 80, 21)
    # The auxiliary head of the authors' release, a quarter as wide as the level that it stands on.
    aux = variables["params"]["aux"]
    assert aux["conv"]["conv"]["kernel"].shape == (3, 3, 1024, 256) and aux["head"]["kernel"].shape == (1, 1, 256, 21)
    assert [scores.shape for scores in out["aux"]] == [(1, 65, 80, 21)]


def test_aux_can_be_left_out():
    variables, _, out = shapes(tiny("encnet", aux=False), (1, 8, 8, 3), train=True)
    assert out["aux"] == () and not any("aux" in path for path in paths(variables["params"]))


def test_whole_channels_are_dropped_before_the_classifier():
    fields = {"encoder": "plain", "encoder_args": {"widths": [4, 6], "convs": 1}, "aux": False}
    model = models.build("encnet", num_classes=2, width=16, codewords=3, dropout=0.5, **fields)
    image = images(12, 8)

    def run(variables, image, key):
        found = {"mutable": ["batch_stats", "intermediates"], "capture_intermediates": lambda m, _: m.name == "dropout"}
        (_, out), state = model.apply(variables, image, train=True, rngs={"dropout": key}, **found)
        return out["decoder/stage0"], state["intermediates"]["dropout"]["__call__"][0]

    before, after = jax.jit(run)(drawn(model, image), image, jax.random.key(0))
    gone = (after == 0).all((1, 2), keepdims=True)
    np.testing.assert_allclose(after, np.where(gone, 0.0, before / 0.5), rtol=1e-5)
    assert 0 < gone.sum() < gone.size


# --- the loss -------------------------------------------------------------------------------------------------------


def reference(presence: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
    """The sum and the number of labelled images, image by image, in float64."""
    total, images = 0.0, 0
    for z, label in zip(presence.astype(np.float64), labels):
        found = set(np.unique(label)) - {IGNORE}
        if not found:
            continue
        images += 1
        p = 1 / (1 + np.exp(-z))
        for c in range(len(z)):
            class_ = c if len(z) > 1 else 1
            total -= (np.log(p[c]) if class_ in found else np.log(1 - p[c])) / len(z)
    return total, images


@pytest.mark.parametrize("k", [1, 4])
def test_semantic_encoding_is_cross_entropy_of_presence(k):
    rng = np.random.default_rng(3)
    presence = rng.normal(size=(5, k)).astype(np.float32)
    labels = rng.integers(0, 2, (5, 3, 4)).astype(np.int32)  # classes above 1 are absent
    labels[1], labels[2], labels[3, :2] = IGNORE, 0, IGNORE
    total, images = reference(presence, labels)
    got = jax.jit(semantic_encoding)(presence, labels)
    assert images == 4 == got[1]
    np.testing.assert_allclose(got[0], total, rtol=1e-5)


def test_semantic_encoding_against_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    presence, labels = rng.normal(size=(3, 4)).astype(np.float32), rng.integers(0, 3, (3, 2, 2))
    target = np.stack([[float((image == c).any()) for c in range(4)] for image in labels])
    x = torch.tensor(presence, requires_grad=True)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(x, torch.tensor(target, dtype=torch.float32))
    loss.backward()

    def ours(z):
        total, weight = semantic_encoding(z, jnp.asarray(labels))
        return total / weight

    value, gradient = jax.value_and_grad(ours)(jnp.asarray(presence))
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=1e-4, atol=1e-7)


def test_semantic_encoding_in_a_sum_of_losses():
    loss = make_loss("cross_entropy + 0.2 * semantic_encoding", num_classes=3)
    rng = np.random.default_rng(5)
    logits, labels = rng.normal(size=(4, 2, 2, 3)).astype(np.float32), rng.integers(0, 3, (4, 2, 2))
    labels[0], presence = IGNORE, rng.normal(size=(4, 3)).astype(np.float32)
    whole = loss.stats(logits, labels, {"semantic_encoding": presence})
    halves = slice(0, 2), slice(2, 4)
    parts = [loss.stats(logits[half], labels[half], {"semantic_encoding": presence[half]}) for half in halves]
    added = jax.tree.map(lambda a, b: a + b, *parts)
    np.testing.assert_allclose(loss.value(added), loss.value(whole), rtol=1e-6)
    total, images = reference(presence, labels)
    plain = make_loss("cross_entropy", num_classes=3)(logits, labels)
    np.testing.assert_allclose(loss.value(whole), plain + 0.2 * total / images, rtol=1e-5)
    assert loss.of_logits.terms == loss.terms[:1]
    with pytest.raises(ValueError, match="semantic_encoding reads the output 'semantic_encoding', which this model"):
        loss.stats(logits, labels, {"aux": ()})


def test_nothing_labelled_and_wrong_labels():
    loss = make_loss("semantic_encoding", num_classes=3)
    logits, out = np.zeros((2, 2, 2, 3), np.float32), {"semantic_encoding": np.ones((2, 3), np.float32)}
    assert loss.value(loss.stats(logits, np.full((2, 2, 2), IGNORE), out)) == 0
    assert np.isnan(loss.value(loss.stats(logits, np.full((2, 2, 2), 7), out)))
    with pytest.raises(ValueError, match=r"presences \[b,k\] and labels \[b,h,w\]"):
        semantic_encoding(np.ones((2, 3, 1)), np.zeros((2, 2, 2), np.int32))
    with pytest.raises(ValueError, match="integers"):
        semantic_encoding(np.ones((2, 3)), np.zeros((2, 2, 2), np.float32))
