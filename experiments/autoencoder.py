"""An autoencoder of images, whose encoder a segmenter then starts from.

    python -m jaxseg.train --config experiments/autoencoder.py --workdir runs/autoencoder
    python -m jaxseg.train --config experiments/unet.py --config.model.encoder_weights=runs/autoencoder

The encoder and decoder learn from the images alone (squared error); the cross-entropy teaches a linear classifier of
their features and nothing below it, whose mIoU says how much of the classes they hold. Masks may be 255 everywhere.

On the shapes data, with all 8,192 images labelled, the second command reaches .873 and .895 at the seeds 0 and 1, and
the U-Net from random weights .916 and .928: there the start does harm.

Shapes validation mIoU: .102 (4.5 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import VARIANTS, for_data


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    # The widths of experiments/unet.py: its encoder is this one.
    widths = (16, 32, 64, 128) if variant == "shapes" else (64, 128, 256, 512, 1024)
    update(
        config,
        model__name="autoencoder",
        model__args={"widths": widths},
        loss__terms="reconstruction + cross_entropy",
    )
    return config
