"""A generator of images from noise: DCGAN (Goodfellow et al. 2014, Radford et al. 2016) on the images of a data set.

    python -m jaxseg.train --config experiments/generator.py
    python -m jaxseg.train --config experiments/generator.py:folder --config.data.dir=MY_FOLDER
    python -m jaxseg.predict --workdir runs/generator --samples 64 --out samples/

Samples are drawn to samples.png at each evaluation. The images are resized to those of the generator, 32x32 for the
shapes data and 64x64 for the other variants. Masks may be 255 everywhere.

On the shapes data the samples have patches of the right kinds of colour, and no outlines: after 2,000 steps the
discriminator is almost never wrong (its loss is .40, of which .33 is due to the smoothing). The Fréchet distance of
4x4-pixel thumbnails to the validation images is 1.58 after 500 steps, .43 after 1,000, .57 after 1,500 and .44 at the
end (training images: .09). An earlier run, scored every 250 steps, had .30 after 1,250 and .52 at the end.

Shapes validation mIoU: .148 (8.2 minutes on one core, with other programs running; one seed), that of a linear
classifier of the discriminator's features.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "dcgan",
        shapes={"size": 32, "width": 32},
        full={"size": 64, "width": 64},
        shapes_keys={"batch_size": 32, "steps": 2000},
        # Both players have the optimiser of Radford et al. 2016, section 4.
        optimizer__name="adam",
        optimizer__args={"b1": 0.5},
        optimizer__learning_rate=2e-4,
        optimizer__weight_decay=0.0,
        schedule__name="constant",
        schedule__warmup=0,
        # Images in [-1, 1], the range of the generator's tanh.
        data__mean=(0.5,),
        data__std=(0.5,),
        # The cross-entropy trains only a linear classifier of the discriminator's features.
        loss__terms="generator + discriminator + cross_entropy",
        loss__args={"discriminator": {"smoothing": 0.1}},
        ema__decay=0.99,
    )
