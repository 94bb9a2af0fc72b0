"""An autoencoder of images, whose encoder then starts a segmenter.

    python -m jaxseg.train --config experiments/autoencoder.py --workdir runs/autoencoder
    python -m jaxseg.train --config experiments/unet.py --config.model.encoder_weights=runs/autoencoder

The encoder and the decoder learn from the images alone (squared error). The cross-entropy trains only a linear
classifier of their features; its mIoU says how much these features know about the classes. Masks may be 255 everywhere,
and --config.data.unlabelled=FOLDER adds images without masks.

On the shapes data, with all 8,192 images labelled, the second command reaches .873 and .895 with seeds 0 and 1, and
the U-Net from random weights .916 and .928: there this start makes the result worse.

Shapes validation mIoU: .102 (4.5 minutes on one core, with other programs running; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    # The widths are those of experiments/unet.py, which has the same encoder.
    return recipe(
        arg,
        "autoencoder",
        shapes={"widths": (16, 32, 64, 128)},
        full={"widths": (64, 128, 256, 512, 1024)},
        loss__terms="reconstruction + cross_entropy",
    )
