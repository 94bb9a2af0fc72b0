"""The images of a folder with points, scribbles, boxes and tags from a file of annotations in place of masks."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from jaxseg.arguments import expanded
from jaxseg.data.base import DataInfo, Example, require_bytes
from jaxseg.data.images import read_header, read_image
from jaxseg.data.notes import note
from jaxseg.data.pairs import Pair
from jaxseg.data.stamps import require_unchanged, stamp, stamps_of
from jaxseg.data.weak.drawing import Drawing, draw, encloses
from jaxseg.data.weak.frames import images_of_frames, no_frames, without_images
from jaxseg.data.weak.marks import AnnotatedImage, Annotations, check_marks, class_indices
from jaxseg.data.weak.reading import files_read, read_annotations
from jaxseg.errors import DataError, counted, some
from jaxseg.types import IGNORE


class AnnotatedSource:
    """Images and the labels that their annotations give.

    Args:
        pairs: the images; their masks are not read.
        annotations: the file, or the folder of LabelMe's files.
        info: the classes, as the masks of the validation split or classes.json give them.
        how: how marks become labels; `outside` follows from the file.
        problems: what is wrong in the folder of the images.
        unlabelled: whether images without annotations are of use, with IGNORE everywhere; otherwise they are left out.
        strict: raise at the first error. Otherwise errors in the marks are raised when an example is read.
        directory: the folder of the data set.
        others: the names of its images that are not among the pairs, such as those of other splits.

    Attributes:
        stamps: of the images and of the files of annotations, as they were when the source was opened; an image that
            was changed since is an error when its example is read. {} if not `strict`.

    Raises:
        DataError: if the file cannot be read, names none of the images, or names a class that there is not; where
            `strict`, also for marks that do not fit their image.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        annotations: str | Path,
        info: DataInfo,
        how: Drawing | None = None,
        *,
        problems: Sequence[str] = (),
        unlabelled: bool = False,
        strict: bool = True,
        directory: str | Path = "",
        others: Sequence[str] = (),
    ):
        require_bytes("data.annotations", len(info.classes))
        self.directory, file = Path(directory), expanded(annotations)
        self.stamps = {path: stamp(path) for path in files_read(file)} if strict else {}  # before their content is read
        self.annotations, self.info = read_annotations(file), info
        self._indices = class_indices(self.annotations, info.classes)
        self.how = (how or Drawing())._replace(outside=encloses(self.annotations, self._indices))
        kinds = self.annotations.counts()
        if set(kinds) == {"tag"} and not self.how.possible:
            raise DataError(
                f"{self.annotations.path} holds tags of images alone, which only the loss term size_constraint learns "
                "from."
            )
        found, strange = matched(self.annotations, pairs, others)
        self.remarks = tuple(_about(self.annotations, pairs, found, strange, unlabelled))
        for remark in self.remarks if strict else ():
            note(remark)
        chosen = [pair for pair in pairs if unlabelled or pair.name in found]
        self.examples = [(pair, found[pair.name] if pair.name in found else None) for pair in chosen]
        self.problems = tuple(problems)
        if strict:
            self.stamps |= stamps_of(pair._replace(mask=None) for pair, _ in self.examples)
            for pair, image in self.examples:
                _checked(self.annotations, pair, image, self.info.paged)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        """Returns image u8|u16[h,w,c] and label u8[h,w]."""
        pair, annotated = self.examples[index]
        _checked(self.annotations, pair, annotated, self.info.paged)
        image = read_image(pair.image, self.info.channels, self.info.range)
        require_unchanged(pair._replace(mask=None), self.stamps)
        size = (image.shape[0], image.shape[1])
        if annotated is None:
            return {"image": image, "label": np.full(size, IGNORE, np.uint8)}
        return {"image": image, "label": draw(annotated.marks, size, self._indices, self.how)}

    def name(self, index: int) -> str:
        return self.examples[index][0].name

    def label_size(self, index: int) -> tuple[int, int]:
        height, width = read_header(self.examples[index][0].image, paged=self.info.paged)[:2]
        return height, width

    def summary(self) -> str:
        """Returns one line on the annotations: "12 points in 4 images, 3 boxes in 3 images"."""
        kinds = self.annotations.counts().items()
        marks = [f"{counted(n, _SAID[kind])} in {counted(images, 'image')}" for kind, (n, images) in kinds]
        return f"{self.annotations.path} ({self.annotations.form}): {', '.join(marks)}"


_SAID = {"tag": "tag", "point": "point", "line": "line", "polygon": "polygon", "brush": "brush", "box": "box"}


def _checked(annotations: Annotations, pair: Pair, image: AnnotatedImage | None, paged: bool) -> None:
    if image is not None:
        height, width = read_header(pair.image, paged=paged)[:2]
        check_marks(annotations, image, (height, width))


def matched(
    annotations: Annotations, pairs: Sequence[Pair], others: Sequence[str] = ()
) -> tuple[dict[str, AnnotatedImage], list[str]]:
    """Returns {name of a pair: its annotations}, and the names in the file that are none of the images.

    A name in the file is that of an image up to its suffix, or ends with it; or it is its last part, if no other image
    has the same. A frame of a video is the image with its number; see `frames`, also on `others`.

    Raises:
        DataError: if none of the images is named, or two names stand for one image.
    """
    by_name = {pair.name: pair for pair in pairs}
    by_last: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_last.setdefault(PurePosixPath(pair.name).name, []).append(pair)
    frames = images_of_frames(annotations, pairs, others)
    found: dict[str, AnnotatedImage] = {}
    strange: list[str] = []
    for image in annotations.images:
        if image.frame is not None:
            if image.name in frames:
                found[frames[image.name].name] = image
            else:
                strange.append(image.name)
            continue
        parts = PurePosixPath(image.name.replace("\\", "/")).with_suffix("").parts
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        name = next((end for end in ends if end in by_name), None)
        alone = by_last[parts[-1]] if parts and parts[-1] in by_last else []
        name = alone[0].name if name is None and len(alone) == 1 else name
        if name is None:
            strange.append(image.name)
        elif name in found:
            raise DataError(
                f"{annotations.path} names {found[name].name} and {image.name}, which both stand for "
                f"{by_name[name].image}."
            )
        else:
            found[name] = image
    if not found and any(image.frame is not None for image in annotations.images):
        raise no_frames(annotations, pairs)
    if not found:
        folder = pairs[0].image.parent if pairs else "the folder"
        raise DataError(
            f"{annotations.path} annotates {some(strange, 3)}, none of which is among the "
            f"{counted(len(pairs), 'image')} of {folder} ({some([pair.image.name for pair in pairs], 3)}); give the "
            "annotations of these images."
        )
    return found, strange


def _about(
    annotations: Annotations,
    pairs: Sequence[Pair],
    found: dict[str, AnnotatedImage],
    strange: Sequence[str],
    unlabelled: bool,
) -> list[str]:
    remarks = []
    without = [pair.name for pair in pairs if pair.name not in found]
    if without:
        use = "they count as images without labels" if unlabelled else "they are left out"
        remarks.append(
            f"{counted(len(without), 'image')} of the training split "
            f"({some(without, 3)}) {'is' if len(without) == 1 else 'are'} not in {annotations.path}; {use}."
        )
    strange, frames = without_images(annotations, strange)
    if frames:
        remarks.append(f"{annotations.path}: {frames}")
    if strange:
        remarks.append(
            f"{annotations.path} also annotates {counted(len(strange), 'image')} that the training split lacks "
            f"({some(strange, 3)})."
        )
    return remarks
