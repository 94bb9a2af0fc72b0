"""The page of a cross-validation: scores over folds and out of fold, the folds side by side, the worst images."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxseg.config import ConfigDict, from_dict, with_values
from jaxseg.data import make_source
from jaxseg.data.base import Source
from jaxseg.data.folds import HELD_OUT
from jaxseg.data.images import read_mask
from jaxseg.errors import ConfigError, DataError, counted
from jaxseg.files import read_json
from jaxseg.folds.plan import fold_workdir, read_plan
from jaxseg.folds.summary import Summary, summarise
from jaxseg.inference.out_of_fold import FOLDER
from jaxseg.losses.possible import known_array
from jaxseg.pages.cards import (
    SIDES,
    Card,
    Picture,
    color_layer,
    error_layer,
    fitting,
    gallery,
    layer_url,
    photograph,
    reduced,
)
from jaxseg.pages.charts import Axis, Series, chart
from jaxseg.pages.frame import Section, commands, escape, facts, make_page
from jaxseg.pages.tables import bar, number, share, swatch, table, text
from jaxseg.pictures.colors import Colors
from jaxseg.report import parts
from jaxseg.report.collecting import image_scores, in_image, worst, wrong_shares
from jaxseg.report.images import MOST, NUMBER, OF_CLASS, words
from jaxseg.report.run_page import KEYS, log_of
from jaxseg.run.load import forget_places, override_free
from jaxseg.run.workdir import read_data
from jaxseg.sweep.plan import PlannedRun
from jaxseg.sweep.records import read_scores


class _Shown(NamedTuple):
    """The images of which the page has pictures, {place: groups}, and why it has not all that it could have."""

    groups: dict[int, list[str]]
    pictures: dict[str, Picture]
    problem: str


def folds_page(workdir: Path, program: str, again: str, overrides: Sequence[str] = ()) -> str:
    """Returns the page of a folder of `jaxseg train --folds`, of the folds that have ended.

    The numbers are those of the files in the folder. The data are read for the pictures of the worst images alone;
    without them the page says so.

    Args:
        workdir: the folder.
        program: what writes the page, see `pages.frame.is_page`.
        again: the command that makes it.
        overrides: `--config.KEY=VALUE` arguments, as of `load_run`.

    Raises:
        ConfigError: if no fold has ended, files of the folder cannot be read, or an override has another key.
    """
    plan = read_plan(workdir)
    config = from_dict(plan["config"])
    every = [
        PlannedRun(f"fold-{i}", config.seed, fold_workdir(workdir, i), config) for i in range(1, plan["folds"] + 1)
    ]
    runs = [run for run in every if read_scores(run.workdir, HELD_OUT) is not None]
    if not runs:
        raise ConfigError(f"No fold in {workdir} has scores yet; the command that started them makes them.")
    forget_places(config, overrides)
    override_free(config, overrides)
    found = summarise(runs, bool(config.data.group))
    colors = read_data(runs[0].workdir).colors
    shown = _shown(found, workdir, config, colors)
    lacking = [run.variant for run in every if run not in runs]
    missing = f" {', '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} no scores yet." if lacking else ""
    about = (
        f"<p>The cross-validation in <code>{escape(workdir)}</code>: {len(runs)} of {counted(len(every), 'fold')}, "
        f"{counted(found.found.counts.images, 'image')}, each scored by the run that was trained without it."
        f"{escape(missing)}</p>"
    )
    interval, mean = found.interval, found.spreads[-1]
    pairs = [
        ("mIoU out of fold", f"{100 * found.pooled[-1]:.2f} %"),
        (f"{interval.level:.0%} interval", f"{100 * interval.low[-1]:.2f} to {100 * interval.high[-1]:.2f} %"),
        ("mIoU over folds", f"{100 * mean.mean:.2f}" + (f" ± {100 * mean.deviation:.2f} %" if mean.n > 1 else " %")),
        ("network", str(config.model.name)),
    ]
    sections = [
        Section("Classes", "classes", _classes(found, [run.variant for run in runs], colors)),
        Section("Folds", "folds", _folds(found, runs)),
        Section("Images", "images", _images(found, shown, colors)),
        Section("Curves", "curves", parts.curves({run.variant: log_of(run.workdir) for run in runs})),
        Section("Configuration", "configuration", parts.config_table(config)),
        Section(
            "Again", "again", commands([("How the folds were trained:", _command(workdir)), ("This page:", again)])
        ),
    ]
    return make_page(program, f"Folds {workdir.name}: {config.model.name}", about + facts(pairs), sections)


def _command(workdir: Path) -> str:
    """Returns the command of the summary, or where it is found."""
    file = workdir / "scores.json"
    try:
        command = read_json(file)["command"]
    except (OSError, ValueError, KeyError, TypeError):
        return "the same command as at first writes it into table.md once all folds have ended"
    return command if isinstance(command, str) else str(file)


def _classes(found: Summary, names: Sequence[str], colors: Colors) -> str:
    """Returns the IoU of each class over the folds, out of fold, and in each fold."""
    interval, known = found.interval, len(found.interval.low) == len(found.pooled)
    columns = ("class", "mean %", "± over folds", "out of fold %", "from", "to", "0 to 100 %", *names)
    rows = []
    for i, spread in enumerate(found.spreads):
        last = i == len(found.classes)
        place = i if known else (0 if last else None)
        low, high = (math.nan if place is None else float(ends[place]) for ends in (interval.low, interval.high))
        rows.append(
            [
                text("mean of the classes") if last else swatch(found.classes[i], colors[i]),
                share(spread.mean if spread.n else math.nan),
                share(spread.deviation if spread.n > 1 else math.nan),
                *map(share, (float(found.pooled[i]), low, high)),
                bar(float(found.pooled[i]), low, high),
                *(share(float(row[i])) for row in found.of_folds),
            ]
        )
    note = (
        f"<p>Out of fold, the pixels of all images are counted together; the interval draws {interval.draws} times "
        f"{counted(interval.images, found.unit)} with replacement, and holds for these runs. The folds share most of "
        "their training images, so that ± over folds is no standard error of the mean.</p>"
    )
    return table("IoU by class", columns, rows) + note


def _folds(found: Summary, runs: Sequence[PlannedRun]) -> str:
    """Returns the folds side by side."""
    rows, points, scores = [], [], image_scores(found.found.counts)
    for place, (run, row) in enumerate(zip(runs, found.of_folds), 1):
        own = _of(found, run)
        groups = len({found.found.groups[i] for i in own})
        record = read_scores(run.workdir, HELD_OUT)
        assert record is not None  # it has ended
        low, middle = (float(np.nanquantile(scores[own], q)) for q in (0.1, 0.5))
        rows.append(
            [
                text(run.variant),
                number(len(own), "{:d}"),
                number(groups, "{:d}"),
                share(float(row[-1])),
                *map(share, (middle, low)),
                number(int(record["step"]), "{:d}"),
            ]
        )
        points += [(place, 100 * float(scores[i])) for i in own]
    names = [found.found.names[i] for run in runs for i in _of(found, run)]
    means = [(place, 100 * float(row[-1])) for place, row in enumerate(found.of_folds, 1)]
    columns = ("fold", "images", "groups", "mIoU %", "median image %", "lowest tenth below %", "steps")
    folds = Axis("fold", 0.5, len(runs) + 0.5, form="{:.0f}")
    drawn = chart(
        "Every image by the fold that it is in",
        folds,
        Axis("mean IoU in per cent", 0, 100, form="{:.1f} %"),
        [Series("image", points, "points", names), Series("mIoU of the fold", means, "points")],
    )
    return table("The folds", columns, rows) + f'<div class="charts">{drawn}</div>'


def _of(found: Summary, run: PlannedRun) -> Sequence[int]:
    number_ = int(run.workdir.name.rpartition("-")[2])
    return [i for i, fold in enumerate(found.found.folds) if fold == number_]


def _shown(found: Summary, workdir: Path, config: ConfigDict, colors: Colors) -> _Shown:
    """Returns the pictures of the images of the lowest scores, of all folds and of each."""
    scores = image_scores(found.found.counts)
    groups: dict[int, list[str]] = {i: ["worst"] for i in worst(scores, NUMBER)}
    folds = np.array(found.found.folds)
    for fold in sorted(set(found.found.folds)):
        for i in worst(np.where(folds == fold, scores, np.nan), OF_CLASS):
            if i in groups or len(groups) < MOST:
                groups.setdefault(i, []).append(f"fold-{fold}")
    try:
        values = {
            "data.fold": "",
            "data.fold_file": "",
            "data.weaken": "",
            "data.annotations": "",
            "data.unlabelled": "",
        }
        source = make_source(with_values(config, {**values, "data.classes": found.classes}), config.data.train_split)
    except (ConfigError, DataError) as error:
        return _Shown({}, {}, f"There are no pictures, since the images cannot be read: {error}")
    places = {source.name(i): i for i in range(len(source))}
    read = {i: _read(source, places, found, i, workdir) for i in sorted(groups)}
    gone = [i for i, pair in read.items() if pair is None]
    kept = {i: groups[i] for i in groups if i not in gone}
    pairs = {i: pair for i, pair in read.items() if pair is not None}

    def make(side: int) -> dict[str, Picture]:
        made = {}
        for i, (truth, prediction) in pairs.items():
            image = np.asarray(source[places[found.found.names[i]]]["image"])
            layers = [color_layer(truth, colors), color_layer(prediction, colors)]
            layers.append(error_layer(truth, prediction, source.info.ignored))
            made[str(i)] = Picture(photograph(image, side), tuple(layer_url(layer, side) for layer in layers))
        return made

    what = f"{counted(len(gone), 'image')} that the data no longer has, or whose size changed" if gone else ""
    return _Shown(kept, fitting(make), f"There is no picture of {what}." if gone else "")


def _read(
    source: Source, places: dict[str, int], found: Summary, image: int, workdir: Path
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the classes of the mask and of the prediction of an image, reduced; None if they are not there."""
    name, fold = found.found.names[image], found.found.folds[image]
    if name not in places:
        return None
    try:
        label = np.asarray(source[places[name]]["label"])
        prediction = read_mask(fold_workdir(workdir, fold) / FOLDER / found.found.files[image])
    except DataError:
        return None
    if label.shape != prediction.shape:
        return None
    truth = known_array(label, len(source.info.classes))
    return reduced(truth, SIDES[0]), reduced(prediction, SIDES[0])


def _images(found: Summary, shown: _Shown, colors: Colors) -> str:
    counts, names, folds = found.found.counts, found.found.names, found.found.folds
    scores, wrong = image_scores(counts), wrong_shares(counts)
    cards = []
    for i in sorted(shown.groups):
        lines = [
            f"mIoU {100 * scores[i]:.1f} %, {100 * wrong[i]:.1f} % wrong, by the run without fold {folds[i]}",
            words(counts, i, found.classes),
        ]
        sorts = {"lowest mIoU": float(scores[i]), "most wrong pixels": -float(wrong[i]), "fold": folds[i]}
        held, _ = in_image(counts, i)
        picture = shown.pictures[str(i)]
        cards.append(Card(f"image-{i}", names[i], lines, shown.groups[i], sorts, held.tolist(), picture))
    of_folds = [(f"fold-{fold}", f"worst of fold {fold}") for fold in sorted(set(folds))]
    choices = [("worst", "worst"), *of_folds, ("", "all here")]
    shown_images = gallery(cards, ("truth", "prediction", "error"), choices, found.classes, colors) if cards else ""
    rows = [
        [text(names[i]), number(folds[i], "{:d}"), share(float(scores[i])), share(float(wrong[i]))]
        for i in np.argsort(scores, kind="stable")
    ]
    listed = table("Every image, the worst first", ("image", "fold", "mean IoU %", "wrong pixels %"), rows)
    every = f"<details><summary>All {counted(len(rows), 'image')}</summary>{listed}</details>"
    histogram = f'<div class="charts">{parts.histogram({"out of fold": scores})}</div>'
    problem = f"<p>{escape(shown.problem)}</p>" if shown.problem else ""
    return problem + (KEYS + shown_images if cards else "") + histogram + every
