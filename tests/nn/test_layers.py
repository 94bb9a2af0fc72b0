"""What the layers of a network have in common: values that compare, hash and hand on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers.tiny_models import TINY

from jaxseg import models
from jaxseg import nn as jnn
from jaxseg.models import encoders


def test_layers_compare_by_value():
    assert jnn.Layers() == jnn.Layers(jnn.make_norm("batch"), jax.nn.relu, jnp.float32)
    assert hash(jnn.Layers()) == hash(jnn.Layers(jnn.make_norm("batch")))
    others = {jnn.Layers(jnn.make_norm("group")), jnn.Layers(act=jax.nn.elu), jnn.Layers(axis_name="x"), jnn.BARE}
    others |= {jnn.Layers(kernel_init=jnn.he_uniform)}
    assert len(others | {jnn.Layers()}) == 6


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


def test_he_uniform_has_the_bound_of_torch_and_the_variance_of_he_normal(key):
    torch = pytest.importorskip("torch")
    shape = (3, 3, 16, 24)  # fan_in 144
    kernel = jnn.he_uniform(key, shape)
    peer = torch.empty(24, 16, 3, 3)
    torch.nn.init.kaiming_uniform_(peer, nonlinearity="relu", generator=torch.Generator().manual_seed(0))
    bound = (6 / 144) ** 0.5
    for values in (np.asarray(kernel), peer.numpy()):
        assert bound * 0.999 < np.abs(values).max() <= np.float32(bound)
    spreads = [float(np.std(each)) for each in (kernel, peer.numpy(), jnn.he_normal(key, shape))]
    np.testing.assert_allclose(spreads, (2 / 144) ** 0.5, rtol=0.03)


@pytest.mark.parametrize("name", ["unet", "resunet", "fc_densenet", "fcn"])
def test_kernel_init_is_that_of_the_convolutions_of_a_network(name, key, monkeypatch):
    param, image = nn.Module.param, jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)

    def drawn_by(**fields):
        """{path: initialiser} of every kernel."""
        found = {}

        def record(self, leaf, init, *args, **options):
            found["/".join((*self.path, leaf))] = init
            return param(self, leaf, init, *args, **options)

        monkeypatch.setattr(nn.Module, "param", record)
        model = models.build(name, num_classes=3, **TINY[name], **fields)
        jax.eval_shape(functools.partial(model.init, train=False), key, image)
        return {path: init for path, init in found.items() if path.endswith("kernel")}

    default, normal, uniform = drawn_by(), drawn_by(kernel_init="he_normal"), drawn_by(kernel_init="he_uniform")
    changed = {path for path in uniform if uniform[path] is jnn.he_uniform}
    assert len(changed) >= 4 and all(default[path] is normal[path] is jnn.he_normal for path in changed)
    assert not any("head" in path.split("/") for path in changed)
    assert {path for path in default if default[path] is jnn.he_normal and path not in changed} <= {
        path for path in default if "head" in path or "score" in path or path.endswith("match/kernel")
    }


def test_an_unknown_kernel_init_is_named():
    with pytest.raises(ValueError, match=r"no kernel_init 'he_unifrom'\. Did you mean 'he_uniform'"):
        models.build("unet", num_classes=3, kernel_init="he_unifrom")
    with pytest.raises(ValueError, match="Did you mean 'kernel_init'"):
        models.build("unet", num_classes=3, kernel_inits="he_uniform")
