"""Networks of segmentation_models_pytorch over other encoders than whole ResNets, loaded as a configuration does."""

import jax
import numpy as np
import pytest
from helpers import oracles, parity
from helpers.marks import at_each_size, some_slow
from helpers.peers import form_of, format_of
from helpers.tiny_run import tiny_config
from helpers.variables import variable_shapes

from jaxseg import models, pretrained
from jaxseg.build import build_parts
from jaxseg.config import update
from jaxseg.errors import ConfigError
from jaxseg.pretrained import catalogue, peer_form
from jaxseg.pretrained.family import SMP, TORCHVISION, TRANSFORMERS, Published
from jaxseg.pretrained.loading import candidates
from jaxseg.run.weights import plan_weights

CLASSES = 3
CLASS_OF = {
    "fpn": "FPN",
    "linknet": "Linknet",
    "pspnet": "PSPNet",
    "unet": "Unet",
    "unetplusplus": "UnetPlusPlus",
    "upernet": "UPerNet",
}


def theirs(name, encoder, **arguments):
    """Their network; that over a VGG has no memory yet, since it makes the classifier too."""
    smp = oracles.smp()
    import torch

    # A MiT reads numbers from a tensor while it is built, which the meta device does not have.
    with torch.device("cpu" if encoder.startswith("mit") else "meta"):
        module = getattr(smp, CLASS_OF[name])(encoder, encoder_weights=None, classes=CLASSES, **arguments)
    if encoder.startswith("mit"):
        for i, units in enumerate(TINY["depths"], 1):
            setattr(module.encoder, f"block{i}", getattr(module.encoder, f"block{i}")[:units])
    return module


def ours(name, encoder, **fields):
    """Our network in the form of theirs; `fields` come before its usual sizes."""
    form = form_of(name, SMP, encoder)
    return models.build(name, num_classes=CLASSES, encoder=encoder, **{**form.fields, **form.sizes, **fields})


def shapes_of(model):
    return variable_shapes(model, (1, 64, 64, 3))


UNET = {"up": "nearest", "full_resolution": True, "head_kernel": 3}
PSPNET = {"fuse_kernel": 1, "head_kernel": 3, "norm_single": False, "aux_width": None}
TV = {"head_conv": True, "encoder_args": {"output_stride": 8, "multi_grid": (1, 1, 1), "first_dilated": False}}
TINY = {"depths": (1, 1, 2, 1)}
MIT = {"encoder_args": TINY}
THEIR_CONVNEXT = {"dims": (8, 16, 24, 32), **TINY}
CONVNEXT = {"encoder_args": {"widths": (8, 16, 24, 32), **TINY}}
CUT = {"encoder_args": {"depths": (2, 2, 2), "widths": (64, 64, 128, 256)}}
THEIR_CUT = {"encoder_depth": 4}
ALL, UNETS = ("fpn", "linknet", "unet", "unetplusplus", "upernet"), ("unet", "unetplusplus")
# Name, their encoder and arguments, our encoder and fields. Theirs refuse a MiT in LinkNet and UNet++; their PSPNet
# reads the third level, after which ours has another in a VGG, and of which it has no form in a MobileNetV2.
CASES = [
    *((name, "vgg11_bn", {}, "vgg11_bn", {}) for name in ALL),
    ("unet", "mobilenet_v2", {}, "mobilenet_v2", {}),
    *((name, "mit_b0", {}, "mit_b0", MIT) for name in ("fpn", "unet", "upernet")),
    ("pspnet", "mit_b0", {}, "mit_b0", {"encoder_args": {"widths": (32, 64), "depths": (1, 1)}}),
    *((name, "tu-convnext_tiny", THEIR_CONVNEXT, "convnext_tiny", CONVNEXT) for name in ALL),
    *(
        (name, "resnet18", THEIR_CUT | {"decoder_channels": (8, 7, 6, 5)}, "resnet18", CUT | {"widths": (5, 6, 7, 8)})
        for name in UNETS
    ),
    ("linknet", "resnet18", THEIR_CUT, "resnet18", CUT),
    ("pspnet", "resnet18", {"aux_params": {"classes": 2}}, "resnet18", {}),
]


@pytest.mark.parametrize(("name", "encoder", "arguments", "known", "fields"), CASES)
def test_every_array_has_its_place(name, encoder, arguments, known, fields):
    """On both sides, with the encoder's own levels and widths, in the form of the peer."""
    state = theirs(name, encoder, **arguments).state_dict()
    state = {key: np.broadcast_to(np.float32(0), tuple(x.shape)) for key, x in state.items()}
    model = ours(name, known, **fields)
    lists = [candidate.rules for candidate in candidates(catalogue.network_formats(name), known, model)]
    given, wanted = pretrained.rename(state, lists), pretrained.flatten(shapes_of(model))
    assert {path: x.shape for path, x in given.items()} == {path: x.shape for path, x in wanted.items()}


def saved(module, path):
    torch = oracles.torch()
    module = module.to_empty(device="cpu") if next(module.parameters()).is_meta else module
    parity.draw(module)
    torch.save(module.eval().state_dict(), path)
    return module


def assert_logits(module, model, file, encoder, size):
    torch = oracles.torch()
    loaded = pretrained.load(shapes_of(model), str(file), encoder=encoder, model="unet", network=model)
    assert loaded.notes == ()
    apply = jax.jit(lambda v, x: model.apply(v, x)[0], compiler_options=parity.FAST_COMPILE)
    x = parity.images(*size)
    with torch.no_grad():
        expected = module(parity.nchw(x))
    parity.assert_close(apply(loaded.variables, x), parity.nhwc(expected))


@pytest.fixture(scope="module")
def unet_over_mit(tmp_path_factory):
    path = tmp_path_factory.mktemp("smp") / "mit.pth"
    return saved(theirs("unet", "mit_b0"), path), path


@pytest.mark.parametrize("size", some_slow(((66, 78), (64, 96)), ((64, 96),)))
def test_unet_over_a_mit_has_the_logits_of_smp(unet_over_mit, size):
    # Their level of stride 2, of no channels, is rounded down: the sides are even, those of the levels are not.
    module, file = unet_over_mit
    assert_logits(module, ours("unet", "mit_b0", **MIT), file, "mit_b0", size)


@at_each_size
def test_unet_over_a_vgg_has_the_logits_of_smp(tmp_path, size):
    module = saved(theirs("unet", "vgg11"), tmp_path / "x.pth")
    model = ours("unet", "vgg11", encoder_args={"rounding": "floor"})
    assert_logits(module, model, tmp_path / "x.pth", "vgg11", size)


def test_the_error_names_the_fields_that_a_configuration_lacks(unet_over_mit):
    changes = {"model__name": "unet", "model__num_classes": CLASSES, "model__weights": str(unet_over_mit[1])}
    config = tiny_config(**changes)
    update(config, model__args={"encoder": "mit_b0", "full_resolution": True, "widths": (4, 5, 6, 7, 8), **MIT})
    with pytest.raises(ConfigError) as raised:
        plan_weights(build_parts(config, CLASSES))
    assert str(raised.value).endswith(
        "The file has the names of segmentation_models.pytorch, whose network is ours with up=nearest, "
        "head_kernel=3 and by default widths=(16,32,64,128,256)."
    )
    update(config, model__args={"encoder": "mit_b0", "widths": (16, 32, 64, 128, 256), **UNET, **MIT})
    planned = plan_weights(build_parts(config, CLASSES))
    assert not any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(planned.variables))
    assert planned.origin.notes == () and planned.origin.commit is None
    update(config, model__args={})
    with pytest.raises(
        ConfigError,
        match=r"the network 'unet' has its own encoder here.*another encoder, such as resnet50",
    ):
        plan_weights(build_parts(config, CLASSES))


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (("conv1.weight", "bn1.weight"), " These are names of an encoder: load them as weights of the encoder."),
        (("encoder.conv1.weight", "a", "b"), ""),  # a third of the names is no format
        (("encoder.conv1.weight", "encoder.bn1.weight", "b"), "The file has the names of segmentation_models.pytorch"),
    ],
)
def test_the_format_of_a_file_is_the_one_that_knows_most_of_its_names(tmp_path, names, hint):
    np.savez(tmp_path / "x.npz", **dict.fromkeys(names, np.zeros((1, 1, 1, 1), np.float32)))
    config = tiny_config(model__name="unet", model__weights=str(tmp_path / "x.npz"))
    update(config, model__args={"encoder": "resnet18", "widths": (4, 4, 4, 4)})
    with pytest.raises(ConfigError, match="No rule knows") as raised:
        plan_weights(build_parts(config, CLASSES))
    said = str(raised.value)
    assert said.endswith(hint) if hint.startswith(" ") else hint in said
    assert bool(hint) == ("names of" in said)


@pytest.mark.parametrize(
    ("name", "peer", "encoder", "fields", "lacking"),
    [
        ("fpn", SMP, "resnet18", {"smooth": False}, "align_corners=True"),
        ("fpn", SMP, "resnet18", {"smooth": False, "align_corners": True}, ""),
        ("unetplusplus", SMP, "vgg11", UNET | {"center": True}, "full_skip=False"),
        (
            "deeplabv3",
            TORCHVISION,
            "resnet50",
            TV | {"encoder_args": TV["encoder_args"] | {"output_stride": 16}},
            "encoder_args.output_stride=8",
        ),
        ("segformer", TRANSFORMERS, "mit_b2", {}, ""),
        ("segformer", TRANSFORMERS, "mit_b2", {"act": "gelu"}, "act=relu"),
        ("pspnet", SMP, "resnet18", PSPNET | {"align_corners": False}, "align_corners=True"),
        ("lraspp", TORCHVISION, "mobilenet_v3_large", {}, ""),
        (
            "lraspp",
            TORCHVISION,
            "mobilenet_v3_large",
            {"encoder_args": {"tap": "last"}},
            "encoder_args.tap=first",
        ),
        ("deeplabv3", TORCHVISION, "resnet50", TV | {"rates": (6, 12, 18)}, "rates=(12,24,36)"),
        ("deeplabv3", TORCHVISION, "resnet50", TV, ""),
    ],
)
def test_fields_that_change_the_numbers_and_not_the_shapes_are_noted(name, peer, encoder, fields, lacking):
    model = models.build(name, num_classes=2, encoder=encoder, **fields)
    remarks = peer_form.remarks(format_of(name, peer), encoder, model, {})
    assert [remark.rpartition(" with ")[2] for remark in remarks] == ([lacking] if lacking else [])


def test_sizes_follow_the_encoder():
    assert form_of("segformer", TRANSFORMERS, "mit_b1").sizes == {"features": 256}
    assert form_of("segformer", TRANSFORMERS, "mit_b3").sizes == {"features": 768}
    depths = form_of("pspnet", SMP, "resnet34").sizes["encoder_args"]
    assert depths == {"depths": (3, 4), "widths": (64, 64, 128)}
    assert format_of("mask2former", TRANSFORMERS).form_over("resnet18") is None


def test_every_form_names_fields_that_the_network_has():
    formats = [known for family in catalogue.families() for known in family.network_formats]
    over = {"lraspp": "mobilenet_v3_large", "dpt": "vit_base", "eomt": "vit_base_dinov2_reg"}
    for known in formats:
        encoder = over[known.model] if known.model in over else "resnet18"
        form = known.form_over(encoder)
        if form is not None:
            models.build(known.model, num_classes=2, encoder=encoder, **{**form.sizes, **form.fields})
    assert {known.model for known in formats if known.form is None} == {"mask2former"}


def test_the_weights_of_smp_are_those_that_it_fetches():
    known = oracles.smp().encoders.encoders
    rows = [row for family in catalogue.families() for row in family.encoder_weights]
    rows = [
        row for row in rows if isinstance(row.published, Published) and row.published.repository.startswith("smp-hub/")
    ]
    assert [row.encoder for row in rows] == ["mobilenet_v2"]
    for row in rows:
        theirs = known[row.encoder]["pretrained_settings"][row.name]
        assert (row.published.repository, row.published.revision) == (theirs["repo_id"], theirs["revision"])
