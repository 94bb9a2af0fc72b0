"""DenseNet of torchvision, timm and segmentation_models.pytorch, which name their layers alike."""

from jaxseg.pretrained.family import APACHE, EncoderFormat, EncoderWeights, Family, Published
from jaxseg.pretrained.rules import Rule, conv_norm, layer, norm

_STAGES = 4
_MOST_LAYERS = 48  # of a stage: DenseNet-201


def torchvision() -> list[Rule]:
    """Rules of `densenet*`; files of torchvision have dots in the names of a layer's parts ("norm.1")."""
    rules = conv_norm(r"features\.conv0", r"features\.norm0", "stem")
    for s in range(1, _STAGES + 1):
        for n in range(1, _MOST_LAYERS + 1):
            theirs, ours = rf"features\.denseblock{s}\.denselayer{n}\.", f"stage{s}/block{n}"
            for part in (1, 2):
                rules += norm(rf"{theirs}norm\.?{part}", f"{ours}/norm{part}")
                rules += layer(rf"{theirs}conv\.?{part}", f"{ours}/conv{part}")
        if s < _STAGES:
            rules += norm(rf"features\.transition{s}\.norm", f"norm{s}")
            rules += layer(rf"features\.transition{s}\.conv", f"stage{s + 1}/reduce")
    return [*rules, *norm(r"features\.norm5", f"norm{_STAGES}"), Rule(r"classifier\..*", None)]


_ENCODERS = ("densenet121", "densenet161", "densenet169", "densenet201")

FAMILY = Family(
    encoder_weights=tuple(
        EncoderWeights(name, "imagenet", Published(f"timm/{name}.tv_in1k"), APACHE) for name in _ENCODERS
    ),
    encoder_formats=(EncoderFormat(_ENCODERS, torchvision),),
    torchvision_files=(
        "densenet121-a639ec97",
        "densenet161-8d451a50",
        "densenet169-b2777c0a",
        "densenet201-c1103571",
    ),
)
