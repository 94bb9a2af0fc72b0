"""Cityscapes, fine annotations: 2975 training and 500 validation images of 1024 x 2048, 19 classes.

M. Cordts et al., "The Cityscapes dataset for semantic urban scene understanding", CVPR 2016. Of the 34 raw ids the 19
evaluated ones become 0..18 in their order; all others are ignored. The masks of the test images are not public.
"""

from jaxseg.data.datasets import Dataset

# Raw id, name and colour of the evaluated classes.
_CLASSES = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)

DATASET = Dataset(
    name="cityscapes",
    classes=tuple(name for _, name, _ in _CLASSES),
    colors=tuple(color for _, _, color in _CLASSES),
    image="image_left",
    mask="segmentation_label",
    file_name="image_id",
    labels={raw: label for label, (raw, _, _) in enumerate(_CLASSES)},
    others_ignored=True,
    ignore=None,
    splits={"train": "train", "val": "validation"},
    folders=("leftImg8bit", "gtFine"),
    get_it="Unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from www.cityscapes-dataset.com (with an "
    "account there) into one folder, so that it holds leftImg8bit and gtFine, and give it as data.dir.",
)
