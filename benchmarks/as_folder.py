"""Writes a data set as a folder of images and masks: `python benchmarks/as_folder.py --out DIR --config FILE`.

Each split becomes DIR/SPLIT/images and DIR/SPLIT/masks of PNG files, with a classes.json. With --size the images are
averaged and the masks take the nearest pixel. `jaxseg plan` reads such a folder.
"""

import argparse
import json
import sys

from PIL import Image
from tqdm import tqdm

from jaxseg.arguments import expanded
from jaxseg.config.command import parse_command_line, run_command
from jaxseg.data import make_source
from jaxseg.data.transforms import resize_image, resize_label
from jaxseg.errors import ConfigError


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return run_command(lambda: _write(sys.argv[1:] if argv is None else argv))


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write, new")
    parser.add_argument("--size", default="", metavar="HxW", help="height and width of the written images")


def _write(argv: list[str]) -> int:
    options, config = parse_command_line(argv, "python benchmarks/as_folder.py", __doc__, _add_options, workdir=False)
    out = expanded(options.out)
    if out.exists():
        raise ConfigError(f"--out {out} exists already; give a folder that does not.")
    size = tuple(int(side) for side in options.size.split("x")) if options.size else None
    for split in (config.data.train_split, config.data.val_split):
        source = make_source(config, split)
        for kind in ("images", "masks"):
            (out / split / kind).mkdir(parents=True)
        for index in tqdm(range(len(source)), desc=split):
            image, label = source[index]["image"], source[index]["label"]
            if size is not None:
                image, label = resize_image(image, size), resize_label(label, size)
            Image.fromarray(image).save(out / split / "images" / f"{index:05d}.png")
            Image.fromarray(label).save(out / split / "masks" / f"{index:05d}.png")
        (out / "classes.json").write_text(json.dumps({"classes": list(source.info.classes)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
