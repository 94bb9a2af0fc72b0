"""PointRend: samples, chosen points and subdivision against NumPy, torch and transformers; the network in torch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracles
from helpers.papers import count
from helpers.parity import FAST_COMPILE
from helpers.tiny_models import TINY
from helpers.torch_layers import cna, plain_levels, same_in_torch
from helpers.variables import shapes

from jaxseg import models
from jaxseg.losses import make_loss
from jaxseg.nn.ops.points import choose_points, labels_at, least_certain, put_points, sample_points, uncertainty
from jaxseg.types import IGNORE

ALL, FIRST, SECOND = slice(None), slice(0, 1), slice(1, 2)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def samples64(x, points):
    """Bilinear samples in float64, pixel by pixel: each pixel is a tent around its centre, and outside are zeros."""
    b, h, w, c = x.shape
    found = np.zeros((b, points.shape[1], c))
    for i, n in np.ndindex(b, points.shape[1]):
        at_x, at_y = points[i, n].astype(np.float64) * (w, h)
        for row, column in np.ndindex(h, w):
            tent = max(0, 1 - abs(at_x - column - 0.5)) * max(0, 1 - abs(at_y - row - 0.5))
            found[i, n] += tent * x[i, row, column]
    return found


def some_points(*shape):
    points = np.random.default_rng(3).uniform(size=(*shape, 2)).astype(np.float32)
    points[:, :3] = [[0.0, 0.0], [1.0, 1.0], [0.03, 0.5]]  # corners, and a place nearer to the border than any centre
    return points


def test_samples_in_numpy_torch_and_transformers():
    torch = pytest.importorskip("torch")
    x, points, weight = noise(2, 5, 7, 3), some_points(2, 9), noise(2, 9, 3, seed=1)

    @jax.jit
    def ours(x):
        found, pullback = jax.vjp(lambda x: sample_points(x, points), x)
        return found, pullback(jnp.asarray(weight))[0]

    found, gradient = ours(x)
    np.testing.assert_allclose(found, samples64(x, points), rtol=1e-5, atol=1e-6)
    map_, places = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True), torch.tensor(points)
    theirs = torch.nn.functional.grid_sample(map_, 2 * places[:, :, None] - 1, align_corners=False)[..., 0]
    np.testing.assert_allclose(found, theirs.detach().numpy().transpose(0, 2, 1), rtol=1e-5, atol=1e-6)
    (theirs * torch.tensor(weight.transpose(0, 2, 1))).sum().backward()
    np.testing.assert_allclose(gradient, map_.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-6)
    oracles.transformers()
    from transformers.models.mask2former.modeling_mask2former import sample_point

    theirs = sample_point(map_, places, align_corners=False).detach().numpy()
    np.testing.assert_allclose(found, theirs.transpose(0, 2, 1), rtol=1e-5, atol=1e-6)


def test_labels_are_those_of_the_pixels():
    labels = np.arange(6).reshape(1, 2, 3)
    points = np.array([[[0.0, 0.0], [0.4, 0.4], [0.34, 0.6], [0.99, 0.51], [1.0, 1.0]]], np.float32)
    assert labels_at(jnp.asarray(labels), jnp.asarray(points)).tolist() == [[0, 1, 4, 5, 5]]


def test_uncertainty_by_hand():
    logits = jnp.array([[1.0, 4.0, 2.5], [3.0, 3.0, -1.0], [-2.0, -5.0, -4.0]])
    assert uncertainty(logits).tolist() == [-1.5, 0.0, -2.0]
    assert uncertainty(jnp.array([[0.5], [-2.0]])).tolist() == [-0.5, -2.0]


def test_training_takes_the_least_certain_candidates_and_the_others():
    logits, drawn = noise(2, 4, 5, 3), some_points(2, 11)
    points = np.asarray(choose_points(jnp.asarray(logits), jnp.asarray(drawn), 6, 4))
    values = np.sort(samples64(logits, drawn[:, :9]), -1)
    order = np.argsort(values[..., -1] - values[..., -2], axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(points[:, :4], np.take_along_axis(drawn, order[..., None], 1))
    np.testing.assert_array_equal(points[:, 4:], drawn[:, 9:])


def test_a_subdivision_replaces_the_least_certain_pixels():
    logits, values = noise(2, 3, 4, 3), noise(2, 5, 3, seed=1)
    index, points = least_certain(jnp.asarray(logits), 5)
    ranked = np.sort(logits.astype(np.float64).reshape(2, 12, 3), -1)
    expected = np.argsort(ranked[..., 2] - ranked[..., 1], axis=1)[:, :5]
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_allclose(points, np.stack([(expected % 4 + 0.5) / 4, (expected // 4 + 0.5) / 3], -1), rtol=1e-6)
    new = logits.reshape(2, 12, 3).copy()
    for i in range(2):
        new[i, expected[i]] = values[i]
    np.testing.assert_array_equal(
        put_points(jnp.asarray(logits), index, jnp.asarray(values)), new.reshape(logits.shape)
    )


def head(t, fine, coarse):
    """The perceptron: f[b,c,n] and f[b,k,n] -> f[b,k,n]."""
    x = fine
    for name in ("dense1", "dense2", "score"):
        x = t.torch.cat([x, coarse], 1).transpose(1, 2)
        x = (x @ t.leaves[f"points/{name}/kernel"] + t.leaves[f"points/{name}/bias"]).transpose(1, 2)
        x = x if name == "score" else t.f.relu(x)
    return x


def subdivided(t, coarse, fine, size, steps, number):
    """Section 3.1 as the authors' code has it, for sizes that 2 need not divide."""
    logits = coarse
    for step in reversed(range(steps)):
        h, w = (-(-side // 2**step) for side in size)
        logits = t.f.interpolate(logits, size=(h, w), mode="bilinear", align_corners=False)
        best = logits.flatten(2).topk(2, dim=1).values
        index = (best[:, 1] - best[:, 0]).topk(min(number, h * w), dim=1).indices
        points = t.torch.stack([(index % w + 0.5) / w, (index // w + 0.5) / h], -1)
        grid = 2 * points[:, :, None] - 1
        sampled = [t.f.grid_sample(x, grid, align_corners=False)[..., 0] for x in (fine, coarse)]
        new = head(t, *sampled)
        index = index[:, None].expand(-1, new.shape[1], -1)
        logits = logits.flatten(2).scatter(2, index, new).reshape(len(new), -1, h, w)
    return logits


def pointrend(norm="batch", **fields):
    return models.build("pointrend", num_classes=5, norm=norm, **TINY["pointrend"] | fields)


def test_over_semantic_fpn_it_is_section_3_in_torch():
    def network(t, image):
        levels = plain_levels(t, image, 3)[1:]  # strides 2 and 4
        levels = [t.conv(x, f"decoder/lateral{i}") for i, x in enumerate(levels)]
        levels[0] = levels[0] + t.f.interpolate(levels[1], size=levels[0].shape[2:], mode="nearest")
        levels = [t.conv(x, f"decoder/smooth{i}", padding=1) for i, x in enumerate(levels)]
        branches = [cna(t, x, f"branch{i}/conv1") for i, x in enumerate(levels)]
        up = t.f.interpolate(branches[1], size=branches[0].shape[2:], mode="bilinear", align_corners=False)
        coarse = t.conv(branches[0] + up, "head")
        return [subdivided(t, coarse, levels[0], image.shape[2:], 1, 24)]

    same_in_torch(pointrend(norm="none"), network, (20, 26))


def test_over_deeplabv3_it_subdivides_until_the_image_in_torch():
    def network(t, image):
        levels = plain_levels(t, image, 3)
        x = levels[-1]
        branches = [cna(t, x, "aspp/point"), *(cna(t, x, f"aspp/atrous{i}", dilation=i) for i in (1, 2))]
        mean = cna(t, x.mean((2, 3), keepdim=True), "aspp/pool")
        x = cna(t, t.torch.cat([*branches, mean.expand(-1, -1, *x.shape[2:])], 1), "aspp/project")
        return [subdivided(t, t.conv(x, "head"), levels[1], image.shape[2:], 2, 24)]

    same_in_torch(pointrend(coarse="deeplabv3", rates=(1, 2)), network, (20, 28))


def test_parameters_of_the_perceptron():
    """Section 3.3: three hidden layers of 256 channels, each of which reads the 19 scores beside 256 features."""
    perceptron = 3 * (275 * 256 + 256) + 275 * 19 + 19
    fields = {"num_classes": 19, "encoder": "plain", "encoder_args": {"widths": (4, 4, 4, 8)}}
    assert count("pointrend", 3, **fields) == count("fpn", 3, **fields) + perceptron


def test_points_of_training_and_of_evaluation():
    model = pointrend()
    _, logits, out = shapes(model, (2, 20, 26, 3), train=True)
    assert logits.shape == (2, 20, 26, 5)
    assert [x.shape for x in out["points"]] == [(2, 12, 5), (2, 12, 2)]
    _, _, out = shapes(model, (2, 20, 26, 3))
    assert [x.shape for x in out["points"]] == [(2, 24, 5), (2, 24, 2)]


def test_the_loss_is_torchs_at_labelled_points():
    torch = pytest.importorskip("torch")
    labels = np.random.default_rng(0).integers(0, 4, (2, 6, 5)).astype(np.int32)
    labels[0, :3] = IGNORE
    logits, points = noise(2, 9, 4), some_points(2, 9)
    args = {"point_cross_entropy": {"label_smoothing": 0.1, "class_weights": (1.0, 2.0, 0.5, 1.0)}}
    loss = make_loss("cross_entropy + point_cross_entropy", num_classes=4, args=args)
    scores = noise(2, 6, 5, 4)

    @functools.partial(jax.jit, compiler_options=FAST_COMPILE)
    def values(labels):
        """Of the batch, of the sums of its images, and of each term."""
        stats = [loss.stats(scores[i], labels[i], {"points": (logits[i], points[i])}) for i in (ALL, FIRST, SECOND)]
        return loss.value(stats[0]), loss.value(jax.tree.map(jnp.add, *stats[1:])), loss.values(stats[0])

    rows, columns = (np.minimum((points[..., i] * side).astype(int), side - 1) for i, side in ((1, 6), (0, 5)))
    at = torch.tensor(np.stack([labels[i, rows[i], columns[i]] for i in range(2)]).astype(np.int64))
    assert 0 < (at == IGNORE).sum() < 9
    options = {"weight": torch.tensor((1.0, 2.0, 0.5, 1.0)), "label_smoothing": 0.1, "ignore_index": IGNORE}
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits).permute(0, 2, 1), at, **options)
    whole, added, terms = values(labels)
    np.testing.assert_allclose(terms["point_cross_entropy"], expected, rtol=1e-5)
    np.testing.assert_allclose(added, whole, rtol=1e-6)
    assert loss.of_logits.terms == loss.terms[:1]
    assert values(np.full_like(labels, IGNORE))[0] == 0 and np.isnan(values(np.full_like(labels, 7))[0])
    with pytest.raises(ValueError, match=r"points \[b,n,2\] and labels \[b,h,w\], got shapes \(2, 9, 4\), \(2, 8, 2\)"):
        loss.stats(scores, labels, {"points": (logits, points[:, :8])})
