"""Plants errors in the masks of a data set, and keeps a record: shifted masks, swapped, missing and extra objects.

An object is a connected component of a class other than 0, the background. Everything is drawn from one seed.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxseg.data.base import Source
from jaxseg.files import write_text
from jaxseg.inference.regions import find_components
from jaxseg.types import IGNORE

LEAST = 20
"""Pixels of an object that is looked at, and of a change."""
SHIFT = (0.06, 0.12)
"""How far a mask is shifted, in shares of its shorter side."""
_TRIES = 30


class Planted(NamedTuple):
    """A mask with an error.

    Attributes:
        kind: of `KINDS`.
        label: u8[h,w], the mask with the error.
        changed: bool[h,w], the pixels that it changes.
    """

    kind: str
    label: np.ndarray
    changed: np.ndarray


def shift(label: np.ndarray, rng: np.random.Generator, donor: np.ndarray, classes: int) -> np.ndarray:
    """Moves the whole mask in a direction; what moves in is background."""
    distance, angle = min(label.shape) * rng.uniform(*SHIFT), rng.uniform(0, 2 * np.pi)
    down, right = round(distance * np.sin(angle)), round(distance * np.cos(angle))
    moved = np.zeros_like(label)
    h, w = label.shape
    moved[max(down, 0) : h + min(down, 0), max(right, 0) : w + min(right, 0)] = label[
        max(-down, 0) : h + min(-down, 0), max(-right, 0) : w + min(-right, 0)
    ]
    return moved


def swap_class(label: np.ndarray, rng: np.random.Generator, donor: np.ndarray, classes: int) -> np.ndarray:
    """Gives one object another class than its own and the background; a mask without one stays as it is."""
    inside, own = _object(label, rng)
    others = [c for c in range(1, classes) if c != own]
    return np.where(inside, rng.choice(others), label).astype(np.uint8) if inside.any() and others else label


def remove_object(label: np.ndarray, rng: np.random.Generator, donor: np.ndarray, classes: int) -> np.ndarray:
    """Gives one object to the background."""
    inside, _ = _object(label, rng)
    return np.where(inside, 0, label).astype(np.uint8)


def add_object(label: np.ndarray, rng: np.random.Generator, donor: np.ndarray, classes: int) -> np.ndarray:
    """Puts an object of another mask somewhere on the background, most of it visible; else the mask stays as it is."""
    inside, own = _object(donor, rng)
    rows, columns = np.nonzero(inside)
    if not len(rows) or np.ptp(rows) >= label.shape[0] or np.ptp(columns) >= label.shape[1]:
        return label
    rows, columns = rows - rows.min(), columns - columns.min()
    for _ in range(_TRIES):
        at = rows + rng.integers(label.shape[0] - rows.max()), columns + rng.integers(label.shape[1] - columns.max())
        free = label[at] == 0
        if free.mean() >= 0.8:
            changed = label.copy()
            changed[at[0][free], at[1][free]] = own
            return changed
    return label


KINDS: dict[str, Callable[..., np.ndarray]] = {
    "shifted mask": shift,
    "swapped class": swap_class,
    "missing object": remove_object,
    "extra object": add_object,
}
"""Kind of error -> the function (mask u8[h,w], rng, mask of another image, number of classes) -> mask."""


def plant(label: np.ndarray, kind: str, rng: np.random.Generator, donor: np.ndarray, classes: int) -> Planted | None:
    """Returns a mask with an error of a kind, or None where the mask allows none; what is ignored stays so."""
    for _ in range(_TRIES):
        wrong = np.where(label == IGNORE, label, KINDS[kind](label, rng, donor, classes)).astype(np.uint8)
        changed = wrong != label
        if changed.sum() >= LEAST:
            return Planted(kind, wrong, changed)
    return None


def plant_share(source: Source, share: float, seed: int) -> dict[int, Planted]:
    """Returns {index: its mask with an error} for a share of the examples, with each kind equally often.

    Two classes have no swapped class.
    """
    rng, classes = np.random.default_rng(seed), len(source.info.classes)
    kinds = [kind for kind in KINDS if classes > 2 or kind != "swapped class"]
    wanted, found = round(share * len(source)), {}
    for index in map(int, rng.permutation(len(source))):
        if len(found) == wanted:
            break
        donor = source[int(rng.integers(len(source)))]["label"]
        planted = plant(source[index]["label"], kinds[len(found) % len(kinds)], rng, donor, classes)
        if planted is not None:
            found[index] = planted
    return found


def write_folder(train: Source, val: Source, planted: dict[int, Planted], out: Path) -> dict[str, Any]:
    """Writes both splits as a folder of images and masks, the training masks with their errors; returns the record.

    The record is also in planted.json: {name of the image: {kind, pixels, box (top, left, bottom, right)}}.
    """
    record = {}
    for split, source in (("train", train), ("val", val)):
        for kind in ("images", "masks"):
            (out / split / kind).mkdir(parents=True, exist_ok=True)
        for i in range(len(source)):
            example, name = source[i], f"{Path(source.name(i)).name}.png"
            label = example["label"]
            if split == "train" and i in planted:
                label = planted[i].label
                rows, columns = np.nonzero(planted[i].changed)
                box = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
                record[name.removesuffix(".png")] = {
                    "kind": planted[i].kind,
                    "pixels": int(planted[i].changed.sum()),
                    "box": [int(edge) for edge in box],
                }
            Image.fromarray(example["image"].squeeze()).save(out / split / "images" / name)
            Image.fromarray(label).save(out / split / "masks" / name)
    classes = [
        {"index": i, "name": name, "colour": list(color)}
        for i, (name, color) in enumerate(zip(train.info.classes, train.info.colors))
    ]
    write_text(out / "classes.json", json.dumps({"classes": classes, "ignore_index": IGNORE}))
    write_text(out / "planted.json", json.dumps(record))
    return record


def _object(label: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Returns the pixels bool[h,w] of an object drawn from those of at least `LEAST` pixels, and its class."""
    numbers, owners = find_components(
        label, [c for c in range(1, IGNORE) if c <= label[label != IGNORE].max(initial=0)]
    )
    large = [i for i, area in enumerate(np.bincount(numbers.ravel())) if i and area >= LEAST]
    if not large:
        return np.zeros(label.shape, bool), 0
    chosen = int(rng.choice(large))
    return numbers == chosen, int(owners[chosen - 1])
