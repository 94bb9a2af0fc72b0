"""The keys of the data and its augmentation: `data.*` and `augment.*`."""

import math
import re
from typing import Annotated, Literal

from jaxseg.arguments import (
    AlphaOfBeta,
    AtLeastOne,
    BelowHalf,
    Count,
    NotNegative,
    Operations,
    Positive,
    PositiveShare,
    Quality,
    Share,
    Size,
    SizeOrNone,
    UpTo32,
    UpToHalf,
    UpToTen,
    Where,
    WholeNotNegative,
    Zoom,
    exact_fraction,
    within,
)
from jaxseg.config.key import Color, Key, Numbers, PositiveNumbers


def is_share_or_path(value: float | str) -> bool:
    """Returns whether a value of `data.labelled` is a share in (0, 1], or text that is no number."""
    if not isinstance(value, str):
        return math.isfinite(value) and 0 < value <= 1
    try:
        return 0 < exact_fraction(value) <= 1
    except (ValueError, ZeroDivisionError):
        return not value.replace("/", "", 1).strip().isdigit()  # 1/0


def _is_fold(text: str) -> bool:
    found = re.fullmatch(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})", text)
    return not text or (found is not None and int(found[1]) <= int(found[2]) > 1)


DATA: dict[str, Key] = {
    "data.source": Key("shapes", "shapes, folder, camvid, voc2012, oxford_iiit_pet, cityscapes or scene_parse150"),
    "data.dir": Key("", "where the data is: the folder, or the raw download of a data set", free=True),
    "data.cache": Key("", "folder that keeps prepared TFDS data sets; empty: ~/.cache/jaxseg/tfds", free=True),
    "data.train_split": Key("train", "split to train on; TFDS slices such as train[:90%] work for TFDS sources"),
    "data.fold": Key(
        "",
        "the part of the training split that is left out, for cross-validation: 2/5 is the second of 5 parts, chosen "
        "by a hash of the names or as data.fold_file says; evaluate --split fold scores it; empty: none",
        Annotated[str, Where(_is_fold, instead="empty, or FOLD/FOLDS such as 2/5")],
    ),
    "data.fold_file": Key(
        "",
        "CSV file with the columns name and fold of each training image, which data.fold then chooses from; jaxseg "
        "train --folds writes it; empty: a hash of the name, or of the group",
        free=True,
    ),
    "data.group": Key(
        "",
        "what keeps images of one patient, scene or video in one fold, on one side of data.val_fraction, and in one "
        "draw of the confidence intervals: a regular expression whose first group is in the name of the image, or "
        "FILE.csv:COLUMN; empty: nothing",
        free=True,
    ),
    "data.val_split": Key(
        "val", "split that the evaluations during training score; fold: the images that data.fold leaves out"
    ),
    "data.size": Key((64, 64), "height and width of the images in training, before augment.crop", Size),
    "data.fit": Key(
        "resize",
        "how an image gets data.size: resize (also in evaluation), or crop (evaluation at native size)",
        Literal["resize", "crop"],
    ),
    "data.channels": Key(
        3,
        "image channels that the network takes; pictures are converted to 1, 3 or 4, and data.source=folder reads "
        "files of any other number (TIFF, .npy, .npz)",
        Count,
    ),
    "data.range": Key(
        (),
        "(low, high): the values in image files that become 0 and 1, with what is beyond them cut, for data.source="
        "folder: of floats, or of 16 bits of which a part is used; empty: 0 and the largest of 8 or 16 bits",
        Annotated[
            tuple[float, ...],
            Where(
                lambda v: not v or (len(v) == 2 and -math.inf < v[0] < v[1] < math.inf),
                instead="empty, or (low, high) with low < high",
            ),
        ],
    ),
    "data.mean": Key(
        (0.485, 0.456, 0.406), "subtracted from images in [0, 1]; one number, or one per channel", Numbers
    ),
    "data.std": Key((0.229, 0.224, 0.225), "divides after the mean; one number, or one per channel", PositiveNumbers),
    "data.classes": Key(
        (),
        "class names; empty: those of the data. Names that differ from those of the data are an error",
        tuple[str, ...],
    ),
    "data.ignore": Key(-1, "mask value that becomes ignore, besides 255; -1: none", Annotated[int, within(-1, 65535)]),
    "data.palette": Key(
        (), "RGB colour of each class, for masks stored as colour: ((r, g, b), ...)", tuple[Color, ...]
    ),
    "data.multilabel": Key(
        "",
        "whether a pixel may have several classes at once, or none, and how the masks say so: bits (one number, whose "
        "bit i says that class i is there), or folders (masks/CLASS/NAME.png, a picture a class); empty: one class",
        Literal["", "bits", "folders"],
    ),
    "data.unknown": Key(
        "pixel",
        "what a pixel is that data.ignore calls unknown in the picture of one class (data.multilabel=folders): pixel: "
        "unknown altogether; class: unknown in this class alone; file: the same, and a class without a picture is "
        "unknown in the image, in place of absent",
        Literal["pixel", "class", "file"],
    ),
    "data.val_fraction": Key(
        0.1,
        "share of a folder without splits that is held out for validation",
        Annotated[float, Where(lambda v: 0 < v < 1, "between 0 and 1")],
    ),
    "data.division": Key(
        "stable",
        "which images of a folder without splits are held out: stable (about data.val_fraction, by name; adding images "
        "moves none), or former (exactly data.val_fraction, as before 0.2, which took splits inside images/ for names)",
        Literal["stable", "former"],
    ),
    "data.val_group": Key(
        "group",
        "what data.val_fraction keeps whole on one side: group, the patients, scenes or videos of data.group; names, "
        "every image by itself; or a value such as data.group takes; withheld, in a published network, groups that it "
        "does not name. It has no effect with data.division=former",
        Annotated[str, Where(bool, instead="group, names, a regular expression or FILE.csv:COLUMN")],
    ),
    "data.unlabelled": Key(
        "",
        "folder of images without masks, inside data.dir or elsewhere, that training also reads: for semi.method, "
        "adversarial.semi_weight, adversarial.unlabelled_weight and the loss terms reconstruction, generator and "
        "discriminator; empty: none",
    ),
    "data.labelled": Key(
        "",
        "which training images keep their labels: a share of them (0.05 or 1/64), or a text file of their names, one a "
        "line. What learns without labels sees the others too, and nothing else does; empty: all",
        Annotated[
            float | str,
            Where(
                lambda v: is_share_or_path(v),
                instead="a share above 0 and at most 1, such as 0.05 or 1/64, or the path of a text file of names",
            ),
        ],
    ),
    "data.labelled_seed": Key(
        -1,
        "seed that chooses the images of a share data.labelled; -1: that of the run",
        Annotated[int, within(-1, 2**32 - 1)],
    ),
    "data.labelled_rows": Key(
        0,
        "images of each batch that have labels, half of batch_size, say, while the others have none; 0: images as they "
        "come, in epochs of all",
        WholeNotNegative,
    ),
    "data.proposals": Key(
        "",
        "folder of jaxseg propose: the images whose proposed masks a person kept, in its decisions.json, join the "
        "training split with these masks; empty: none",
    ),
    "data.annotations": Key(
        "",
        "file of points, scribbles, boxes or tags (CSV, COCO, LabelMe's folder, CVAT, Label Studio), inside data.dir "
        "or elsewhere, in place of the masks of a folder's training split; empty: masks",
    ),
    "data.weaken": Key(
        "",
        "what is left of the full labels of the training split, to measure what others would lose: scribbles, points, "
        "boxes or tags made from them; empty: all",
        Literal["", "scribbles", "points", "boxes", "tags"],
    ),
    "data.box_core": Key(
        1.0,
        "share of the height and width of a box, about its centre, that gets the class; the rest of the box is unknown",
        Share,
    ),
    "data.mark_radius": Key(1.0, "radius of points and scribbles, in pixels of data.size", NotNegative),
    "data.shapes_train": Key(2048, "images in the train split of the shapes data", Count),
    "data.shapes_val": Key(256, "images in the val and test splits of the shapes data", Count),
    "data.shapes_imbalance": Key(
        1.0,
        "how many times more often the shapes data draw their first kind of shape than their last; 1: all alike",
        AtLeastOne,
    ),
    "data.sampling": Key(
        "epochs",
        "order of the training images: epochs (each once an epoch); area (with data.fit=crop, each as often as "
        "windows of data.size cover it); or rare (a class is drawn, rare ones more often, then one of its images; "
        "DAFormer's rare class sampling, which reads every mask at the start)",
        Literal["epochs", "area", "rare"],
    ),
    "data.rare_temperature": Key(
        0.01, "data.sampling=rare: T of exp((1 - share of the class) / T); large: all classes alike", Positive
    ),
    "data.max_pixels": Key(
        0,
        "largest number of pixels of an image file, against files made to fill the memory, where neither --max-pixels "
        "nor JAXSEG_MAX_PIXELS says it; 0: 178,956,970",
        WholeNotNegative,
        free=True,
    ),
    "data.on_error": Key(
        "stop",
        "what follows from a training image that is gone, damaged, or changed since the run began: stop (the run ends "
        "with its name) or skip (another image is in its place, with a warning); for a validation image always stop",
        Literal["stop", "skip"],
        free=True,
    ),
    "data.timeout": Key(
        0.0,
        "seconds that reading one image may take, after which it counts as damaged; 0: no limit",
        NotNegative,
        free=True,
    ),
    "data.workers": Key(
        0, "worker processes that read and decode; 0: threads of this process", WholeNotNegative, free=True
    ),
    "data.prefetch": Key(2, "batches prepared ahead of the step", WholeNotNegative, free=True),
    "augment.flip_horizontal": Key(0.5, "probability of mirroring left-right", Share),
    "augment.flip_vertical": Key(0.0, "probability of mirroring top-bottom", Share),
    "augment.zoom": Key((1.0, 1.0), "range of the scale factor (above 1 magnifies)", Zoom),
    "augment.shear": Key(0.0, "largest shear, as a tangent (0.2: up to 11 degrees either way)", NotNegative),
    "augment.rotate": Key(0.0, "largest rotation in degrees, either way", NotNegative),
    "augment.crop": Key((), "size (height, width) of a random crop, after the geometry; empty: none", SizeOrNone),
    "augment.crop_max_share": Key(1.0, "a crop in which one class covers more than this share is drawn again", Share),
    "augment.crop_balanced": Key(
        0.0, "probability that a crop is put around a pixel of a class that is drawn from those of the image", Share
    ),
    "augment.brightness": Key(0.0, "largest relative change of brightness", Share),
    "augment.contrast": Key(0.0, "largest relative change of contrast", Share),
    "augment.saturation": Key(0.0, "largest relative change of saturation (3-channel images)", Share),
    "augment.perspective": Key(0.0, "largest relative change of scale towards a side, as of a tilted plane", BelowHalf),
    "augment.elastic": Key(
        0.0, "standard deviation in pixels of smooth random shifts, the elastic deformation of U-Net", NotNegative
    ),
    "augment.elastic_spacing": Key(32.0, "pixels between the points at which these shifts are drawn", AtLeastOne),
    "augment.gamma": Key((1.0, 1.0), "range of the power that colours are raised to (above 1 darkens)", Zoom),
    "augment.hue": Key(0.0, "largest turn of the hues, as a share of the circle (3-channel images)", UpToHalf),
    "augment.blur": Key(0.0, "largest standard deviation in pixels of a blur, for half of the images", UpTo32),
    "augment.low_resolution": Key(
        1.0, "smallest scale to which half of the images are shrunk and enlarged again; 1: none", PositiveShare
    ),
    "augment.noise": Key(
        0.0, "largest standard deviation of noise, of colours in [0, 1], for half of the images", Share
    ),
    "augment.jpeg": Key(0, "lowest quality (1 to 100) of JPEG compression, for half of the images; 0: none", Quality),
    "augment.copy_paste": Key(
        0.0, "probability that objects of another image of the batch are put over an image, with their labels", Share
    ),
    "augment.copy_paste_of": Key(
        "objects",
        "what is drawn: each of the connected sets of pixels of one class (objects), or half of the classes (classes)",
        Literal["objects", "classes"],
    ),
    "augment.copy_paste_classes": Key(
        (), "numbers of the classes that are pasted; empty: all but the first", tuple[WholeNotNegative, ...]
    ),
    "augment.copy_paste_scale": Key((1.0, 1.0), "range of the scale factor of what is pasted", Zoom),
    "augment.copy_paste_flip": Key(0.5, "probability that what is pasted is mirrored left-right", Share),
    "augment.mixup": Key(0.0, "probability that an image is a weighted sum with another one of the batch", Share),
    "augment.mixup_alpha": Key(0.2, "the weights are drawn from Beta(alpha, alpha)", AlphaOfBeta),
    "augment.rand_operations": Key(0, "RandAugment: operations that are drawn for each image; 0: none", Operations),
    "augment.rand_magnitude": Key(5.0, "RandAugment: their magnitude, 0 (no change) to 10", UpToTen),
    "augment.cutmix": Key(0.0, "probability that a box of half the area shows another image of the batch", Share),
    "augment.classmix": Key(
        0.0, "probability that half of the classes of another image of the batch are put over an image", Share
    ),
    "augment.erase": Key(0.0, "probability of a rectangle of random colours, whose labels stay", Share),
}
