"""How sure a trained network is of its prediction: Monte-Carlo dropout, ensembles, and whether it finds the errors.

Monte-Carlo dropout predicts an image several times, each time with another draw of the network's dropout and with the
running statistics of batch norm: Gal & Ghahramani, Dropout as a Bayesian Approximation, 2016. Networks that have
stochastic depth alone draw that, if they were trained with it.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from jaxseg import metrics
from jaxseg.data.images import read_image
from jaxseg.errors import ConfigError, counted
from jaxseg.inference.networks import Member, Networks
from jaxseg.inference.other_data import open_split
from jaxseg.inference.predictor import Predictor, Tiling
from jaxseg.inference.progress import each
from jaxseg.inference.segment import make_segmenter
from jaxseg.inference.temperature import ScaledModel
from jaxseg.inference.views import Views
from jaxseg.metrics import Uncertainty
from jaxseg.metrics.formatting import markdown_table
from jaxseg.metrics.selective import Selective
from jaxseg.metrics.uncertainty import SCORES, most_entropy
from jaxseg.nn import Dropout, StochasticDepth
from jaxseg.nn.dropout import MONTE_CARLO, MONTE_CARLO_DEPTH
from jaxseg.run.load import Run, require_one_class
from jaxseg.types import Key, PyTree

_KEY = "monte_carlo_key"  # beside the variables, so that a new key compiles nothing


class Random(NamedTuple):
    """The layers of a network whose output is drawn.

    Attributes:
        dropout: the paths of those of dropout with a rate above 0.
        depth: the paths of those of stochastic depth with a rate above 0.
    """

    dropout: tuple[str, ...]
    depth: tuple[str, ...]


def random_layers(run: Run) -> Random:
    """Returns the layers of dropout and stochastic depth of a run's network; it is traced, and nothing is computed."""
    found: dict[type, list[str]] = {Dropout: [], StochasticDepth: []}

    def see(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        layer = context.module
        if context.method_name == "__call__" and isinstance(layer, Dropout | StochasticDepth) and layer.rate > 0:
            found[type(layer)].append("/".join(layer.path))
        return call(*args, **kwargs)

    image = jax.ShapeDtypeStruct((1, *run.parts.image_shape), np.float32)
    with nn.intercept_methods(see):
        jax.eval_shape(lambda v, x: run.model.apply(v, x, train=False), jax.eval_shape(lambda: run.variables), image)
    return Random(tuple(found[Dropout]), tuple(found[StochasticDepth]))


@dataclasses.dataclass(frozen=True)
class MonteCarloModel:
    """A model in inference whose dropout draws from the key that its variables hold.

    Its batch norms are not folded into convolutions: dropout may lie between the two.

    Attributes:
        model: the model.
        streams: the streams of keys that are switched on.
    """

    model: nn.Module
    streams: tuple[str, ...]

    def apply(self, variables: Mapping[str, PyTree], image: jax.Array, **arguments: Any) -> Any:
        """f32[b,h,w,c] -> (logits, out)."""
        given = {name: value for name, value in variables.items() if name != _KEY}
        keys = {stream: jax.random.fold_in(variables[_KEY], i) for i, stream in enumerate(self.streams)}
        return self.model.apply(given, image, rngs=keys, **arguments)


def monte_carlo(run: Run, depth: bool | None = None) -> MonteCarloModel:
    """Returns the network of a run with its dropout switched on.

    Args:
        run: from `load_run`.
        depth: whether stochastic depth is drawn too; None: where the network has no dropout.

    Raises:
        ConfigError: if the network has no layer to draw.
    """
    layers = random_layers(run)
    depth = not layers.dropout if depth is None else depth
    streams = (MONTE_CARLO,) * bool(layers.dropout) + (MONTE_CARLO_DEPTH,) * bool(depth and layers.depth)
    if not streams:
        has_depth = " and its stochastic depth was left out" if layers.depth else " or stochastic depth"
        raise ConfigError(
            f"The network {run.config.model.name} in {run.workdir} has no dropout{has_depth}, so every draw would "
            "predict the same; train it with model.args.dropout (query_dropout of mask2former and eomt) above 0, or "
            "give several runs as an ensemble."
        )
    return MonteCarloModel(run.model, streams)


def make_drawing(
    run: Run, depth: bool | None = None, tiling: Tiling | None = None, temperature: float = 1.0
) -> Callable[[np.ndarray, Key], np.ndarray]:
    """Returns `draw(image u8|u16|f32[h,w,c], key)` -> probabilities f32[h,w,k] at the size of the image.

    The network is compiled once for each size of images. See `monte_carlo` for the other arguments and the errors.

    Args:
        run: from `load_run` or `load`.
        depth: see `monte_carlo`.
        tiling: how large images are cut into tiles, each of which has the same draw; None: they are not.
        temperature: what the logits are divided by.
    """
    model = ScaledModel(monte_carlo(run, depth), temperature)
    networks, variables = Networks((Member(run.parts, model),)), jax.device_put(run.variables)
    predictor = Predictor(networks, (), Tiling() if tiling is None else tiling)

    def draw(image: np.ndarray, key: Key) -> np.ndarray:
        with_key = dataclasses.replace(predictor, variables=({**variables, _KEY: key},))
        return np.asarray(with_key(image, True).probabilities)

    return draw


def member_predictors(predictor: Predictor) -> list[Predictor]:
    """Returns a predictor for each network and each view of one that averages them; they share compiled programs."""
    networks = predictor.networks
    return [
        dataclasses.replace(
            predictor,
            networks=dataclasses.replace(networks, members=(member,), views=Views((scale,), (flip,))),
            variables=(values,),
        )
        for member, values in zip(networks.members, predictor.variables)
        for scale in networks.views.scales
        for flip in networks.views.flips
    ]


def members(
    run: Run, image: np.ndarray | str | Path, count: int = 20, key: Key | int = 0, *, depth: bool | None = None
) -> Iterator[np.ndarray]:
    """Yields the probabilities f32[h,w,k] of `count` draws of Monte-Carlo dropout, at the size of the image.

    Draw i depends on the key and i alone. For many images `make_drawing` compiles the network once.

    Args:
        run: from `load_run` or `load`.
        image: a file, or u8|u16|f32[h,w,c] with the channels of the network.
        count: the number of draws, at least 1.
        key: a key of JAX, or a seed.
        depth: whether stochastic depth is drawn too; None: where the network has no dropout.

    Raises:
        ConfigError: if the network has no dropout and no stochastic depth, or `count` is below 1.
        DataError: if the file cannot be read.
        OutOfMemoryError: if the image is too large for the device.
    """
    if count < 1:
        raise ConfigError(f"Monte-Carlo dropout needs at least one draw, got {count}.")
    data = run.config.data
    pixels = read_image(image, data.channels, data.range) if isinstance(image, str | Path) else image
    return _draws(make_drawing(run, depth), pixels, count, _as_key(key))


def _draws(draw: Callable[..., np.ndarray], image: np.ndarray, count: int, key: Key) -> Iterator[np.ndarray]:
    return (draw(image, jax.random.fold_in(key, i)) for i in range(count))


def _as_key(key: Key | int) -> Key:
    return jax.random.key(key) if isinstance(key, int) else key


def combine(probabilities: Iterable[np.ndarray], *, one_vs_rest: bool = False) -> Uncertainty:
    """The uncertainty of members, each f32[h,w,k], as NumPy arrays; one member at a time is in memory.

    A member is one of `members`, a run of an ensemble (`run.predict(image, probabilities=True).probabilities`), or one
    view of the image (flipped, scaled) turned back.

    Args:
        probabilities: of each member.
        one_vs_rest: whether the runs were trained with one sigmoid for each class (`run.parts.loss.one_vs_rest`).

    Raises:
        ValueError: if there is no member.
    """
    total: Any = None
    for member in probabilities:
        sums = _sums_of(member, one_vs_rest)
        total = sums if total is None else _added(total, sums)
    if total is None:
        raise ValueError("The uncertainty needs the probabilities of at least one member.")
    return Uncertainty(*map(np.asarray, _maps_of(total, one_vs_rest)))


_added = jax.jit(lambda a, b: jax.tree.map(jax.numpy.add, a, b), donate_argnums=0)
_sums_of = jax.jit(lambda p, ovr: metrics.member_sums(p, one_vs_rest=ovr), static_argnums=1)
_maps_of = jax.jit(lambda sums, ovr: metrics.uncertainty(sums, one_vs_rest=ovr), static_argnums=1)


@dataclasses.dataclass(frozen=True, eq=False)
class UncertaintyScores:
    """How well each map of uncertainty finds the wrong pixels of a split; printed, it is a table.

    Attributes:
        split: the split.
        draws: the members of each image; 1 for the network as it is.
        images: how many images were scored.
        by_score: {name of the map: Selective}. The map "confidence" is 1 - the largest mean probability.
        confusion: i64[k,k] of the mean of the members, rows are the truth.
    """

    split: str
    draws: int
    images: int
    by_score: dict[str, Selective]
    confusion: np.ndarray

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("map", "AUROC", "AURC", "excess", "risk at 50 %", "at 80 %", "at 100 %")]
        for name, found in self.by_score.items():
            shares = (found.auroc, found.area, found.excess_area, *(found.risk_at(c) for c in (0.5, 0.8, 1.0)))
            rows.append((name.replace("_", " "), *("-" if np.isnan(s) else f"{100 * s:.2f}" for s in shares)))
        what = f"{counted(self.draws, 'draw')} of dropout" if self.draws > 1 else "the network as it is"
        miou = metrics.scores(self.confusion).mean_iou
        foot = f"{counted(self.images, 'image')} of split {self.split}, {what}, mIoU {100 * miou:.2f} %; in percent"
        return "\n".join([*markdown_table(rows), "", foot])

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers in the types of JSON."""
        scores = {name: metrics.selective_dict(found) for name, found in self.by_score.items()}
        return {"split": self.split, "draws": self.draws, "images": self.images, "scores": scores}


def score_uncertainty(
    run: Run, split: str = "val", draws: int = 20, key: Key | int = 0, *, depth: bool | None = None
) -> UncertaintyScores:
    """Returns how well the uncertainty of a run finds its errors on a split, each image at its native size.

    Args:
        run: from `load_run` or `load`.
        split: "train", "val" or "test"; see `inference.evaluate`.
        draws: the draws of dropout for each image; 0: the network as it is, whose entropy and confidence alone say
            something.
        key: a key of JAX, or a seed.
        depth: see `members`.

    Raises:
        ConfigError: if `draws` is above 0 and the network has nothing to draw.
        DataError: if the data is missing or empty, or its classes are not those of the run.
    """
    require_one_class(run, "A score of uncertainty")
    source = open_split(run, split)
    sigmoids, k = run.parts.loss.one_vs_rest, run.num_classes
    most = most_entropy(k, one_vs_rest=sigmoids)
    largest = dict.fromkeys(("entropy", "expected_entropy", "mutual_information"), most) | {
        "variation_ratio": 1.0,
        "variance": k / 4 if sigmoids else 1.0,
        "confidence": 1.0,
    }
    names = (*SCORES, "confidence") if draws else ("entropy", "confidence")
    draw = make_drawing(run, depth) if draws else _as_it_is(run)
    base = _as_key(key)
    totals: Any = None
    for i in each(range(len(source)), f"uncertainty {split}"):
        example = source[i]
        image, label = np.asarray(example["image"]), np.asarray(example["label"])
        found = combine(_draws(draw, image, max(draws, 1), jax.random.fold_in(base, i)), one_vs_rest=sigmoids)
        sums = jax.device_get(_selective_sums(found, label, tuple(largest.items()), names, max(k, 2)))
        sums = jax.tree.map(lambda x: x.astype(np.int64), sums)
        totals = sums if totals is None else jax.tree.map(np.add, totals, sums)
    by_score = {name: metrics.selective(totals[name]) for name in names}
    return UncertaintyScores(split, max(draws, 1), len(source), by_score, totals["confusion"])


def _as_it_is(run: Run) -> Callable[[np.ndarray, Key], np.ndarray]:
    """Returns `draw(image, key)` -> f32[h,w,k] that draws nothing."""
    segment, variables = make_segmenter(run.parts), jax.device_put(run.variables)
    return lambda image, key: np.asarray(segment(variables, image, True).probabilities)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _selective_sums(
    found: Uncertainty, label: Any, largest: tuple[tuple[str, float], ...], names: tuple[str, ...], classes: int
) -> dict[str, Any]:
    """The histograms of each map over the pixels of one image, and its confusion matrix."""
    label = metrics.class_indices(label)
    mean = found.mean
    predicted = (mean[..., 0] > 0.5).astype(label.dtype) if mean.shape[-1] == 1 else mean.argmax(-1)
    maps = {name: getattr(found, name) for name in SCORES} | {"confidence": 1.0 - found.confidence}
    most = dict(largest)
    sums: dict[str, Any] = {
        name: metrics.selective_stats(maps[name], predicted, label, largest=most[name], classes=classes)
        for name in names
    }
    return {**sums, "confusion": metrics.confusion_matrix(predicted, label, classes)}
