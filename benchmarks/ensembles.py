"""What an ensemble gains and costs: `python benchmarks/ensembles.py --workdir A B C ... --out NAME [--split val]`.

Runs of one architecture, trained with other seeds, are scored alone and averaged, for each number of them: the mean
over the groups of runs that follow each other (A B, B C, C A for two of three). Then three programs of the same average
are timed, alternating: the network compiled once and called with the variables of each run in turn, as `predict` does;
one program over the runs' stacked variables with `vmap`; and one with a loop (`scan`).
"""

import functools
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from lib.timing import at_least, environment, make_parser, ratio_of, save, table, time_rounds

from jaxseg import compiler, losses, metrics
from jaxseg.config import set_key
from jaxseg.data import make_source
from jaxseg.data.sources import split_of_data
from jaxseg.inference.predictor import Predictor, make_predictor
from jaxseg.inference.score_images import score_images
from jaxseg.run.load import Run, load_run
from jaxseg.types import PyTree


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--workdir", nargs="+", metavar="RUN", required=True, help="runs of one architecture")
    parser.add_argument("--split", default="val", help="(default val)")
    parser.add_argument("--batch", type=at_least(1), default=1, help="images of a timed call (default 1)")
    options = parser.parse_args(argv)
    runs = [load_run(workdir) for workdir in options.workdir]
    if len({(run.model, run.classes) for run in runs}) > 1:
        parser.error("the runs differ in architecture or classes; give runs that differ in their seed alone.")
    compiler.keep_programs(runs[0].config.compile.cache)
    record = {
        "environment": environment(),
        "network": runs[0].config.model.name,
        "arguments": runs[0].config.model.args.to_dict(),
        "seeds": [run.config.seed for run in runs],
        "steps": runs[0].step,
        "split": options.split,
        "rows": accuracy(runs, options.split),
        "batch": options.batch,
        "times": times(runs, options.batch, 1 if options.smallest else options.repeats),
    }
    save(options.out, record, describe(record))
    return 0


def accuracy(runs: Sequence[Run], split: str) -> list[dict[str, float]]:
    """Returns the scores of 1, 2, ... runs averaged, each the mean over the groups of neighbours in a ring."""
    config = runs[0].config
    set_key(config, "data.classes", runs[0].classes)
    source = make_source(config, split_of_data(config, split))
    calibration = functools.partial(metrics.calibration_stats, one_vs_rest=runs[0].parts.loss.one_vs_rest)
    rows = []
    for count in range(1, len(runs) + 1):
        starts = range(len(runs) if count < len(runs) else 1)
        ious, errors = [], []
        for start in starts:
            predictor = make_predictor([runs[(start + i) % len(runs)] for i in range(count)])
            scored = score_images(source, predictor.scores, runs[0].parts.loss, measures={"calibration": calibration})
            ious.append(metrics.scores(scored.result.confusion).mean_iou)
            errors.append(metrics.calibration(scored.result.measures["calibration"]).error)
        rows.append(
            {
                "runs": count,
                "groups": len(starts),
                "mean_iou": statistics.fmean(ious),
                "lowest": min(ious),
                "highest": max(ious),
                "calibration_error": statistics.fmean(errors),
            }
        )
        print(rows[-1], file=sys.stderr)
    return rows


def times(runs: Sequence[Run], batch: int, repeats: int) -> list[dict[str, Any]]:
    """Returns each form of the program with its time beside that of one run, and its distance from that `in turn`."""
    config = runs[0].config
    shape = (batch, *config.data.size, config.data.channels)
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    predictor = make_predictor(list(runs))
    one = make_predictor([runs[0]])
    cases = {"one run": _as_predicted(one, image), "in turn": _as_predicted(predictor, image)}
    cases |= _one_program(predictor, image)
    expected = cases["in turn"]()
    away = {name: float(jnp.max(jnp.abs(case() - expected))) for name, case in cases.items() if name != "one run"}
    seconds = time_rounds(cases, repeats)
    rows = []
    for name, values in seconds.items():
        ratio = ratio_of(values, seconds["one run"])
        far = {"difference": away[name]} if name in away else {}
        rows.append({"form": name, "ratio": ratio._asdict(), "seconds": statistics.median(values), **far})
    return rows


def _as_predicted(predictor: Predictor, image: np.ndarray) -> Callable[[], jax.Array]:
    networks, variables = predictor.networks, predictor.variables
    return lambda: networks.shares(networks.scores(variables, image, whole=True)).probabilities


def _one_program(predictor: Predictor, image: np.ndarray) -> dict[str, Callable[[], jax.Array]]:
    """Returns the average of the members as `vmap` and as `scan` over their stacked variables."""
    member = predictor.networks.members[0]
    options = compiler.compiler_options(member.parts.config.compile.options)
    stacked = jax.tree.map(lambda *each: jnp.stack(each), *predictor.variables)
    count = len(predictor.variables)

    def of_one(variables: PyTree, image: jax.Array) -> jax.Array:
        logits = member.model.apply(variables, member.parts.prepare(image), train=False)[0]
        return losses.probabilities(logits, predictor.networks.one_vs_rest)

    def by_vmap(stacked: PyTree, image: jax.Array) -> jax.Array:
        return jnp.mean(jax.vmap(of_one, (0, None))(stacked, image), axis=0)

    def by_scan(stacked: PyTree, image: jax.Array) -> jax.Array:
        start = jax.eval_shape(of_one, jax.tree.map(lambda leaf: leaf[0], stacked), image)
        total, _ = jax.lax.scan(
            lambda total, variables: (total + of_one(variables, image), None),
            jnp.zeros(start.shape, start.dtype),
            stacked,
        )
        return total / count

    return {
        name: functools.partial(compiler.jit(function, options, None), stacked, image)
        for name, function in (("vmap", by_vmap), ("scan", by_scan))
    }


def describe(record: dict[str, Any]) -> str:
    """The tables of a record as Markdown."""
    rows = [
        [
            r["runs"],
            r["groups"],
            f"{100 * r['mean_iou']:.2f}",
            f"{100 * r['lowest']:.2f} to {100 * r['highest']:.2f}",
            f"{100 * r['calibration_error']:.2f}",
        ]
        for r in record["rows"]
    ]
    note = (
        f"{record['network']} {record['arguments']} after {record['steps']} steps, seeds "
        f"{', '.join(map(str, record['seeds']))}, split {record['split']}; per cent."
    )
    head = ["runs averaged", "groups", "mIoU", "lowest and highest", "calibration error"]
    text = table(head, rows, record, note)
    of_times = [
        [
            t["form"],
            f"{t['ratio']['median']:.2f}",
            f"{t['ratio']['least']:.2f}",
            f"{t['difference']:.0e}" if "difference" in t else "",
        ]
        for t in record["times"]
    ]
    head = ["program", "time, to that of one run", "of the shortest times", "difference of a probability"]
    return text + "\n" + table(head, of_times, record, f"Batch of {record['batch']}, all {len(record['seeds'])} runs.")


if __name__ == "__main__":
    sys.exit(main())
