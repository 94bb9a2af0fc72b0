"""The card of a published network: README.md with the head that the Hugging Face Hub reads."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxseg.errors import counted, printable
from jaxseg.metrics.formatting import percent
from jaxseg.publish.record import interval_of
from jaxseg.run.load import Run

# What is known of the data of a source.
_SOURCES = {
    "shapes": "The data are the coloured shapes that jaxseg draws (`data.source=shapes`).",
    "folder": "The data are a folder of images and masks; where they come from is not recorded.",
    "": "The data are those of `data.source={0}`.",
}

CARD_FILE = "README.md"
FILES = {
    CARD_FILE: "the card",
    "model.safetensors": "the parameters and statistics of the network",
    "config.json": "the configuration, data that nothing runs",
    "data.json": "the classes, their colours and values",
    "published.json": "what is known of the training, and the SHA-256 of the weights",
    "temperature.json": "the temperature of `jaxseg predict --temperature`",
    "thresholds.json": "the thresholds of `jaxseg predict --thresholds`",
    "model.onnx": "the path from an image to its classes for ONNX Runtime; it is run as a program",
    "model.stablehlo": "the path from an image to its classes for JAX alone; it is run as a program",
}
"""What jaxseg publishes, and what it is: no other file is ever removed."""


class Words(NamedTuple):
    """What only a person can say about a network; None: a sentence that claims nothing.

    Attributes:
        data: the data that it was trained on, and where they come from.
        use: what it is meant for.
        limits: what it is not meant for, or fails at.
        datasets: names of data sets on the Hub.
    """

    data: str | None = None
    use: str | None = None
    limits: str | None = None
    datasets: tuple[str, ...] = ()


def card_of(run: Run, record: Mapping[str, Any], name: str, words: Words) -> str:
    """Returns the text of README.md.

    Args:
        run: the network, whose configuration has no places.
        record: the content of published.json, whose "files" are listed.
        name: OWNER/NAME of the repository, or the name of a folder.
        words: what a person says.
    """
    parts = [
        _head(run, record, name, words),
        f"# {name.rpartition('/')[2]}",
        _summary(run),
        _use_in_python(name),
        _table_of_classes(run),
        "## Training",
        *_training(run, record, words),
        "## Scores",
        *_scores(record),
        "## Use and limits",
        *_use(run, record, words),
        "## Files",
        _files(record["files"]),
    ]
    return "\n\n".join(parts) + "\n"


def _head(run: Run, record: Mapping[str, Any], name: str, words: Words) -> str:
    """Returns the YAML between two lines of dashes; text in the quotes of JSON, which is YAML."""
    lines = [f"license: {record['licence']}", "library_name: jaxseg", "pipeline_tag: image-segmentation", "tags:"]
    tags = ("jaxseg", "jax", "flax", "semantic-segmentation", "image-segmentation", run.config.model.name)
    lines += [f"- {json.dumps(tag)}" for tag in tags]
    if words.datasets:
        lines += ["datasets:", *(f"- {json.dumps(dataset)}" for dataset in words.datasets)]
    scored = [scores for scores in _own(record["scores"]) if isinstance(scores["mean_iou"], int | float)]
    if scored:
        lines += ["metrics:", "- mean_iou", "model-index:", f"- name: {json.dumps(name.rpartition('/')[2])}"]
        lines.append("  results:")
    for scores in scored:
        data = words.datasets[0] if words.datasets else run.config.data.source
        lines += [
            "  - task:",
            "      type: image-segmentation",
            "    dataset:",
            f"      name: {json.dumps(data)}",
            f"      type: {json.dumps(data)}",
            f"      split: {json.dumps(scores['split'])}",
            "    metrics:",
            "    - type: mean_iou",
            f"      value: {scores['mean_iou']:.6f}",
        ]
    return "\n".join(["---", *lines, "---"])


def _summary(run: Run) -> str:
    config = run.config
    encoder = config.model.args["encoder"] if "encoder" in config.model.args else None
    over = f" over `{encoder}`" if isinstance(encoder, str) else ""
    return (
        f"A network for semantic segmentation: `{config.model.name}`{over} of "
        f"jaxseg for images of {counted(config.data.channels, 'channel')}, with "
        f"{counted(len(run.classes), 'class')}. These are the weights of the {run.which} checkpoint, after "
        f"{counted(run.step, 'step')}{', averaged over the training (EMA)' if config.ema.decay else ''}."
    )


def _use_in_python(name: str) -> str:
    source = f"hf://{name}" if "/" in name else name
    return f'```python\nimport jaxseg\nrun = jaxseg.load("{source}")\nclasses = run.predict("photo.jpg").classes\n```'


def _table_of_classes(run: Run) -> str:
    rows = [
        f"| {i} | {_cell(name)} | #{''.join(f'{int(c):02x}' for c in color)} |"
        for i, (name, color) in enumerate(zip(run.classes[:100], run.colors))
    ]
    more = f"\n\nThe other {len(run.classes) - 100} are in `data.json`." if len(run.classes) > 100 else ""
    return "\n".join(["| label | class | colour |", "|---|---|---|", *rows]) + more


def _training(run: Run, record: Mapping[str, Any], words: Words) -> Iterable[str]:
    config, training = run.config, record["training"]
    data = config.data
    known = words.data or _SOURCES[data.source if data.source in _SOURCES else ""].format(data.source)
    images = training["images"].items()
    counts = ", ".join(f"{counted(count, 'image')} in {_code(split)}" for split, count in images)
    fold = f" without the fold {training['fold']} of it" if training["fold"] else ""
    yield (
        f"{known} Trained on the split {_code(data.train_split)}{fold}, the checkpoint chosen on "
        f"{_code(data.val_split)}{f' ({counts})' if counts else ''}."
    )
    if data.multilabel:
        yield (
            "A pixel may have several of the classes, or none (`data.multilabel`): each class is told from all else by "
            "itself, and is given where its own probability is above a half."
        )
    if data.range:
        yield f"The values {data.range[0]:g} and {data.range[1]:g} of an image file are 0 and 1 (`data.range`)."
    height, width = data.size
    fit = "at every use" if data.fit == "resize" else "in training, by crops, and have their own size at every use"
    mean, std = (", ".join(f"{x:g}" for x in values) for values in (data.mean, data.std))
    yield (
        f"Images have {height}x{width} pixels {fit}. Their values, in [0, 1], have ({mean}) subtracted and are divided "
        f"by ({std})."
    )
    yield (
        f"Seed {training['seed']}, {counted(record['step'], 'step')} of {counted(config.batch_size, 'image')}, loss "
        f"{_code(config.loss.terms)}, optimiser {_code(config.optimizer.name)}."
    )
    if training["command"]:
        started = f", started {training['starts']} times" if training["starts"] > 1 else ""
        yield f"The command{started}; PATH stands for files and folders of the machine:"
        yield f"    {printable(training['command'])}"
    else:
        yield "The command is not recorded; `config.json` has every value."
    if training["commit"]:
        changed = ", with changes" if training["changed"] else ""
        yield f"The commit of jaxseg: `{training['commit']}`{changed}."
    if training["packages"]:
        packages = ", ".join(f"{_cell(name)} {_cell(version)}" for name, version in training["packages"].items())
        device = training["device"]
        on = f"{device['count']} x {_cell(str(device['kind']))}" if {"count", "kind"} <= device.keys() else "unknown"
        yield f"Packages: {packages}. Devices: {on}."


def _scores(record: Mapping[str, Any]) -> Iterable[str]:
    if not record["scores"]:
        yield "None are recorded: `jaxseg evaluate` was not called for this checkpoint before it was published."
    for scores in record["scores"]:
        yield f"{_code(scores['split'])}, {counted(scores['images'], 'image')}{_other(scores)}; IoU in percent:"
        with_ends = any(interval_of(scores, name) for name in (None, *(c["name"] for c in scores["classes"])))
        rows = [("mean", scores["mean_iou"], interval_of(scores, None))]
        rows += [(row["name"], row["iou"], interval_of(scores, row["name"])) for row in scores["classes"][:100]]
        head = ["| class | IoU | interval |", "|---|---|---|"] if with_ends else ["| class | IoU |", "|---|---|"]
        yield "\n".join([*head, *(_row(*row, with_ends) for row in rows)])
    yield (
        "One training with one seed: another seed gives other numbers. An interval, where there is one, is by the "
        "bootstrap over images."
        if record["scores"]
        else "Score it on your own images before you use it."
    )


def _own(scores: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the scores of the data that the run knows."""
    return [each for each in scores if "other" not in each]


def _other(scores: Mapping[str, Any]) -> str:
    if "other" not in scores:
        return ""
    keys = ", ".join(f"`{key}`" for key in scores["other"])
    return f", scored with another {keys} than that of the training: these may be images of other data"


def _row(name: str, iou: float | None, ends: tuple[float, float] | None, with_ends: bool) -> str:
    cells = [_cell(name), "-" if iou is None else percent(iou)]
    if with_ends:
        cells.append("-" if ends is None else f"{percent(ends[0])} to {percent(ends[1])}")
    return f"| {' | '.join(cells)} |"


def _use(run: Run, record: Mapping[str, Any], words: Words) -> Iterable[str]:
    several = bool(run.config.data.multilabel)
    what = "those of the classes above that it finds there, several or none" if several else "one of the classes above"
    yield words.use or (
        f"It gives each pixel of an image {what}, and is meant for images like those that it was trained on."
    )
    errs = "It may give a class" if several else "It gives one of its classes to every pixel, also"
    yield words.limits or (
        f"Images of another kind, camera or scale than those of the training were not tried. {errs} where the image "
        "shows none of them, and its probabilities may be too sure. Nothing about it was tested for decisions about "
        "people or their safety."
    )
    own = _own(record["scores"])
    rows = own[0]["classes"] if own else []
    scored = [row for row in rows if isinstance(row["iou"], int | float)]
    if len(scored) > 1:
        worst = min(scored, key=lambda row: row["iou"])
        yield (
            f"Its poorest class is {_cell(worst['name'])}, with an IoU of {percent(worst['iou'])} % "
            f"on {_code(own[0]['split'])}."
        )
    yield f"Licence: {record['licence']}. The licence of the data holds beside it."


def _files(names: Sequence[str]) -> str:
    return "\n".join(f"- `{name}`: {FILES[name]}" for name in names if name in FILES and name != CARD_FILE)


def _code(text: Any) -> str:
    """Returns text of a user as code in a line: no line ends, and no mark that would end it."""
    return f"`{printable(str(text)).replace('`', ' ')}`"


def _cell(text: str) -> str:
    """Returns text of a user for a cell of a table or a line: no line ends, bars or marks of Markdown and HTML."""
    shown = printable(str(text))
    return "".join(f"\\{c}" if c in "\\`*_[]|<>#" else c for c in shown) if shown.strip() else "(no name)"
