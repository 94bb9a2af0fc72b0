"""The files of explanations: their names, and writing them atomically over no file of someone else."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxseg.errors import ConfigError
from jaxseg.explain.deletion import Curves
from jaxseg.explain.explanation import Explanation
from jaxseg.files import names_in_npz, write_atomically
from jaxseg.pictures import marks, save_image
from jaxseg.pictures.heat_map import faithfulness_curves

MARK = "jaxseg explain"
"""The text under "Software" in the pictures, by which the command recognises its own."""
_ARRAYS = {"map", "method", "class_name", "target", "layer"}
_LONGEST = 120  # characters of a part of a name; file systems allow 255 bytes in all


def name_images(paths: Sequence[Path]) -> dict[Path, str]:
    """Returns {image: NAME}: its stem, or STEM-2, STEM-3, ... where an image before it has that name."""
    names: dict[Path, str] = {}
    for path in paths:
        name, number = (stem := path.stem[:_LONGEST]), 1
        while name.lower() in map(str.lower, names.values()):
            number += 1
            name = f"{stem}-{number}"
        names[path] = name
    return names


def stem_of(explanation: Explanation, name: str) -> str:
    """Returns NAME-METHOD-CLASS, with the pixel or the box after it; a receptive field has no class."""
    question = explanation.question
    of_class = re.sub(r"[^\w.-]+", "-", question.class_name).strip("-")[:_LONGEST]
    return "-".join(part for part in (name, question.method, of_class, question.place) if part)


def write_explanation(explanation: Explanation, out: Path, name: str, *, raw: bool = False) -> Path:
    """Writes the picture of an explanation, and its map if `raw` is set; returns the picture's file.

    The map is NAME.npz with `map` f32[h,w] and the words method, class_name, target and layer; of attention also
    `map of MODULE` for each.

    Raises:
        ConfigError: if a file cannot be written, or would replace one that this command did not write.
    """
    stem, question = stem_of(explanation, name), explanation.question
    picture, arrays = out / f"{stem}.png", out / f"{stem}.npz"
    _require_own(picture, out)
    if raw and arrays.is_file() and not _holds_a_map(arrays):
        raise _refusal(arrays)
    words = {"method": question.method, "class_name": question.class_name, "target": question.words}
    maps = {f"map of {module}": values for module, values in explanation.maps.items()}
    values = {"map": explanation.map, **words, "layer": question.layer, **maps}
    try:
        out.mkdir(parents=True, exist_ok=True)
        save_image(explanation.picture(), picture, software=MARK)
        if raw:
            write_atomically(arrays, lambda file: _save_arrays(file, values))
    except OSError as error:
        raise ConfigError(f"The explanation {stem} cannot be written to {out}: {error.strerror or error}.") from error
    return picture


def write_curves(explanation: Explanation, measured: Curves, out: Path, name: str) -> Path:
    """Draws the curves of deletion and insertion to NAME-METHOD-CLASS-faithfulness.png; raises as above."""
    stem = stem_of(explanation, name)
    picture = out / f"{stem}-faithfulness.png"
    _require_own(picture, out)
    areas = measured.deletion_area, measured.insertion_area
    drawn = faithfulness_curves(measured.shares, measured.deletion, measured.insertion, areas, stem)
    try:
        save_image(drawn, picture, software=MARK)
    except OSError as error:
        raise ConfigError(f"The curves of {stem} cannot be written to {out}: {error.strerror or error}.") from error
    return picture


def _save_arrays(file: BinaryIO, values: Mapping[str, Any]) -> None:
    """Writes arrays and texts by their names; see `numpy.savez`."""
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in values.items()}
    np.savez(file, **arrays)


def _require_own(picture: Path, out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; give a folder.")
    if picture.exists() and marks.software(picture) != MARK:
        raise _refusal(picture)


def _refusal(file: Path) -> ConfigError:
    return ConfigError(f"The output {file} would replace a file that jaxseg explain did not write; give another --out.")


def _holds_a_map(file: Path) -> bool:
    return names_in_npz(file) >= _ARRAYS
