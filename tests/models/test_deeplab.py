"""DeepLabV3 and DeepLabV3+ have the numbers and gradients of torchvision's and segmentation_models.pytorch's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import oracles, parity
from helpers.marks import at_each_size, some_slow
from helpers.variables import drawn, variable_shapes

from jaxseg import models, pretrained
from jaxseg import nn as jnn
from jaxseg.pretrained import deeplab, resnet

DEPTHS = (1, 1, 2, 2)
EPSILON = 0.1
PLAIN_GRID = {"multi_grid": (1, 1, 1), "first_dilated": False}  # of torchvision
DILATED = {"depths": DEPTHS, "output_stride": 8, **PLAIN_GRID}
TORCHVISION = {"encoder": "resnet50", "head_conv": True, "aux_width": 256}


def torchvision_deeplab():
    """torchvision's DeepLabV3 of four classes, with an auxiliary head, on a ResNet of few blocks."""
    torchvision = oracles.torchvision()
    from torchvision.models.segmentation import deeplabv3

    backbone = torchvision.models.resnet.ResNet(
        torchvision.models.resnet.Bottleneck, DEPTHS, replace_stride_with_dilation=[False, True, True]
    )
    return deeplabv3._deeplabv3_resnet(backbone, 4, aux=True)


def torchvision_deeplab_for_gradients():
    """A smaller one, without dropout, whose gradients float32 can tell.

    The norm of the image pooling divides by the difference of two images: with the usual epsilon float32 and float64 in
    torch alone differ by 1 %.
    """
    torchvision = oracles.torchvision()
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.segmentation import deeplabv3, fcn

    backbone = torchvision.models.resnet.ResNet(torchvision.models.resnet.BasicBlock, (1, 1, 1, 1))
    module = deeplabv3.DeepLabV3(
        IntermediateLayerGetter(backbone, {"layer4": "out", "layer3": "aux"}),
        deeplabv3.DeepLabHead(512, 4, (1, 2, 3)),
        fcn.FCNHead(256, 4),
    )
    for layer in module.modules():
        if type(layer).__name__ == "Dropout":
            layer.p = 0.0
        if type(layer).__name__ == "BatchNorm2d":
            layer.eps = EPSILON
    return module


@at_each_size
def test_logits_are_torchvisions(size):
    model = models.build("deeplabv3", num_classes=4, encoder_args=DILATED, **TORCHVISION)
    rules = deeplab.torchvision_deeplabv3(resnet.torchvision())
    parity.check_eval(model, torchvision_deeplab(), rules, [size], theirs=lambda result: [result["out"]])


class WithAux(nn.Module):
    """A model whose logits and auxiliary logits are one array."""

    model: nn.Module

    @nn.compact
    def __call__(self, image, *, train=False):
        logits, out = self.model(image, train=train)
        return jnp.concatenate([logits, *out["aux"]], axis=-1), {}


def test_gradients_of_both_heads_are_torchvisions():
    import torch

    model = models.build(
        "deeplabv3",
        num_classes=4,
        encoder="resnet18",
        encoder_args={"depths": (1, 1, 1, 1), "output_stride": 32},
        rates=(1, 2, 3),
        head_conv=True,
        aux_width=64,
        dropout=0.0,
        aux_dropout=0.0,
        norm=jnn.make_norm("batch", epsilon=EPSILON),
    )
    rules = pretrained.prefixed(deeplab.torchvision_deeplabv3(resnet.torchvision("basic")), "", "model")
    parity.check_gradients(
        WithAux(model),
        torchvision_deeplab_for_gradients(),
        rules,
        size=(96, 96),
        theirs=lambda result: torch.cat([result["out"], result["aux"]], dim=1),
    )


# A second unit of a stage adds no code of these networks.
each_depth = pytest.mark.parametrize("units", some_slow((1, 2), (2,)))


def shorten(module, units):
    """Leaves `units` units of each stage of the encoder, a ResNet-18."""
    for i in range(1, 5):
        setattr(module.encoder, f"layer{i}", getattr(module.encoder, f"layer{i}")[:units])


@each_depth
@at_each_size
@pytest.mark.parametrize("stride", [8, 16])
def test_logits_are_smps(stride, size, units):
    module = oracles.smp().DeepLabV3(
        "resnet18",
        encoder_weights=None,
        classes=4,
        encoder_output_stride=stride,
        decoder_aspp_separable=stride == 16,
        upsampling=1,
    )
    shorten(module, units)
    model = models.build(
        "deeplabv3",
        num_classes=4,
        encoder="resnet18",
        encoder_args={"depths": (units,) * 4, "output_stride": stride, "first_dilated": True, "multi_grid": (1, 1, 1)},
        rates=(12, 24, 36),
        separable=stride == 16,
        head_conv=True,
        align_corners=True,
    )
    rules = deeplab.smp_deeplabv3(resnet.torchvision("basic"))
    parity.check_eval(model, parity.at_any_size(module), rules, [size])


# Theirs enlarges by 4 what must then be of stride 4: of 61 and 79 pixels 16 and 20 are left there, 4 and 5 below.
@each_depth
@pytest.mark.parametrize("size", some_slow(((61, 79), (64, 96)), ((64, 96),)))
def test_logits_of_the_decoder_are_smps(size, units):
    module = oracles.smp().DeepLabV3Plus("resnet18", encoder_weights=None, classes=4, upsampling=1)
    shorten(module, units)
    model = models.build(
        "deeplabv3plus",
        num_classes=4,
        encoder="resnet18",
        encoder_args={"depths": (units,) * 4, "output_stride": 16, "first_dilated": True, "multi_grid": (1, 1, 1)},
        rates=(12, 24, 36),
        head_conv=True,
        decoder_convs=1,
        align_corners=True,
    )
    rules = deeplab.smp_deeplabv3plus(resnet.torchvision("basic"))
    parity.check_eval(model, parity.at_any_size(module), rules, [size])


def shapes(model):
    return variable_shapes(model, (1, 64, 64, 3))


def count(variables):
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(variables["params"]))


# ResNet-101 has more units than ResNet-50 in one stage.
@pytest.mark.parametrize(
    ("encoder", "published"),
    [("resnet50", 42_004_074), pytest.param("resnet101", 60_996_202, marks=pytest.mark.slow)],
)
def test_every_entry_of_torchvisions_files_has_its_place(encoder, published):
    """The published files have the auxiliary head."""
    segmentation = oracles.torchvision().models.segmentation
    import torch

    with torch.device("meta"):
        module = getattr(segmentation, f"deeplabv3_{encoder}")(weights=None, weights_backbone=None, aux_loss=True)
    state = {key: np.broadcast_to(np.float32(0), tuple(x.shape)) for key, x in module.state_dict().items()}
    fields = TORCHVISION | {"encoder": encoder, "encoder_args": {"output_stride": 8}}
    variables = shapes(models.build("deeplabv3", num_classes=21, **fields))
    loaded = pretrained.convert(state, deeplab.torchvision_deeplabv3(resnet.torchvision()))
    ours = pretrained.flatten(variables)
    assert {path: x.shape for path, x in loaded.items()} == {path: x.shape for path, x in ours.items()}
    assert count(variables) == published


def test_parameters_of_the_papers_networks():
    # ResNet-101 without its classifier: 44,549,160 - 2048 * 1000 - 1000.
    encoder, classes = 42_500_160, 256 * 21 + 21

    def conv_norm(inputs, features, taps=1):
        return inputs * features * taps + 2 * features

    fused = 2 * conv_norm(2048, 256) + conv_norm(5 * 256, 256)
    v3 = shapes(models.build("deeplabv3", num_classes=21))
    assert count(v3) == encoder + fused + 3 * conv_norm(2048, 256, 9) + classes
    plus = shapes(models.build("deeplabv3plus", num_classes=21))
    atrous = 3 * (9 * 2048 + conv_norm(2048, 256))
    join = conv_norm(256, 48) + 9 * 304 + conv_norm(304, 256) + 9 * 256 + conv_norm(256, 256)
    assert count(plus) == encoder + fused + atrous + join + classes


def test_rates_follow_the_output_stride():
    assert [jnn.rates_at(stride) for stride in (8, 16, 32, 128)] == [(12, 24, 36), (6, 12, 18), (3, 6, 9), (1, 1, 2)]


@pytest.mark.parametrize("name", ["resnet18", "plain"])
def test_decoder_joins_the_level_of_the_stride_asked_for(name):
    fields = {"resnet18": {"depths": [1, 1, 1], "widths": [4, 8, 8, 8]}, "plain": {"widths": [4, 4, 8, 8, 8]}}[name]
    image = jnp.zeros((1, 64, 96, 3))
    finest = (64, 96) if name == "plain" else (32, 48)
    for stride, size in ((4, (16, 24)), (7, (16, 24)), (2, (32, 48)), (1, finest)):
        model = models.build(
            "deeplabv3plus", num_classes=2, width=16, low_stride=stride, encoder=name, encoder_args=fields
        )
        _, out = jax.eval_shape(lambda k, m=model: m.init_with_output(k, image)[0], jax.random.key(0))
        assert out["decoder/stage0"].shape == (1, *size, 16) and out["aspp"].shape == (1, 4, 6, 16)


def test_image_pooling_of_one_image_keeps_its_statistics():
    """A batch norm of one value would forget the image, and its running variance would go to zero."""
    aspp = jnn.ASPP(4, (1, 2), common=jnn.BARE.replace(norm=jnn.make_norm("batch")))
    image = jnp.asarray(parity.images(6, 5, channels=3, batch=1))
    variables = drawn(aspp, image)
    train = jax.jit(functools.partial(aspp.apply, train=True, mutable=["batch_stats"]))
    for batch, moves in ((image, False), (jnp.concatenate([image, 2 * image]), True)):
        _, mutated = train(variables, batch)
        before, after = variables["batch_stats"], mutated["batch_stats"]
        assert (np.abs(before["pool"]["norm"]["var"] - after["pool"]["norm"]["var"]).max() > 0) == moves
        assert np.abs(before["point"]["norm"]["var"] - after["point"]["norm"]["var"]).max() > 0


def test_image_pooling_counts_the_images_of_every_device():
    batch = jnp.asarray(parity.images(6, 5, channels=3, batch=4))
    whole = jnn.ASPP(4, (1, 2), common=jnn.BARE.replace(norm=jnn.make_norm("batch")))
    split = jnn.ASPP(
        4, (1, 2), common=jnn.BARE.replace(norm=jnn.make_norm("batch", axis_name="devices"), axis_name="devices")
    )
    variables = drawn(whole, batch)
    expected, stats = jax.jit(functools.partial(whole.apply, train=True, mutable=["batch_stats"]))(variables, batch)
    apply = functools.partial(split.apply, variables, train=True, mutable=["batch_stats"])
    given, moved = jax.jit(jax.vmap(apply, axis_name="devices"))(batch[:, None])
    parity.assert_close(given[:, 0], expected, 1e-5)
    for path, x in pretrained.flatten(stats).items():
        parity.assert_close(pretrained.flatten(moved)[path][0], x, 1e-5)
