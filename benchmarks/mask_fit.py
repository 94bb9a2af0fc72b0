"""How many masks that were mirrored or moved `jaxseg check` finds, and how many others it names.

    python benchmarks/mask_fit.py [--share .05] [--repeats 5] EXPERIMENT[:ARG] [--config.data.dir=DIR]

Of the training masks it mirrors a share, or moves it by 5 or by 10 % of a side, and counts what is named. Nothing is
written; docs/data.md has the table.
"""

import argparse
import sys

import numpy as np

from jaxseg.config.command import parse_command_line
from jaxseg.data import make_source
from jaxseg.data.mask_fit import mask_fit
from jaxseg.losses.possible import known_array
from jaxseg.types import ignore_in


def planted(label: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Returns a mask [h,w] mirrored, or moved with what leaves it coming back at the other side."""
    if kind == "mirrored":
        return np.flip(label, int(rng.integers(2)))
    axis = int(rng.integers(2))
    length = label.shape[axis] * (0.05 if kind == "moved by 5 %" else 0.1)
    return np.roll(label, round(length) * int(rng.choice([-1, 1])), axis)


def main() -> None:
    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--share", type=float, default=0.05)
        parser.add_argument("--repeats", type=int, default=5)

    options, config = parse_command_line(sys.argv[1:], "mask_fit.py", "Planted masks.", add, workdir=False, data=True)
    source = make_source(config, config.data.train_split)
    n, k = len(source), len(source.info.classes)
    kinds = ("mirrored", "moved by 5 %", "moved by 10 %")
    chosen = {kind: [] for kind in kinds}
    rng = np.random.default_rng(0)
    for kind in kinds:
        chosen[kind] = [
            set(rng.permutation(n)[: max(1, round(options.share * n))].tolist()) for _ in range(options.repeats)
        ]
    named, found = 0, {kind: [0] * options.repeats for kind in kinds}
    for i in range(n):
        example = source[i]
        image, label = example["image"], known_array(np.asarray(example["label"]), k)
        fit = mask_fit(image, label, ignore_in(label))
        named += fit is not None and fit.doubtful
        for kind in kinds:
            for repeat, places in enumerate(chosen[kind]):
                if i in places:
                    other = mask_fit(image, planted(label, kind, rng), ignore_in(label))
                    found[kind][repeat] += other is not None and other.doubtful
    print(f"{n} masks, {named} named as they are\n")
    print("| planted | masks of a set | found | recall % | precision % |\n|---|---|---|---|---|")
    for kind in kinds:
        planted_masks = len(chosen[kind][0])
        hits = sum(found[kind])
        recall = 100 * hits / (planted_masks * options.repeats)
        clean = named * (1 - options.share) * options.repeats  # of the masks that stay as they are, on average
        precision = 100 * hits / max(hits + clean, 1)
        print(f"| {kind} | {planted_masks} | {hits / options.repeats:.1f} | {recall:.1f} | {precision:.1f} |")


if __name__ == "__main__":
    main()
