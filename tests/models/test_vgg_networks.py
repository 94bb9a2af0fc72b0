"""The networks that were built on VGG beside their papers: parameters by hand, and the same functions in torch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracles, parity
from helpers.marks import at_each_size
from helpers.papers import compare, conv, count, normed
from helpers.variables import drawn, paths, shapes

from jaxseg import models, pretrained
from jaxseg.models import encoders
from jaxseg.models.assembly import AuxiliaryHead
from jaxseg.models.fcn import bilinear
from jaxseg.models.segnet import SegNetStage
from jaxseg.nn import BARE, ConvTranspose, Layers, make_norm, resize
from jaxseg.pretrained import fcn as fcn_rules
from jaxseg.pretrained import resnet as resnet_rules
from jaxseg.pretrained import vgg as vgg_rules

VGG16 = 14_714_688  # its thirteen convolutions
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and convolutions
TINY = {"channels": [4, 6, 8], "depths": [1, 2, 1]}


def vgg(t, x, strides=(2, 2, 2), rates=(1, 1, 1), norm=False, indices=None):
    """The tiny VGG in torch; returns the result of each pooling, and appends to `indices` where its maxima were."""
    levels = []
    for i, (convs, stride, rate) in enumerate(zip(TINY["depths"], strides, rates)):
        for j in range(1, convs + 1):
            name = f"encoder/stage{i}/"
            x = t.conv(x, f"{name}conv{j}", padding=rate, dilation=rate)
            x = t.f.relu(t.norm(x, f"{name}norm{j}") if norm else x)
        pool = {"kernel_size": 2} if stride == 2 else {"kernel_size": 3, "stride": 1, "padding": 1}
        x, index = t.f.max_pool2d(x, **pool, return_indices=True)
        if indices is not None:
            indices.append(index)
        levels.append(x)
    return levels


def up(t, x, size):
    return t.f.interpolate(x, size=size, mode="bilinear", align_corners=False)


# --- VGG with a head ------------------------------------------------------------------------------------------------


def test_vgg_head_count():
    head = normed(3, 512, 32) + normed(3, 32, 16) + conv(1, 16, 1)
    assert count("vgg_head", 3, num_classes=1) == VGG16 + head


@pytest.mark.parametrize("classes", [1, 3])
def test_vgg_head_is_its_layers(classes):
    def network(t, x):
        y = vgg(t, x)[-1]
        for name in ("conv1", "conv2"):
            y = t.layer(y, name)
        return up(t, t.conv(y, "head"), x.shape[2:])

    model = models.build("vgg_head", num_classes=classes, widths=[5, 4], encoder="vgg16", encoder_args=TINY)
    compare(model, network, (16, 24))


# --- FCN ------------------------------------------------------------------------------------------------------------


def test_fcn_counts():
    thirty_two = VGG16 + conv(7, 512, 4096) + conv(1, 4096, 4096) + conv(1, 4096, 21)
    assert thirty_two == 134_346_581  # Table 1: 134 M
    sixteen = thirty_two + conv(1, 512, 21) + conv(4, 21, 21, False)
    eight = sixteen + conv(1, 256, 21) + conv(4, 21, 21, False)
    assert eight == 134_376_863
    for stride, expected in ((32, thirty_two), (16, sixteen), (8, eight)):
        assert count("fcn", 3, num_classes=21, stride=stride, norm="none") == expected
    learned = eight + conv(16, 21, 21, False)
    assert count("fcn", 3, num_classes=21, norm="none", last_up="learned") == learned


def test_bilinear_kernels_interpolate():
    """As `resize` does, away from the border, where a transposed convolution has nothing to weigh."""
    x = jnp.asarray(parity.images(5, 6, 3))
    for factor in (2, 4, 8):
        layer = ConvTranspose(3, 2 * factor, factor, use_bias=False, kernel_init=bilinear)
        y = layer.apply(layer.init(jax.random.key(0), x), x)
        expected = resize(x, y.shape[1:3])
        inside = (slice(None), slice(factor, -factor), slice(factor, -factor))
        np.testing.assert_allclose(y[inside], expected[inside], rtol=1e-5, atol=1e-5)
        assert np.abs(y - expected).max() > 0.1


@pytest.mark.parametrize("last_up", ["fixed", "learned"])
def test_fcn_is_figure_3(last_up):
    def network(t, x):
        two, four, eight = vgg(t, x)
        y = t.layer(t.layer(eight, "fc6", 2), "fc7", 0)
        y = t.up(t.conv(y, "head"), "up4", padding=1) + t.conv(four, "score4")
        y = t.up(y, "up2", padding=1) + t.conv(two, "score2")
        return up(t, y, x.shape[2:]) if last_up == "fixed" else t.up(y, "up1", padding=1)

    model = models.build(
        "fcn",
        num_classes=3,
        stride=2,
        hidden=7,
        hidden_kernel=5,
        last_up=last_up,
        norm="none",
        encoder="vgg16",
        encoder_args=TINY | {"levels": "pooled"},
    )
    compare(model, network, (16, 24))


def test_fcn_pads_other_sizes_with_zeros():
    fields = {"hidden": 7, "hidden_kernel": 3, "stride": 4, "encoder": "vgg16", "encoder_args": TINY}
    model = models.build("fcn", num_classes=3, **fields)
    image = parity.images(13, 17)
    variables = drawn(model, image)
    padded = np.pad(image, ((0, 0), (0, 3), (0, 7), (0, 0)))
    run = jax.jit(lambda x: model.apply(variables, x)[0], compiler_options=parity.FAST_COMPILE)
    np.testing.assert_allclose(run(image), run(padded)[:, :13, :17], rtol=1e-5, atol=1e-5)


def test_fcn_starts_from_the_coarser_prediction():
    model = models.build("fcn", num_classes=3, hidden=7, stride=2, encoder="vgg16", encoder_args=TINY)
    initialise = jax.jit(model.init, compiler_options=parity.FAST_COMPILE)
    params = initialise(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    assert {path for path in paths(params) if path.startswith("score")} == {
        f"score{s}/{leaf}" for s in (2, 4) for leaf in ("kernel", "bias")
    }
    assert not any(np.abs(leaf).max() for s in (2, 4) for leaf in params[f"score{s}"].values())


def test_fcn_scores_the_last_level_of_each_stride():
    model = models.build("fcn", num_classes=2, hidden=3, stride=2, encoder="vgg16", encoder_args=TINY)
    assert {"score4/kernel", "score2/kernel"} <= paths(shapes(model, (1, 8, 8, 3))[0]["params"])
    dilated = models.build("fcn", num_classes=2, stride=2, encoder="vgg16", encoder_args=TINY | {"output_stride": 2})
    assert not any(path.startswith(("score", "up")) for path in paths(shapes(dilated, (1, 8, 8, 3))[0]["params"]))
    with pytest.raises(ValueError, match=r"no level of stride 16, only \(2, 4, 8\)"):
        shapes(models.build("fcn", num_classes=2, stride=16, encoder="vgg16", encoder_args=TINY), (1, 8, 8, 3))
    with pytest.raises(ValueError, match="hidden_kernel must be odd"):
        shapes(models.build("fcn", num_classes=2, hidden_kernel=4), (1, 8, 8, 3))


def test_fcn_holds_the_dense_layers_of_a_classifier(tmp_path):
    """Over 7x7 features the convolution "fc6" gives at its centre what the dense layer gives (section 3.1)."""
    torch = oracles.torch()
    vgg_module = oracles.torchvision().models.vgg

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.features = vgg_module.make_layers([2, "M", 2, "M", 3, 3, "M", 3, 3, "M", 3, 3, "M"])
            layers = [torch.nn.Linear(3 * 49, 6), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(6, 6)]
            self.classifier = torch.nn.Sequential(*layers, torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(6, 4))

    theirs = Classifier().eval()
    parity.draw(theirs)
    image = parity.images(224, 224, batch=1)
    encoder = {"encoder": "vgg11", "encoder_args": {"channels": [2, 2, 3, 3, 3], "levels": "pooled"}}
    model = models.build("fcn", num_classes=2, stride=32, hidden=6, norm="none", **encoder)
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    loaded = pretrained.load(drawn(model, image), str(tmp_path / "x.pth"), encoder="vgg11")
    assert loaded.notes == ("took the dense layers for fc6 and fc7",)
    _, out = jax.jit(model.apply, compiler_options=parity.FAST_COMPILE)(loaded.variables, image)
    with torch.no_grad():
        expected = theirs.classifier[:5](theirs.features(parity.nchw(image)).flatten(1))
    parity.assert_close(out["hidden"][:, 3, 3], expected)
    for fields, other in (({"norm": "batch"}, "fc6"), ({"hidden": 5}, "fc7")):
        model = models.build("fcn", num_classes=2, **{"hidden": 6, **fields}, **encoder)
        loaded = pretrained.load(shapes(model, (1, 64, 64, 3))[0], str(tmp_path / "x.pth"), encoder="vgg11")
        assert len(loaded.notes) == 1 and loaded.notes[0].startswith("kept the initial values of fc6 and fc7: ")
        assert isinstance(loaded.variables["params"][other]["conv"]["kernel"], jax.ShapeDtypeStruct)
        assert not isinstance(loaded.variables["params"]["encoder"]["stage0"]["conv1"]["kernel"], jax.ShapeDtypeStruct)


@pytest.mark.parametrize("peer", ["torchvision", "timm"])
def test_published_dense_layers_fit_fcn(peer):
    torch, library = oracles.torch(), getattr(oracles, peer)()
    with torch.device("meta"):
        theirs = library.models.vgg11(weights=None) if peer == "torchvision" else library.create_model("vgg11")
    state = {key: np.broadcast_to(np.float32(0), tuple(x.shape)) for key, x in theirs.state_dict().items()}
    model = models.build("fcn", num_classes=2, norm="none", encoder="vgg11", encoder_args={"levels": "pooled"})
    ours = pretrained.flatten(shapes(model, (1, 64, 64, 3))[0])
    given = vgg_rules.dense_layers(state, ours, [])
    paths = {f"params/{name}/conv/{leaf}" for name in ("fc6", "fc7") for leaf in ("kernel", "bias")}
    assert {path: x.shape for path, x in given.items()} == {path: ours[path].shape for path in paths}


# --- SegNet ---------------------------------------------------------------------------------------------------------


def mirrored_count(classes: int) -> int:
    """The decoder of SegNet: VGG-16's convolutions backwards, norms for biases, the last to the classes."""
    total = 0
    for i, (width, convs) in enumerate(STAGES):
        after = STAGES[max(0, i - 1)][0]
        rest = convs - 1 if i > 0 else 0
        total += rest * normed(3, width, width) + (normed(3, width, after) if i > 0 else normed(3, width, width))
    return total + conv(3, 64, classes)


def test_segnet_counts():
    norms = sum(2 * width * convs for width, convs in STAGES)
    expected = VGG16 + norms + mirrored_count(11)
    assert count("segnet", 3, num_classes=11) == expected
    assert round(expected / 1e6, 1) == 29.4
    basic = normed(7, 3, 64) + 7 * normed(7, 64, 64) + conv(1, 64, 11)
    assert count("segnet", 3, num_classes=11, form="basic") == basic == 1_416_075  # Table 1: 1.425 M


@pytest.mark.parametrize("size", [(16, 24), (13, 21)])
def test_segnet_is_figure_2(size):
    def network(t, x):
        indices = []
        y = vgg(t, x, norm=True, indices=indices)[-1]
        for i, convs in ((2, 1), (1, 2), (0, 1)):
            y = t.f.max_unpool2d(y, indices[i], 2)
            for j in range(1, convs + 1):
                y = t.layer(y, f"decoder/stage{i}/conv{j}")
        return t.conv(y, "head", padding=1)

    def pad(t, x):
        return t.f.pad(x, (0, 24 - size[1], 0, 16 - size[0]))

    encoder = {"encoder": "vgg16_bn", "encoder_args": TINY}
    compare(models.build("segnet", num_classes=3, depths=[2, 2, 1], **encoder), network, size, pad)


def test_segnet_basic_has_no_activation_in_the_decoder():
    def network(t, x):
        indices = []
        y = vgg(t, x, norm=True, indices=indices)[-1]
        for i in (2, 1, 0):
            y = t.f.max_unpool2d(y, indices[i], 2)
            y = t.conv(y, f"decoder/stage{i}/conv1/conv", padding=3)
            y = t.norm(y, f"decoder/stage{i}/conv1/norm")
        return t.conv(y, "head")

    encoder = {"encoder": "vgg16_bn", "encoder_args": TINY}
    compare(models.build("segnet", num_classes=3, form="basic", **encoder), network, (16, 24))


def test_unpooling_puts_values_where_the_maxima_were():
    stage = SegNetStage(widths=(), common=Layers(make_norm("none")))
    level, x = parity.images(6, 8, 4), parity.images(3, 4, 4)
    y = np.asarray(stage.apply({}, x, jnp.asarray(level)))
    tiles, values = (a.reshape(2, 3, 2, 4, 2, 4).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 4) for a in (level, y))
    np.testing.assert_array_equal(values[np.arange(len(tiles)), tiles.argmax(1)], x.reshape(-1))
    assert (np.count_nonzero(values, 1) == 1).all()
    moved = np.asarray(stage.apply({}, x, jnp.asarray(-level)))
    assert np.abs(moved - y).max() > 0.1


def test_segnet_takes_encoders_that_halve():
    for encoder, arguments in (("resnet18", {"output_stride": 8}), ("residual", {}), ("plain", {"widths": [4, 6]})):
        model = models.build("segnet", num_classes=2, encoder=encoder, encoder_args=arguments)
        _, logits, _ = shapes(model, (1, 33, 47, 3))
        assert logits.shape == (1, 33, 47, 2)
    with pytest.raises(ValueError, match=r"depths \(2,\) are too few for an encoder of 4 levels"):
        shapes(models.build("segnet", num_classes=2, depths=[2], encoder="residual"), (1, 8, 8, 3))


def test_bayesian_segnet_drops_in_the_deeper_half():
    """Kendall 2017, section 3: between the central three encoder and decoder stages of five."""
    model = models.build("segnet", num_classes=2, dropout=0.5, norm="none", depths=[1] * 5)
    small = {"channels": (4,) * 5, "depths": (1,) * 5, "dropout": 0.5}
    model = model.clone(encoder=encoders.factory("vgg16_bn", **small))
    x = jnp.asarray(parity.images(64, 64))
    variables = drawn(model, x)
    jit = functools.partial(jax.jit, compiler_options=parity.FAST_COMPILE)
    run = jit(lambda key: model.apply(variables, x, train=True, rngs={"dropout": key})[1])
    _, still = jit(model.apply)(variables, x)
    one, two = run(jax.random.key(1)), run(jax.random.key(2))
    for stage in [f"encoder/stage{i}" for i in range(6)]:
        assert (np.abs(one[stage] - two[stage]).max() > 0) == (stage[-1] in "345"), stage
    zeros = {i: float(np.mean(one[f"decoder/stage{i}"] == 0)) for i in range(5)}
    before = {i: float(np.mean(still[f"decoder/stage{i}"] == 0)) for i in range(5)}
    for i in (2, 3, 4):
        assert zeros[i] > before[i] + 0.1, (zeros, before)


# --- DeepLab v1 and v2 ----------------------------------------------------------------------------------------------


def test_deeplab_counts():
    fov = conv(3, 512, 1024) + conv(1, 1024, 1024)
    large = VGG16 + fov + conv(1, 1024, 21)
    assert count("deeplabv1", 3, num_classes=21, norm="none") == large == 20_505_429  # Table 2: 20.5 M
    assert count("deeplabv2", 3, num_classes=21, norm="none") == VGG16 + 4 * (fov + conv(1, 1024, 21)) == 37_877_652
    resnet = {"encoder": "resnet101", "encoder_args": {"output_stride": 8}, "hidden": None}
    resnet101 = 44_549_160 - conv(1, 2048, 1000)  # torchvision's, without its dense layer
    assert count("deeplabv2", 3, num_classes=21, **resnet) == resnet101 + 4 * conv(3, 2048, 21)


def test_deeplabv1_is_vgg_with_holes():
    def network(t, x):
        y = vgg(t, x, strides=(2, 1, 1), rates=(1, 1, 2))[-1]
        y = t.f.relu(t.conv(y, "fov/fc6/conv", padding=3, dilation=3))
        y = t.layer(y, "fov/fc7", 0)
        return up(t, t.conv(y, "head"), x.shape[2:])

    encoder = {"encoder": "vgg16", "encoder_args": TINY | {"output_stride": 2}}
    compare(models.build("deeplabv1", num_classes=3, hidden=5, rate=3, norm="none", **encoder), network, (12, 16))


@pytest.mark.parametrize("hidden", [5, None])
def test_deeplabv2_sums_its_branches(hidden):
    def network(t, x):
        y = vgg(t, x, strides=(2, 2, 1))[-1]
        total = 0
        for i, rate in enumerate((1, 3, 4)):
            name, space = f"head/branch{i}", {"padding": rate, "dilation": rate}
            if hidden is None:
                total = total + t.conv(y, f"{name}/score", **space)
            else:
                z = t.norm(t.conv(y, f"{name}/fov/fc6/conv", **space), f"{name}/fov/fc6/norm")
                total = total + t.conv(t.layer(t.f.relu(z), f"{name}/fov/fc7", 0), f"{name}/score")
        return up(t, total, x.shape[2:])

    encoder = {"encoder": "vgg16", "encoder_args": TINY | {"output_stride": 4}}
    compare(models.build("deeplabv2", num_classes=3, hidden=hidden, rates=[1, 3, 4], **encoder), network, (16, 24))


def test_deeplabs_score_at_stride_8():
    for name in ("deeplabv1", "deeplabv2"):
        _, logits, out = shapes(models.build(name, num_classes=3), (1, 65, 79, 3))
        assert logits.shape == (1, 65, 79, 3)
        sizes = [out[f"encoder/stage{i}"].shape[1:3] for i in range(6)]
        assert sizes == [(72, 80), (36, 40), (18, 20), (9, 10), (9, 10), (9, 10)]


# --- torchvision's FCN ----------------------------------------------------------------------------------------------


def meta(name):
    torchvision = oracles.torchvision()
    import torch

    with torch.device("meta"):
        return getattr(torchvision.models.segmentation, name)(weights=None, weights_backbone=None, aux_loss=True)


# ResNet-101 has more units than ResNet-50 in one stage.
@pytest.mark.parametrize(
    ("name", "published"),
    [("fcn_resnet50", 35_322_218), pytest.param("fcn_resnet101", 54_314_346, marks=pytest.mark.slow)],
)
def test_every_weight_of_torchvisions_fcn_has_a_place(name, published):
    state = {key: np.broadcast_to(np.float32(0), x.shape) for key, x in meta(name).state_dict().items()}
    loaded = pretrained.convert(state, fcn_rules.torchvision(resnet_rules.torchvision()))
    encoder = {"encoder": name.removeprefix("fcn_"), "encoder_args": {"output_stride": 8}}
    model = models.build("fcn_head", num_classes=21, **encoder)
    variables, _, _ = shapes(model, (1, 64, 64, 3))
    ours = pretrained.flatten(variables)
    assert {path: x.shape for path, x in loaded.items()} == {path: x.shape for path, x in ours.items()}
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == published


@at_each_size
def test_fcn_head_is_torchvisions(size):
    vision = oracles.torchvision().models
    import torch

    backbone = vision.resnet.ResNet(
        vision.resnet.Bottleneck, [1, 1, 1, 1], replace_stride_with_dilation=[False, True, True]
    )
    theirs = vision.segmentation.fcn._fcn_resnet(backbone, 5, True)
    parity.draw(theirs)
    theirs.eval()
    encoder = {"encoder": "resnet50", "encoder_args": {"output_stride": 8, "depths": [1, 1, 1, 1]}}
    model = models.build("fcn_head", num_classes=5, **encoder)
    variables = parity.load(model, theirs, fcn_rules.torchvision(resnet_rules.torchvision()))
    # Evaluation leaves the auxiliary head out, so it is applied to the level that it stands on.
    head = AuxiliaryHead(5, 256, common=BARE.replace(norm=make_norm("batch")))
    of_head = {collection: tree["aux"] for collection, tree in variables.items()}

    @functools.partial(jax.jit, compiler_options=parity.FAST_COMPILE)
    def ours(variables, x):
        logits, out = model.apply(variables, x)
        return logits, head.apply(of_head, out["encoder/stage3"], x.shape[1:3])

    x = parity.images(*size)
    with torch.no_grad():
        expected = theirs(parity.nchw(x))
    for a, b in zip(ours(variables, x), (expected["out"], expected["aux"])):
        parity.assert_close(a, parity.nhwc(b))
