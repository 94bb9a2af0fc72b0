"""What a published network says about its training: `published.json`, from the files of a workdir."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jaxseg
from jaxseg.arguments import as_tuples
from jaxseg.config import LAYOUT_KEYS, flatten, to_dict
from jaxseg.errors import ConfigError
from jaxseg.files import read_json
from jaxseg.inference.report_files import of_data, scores_file
from jaxseg.publish.places import identity_of, is_place, plain_command
from jaxseg.run.load import Run
from jaxseg.run.provenance import read_starts
from jaxseg.run.published import FORMAT, is_published, read_record, sha256_of

_FIELDS: dict[str, Any] = {
    "step": int,
    "which": str,
    "split": str,
    "images": int,
    "classes": list,
    "mean_iou": float | int | None,
}
_OF_A_START = ("starts", "changed", "commit", "fold")
_BY_OTHER_WAYS = ("tiles", "average", "runs", "crf")  # in a report; without them, or 1 run, the network by itself
_DATA = ("data.dir", "data.fold_file", "data.on_error")  # what an evaluation may change about its images


def record_of(run: Run, weights: bytes, licence: str) -> dict[str, Any]:
    """Returns the content of published.json, but for the list of files.

    Args:
        run: its workdir holds the records of the training.
        weights: the file of weights.
        licence: identifier of the Hub.
    """
    return {
        "program": "jaxseg",
        "format": FORMAT,
        "version": jaxseg.__version__,
        "step": run.step,
        "which": run.which,
        "sha256": sha256_of(weights),
        "bytes": len(weights),
        "licence": licence,
        "identity": identity(run),
        "training": training_of(run),
        "scores": scores_of(run),
    }


def identity(run: Run) -> str:
    """Returns a digest that another network has not: of its configuration, its classes and its data.

    It is made of places of this machine too. So it takes a tenth of a second, and what the data hold, to try a guess.
    One that is published once more keeps its identity.
    """
    if is_published(run.workdir):
        former = read_record(run.workdir).content
        if "identity" in former and re.fullmatch("[0-9a-f]{64}", str(former["identity"])) is not None:
            return str(former["identity"])
    starts = read_starts(run.workdir)
    data = _group(starts[0], "data") if starts else {}
    about = json.dumps([identity_of(run.config), list(run.classes), data], default=str, sort_keys=True)
    return hashlib.scrypt(about.encode(), salt=b"jaxseg.publish", n=2**14, r=8, p=1, dklen=32).hex()


def training_of(run: Run) -> dict[str, Any]:
    """Returns command, commit, packages, device and data of the first start in run.json, and how many starts it had.

    Of a network that is published once more they are those of its record, which a stranger may have written. Anything
    that is not of the form that training writes, or names a place, is left out of both.
    """
    if is_published(run.workdir):
        record = read_record(run.workdir).content
        return _plain_training(_group(record, "training"), run.config.seed)
    starts = read_starts(run.workdir)
    first: Mapping[str, Any] = starts[0] if starts else {}
    images = {split: about["images"] for split, about in _group(first, "data").items() if _has(about, "images")}
    about = {**first, **_group(first, "git"), "starts": len(starts), "images": images, "fold": run.config.data.fold}
    return _plain_training(about, run.config.seed)


def _has(about: Any, key: str) -> bool:
    return isinstance(about, dict) and key in about


def _plain_training(about: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Returns what is published of a training, from a start or an earlier record."""
    starts, changed, commit, fold = (about[key] if key in about else None for key in _OF_A_START)
    device, packages, images = (_group(about, key) for key in ("device", "packages", "images"))
    return {
        "seed": seed,
        "starts": starts if _is_count(starts) else 0,
        "command": plain_command(about["command"]) if "command" in about else "",
        "commit": commit if isinstance(commit, str) and re.fullmatch("[0-9a-f]{7,64}", commit) else None,
        "changed": bool(changed),
        "fold": fold if isinstance(fold, str) and re.fullmatch(r"[0-9]{1,9}/[0-9]{1,9}", fold) else "",
        "device": {
            key: device[key]
            for key, fits in (("platform", _is_name), ("kind", _is_name), ("count", _is_count))
            if key in device and fits(device[key])
        },
        "packages": {name: version for name, version in packages.items() if _is_name(name) and _is_name(version)},
        "images": {split: count for split, count in images.items() if _is_name(split) and _is_count(count)},
    }


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_name(value: Any) -> bool:
    """Returns whether a value is a short text without a place."""
    return isinstance(value, str) and len(value) <= 200 and not is_place(value)


def _group(start: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return start[key] if key in start and isinstance(start[key], dict) else {}


def scores_of(run: Run) -> list[dict[str, Any]]:
    """Returns the scores in each evaluate-SPLIT.json of the workdir that are those of this checkpoint by itself.

    Those of several runs or views, of tiles, with a dense CRF or with another layout of the network are not. "other" of
    the scores names the keys of the data that an evaluation had changed.

    Raises:
        ConfigError: if such a file cannot be read.
    """
    found = []
    for file in sorted(run.workdir.glob("evaluate-*.json")):
        try:
            report = read_json(file)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file} cannot be read ({error}); remove it, or evaluate again.") from error
        if isinstance(report, dict) and _is_of(report, run, file):
            found.append(_scores(report, run))
    return found


def _is_of(report: Mapping[str, Any], run: Run, file: Path) -> bool:
    """Returns whether a report is a whole one of `evaluate` for the network as it is, in the file of its split."""
    known = _FIELDS.keys() <= report.keys() and all(isinstance(report[key], of) for key, of in _FIELDS.items())
    rows = report["classes"] if known else []
    return (
        known
        and all(isinstance(row, dict) and {"name", "iou"} <= row.keys() for row in rows)
        and all(isinstance(row["name"], str) and isinstance(row["iou"], float | int | None) for row in rows)
        and (report["step"], report["which"]) == (run.step, run.which)
        and file.name == scores_file(run.workdir, of_data(report["split"], _other_of(report))).name
        and not any(key in report and report[key] not in ("", 1, None) for key in _BY_OTHER_WAYS)
        and not _changed(report, run, LAYOUT_KEYS)
    )


def _other_of(report: Mapping[str, Any]) -> str:
    """Returns the name of the data of a report, if they are not those of the training; else ""."""
    return str(report["other_data"]) if "other_data" in report else ""


def _changed(report: Mapping[str, Any], run: Run, keys: Iterable[str]) -> list[str]:
    """Returns the keys of which the evaluation had another value than the run, as far as the report has them."""
    here, there = (flatten(dict(config)) for config in (to_dict(run.config), _group(report, "config")))
    return [key for key in keys if key in there and (key not in here or as_tuples(here[key]) != as_tuples(there[key]))]


def _scores(report: Mapping[str, Any], run: Run) -> dict[str, Any]:
    other = _changed(report, run, _DATA)
    scores = {
        "split": report["split"],
        "images": report["images"],
        "mean_iou": report["mean_iou"],
        "classes": [{"name": row["name"], "iou": row["iou"]} for row in report["classes"]],
        **({"other": other} if other else {}),
    }
    return scores | ({"intervals": report["intervals"]} if "intervals" in report else {})


def interval_of(scores: Mapping[str, Any], name: str | None) -> tuple[float, float] | None:
    """Returns the ends of the interval of the IoU of a class, or of the mean with None; None where none is recorded."""
    intervals = _group(scores, "intervals")
    found = intervals["mean_iou"] if name is None and "mean_iou" in intervals else None
    by_class = _group(intervals, "iou")
    if name is not None and name in by_class:
        found = by_class[name]
    numbers = isinstance(found, list) and len(found) == 2 and all(isinstance(x, int | float) for x in found)
    return (found[0], found[1]) if found and numbers else None
