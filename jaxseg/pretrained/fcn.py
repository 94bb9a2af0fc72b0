"""FCN of torchvision, over the rules of its encoder."""

from collections.abc import Iterable

from jaxseg.pretrained.family import TORCHVISION, Family, NetworkFormat, PeerForm
from jaxseg.pretrained.rules import Rule, layer, prefixed, sequence


def torchvision(encoder: Iterable[Rule]) -> list[Rule]:
    """Rules of `fcn_resnet50` and `fcn_resnet101` for our `FCNHead`; published files hold the auxiliary head.

    Args:
        encoder: rules relative to the encoder, as `jaxseg.pretrained.resnet.torchvision()` returns them.
    """
    rules = prefixed(encoder, r"backbone\.", "encoder")
    for theirs, ours in (("classifier", ""), ("aux_classifier", "aux/")):
        rules += sequence(theirs, f"{ours}conv")
        rules += layer(rf"{theirs}\.4", f"{ours}head")
    return rules


def names(encoder: str | None) -> str:
    """Returns the names over a ResNet; over a MobileNet, torchvision has other networks than ours."""
    return r"(?!backbone\.features\.).*"


FAMILY = Family(
    network_formats=(
        NetworkFormat(
            "fcn_head",
            TORCHVISION,
            torchvision,
            takes=("encoder",),
            names=names,
            form=PeerForm({"act": "relu", "encoder_args": {"output_stride": 8}}, sizes={"aux_width": 256}),
        ),
    ),
    torchvision_files=("fcn_resnet50_coco-1167a1af", "fcn_resnet101_coco-7ecb50ca"),
)
