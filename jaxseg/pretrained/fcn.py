"""Rules for torchvision's FCN, from the rules of its encoder."""

from collections.abc import Iterable

from jaxseg.pretrained.rules import Rule, layer, prefixed, sequence


def torchvision(encoder: Iterable[Rule]) -> list[Rule]:
    """`fcn_resnet50` and `fcn_resnet101` -> `jaxseg.models.fcn_head.FCNHead`; published files hold the auxiliary head.

    The encoder's rules are relative to it, as `jaxseg.pretrained.resnet.torchvision()` has them.
    """
    rules = prefixed(encoder, r"backbone\.", "encoder")
    for theirs, ours in (("classifier", ""), ("aux_classifier", "aux/")):
        rules += sequence(theirs, f"{ours}conv")
        rules += layer(rf"{theirs}\.4", f"{ours}head")
    return rules
