"""Batch norms folded into convolutions: which are, and that the network computes the same."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers.marks import some_slow
from helpers.tiny_models import TINY, tiny
from helpers.variables import drawn, initialised, paths

from jaxseg import models
from jaxseg.models.encoders.residual import ResidualStage
from jaxseg.nn import Conv, ConvNormAct, Layers, make_norm
from jaxseg.nn.folding import find_pairs, fold, folded

# The paths of the batch norms that stay: those before the convolutions of pre-activated units, those behind the sums of
# the residual encoder, those of a context or of attention, and those of auxiliary heads, which inference leaves out.
STAY = r"(block1/norm1|encoder/norm\d|context/norm|attention_norm|aux\w*/conv/norm)$"
# All of FC-DenseNet's precede convolutions, as some of DDRNet's and PIDNet's do; those of ENet and ERFNet follow a
# convolution beside a pooling, and those of SegNeXt's blocks precede a sum.
STAY_OF = {
    "ddrnet": r"^(pool/\w+|hidden/conv|aux_hidden|aux_hidden/conv)/norm$",
    "enet": r"^initial/norm$",
    "erfnet": r"^down\d/norm$",
    "fc_densenet": "norm",
    "pidnet": r"^(pool/\w+|(boundary_)?hidden/conv|aux_hidden|aux_hidden/conv)/norm$",
    "segnext": r"block1/norm[12]$",
}
IMAGE = (1, 32, 32, 3)


class Unit(nn.Module):
    """A convolution, its batch norm, and whatever else a test lets read the convolution."""

    read: str = "once"
    dtype: object = None

    @nn.compact
    def __call__(self, x, *, train=False):
        conv, norm = (
            Conv(4, use_bias=True, dtype=self.dtype, name="conv"),
            make_norm("batch", epsilon=1e-3)(name="norm"),
        )
        y = conv(x)
        if self.read == "again":
            y = conv(y[..., :3])
        z = norm(y, train=train)
        return z + y if self.read == "beside" else z


def pairs_of(module, variables, x):
    return find_pairs(lambda variables, x: module.apply(variables, x, train=False), variables, x)


def test_kernel_and_biases_are_those_of_the_definition():
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype(np.float32)
    variables = drawn(Unit(), x)
    (pair,) = pairs = pairs_of(Unit(), variables, x)
    assert (pair.conv, pair.norm, pair.epsilon) == (("conv",), ("norm",), 1e-3)
    conv, norm, stats = variables["params"]["conv"], variables["params"]["norm"], variables["batch_stats"]["norm"]
    m = np.float64(norm["scale"]) / np.sqrt(np.float64(stats["var"]) + 1e-3)
    params = fold(variables, pairs)["params"]
    np.testing.assert_allclose(params["conv"]["kernel"], conv["kernel"] * m, rtol=1e-6)
    np.testing.assert_allclose(params["conv"]["bias"], conv["bias"] * m, rtol=1e-6)
    np.testing.assert_allclose(params["norm"]["bias"], norm["bias"] - stats["mean"] * m, rtol=1e-5, atol=1e-6)
    expected = Unit().apply(variables, x)
    np.testing.assert_allclose(folded(Unit().apply, pairs)(fold(variables, pairs), x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("read", ["beside", "again"])
def test_a_convolution_with_another_reader_or_another_call_keeps_its_norm(read):
    x = jnp.ones((1, 5, 5, 3))
    variables = drawn(Unit(read), x)
    assert pairs_of(Unit(read), variables, x) == ()
    assert jax.tree.all(jax.tree.map(np.array_equal, fold(variables, ()), variables))


def test_a_layer_in_a_loop_keeps_its_norm():
    stage = ResidualStage(4, 4, shared=True)
    x = jnp.ones((1, 5, 5, 4))
    variables = drawn(stage, x)
    assert {pair.norm[0] for pair in pairs_of(stage, variables, x)} == {"block1"}


def test_the_dtype_of_the_output_stays():
    x = jnp.ones((1, 5, 5, 3), jnp.bfloat16)
    unit = Unit(dtype=jnp.bfloat16)
    variables = drawn(Unit(), jnp.ones((1, 5, 5, 3)))
    pairs = pairs_of(unit, variables, x)
    got = jax.eval_shape(folded(unit.apply, pairs), fold(variables, pairs), x)
    assert got.dtype == jax.eval_shape(unit.apply, variables, x).dtype == jnp.bfloat16


def test_other_norms_are_left_alone():
    x = jnp.ones((1, 5, 5, 3))
    block = ConvNormAct(4, common=Layers(norm=make_norm("group")))
    assert pairs_of(block, initialised(block, (x.shape,))[1], x) == ()


NETWORKS = [name for name in TINY if not models.can_generate(tiny(name))]
# Norms before and after convolutions, of pyramids, of branches, of a transformer; the layers of others are the same.
QUICK = ("deeplabv3plus", "enet", "fc_densenet", "mask2former", "pidnet", "resunet", "unetplusplus")


@pytest.mark.parametrize("name", some_slow(NETWORKS, set(NETWORKS) - set(QUICK)))
def test_every_norm_after_a_convolution_is_folded(name):
    model, x = tiny(name), jax.ShapeDtypeStruct(IMAGE, jnp.float32)
    variables = initialised(model, (IMAGE,))[1]
    norms = {path.rpartition("/")[0] for path in paths(variables["batch_stats"] if "batch_stats" in variables else {})}
    left = norms - {"/".join(pair.norm) for pair in pairs_of(model, variables, x)}
    stay = STAY_OF[name] if name in STAY_OF else STAY
    assert left == {path for path in norms if re.search(stay, path)}


# Plain and residual units; depthwise, atrous and transposed convolutions.
@pytest.mark.parametrize("name", ["unet", "resunet", "deeplabv3plus", "lraspp", "linknet"])
def test_a_folded_network_computes_the_same(name):
    model, x = tiny(name), np.random.default_rng(0).normal(size=IMAGE).astype(np.float32)
    variables = drawn(model, x)
    pairs = pairs_of(model, variables, x)
    apply = functools.partial(model.apply, train=False)

    def both(variables, changed, x):
        return apply(variables, x)[0], folded(apply, pairs)(changed, x)[0]

    expected, got = jax.jit(both)(variables, fold(variables, pairs), x)
    assert pairs and float(jnp.abs(expected).max()) > 0.01
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * float(jnp.abs(expected).max()))
