"""Seg-Grad-CAM and gradient attributions: against closed forms of linear networks, and their properties on others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers.tiny_models import TINY, tiny
from helpers.variables import drawn, initialised

from jaxseg.errors import ArgumentError
from jaxseg.explain.grad_cam import on_image, seg_grad_cam
from jaxseg.explain.gradients import integrated_gradients, saliency, score, smooth_grad
from jaxseg.explain.stages import default_layer, layer_shapes, split_at

SHAPE = (1, 8, 6, 3)
SEGMENTING = [name for name in TINY if name != "dcgan"]


class Linear(nn.Module):
    """Two stages, the second of half the size, and logits that read both; everything is linear."""

    num_classes: int = 4

    @nn.compact
    def __call__(self, image, *, train=False):
        fine = nn.Dense(5, use_bias=False, name="fine")(image)
        coarse = nn.Dense(7, use_bias=False, name="coarse")(nn.avg_pool(fine, (2, 2), (2, 2)))
        up = jnp.repeat(jnp.repeat(nn.Dense(self.num_classes, name="up")(coarse), 2, 1), 2, 2)
        logits = up + nn.Dense(self.num_classes, name="skip")(fine)
        return logits, {"aux": (), "encoder/stage0": fine, "encoder/stage1": coarse, "unread": fine + 1}


@pytest.fixture(scope="module")
def linear():
    model, image = Linear(), np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    return model, drawn(model, image), image


@pytest.fixture(scope="module")
def target():
    """The weights of the logits of class 2 in a box."""
    weights = np.zeros((8, 6, 4), np.float32)
    weights[2:5, 1:4, 2] = 1.0
    return weights


def kernels(variables):
    return {name: np.asarray(values["kernel"], np.float64) for name, values in variables["params"].items()}


def test_the_layers_are_those_that_lead_to_the_logits_in_their_order(linear):
    model, variables, image = linear
    shapes = layer_shapes(model, variables, image)
    assert list(shapes) == ["encoder/stage0", "fine", "coarse", "encoder/stage1", "up", "skip"]
    assert shapes["encoder/stage1"] == (4, 3, 7) and "unread" not in shapes
    assert default_layer(shapes) == "encoder/stage1"


@pytest.mark.parametrize("layer", ["encoder/stage0", "coarse"])
def test_a_split_program_gives_the_same_logits(linear, layer):
    model, variables, image = linear
    activations, rest = split_at(model, variables, image, layer)
    logits, out = model.apply(variables, image)
    np.testing.assert_array_equal(rest(activations), logits)
    np.testing.assert_array_equal(activations, out["encoder/stage1" if layer == "coarse" else layer])


def test_seg_grad_cam_is_the_formula_of_the_paper(linear, target):
    model, variables, image = linear
    k = kernels(variables)
    out = model.apply(variables, image)[1]
    # On the path through both stages: a place of stage 1 has 2x2 pixels, so it counts the box in them.
    counts = target[..., 2].reshape(4, 2, 3, 2).sum((1, 3)).astype(np.float64)
    alpha = counts.mean() * k["up"][:, 2]
    coarse = np.maximum(np.asarray(out["encoder/stage1"])[0] @ alpha, 0)
    got = seg_grad_cam(model, variables, image, target, "encoder/stage1")
    np.testing.assert_allclose(got, on_image(jnp.asarray(coarse[None, ..., None]), (8, 6))[0, ..., 0], rtol=1e-4)
    # Stage 0 acts through the skip and, averaged, through stage 1: both paths are in its gradient.
    through = np.repeat(np.repeat(counts / 4, 2, 0), 2, 1)[..., None] * (k["coarse"] @ k["up"][:, 2])
    alpha = (target[..., 2][..., None] * k["skip"][:, 2] + through).mean((0, 1))
    fine = np.maximum(np.asarray(out["encoder/stage0"])[0] @ alpha, 0)
    got = seg_grad_cam(model, variables, image, target, "encoder/stage0")
    np.testing.assert_allclose(got, fine, rtol=1e-4, atol=1e-6)


def test_an_unknown_layer_is_answered_with_the_nearest(linear, target):
    model, variables, image = linear
    with pytest.raises(ArgumentError, match=r"no layer 'encoder/stage7' .* Did you mean 'encoder/stage"):
        seg_grad_cam(model, variables, image, target, "encoder/stage7")
    with pytest.raises(ArgumentError, match="no layer 'unread'"):
        seg_grad_cam(model, variables, image, target, "unread")


def test_a_layer_beyond_the_image_is_cut_off():
    x = jnp.arange(6.0).reshape(1, 3, 2, 1)  # of an image of 10x7 that a network extends to 12x8
    whole = np.asarray(on_image(x, (12, 8)))
    np.testing.assert_array_equal(on_image(x, (10, 7)), whole[:, :10, :7])


def test_attributions_of_a_linear_network_are_its_gradient(linear, target):
    model, variables, image = linear
    gradient = np.asarray(jax.grad(score, argnums=2)(model, variables, image, target))[0]
    np.testing.assert_allclose(saliency(model, variables, image, target), np.abs(gradient).max(-1), rtol=1e-6)
    smooth = smooth_grad(model, variables, image, target, jax.random.key(0), samples=3)
    np.testing.assert_allclose(smooth, np.abs(gradient).max(-1), rtol=1e-5, atol=1e-7)
    found = integrated_gradients(model, variables, image, target, baseline=0.5, steps=4)
    np.testing.assert_allclose(found.attributions, (image[0] - 0.5) * gradient, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def cnn():
    model = tiny("cnn", num_classes=4)
    image = np.random.default_rng(1).normal(1.0, size=(1, 16, 16, 3)).astype(np.float32)
    return model, drawn(model, image), image


def test_integrated_gradients_are_complete(cnn):
    """64 steps through a network of ReLUs, max-pooling and batch norm: the sum is right to 2 % of the difference."""
    model, variables, image = cnn
    target = np.zeros((16, 16, 4), np.float32)
    target[4:12, 4:12, 1] = 1.0
    explained = jax.jit(lambda v, x: (integrated_gradients(model, v, x, target, steps=64), model.apply(v, x)[0]))
    (found, logits), (_, at_baseline) = (explained(variables, x) for x in (image, np.zeros_like(image)))
    difference = ((np.asarray(logits, np.float64) - np.asarray(at_baseline))[0] * target).sum()
    assert float(found.score - found.baseline_score) == pytest.approx(difference, rel=1e-4)
    assert float(found.attributions.sum()) == pytest.approx(difference, rel=0.02)
    assert float(jnp.abs(found.attributions).max()) > 0


def test_the_gradient_at_a_stage_is_that_of_a_finite_difference(cnn):
    model, variables, image = cnn
    weights = jax.random.normal(jax.random.key(1), (1, 16, 16, 4))
    step = 1e-3

    def both(variables, image, direction):
        activations, rest = split_at(model, variables, image, "encoder/stage0")
        direction = direction * activations  # where they are 0, a ReLU and max-pooling have no derivative
        gradient = jax.grad(lambda a: jnp.sum(rest(a) * weights))(activations)
        above, below = (jnp.sum(rest(activations + s * direction) * weights) for s in (step, -step))
        return jnp.sum(gradient * direction), (above - below) / (2 * step)

    slope, difference = jax.jit(both)(variables, image, jax.random.normal(jax.random.key(0), (1, 16, 16, 4)))
    assert float(slope) == pytest.approx(float(difference), rel=0.02) and abs(float(slope)) > 1


@pytest.mark.parametrize(
    "name", [n if n in ("attention_unet", "segnet") else pytest.param(n, marks=pytest.mark.slow) for n in SEGMENTING]
)
def test_networks_of_every_form_have_layers(name):
    model = tiny(name)
    _, variables = initialised(model, ((1, 20, 16, 3),))
    shapes = layer_shapes(model, variables, jax.ShapeDtypeStruct((1, 20, 16, 3), jnp.float32))
    assert default_layer(shapes).startswith("encoder/stage")
    assert all(abs(np.log2(20 / h) - np.log2(16 / w)) < 1 for h, w, _ in shapes.values())
