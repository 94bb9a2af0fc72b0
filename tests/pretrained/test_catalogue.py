"""The catalogue: every entry names an encoder, a network or a file that exists, and its rules fit the peer's."""

import functools
import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import oracles
from helpers.variables import variable_shapes

from jaxseg import models, pretrained
from jaxseg.errors import WeightsError
from jaxseg.models import encoders
from jaxseg.pretrained import catalogue
from jaxseg.pretrained.family import APACHE, BSD, MIT, Packaged


def test_files_of_torchvision_are_checked_by_their_names():
    catalogue.check_torchvision_digest("resnet18-f37072fd", "f37072fd" + "0" * 56)
    catalogue.check_torchvision_digest("mine-f37072fe", "0" * 64)
    with pytest.raises(WeightsError, match=r"resnet18-f37072fd\.pth is damaged"):
        catalogue.check_torchvision_digest("resnet18-f37072fd", "f37072fe" + "0" * 56)


# torchvision's names of encoders
SHORT = ("maxvit_t-", *(f"swin_{form}{size}-" for form in ("", "v2_") for size in "tsb"))


def test_catalogue_names_what_is_there():
    families = catalogue.families()
    rows = [row for family in families for row in family.encoder_weights]
    for row in rows:
        assert row.encoder in encoders.names()
        assert isinstance(row.published, Packaged) or row.published.repository.count("/") == 1
        assert catalogue.encoder_formats(row.encoder)
    assert len({(row.encoder, row.name) for row in rows}) == len(rows) > 50
    rows += [row for family in families for row in family.network_weights]
    assert {row.licence for row in rows} == {APACHE, BSD, MIT}  # others are withheld
    for row in [row for family in families for row in family.network_weights]:
        assert row.model in models.names() and row.published.repository.count("/") == 1
        assert catalogue.network_formats(row.model)
    assert {name for known in catalogue.encoder_formats() for name in known.encoders} <= set(encoders.names())
    assert {known.model for family in families for known in family.network_formats} <= set(models.names())
    networks = ("deeplabv3_resnet", "fcn_resnet", "lraspp_mobilenet_v3_large")
    files = [stem for family in families for stem in family.torchvision_files]
    assert all(stem.startswith((*encoders.names(), *networks, *SHORT)) for stem in files)
    assert len(set(files)) == len(files) > 40


def test_every_family_of_encoders_with_a_peer_has_a_format():
    without = {name for name in encoders.names() if not catalogue.encoder_formats(name)}
    without -= {"resnet50_three_stages"}  # of TransUNet, whose weights are those of a whole network
    assert {encoders.family(name) for name in without} == {"mscan", "plain", "residual", "stdc"}


def test_every_file_of_rules_is_collected():
    """A family that `catalogue.families` does not name would never be found."""
    files = Path(catalogue.__file__).parent.glob("*.py")
    named = {file.stem for file in files if re.search(r"^FAMILY = ", file.read_text(encoding="utf-8"), re.MULTILINE)}
    modules = [importlib.import_module(f"jaxseg.pretrained.{name}") for name in sorted(named)]
    assert sorted(map(id, catalogue.families())) == sorted(id(module.FAMILY) for module in modules)


def state_of(repository: str) -> dict[str, np.ndarray]:
    """The entries of the model whose weights the repository holds, all zero."""
    owner, name = repository.split("/")
    return dict(_state_of(owner, name.partition(".")[0]))


@functools.cache
def _state_of(owner: str, name: str) -> dict[str, np.ndarray]:
    torch = oracles.torch()
    # A MiT of segmentation_models.pytorch reads numbers from a tensor while it is built.
    with torch.device("cpu" if owner == "smp-hub" else "meta"):
        if owner == "timm":
            module = oracles.timm().create_model(name, pretrained=False)
        elif owner == "smp-hub":
            module = oracles.smp().encoders.get_encoder(name, weights=None)
        else:
            transformers = oracles.transformers()
            module = transformers.SegformerForImageClassification(transformers.SegformerConfig())
    return {key: np.broadcast_to(np.float32(0), tuple(x.shape)) for key, x in module.state_dict().items()}


@pytest.mark.parametrize(
    "encoder",
    ["resnet18", "resnet50d", "vgg11", "vgg11_bn", "convnext_tiny", "hrnet_w18", "mobilenet_v2", "mit_b0", "vit_small"],
)
def test_published_encoders_fit_ours(encoder):
    """Every entry of the peer's `state_dict` has its place in our encoder, and ours are all filled."""
    model = encoders.build(encoder)
    shapes = variable_shapes(model, (1, 64, 64, 3))
    lists = [known.rules() for known in catalogue.encoder_formats(encoder)]
    for published in catalogue.encoder_weights(encoder).values():
        state = state_of(published.repository)
        if encoder == "mit_b0":  # files of these names may hold heads: the authors' classifiers, and SegFormers
            theirs = published.repository.startswith("smp-hub/")
            state["head.weight" if theirs else "decode_head.classifier.weight"] = np.ones(9)
        pretrained.merge(shapes, pretrained.rename(state, lists))


@pytest.mark.parametrize("name", encoders.names())
def test_every_encoder_is_known_by_what_makes_it(name):
    assert encoders.name_of(encoders.factory(name)) == name
    assert encoders.factory(name) == encoders.factory(name)
    assert hash(encoders.factory(name)) == hash(encoders.factory(name))
    assert encoders.name_of(type(encoders.build(name))) is None  # a class has no name here


# The names that timm has for what other repositories hold too.
OF_TIMM = {
    **{f"facebook/dinov2-{size}": f"vit_{size}_patch14_dinov2.lvd142m" for size in ("small", "base", "large")},
    **{
        f"facebook/dinov2-with-registers-{size}": f"vit_{size}_patch14_reg4_dinov2.lvd142m"
        for size in ("small", "base", "large")
    },
    "openai/clip-vit-base-patch16": "vit_base_patch16_clip_224.openai",
    "openai/clip-vit-large-patch14": "vit_large_patch14_clip_224.openai",
    "google/siglip2-base-patch16-224": "vit_base_patch16_siglip_224.v2_webli",
    "google/siglip2-large-patch16-256": "vit_large_patch16_siglip_256.v2_webli",
}
DEFAULTS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_timm_has_the_repositories_and_says_their_licences_and_which_images_they_were_trained_with():
    timm, compared = oracles.timm(), 0
    names = set(timm.list_pretrained())
    for row in (row for family in catalogue.families() for row in family.encoder_weights):
        if isinstance(row.published, Packaged):
            continue
        owner, _, name = row.published.repository.partition("/")
        if owner != "timm" and row.published.repository not in OF_TIMM:
            continue
        name = name if owner == "timm" else OF_TIMM[row.published.repository]
        assert name in names, row
        theirs = timm.get_pretrained_cfg(name)
        assert (theirs.mean, theirs.std) == (row.published.normalised or DEFAULTS), row
        if row.name != "clip":  # timm's copies are under a licence of their own
            assert theirs.license == row.licence.lower(), row
        compared += 1
    assert compared > 50


@pytest.mark.parametrize(
    ("encoder", "licence"),
    [
        ("vit_base_dinov3", "under the DINOv3 License"),
        ("vit_large_mae", "under CC BY-NC 4.0"),
        ("convnextv2_tiny", "under CC BY-NC 4.0"),
        ("sam2_hiera_tiny", "under CC BY-NC 4.0"),
    ],
)
def test_the_licence_of_weights_without_a_name_is_named(encoder, licence):
    with pytest.raises(WeightsError, match=rf"no published weights 'imagenet' for .*{licence}.* A file can be"):
        pretrained.find("imagenet", encoder=encoder)
