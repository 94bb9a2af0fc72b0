"""Segments images of any size with one or several networks: whole or in tiles, in one view or averaged over several."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.arguments import check_value
from jaxseg.data.transforms import Size
from jaxseg.errors import ConfigError, OutOfMemoryError, counted
from jaxseg.inference import fitting
from jaxseg.inference import tiles as tiling
from jaxseg.inference.fitting import Images, Sums
from jaxseg.inference.folded import fold_run
from jaxseg.inference.networks import Member, Networks, Scores, Shares
from jaxseg.inference.placement import batch_devices, predictor_mesh
from jaxseg.inference.segment import Segmentation, launch, naming_image, require_image, segmentation
from jaxseg.inference.tiles import ArrayRaster, Blending, Block, Grid, Overlap, Raster, TilesLike
from jaxseg.inference.views import ONE_VIEW, Views, parse_views
from jaxseg.run.load import Run, single_runs
from jaxseg.types import PyTree


@dataclass(frozen=True)
class Tiling:
    """How large images are cut into tiles.

    Attributes:
        tiles: (y, x) of a tile; "auto": an image is segmented whole where it fits into memory, and else in tiles of a
            chosen size; None: always whole.
        overlap: the share of a tile's side that it has in common with the next, in [0, 1).
        blending: how overlapping tiles are averaged, see `tiles.make_grid`.
        dtype: what their scores are added in, "float32" or "float16".
        memory: the bytes that prediction may take; None: what is free.
    """

    tiles: Size | Literal["auto"] | None = None
    overlap: float = 0.5
    blending: Blending = "gaussian"
    dtype: Literal["float32", "float16"] = "float32"
    memory: int | None = None

    def __post_init__(self) -> None:
        check_value("overlap", self.overlap, Overlap)
        check_value("blending", self.blending, Blending)


@dataclass(frozen=True, eq=False)
class Predictor:
    """Segments images; make it with `make_predictor`.

    Attributes:
        networks: the networks and the views.
        variables: of each network, on the devices.
        tiling: whether and how images are cut into tiles.
        names: of the runs that the networks come from.
    """

    networks: Networks
    variables: tuple[PyTree, ...]
    tiling: Tiling = Tiling()
    names: tuple[str, ...] = ()
    _strides: list[int] = field(default_factory=list, repr=False)

    def __call__(self, image: np.ndarray, probabilities: bool = False) -> Segmentation:
        """u8|u16|f32[h,w,c] -> the classes u8|u16[h,w] of an image, and with `probabilities` also those, f32[h,w,k]
        (of the likeliest alone, where the networks have a `top_k`).

        Raises:
            ValueError: if the number of channels differs from what the networks take.
            OutOfMemoryError: if the image does not fit into memory.
        """
        grid = self.grid_for(image, probabilities=probabilities)
        if grid is None:
            return launch(self.networks, self.variables, [image], probabilities, self.tiling.memory)()[0]
        (h, w), n, narrow = grid.size, self.networks.top_k, self.networks.label_type
        whole = Segmentation(np.empty((h, w), narrow), None)
        if probabilities:
            shares = np.empty((h, w, n or self.networks.num_classes), np.float16 if n else np.float32)
            whole = Segmentation(whole.classes, shares, np.empty((h, w, n), narrow) if n else None)
        for block, found, share in self.blocks(ArrayRaster(image), grid, probabilities):
            place = np.s_[block.top : block.top + found.shape[0], block.left : block.left + found.shape[1]]
            for full, part in zip(whole, segmentation(found, share)):
                if full is not None:
                    full[place] = part
        return whole

    def launch(self, images: Sequence[np.ndarray], probabilities: bool = False) -> Callable[[], list[Segmentation]]:
        """Starts to segment images of one `batch_key`; returns the function that waits for the results.

        The device works while the caller does something else: reads the next images, or writes those before. An image
        that is cut into tiles is segmented when the function is called.
        """
        if self.batch_key(images[0], probabilities) is None:
            return lambda: [self(image, probabilities) for image in images]
        wait = launch(self.networks, self.variables, self._filled_up(images), probabilities, self.tiling.memory)
        return lambda: wait()[: len(images)]

    def batch_key(self, image: np.ndarray, probabilities: bool = True) -> Any:
        """Returns what images that the networks see in one batch have in common; None: the image is cut into tiles."""
        if self.grid_for(image, probabilities=probabilities) is not None:
            return None
        size = (image.shape[0], image.shape[1])
        scales = self.networks.views.scales
        return image.dtype, tuple(m.network_size(size, scale) for m in self.networks.members for scale in scales)

    def _filled_up(self, images: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Returns the images, and the last again where the devices need as many to divide the batch."""
        devices = batch_devices(self.networks.mesh)
        return [*images, *[images[-1]] * (-len(images) % devices)] if len(images) > 1 else images

    def scores(self, image: np.ndarray) -> Scores:
        """u8|u16|f32[h,w,c] -> the scores of an image, on the device; see `Networks.scores`."""
        grid = self.grid_for(image)
        if grid is None:
            return fitting.scored(self.networks, self.variables, [image], memory=self.tiling.memory)
        blocks = list(self._blend(ArrayRaster(image), grid, self._sums(grid, True, copies=3)))
        rows: dict[int, list[jax.Array]] = {}
        for block in blocks:
            rows.setdefault(block.top, []).append(block.scores)
        values = jnp.concatenate([jnp.concatenate(parts, axis=1) for _, parts in sorted(rows.items())], axis=0)
        return Scores(values[None], self.networks.single, (grid.size,))

    def blocks(
        self,
        raster: Raster,
        grid: Grid,
        probabilities: bool = False,
        *,
        columns: int | None = None,
        done: int = 0,
        progress: Callable[[int], object] = lambda tiles: None,
    ) -> Iterator[tuple[Block, np.ndarray, Shares | None]]:
        """Yields (block, its classes u8[y,x], its `Shares` [y,x,...] or None) of an image that is read by parts.

        Args:
            raster: the image.
            grid: its tiles, from `grid_for`.
            probabilities: whether to give them.
            columns: the columns of a strip; None: as many as memory holds, see `Predictor.columns`.
            done, progress: see `tiles.blend`.
        """
        waiting: tuple[Block, Any, Any] | None = None
        with naming_image(f"a tile of an image of {raster.shape[0]}x{raster.shape[1]} pixels"):
            for block in self._blend(raster, grid, self._sums(grid, probabilities), columns, done, progress):
                size = (block.scores.shape[0], block.scores.shape[1])
                scores = Scores(block.scores[None], self.networks.single, (size,))
                launched = block, self.networks.classes(scores), self.networks.shares(scores) if probabilities else None
                if waiting is not None:
                    yield self._fetched(*waiting)
                waiting = launched
            if waiting is not None:
                yield self._fetched(*waiting)

    def _fetched(self, block: Block, found: Any, shares: Shares | None) -> tuple[Block, np.ndarray, Shares | None]:
        classes = np.asarray(found).astype(self.networks.label_type)[0]
        return block, classes, jax.tree.map(lambda x: np.asarray(x)[0], shares)

    def alone(self) -> list[tuple[str, "Predictor"]]:
        """Returns (name, predictor) of each network by itself in one view, with the same tiles."""
        networks = self.networks
        return [
            (
                name,
                dataclasses.replace(
                    self,
                    networks=dataclasses.replace(networks, members=(member,), views=ONE_VIEW),
                    variables=(variables,),
                    names=(name,),
                ),
            )
            for name, member, variables in zip(self.names, networks.members, self.variables)
        ]

    def __str__(self) -> str:
        tiles, views = self.tiling.tiles, self.networks.views
        parts = []
        if tiles is not None:
            size = tiles if tiles == "auto" else "x".join(map(str, tiles))
            parts.append(f"in tiles ({size}, overlap {self.tiling.overlap:g})")
        if len(views) > 1:
            parts.append(f"in {counted(len(views), 'view')} ({views})")
        if len(self.networks.members) > 1:
            parts.append(f"by {counted(len(self.networks.members), 'network')}")
        return ", ".join(parts) or "whole"

    def with_variables(self, *variables: PyTree) -> "Predictor":
        """Returns the predictor with other variables of its networks; compiled programs are shared."""
        return dataclasses.replace(self, variables=tuple(self.networks.place(each) for each in variables))

    def grid_for(self, image: np.ndarray | Raster, whole: bool = True, *, probabilities: bool = True) -> Grid | None:
        """Returns the tiles that an image is cut into; None: it is segmented whole, if `whole` allows it.

        Where memory decides, `probabilities` says whether these have to fit too.

        Raises:
            ValueError: if the number of channels differs from what the networks take.
            ArgumentError: if the tiles are smaller than the stride of a network, or the overlap is invalid.
        """
        shape = tuple(image.shape)
        require_image(shape, self.networks.channels)
        choice, size = self.tiling.tiles, (shape[0], shape[1])
        if whole and choice is None:
            return None
        planned = fitting.planned_memory(self.networks, self.tiling.memory)
        with naming_image(f"an image of {size[0]}x{size[1]} pixels"):
            seen = Images(1, size, image.dtype)
            if (
                choice == "auto"
                and whole
                and fitting.fits_whole(self.networks, self.variables, seen, probabilities, planned)
            ):
                return None
        resizing = [member.parts.config for member in self.networks.members if member.parts.config.data.fit == "resize"]
        if (choice is None or choice == "auto") and resizing:
            seen = "x".join(map(str, resizing[0].data.size))
            raise OutOfMemoryError(
                f"an image of {size[0]}x{size[1]} pixels does not fit into memory, and the network was trained on "
                f"whole images resized to {seen} (data.fit=resize); --tiles {seen} (tiles={seen} in Python) "
                "segments it in tiles of that size, in which objects have another scale than in training"
            )
        tile = choice
        if tile is None or tile == "auto":
            sums = Sums(self.tiling.dtype, probabilities)
            tile = fitting.auto_tile(self.networks, self.variables, image.dtype, sums, self.stride, planned)
        return tiling.make_grid(size, tile, self.tiling.overlap, self.stride, self.tiling.blending)

    def require_memory_of_tiles(self, image: Any, option: str = "--tiles ", agreed: bool = False) -> None:
        """Raises OutOfMemoryError unless memory holds the `scores` of an image of this shape and type, in tiles.

        `option` begins the words with which the error names tiles that fit; `agreed`: see `fitting.require_tiles`.
        """
        grid = self.grid_for(image)
        assert grid is not None
        sums, tiles = self._sums(grid, True, copies=3), self._tiles(image, grid, 1)
        fitting.require_tiles(self.networks, self.variables, tiles, sums, self.tiling.memory, option, agreed)

    @property
    def stride(self) -> int:
        """How many pixels of the image a pixel of the coarsest stage of the networks covers, in each direction."""
        if not self._strides:
            self._strides.append(fitting.stride_of_all(self.networks, self.variables))
        return self._strides[0]

    def columns(self, raster: Raster, grid: Grid) -> int:
        """Returns the columns of a strip (`tiles.strips`) of which memory holds the sums, for the classes alone."""
        tiles, sums = self._tiles(raster, grid, 1), self._sums(grid, False)
        planned = fitting.planned_memory(self.networks, self.tiling.memory)
        return fitting.strip_columns(self.networks, self.variables, tiles, sums, planned)

    def _tiles(self, raster: Raster, grid: Grid, count: int) -> Images:
        devices = batch_devices(self.networks.mesh)
        return Images(-(-count // devices) * devices, grid.tile, raster.dtype, whole=False)

    def _sums(self, grid: Grid, probabilities: bool, copies: int = 0) -> Sums:
        """Returns what the tiles of a grid are added to; `copies` is how often the scores of all pixels are kept."""
        kept = 4 * copies * self.networks.num_classes * math.prod(grid.size)
        return Sums(self.tiling.dtype, probabilities, kept)

    def _blend(
        self,
        raster: Raster,
        grid: Grid,
        sums: Sums,
        columns: int | None = None,
        done: int = 0,
        progress: Callable[[int], object] = lambda tiles: None,
    ) -> Iterator[Block]:
        networks, variables, memory = self.networks, self.variables, self.tiling.memory
        planned, one = fitting.planned_memory(networks, memory), self._tiles(raster, grid, 1)
        fitting.require_tiles(networks, variables, one, sums, memory)
        tiles = fitting.tiles_at_once(networks, variables, one, sums, len(grid.lefts), planned)
        if columns is None:
            columns = fitting.strip_columns(networks, variables, tiles, sums, planned)
        yield from tiling.blend(
            raster,
            lambda images: networks.scores(variables, images, False).values,
            grid,
            batch=tiles.count,
            most_columns=columns,
            dtype=self.tiling.dtype,
            done=done,
            progress=progress,
        )


def make_predictor(
    runs: Sequence[Run],
    *,
    tiles: TilesLike = None,
    overlap: float = 0.5,
    blending: Blending = "gaussian",
    dtype: Literal["float32", "float16"] = "float32",
    average: str | Views = ONE_VIEW,
    memory: int | None = None,
    space: int = 1,
) -> Predictor:
    """Returns a predictor with one or several runs, whose batch norms are folded into their convolutions.

    Args:
        runs: from `load_run`; of several the probabilities are averaged.
        tiles: "auto", (y, x), "256x512", 256, or None for whole images; see `Tiling`.
        overlap, blending, dtype, memory: see `Tiling`.
        average: the views of an image whose probabilities are averaged, see `views.parse_views`.
        space: the devices that share the rows of each image, which is then segmented whole.

    Raises:
        ArgumentError: for an invalid value.
        ConfigError: if the classes of the runs differ, or for a `space` above the number of devices or with tiles.
    """
    runs = single_runs(runs)
    require_same_classes(runs)
    views = parse_views(average) if isinstance(average, str) else average
    choice = Tiling(tiling.parse_tiles(tiles), overlap, blending, dtype, memory)
    folds = [fold_run(run) for run in runs]
    members = tuple(Member(run.parts, model) for run, (model, _) in zip(runs, folds))
    networks = Networks(members, views, predictor_mesh(choice.tiles is not None, space))
    variables = tuple(networks.place(state.variables) for _, state in folds)
    names = tuple(str(run.workdir) for run in runs)
    return Predictor(networks, variables, choice, names)


def require_same_classes(runs: Sequence[Run]) -> None:
    """Raises ConfigError unless all runs have the same classes, in the same order."""
    first = runs[0]
    for run in runs[1:]:
        if run.classes != first.classes:
            differing = sorted(set(run.classes) ^ set(first.classes))
            what = f"such as {differing[0]!r}" if differing else "in another order"
            raise ConfigError(
                f"Runs are averaged if they have the same classes: {run.workdir} has "
                f"{counted(len(run.classes), 'class')} and {first.workdir} {len(first.classes)}, {what}."
            )
