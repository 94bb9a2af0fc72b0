"""What the layers of a network have in common: values that compare, hash and hand on."""

import jax
import jax.numpy as jnp
import pytest

from jaxseg import models
from jaxseg import nn as jnn
from jaxseg.models import encoders


def test_layers_compare_by_value():
    assert jnn.Layers() == jnn.Layers(jnn.make_norm("batch"), jax.nn.relu, jnp.float32)
    assert hash(jnn.Layers()) == hash(jnn.Layers(jnn.make_norm("batch")))
    others = {jnn.Layers(jnn.make_norm("group")), jnn.Layers(act=jax.nn.elu), jnn.Layers(axis_name="x"), jnn.BARE}
    assert len(others | {jnn.Layers()}) == 5


def test_replace_changes_one_setting():
    changed = jnn.Layers().replace(act=None)
    assert changed.act is None and changed.norm == jnn.make_norm("batch") and jnn.Layers().act is jax.nn.relu
    with pytest.raises(AttributeError):
        changed.act = jax.nn.relu  # pyright: ignore[reportAttributeAccessIssue]


def test_without_norm_and_activation_a_block_is_its_convolution(key):
    x = jax.random.normal(key, (1, 4, 5, 3))
    block = jnn.ConvNormAct(2, common=jnn.BARE.replace(act=None))
    variables = block.init(key, x)
    expected = jnn.Conv(2).apply({"params": variables["params"]["conv"]}, x)
    assert set(variables) == {"params"} and bool((block.apply(variables, x) == expected).all())


def test_a_default_of_a_norm_yields_to_its_own_fields():
    norm = jnn.make_norm("batch", epsilon=0.5).with_defaults(epsilon=1e-3, momentum=0.99)
    assert (norm().epsilon, norm().momentum) == (0.5, 0.99)
    assert norm == jnn.make_norm("batch", epsilon=0.5, momentum=0.99)
    assert jnn.make_norm("none").with_defaults(epsilon=1e-3) == jnn.make_norm("none")


def test_equal_networks_share_a_compilation(key):
    """`jit` takes a network as a static argument, and traces it once however often it is built."""
    traced = []

    def apply(model, x):
        traced.append(model)
        return model.init_with_output(key, x)[0]

    shared = jax.jit(apply, static_argnums=0)
    rows, image = ((3, 4, 4, False, "relu", 2),), jnp.ones((1, 4, 4, 3))
    for _ in range(2):
        shared(encoders.build("mobilenet_v3_small", rows=rows, divisor=4), image)
        shared(models.build("vgg_head", num_classes=2, encoder="plain", encoder_args={"widths": (4, 4)}), image)
    assert len(traced) == 2
