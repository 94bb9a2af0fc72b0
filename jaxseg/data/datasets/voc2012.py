"""Pascal VOC 2012 segmentation: 20 classes and background, 1464 training and 1449 validation images.

M. Everingham et al., "The Pascal visual object classes challenge: a retrospective", IJCV 2015. Masks are palette
images of class indices; 255, the outline of objects, is ignored. The masks of the test images are not public.
"""

from pathlib import Path

from jaxseg.data.datasets import Color, Dataset
from jaxseg.data.datasets.local import LocalBuilder, Pair
from jaxseg.errors import DataError


def palette(count: int) -> tuple[Color, ...]:
    """Returns the first `count` colours of VOC's palette: three bits of the index at a time set one bit each of r, g
    and b, from the highest bit of the colours down."""
    colors = []
    for index in range(count):
        channels = [0, 0, 0]
        for bit in range(8):
            channels[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
        colors.append((channels[0], channels[1], channels[2]))
    return tuple(colors)


DATASET = Dataset(
    name="voc2012",
    classes=(
        "background",
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ),
    colors=palette(21),
    image="image",
    mask="mask",
    file_name="file_name",
    labels={i: i for i in range(21)},
    others_ignored=False,
    ignore=None,
    splits={"train": "train", "val": "validation"},
    folders=(),
    get_it="Download VOCtrainval_11-May-2012.tar from host.robots.ox.ac.uk/pascal/VOC/voc2012, unpack it and give the "
    "folder that holds VOCdevkit/VOC2012 (or VOC2012 itself) as data.dir.",
)


class Builder(LocalBuilder, skip_registration=True):
    """VOC 2012 segmentation from a local folder."""

    name = "voc2012"
    HOMEPAGE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"


def find_pairs(root: Path) -> dict[str, list[Pair]]:
    """Returns {split: pairs} from the lists in ImageSets/Segmentation.

    Raises:
        DataError: if `root` does not hold VOC 2012, or an image or a mask from a list is missing.
    """
    places = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
    lists = Path("ImageSets", "Segmentation")
    home = next((place for place in places if (place / lists / "train.txt").is_file()), None)
    if home is None:
        raise DataError(f"{root} does not hold Pascal VOC 2012. {DATASET.get_it}")
    pairs: dict[str, list[Pair]] = {}
    for name, split in DATASET.splits.items():
        listing = home / lists / f"{name}.txt"
        if not listing.is_file():
            raise DataError(f"There is no {listing}, the list of the {name} images.")
        stems = listing.read_text(encoding="utf-8-sig").split()
        pairs[split] = [
            (stem, home / "JPEGImages" / f"{stem}.jpg", home / "SegmentationClass" / f"{stem}.png") for stem in stems
        ]
        for _, image, mask in pairs[split]:
            for file in (image, mask):
                if not file.is_file():
                    raise DataError(f"{listing} lists {file.stem}, but there is no {file}.")
    return pairs
