"""SegFormer (Xie et al. 2021): a Mix Transformer (MiT-B0; smaller on the shapes) and a decoder of dense layers.

    python -m jaxseg.train --config experiments/segformer.py
    python -m jaxseg.train --config experiments/segformer.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/segformer.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .826 (9.3 minutes on one core, with other programs running; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "segformer",
        # 64x64 images need finer patches than those of strides 4 to 32.
        shapes={
            "encoder": "mit_b0",
            "features": 64,
            "encoder_args": {
                "widths": (32, 64, 96),
                "depths": (2, 2, 2),
                "heads": (1, 2, 4),
                "reductions": (4, 2, 1),
                "kernels": (7, 3, 3),
                "steps": (2, 2, 2),
                "drop_path": 0.0,
            },
        },
        full={"encoder": "mit_b0"},
        shapes_keys={"optimizer__learning_rate": 1e-3},
    )
