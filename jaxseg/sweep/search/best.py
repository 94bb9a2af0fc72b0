"""Writes the configuration of the best trial as an experiment file, which also compares it with the start."""

import hashlib
from collections.abc import Container, Mapping
from typing import Any

from jaxseg.config import FREE_FORM, KEYS, ConfigDict, flatten, from_dict
from jaxseg.config.values import literal
from jaxseg.sweep.search.plan import Study
from jaxseg.sweep.search.trials import Trial

_SEEDS = 3
_FILE = '''"""{title}

    jaxseg train --config {file}
{compare}"""

from jaxseg.config import ConfigDict, default_config, set_key
{imports}
# All keys that differ from the defaults of jaxseg.
VALUES = {{
{values}}}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration; there are no variants."""
    config = default_config()
    for key, value in VALUES.items():
        set_key(config, key, value)
    return config
'''
_SWEEP = '''

def sweep() -> Sweep:
    """Returns the comparison with the start of the search, with seeds that it has not used."""
    start = {{
{start}    }}
    return Sweep({{"start": start, "best": {{}}}}, baseline="start", seeds={seeds})
'''
_COMPARE = """    jaxseg sweep --config {file} --split test

The second command compares it with the experiment that the search started from, on other seeds and on the test split.
"""
_MARK = "\n# The report of the search writes this file anew while the lines above are as it wrote them: "


def best_file(study: Study, best: Trial, trials: int) -> str:
    """Returns the text of `best.py`: the configuration of the trial `best` of so many started trials.

    Its last line has a digest of the others, for `is_edited`.
    """
    start, config = (_values(study.config(values)) for values in ({}, best.values))
    title = (
        f"The best of {trials} trials of {study.experiment}: number {best.number}, "
        f"mIoU {100 * (best.score or 0.0):.2f} % on {study.split}, by which it was chosen."
    )
    groups = [key.rpartition(".")[0] for key in study.spaces if key not in KEYS]
    differing = {key: start[key] if key in start else KEYS[key].default for key in _differing(start, config)}
    compared = bool(differing)
    text = _FILE.format(
        title=title.replace("\\", "\\\\").replace('"""', "'''"),
        file="best.py",
        compare=_COMPARE.format(file="best.py") if compared else "",
        imports="from jaxseg.sweep import Sweep\n" if compared else "",
        values=_lines(config, 4, {*study.spaces, *groups}),
    )
    seed = from_dict(study.start).seed
    seeds = tuple((seed + i) % 2**32 for i in range(1, _SEEDS + 1))
    text += _SWEEP.format(start=_lines(differing, 8), seeds=seeds) if compared else ""
    return f"{text}{_MARK}{_digest(text)}\n"


def is_comparison(text: str) -> bool:
    """Returns whether the text of a `best.py` compares the best with the start, which differs from it."""
    return "\ndef sweep()" in text


def is_edited(text: str) -> bool:
    """Returns whether a text is another one than `best_file` gave, which a person has changed."""
    before, mark, digest = text.rpartition(_MARK)
    return not mark or digest.strip() != _digest(before)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _lines(values: Mapping[str, Any], indent: int, marked: Container[str] = ()) -> str:
    """Returns the lines of a dictionary in Python; those of the keys in `marked` say that they were searched."""
    ends = {key: ",  # searched" if key in marked else "," for key in values}
    return "".join(f'{" " * indent}"{key}": {literal(value)}{ends[key]}\n' for key, value in values.items())


def _values(config: ConfigDict) -> dict[str, Any]:
    """Returns the keys that differ from their defaults; steps that follow from epochs are left out."""
    values = {}
    flat = flatten(config)
    for key, row in KEYS.items():
        value = _group(config, key) if key in FREE_FORM else flat[key]
        if value != row.default and not (key == "steps" and config.epochs):
            values[key] = value
    return values


def _group(config: ConfigDict, key: str) -> dict[str, Any]:
    section, leaf = key.split(".")
    return config[section][leaf].to_dict()


def _differing(start: Mapping[str, Any], best: Mapping[str, Any]) -> list[str]:
    """Returns the keys of which the start has another value than the best; not steps that follow from its epochs."""
    keys = [key for key in KEYS if (start[key] if key in start else None) != (best[key] if key in best else None)]
    return [key for key in keys if key != "steps" or "epochs" not in start]
