"""Which images a person should look at first: one pass over them, one at a time, and the order that comes out."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import numpy as np
from tqdm import tqdm

from jaxseg.data.images import read_image
from jaxseg.errors import ArgumentError, DataError, OutOfMemoryError
from jaxseg.explain.stages import default_layer, layer_shapes
from jaxseg.inference.last_layer import last_layer
from jaxseg.inference.networks import Member
from jaxseg.inference.predictor import Predictor
from jaxseg.inference.temperature import ScaledModel
from jaxseg.inference.uncertainty import make_drawing, member_predictors
from jaxseg.propose import criteria
from jaxseg.propose.embeddings import gradients, pooled_features
from jaxseg.run.load import Run

Order: TypeAlias = Literal["entropy", "margin", "mutual_information", "core_set", "badge", "random"]
ORDERS: tuple[Order, ...] = get_args(Order)
DRAWS = 20


class Ranked(NamedTuple):
    """An image of the order.

    Attributes:
        path: the file.
        score: what the order says; None for random, and for the first of a core-set or BADGE without centres.
    """

    path: Path
    score: float | None


@dataclass(frozen=True, eq=False)
class Embedder:
    """Computes the row of an image for core_set or badge with the network of a run; see `embeddings`.

    An image that the predictor cuts into tiles has the mean of their rows.

    Attributes:
        run: the run.
        predictor: says whether an image is cut into tiles.
        order: "core_set" or "badge".
    """

    run: Run
    predictor: Predictor
    order: Order
    _layers: dict[str, str] = field(default_factory=dict, repr=False)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """u8|u16|f32[h,w,c] -> f32[d]."""
        grid = self.predictor.grid_for(image)
        if grid is None:
            return self._row(image, whole=True)
        (y, x), places = grid.tile, [(top, left) for top in grid.tops for left in grid.lefts]
        rows = [self._row(image[top : top + y, left : left + x], whole=False) for top, left in places]
        return np.stack(rows).mean(0)

    def _row(self, image: np.ndarray, whole: bool) -> np.ndarray:
        run = self.run
        seen, (h, w) = Member(run.parts, run.model).fitted(image, 1.0, whole)
        prepared = run.parts.prepare(jax.numpy.asarray(seen[None]))
        shape = jax.ShapeDtypeStruct(prepared.shape, prepared.dtype)
        if self.order == "core_set":
            layer = self._layer(lambda: default_layer(layer_shapes(run.model, run.variables, shape)))
            return np.asarray(pooled_features(run.model, layer, run.variables, prepared)[0])
        layer = self._layer(lambda: last_layer(run.model, run.variables, shape))
        weights = np.zeros((1, *seen.shape[:2]), np.float32)
        weights[:, :h, :w] = 1 / (h * w)  # what extends the image has no weight
        sigmoids = run.parts.loss.one_vs_rest
        return np.asarray(gradients(run.model, layer, run.variables, prepared, weights, sigmoids)[0])

    def _layer(self, find: Callable[[], str]) -> str:
        if self.order not in self._layers:
            self._layers[self.order] = find()
        return self._layers[self.order]


def rank(
    paths: Sequence[Path],
    runs: Sequence[Run],
    predictor: Predictor,
    order: Order,
    *,
    number: int | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    labelled: Iterable[Path | np.ndarray] = (),
    fail: Callable[[str], object] = lambda sentence: None,
) -> list[Ranked]:
    """Returns the images in the order of what a look is worth, the most first.

    Args:
        paths: the images.
        runs: one run, or an ensemble.
        predictor: how they see images; see `inference.make_predictor`.
        order: "entropy", "margin" and "mutual_information" (of the runs and views, or where there is one alone of
            `draws` draws of its dropout) are the scores of `criteria`; "core_set" and "badge" choose images that differ
            from each other and from those that are labelled, by the network of the first run; "random".
        number: how many are returned; None: all.
        seed: of random, badge and the draws.
        draws: of dropout, for mutual_information.
        labelled: images that have labels already, for core_set and badge.
        fail: called with a sentence for each image that cannot be read; it is left out.

    Raises:
        ArgumentError: for an unknown order.
        ConfigError: if mutual_information has one network without dropout and one view.
    """
    if order not in ORDERS:
        raise ArgumentError(f"An order is one of {', '.join(ORDERS)}, got {order!r}.")
    count = len(paths) if number is None else min(number, len(paths))
    if order == "random":
        places = np.random.default_rng(seed).permutation(len(paths))[:count]
        return [Ranked(paths[i], None) for i in places]
    data = runs[0].config.data
    read = functools.partial(read_image, channels=data.channels, limits=data.range)
    score = Embedder(runs[0], predictor, order) if order in ("core_set", "badge") else _score(runs, predictor, order)
    if order == "mutual_information" and predictor.networks.single:
        score = _by_dropout(runs[0], predictor, seed, draws)
    found = list(_read(paths, read, score, f"order by {order}", fail))
    if order not in ("core_set", "badge"):
        ranked = sorted(found, key=lambda pair: -pair[1])  # of equal scores the first stays first
        return [Ranked(path, float(value)) for path, value in ranked[:count]]
    if not found:
        return []
    centres = [row for _, row in _read(labelled, read, score, "labelled images", fail)]
    rows, count = np.stack([row for _, row in found]), min(count, len(found))
    given = np.stack(centres) if centres else None
    chosen = criteria.core_set(rows, count, given) if order == "core_set" else criteria.badge(rows, count, seed, given)
    values = [None if np.isnan(value) else float(value) for value in chosen.distances]
    return [Ranked(found[i][0], value) for i, value in zip(chosen.indices, values)]


def _score(runs: Sequence[Run], predictor: Predictor, order: Order) -> Callable[[np.ndarray], float]:
    sigmoids = predictor.networks.one_vs_rest
    if order == "mutual_information":
        parts = member_predictors(predictor)
        return lambda image: criteria.mutual_information(
            (np.asarray(part(image, True).probabilities) for part in parts), one_vs_rest=sigmoids
        )
    of_image = {"entropy": criteria.entropy, "margin": criteria.margin}[order]
    return lambda image: of_image(np.asarray(predictor(image, True).probabilities), one_vs_rest=sigmoids)


def _by_dropout(run: Run, predictor: Predictor, seed: int, draws: int) -> Callable[[np.ndarray], float]:
    model = predictor.networks.members[0].model
    scale = model.temperature if isinstance(model, ScaledModel) else 1.0
    draw = make_drawing(run, tiling=predictor.tiling, temperature=scale)
    keys = [jax.random.fold_in(jax.random.key(seed), i) for i in range(draws)]
    sigmoids = predictor.networks.one_vs_rest
    return lambda image: criteria.mutual_information((draw(image, key) for key in keys), one_vs_rest=sigmoids)


def _read(
    images: Iterable[Path | np.ndarray],
    read: Callable[[Path], np.ndarray],
    score: Callable[[np.ndarray], Any],
    what: str,
    fail: Callable[[str], object],
) -> Iterator[tuple[Any, Any]]:
    """Yields (image or its path, score) of the images that can be read, with a bar of progress."""
    for given in tqdm(images, desc=what, unit="image", disable=None):
        try:
            image = given if isinstance(given, np.ndarray) else read(given)
            value = score(image)
        except DataError as error:
            fail(str(error))
        except OutOfMemoryError as error:
            fail(f"{given if isinstance(given, Path) else 'An image'} cannot be segmented: {error}.")
        else:
            yield given, value
