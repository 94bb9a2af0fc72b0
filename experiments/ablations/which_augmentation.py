"""Which single augmentation pays when there are few images?

    python -m jaxseg.sweep --config experiments/ablations/which_augmentation.py

One small U-Net, 400 steps of 8 images. The shapes have 16 training images here, so that these are 200 epochs. Each
variant has one augmentation alone; "none" has none. The same on images of your own, all of those in the training split,
however many there are (`--config.data.labelled` takes a part of them; `--config.steps` makes more steps):

    python -m jaxseg.sweep --config experiments/ablations/which_augmentation.py:folder --config.data.dir=MY_FOLDER

Found on shapes: 5 seeds; without augmentation 16.02 ± 0.91 points of mIoU, since 16 images are few. Objects pasted from
other images give 21.91 ± 2.33, more by [+4.05, +7.71]; flips 20.64 ± 4.08, by [+0.42, +8.81]; hue 19.48 ± 1.96, by
[+1.92, +4.99]; ClassMix 18.97 ± 1.75, by [+1.72, +4.17]; RandAugment 18.54 ± 1.68, by [+0.45, +4.57]; and brightness
17.12 ± 1.19, by [+0.49, +1.70]. Zoom costs something, [-2.09, -0.50]. The other fourteen are not separable from none.
The whole table is `benchmarks/results/ablations/which_augmentation/table.md`.

Found on nuclei: 3 seeds, 16 images of 64x64 pixels (`--config.data.labelled=0.03`); without augmentation 80.69 ± 1.74.
Objects pasted from other images give 82.30 ± 1.58, more by [+0.95, +2.26]. The other twenty are not separable from
none; flips, the highest, give 82.61 ± 1.86, by [-0.28, +4.13].
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import ablation_recipe
from jaxseg.sweep import Sweep

GEOMETRY = {
    "flips": {"augment__flip_horizontal": 0.5, "augment__flip_vertical": 0.5},
    "zoom": {"augment__zoom": (0.7, 1.4)},
    "shear": {"augment__shear": 0.3},
    "rotate": {"augment__rotate": 30.0},
    "perspective": {"augment__perspective": 0.3},
    "elastic": {"augment__elastic": 2.0, "augment__elastic_spacing": 12.0},
}
COLORS = {
    "brightness": {"augment__brightness": 0.3},
    "contrast": {"augment__contrast": 0.3},
    "saturation": {"augment__saturation": 0.5},
    "gamma": {"augment__gamma": (0.7, 1.5)},
    "hue": {"augment__hue": 0.1},
    "blur": {"augment__blur": 1.0},
    "low_resolution": {"augment__low_resolution": 0.5},
    "noise": {"augment__noise": 0.1},
    "jpeg": {"augment__jpeg": 30},
    "erase": {"augment__erase": 0.5},
}
MIXED = {
    "cutmix": {"augment__cutmix": 0.5},
    "classmix": {"augment__classmix": 0.5},
    "mixup": {"augment__mixup": 0.5},
    "copy_paste": {"augment__copy_paste": 0.5},
    "rand_augment": {"augment__rand_operations": 2, "augment__rand_magnitude": 5.0},
}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change: of the shapes (default), or of a folder."""
    return ablation_recipe(
        arg,
        "unet",
        {"widths": (8, 16, 32), "dropout": 0.0},
        folder={"augment__crop": ()},
        data__shapes_train=16,
        loss__terms="cross_entropy",  # MixUp is for means over pixels
        batch_size=8,
        steps=400,
        eval__every=400,
        checkpoint__every=400,
        log__tensorboard=False,
        augment__flip_horizontal=0.0,
        augment__zoom=(1.0, 1.0),
        augment__shear=0.0,
        augment__rotate=0.0,
        augment__brightness=0.0,
        augment__contrast=0.0,
        augment__saturation=0.0,
    )


def sweep() -> Sweep:
    """Returns the variants."""
    return Sweep({"none": {}, **GEOMETRY, **COLORS, **MIXED}, baseline="none", seeds=(0, 1, 2, 3, 4))
