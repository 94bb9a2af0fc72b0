"""A generator of images from noise: DCGAN (Goodfellow et al. 2014, Radford et al. 2016) on the images of a data set.

python -m jaxseg.train --config experiments/generator.py
python -m jaxseg.train --config experiments/generator.py:folder --config.data.dir=MY_FOLDER
python -m jaxseg.predict --workdir runs/generator --samples 64 --out samples/
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
