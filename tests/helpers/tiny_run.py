"""A workdir as training leaves it, made in a second: a tiny network with random parameters, never trained."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxseg.build import build_parts
from jaxseg.config import ConfigDict, default_config, flatten, update
from jaxseg.data import make_source
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.workdir import data_record, prepare_workdir
from jaxseg.state import TrainState

TINY = {"widths": (4,), "hidden": 8, "hidden_kernel": 3, "dropout": 0.0}


def tiny_config(**values: Any) -> ConfigDict:
    """Returns the configuration of a tiny `cnn` on 16x16 shapes; `values` are dotted keys with `__` for the dot."""
    config = default_config()
    update(config, model__name="cnn", model__args=TINY, data__size=(16, 16), data__shapes_train=4, data__shapes_val=5)
    update(config, eval__batch_size=4, **values)
    return config


def short_config(**values: Any) -> ConfigDict:
    """Returns the configuration of 4 steps of 8 images, scored and saved twice; `values` as in `tiny_config`."""
    config = tiny_config(
        steps=4,
        batch_size=8,
        data__shapes_train=8,
        eval__every=2,
        checkpoint__every=2,
        log__every=1,
        log__images=0,
        log__tensorboard=False,
        ema__decay=0.9,
    )
    update(config, eval__batch_size=8, **values)
    return config


def tiny_state(config: ConfigDict, num_classes: int, seed: int) -> TrainState:
    """Returns a state whose predictions hold several classes.

    It is one compiled program for each network and optimiser: a state made operation by operation is many small ones.
    """
    apart = ("data.dir", "data.shapes_", "eval.", "log.", "checkpoint.", "seed", "steps")
    form = repr({key: value for key, value in flatten(config).items() if not key.startswith(apart)}), num_classes
    if form not in _SHAKEN:
        _SHAKEN[form] = jax.jit(functools.partial(_shaken, build_parts(config, num_classes).init))
    return _SHAKEN[form](seed)


_SHAKEN: dict[tuple[str, int], Callable[[int], TrainState]] = {}


def _shaken(init: Callable[[jax.Array], TrainState], seed: jax.Array) -> TrainState:
    state = init(jax.random.key(seed))
    keys = iter(jax.random.split(jax.random.key(seed + 1), 200))

    def shake(tree: Any) -> Any:
        return jax.tree.map(lambda x: x + 0.5 * jax.random.normal(next(keys), x.shape), tree)

    stats = jax.tree.map(lambda x: jnp.abs(x) + 0.3, shake(state.batch_stats))
    ema = None if state.ema_params is None else shake(state.params)
    return state.replace(params=shake(state.params), batch_stats=stats, ema_params=ema)


def make_run(workdir: Path, config: ConfigDict, saved: dict[int, float | None] | None = None) -> Path:
    """Writes config.json, data.json and one checkpoint for each {step: validation mIoU or None}; returns `workdir`."""
    prepare_workdir(workdir, config)
    info = make_source(config, config.data.train_split).info
    num_classes = config.model.num_classes or len(info.classes)
    data_record(
        workdir,
        classes=info.classes,
        colors=info.colors,
        num_classes=num_classes,
        values=info.values,
        color_masks=info.color_masks,
        weigh=lambda: None,
    )
    with Checkpoints(workdir / "checkpoints", keep=3) as checkpoints:
        for step, mean_iou in (saved or {10: 0.5}).items():
            state = tiny_state(config, num_classes, seed=step).replace(step=jnp.int32(step))
            checkpoints.save(step, state, {}, None if mean_iou is None else {"mean_iou": mean_iou}, wait=True)
    return workdir


def make_folder(directory: Path, sizes: list[tuple[int, int]], classes: int = 3, split: str = "val") -> Path:
    """Writes `directory`/SPLIT/images and masks with one random image of each size; every class is in the first."""
    rng = np.random.default_rng(len(sizes))
    for kind in ("images", "masks"):
        (directory / split / kind).mkdir(parents=True, exist_ok=True)
    for i, (h, w) in enumerate(sizes):
        mask = np.repeat(np.repeat(rng.integers(0, classes, (h // 4 + 1, w // 4 + 1)), 4, 0), 4, 1)[:h, :w]
        mask.flat[: classes if i == 0 else 0] = np.arange(classes)
        mask.flat[-1] = 255 if i else mask.flat[-1]
        image = np.clip(mask[..., None] * 60 + rng.integers(0, 80, (h, w, 3)), 0, 255)
        Image.fromarray(image.astype(np.uint8)).save(directory / split / "images" / f"{i}.png")
        Image.fromarray(mask.astype(np.uint8)).save(directory / split / "masks" / f"{i}.png")
    return directory
