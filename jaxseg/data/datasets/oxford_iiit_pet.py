"""Oxford-IIIT Pet trimaps: pet, background and the border between them (raw 1, 2, 3).

O. Parkhi, A. Vedaldi, A. Zisserman, C. V. Jawahar, "Cats and dogs", CVPR 2012. TFDS has only the splits train (3680)
and test (3669): here "train" is the first 90 % of TFDS's train and "val" its last 10 %. A slice such as "train[:50%]"
is a slice of TFDS's own split.
"""

from jaxseg.data.datasets import Dataset

DATASET = Dataset(
    name="oxford_iiit_pet",
    classes=("pet", "background", "border"),
    colors=((220, 60, 60), (40, 40, 40), (240, 220, 80)),
    image="image",
    mask="segmentation_mask",
    file_name="file_name",
    labels={1: 0, 2: 1, 3: 2},
    others_ignored=False,
    ignore=None,
    splits={"train": "train[:90%]", "val": "train[90%:]", "test": "test"},
    folders=("images", "annotations"),
    get_it="Unpack images.tar.gz and annotations.tar.gz from www.robots.ox.ac.uk/~vgg/data/pets into one folder and "
    "give it as data.dir; or leave data.dir empty and let TFDS download it (0.8 GB), which needs TensorFlow once.",
)
