"""How regions are found in predictions, and the options of commands that say so."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.inference.regions.components import Connectivity, choose_classes
from jaxseg.inference.regions.find import Regions, find_regions
from jaxseg.inference.regions.split import require_scikit_image

OPTIONS = ("min_area", "connectivity", "fill_holes", "split_touching", "region_classes")


@dataclass(frozen=True)
class RegionSettings:
    """The arguments of `find_regions`.

    Attributes:
        only, connectivity, min_area, fill, split: see there.
    """

    only: tuple[int, ...]
    connectivity: Connectivity = 8
    min_area: int = 0
    fill: bool | int = False
    split: bool | float = False

    def find(self, classes: np.ndarray, probabilities: np.ndarray | None = None) -> Regions:
        """Returns the regions of u8[h,w]."""
        return find_regions(
            classes,
            probabilities,
            only=self.only,
            connectivity=self.connectivity,
            min_area=self.min_area,
            fill=self.fill,
            split=self.split,
        )


def add_options(parser: argparse.ArgumentParser, of: str) -> None:
    """Adds the options of regions; `of` is the option that they belong to."""
    parser.add_argument(
        "--min-area", metavar="N", type=int, help=f"of {of}: leave out components of fewer pixels (default 0)"
    )
    parser.add_argument(
        "--connectivity", type=int, choices=(4, 8), help=f"of {of}: pixels touch at edges (4), or corners too (8)"
    )
    parser.add_argument(
        "--fill-holes",
        metavar="N",
        nargs="?",
        type=int,
        const=True,
        help=f"of {of}: those of at most N pixels; without N all of them",
    )
    parser.add_argument(
        "--split-touching",
        metavar="DEPTH",
        nargs="?",
        type=float,
        const=True,
        help=f"of {of}: split regions at waists deeper than DEPTH pixels (default 1); needs scikit-image",
    )
    parser.add_argument(
        "--region-classes", metavar="NAMES", help=f"of {of}: classes, with commas (default: all but background)"
    )


def problem(options: argparse.Namespace, of: str, further: Sequence[str] = ()) -> str:
    """Returns what is wrong with the options; "" if nothing is.

    Args:
        options: of the command line.
        of: the option that they belong to, such as "--regions".
        further: the names of further options that belong to it.
    """
    given = [name for name in (*OPTIONS, *further) if getattr(options, name) is not None]
    if given and not getattr(options, of[2:].replace("-", "_")):
        return f"--{given[0].replace('_', '-')} belongs to {of}; give that too"
    if (options.min_area or 0) < 0:
        return f"--min-area must be at least 0, got {options.min_area}"
    if options.fill_holes is not None and options.fill_holes < 1:
        return f"--fill-holes must be at least 1, got {options.fill_holes}"
    if options.split_touching is not None and not options.split_touching > 0:
        return f"--split-touching must be above 0, got {options.split_touching}"
    return ""


def settings_of(names: Sequence[str], options: argparse.Namespace) -> RegionSettings:
    """Returns what the options ask for; `names` are those of the classes.

    Raises:
        ConfigError: for a name that is no class, or if scikit-image is needed and not installed.
    """
    chosen = None if options.region_classes is None else [n.strip() for n in options.region_classes.split(",")]
    try:
        only = choose_classes(names, chosen)
    except ArgumentError as error:
        raise ConfigError(f"--region-classes: {error}") from error
    if options.split_touching is not None:
        require_scikit_image()
    return RegionSettings(
        only,
        connectivity=options.connectivity or 8,
        min_area=options.min_area or 0,
        fill=options.fill_holes or False,
        split=options.split_touching or False,
    )
