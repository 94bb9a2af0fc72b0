"""A plan beside a preset at equal time: `python benchmarks/plan.py --preset FILE[:ARG] --plan PLAN.py --work DIR`.

`jaxseg plan` wrote PLAN.py for the data that the preset has too. The steps of both are timed, alternating, and each
trains for as many as fit into --seconds, on its own schedule, from the same seed. With --steps the plan makes so many,
and the preset as many as take the same time of the processor, which other programs on the machine change little. The
score is that of the validation split. --config.KEY=VALUE changes the preset.
"""

import sys
import time
from pathlib import Path
from typing import Any

from lib.timing import at_least, environment, make_parser, save, table

from jaxseg import compiler
from jaxseg.config import ConfigDict, to_dict, update, validate
from jaxseg.config.command import load_experiment, parse_overrides, run_command
from jaxseg.config.parser import split_overrides
from jaxseg.data import make_source
from jaxseg.metrics import scores
from jaxseg.plan.measuring import Seconds, seconds_of_step
from jaxseg.train import train

ROUNDS = 2
_TIMES = ("seconds a step", "CPU seconds a step")
COLUMNS = ("recipe", "network", "size", "batch", *_TIMES, "steps", "mIoU", "pixel accuracy", "CPU minutes")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    words, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
    parser = make_parser(__doc__)
    parser.add_argument("--preset", required=True, metavar="FILE[:ARG]", help="the experiment to compare with")
    parser.add_argument("--plan", required=True, metavar="FILE", help="what jaxseg plan wrote")
    parser.add_argument("--seconds", type=at_least(1), default=300, help="of training, evaluations not counted")
    parser.add_argument("--steps", type=at_least(1), help="of the plan, in place of --seconds")
    parser.add_argument("--seed", type=at_least(0), help="of both runs (default: what they say)")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="folder of the two runs")
    options = parser.parse_args(words)
    return run_command(lambda: _compare(options, overrides))


def _compare(options: Any, overrides: list[str]) -> int:
    configs = {"preset": load_experiment(options.preset), "plan": load_experiment(options.plan)}
    parse_overrides(configs["preset"], overrides)
    compiler.keep_programs(configs["plan"].compile.cache)
    sources = {name: make_source(config, config.data.val_split) for name, config in configs.items()}
    classes = {name: len(source.info.classes) for name, source in sources.items()}
    measured: dict[str, list[Seconds]] = {name: [] for name in configs}
    for _ in range(1 if options.smallest else ROUNDS):
        for name, config in configs.items():
            measured[name].append(seconds_of_step(config, classes[name]))
    wall = {name: min(each.step for each in several) for name, several in measured.items()}
    processor = {name: min(each.processor for each in several) for name, several in measured.items()}
    rows = []
    for name, config in configs.items():
        steps = int(
            options.steps * processor["plan"] / processor[name] if options.steps else options.seconds / wall[name]
        )
        steps = 2 if options.smallest else max(2, steps)
        shorten(config, steps)
        if options.seed is not None:
            update(config, seed=options.seed)
        began = time.process_time()
        result = train(config, options.work / name, f"the benchmark again with --work {options.work}")
        assert result is not None
        found = scores(result.confusion)
        rows.append(
            {
                "recipe": name,
                "network": config.model.name,
                "size": "x".join(map(str, config.augment.crop or config.data.size)),
                "batch": config.batch_size,
                "seconds a step": round(wall[name], 3),
                "CPU seconds a step": round(processor[name], 3),
                "steps": steps,
                "mIoU": round(float(found.mean_iou), 4),
                "pixel accuracy": round(float(found.pixel_accuracy), 4),
                "CPU minutes": round((time.process_time() - began) / 60, 2),
                "iou": [round(float(value), 4) for value in found.iou],
                "config": without_paths(config),
            }
        )
    record = {
        "environment": environment(),
        "preset": Path(options.preset).name,
        "seconds": None if options.steps else options.seconds,
        "rows": rows,
    }
    shown = [[str(row[column]) for column in COLUMNS] for row in rows]
    save(options.out, record, table(COLUMNS, shown, record))
    return 0


def shorten(config: ConfigDict, steps: int) -> None:
    """Sets the steps of a run, one evaluation at its end, and a warm-up that fits."""
    update(
        config,
        steps=steps,
        schedule__warmup=min(config.schedule.warmup, steps // 15),
        eval__every=steps,
        checkpoint__every=steps,
        log__images=0,
        log__tensorboard=False,
    )
    validate(config)


def without_paths(config: ConfigDict) -> dict[str, Any]:
    """Returns a configuration in the types of JSON without the folder of the data."""
    described = to_dict(config)
    described["data"]["dir"] = ""
    return described


if __name__ == "__main__":
    sys.exit(main())
