"""What prediction writes for each image: its classes in one of four formats, the overlay, and probabilities."""

import functools
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
from PIL import Image

from jaxseg import pictures
from jaxseg.data.rasters import stored_values, write_labels
from jaxseg.errors import ConfigError
from jaxseg.files import names_in_npz, write_atomically
from jaxseg.inference.segment import Segmentation
from jaxseg.pictures import marks
from jaxseg.pictures.colors import IGNORE_COLOR
from jaxseg.types import IGNORE

MARK = "jaxseg predict"
"""The text under "Software" in the pictures, by which a later call knows that it may replace them."""

Format: TypeAlias = Literal["png", "color", "tiff", "npz", "folders"]
FORMATS: tuple[Format, ...] = get_args(Format)
_SUFFIXES: dict[str, str] = {"png": ".png", "color": ".png", "tiff": ".tif", "npz": ".npz", "folders": ".png"}
_ARRAYS = {"probabilities", "indices", "labels", "classes", "made_by"}  # those that NAME.npz may hold
_LONGEST_FOLDER = 80  # bytes of the name of a folder of a class
_LONGEST = 2**16  # bytes of the text in NAME.npz that says what made it


class Extra(Protocol):
    """Further files of each image, such as a table of its regions; methods are called by several threads."""

    @property
    def option(self) -> str:
        """The option of the command that asks for them, such as "--regions"."""
        ...

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What follows NAME in the names of its files, such as "-regions.json"."""
        ...

    @property
    def needs_probabilities(self) -> bool:
        """Whether `write` needs `Segmentation.probabilities`."""
        ...

    def require_own(self, out: Path, outputs: Iterable[str]) -> None:
        """Raises ConfigError if a file would replace one of someone else; `outputs` are the NAMEs of the images."""
        ...

    def write(self, path: Path, stem: Path, image: np.ndarray, result: Segmentation) -> None:
        """Writes the files of one image: `path` is the image, `stem` the path of its outputs without a suffix."""
        ...

    def leave_out(self, path: Path) -> None:
        """Learns of an image that could not be segmented."""
        ...

    def finish(self, out: Path) -> Sequence[Path]:
        """Writes the files of the whole call; returns them."""
        ...


@dataclass(frozen=True)
class Outputs:
    """What is written for each image.

    Attributes:
        out: the folder.
        classes: the names of the classes.
        colors: the (r, g, b) of each class.
        form: of the classes: "png", their indices with a palette; "color", their colours; "tiff", indices with a
            palette in compressed tiles; "npz", an array `labels` u8|u16[h,w]; "folders", where a pixel may have several
            classes: CLASS/NAME.png of each (`class_folders`), 255 where it is there and 0 elsewhere.
        overlay: whether to write NAME-overlay.png.
        probabilities: whether to write NAME.npz with `probabilities` f32[h,w,k].
        top_k: n, to write `probabilities` f16[h,w,n] of the n likeliest classes and these, `indices` u8|u16[h,w,n]; 0:
            all classes.
        values: what stands for each class in place of its index; (): the index.
        identity: says which networks and options made the files, which keep it, as of `options.identity_of`; "":
            nothing is kept.
        multilabel: whether a pixel may have several classes, so that the classes are sets (`jaxseg.sets`).
    """

    out: Path
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    form: Format = "png"
    overlay: bool = True
    probabilities: bool = False
    top_k: int = 0
    values: tuple[int, ...] = ()
    identity: str = ""
    multilabel: bool = False

    def mark(self, image: str = "") -> str:
        """Returns the text under "Software" in the pictures; `image` is the digest of their image, see `digest`."""
        return " ".join(filter(None, (MARK, self.identity, image)))

    def maker(self, image: str = "") -> str:
        """Returns what the arrays keep: the mark without its first words."""
        return self.mark(image).removeprefix(MARK).lstrip()

    def files(self, name: str) -> dict[str, Path]:
        """Returns {what: path} of the files of one image."""
        files = {"classes": self.out / f"{name}{_SUFFIXES[self.form]}"}
        if self.form == "folders":
            first, *others = class_folders(self.classes)
            files = {"classes": self.out / first / f"{name}.png"}
            files |= {f"classes of {folder}": self.out / folder / f"{name}.png" for folder in others}
        if self.overlay:
            files["overlay"] = self.out / f"{name}-overlay.png"
        if self.probabilities:
            files["probabilities"] = self.out / f"{name}.npz"
        return files

    def write(
        self, name: str, image: np.ndarray, result: Segmentation, *, source: str = "", tags: Sequence[Any] = ()
    ) -> None:
        """Writes the files of one image, each atomically.

        Args:
            name: the NAME of the files.
            image: u8|u16[h,w,c].
            result: its segments.
            source: the digest of its file, which the files keep; "": nothing is kept.
            tags: further tags of a TIFF file, as of `rasters.write_labels`.

        Raises:
            ConfigError: if a file cannot be written.
        """
        files, arrays, mark = self.files(name), self.out / f"{name}.npz", self.mark(source)
        try:
            for file in files.values():
                file.parent.mkdir(parents=True, exist_ok=True)
            if self.form == "folders":
                there = [file for what, file in files.items() if what.startswith("classes")]
                for c, file in enumerate(there):
                    picture = np.where(result.classes >> result.classes.dtype.type(c) & 1, 255, 0).astype(np.uint8)
                    pictures.save_image(picture, file, software=mark)
            elif self.multilabel and self.form == "png":
                pictures.save_image(sets_picture(result.classes, self.colors), files["classes"], software=mark)
            elif self.form in ("png", "color"):
                values = self.values or range(len(self.colors))
                picture = labels_picture(result.classes, self.colors, values, in_colors=self.form == "color")
                pictures.save_image(picture, files["classes"], software=mark)
            elif self.form == "tiff":
                options: Any = {"values": self.values, "tags": tags, "software": mark}
                colors = None if self.multilabel else self.colors
                write_atomically(files["classes"], lambda file: write_labels(file, result.classes, colors, **options))
            if self.overlay:
                overlay = pictures.overlay(image, result.classes, self.colors, multilabel=self.multilabel)
                pictures.save_image(overlay, files["overlay"], software=mark)
            stored: dict[str, Any] = {}
            if self.form == "npz":
                stored["labels"] = stored_values(self.values)[result.classes] if self.values else result.classes
            if self.probabilities and result.indices is not None:
                stored["indices"] = result.indices
            if self.probabilities:
                stored["probabilities"] = result.probabilities
            if stored:
                stored |= {"made_by": np.array(self.maker(source))} if self.identity else {}
                write_atomically(arrays, lambda file: np.savez(file, **stored, classes=np.array(self.classes)))
        except OSError as error:
            raise cannot_write(name, self.out, error) from error

    def require_own(self, name: str, image: Path) -> None:
        """Raises ConfigError if there is a file under the name of an output that prediction has not written.

        Earlier versions marked no overlay, and at first no picture of classes: such files count if they are the
        segments of this image and these laid over it.
        """
        files = self.files(name)
        pictured = {file for what, file in files.items() if what != "probabilities" and file.suffix != ".npz"}
        own = {file for file in pictured if is_output(file)}
        overlay = self.out / f"{name}-overlay.png"
        if self.form in ("png", "color") and overlay not in own and overlay.is_file():
            from jaxseg.inference.former import are_outputs_of

            if are_outputs_of(image, files["classes"], overlay):
                own |= {files["classes"], overlay}
        foreign = [file for file in files.values() if file in pictured and file.is_file() and file not in own]
        arrays = self.out / f"{name}.npz"
        if (self.probabilities or self.form == "npz") and arrays.is_file() and not holds_own_arrays(arrays):
            foreign.append(arrays)
        if foreign:
            raise ConfigError(would_replace(foreign[0]))

    def exists(self, name: str, source: str = "") -> bool:
        """Returns whether an earlier call with the same networks and options has written all files of one image.

        `source` is the digest of the file of the image.
        """
        wanted = {"classes"} | ({"labels"} if self.form == "npz" else set())
        wanted |= {"probabilities"} if self.probabilities else set()
        wanted |= {"indices"} if self.top_k else set()
        modes = {"png": ("P", "I;16"), "color": ("RGB",), "tiff": ("P", "L", "I;16", "I"), "folders": ("L",)}

        def written(what: str, file: Path) -> bool:
            if file.suffix == ".npz":
                return wanted <= names_in_npz(file) and _maker_of(file) == self.maker(source)
            if not self.wrote(file, source):
                return False
            with marks.opened(file) as picture:
                return what == "overlay" or picture.mode in modes[self.form]

        return all(written(what, file) for what, file in self.files(name).items())

    def wrote(self, file: Path, source: str = "") -> bool:
        """Returns whether prediction with the same networks and options has written a picture of the same image."""
        return file.is_file() and marks.software(file) == self.mark(source)

    def holds_same_classes(self, name: str, source: str) -> bool:
        """Returns whether the classes there under a NAME, in any format, are of the same networks, options and content.

        `source` is the digest of the file of the image.
        """
        if not (self.identity and source):
            return False
        drawn = [marks.software(self.out / f"{name}{end}") for end in (".png", ".tif", "-overlay.png")]
        made = [text.removeprefix(MARK).lstrip() for text in drawn if text.startswith(MARK)]
        arrays = self.out / f"{name}.npz"
        made += [_maker_of(arrays)] if os.path.isfile(arrays) and holds_own_arrays(arrays) else []
        start = f"{self.identity.partition('-')[0]}-"
        return bool(made) and all(text.startswith(start) and text.endswith(f" {source}") for text in made)


@functools.lru_cache
def class_folders(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the name of the folder of each class, whatever the classes of a stranger's run are called.

    It is one part of a path in every file system: separators, dots, control characters and what Windows refuses are
    "_". Without a dot it is also the name of no other output. Names differ, also where capitals do not count: of two
    that would not, the second ends with "-2", but a class whose own name is such a name keeps it.
    """
    plain = []
    for name in classes:
        text = unicodedata.normalize("NFC", name)
        text = "".join("_" if unicodedata.category(c)[0] == "C" or c in "\u2028\u2029" else c for c in text)
        text = re.sub(r'[./\\<>:"|?*]', "_", text).strip()
        plain.append(text.encode()[:_LONGEST_FOLDER].decode(errors="ignore").strip() or "class")
    owners: dict[str, int] = {}
    for i, name in enumerate(plain):
        if name == classes[i]:
            owners.setdefault(name.casefold(), i)
    for i, name in enumerate(plain):
        folder, number = name, 1
        while owners.setdefault(folder.casefold(), i) != i:
            number += 1
            folder = f"{name}-{number}"
        plain[i] = folder
    return tuple(plain)


def digest(path: Path) -> str:
    """Returns twelve letters that differ where the content of a file does; "" for one that cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:12]
    except OSError:
        return ""


def would_replace(file: Path) -> str:
    """Returns the sentence about an output that stands in the place of a file of someone else."""
    return f"The output {file} would replace a file that prediction did not write, such as a mask; give another --out."


def require_folder(out: Path) -> None:
    """Raises ConfigError if there is a file in the place of the folder of the outputs, or of one above it."""
    for place in (out, *out.parents):
        if place.is_dir():
            return
        if place.exists():
            raise ConfigError(
                f"--out {out}: {place} is a file, where a folder for the outputs is needed; give another."
            )


def cannot_write(name: str, out: Path, error: OSError) -> ConfigError:
    """Returns the error for outputs that the system does not let be written."""
    return ConfigError(f"The outputs of {name} cannot be written to {out}: {error.strerror or error}.")


def is_output(file: Path) -> bool:
    """Returns whether a picture has the mark of prediction."""
    text = marks.software(file) if file.is_file() else ""
    return text == MARK or text.startswith(f"{MARK} ")


def holds_own_arrays(file: Path) -> bool:
    """Returns whether a file holds the arrays of NAME.npz."""
    names = names_in_npz(file)
    return "classes" in names and len(names) > 1 and names <= _ARRAYS


def _maker_of(file: Path) -> str:
    """Returns the identity that NAME.npz keeps; "" if it keeps none, or is damaged."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            if archive.zip.getinfo("made_by.npy").file_size > _LONGEST:
                return ""
            return str(archive["made_by"])
    except Exception:  # NumPy and zipfile raise many classes for a file that is cut off or forged
        return ""


def labels_picture(
    classes: np.ndarray, colors: pictures.Colors, values: Sequence[int], *, in_colors: bool = False
) -> Image.Image:
    """Returns classes u8|u16[h,w] as an image of the value of each class, with its colour where 8 bits hold all values.

    With `in_colors` it is an image of the colours alone.

    IGNORE, no class, has the largest number of the file, 255 or 65535.
    """
    table = stored_values(values)
    if table.dtype == np.uint16 and in_colors:
        return Image.fromarray(pictures.colorize(classes, colors))
    if table.dtype == np.uint16:
        return Image.fromarray(table[classes])
    palette = np.zeros((max(values) + 1, 3), np.uint8)
    palette[list(values)] = np.asarray(colors, np.uint8)
    if max(values) < IGNORE and (classes == IGNORE).any():
        palette = np.concatenate([palette, np.full((IGNORE + 1 - len(palette), 3), IGNORE_COLOR, np.uint8)])
    image = Image.fromarray(table[classes], "P")
    image.putpalette(palette.tobytes())
    return image.convert("RGB") if in_colors else image


def sets_picture(sets: np.ndarray, colors: pictures.Colors) -> Image.Image:
    """Returns sets of classes u8|u16[h,w] as an image of these numbers, where 8 bits hold them with the mean colours of
    their classes."""
    if sets.dtype != np.uint8:
        return Image.fromarray(sets)
    image = Image.fromarray(sets, "P")
    image.putpalette(pictures.colorize(np.arange(256, dtype=np.uint8)[None], colors, True).tobytes())
    return image
