"""Judging a map: deletion and insertion, and the randomisation of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers.tiny_models import tiny
from helpers.variables import drawn

from jaxseg.explain.deletion import Curves, curves
from jaxseg.explain.gradients import saliency
from jaxseg.explain.randomisation import groups_from_the_top, randomised, rank_correlation, sanity_check


class Quarter(nn.Module):
    """The logits of every pixel are (0, 9 · mean of the top left quarter of the image - 4.5)."""

    @nn.compact
    def __call__(self, image, *, train=False):
        _, h, w, _ = image.shape
        mean = image[:, : h // 2, : w // 2].mean((1, 2, 3), keepdims=True)
        return jnp.broadcast_to(9 * mean - 4.5, (*image.shape[:3], 2)) * jnp.array([[[[0.0, 1.0]]]]), {"aux": ()}


def measured(ranking):
    image, pixels = jnp.ones((1, 8, 8, 1)), jnp.ones((8, 8))
    arrays = curves(Quarter(), {}, image, pixels, 1, jnp.asarray(ranking), 0.0, jnp.zeros_like(image), steps=4)
    return Curves(*map(np.asarray, arrays))


def test_the_curves_are_those_of_the_replaced_pixels():
    right = np.zeros((8, 8), np.float32)
    right[:4, :4] = np.arange(16, 0, -1).reshape(4, 4)
    p = 1 / (1 + np.exp(4.5))
    best, worst = measured(right), measured(-right)
    np.testing.assert_allclose(best.shares, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(best.deletion, [1 - p, p, p, p, p], rtol=1e-5)
    np.testing.assert_allclose(best.insertion, [p, 1 - p, 1 - p, 1 - p, 1 - p], rtol=1e-5)
    np.testing.assert_allclose(worst.deletion, [1 - p, 1 - p, 1 - p, 1 - p, p], rtol=1e-5)
    assert best.deletion_area == pytest.approx((1 - p) / 8 + p * 7 / 8)
    assert best.deletion_area < worst.deletion_area and best.insertion_area > worst.insertion_area


@pytest.fixture(scope="module")
def unet():
    model = tiny("unet", num_classes=3)
    image = np.random.default_rng(1).normal(size=(1, 16, 16, 3)).astype(np.float32)
    return model, drawn(model, image), image


def test_groups_go_from_the_logits_down(unet):
    model, variables, image = unet
    groups = groups_from_the_top(model, variables, image)
    assert groups[0] == "head" and groups[-1] == "encoder/stage0"
    assert groups.index("decoder/stage0") < groups.index("decoder/stage1") < groups.index("encoder/stage2")
    assert len(groups) == 6


def test_randomising_replaces_one_group_after_the_other(unet):
    model, variables, image = unet
    groups = groups_from_the_top(model, variables, image)
    fresh = jax.tree.map(lambda x: x + 1, variables)
    steps = dict(randomised(variables, fresh, groups))
    changed = {name: jax.tree.map(lambda a, b: bool((a != b).all()), variables, v) for name, v in steps.items()}
    first = changed["head"]["params"]
    assert all(jax.tree.leaves(first["head"])) and not any(jax.tree.leaves(first["decoder"]))
    stats = changed["decoder/stage0"]["batch_stats"]["decoder"]
    assert all(jax.tree.leaves(stats["stage0"])) and not any(jax.tree.leaves(stats["stage1"]))
    assert all(jax.tree.leaves(changed[groups[-1]]))


def test_saliency_depends_on_the_parameters_and_edges_do_not():
    """Adebayo et al. 2018, section 3.1: the map of a network changes with its parameters, an edge detector's never."""
    model = tiny("cnn", num_classes=3)
    image = np.random.default_rng(1).normal(size=(1, 16, 16, 3)).astype(np.float32)
    variables = drawn(model, image)
    target = np.zeros((16, 16, 3), np.float32)
    target[4:12, 4:12, 1] = 1.0
    fresh = jax.jit(model.init)(jax.random.key(3), image)
    groups = groups_from_the_top(model, variables, image)
    compiled = jax.jit(lambda v: saliency(model, v, image, target))
    found = sanity_check(lambda v: np.asarray(compiled(v)), variables, fresh, groups)
    assert list(found) == groups
    # All gradients lie in and around the box, which the correlation inside it leaves out.
    inside = sanity_check(lambda v: np.asarray(compiled(v))[4:12, 4:12], variables, fresh, groups)
    assert inside[groups[-1]] < 0.5 and inside[groups[-1]] < inside[groups[0]]
    edges = sanity_check(lambda _: np.abs(np.diff(image[0, :, :, 0], axis=0)), variables, fresh, groups[:2])
    assert all(value == pytest.approx(1.0) for value in edges.values())


def test_the_rank_correlation_is_spearmans_of_absolute_values():
    a = np.array([[1.0, -2.0], [3.0, -4.0]])
    assert rank_correlation(a, -(a**3)) == pytest.approx(1.0)
    assert rank_correlation(a, 1 / a) == pytest.approx(-1.0)
    assert rank_correlation(a, np.zeros((2, 2))) == 0.0
