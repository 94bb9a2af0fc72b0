"""Tables that are made at build time from the code and from benchmarks/results, so that they cannot fall behind.

Six directives: `config-keys` lists every configuration key, `network-numbers` the measured numbers of each network,
`encoder-numbers` those of a small form of each encoder, `realtime-numbers` the times of those for real time,
`faults-table` what each planted fault did, `published-weights` where each named file of weights is and its licence.
"""

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from jaxseg.config import KEYS
from jaxseg.pretrained import catalogue
from jaxseg.pretrained.family import Packaged, Published

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def setup(app: Sphinx) -> dict[str, Any]:
    """Adds the directives."""
    app.add_directive("config-keys", ConfigKeys)
    app.add_directive("network-numbers", NetworkNumbers)
    app.add_directive("encoder-numbers", EncoderNumbers)
    app.add_directive("realtime-numbers", RealtimeNumbers)
    app.add_directive("faults-table", FaultsTable)
    app.add_directive("published-weights", PublishedWeights)
    return {"parallel_read_safe": True}


def config_keys() -> str:
    """Returns a Markdown section for each group of keys, with a table of key, default, meaning and valid values."""
    groups: dict[str, list[str]] = {}
    for name, key in KEYS.items():
        group = name.split(".")[0] if "." in name else "the run"
        default = json.dumps(key.default) if isinstance(key.default, str) else key.default
        expected = "" if key.kind is None else f" Must be {_plain(key.expected)}."
        free = " Free." if key.free else ""
        groups.setdefault(group, []).append(f"| `{name}` | `{default}` | {_plain(key.meaning)}.{expected}{free} |")
    head = "| key | default | meaning |\n|---|---|---|"
    return "\n\n".join(f"**{group}**\n\n{head}\n" + "\n".join(rows) for group, rows in groups.items()) + "\n"


def _plain(text: str) -> str:
    """Returns text without the characters that Markdown and its tables read as markup."""
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;").replace("[", "\\[")


def network_numbers() -> str:
    """Returns the Markdown table that `benchmarks/zoo.py` makes: the full network, then the one of the score."""
    return (RESULTS / "zoo.md").read_text(encoding="utf-8")


def encoder_numbers() -> str:
    """Returns the Markdown table of `experiments/ablations/encoder.py`, or a sentence where it has not been run."""
    path = RESULTS / "ablations" / "encoder" / "table.md"
    if not path.exists():
        return "There is no table yet: the ablation has not been run."
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if line.startswith("|"))


def realtime_numbers() -> str:
    """Returns the Markdown table that `benchmarks/realtime.py` makes, without the lines around it."""
    lines = (RESULTS / "realtime.md").read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if line.startswith("|"))


def faults_table() -> str:
    """Returns a Markdown table with a row for each fault: how often it was planted, what happened, what was lost."""
    lines = ["| fault | times | what happened | lost |", "|---|---|---|---|"]
    for fault, row in _read("faults.json")["faults"].items():
        lines.append(f"| {fault} | {row['times']} | {_plain(row['happened'])} | {_plain(row['lost'])} |")
    return "\n".join(lines) + "\n"


def published_weights() -> str:
    """Returns a Markdown table of all names of weights: encoders (or the network), name, where they are, licence.

    A row is for the encoders of one family that share name, recipe and licence.
    """
    whose: dict[tuple[int | str, ...], tuple[list[str], list[str]]] = {}
    for number, family in enumerate(catalogue.families()):
        rows = [(row.encoder, f"`{row.name}`", row) for row in family.encoder_weights]
        rows += [(row.model, "the repository, as `model.weights`", row) for row in family.network_weights]
        for owner, name, row in rows:
            place = _place(row.published)
            group = (number, place if "*" in place else "", name, row.licence, row.stated)
            owners, places = whose.setdefault(group, ([], []))
            owners.append(f"`{owner}`")
            places.append(f"`{place}`")
    lines = ["| encoder | name | where | licence |", "|---|---|---|---|"]
    for (*_, name, licence, stated), (owners, places) in whose.items():
        cells = (", ".join(dict.fromkeys(owners)), name, ", ".join(dict.fromkeys(places)))
        lines.append(f"| {' | '.join(map(str, cells))} | {licence}{stated and f' ({stated})'} |")
    return "\n".join(lines) + "\n"


def _place(published: Published | Packaged) -> str:
    """Returns the package or repository; in those of timm, a star stands for timm's name of the encoder."""
    if isinstance(published, Packaged):
        return published.package
    owner, _, name = published.repository.partition("/")
    return f"timm/*.{name.partition('.')[2]}" if owner == "timm" else published.repository


def _read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


class _Generated(SphinxDirective):
    """Parses the Markdown of `text` in place of the directive."""

    text = staticmethod(lambda: "")

    def run(self) -> list[nodes.Node]:
        node = nodes.container()
        lines = self.text().splitlines()
        self.state.nested_parse(StringList(lines, source=self.get_source_info()[0]), self.content_offset, node)
        return node.children


class ConfigKeys(_Generated):
    """Every configuration key."""

    text = staticmethod(config_keys)


class NetworkNumbers(_Generated):
    """The measured numbers of each network."""

    text = staticmethod(network_numbers)


class EncoderNumbers(_Generated):
    """The scores of a small form of each encoder."""

    text = staticmethod(encoder_numbers)


class RealtimeNumbers(_Generated):
    """The times of the networks for real time."""

    text = staticmethod(realtime_numbers)


class FaultsTable(_Generated):
    """What each planted fault did."""

    text = staticmethod(faults_table)


class PublishedWeights(_Generated):
    """The names of published weights with their licences."""

    text = staticmethod(published_weights)
