"""Post-training quantisation: a trained run in whole numbers, as a workdir that is used like any other."""

import dataclasses
import functools
import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxseg.arguments import Count, Where, check_value
from jaxseg.config import ConfigDict, to_dict, update
from jaxseg.data import make_source
from jaxseg.data.sources import split_of_data, training_source
from jaxseg.data.transforms import fill_up, resize_image
from jaxseg.errors import ConfigError, DataError, naming_lack_of_memory
from jaxseg.inference.progress import each
from jaxseg.metrics import class_indices
from jaxseg.nn.quantisation import (
    RANGE,
    Quantisation,
    WithQuantisedInputs,
    quantised_kernels,
    with_fake_kernels,
    without_quantised_inputs,
)
from jaxseg.pieces import make_quantisation
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.data import train_batches
from jaxseg.run.load import Run, require_single
from jaxseg.run.new_workdir import free_workdir, written_whole
from jaxseg.run.quantised import FILE, quantised_state, require_float
from jaxseg.run.workdir import CHECKPOINTS, CONFIG_FILE, INFO_FILE, write_json
from jaxseg.types import PyTree

Ranges: TypeAlias = Literal["min-max", "average", "percentile"]
Shown: TypeAlias = Literal["evaluation", "training"]
# Rule -> (share of an image's values in its range, whether the ranges of images are averaged or united).
_RULES: dict[str, tuple[float, bool]] = {"min-max": (1.0, False), "average": (1.0, True), "percentile": (0.9999, True)}
CALIBRATION = 32
"""Images whose values set the ranges, as of `jaxseg.export --dtype int8`."""
_Bits = Annotated[int, Where(lambda v: 2 <= v <= 8, instead="a whole number of bits from 2 to 8")]


@dataclasses.dataclass(frozen=True)
class Quantised:
    """A quantised network that `quantise_run` has written.

    Attributes:
        workdir: its workdir.
        quantisation: what has few bits.
        kernels: how many kernels are whole numbers.
        ranges: where the ranges of activations come from: "learned", "calibrated" or "none".
        images: how many images they were calibrated with.
        bytes: size of the checkpoint on disk.
        float_bytes: bytes of the network's numbers in float32.
        shown: how the network saw these images, "evaluation" or "training".
        rule: how the ranges followed from theirs: "average", "min-max" or "percentile".
        split: the split of these images.
    """

    workdir: Path
    quantisation: Quantisation
    kernels: int
    ranges: str
    images: int
    bytes: int
    float_bytes: int
    shown: Shown = "evaluation"
    rule: Ranges = "average"
    split: str = "train"


def quantise_run(
    run: Run,
    out: str | Path,
    *,
    weights: int | None = None,
    activations: int | None = None,
    skip: Sequence[str] | None = None,
    images: int = CALIBRATION,
    split: str = "train",
    ranges: Ranges = "average",
    shown: Shown = "evaluation",
) -> Quantised:
    """Writes the network of a run in whole numbers to a new workdir, which is loaded, scored and used like any run.

    Kernels are stored in whole numbers with a float32 scale for each output channel; biases, norms and embeddings stay
    float32. A run that was trained with `quantise.weights` keeps its bits, and its learned ranges if it has some.

    Args:
        run: from `load_run` or `load`.
        out: the new workdir, which must not exist or be empty.
        weights: bits of the kernels, 2 to 8; None: those of the training, or 8.
        activations: bits of what convolutions and dense layers read, 2 to 8; None: those of the training, or float32.
        skip: regular expressions of layers that stay in float32; None: those of the training, or none.
        images: how many images of the split, evenly chosen, set the ranges.
        split: "train", "val" or another split with images.
        ranges: "average": the mean over images of each image's least and greatest value; "min-max": the least and
            greatest value of all images; "percentile": as "average", of the middle 99.99 % of each image's values.
        shown: how the network sees these images: "evaluation": whole, as an evaluation does; "training": in the crops
            and colours of the training, of which `split` must be "train".

    Raises:
        ArgumentError: for an invalid argument.
        ConfigError: if the run is quantised already or was trained with other bits, its network makes images, a pattern
            of `skip` is found in no layer, or `out` cannot be written or holds something.
        DataError: if the data to calibrate with is missing or empty.
    """
    require_single(run, "A quantisation")
    require_float(run.workdir, "a quantisation")
    target = check_quantisation(out, weights, activations, images, ranges, split, shown)
    trained = make_quantisation(run.config)
    wanted = _settings(trained, weights, activations, skip)
    config = run.config.copy_and_resolve_references()
    skipped = tuple(wanted.skip)
    update(
        config,
        quantise__weights=wanted.weights,
        quantise__activations=wanted.activations,
        quantise__skip=skipped,
    )
    variables, origin, used = run.variables, "none", 0
    kernels = quantised_kernels(variables["params"], wanted)
    if wanted.activations and trained is not None and trained.activations:
        origin = "learned"
    elif wanted.activations:
        found, used = calibrated(run, wanted, split=split, images=images, ranges=ranges, shown=shown)
        variables, origin = {**variables, "batch_stats": found}, "calibrated"
    record = {
        "source": str(run.workdir.absolute()),
        "step": run.step,
        "which": run.which,
        "weights": wanted.weights,
        "activations": wanted.activations,
        "skip": list(skipped),
        "ranges": origin,
        "calibration": {"images": used, "split": split, "ranges": ranges, "shown": shown} if used else None,
    }
    _write(target, run, config, record, variables, wanted)
    numbers = sum(leaf.size for leaf in jax.tree.leaves(run.variables))
    size = sum(file.stat().st_size for file in (target / CHECKPOINTS).rglob("*") if file.is_file())
    return Quantised(target, wanted, len(kernels), origin, used, size, 4 * numbers, shown, ranges, split)


def check_quantisation(
    out: str | Path,
    weights: int | None,
    activations: int | None,
    images: int,
    ranges: str,
    split: str = "train",
    shown: str = "evaluation",
) -> Path:
    """Returns the workdir to write; raises the errors of `quantise_run` that need no run."""
    target = free_workdir(check_value("out", out, str | Path))
    for name, bits in (("weights", weights), ("activations", activations)):
        if bits is not None:
            check_value(name, bits, _Bits)
    check_value("images", images, Count)
    check_value("ranges", ranges, Ranges)
    if check_value("shown", shown, Shown) == "training" and split != "train":
        raise ConfigError(f"Images shown as in training are those of the split train, not of {split}; leave one out.")
    return target


def _settings(
    trained: Quantisation | None, weights: int | None, activations: int | None, skip: Sequence[str] | None
) -> Quantisation:
    if trained is None:
        return Quantisation(weights or 8, activations or 0, tuple(skip or ()))
    given = {"weights": weights, "activations": activations, "skip": None if skip is None else tuple(skip)}
    for name, value in given.items():
        had = getattr(trained, name)
        if value is not None and value != had and not (name == "activations" and had == 0):
            raise ConfigError(
                f"The run was trained with quantise.{name}={had!r}, and {name}={value!r} would lose what it learned; "
                f"leave {name} out."
            )
    return dataclasses.replace(trained, activations=trained.activations or activations or 0)


def calibrated(
    run: Run,
    quantisation: Quantisation,
    *,
    split: str = "train",
    images: int = CALIBRATION,
    ranges: Ranges = "average",
    shown: Shown = "evaluation",
) -> tuple[PyTree, int]:
    """Returns the statistics of a run with the range of what each layer reads, and the number of images seen.

    The arguments are those of `quantise_run`.

    Raises:
        DataError: if the data is missing or empty.
    """
    share, averaged = _RULES[ranges]
    network = without_quantised_inputs(run.model)
    model = WithQuantisedInputs(network, quantisation, observe=share)
    params = with_fake_kernels(run.variables["params"], quantisation)
    image = jax.ShapeDtypeStruct((1, *run.parts.image_shape), jnp.float32)
    shapes = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), image)["batch_stats"])
    unset = {path: jnp.zeros(2, jnp.float32) for path in shapes if path[-1] == RANGE}
    kept = {path: leaf for path, leaf in flatten_dict(run.variables["batch_stats"]).items() if path[-1] != RANGE}

    @jax.jit
    def seen(params: PyTree, image: jax.Array) -> dict[tuple[str, ...], jax.Array]:
        variables = {"params": params, "batch_stats": unflatten_dict({**kept, **unset})}
        _, changed = model.apply(variables, image, train=False, mutable=["batch_stats"])
        found: Any = flatten_dict(changed["batch_stats"])
        return {path: found[path] for path in unset}

    with naming_lack_of_memory("An image of the calibration", "calibrate with a split of smaller images"):
        inputs = _as_evaluated(run, split, images) if shown == "evaluation" else _as_trained(run, images)
        each = [jax.device_get(seen(params, image[None])) for image in inputs]

    def of_all(spans: np.ndarray) -> np.ndarray:  # f32[images,...,2]; units that share parameters have an axis more
        if averaged:
            return spans.mean(0, dtype=np.float64).astype(np.float32)
        return np.stack([spans[..., 0].min(0), spans[..., 1].max(0)], -1)

    found = {path: of_all(np.stack([spans[path] for spans in each])) for path in unset}
    statistics: Any = unflatten_dict({**kept, **found})
    return statistics, len(each)


def _as_trained(run: Run, count: int) -> Iterator[jax.Array]:
    """Yields network input f32[h,w,c] of the first images that training with the seed of the run reads, augmented."""
    augment, key = jax.jit(run.parts.augment), jax.random.key(run.config.seed)
    with train_batches(run.config, training_source(run.config)) as loader:
        examples = itertools.chain.from_iterable(map(_examples, loader))
        for i, (image, label) in enumerate(itertools.islice(examples, count)):
            yield augment(jax.random.fold_in(key, i), image, class_indices(label))[0]


def _examples(batch: Mapping[str, Any]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return zip(batch["image"], batch["label"])


def _as_evaluated(run: Run, split: str, count: int) -> Iterator[jax.Array]:
    """Yields network input f32[h,w,c] of images of a split, evenly chosen, as an evaluation in one piece shows them."""
    prepare = jax.jit(run.parts.prepare)
    for image in _some_images(run, split, count):
        yield prepare(image[None])[0]


def _some_images(run: Run, split: str, count: int) -> Iterator[np.ndarray]:
    """Yields [h,w,c] of images of a split, evenly chosen, as they are fitted for an evaluation."""
    config = run.config
    source = make_source(config, split_of_data(config, split))
    if not len(source):
        raise DataError(f"The split {split} has no image to calibrate with.")
    chosen = np.unique(np.linspace(0, len(source) - 1, count).astype(int))
    for i in each(list(chosen), f"ranges {split}"):
        image = source[int(i)]["image"]
        if config.data.fit == "resize":
            yield resize_image(image, tuple(config.data.size))
        else:
            multiple = config.eval.multiple
            h, w = (-(-side // multiple) * multiple for side in image.shape[:2])
            yield fill_up(image, (h, w))


def _write(
    target: Path, run: Run, config: ConfigDict, record: dict[str, Any], variables: PyTree, quantisation: Quantisation
) -> None:
    """Writes the workdir whole, or nothing."""
    state = jax.jit(functools.partial(quantised_state, quantisation=quantisation))(run.state.step, variables)
    with written_whole(target) as folder:
        write_json(folder / CONFIG_FILE, to_dict(config))
        shutil.copyfile(run.workdir / INFO_FILE, folder / INFO_FILE)
        with Checkpoints(folder / CHECKPOINTS, config=to_dict(config)) as checkpoints:
            checkpoints.save(run.step, state, wait=True)
        write_json(folder / FILE, record)
