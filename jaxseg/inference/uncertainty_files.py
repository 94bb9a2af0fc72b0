"""The uncertainty that a prediction writes beside its pictures, and the option that asks for it."""

import argparse
import csv
import io
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxseg import pictures
from jaxseg.errors import ConfigError, counted
from jaxseg.files import names_in_npz, write_atomically, write_text
from jaxseg.inference.outputs import MARK, is_output, would_replace
from jaxseg.inference.predictor import Predictor
from jaxseg.inference.segment import Segmentation, naming_image
from jaxseg.inference.temperature import ScaledModel
from jaxseg.inference.uncertainty import combine, make_drawing, member_predictors
from jaxseg.metrics import Uncertainty
from jaxseg.metrics.uncertainty import SCORES, most_entropy
from jaxseg.run.load import Run

TABLE, PICTURE, MAPS = "uncertainty.csv", "-uncertainty.png", "-uncertainty.npz"
COLUMNS = ("image", "uncertainty_percent", "unsure_pixels_percent", *SCORES)
"""The columns of uncertainty.csv: the mean entropy in percent of the largest possible one, the share of the pixels with
more than half of it, and the mean of each map."""

DRAWS = 20
_UNSURE = 0.5  # of the largest entropy
Probabilities = Callable[[np.ndarray, Segmentation], Iterator[np.ndarray]]


@dataclass(frozen=True, eq=False)
class UncertaintyFiles:
    """Writes how sure a prediction is of each image; an `inference.outputs.Extra`.

    NAME-uncertainty.png has the entropy of each pixel, black where it is 0 and light yellow where it is largest, and
    NAME-uncertainty.npz the maps by name. uncertainty.csv has a line for each image of a call, the least sure first.

    Attributes:
        members: gives the probabilities of the members of an image, from it and its prediction.
        classes: the channels of the logits.
        one_vs_rest: whether each class has a sigmoid of its own.
        maps: the names of the maps that are written.
    """

    members: Probabilities
    classes: int
    one_vs_rest: bool
    maps: tuple[str, ...]
    _lock: Any = field(default_factory=threading.Lock, repr=False)
    _rows: list[dict[str, Any]] = field(default_factory=list, repr=False)

    @property
    def option(self) -> str:
        """The option of the command that asks for the files."""
        return "--uncertainty"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What follows NAME in the names of the files of an image."""
        return PICTURE, MAPS

    @property
    def needs_probabilities(self) -> bool:
        """Without further members the entropy is that of the prediction."""
        return True

    def require_own(self, out: Path, outputs: Iterable[str]) -> None:
        """Raises ConfigError if a file would be replaced that holds something else.

        Args:
            out: the folder of the outputs.
            outputs: the NAME of each image.
        """
        foreign = [out / TABLE] if (out / TABLE).is_file() and not is_table(out / TABLE) else []
        for name in outputs:
            picture, maps = out / f"{name}{PICTURE}", out / f"{name}{MAPS}"
            foreign += [picture] if picture.is_file() and not is_output(picture) else []
            foreign += [maps] if maps.is_file() and not holds_maps(maps) else []
        if foreign:
            raise ConfigError(would_replace(foreign[0]))

    def write(self, path: Path, stem: Path, image: np.ndarray, result: Segmentation) -> None:
        """Writes the picture and the maps of an image, and keeps its line of the table."""
        what = f"the uncertainty of {image.shape[0]}x{image.shape[1]} pixels"
        with self._lock, naming_image(what):  # one image at a time: each has its members on the device
            found = combine(self.members(image, result), one_vs_rest=self.one_vs_rest)
        most = most_entropy(self.classes, one_vs_rest=self.one_vs_rest)
        picture = pictures.shades(np.asarray(found.entropy), most)
        pictures.save_image(picture, stem.with_name(stem.name + PICTURE), software=MARK)
        maps: dict[str, Any] = {name: np.asarray(getattr(found, name), np.float32) for name in self.maps}
        write_atomically(stem.with_name(stem.name + MAPS), lambda file: np.savez_compressed(file, **maps))
        row = _row(str(path), found, most, self.maps)
        with self._lock:
            self._rows.append(row)

    def leave_out(self, path: Path) -> None:
        """An image that could not be segmented has no lines in the tables."""

    def finish(self, out: Path) -> Sequence[Path]:
        """Writes uncertainty.csv; returns it, or nothing if no image was segmented.

        Raises:
            ConfigError: if it cannot be written.
        """
        if not self._rows:
            return ()
        text = io.StringIO(newline="")
        lines = csv.DictWriter(text, list[str](COLUMNS), restval="", lineterminator="\n")
        lines.writeheader()
        lines.writerows(sorted(self._rows, key=lambda row: (-float(row[COLUMNS[1]]), row["image"])))
        try:
            write_text(out / TABLE, text.getvalue())
        except OSError as error:
            raise ConfigError(f"{out / TABLE} cannot be written: {error.strerror or error}.") from error
        return (out / TABLE,)


def _row(image: str, found: Uncertainty, most: float, maps: Iterable[str]) -> dict[str, str]:
    entropy = np.asarray(found.entropy)
    row = {"image": image, COLUMNS[1]: f"{100 * entropy.mean() / most:.4f}"}
    row[COLUMNS[2]] = f"{100 * np.mean(entropy > _UNSURE * most):.4f}"
    return row | {name: f"{np.asarray(getattr(found, name)).mean():.6g}" for name in maps}


def is_table(file: Path) -> bool:
    """Returns whether a file has the columns of uncertainty.csv."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        return lines.readline().rstrip("\n") == ",".join(COLUMNS)


def holds_maps(file: Path) -> bool:
    """Returns whether a file holds the arrays of NAME-uncertainty.npz."""
    names = names_in_npz(file)
    return "entropy" in names and names <= set(SCORES)


def add_option(parser: argparse.ArgumentParser) -> None:
    """Adds --uncertainty."""
    parser.add_argument(
        "--uncertainty",
        metavar="entropy|members|dropout[:N]",
        help="also write how sure the prediction is of each pixel, and uncertainty.csv with the least sure images "
        "first; entropy: that of the prediction; members: how much the runs and the views of --average disagree too; "
        f"dropout: how much N predictions with dropout do (default {DRAWS})",
    )


def problem(options: argparse.Namespace) -> str:
    """Returns what is wrong with the option and those beside it; "" if nothing is."""
    text = options.uncertainty
    if text is None:
        return ""
    if options.crf and not text.startswith("entropy"):
        return "--uncertainty members and dropout are those of the networks; they cannot be given with --crf"
    if options.average and text.startswith("dropout"):
        return "--uncertainty dropout draws in one view; it cannot be given with --average"
    if options.skip_existing:
        return "--uncertainty orders all images of a call; it cannot be given with --skip-existing"
    name, colon, count = text.partition(":")
    if name in ("entropy", "members") and not colon:
        return ""
    if name == "dropout" and (not colon or (count.isdecimal() and int(count) > 0)):
        return ""
    return f"--uncertainty must be entropy, members, dropout or dropout:N with N of at least 1, got {text}"


def uncertainty_files(
    text: str, runs: Sequence[Run], predictor: Predictor, *, refined: bool = False
) -> UncertaintyFiles:
    """Returns what the option asks for.

    Args:
        text: its value.
        runs: the runs.
        predictor: what predicts with them.
        refined: whether a CRF changes the predictions, after which the probabilities of several classes add to 1.

    Raises:
        ConfigError: if there is one member alone, several runs and dropout, or a network without dropout.
    """
    name, _, count = text.partition(":")
    networks = predictor.networks
    maps: tuple[str, ...] = SCORES
    if name == "entropy":
        members, maps = _of_prediction, ("entropy",)
    elif name == "members":
        parts = member_predictors(predictor)
        if len(parts) < 2:
            raise ConfigError(
                "--uncertainty members needs several runs (--workdir A B) or several views (--average flips); give one "
                "of these, or --uncertainty entropy or dropout."
            )
        members = _of_predictors(parts)
    elif len(runs) > 1:
        raise ConfigError(
            f"--uncertainty dropout draws the dropout of one run, got {counted(len(runs), 'run')}; --uncertainty "
            "members compares them."
        )
    else:
        model = networks.members[0].model
        scale = model.temperature if isinstance(model, ScaledModel) else 1.0
        draw = make_drawing(runs[0], tiling=predictor.tiling, temperature=scale)
        draws = int(count or DRAWS)
        members = _of_draws(draw, draws)
    return UncertaintyFiles(members, networks.num_classes, networks.one_vs_rest and not refined, maps)


def _of_prediction(image: np.ndarray, result: Segmentation) -> Iterator[np.ndarray]:
    yield np.asarray(result.probabilities)


def _of_predictors(parts: Sequence[Predictor]) -> Probabilities:
    return lambda image, result: (np.asarray(part(image, True).probabilities) for part in parts)


def _of_draws(draw: Callable[[np.ndarray, jax.Array], np.ndarray], draws: int) -> Probabilities:
    return lambda image, result: (draw(image, jax.random.fold_in(jax.random.key(0), i)) for i in range(draws))
