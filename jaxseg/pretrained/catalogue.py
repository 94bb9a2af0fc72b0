"""Which published weights there are, where, and which rules rename them: tables, one line an entry.

Rules are named "FILE:FUNCTION", for `jaxseg.pretrained.FILE.FUNCTION() -> list[Rule]`, or "FILE:FUNCTION(1.1)" with
arguments, and imported when they are asked for. Those of an encoder are relative to it; those of a network lead to the
whole of it.
"""

from typing import NamedTuple

from jaxseg.errors import WeightsError
from jaxseg.models import encoders

HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # tried in this order


class Published(NamedTuple):
    """Weights on the Hugging Face Hub.

    Attributes:
        repository: OWNER/NAME.
        files: names in the repository; the first that is there is taken.
        revision: branch or commit; None: the newest.
    """

    repository: str
    files: tuple[str, ...] = HUB_FILES
    revision: str | None = None


# Encoder, name of the weights, repository. "imagenet" are the weights that published segmentation results mostly start
# from: torchvision's first (tv) for ResNets. "imagenet_v2" are torchvision's second, "imagenet_a1" those of "ResNet
# strikes back" (Wightman, Touvron and Jégou 2021): better classifiers from longer training, not always better encoders.
ENCODER_ROWS: tuple[tuple[str, str, str], ...] = (
    ("resnet18", "imagenet", "timm/resnet18.tv_in1k"),
    ("resnet34", "imagenet", "timm/resnet34.tv_in1k"),
    ("resnet50", "imagenet", "timm/resnet50.tv_in1k"),
    ("resnet101", "imagenet", "timm/resnet101.tv_in1k"),
    ("resnet152", "imagenet", "timm/resnet152.tv_in1k"),
    ("resnet18d", "imagenet", "timm/resnet18d.ra2_in1k"),
    ("resnet34d", "imagenet", "timm/resnet34d.ra2_in1k"),
    ("resnet50d", "imagenet", "timm/resnet50d.ra2_in1k"),
    ("resnet101d", "imagenet", "timm/resnet101d.ra2_in1k"),
    ("resnext50_32x4d", "imagenet", "timm/resnext50_32x4d.tv_in1k"),
    ("resnext101_32x8d", "imagenet", "timm/resnext101_32x8d.tv_in1k"),
    ("wide_resnet50_2", "imagenet", "timm/wide_resnet50_2.tv_in1k"),
    ("wide_resnet101_2", "imagenet", "timm/wide_resnet101_2.tv_in1k"),
    ("seresnet50", "imagenet", "timm/seresnet50.ra2_in1k"),
    ("resnet50", "imagenet_v2", "timm/resnet50.tv2_in1k"),
    ("resnet101", "imagenet_v2", "timm/resnet101.tv2_in1k"),
    ("resnet152", "imagenet_v2", "timm/resnet152.tv2_in1k"),
    ("resnext50_32x4d", "imagenet_v2", "timm/resnext50_32x4d.tv2_in1k"),
    ("resnext101_32x8d", "imagenet_v2", "timm/resnext101_32x8d.tv2_in1k"),
    ("wide_resnet50_2", "imagenet_v2", "timm/wide_resnet50_2.tv2_in1k"),
    ("wide_resnet101_2", "imagenet_v2", "timm/wide_resnet101_2.tv2_in1k"),
    ("resnet18", "imagenet_a1", "timm/resnet18.a1_in1k"),
    ("resnet34", "imagenet_a1", "timm/resnet34.a1_in1k"),
    ("resnet50", "imagenet_a1", "timm/resnet50.a1_in1k"),
    ("resnet101", "imagenet_a1", "timm/resnet101.a1_in1k"),
    ("resnet152", "imagenet_a1", "timm/resnet152.a1_in1k"),
    ("resnext50_32x4d", "imagenet_a1", "timm/resnext50_32x4d.a1_in1k"),
    *((f"vgg{n}{norm}", "imagenet", f"timm/vgg{n}{norm}.tv_in1k") for n in (11, 13, 16, 19) for norm in ("", "_bn")),
    *((f"convnext_{size}", "imagenet", f"timm/convnext_{size}.fb_in1k") for size in ("tiny", "small", "base", "large")),
    ("hrnet_w18", "imagenet", "timm/hrnet_w18.ms_aug_in1k"),
    ("hrnet_w32", "imagenet", "timm/hrnet_w32.ms_in1k"),
    ("hrnet_w48", "imagenet", "timm/hrnet_w48.ms_in1k"),
    ("mobilenet_v2", "imagenet", "smp-hub/mobilenet_v2.imagenet"),
    *((f"mit_b{n}", "imagenet", f"smp-hub/mit_b{n}.imagenet") for n in range(6)),
    *((f"mit_b{n}", "nvidia", f"nvidia/mit-b{n}") for n in range(6)),
)

# Repository -> the commit that is fetched of it: segmentation_models.pytorch's own. Of the others the newest is
# fetched, and a run records which that was.
REVISIONS: dict[str, str] = {
    "smp-hub/mobilenet_v2.imagenet": "e67aa804e17f7b404b629127eabbd224c4e0690b",
    "smp-hub/mit_b0.imagenet": "9ce53d104d92d75aabb00aae70677aaab67e7c84",
    "smp-hub/mit_b1.imagenet": "a04bf4f13a549bce677cf79b04852e7510782817",
    "smp-hub/mit_b2.imagenet": "868ab6f13871dcf8c3d9f90ee4519403475b65ef",
    "smp-hub/mit_b3.imagenet": "32558d12a65f1daa0ebcf4f4053c4285e2c1cbda",
    "smp-hub/mit_b4.imagenet": "3a3454e900a4b4f11dd60eeb59101a9a1a36b017",
    "smp-hub/mit_b5.imagenet": "ced04d96c586b6297fd59a7a1e244fc78fdb6531",
}

# Encoder, or family of encoders (file in jaxseg/models/encoders) -> rules of the formats that its weights come in.
ENCODER_RULES: dict[str, tuple[str, ...]] = {
    "resnet": ("resnet:torchvision",),
    "resnet18": ('resnet:torchvision("basic")',),
    "resnet34": ('resnet:torchvision("basic")',),
    "resnet18d": ('resnet:timm_d("basic")',),
    "resnet34d": ('resnet:timm_d("basic")',),
    "resnet50d": ("resnet:timm_d",),
    "resnet101d": ("resnet:timm_d",),
    "convnext": ("convnext:torchvision", "convnext:timm", "convnext:transformers"),
    "hrnet": ("hrnet:timm",),
    "mit": ("mit:mit_transformers", "mit:mit_classifier", "mit:mit_smp"),
    "mobilenet_v2": ("mobilenet:torchvision_v2",),
    "mobilenet_v3_large": ("mobilenet:torchvision_v3_large",),
    "mobilenet_v3_small": ("mobilenet:torchvision_v3_small",),
    **{
        f"efficientnet_b{n}": (f"efficientnet:torchvision({depth})",)
        for n, depth in enumerate((1.0, 1.1, 1.2, 1.4, 1.8, 2.2, 2.6, 3.1))
    },
    **{name: (f"vgg:torchvision({name!r})",) for name in encoders.names() if encoders.family(name) == "vgg"},
}

# Architecture -> rules of the formats that whole networks come in. A rules function with a parameter `encoder` is given
# the rules of the encoder (smp joins any encoder to any decoder), one with `strides` those of the encoder's levels.
# `forms` has the fields that our networks need for each.
NETWORK_RULES: dict[str, tuple[str, ...]] = {
    "deeplabv3": ("deeplab:torchvision_deeplabv3", "deeplab:smp_deeplabv3"),
    "deeplabv3plus": ("deeplab:smp_deeplabv3plus",),
    "fcn_head": ("fcn:torchvision",),
    "lraspp": ("mobilenet:torchvision_lraspp",),
    "mask2former": ("mask2former:mask2former_transformers",),
    "segformer": ("mit:segformer_transformers",),
    **{name: (f"smp:{name}",) for name in ("fpn", "linknet", "pspnet", "unet", "unetplusplus")},
    "upernet": ("smp:upernet", "upernet:transformers"),
}

# Architecture, repository that holds the whole network.
NETWORK_ROWS: tuple[tuple[str, str], ...] = (
    *(("segformer", f"nvidia/segformer-b{n}-finetuned-ade-512-512") for n in range(5)),
    ("segformer", "nvidia/segformer-b5-finetuned-ade-640-640"),
    *(("segformer", f"nvidia/segformer-b{n}-finetuned-cityscapes-1024-1024") for n in range(6)),
)

# Files of torchvision (https://download.pytorch.org/models/NAME.pth): the name ends in the first digits of the SHA-256.
_TORCHVISION = """
convnext_base-6075fbad convnext_large-ea097f82 convnext_small-0c510722 convnext_tiny-983f1562
deeplabv3_resnet101_coco-586e9e4e deeplabv3_resnet50_coco-cd0a2569
efficientnet_b0_rwightman-7f5810bc efficientnet_b1-c27df63c efficientnet_b1_rwightman-bac287d4
efficientnet_b2_rwightman-c35c1473 efficientnet_b3_rwightman-b3899882 efficientnet_b4_rwightman-23ab8bcd
efficientnet_b5_lukemelas-1a07897c efficientnet_b6_lukemelas-24a108a5 efficientnet_b7_lukemelas-c5b4e57e
fcn_resnet101_coco-7ecb50ca fcn_resnet50_coco-1167a1af lraspp_mobilenet_v3_large-d234d4ea
mobilenet_v2-7ebf99e0 mobilenet_v2-b0353104 mobilenet_v3_large-5c1a4163 mobilenet_v3_large-8738ca79
mobilenet_v3_small-047dcff4 resnet101-63fe2227 resnet101-cd907fc2 resnet152-394f9c45 resnet152-f82ba261
resnet18-f37072fd resnet34-b627a593 resnet50-0676ba61 resnet50-11ad3fa6 resnext101_32x8d-110c445d
resnext101_32x8d-8ba56ff5 resnext50_32x4d-1a0047aa resnext50_32x4d-7cdf4587
vgg11-8a719046 vgg11_bn-6002323d vgg13-19584684 vgg13_bn-abd245e5 vgg16-397923af vgg16_bn-6c64b313
vgg19-dcbb9e9d vgg19_bn-c79401a0 wide_resnet101_2-32ee1156 wide_resnet101_2-d733dc28 wide_resnet50_2-95faca4d
wide_resnet50_2-9ba9bcbe
"""


def encoder_weights(encoder: str) -> dict[str, Published]:
    """Returns {name of weights: where they are} for an encoder; empty where none are known."""
    return {name: _published(repository) for owner, name, repository in ENCODER_ROWS if owner == encoder}


def network_weights(model: str) -> dict[str, Published]:
    """Returns {repository: where it is} of whole networks of an architecture."""
    return {repository: _published(repository) for owner, repository in NETWORK_ROWS if owner == model}


def _published(repository: str) -> Published:
    return Published(repository, revision=REVISIONS[repository] if repository in REVISIONS else None)


def encoder_rules(encoder: str) -> tuple[str, ...]:
    """Returns the names of the rules for an encoder: its own, or those of its family."""
    known = (name for name in (encoder, encoders.family(encoder)) if name in ENCODER_RULES)
    return next((ENCODER_RULES[name] for name in known), ())


def network_rules(model: str) -> tuple[str, ...]:
    """Returns the names of the rules for an architecture."""
    return NETWORK_RULES[model] if model in NETWORK_RULES else ()


def check_torchvision_digest(stem: str, sha256: str) -> None:
    """Raises WeightsError where a file that bears the name of one of torchvision's does not have its SHA-256."""
    if stem in _TORCHVISION.split() and not sha256.startswith(stem.rpartition("-")[2]):
        raise WeightsError(
            f"The file {stem}.pth is damaged: its SHA-256 begins with {sha256[:8]}; fetch "
            f"https://download.pytorch.org/models/{stem}.pth again."
        )
