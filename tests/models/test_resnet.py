"""ResNets have the numbers, gradients and parameters of torchvision's and timm's."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import oracles, parity
from helpers.marks import at_each_size, some_slow
from helpers.variables import drawn, variable_shapes

from jaxseg import nn as jnn
from jaxseg import pretrained
from jaxseg.models import encoders
from jaxseg.pretrained import resnet


class AsModel(nn.Module):
    """An encoder with the signature of a model: (the coarsest level, {})."""

    encoder: nn.Module

    @nn.compact
    def __call__(self, x, *, train=False):
        pyramid = self.encoder(x, train=train)
        return pyramid[-1], {"pyramid": pyramid}


def as_model(name, **fields):
    return AsModel(encoders.factory(name, **fields)(name="encoder"))


def inside(rules):
    return pretrained.prefixed(rules, "", "encoder")


def torchvision_features(module):
    """The pyramid of torchvision's ResNet: the stem before its max-pooling, then the stages."""

    def run(x):
        features = [module.relu(module.bn1(module.conv1(x)))]
        x = module.maxpool(features[0])
        for stage in (module.layer1, module.layer2, module.layer3, module.layer4):
            x = stage(x)
            features.append(x)
        return features

    module.forward = run
    return module


def torchvision_resnet(block, layers, **fields):
    models = oracles.torchvision().models
    return torchvision_features(models.resnet.ResNet(getattr(models.resnet, block), layers, **fields))


DEPTHS = (1, 1, 1, 2)
CASES = {
    "basic": ("BasicBlock", [1, 1, 1, 2], {}, {"depths": (1, 1, 1, 2)}),
    "resnet18": ("BasicBlock", [2, 2, 2, 2], {}, {}),
    "resnet50": ("Bottleneck", [3, 4, 6, 3], {}, {}),
    "dilated": (
        "Bottleneck",
        [1, 1, 2, 3],
        {"replace_stride_with_dilation": [False, True, True]},
        {"depths": (1, 1, 2, 3), "output_stride": 8},
    ),
    "grouped": (
        "Bottleneck",
        [1, 1, 1, 1],
        {"groups": 32, "width_per_group": 4},
        {"depths": (1, 1, 1, 1), "groups": 32, "ratio": 2},
    ),
    "wide": ("Bottleneck", [1, 1, 1, 1], {"width_per_group": 128}, {"depths": (1, 1, 1, 1), "ratio": 2}),
}


# "basic" has the blocks of resnet18, "grouped" and "dilated" those of resnet50; "wide" has the ratio of "grouped".
@pytest.mark.parametrize("case", some_slow(CASES, ("resnet18", "resnet50", "wide")))
@at_each_size
def test_features_are_torchvisions(case, size):
    block, layers, theirs, ours = CASES[case]
    module = torchvision_resnet(block, layers, **theirs)
    name = "resnet18" if block == "BasicBlock" else "resnet50"
    rules = resnet.torchvision("basic" if block == "BasicBlock" else "bottleneck")
    parity.check_eval(
        as_model(name, **ours),
        module,
        inside(rules),
        [size],
        ours=lambda result: result[1]["pyramid"],
        theirs=lambda result: result,
    )


@at_each_size
@pytest.mark.parametrize(
    ("name", "rules", "fields"),
    [
        pytest.param("resnet18d", resnet.timm_d("basic"), {}, marks=pytest.mark.slow),
        ("resnet18d", resnet.timm_d("basic"), {"output_stride": 8}),
        ("seresnet50", resnet.torchvision(), {"output_stride": 16}),
    ],
)
def test_features_are_timms(name, rules, fields, size):
    module = oracles.timm().create_model(name, pretrained=False, features_only=True, layers=DEPTHS, **fields)
    parity.check_eval(
        as_model(name, depths=DEPTHS, **fields),
        module,
        inside(rules),
        [size],
        ours=lambda result: result[1]["pyramid"],
        theirs=lambda result: result,
    )


def test_gradients_are_torchvisions():
    module = torchvision_resnet("BasicBlock", DEPTHS)
    parity.check_gradients(
        as_model("resnet18", depths=DEPTHS),
        module,
        inside(resnet.torchvision("basic")),
        theirs=lambda result: result[-1],
    )


def test_gradients_of_gates_and_poolings_are_timms():
    gates = functools.partial(oracles.timm().layers.SEModule, rd_divisor=4)
    module = oracles.timm().create_model(
        "resnet18d",
        pretrained=False,
        features_only=True,
        layers=[1, 1, 1, 1],
        block_args={"attn_layer": gates},
        output_stride=16,
    )
    model = as_model("resnet18d", depths=(1, 1, 1, 1), squeeze_excite=True, output_stride=16)
    parity.check_gradients(model, module, inside(resnet.timm_d("basic")), theirs=lambda result: result[-1])


def convolutions_of(jaxpr):
    """Every convolution of a program, those inside functions with a gradient of their own included."""
    found = []
    for e in jaxpr.eqns:
        inner = [getattr(p, "jaxpr", None) for p in e.params.values()]
        found += [e] if e.primitive.name == "conv_general_dilated" else []
        found += [c for each in inner if each is not None for c in convolutions_of(each)]
    return found


def rates(name, **fields):
    """{(stage, block): atrous rates of its 3x3 convolutions}, where they are not 1."""
    encoder = encoders.build(name, common=jnn.Layers(jnn.make_norm("none")), **fields)
    found = {}
    x = jax.ShapeDtypeStruct((1, 1024, 1024, 3), jnp.float32)  # so large that every tap meets pixels
    jaxpr = jax.make_jaxpr(lambda x: encoder.init_with_output(jax.random.key(0), x)[0])(x)
    convolutions = convolutions_of(jaxpr.jaxpr)[1:]
    each = 2 if encoder.block == "basic" else 1
    places = [(s, b) for s, depth in enumerate(encoder.depths, 1) for b in range(1, depth + 1) for _ in range(each)]
    for place, e in zip(places, convolutions, strict=True):
        found.setdefault(place, []).append(e.params["rhs_dilation"][0])
    return {place: r for place, r in found.items() if set(r) != {1}}


def test_atrous_rates():
    assert rates("resnet50", depths=(1, 1, 2, 2)) == {}
    assert rates("resnet50", depths=(1, 1, 2, 2), output_stride=16) == {(4, 2): [2]}
    assert rates("resnet50", depths=(1, 1, 2, 2), output_stride=8) == {(3, 2): [2], (4, 1): [2], (4, 2): [4]}
    assert rates("resnet18", depths=(1, 1, 1, 2), output_stride=16) == {(4, 1): [1, 2], (4, 2): [2, 2]}
    whole = {"depths": (1, 1, 2, 3), "first_dilated": True, "multi_grid": (1, 2, 4)}
    # Chen 2017, section 4.2.1: "the three convolutions will have rates = 2 (1, 2, 4) = (2, 4, 8)".
    assert rates("resnet50", output_stride=16, **whole) == {(4, 1): [2], (4, 2): [4], (4, 3): [8]}
    last = {(4, 1): [4], (4, 2): [8], (4, 3): [16]}
    assert rates("resnet50", output_stride=8, **whole) == {(3, 1): [2], (3, 2): [2], **last}


def test_dilation_computes_the_features_between():
    """Where rates take the place of strides, every second pixel has the features of the network with strides."""
    fields = {"depths": (1, 2, 2, 2), "widths": (4, 8, 8, 12, 12)}
    image = jnp.asarray(parity.images(65, 79))
    encoder = encoders.build("resnet50", **fields)
    variables = drawn(encoder, image)
    dilated = encoders.build("resnet50", output_stride=8, **fields)

    @functools.partial(jax.jit, compiler_options=parity.FAST_COMPILE)
    def run(variables, image):
        return dilated.apply(variables, image)[-1], encoder.apply(variables, image)[-1]

    fine, coarse = run(variables, image)
    parity.assert_close(fine[:, ::4, ::4], coarse, 1e-5)


def test_widths_and_depths_must_agree():
    with pytest.raises(ValueError, match="must be those of the stem and of the 2 stages"):
        encoders.build("resnet18", depths=(1, 1)).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(ValueError, match="fields of the block 'bottleneck'"):
        encoders.build("resnet18", groups=2).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


# Parameters with the classifier of 1000 classes, as torchvision's and timm's documentation gives them.
# They differ from the members of 18 and of 50 layers in the number of units of a stage alone.
RESNETS = [n for n in encoders.names() if encoders.CLASSES[n][1] == "ResNet" and n != "resnet50_three_stages"]
DEEP = [n for n in encoders.names() if re.search("34|101|152|200|26|seresnext|50d_", n)]
PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
}


def shapes(name):
    return variable_shapes(encoders.build(name), (1, 64, 64, 3))


def test_units_are_those_published():
    """He et al. 2016, Table 1; the other forms have the same."""
    units = {
        "18": (2, 2, 2, 2),
        "26": (2, 2, 2, 2),
        "200": (3, 24, 36, 3),
        "34": (3, 4, 6, 3),
        "50": (3, 4, 6, 3),
        "101": (3, 4, 23, 3),
        "152": (3, 8, 36, 3),
    }
    for name in RESNETS:
        assert encoders.build(name).depths == units[re.search("[0-9]+", name)[0]], name
    first, last = (3, 4), (6, 3)  # TransUNet's has the units of the last two stages in one, at the width of the third
    hybrid, whole = encoders.build("resnet50_three_stages"), encoders.build("resnet50")
    assert whole.depths == (*first, *last) and hybrid.depths == (*first, sum(last))
    assert hybrid.widths == whole.widths[:-1] and hybrid.strides == (2, 4, 8, 16)


@pytest.mark.parametrize("name", some_slow(PUBLISHED, DEEP))
def test_parameters_are_those_published(name):
    count = sum(np.prod(x.shape) for x in jax.tree.leaves(shapes(name)["params"]))
    assert count + encoders.build(name).widths[-1] * 1000 + 1000 == PUBLISHED[name]


@pytest.mark.parametrize("name", some_slow(RESNETS, DEEP))
def test_every_entry_of_timms_files_has_its_place(name):
    torch, timm = oracles.torch(), oracles.timm()
    with torch.device("meta"):
        module = timm.create_model(name, pretrained=False)
    state = {key: np.broadcast_to(np.float32(0), tuple(x.shape)) for key, x in module.state_dict().items()}
    form = resnet.timm_d if encoders.build(name).average_shortcut else resnet.torchvision
    rules = form("basic" if encoders.build(name).block == "basic" else "bottleneck")
    variables = shapes(name)
    loaded = {path: x.shape for path, x in pretrained.convert(state, rules).items()}
    assert loaded == {path: x.shape for path, x in pretrained.flatten(variables).items()}
