"""The settings of a CRF, its layer, and a network around which it stands."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.parity import FAST_COMPILE
from helpers.tiny_adversarial import quick

from jaxseg import build, models
from jaxseg.config import ConfigDict, default_config, update
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.nn import CRF, CRF_PRESETS, DenseCRF, LayerCRF, WithCRF, dense_crf, without_crf

SMALL = "smooth_xy=1.5,appearance_xy=4,appearance_rgb=30,method=exact"


def configured(**values: Any) -> ConfigDict:
    config = default_config()
    update(config, model__name="cnn", model__args={"widths": (4,), "dropout": 0.0}, data__size=(8, 8), **values)
    return config


def test_a_text_names_a_preset_and_fields() -> None:
    assert CRF.parse("deeplab-v1") == CRF() == CRF(appearance_weight=4, appearance_xy=49, appearance_rgb=5)
    changed = CRF.parse("deeplab-v2-vgg16, appearance_weight=7, iterations=3,normalization=symmetric")
    assert changed == CRF(2.0, 2.0, 7.0, 65.0, 3.0, 3, "symmetric")
    assert LayerCRF.parse("learn=false,train_iterations=2") == LayerCRF(learn=False, train_iterations=2)
    for preset in CRF_PRESETS:
        assert CRF.parse(str(CRF.parse(preset))) == CRF.parse(preset)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deeplab-v3", r"There is no preset 'deeplab-v3' of a CRF. Did you mean 'deeplab-v1'"),
        ("apearance_xy=3", r"got 'apearance_xy=3'. Did you mean 'appearance_xy'"),
        ("appearance_xy=0", "appearance_xy of the CRF must be a number above 0, got 0"),
        ("iterations=2.5", "iterations of the CRF must be a whole number of at least 1, got 2.5"),
        ("normalization=mean", "must be one of 'after', 'symmetric', 'none', got 'mean'"),
        ("learn=true", "got 'learn=true'"),
    ],
)
def test_wrong_settings_are_refused(text: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        CRF.parse(text)


def test_the_layer_starts_as_the_crf_of_its_settings() -> None:
    """With parameters for each class; and one logit is the difference of two."""
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(1, 6, 7, 2)), jnp.float32)
    image = jnp.asarray(rng.uniform(0, 255, (1, 6, 7, 3)), jnp.float32)
    crf = LayerCRF.parse(f"{SMALL},iterations=3,train_iterations=1")
    layer = DenseCRF(crf)
    variables = quick(layer.init)(jax.random.key(0), logits, image)
    shapes = {name: value.shape for name, value in variables["params"].items()}
    assert shapes == {"smooth_weight": (2,), "appearance_weight": (2,), "compatibility": (2, 2)}
    for train, iterations in ((False, 3), (True, 1)):
        crf_of = quick(functools.partial(dense_crf, iterations=iterations, method="exact", **crf.numbers))
        wanted = crf_of(logits, image)
        found = quick(functools.partial(layer.apply, train=train))(variables, logits, image)
        np.testing.assert_allclose(jax.nn.softmax(found), jax.nn.softmax(wanted), rtol=1e-4, atol=1e-6)
    binary = quick(DenseCRF(LayerCRF.parse(f"{SMALL},iterations=3,learn=false")).apply)({}, logits[..., 1:], image)
    of_two = quick(functools.partial(dense_crf, iterations=3, method="exact", **crf.numbers))
    two = of_two(logits.at[..., 0].set(0), image)
    np.testing.assert_allclose(binary[..., 0], two[..., 1] - two[..., 0], rtol=1e-4, atol=1e-4)


def test_the_key_wraps_any_network_and_keeps_its_parameters() -> None:
    """The image that the CRF sees has colours from 0 to 255 again, and one step of training moves the CRF too."""
    parts = build.build_parts(configured(model__crf=f"{SMALL},iterations=3,train_iterations=2"), 3)
    plain = build.make_model(configured(), 3)
    assert isinstance(parts.model, WithCRF) and without_crf(parts.model) == without_crf(plain) == plain
    shapes = jax.eval_shape(plain.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    image = np.random.default_rng(0).integers(0, 255, (1, 8, 8, 3), np.uint8)
    target = np.random.default_rng(1).normal(size=(1, 8, 8, 3)).astype(np.float32)

    def all_at_once() -> Any:
        state = parts.init(jax.random.key(0))
        rest = {name: value for name, value in state.params.items() if name != "crf"}
        variables = {**state.variables, "params": rest}
        logits, _ = plain.apply(variables, parts.prepare(image), train=False)
        colors = jnp.asarray(image, jnp.float32)
        wanted = dense_crf(logits, colors, iterations=3, method="exact", **LayerCRF.parse(SMALL).numbers)
        refined, _ = parts.model.apply(state.variables, parts.prepare(image), train=False)

        def loss(params: Any) -> jax.Array:
            variables = {"params": params, "batch_stats": state.batch_stats}
            (refined, _), _ = parts.model.apply(
                variables,
                parts.prepare(image),
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(1)},
            )
            return jnp.sum(jax.nn.softmax(refined) * target)

        return rest, refined, wanted, jax.grad(loss)(state.params)

    rest, refined, wanted, gradient = jax.jit(all_at_once, compiler_options=FAST_COMPILE)()
    assert jax.tree.map(jnp.shape, rest) == jax.tree.map(jnp.shape, shapes["params"])
    np.testing.assert_allclose(jax.nn.softmax(refined), jax.nn.softmax(wanted), rtol=1e-3, atol=1e-4)
    assert set(gradient["crf"]) == {"smooth_weight", "appearance_weight", "compatibility"}
    assert all(np.abs(each).max() > 0 for each in jax.tree.leaves(gradient["crf"]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model__crf": "deeplab-v9"}, "model.crf: There is no preset 'deeplab-v9' of a CRF"),
        (
            {
                "model__crf": "deeplab-v1",
                "loss__terms": "sampled_cross_entropy",
                "loss__args": {"sampled_cross_entropy": {"sampling": "uniform", "samples": 2}},
            },
            "model.crf compares the logits of all classes",
        ),
    ],
)
def test_wrong_configurations_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build.build_parts(configured(**values), 6)


def test_a_generator_has_no_crf() -> None:
    config = default_config()
    update(config, model__name="dcgan", model__crf="deeplab-v1", data__mean=(0.5,), data__std=(0.5,))
    with pytest.raises(ConfigError, match=r"model.crf refines classes, but model.name=dcgan makes images"):
        build.make_model(config, 3)
    assert models.can_generate(models.build("dcgan", num_classes=3))
