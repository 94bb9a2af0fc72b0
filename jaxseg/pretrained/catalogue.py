"""Collects the families: which published weights exist, and in which formats files of encoders and networks come."""

import functools

from jaxseg.errors import WeightsError
from jaxseg.pretrained.family import EncoderFormat, Family, NetworkFormat, Packaged, Published


@functools.cache
def families() -> tuple[Family, ...]:
    """Returns the families, each from its own file; a new file is added here."""
    # Imported on first use, so that `import jaxseg.pretrained` stays cheap.
    from jaxseg.pretrained import (
        convnext,
        deeplab,
        densenet,
        efficientnet,
        eomt,
        fcn,
        hiera,
        hrnet,
        mask2former,
        maxvit,
        mit,
        mobilenet,
        mobilenet_v4,
        regnet,
        resnet,
        smp,
        swin,
        upernet,
        vgg,
        vit,
        xception,
    )

    return (
        resnet.FAMILY,
        vgg.FAMILY,
        convnext.FAMILY,
        hrnet.FAMILY,
        mobilenet.FAMILY,
        mobilenet_v4.FAMILY,
        efficientnet.FAMILY,
        densenet.FAMILY,
        regnet.FAMILY,
        xception.FAMILY,
        mit.FAMILY,
        vit.FAMILY,
        swin.FAMILY,
        hiera.FAMILY,
        maxvit.FAMILY,
        deeplab.FAMILY,
        fcn.FAMILY,
        eomt.FAMILY,
        mask2former.FAMILY,
        smp.FAMILY,
        upernet.FAMILY,
    )


def encoder_weights(encoder: str) -> dict[str, Published | Packaged]:
    """Returns {name of the weights: where they are} for an encoder; empty where none are known."""
    rows = (row for family in families() for row in family.encoder_weights)
    return {row.name: row.published for row in rows if row.encoder == encoder}


def withheld(encoder: str | None, model: str | None) -> str:
    """Returns why weights of a network, or of an encoder, are given as files; empty where no licence asks for it."""
    rows = (row for family in families() for row in family.withheld)
    return next((row.reason for row in rows if (encoder in row.encoders if model is None else model in row.models)), "")


def network_weights(model: str) -> dict[str, Published]:
    """Returns {repository: where it is} for whole networks of an architecture; empty where none are known."""
    rows = (row for family in families() for row in family.network_weights)
    return {row.published.repository: row.published for row in rows if row.model == model}


def encoder_formats(encoder: str | None = None) -> tuple[EncoderFormat, ...]:
    """Returns the formats of an encoder's files, in the order in which they are tried; None: of all encoders."""
    known = (known for family in families() for known in family.encoder_formats)
    return tuple(known for known in known if encoder is None or encoder in known.encoders)


def network_formats(model: str) -> tuple[NetworkFormat, ...]:
    """Returns the formats of an architecture's files, in the order in which they are tried."""
    return tuple(known for family in families() for known in family.network_formats if known.model == model)


def check_torchvision_digest(stem: str, sha256: str) -> None:
    """Compares a file that has the name of one of torchvision's with the digits that end this name.

    Args:
        stem: name of the file, without ".pth".
        sha256: of the file, in hexadecimal digits.

    Raises:
        WeightsError: if the SHA-256 is another.
    """
    published = any(stem in family.torchvision_files for family in families())
    if published and not sha256.startswith(stem.rpartition("-")[2]):
        raise WeightsError(
            f"The file {stem}.pth is damaged: its SHA-256 begins with {sha256[:8]}; fetch "
            f"https://download.pytorch.org/models/{stem}.pth again."
        )
