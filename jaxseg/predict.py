"""Segments images with a trained network.

    python -m jaxseg.predict --workdir DIR IMAGES... [--out preds/] [--probabilities] [--which best|last]

IMAGES are files, folders and globs. Each image gives, at its own size and upright as its EXIF tag says, NAME.png (class
indices, shown in the colours of the classes by its palette), NAME-overlay.png (those colours laid over the image) and
with --probabilities NAME.npz: `probabilities` f32[h,w,k] (k is 1, that of class 1, for a binary network) and `classes`.
"""

import argparse
import difflib
import glob
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from tqdm import tqdm

from jaxseg import compiler, pictures
from jaxseg.config.command import run_command
from jaxseg.data.images import SUFFIXES, read_image
from jaxseg.errors import ConfigError, DataError
from jaxseg.files import write_whole
from jaxseg.inference.segment import Segmentation, make_segmenter
from jaxseg.run.load import WHICH, Run, load_run


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 1 where an image failed or nothing could be done."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxseg.predict", description="Segment images with a trained network.", allow_abbrev=False
    )
    parser.add_argument("--workdir", metavar="DIR", required=True, help="the workdir of the training run")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help="files, folders and globs")
    parser.add_argument("--out", metavar="DIR", default="preds", help="where the pictures are written (default preds)")
    parser.add_argument("--probabilities", action="store_true", help="also write NAME.npz with those of every class")
    parser.add_argument("--which", choices=WHICH, default="best", help="checkpoint: best by validation mIoU, or last")
    options = parser.parse_intermixed_args(argv)
    return run_command(lambda: _predict(options))


def _predict(options: argparse.Namespace) -> int:
    out = Path(options.out)
    paths, problems = find_images(options.images)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not paths:
        return 1
    names = name_outputs(paths, out)
    for path, name in names.items():
        if name != path.stem:
            print(f"{path} gives {name}.png, since another image is named {path.stem}.")
    run = load_run(options.workdir, options.which)
    compiler.keep_programs(run.config.compile.cache)
    failed = predict(run, names, out, options.probabilities)
    done = len(paths) - failed
    print(f"{done} of {len(paths)} images segmented by {run.config.model.name} after {run.step} steps.")
    if done:
        print(f"classes:       {out / 'NAME.png'} (class indices, coloured by a palette)")
        print(f"overlays:      {out / 'NAME-overlay.png'}")
    if done and options.probabilities:
        print(f"probabilities: {out / 'NAME.npz'}")
    return 1 if failed or problems else 0


def predict(run: Run, names: dict[Path, str], out: Path, probabilities: bool = False) -> int:
    """Segments images and writes the pictures of each; says which could not be read, and returns how many.

    Args:
        run: from `load_run`.
        names: {image: the NAME of its outputs}, from `name_outputs`.
        out: where they go; made if need be.
        probabilities: also write NAME.npz.

    Raises:
        ConfigError: if `out` cannot be written.
    """
    segment, failed = make_segmenter(run.parts), 0
    variables = jax.device_put(run.variables)
    for path, name in tqdm(names.items(), desc="predict", unit="image", disable=None):
        try:
            image = read_image(path, run.config.data.channels)
            result = segment(variables, image, probabilities)
        except (DataError, MemoryError) as error:
            failed += 1
            text = str(error) if isinstance(error, DataError) else f"{path} cannot be segmented: {error}."
            tqdm.write(f"error: {text}", file=sys.stderr)
        else:
            _write_outputs(run, image, result, out, name)
    return failed


def find_images(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Returns (the images that files, folders and globs name, each once, and a sentence for each that names none).

    A folder stands for the image files right in it, a glob for the image files that it matches; `**` reaches into
    folders.
    """
    found: dict[Path, Path] = {}
    problems = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            paths = [p for p in path.iterdir() if _is_image(p)]
            problem = f"The folder {word} has no images ({', '.join(SUFFIXES)}) right in it."
        elif path.exists() or not glob.has_magic(word):
            paths = [path] if path.exists() else []
            problem = f"There is no file {word}.{_nearest_file(path)}"
        else:
            paths = [p for p in map(Path, glob.glob(word, recursive=True)) if _is_image(p)]
            problem = f"The glob {word!r} matches no images ({', '.join(SUFFIXES)})."
        if not paths:
            problems.append(problem)
        for p in sorted(paths):
            found.setdefault(p.resolve(), p)
    return list(found.values()), problems


def name_outputs(paths: Sequence[Path], out: Path) -> dict[Path, str]:
    """Returns {image: NAME}: its stem, or STEM-2, STEM-3, ... where another image's outputs have that name already.

    Raises:
        ConfigError: if an output would take the place of an image to segment.
    """
    inputs = {path.resolve() for path in paths}
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        name, number = path.stem, 1
        while any(file.lower() in taken for file in _files(name)):
            number += 1
            name = f"{path.stem}-{number}"
        for file in _files(name):
            if (out / file).resolve() in inputs:
                raise ConfigError(f"The output {out / file} would replace an image to segment; give another --out.")
            taken.add(file.lower())
        names[path] = name
    return names


def _files(name: str) -> tuple[str, str, str]:
    return f"{name}.png", f"{name}-overlay.png", f"{name}.npz"


def _write_outputs(run: Run, image: np.ndarray, result: Segmentation, out: Path, name: str) -> None:
    """Writes the pictures of one image, each whole or not at all."""
    classes_file, overlay_file, probabilities_file = (out / file for file in _files(name))
    indices = Image.fromarray(result.classes, "P")
    indices.putpalette(np.asarray(run.colors, np.uint8).tobytes())
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(classes_file, lambda file: indices.save(file, format="PNG"))
        pictures.save_image(pictures.overlay(image, result.classes, run.colors), overlay_file)
        if result.probabilities is not None:
            arrays = {"probabilities": result.probabilities, "classes": np.array(run.classes)}
            write_whole(probabilities_file, lambda file: np.savez(file, **arrays))
    except OSError as error:
        raise ConfigError(f"The pictures of {name} cannot be written to {out}: {error.strerror or error}.") from error


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _nearest_file(path: Path) -> str:
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.75)
    return f" Did you mean {path.parent / near[0]}?" if near else ""


if __name__ == "__main__":
    sys.exit(main())
