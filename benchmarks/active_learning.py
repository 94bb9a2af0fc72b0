"""How many labels does each criterion need? `python benchmarks/active_learning.py --work DIR --out NAME`.

A pool of shapes images begins with a few labels, the same for every criterion of a seed. In each round a small U-Net is
trained from scratch on the images that are labelled so far, with the same number of steps, and the criterion chooses
those that are labelled next (`jaxseg.propose.criteria`). The table has the labels with which the validation mIoU first
reaches a share of that of training on the whole pool of the same seed, between two rounds in proportion.

All trainings are one compiled program. Each round is one file in DIR, and a call that was cut off goes on from there.
"""

import argparse
import functools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from lib.commands import command_of
from lib.timing import at_least, environment, rows_below, save
from lib.window import Windows

from jaxseg import losses, metrics
from jaxseg.build import Parts, build_parts
from jaxseg.config import default_config, update
from jaxseg.config.command import run_command
from jaxseg.data.base import Source
from jaxseg.data.folder import FolderSource
from jaxseg.data.shapes import ShapesSource
from jaxseg.errors import ConfigError, counted
from jaxseg.explain.stages import default_layer, layer_shapes
from jaxseg.files import write_text
from jaxseg.inference.last_layer import last_layer
from jaxseg.inference.uncertainty import MonteCarloModel
from jaxseg.nn.dropout import MONTE_CARLO
from jaxseg.propose import criteria
from jaxseg.propose.embeddings import gradients, pooled_features
from jaxseg.state import keys_of_seed
from jaxseg.sweep.statistics import paired_difference, spread

CRITERIA = ("random", "entropy", "mutual_information", "core_set", "badge")
DRAWS = 8
"""Draws of dropout for the mutual information."""


class Pool(NamedTuple):
    """Images u8[n,h,w,3] and labels u8[n,h,w]."""

    image: jax.Array
    label: jax.Array


class Programs(NamedTuple):
    """The compiled programs of all rounds.

    Attributes:
        train: see `_training`.
        score: variables -> the confusion matrix of the validation images.
        probabilities: variables -> f32[n,h,w,k] of the pool.
        draw: variables, key -> the same with a draw of dropout.
        features, embeddings: variables -> f[n,d] of the pool.
    """

    train: Any
    score: Any
    probabilities: Any
    draw: Any
    features: Any
    embeddings: Any


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Measure how many labels each criterion needs.", allow_abbrev=False)
    parser.add_argument("--data-dir", default="", metavar="PATH", help="a folder with splits (default: shapes)")
    parser.add_argument("--pool", type=at_least(2), default=256, metavar="N", help="images of the pool (default 256)")
    parser.add_argument("--side", type=at_least(8), default=32, metavar="N", help="pixels of an image (default 32)")
    parser.add_argument("--labels", type=at_least(1), nargs="+", default=[24, 48, 96, 160], metavar="N")
    parser.add_argument("--steps", type=at_least(1), default=400, metavar="N", help="of each training (default 400)")
    parser.add_argument("--batch", type=at_least(1), default=8, metavar="N", help="images of a step (default 8)")
    parser.add_argument("--widths", type=at_least(1), nargs="+", default=[8, 16, 32], metavar="N", help="of the U-Net")
    parser.add_argument("--rate", type=float, default=1e-2, help="learning rate (default .01)")
    parser.add_argument("--dropout", type=float, default=0.2, help="of the deepest level (default .2)")
    parser.add_argument("--share", type=float, default=0.95, help="of the mIoU of the whole pool (default .95)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], metavar="N")
    parser.add_argument("--criteria", nargs="+", choices=CRITERIA, default=list(CRITERIA), metavar="NAME")
    parser.add_argument("--work", required=True, type=Path, metavar="DIR", help="where the rounds are kept")
    parser.add_argument("--out", type=Path, metavar="NAME", help="NAME.json, NAME.md and NAME.png are written")
    options, words = parser.parse_args(argv), list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _measure(options, words))


def _measure(options: argparse.Namespace, words: Sequence[str]) -> int:
    programs, most = make_programs(options)
    curves: dict[str, dict[int, list[float]]] = {name: {} for name in options.criteria}
    starts: dict[int, Any] = {}
    full = {seed: whole_pool(options, programs, seed) for seed in options.seeds}
    for seed in options.seeds:
        for name in options.criteria:
            curves[name][seed] = curve(options, programs, name, seed, starts)
    record = {
        "command": command_of(__file__, words),
        "environment": environment(),
        "data": "folder" if options.data_dir else "shapes",
        "side": options.side,
        "pool": options.pool,
        "parameters": most,
        "steps": options.steps,
        "labels": options.labels,
        "share": options.share,
        "full": full,
        "curves": curves,
    }
    save(options.out, record, describe(record), functools.partial(draw_curves, record))
    return 0


def make_programs(options: argparse.Namespace) -> tuple[Programs, int]:
    """Returns the programs, and how many parameters the network has."""
    side = (options.side, options.side)
    if options.data_dir:
        sources = [Windows.of(FolderSource(options.data_dir, split), side) for split in ("train", "val")]
        train, scored = sources[0].first(options.pool), sources[1]
    else:
        train, scored = ShapesSource("train", options.pool, side), ShapesSource("val", 256, side)
    if len(train) < options.pool:
        raise ConfigError(
            f"--pool {options.pool} is more than the {counted(len(train), 'training image')} that there are."
        )
    pool, val = _arrays(train), _arrays(scored)
    config = default_config()
    update(config, model__name="unet", model__args={"widths": tuple(options.widths), "norm": "group"})
    update(config, model__args={**config.model.args, "dropout": options.dropout})
    update(config, data__size=side, steps=options.steps, optimizer__learning_rate=options.rate)
    update(config, schedule__warmup=options.steps // 20)
    update(config, batch_size=options.batch, data__shapes_train=options.pool)
    k = len(train.info.classes)
    parts = build_parts(config, k)
    state = jax.eval_shape(parts.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *side, 3), np.float32)
    stage = default_layer(layer_shapes(parts.model, state.variables, image))
    last = last_layer(parts.model, state.variables, image)
    prepared, share = parts.prepare(pool.image), np.full((options.pool, *side), 1 / options.side**2, np.float32)
    model, drawn = parts.model, MonteCarloModel(parts.model, (MONTE_CARLO,))

    @jax.jit
    def probabilities(variables: Any) -> jax.Array:
        return losses.probabilities(model.apply(variables, prepared, train=False)[0], False)

    @jax.jit
    def draw(variables: Any, key: jax.Array) -> jax.Array:
        return losses.probabilities(drawn.apply({**variables, "monte_carlo_key": key}, prepared, train=False)[0], False)

    @jax.jit
    def score(variables: Any) -> jax.Array:
        logits = model.apply(variables, parts.prepare(val.image), train=False)[0]
        return metrics.confusion_matrix(metrics.predict_classes(logits), val.label.astype(jnp.int32), k)

    programs = Programs(
        _training(parts, pool, options.steps),
        score,
        probabilities,
        draw,
        lambda variables: pooled_features(model, stage, variables, prepared),
        lambda variables: gradients(model, last, variables, prepared, share, False),
    )
    return programs, sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(state.params))


def _arrays(source: Source) -> Pool:
    examples = [source[i] for i in range(len(source))]
    return Pool(*(jnp.asarray(np.stack([example[name] for example in examples])) for name in Pool._fields))


def _training(parts: Parts, pool: Pool, steps: int) -> Any:
    """Returns (labelled i32[n], their number, seed) -> the variables after `steps` steps on batches of the labelled.

    A step is one call: on CPUs XLA computes convolutions inside of loops many times more slowly.
    """
    step, batch_size, begin = parts.train_step(), parts.config.batch_size, jax.jit(parts.init)

    @functools.partial(jax.jit, donate_argnums=0)
    def one(state: Any, labelled: jax.Array, count: jax.Array, key: jax.Array) -> Any:
        rows = jax.random.randint(jax.random.fold_in(jax.random.fold_in(key, 1), state.step), (batch_size,), 0, count)
        batch = jax.tree.map(lambda x: x[labelled[rows]], pool._asdict())
        return step(state, batch, jax.random.fold_in(key, 2))[0]

    def train(labelled: np.ndarray, count: int, seed: int) -> Any:
        init, key = keys_of_seed(seed)
        state, places, number = begin(init), jnp.asarray(labelled), np.int32(count)
        for _ in range(steps):
            state = one(state, places, number, key)
        return state.variables

    return train


def whole_pool(options: argparse.Namespace, programs: Programs, seed: int) -> float:
    """Returns the validation mIoU of training on the whole pool."""
    every = list(range(options.pool))
    return kept(options.work / f"seed{seed}-full.json", lambda: {"miou": trained(options, programs, every, seed)[1]})[
        "miou"
    ]


def curve(options: argparse.Namespace, programs: Programs, name: str, seed: int, starts: dict[int, Any]) -> list[float]:
    """Returns the validation mIoU of each round; `starts` keeps the training that all criteria of a seed begin with."""
    labelled = np.random.default_rng(seed).permutation(options.pool)[: options.labels[0]].tolist()
    found = []
    for number, after in enumerate([*options.labels[1:], 0]):

        def one_round(labelled: list[int] = labelled, after: int = after, number: int = number) -> dict[str, Any]:
            if number == 0 and seed not in starts:
                starts[seed] = trained(options, programs, labelled, seed)
            variables, miou = trained(options, programs, labelled, seed) if number else starts[seed]
            more = after - len(labelled)
            chosen = choose(programs, name, variables, labelled, more, 1000 * seed + number) if after else []
            print(f"seed {seed} {name}: {len(labelled)} labels, mIoU {100 * miou:.2f}", flush=True)
            return {"labelled": labelled, "miou": miou, "chosen": chosen}

        done = kept(options.work / f"seed{seed}-{name}-{number}.json", one_round)
        found.append(done["miou"])
        labelled = labelled + done["chosen"]
    return found


def kept(file: Path, make: Any) -> dict[str, Any]:
    """Returns what a file holds, which is made first where it is not there."""
    if not file.exists():
        write_text(file, json.dumps(make()))
    return json.loads(file.read_text())


def trained(options: argparse.Namespace, programs: Programs, labelled: list[int], seed: int) -> tuple[Any, float]:
    """Returns the variables after training on some images, and the validation mIoU."""
    rows = np.resize(np.array(labelled, np.int32), options.pool)
    variables = programs.train(rows, len(labelled), seed)
    return variables, float(metrics.scores(np.asarray(programs.score(variables))).mean_iou)


def choose(programs: Programs, name: str, variables: Any, labelled: list[int], count: int, seed: int) -> list[int]:
    """Returns the next images by a criterion."""
    if name in ("core_set", "badge"):
        rows = np.asarray((programs.features if name == "core_set" else programs.embeddings)(variables))
        free = np.setdiff1d(np.arange(len(rows)), labelled)
        if name == "core_set":
            found = criteria.core_set(rows[free], count, rows[labelled])
        else:
            found = criteria.badge(rows[free], count, seed, rows[labelled])
        return free[found.indices].tolist()
    shares = np.asarray(programs.probabilities(variables))
    if name == "random":
        scores = np.random.default_rng(seed).random(len(shares))
    elif name == "entropy":
        scores = np.array([criteria.entropy(p) for p in shares])
    else:
        draws = [np.asarray(programs.draw(variables, jax.random.key(seed + i))) for i in range(DRAWS)]
        scores = np.array([criteria.mutual_information(members) for members in zip(*draws)])
    free = np.setdiff1d(np.arange(len(shares)), labelled)
    return free[np.argsort(-scores[free], kind="stable")[:count]].tolist()


def labels_needed(labels: Sequence[int], scores: Sequence[float], target: float) -> float:
    """Returns the labels at which a curve first reaches the target, between two rounds in proportion; NaN if never."""
    for i, score in enumerate(scores):
        if score >= target:
            if i == 0:
                return float(labels[0])
            part = (target - scores[i - 1]) / (score - scores[i - 1])
            return float(labels[i - 1] + part * (labels[i] - labels[i - 1]))
    return float("nan")


def describe(record: Mapping[str, Any]) -> str:
    """Returns the table of a record, as Markdown."""
    labels, full = record["labels"], record["full"]
    needed = {
        name: {seed: labels_needed(labels, scores, record["share"] * full[seed]) for seed, scores in by_seed.items()}
        for name, by_seed in record["curves"].items()
    }
    rows = []
    for name, by_seed in record["curves"].items():
        means = [f"{100 * spread(of_round).mean:.1f}" for of_round in zip(*by_seed.values())]
        of_seeds = needed[name]
        reached = {seed: value for seed, value in of_seeds.items() if not np.isnan(value)}
        found = spread(list(reached.values()))
        cell = f"{found.mean:.0f} ± {found.deviation:.0f}" if len(reached) > 1 else ""
        cell = cell if len(reached) == len(of_seeds) else f"{cell} ({len(reached)} of {len(of_seeds)} reach it)".strip()
        difference = ""
        if name != "random" and "random" in needed:
            both = {seed: value for seed, value in needed["random"].items() if not np.isnan(value)}
            d = paired_difference(reached, both)
            difference = f"{d.mean:+.0f} [{d.low:+.0f}, {d.high:+.0f}]" if d.n > 1 else ""
        rows.append((name, cell, difference, *means))
    share = f"{100 * record['share']:g} %"
    mean = spread(list(full.values()))
    note = (
        f"A pool of {record['pool']} {'images' if record['data'] == 'shapes' else 'windows'} of {record['side']}x"
        f"{record['side']} pixels ({record['data']}); a U-Net of {record['parameters']:,} parameters after "
        f"{record['steps']} steps; {len(full)} seeds. The whole pool has a validation mIoU of {100 * mean.mean:.1f} ± "
        f"{100 * mean.deviation:.1f} per cent. Labels needed for {share} of it: mean ± standard deviation, and the "
        "difference from random with its 95 % interval, over the seeds that reach it with both."
    )
    columns = ("criterion", f"labels for {share}", "against random", *(f"mIoU at {n}" for n in labels))
    return rows_below(columns, rows, note)


def draw_curves(record: Mapping[str, Any], figure: Any) -> None:
    """Fills the picture of mean mIoU by labels."""
    axes = figure.subplots()
    for name, by_seed in record["curves"].items():
        found = [spread(of_round) for of_round in zip(*by_seed.values())]
        axes.errorbar(
            record["labels"],
            [100 * s.mean for s in found],
            [100 * s.deviation / np.sqrt(s.n) for s in found],
            label=name.replace("_", " "),
            marker="o",
            capsize=3,
        )
    whole = 100 * float(np.mean(list(record["full"].values())))
    axes.axhline(whole, color="0.4", linestyle=":", label="whole pool")
    axes.axhline(record["share"] * whole, color="0.4", linestyle="--", label=f"{100 * record['share']:g} % of it")
    axes.set_xlabel("labelled images")
    axes.set_ylabel("validation mIoU in per cent, mean and standard error")
    axes.legend()


if __name__ == "__main__":
    sys.exit(main())
