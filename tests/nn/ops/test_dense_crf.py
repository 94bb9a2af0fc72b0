"""The mean field of a dense CRF against NumPy in float64, and the fast filter against the exact one."""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.parity import FAST_COMPILE

from jaxseg.errors import ArgumentError
from jaxseg.nn import dense_crf
from jaxseg.nn.ops.dense_crf import default_capacity, exact_filter, fast_filter, normalized, pixel_features
from jaxseg.nn.ops.permutohedral import count_vertices, lattice

SIZE = {"smooth_xy": 1.5, "appearance_xy": 4.0, "appearance_rgb": 30.0}
NUMBERS = {"smooth_weight": 1.5, "appearance_weight": 2.0, **SIZE}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(function, compiler_options=FAST_COMPILE)


def scene(h: int, w: int, k: int, images: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Logits f64[b,h,w,k] of noise, and pictures of two flat halves with some noise, f64[b,h,w,3]."""
    rng = np.random.default_rng(h * w)
    picture = np.where(np.arange(w)[:, None] < w // 2, 60.0, 190.0) + rng.normal(0, 12, (images, h, w, 3))
    return rng.normal(size=(images, h, w, k)), np.clip(picture, 0, 255)


def reference(logits: np.ndarray, image: np.ndarray, mu: np.ndarray, iterations: int, normalization: str) -> np.ndarray:
    """Algorithm 1 of Krähenbühl and Koltun 2011 for one image with `NUMBERS`, by matrices of all pairs."""
    h, w, k = logits.shape
    place = np.stack(np.mgrid[:h, :w], -1).reshape(-1, 2)
    near = ((place[:, None] - place) ** 2).sum(-1)
    alike = ((image.reshape(-1, 1, 3) - image.reshape(-1, 3)) ** 2).sum(-1)
    kernels = [
        np.exp(-near / (2 * SIZE["smooth_xy"] ** 2)),
        np.exp(-near / (2 * SIZE["appearance_xy"] ** 2) - alike / (2 * SIZE["appearance_rgb"] ** 2)),
    ]
    # The smoothness kernel ends at four standard deviations in each axis.
    kernels[0] *= np.abs(place[:, None] - place).max(-1) <= 4 * SIZE["smooth_xy"]
    for i, kernel in enumerate(kernels):
        total = kernel.sum(1)
        scale = {"after": total[:, None], "symmetric": np.sqrt(np.outer(total, total)), "none": 1.0}[normalization]
        kernels[i] = kernel / scale
    unary = refined = logits.reshape(-1, k)
    for _ in range(iterations):
        q = np.exp(refined) / np.exp(refined).sum(-1, keepdims=True)
        message = NUMBERS["smooth_weight"] * kernels[0] @ q + NUMBERS["appearance_weight"] * kernels[1] @ q
        refined = unary - message @ mu.T
    return refined.reshape(h, w, k)


def probabilities(logits: Any) -> np.ndarray:
    return np.asarray(jax.nn.softmax(np.asarray(logits, np.float32)))


@pytest.mark.parametrize("normalization", ["after", "symmetric", "none"])
def test_the_exact_mean_field_is_that_of_numpy(normalization: str) -> None:
    """A batch of two, in several blocks of unequal rows; and a matrix of penalties in place of Potts."""
    logits, image = scene(7, 11, 3, images=2)
    mu = np.abs(np.random.default_rng(1).normal(size=(3, 3)))
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("jaxseg.nn.ops.dense_crf"), "_PAIRS", 77 * 20)
        options = {"iterations": 3, "normalization": normalization, "method": "exact", **NUMBERS}
        ours = compiled(lambda mu: dense_crf(jnp.asarray(logits), jnp.asarray(image), compatibility=mu, **options))(mu)
        potts = dense_crf(jnp.asarray(logits), jnp.asarray(image), **options)
    for i in range(2):
        wanted = reference(logits[i], image[i], mu, 3, normalization)
        np.testing.assert_allclose(ours[i], wanted, rtol=1e-10, atol=1e-10)
        wanted = reference(logits[i], image[i], 1 - np.eye(3), 3, normalization)
        np.testing.assert_allclose(probabilities(potts)[i], probabilities(wanted), rtol=1e-5, atol=1e-7)


def test_gradients_are_those_of_finite_differences() -> None:
    """Of logits, the weights of both kernels and the compatibility, in float64, of the exact and of the fast filter."""
    logits, image = scene(5, 6, 3)
    rng = np.random.default_rng(2)
    mu, target = 1 - np.eye(3) + 0.1 * rng.normal(size=(3, 3)), rng.normal(size=logits.shape)
    point = {"logits": logits, "smooth": np.array([1.0, 1.5, 0.5]), "appearance": np.array([2.0, 1.0, 1.5]), "mu": mu}
    direction = {name: rng.normal(size=value.shape) for name, value in point.items()}
    with jax.enable_x64(True):
        for method in ("exact", "fast"):

            def loss(values: dict[str, Any], method: str = method) -> jax.Array:
                refined = dense_crf(
                    values["logits"],
                    jnp.asarray(image),
                    smooth_weight=values["smooth"],
                    appearance_weight=values["appearance"],
                    compatibility=values["mu"],
                    iterations=2,
                    normalization="symmetric",
                    method=method,
                    **SIZE,
                )
                return jnp.sum(refined * target)

            loss, gradient = compiled(loss), compiled(jax.grad(loss))(point)
            for name in point:
                moved = [loss(point | {name: point[name] + s * direction[name]}) for s in (1e-5, -1e-5)]
                wanted = float(moved[0] - moved[1]) / 2e-5
                found = float(jnp.sum(gradient[name] * direction[name]))
                assert found == pytest.approx(wanted, rel=1e-6, abs=1e-8), (method, name)


def test_the_fast_filter_is_close_to_the_exact_one() -> None:
    """The distances that docs/crf.md states, of a message and of the mean field, of probabilities in [0, 1]."""
    logits, image = scene(24, 32, 4)
    logits += 2 * np.eye(4)[np.add.outer(np.arange(24) // 12, np.arange(32) // 16 * 2)]
    q, x = probabilities(logits).astype(np.float32), image.astype(np.float32)
    features = pixel_features(jnp.asarray(x), 10.0, 20.0)
    messages = [
        compiled(lambda q, each=each: normalized(each, (1, 24, 32, 1), jnp.float32, "after")(q))(q)
        for each in (exact_filter(features), fast_filter(features, default_capacity(24, 32, 3)))
    ]
    assert np.abs(messages[0] - messages[1]).max() < 0.05
    options = {"appearance_xy": 10.0, "appearance_rgb": 20.0, "iterations": 5}
    fields = [
        probabilities(compiled(lambda z, m=m: dense_crf(z, jnp.asarray(x), method=m, **options))(logits))
        for m in ("exact", "fast")
    ]
    assert np.abs(fields[0] - fields[1]).mean() < 0.01
    assert (fields[0].argmax(-1) == fields[1].argmax(-1)).mean() > 0.99


def test_the_lattice_holds_each_point_once() -> None:
    """Weights of a point add to 1, points on one place share vertices, and two neighbours are mutual."""
    rng = np.random.default_rng(3)
    features = np.repeat(rng.uniform(0, 3, (2, 40, 3)), 2, axis=1).astype(np.float32)
    graph = compiled(lambda f: lattice(f, 500))(features)
    np.testing.assert_array_equal(graph.count, compiled(count_vertices)(features))
    np.testing.assert_allclose(np.sum(graph.weight, -1), 1, rtol=1e-5)
    assert np.min(graph.weight) > -1e-5
    np.testing.assert_array_equal(graph.vertex[:, ::2], graph.vertex[:, 1::2])
    for i, vertex in enumerate(np.asarray(graph.vertex)):
        used = np.unique(vertex)
        np.testing.assert_array_equal(used, i * 501 + np.arange(graph.count[i]))
    rows = np.arange(2 * 501)
    for before, after in np.asarray(graph.neighbour):
        there = after % 501 != 500
        assert there.any()
        np.testing.assert_array_equal(before[after[there]], rows[there])


def test_vertices_above_the_capacity_are_left_out() -> None:
    features = np.random.default_rng(4).uniform(0, 9, (1, 60, 3)).astype(np.float32)
    graph = compiled(lambda f: lattice(f, 50))(features)
    assert graph.count[0] > 50 == np.max(graph.vertex)
    assert np.all(np.asarray(graph.weight)[np.asarray(graph.vertex) == 50] == 0)


def test_a_smooth_picture_without_colours_keeps_the_classes_together() -> None:
    """One wrong pixel in each half of a picture is put right, and the border between the halves stays."""
    _, image = scene(16, 20, 2)
    right = (np.arange(20) >= 10).astype(int)[None].repeat(16, 0)
    wrong = right.copy()
    wrong[5, 4], wrong[9, 15] = 1, 0
    logits = 2.0 * np.eye(2)[wrong][None]
    refined = compiled(lambda z: dense_crf(z, jnp.asarray(image, jnp.float32), **NUMBERS))(logits)
    np.testing.assert_array_equal(np.argmax(refined[0], -1), right)


def test_wrong_use_is_refused() -> None:
    logits, image = jnp.zeros((1, 4, 4, 3)), jnp.zeros((1, 4, 4, 3))
    with pytest.raises(ArgumentError, match=r"of one size, got \(1, 4, 4, 3\) and \(1, 5, 4, 3\)"):
        dense_crf(logits, jnp.zeros((1, 5, 4, 3)))
    with pytest.raises(ArgumentError, match=r"compatibility of 3 classes has the shape \(3, 3\), got \(2, 2\)"):
        dense_crf(logits, image, compatibility=jnp.eye(2))
    with pytest.raises(ArgumentError, match="normalization must be one of 'after', 'symmetric', 'none', got 'before'"):
        dense_crf(logits, image, normalization="before")
