"""Cosine heads: values in float64, sampled classes, and the networks that have and do not have such a head."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.parity import FAST_COMPILE
from helpers.tiny_adversarial import quick

from jaxseg import build
from jaxseg.config import ConfigDict, ConfigError, default_config, update
from jaxseg.nn import ClassHead, WithCosineHead, of_classes, rematerialised, without_crf
from jaxseg.nn.folding import find_pairs


def configured(**values: object) -> ConfigDict:
    config = default_config()
    update(config, model__name="unet", model__args={"widths": (4, 4), "dropout": 0.0}, model__head="cosine", **values)
    return config


def variables_of(model: object) -> dict:
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)
    return quick(model.init)(jax.random.key(0), image), image


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_logits_are_cosines_in_float64(dtype: object) -> None:
    head = ClassHead(5, kernel_size=1, dtype=dtype)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 3, 4, 6)) * 30, jnp.float32).at[0, 0, 0].set(0.0)
    variables = head.init(jax.random.key(0), x, cosine=True)
    assert set(variables["params"]) == {"kernel", "log_scale"}
    assert variables["params"]["log_scale"] == np.float32(np.log(10))
    found = np.asarray(head.apply(variables, x, cosine=True), np.float64)
    w, z = (np.asarray(each, np.float64) for each in (variables["params"]["kernel"][0, 0], x))
    lengths = np.maximum(np.linalg.norm(z, axis=-1, keepdims=True), 1e-6)
    expected = 10 * (z / lengths) @ (w / np.linalg.norm(w, axis=0))
    np.testing.assert_allclose(found, expected, atol=1e-5 if dtype == jnp.float32 else 0.15)
    assert (found[0, 0, 0] == 0).all()
    gradient = jax.grad(lambda x: jnp.sum(head.apply(variables, x, cosine=True) ** 2))(x)
    assert np.isfinite(gradient).all()
    across = np.sum(np.asarray(gradient, np.float64) * z, axis=-1)  # the length of the features has no effect
    np.testing.assert_allclose(across, 0, atol=0.05 if dtype == jnp.float32 else 3.0)


def test_a_network_keeps_its_other_parameters_and_can_sample_classes() -> None:
    model, plain = build.make_model(configured(), 7), build.make_model(configured(), 7).network
    assert isinstance(model, WithCosineHead) and without_crf(model) == plain
    variables, image = variables_of(model)
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(plain.init, jax.random.key(0), image)["params"])
    del shapes["head"]["bias"]
    assert jax.tree.map(jnp.shape, variables["params"]) == shapes | {"head": shapes["head"] | {"log_scale": ()}}
    apply = jax.jit(lambda v: model.apply(v, image, train=False)[0], compiler_options=FAST_COMPILE)
    logits = apply(variables)
    assert (np.abs(logits) <= 10.001).all()
    longer = jax.tree.map(lambda x: x, variables)
    longer["params"]["head"]["kernel"] = 7.0 * variables["params"]["head"]["kernel"]
    np.testing.assert_allclose(apply(longer), logits, atol=1e-4)
    some = jnp.array([5, 0, 2])
    sampled = quick(lambda v: of_classes(model.apply, some)(v, image, train=False)[0])(variables)
    np.testing.assert_allclose(sampled, logits[..., some], atol=1e-5)

    def trained(apply: Callable[..., Any]) -> jax.Array:
        return quick(lambda v: apply(v, image, train=True, mutable=["batch_stats"])[0][0])(variables)

    again, direct = trained(rematerialised(model.apply)), trained(model.apply)
    np.testing.assert_allclose(again, direct, atol=1e-5)
    assert find_pairs(lambda v, x: model.apply(v, x, train=False), variables, image)  # still folded


@pytest.mark.parametrize("name", ["fcn", "mask2former", "dcgan"])
def test_networks_without_such_a_head_are_refused(name: str) -> None:
    config = default_config()
    update(config, model__name=name, model__head="cosine", data__mean=(0.5,), data__std=(0.5,))
    with pytest.raises(ConfigError, match=f"model.head=cosine needs a network .*model.name={name} does not"):
        build.make_model(config, 3)


def test_a_head_of_larger_kernels_is_refused() -> None:
    head = ClassHead(2, kernel_size=3)
    with pytest.raises(ValueError, match="its kernel must be 1x1; this one is 3x3"):
        head.init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)), cosine=True)


def test_a_crf_stands_behind_a_cosine_head() -> None:
    model = build.make_model(configured(model__crf="deeplab-v1,iterations=1,method=exact"), 3)
    assert model.cosine and without_crf(model) == without_crf(build.make_model(configured(), 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    assert "crf" in shapes["params"] and "log_scale" in shapes["params"]["head"]
