"""Draws an image and its mask under each augmentation, for docs/augmentation.md.

    python benchmarks/augmentations.py --data DIR --out docs/images/augmentations.png [--seed 3]

The first row is of the built-in shapes, the second of the folder DIR (images and masks, as `data.source=folder`). The
settings are stronger than usual, and of eight draws the one is shown that changes most, so that it can be seen, of
those that keep half of the pixels of objects, if there are some. Of windows the one with most pixels of objects is
shown, at the scale of the other pictures.
"""

import argparse
import io
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from jaxseg import build
from jaxseg.config import ConfigDict, default_config, update
from jaxseg.data import augment, make_source, transforms
from jaxseg.types import IGNORE

SIDE = 96
SETTINGS: dict[str, dict] = {
    "none": {},
    "flip_horizontal=1": {"flip_horizontal": 1.0},
    "flip_vertical=1": {"flip_vertical": 1.0},
    "zoom=(.6,1.6)": {"zoom": (0.6, 1.6)},
    "rotate=30": {"rotate": 30.0},
    "shear=.3": {"shear": 0.3},
    "perspective=.3": {"perspective": 0.3},
    "elastic=5": {"elastic": 5.0, "elastic_spacing": 24.0},
    "crop=(64,64)": {"crop": (64, 64)},
    "brightness=.4": {"brightness": 0.4},
    "contrast=.5": {"contrast": 0.5},
    "saturation=.9": {"saturation": 0.9},
    "hue=.3": {"hue": 0.3},
    "gamma=(.4,2.5)": {"gamma": (0.4, 2.5)},
    "blur=3": {"blur": 3.0},
    "low_resolution=.2": {"low_resolution": 0.2},
    "noise=.2": {"noise": 0.2},
    "jpeg=5": {"jpeg": 5},
    "erase=1": {"erase": 1.0},
    "cutmix=1": {"cutmix": 1.0},
    "classmix=1": {"classmix": 1.0},
    "copy_paste=1": {"copy_paste": 1.0},
    "mixup=1": {"mixup": 1.0, "mixup_alpha": 9.0},
    "rand_operations=3": {"rand_operations": 3, "rand_magnitude": 7.0},
}
COLUMNS = 12
DRAWS = 8


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DIR", help="a folder of images and masks")
    parser.add_argument("--out", required=True, metavar="FILE", help="the picture")
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args(argv)
    sources = [configured(), configured(data__source="folder", data__dir=options.data, data__fit="crop")]
    rows = -(-len(SETTINGS) // COLUMNS) * len(sources)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(1.25 * COLUMNS, 1.45 * rows), squeeze=False)
    for panel in axes.flat:
        panel.axis("off")
    for row, config in enumerate(sources):
        for number, (name, changes) in enumerate(SETTINGS.items()):
            panel = axes[len(sources) * (number // COLUMNS) + row, number % COLUMNS]
            panel.imshow(drawn(config, changes, options.seed), interpolation="nearest")
            panel.set(xlim=(-0.5, SIDE - 0.5), ylim=(SIDE - 0.5, -0.5))  # a window is smaller than its panel
            panel.set_title(name, fontsize=7, pad=2)
    figure.tight_layout(pad=0.2)
    whole = io.BytesIO()
    figure.savefig(whole, dpi=110)
    # Few colours take a quarter of the bytes.
    Image.open(whole).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(options.out, optimize=True)
    return 0


def configured(**changes: object) -> ConfigDict:
    config = default_config()
    update(config, data__size=(SIDE, SIDE), augment__flip_horizontal=0.0, **changes)
    return config


def drawn(config: ConfigDict, changes: dict, seed: int) -> np.ndarray:
    """Returns the first image of a pair under the changes, with the outlines of its classes in white."""
    source, rng = make_source(config, "train"), np.random.default_rng(seed)
    pair = [transforms.fit_example(source[index], (SIDE, SIDE), config.data.fit, rng) for index in (seed, seed + 1)]
    config = config.copy_and_resolve_references()
    update(config, **{f"augment__{name}": value for name, value in changes.items()})
    keys = jax.random.split(jax.random.key(seed), (DRAWS, 2))
    batch = {"image": np.stack([image for image, _ in pair]), "label": np.stack([label for _, label in pair])}
    parts = build.build_parts(config, max(2, len(source.info.classes)))
    teach = build.make_teach(config, parts.model, parts.loss)
    if teach is None:
        augment_often = jax.jit(jax.vmap(parts.augment, in_axes=(0, None, None)))
        image, label = augment_often(keys[:, 0], batch["image"][0], batch["label"][0].astype(np.int32))
    else:
        image, label, _ = jax.jit(jax.vmap(lambda keys: teach({**batch, "keys": keys}, {})))(keys)
        image, label = image[:, 0], label[:, 0]
    if image.shape[1:3] == (SIDE, SIDE):
        changed = jnp.mean(jnp.abs(image - parts.prepare(batch["image"][:1])), axis=(1, 2, 3))
    else:
        changed = _objects(label)
    left = _objects(label) >= 0.5 * _objects(batch["label"][:1])
    most = int(jnp.argmax(jnp.where(left, changed, changed - jnp.max(changed))))
    picture = augment.unnormalize(image[most], config.data.mean, config.data.std)
    drawn_label = np.asarray(label[most])
    lower = drawn_label[1:, 1:]
    inner = (lower != drawn_label[:-1, 1:]) | (lower != drawn_label[1:, :-1])
    edge = np.pad(inner, ((1, 0), (1, 0)))
    return np.where(edge[:, :, None], 1.0, np.clip(np.asarray(picture), 0, 1))


def _objects(label: jax.Array | np.ndarray) -> jax.Array:
    """Returns i32[b], the pixels of i[b,h,w] that are neither background nor ignored."""
    return jnp.sum((jnp.asarray(label) > 0) & (jnp.asarray(label) != IGNORE), axis=(1, 2))


if __name__ == "__main__":
    sys.exit(main())
