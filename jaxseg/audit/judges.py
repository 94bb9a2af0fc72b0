"""The runs that judge the labels of an image: those that were not trained on it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from jaxseg.audit.gradients import gradient_norms
from jaxseg.audit.scores import all_classes
from jaxseg.config import ConfigDict, held_out_group, set_key
from jaxseg.data import make_source
from jaxseg.data.base import Source, require_bytes
from jaxseg.data.folds import Folds, folds_of
from jaxseg.data.sources import split_of_data
from jaxseg.data.transforms import fill_up, pad_to, resize_image, resize_label
from jaxseg.errors import ConfigError
from jaxseg.inference.last_layer import last_layer
from jaxseg.inference.predictor import Predictor
from jaxseg.run.load import Run
from jaxseg.types import IGNORE

_SAME = ("source", "train_split", "val_fraction", "division")


@dataclass(frozen=True, eq=False)
class Judges:
    """The runs, and which of them may judge an image.

    Attributes:
        runs: the runs.
        predictor: of all of them.
        folds: what each run was trained without; () if all of them judge every image.
    """

    runs: tuple[Run, ...]
    predictor: Predictor
    folds: tuple[Folds, ...]
    _layers: dict[int, str] = field(default_factory=dict, repr=False)

    def of(self, name: str) -> tuple[int, ...]:
        """Returns the places of the runs that judge an image; () if all were trained on it and others not."""
        if not self.folds:
            return tuple(range(len(self.runs)))
        return tuple(i for i, each in enumerate(self.folds) if each.number(name) == each.fold)

    def probabilities(self, image: np.ndarray, judges: Sequence[int]) -> np.ndarray:
        """Returns the mean probabilities f32[h,w,k] of some of the runs, k of at least 2, that sum to 1."""
        whole = self.predictor
        members = tuple(whole.networks.members[i] for i in judges)
        networks = dataclasses.replace(whole.networks, members=members)  # the compiled programs are shared
        chosen = dataclasses.replace(whole, networks=networks, variables=tuple(whole.variables[i] for i in judges))
        shares = chosen(image, True).probabilities
        assert shares is not None
        return all_classes(shares)

    def gradient(self, image: np.ndarray, label: np.ndarray, judges: Sequence[int]) -> float:
        """Returns the mean over runs of the norm of the gradient of the image's mean loss in the last layer.

        Image and label have the size that the network sees. It is NaN where the image is cut into tiles, and where no
        pixel is labelled.
        """
        if self.predictor.grid_for(image) is not None or (label == IGNORE).all():
            return float("nan")
        return float(np.mean([self._gradient(i, image, label) for i in judges]))

    def _gradient(self, judge: int, image: np.ndarray, label: np.ndarray) -> float:
        run = self.runs[judge]
        data, multiple = run.config.data, run.config.eval.multiple
        if data.fit == "resize":
            image, label = resize_image(image, tuple(data.size)), resize_label(label, tuple(data.size))
        else:
            h, w = (-(-side // multiple) * multiple for side in label.shape)
            image, label = fill_up(image, (h, w)), pad_to(label, (h, w), IGNORE)
        seen = run.parts.prepare(jax.numpy.asarray(image[None]))
        if judge not in self._layers:
            self._layers[judge] = last_layer(run.model, run.variables, seen)
        weights = np.full((1, *label.shape), 1 / max(1, int((label != IGNORE).sum())), np.float32)
        layer, sigmoids = self._layers[judge], run.parts.loss.one_vs_rest
        return float(gradient_norms(run.model, layer, run.variables, seen, label, weights, sigmoids)[0])


def make_judges(runs: Sequence[Run], predictor: Predictor, split: str) -> Judges:
    """Returns the judges of a split.

    On the split that the runs were trained on, runs with a `data.fold` judge the images of that fold. Without one, all
    runs judge all images, though they were trained on them. Other splits are judged by all runs.

    Raises:
        ConfigError: if some runs have a fold and some have none, or the runs divide the data in other ways.
    """
    first = runs[0].config.data
    for run in runs[1:]:
        for key in _SAME:
            if run.config.data[key] != first[key]:
                raise ConfigError(
                    f"The runs of an audit have the same data: {run.workdir} has data.{key}={run.config.data[key]}, "
                    f"and {runs[0].workdir} {first[key]}."
                )
        if held_out_group(run.config) != held_out_group(runs[0].config):
            raise ConfigError(
                f"The runs of an audit have the same data: data.val_fraction keeps other groups whole in {run.workdir} "
                f"than in {runs[0].workdir}."
            )
    texts = [run.config.data.fold for run in runs]
    if split_of_data(runs[0].config, split) != first.train_split or not any(texts):
        return Judges(tuple(runs), predictor, ())
    if not all(texts):
        run = runs[texts.index("")]
        raise ConfigError(
            f"{run.workdir} was trained on all images, and others without a fold of them; give runs that all have a "
            "data.fold, or one run."
        )
    return Judges(tuple(runs), predictor, tuple(folds_of(run.config.data) for run in runs))


def data_of(runs: Sequence[Run], split: str) -> tuple[ConfigDict, Source]:
    """Returns the configuration of the data, and all images of the split: those of all folds."""
    require_bytes("An audit", len(runs[0].classes))
    config = runs[0].config.copy_and_resolve_references()
    changes: dict[str, Any] = {
        "data.fold": "",
        "data.weaken": "",
        "data.classes": runs[0].classes,
        "data.unlabelled": "",
    }
    for key, value in changes.items():
        set_key(config, key, value)
    return config, make_source(config, split_of_data(runs[0].config, split))
