"""U-Net, UNet++, MA-Net, FPN, LinkNet, PAN, PSPNet and UPerNet against segmentation_models_pytorch and transformers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import oracles
from helpers.marks import at_each_size, some_slow
from helpers.parity import (
    FAST_COMPILE,
    assert_close,
    at_any_size,
    check_eval,
    check_gradients,
    draw,
    images,
    load,
    nchw,
    nhwc,
)
from helpers.peers import form_of
from helpers.tiny_models import Backbone
from helpers.variables import drawn, shapes

from jaxseg import models, pretrained
from jaxseg.nn import adaptive_avg_pool, avg_pool
from jaxseg.pretrained import resnet, rules, smp, upernet
from jaxseg.pretrained.family import SMP, TRANSFORMERS

CLASSES = 3
WIDTHS = (4, 5, 6, 7, 8)  # ours, fine to coarse
UNETS = {"decoder_channels": WIDTHS[::-1]}
# Our fields, the name of theirs, and the arguments that make theirs as narrow.
CASES = {
    "unet": ({"widths": WIDTHS}, "Unet", UNETS),
    "unetplusplus": ({"widths": WIDTHS}, "UnetPlusPlus", UNETS),
    "fpn": (
        {"width": 8, "branch_width": 32},
        "FPN",
        {"decoder_pyramid_channels": 8, "decoder_segmentation_channels": 32},
    ),
    "linknet": ({}, "Linknet", {}),
    "manet": ({"widths": WIDTHS, "attention_width": 4}, "MAnet", UNETS | {"decoder_pab_channels": 4}),
    "pan": ({"width": 8}, "PAN", {"decoder_channels": 8}),
    "pspnet": (
        {"width": 8, "encoder_args": {"output_stride": 32}},
        "PSPNet",
        {"psp_out_channels": 8, "encoder_depth": 5, "upsampling": 32},
    ),
    "upernet": ({"width": 8}, "UPerNet", {"decoder_channels": 8}),
}


def form(name: str) -> dict:
    """The fields that give ours the form of theirs; their PSPNet cuts its encoder, which is left to the test."""
    form = form_of(name, SMP, "resnet18")
    return {**form.fields, **({} if name == "pspnet" else form.sizes)}


NARROW = (4, 4, 8, 16, 32)  # the levels of a ResNet-18 divided by 16


def ours(name: str, whole: bool = False, **fields):
    """Our network over a ResNet-18: the whole one, or one of narrow stages of a single unit."""
    fields = {"encoder": "resnet18", **form(name), **CASES[name][0], **fields}
    args = fields["encoder_args"] if "encoder_args" in fields else {}
    small = {} if whole else {"depths": (1,) * 4, "widths": NARROW}
    return models.build(name, num_classes=CLASSES, **fields | {"encoder_args": {**small, **args}})


def theirs(name: str, whole: bool = False, **arguments):
    _, cls, narrow = CASES[name]
    arguments = {"encoder_weights": None, "classes": CLASSES, **narrow, **arguments}
    peer = oracles.smp()
    with pytest.MonkeyPatch.context() as patch:
        if not whole:
            patch.setitem(peer.encoders.encoders, "resnet18", narrow_resnet18())
        return getattr(peer, cls)("resnet18", **arguments)


def narrow_resnet18():
    """What smp makes its ResNet-18 of, with narrow stages of a single unit: the class that it has takes no widths."""
    from segmentation_models_pytorch.encoders.resnet import ResNetEncoder
    from torch.nn import BatchNorm2d, Conv2d
    from torchvision.models.resnet import BasicBlock

    class Narrow(ResNetEncoder):
        def _make_layer(self, block, planes, *more, **options):
            if not hasattr(self, "layer1"):
                self.inplanes = NARROW[0]
                self.conv1, self.bn1 = Conv2d(3, NARROW[0], 7, 2, 3, bias=False), BatchNorm2d(NARROW[0])
            return super()._make_layer(block, planes // 16, *more, **options)

    return {"encoder": Narrow, "params": {"out_channels": [3, *NARROW], "block": BasicBlock, "layers": [1, 1, 1, 1]}}


def rules_of(name: str) -> list[rules.Rule]:
    return getattr(smp, name)(resnet.torchvision("basic"))


# Width and second units add no code of these networks, and even levels need less of it than odd ones.
@pytest.mark.parametrize("even", some_slow((False, True), (True,)))
@pytest.mark.parametrize("whole", some_slow((False, True), (True,)))
@pytest.mark.parametrize("name", ["fpn", "pan", "pspnet", "unet", "upernet"])
def test_the_networks_are_those_of_smp(name, whole, even):
    # U-Net is the one that takes sides that are no multiples of the stride. UPerNet and PSPNet need not refuse them,
    # nor does FPN those whose halves after the second are even.
    odd = (61, 93) if name == "fpn" else (129, 143) if name == "pan" else (65, 79)
    module = theirs(name, whole) if name == "unet" else at_any_size(theirs(name, whole, upsampling=1))
    check_eval(
        ours(name, whole), module, rules_of(name), [odd if not even else (128, 160) if name == "pan" else (64, 96)]
    )


@pytest.mark.parametrize("name", ["linknet", "unetplusplus"])
def test_sizes_that_smp_refuses_are_padded_and_cropped(name):
    """Ours gives what theirs gives for the image with zeros at the bottom and right."""
    torch = oracles.torch()
    module, model = theirs(name), ours(name)
    draw(module)
    module.eval()
    variables, x = load(model, module, rules_of(name)), images(33, 61)
    with pytest.raises(RuntimeError, match="divisible by 32"):
        module(nchw(x))
    with torch.no_grad():
        expected = nhwc(module(nchw(np.pad(x, ((0, 0), (0, 31), (0, 3), (0, 0))))))[:, :33, :61]
    apply = jax.jit(lambda v, x: model.apply(v, x)[0], compiler_options=FAST_COMPILE)
    assert_close(apply(variables, x), expected)


@pytest.mark.parametrize("whole", some_slow((False, True), (True,)))
def test_gradients_of_unet_are_those_of_smp(whole):
    check_gradients(ours("unet", whole), theirs("unet", whole), rules_of("unet"))


class Pooled(nn.Module):
    """An encoder without parameters: means over the strides, the colours repeated to each width.

    The first pixel is added to all, so that the means of two images, which PAN normalises, differ by more than noise.
    """

    strides: tuple[int, ...]
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x, *, train=False):
        x = x + 3 * x[:, :1, :1]
        return tuple(jnp.tile(avg_pool(x, s), 3)[..., :c] for s, c in zip(self.strides, self.widths))


POOLED = {"manet": ((2, 4, 8), (4, 5, 6)), "pan": ((1, 2, 4, 8), (4, 5, 6, 7))}


@pytest.mark.parametrize("name", some_slow(POOLED, ("pan",)))  # its 7x7 convolutions of one channel compile slowly
def test_gradients_of_attention_are_those_of_smp(name):
    torch = oracles.torch()
    oracles.smp()
    from segmentation_models_pytorch.base.heads import SegmentationHead
    from segmentation_models_pytorch.decoders.manet.decoder import MAnetDecoder
    from segmentation_models_pytorch.decoders.pan.decoder import PANDecoder

    strides, widths = POOLED[name]
    decoders = {
        "manet": lambda: MAnetDecoder([3, *widths], [6, 5, 4], n_blocks=3, pab_channels=4, reduction=2),
        "pan": lambda: PANDecoder([3, *widths], encoder_depth=4, decoder_channels=4),
    }

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = decoders[name]()
            self.segmentation_head = SegmentationHead(4, CLASSES, 3, upsampling=2 if name == "pan" else 1)

        def forward(self, x):
            x, pool = x + 3 * x[:, :, :1, :1], torch.nn.functional.avg_pool2d
            levels = [pool(x, s).repeat(1, 3, 1, 1)[:, :c] for s, c in zip(strides, widths)]
            return self.segmentation_head(self.decoder([x, *levels]))

    sizes = {"manet": {"widths": (4, 5, 6), "attention_width": 4, "reduction": 2}, "pan": {"width": 4, "finest": 2}}[
        name
    ]
    fields = {key: value for key, value in form(name).items() if key != "encoder_args"} | sizes
    encoder = functools.partial(Pooled, strides, widths)
    model = models.build(name, num_classes=CLASSES, encoder=encoder, **fields)
    rules_of_theirs = getattr(smp, name)([], STRIDES[: len(strides)])
    check_gradients(model, Theirs(), rules_of_theirs, (64, 64) if name == "pan" else (16, 24))


def test_manet_is_that_of_smp():
    """Theirs takes sides that are multiples of 32 alone."""
    module = theirs("manet")
    with pytest.raises(RuntimeError, match="divisible by 32"):
        module(nchw(images(33, 64)))
    check_eval(ours("manet"), module, rules_of("manet"), [(64, 96)])


def test_pspnet_on_the_third_level_of_the_encoder():
    """The default of smp's PSPNet: the stages beyond stride 8 are neither used nor dilated, but are in the file."""
    module = theirs("pspnet", encoder_depth=3, upsampling=8)
    model = ours("pspnet", encoder_args={"depths": [1, 1], "widths": NARROW[:3]})
    check_eval(model, module, smp.pspnet(resnet.torchvision("basic"), (2, 4, 8)), [(64, 96)])


def test_pspnet_at_output_stride_8():
    module = theirs("pspnet", upsampling=8)
    module.encoder.make_dilated(8)
    model = ours("pspnet", encoder_args={"output_stride": 8, "first_dilated": True})
    check_eval(model, module, rules_of("pspnet"), [(64, 96)])


def test_fpn_side_by_side():
    check_eval(ours("fpn", merge="concat"), theirs("fpn", decoder_merge_policy="cat"), rules_of("fpn"), [(32, 64)])


@functools.cache
def upernet_of_transformers():
    """Over a ResNet-18 of timm with narrow stages of a single unit."""
    transformers, timm = oracles.transformers(), oracles.timm()
    backbone = transformers.TimmBackboneConfig(
        backbone="resnet18", use_pretrained_backbone=False, out_indices=(1, 2, 3, 4)
    )
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=8, auxiliary_channels=8, num_labels=CLASSES
    )
    narrow = functools.partial(timm.create_model, channels=NARROW[1:], layers=(1, 1, 1, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", narrow)
        return transformers.UperNetForSemanticSegmentation(config)


STAGES = {"depths": (1, 1, 1, 1), "widths": (64, *NARROW[1:])}
UPERNET = {"width": 8, "aux_width": 8, "encoder": "resnet18", "encoder_args": STAGES}
UPERNET_RULES = upernet.transformers(resnet.torchvision("basic"))


@at_each_size
def test_upernet_is_that_of_transformers(size):
    model = models.build("upernet", num_classes=CLASSES, **UPERNET)
    check_eval(model, upernet_of_transformers(), UPERNET_RULES, [size], theirs=lambda result: [result.logits])


def test_a_file_of_transformers_becomes_upernet_over_convnext(tmp_path):
    """Its format is known by its names: as a configuration has it, with no rules given."""
    transformers = oracles.transformers()
    names = [f"stage{i}" for i in range(1, 5)]
    backbone = transformers.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], out_features=names)
    sizes = {"hidden_size": 8, "auxiliary_channels": 8, "auxiliary_in_channels": 24, "num_labels": CLASSES}
    config = transformers.UperNetConfig(backbone_config=backbone, **sizes)
    transformers.UperNetForSemanticSegmentation(config).save_pretrained(tmp_path)
    form = form_of("upernet", TRANSFORMERS, "convnext_tiny")
    encoder_args = {"widths": (8, 16, 24, 32), "depths": (1, 1, 2, 1), **form.fields["encoder_args"]}
    fields = {**form.fields, "width": 8, "aux_width": 8, "encoder": "convnext_tiny", "encoder_args": encoder_args}

    def loaded_into(model):
        ours, _, _ = shapes(model, (1, 64, 64, 3))
        file = str(tmp_path / "model.safetensors")
        return pretrained.load(ours, file, encoder="convnext_tiny", model="upernet", network=model)

    loaded = loaded_into(models.build("upernet", num_classes=CLASSES, **fields))
    assert not any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(loaded.variables))
    assert loaded.notes == () and loaded.commit is None
    fields["encoder_args"] = encoder_args | {"output_norm": False}
    with pytest.raises(pretrained.WeightsError, match=r"is ours with encoder_args\.output_norm=True"):
        loaded_into(models.build("upernet", num_classes=CLASSES, **fields))


def test_auxiliary_head_of_upernet_is_that_of_transformers():
    torch = oracles.torch()
    module = upernet_of_transformers()
    draw(module)
    model = models.build("upernet", num_classes=CLASSES, dropout=0.0, **UPERNET)
    variables, x = load(model, module, UPERNET_RULES), images(64, 64)
    module.train()
    with torch.no_grad():
        logits = module.auxiliary_head(module.backbone(nchw(x)).feature_maps)
        expected = torch.nn.functional.interpolate(logits, size=(64, 64), mode="bilinear", align_corners=False)
    apply = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    (_, out), _ = jax.jit(apply, compiler_options=FAST_COMPILE)(variables, x)
    (aux,) = out["aux"]
    assert_close(aux, nhwc(expected), 1e-3)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (6, 6), (5, 9)])
@pytest.mark.parametrize("image", [(1, 1), (7, 6), (12, 13)])
def test_adaptive_pooling_is_torchs(image, size):
    torch = oracles.torch()
    x = images(*image, channels=4)
    expected = torch.nn.functional.adaptive_avg_pool2d(nchw(x), size)
    np.testing.assert_allclose(adaptive_avg_pool(jnp.asarray(x), size), nhwc(expected), rtol=1e-5, atol=1e-6)


def test_adaptive_pooling_names_what_is_wrong():
    with pytest.raises(ValueError, match="at least 1x1"):
        adaptive_avg_pool(jnp.zeros((1, 4, 4, 1)), (0, 2))
    with pytest.raises(ValueError, match=r"\[b,h,w,c\]"):
        adaptive_avg_pool(jnp.zeros((1, 0, 4, 1)), (2, 2))


def count(name: str, **fields) -> int:
    variables, _, _ = shapes(models.build(name, **fields), (1, 32, 32, 3))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def test_parameters_of_unetplusplus():
    # Zhou 2018, Table 2: 9.04 million, without norms. By node: H of 3x3 convolutions with biases, U of 2x2.
    widths = (32, 64, 128, 256, 512)
    total = sum(9 * c * o + o + 9 * o * o + o for c, o in zip((3, *widths), widths))
    for i in range(4):
        o, below = widths[i], widths[i + 1]
        for j in range(1, 5 - i):
            total += 4 * below * o + o + 9 * (j + 1) * o * o + o + 9 * o * o + o
    assert total + 33 == count("unetplusplus", num_classes=1, norm="none") == 9_042_177
    # Deep supervision adds a classifier for each of the other three nodes of the top row.
    assert count("unetplusplus", num_classes=1, norm="none", deep_supervision=True) == total + 4 * 33


def test_parameters_of_linknet():
    # Chaurasia 2017, Table II: 11.5 million. ResNet-18 without its classifier has 11,176,512.
    def block(c: int, o: int) -> int:
        n = c // 4
        return c * n + 2 * n + 9 * n * n + n + 2 * n + n * o + 2 * o

    blocks = block(512, 256) + block(256, 128) + block(128, 64) + block(64, 64)
    ending = (9 * 64 * 32 + 32 + 64) + (9 * 32 * 32 + 64) + (4 * 32 * 20 + 20)
    assert count("linknet", num_classes=20) == 11_176_512 + blocks + ending == 11_536_036


@pytest.mark.parametrize("name", ["fpn", "pspnet", "upernet"])
def test_parameters_are_those_of_smp(name):
    """At full width, the encoder's levels and the norms included."""
    encoder = {"encoder_depth": 5} if name == "pspnet" else {}
    peer = oracles.smp()
    with oracles.torch().device("meta"):
        module = getattr(peer, CASES[name][1])("resnet50", encoder_weights=None, classes=21, **encoder)
    expected = sum(p.numel() for p in module.parameters())
    assert count(name, num_classes=21, encoder="resnet50", **form(name)) == expected


STRIDES = (2, 4, 8, 16, 32)
DEFAULTS = {"fpn": STRIDES, "linknet": STRIDES, "pspnet": (2, 4, 8, 8, 8), "upernet": STRIDES}


# Those of the others have the levels of one of these.
@pytest.mark.parametrize("name", some_slow(DEFAULTS, ("fpn", "upernet")))
def test_the_papers_encoder_is_the_default(name):
    _, logits, out = shapes(models.build(name, num_classes=2), (1, 97, 64, 3), train=True)
    assert logits.shape == (1, 97, 64, 2)
    widths = (64, 64, 128, 256, 512) if name == "linknet" else (64, 256, 512, 1024, 2048)
    height = 128 if name == "linknet" else 97
    for i, (stride, width) in enumerate(zip(DEFAULTS[name], widths)):
        assert out[f"encoder/stage{i}"].shape == (1, -(-height // stride), 64 // stride, width)
    assert len(out["aux"]) == (name in ("pspnet", "upernet"))


def test_stages_of_unetplusplus_and_full_resolution():
    levels = {"full_skip": False, "full_resolution": True, "encoder": "plain", "encoder_args": {"widths": [7, 8, 9]}}
    model = models.build("unetplusplus", num_classes=2, widths=[3, 4, 5, 6], **levels)
    variables, _, out = shapes(model, (1, 8, 12, 3))
    assert out["decoder/full0"].shape == (1, 8, 12, 3) and out["decoder/stage0"].shape == (1, 4, 6, 4)
    assert set(variables["params"]["decoder"]) == {"full0", "node0_1"}


def test_deep_supervision_of_unetplusplus():
    fields = {"num_classes": 2, "widths": [4, 5, 6], "deep_supervision": True}
    built = {branch: models.build("unetplusplus", **fields, branch=branch) for branch in (None, 1, 2)}
    x = images(8, 12, batch=1)
    variables = drawn(built[None], x)

    def run(variables, x):
        return [model.apply(variables, x) for model in built.values()]

    results = dict(zip(built, jax.jit(run, compiler_options=FAST_COMPILE)(variables, x)))
    logits = {branch: result[0] for branch, result in results.items()}
    np.testing.assert_allclose(logits[None], (logits[1] + logits[2]) / 2, rtol=1e-4, atol=1e-5)
    assert np.abs(logits[1] - logits[2]).max() > 1e-3
    # The pruned network has nothing of the deeper rows.
    assert [f"decoder/stage{i}" in results[1][1] for i in range(2)] == [True, False]
    _, _, out = shapes(built[1], (1, 8, 12, 3), train=True)
    assert len(out["aux"]) == 1 and "decoder/stage1" in out
    with pytest.raises(ValueError, match="branch=3 needs deep_supervision and an encoder of at least 4 levels"):
        shapes(models.build("unetplusplus", **fields, branch=3), (1, 8, 8, 3))


@pytest.mark.parametrize("up", ["transposed", "nearest", "bilinear"])
@pytest.mark.parametrize("name", ["unet", "unetplusplus"])
def test_nested_decoders_reach_the_full_resolution(name, up):
    model = models.build(
        name, num_classes=3, widths=[4, 6, 8], encoder=Backbone, full_resolution=True, center=True, up=up
    )
    variables, logits, out = shapes(model, (1, 13, 10, 3), train=True)
    assert logits.shape == (1, 13, 10, 3)
    assert out["decoder/full0"].shape[-1] == 4 and out["decoder/stage0"].shape[-1] == 6
    assert "center" in variables["params"]
    with pytest.raises(ValueError, match="widths"):
        shapes(models.build(name, num_classes=3, widths=[6, 8], encoder=Backbone, full_resolution=True), (1, 8, 8, 3))


@pytest.mark.parametrize("name", ["fpn", "linknet", "pspnet", "upernet"])
def test_decoders_take_any_pyramid(name):
    finest = {} if name == "pspnet" else {"finest": 1}
    sizes = {"widths": [4, 6, 8]}
    for encoder, args in (("plain", sizes), ("residual", sizes), ("resnet18", {"widths": NARROW, "depths": (1,) * 4})):
        model = models.build(name, num_classes=3, encoder=encoder, encoder_args=args, **finest)
        _, logits, _ = shapes(model, (1, 13, 10, 3))
        assert logits.shape == (1, 13, 10, 3)
    _, logits, _ = shapes(models.build(name, num_classes=3, encoder=Backbone, **finest), (1, 13, 10, 3), train=True)
    assert logits.shape == (1, 13, 10, 3)
    if finest:
        with pytest.raises(ValueError, match="finest=8 leaves no level of an encoder of strides"):
            shapes(models.build(name, num_classes=3, encoder=Backbone, finest=8), (1, 13, 10, 3))
