"""Does an encoder that first learned to reconstruct images learn more from few labels?

    python -m jaxseg.sweep --config experiments/ablations/autoencoder.py
    python -m jaxseg.sweep --config experiments/ablations/autoencoder.py:folder --config.data.dir=MY_FOLDER

One U-Net, 300 steps of 8 images. Only a sixteenth of the images have labels, chosen by the seed. "scratch" starts from
random weights, "pretrained" from the encoder of "autoencoder", which has learned for 300 steps to reconstruct all
images. In "autoencoder" the labels train only a linear classifier of its features, whose mIoU is its score; this
classifier has the labels of all images, so that its row is not to be compared with the others. "longer" is "scratch"
with 600 steps, as many as both stages have.

Not yet run.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import ablation_recipe
from jaxseg.sweep import Sweep

WIDTHS = (8, 16, 32, 64)
STEPS = 300


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    return ablation_recipe(
        arg,
        "unet",
        {"widths": WIDTHS, "dropout": 0.0},
        folder={},
        steps=STEPS,
        eval__every=STEPS,
        checkpoint__every=STEPS,
        data__labelled=0.0625,
    )


def sweep() -> Sweep:
    """Returns the variants."""
    reconstruction = {
        "model__name": "autoencoder",
        "model__args": {"widths": WIDTHS},
        "loss__terms": "reconstruction + cross_entropy",
        "data__labelled": "",
    }
    # The encoder is taken, with its statistics; the rest keeps its random weights.
    pretrained = {"model__weights_skip": ("/decoder/", "/head/", "/reconstruction/")}
    variants = {
        "scratch": {},
        "longer": {"steps": 2 * STEPS},
        "autoencoder": reconstruction,
        "pretrained": pretrained,
    }
    return Sweep(variants, baseline="scratch", starts={"pretrained": "autoencoder"})
