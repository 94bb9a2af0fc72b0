"""PointRend (Kirillov et al. 2020) over Semantic FPN: points where the coarse prediction is uncertain, predicted anew.

    python -m jaxseg.train --config experiments/pointrend.py
    python -m jaxseg.train --config experiments/pointrend.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/pointrend.py:folder --config.data.dir=MY_FOLDER

`--config.model.args.coarse=deeplabv3 --config.model.args.encoder_args.output_stride=16` is the paper's other network.

Shapes validation mIoU: .931 (6.4 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "pointrend",
        shapes={
            "width": 32,
            "branch_width": 32,
            "finest": 2,
            "hidden": 64,
            "points": 196,
            "refined_points": 784,
            "encoder": "plain",
            "encoder_args": {"widths": (16, 32, 64, 128)},
        },
        full={"encoder": "resnet50"},
        loss__terms="cross_entropy + point_cross_entropy",
    )
