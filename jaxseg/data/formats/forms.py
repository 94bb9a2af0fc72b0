"""The forms that are read, by name, and which of them a file or folder is of."""

from collections.abc import Callable
from pathlib import Path

from jaxseg.data.formats.annotated import read_annotated
from jaxseg.data.formats.collection import Collection, Options, visible
from jaxseg.data.formats.objects import find_objects, read_objects
from jaxseg.data.formats.packed import read_tars
from jaxseg.data.formats.paired import find_pairs, read_cityscapes, read_paired
from jaxseg.data.formats.stacks import count_pages, read_stacks
from jaxseg.data.formats.tables import find_tables, read_table
from jaxseg.data.listing import SUFFIXES
from jaxseg.errors import DataError, some

_ANNOTATED = {
    "coco": "COCO",
    "labelme": "LabelMe",
    "cvat": "CVAT",
    "labelstudio": "Label Studio",
    "via": "VIA",
    "supervisely": "Supervisely",
}
_READERS: dict[str, Callable[[Path, Options], Collection]] = {
    "cityscapes": read_cityscapes,
    "instances": read_objects,
    "masks": read_paired,
    "rgb": lambda source, options: read_paired(source, options, colored=True),
    "csv": lambda source, options: read_table(_table(source), options),
    "webdataset": read_tars,
    "tiffstack": read_stacks,
}
FORMS = ("auto", *_ANNOTATED, *_READERS)
"""The values of `--format`."""

_PACKED = (".gz", ".tgz", ".zip", ".7z", ".rar", ".bz2", ".xz")


def read_form(source: Path, form: str, options: Options) -> Collection:
    """Returns what `source` holds, of the form with this name, or of the one that it is found to have ("auto").

    Raises:
        DataError: if there is nothing there, or it is of another form.
    """
    if not source.exists():
        raise DataError(f"There is no file or folder {source}.")
    name = find_form(source) if form == "auto" else form
    if name in _ANNOTATED:
        return read_annotated(source, options, _ANNOTATED[name])
    if name == "":
        return read_annotated(source, options)
    return _READERS[name](source, options)


def find_form(source: Path) -> str:
    """Returns the name of the form of a file or folder; "" for the files of an annotation tool, which tell it.

    Raises:
        DataError: if it is of none of them.
    """
    suffix = source.suffix.lower()
    if source.is_file():
        if suffix in (".json", ".xml", ".csv", ".tar"):
            return {".csv": "csv", ".tar": "webdataset"}[suffix] if suffix in (".csv", ".tar") else ""
        unpack = " Unpack it first." if suffix in _PACKED else ""
        raise DataError(f"{source} is of no form that is read ({some(FORMS[1:])}).{unpack}")
    if visible(source, (".tar",)):
        return "webdataset"
    if any("_gtFine_" in path.stem for path in visible(source, (".png",))):
        return "cityscapes"
    if any(path.name != "classes.json" for path in visible(source, (".json", ".xml"))):
        return ""
    if find_objects(source)[0]:
        return "instances"
    try:
        found, _ = find_pairs(source)
    except DataError as error:
        tables, others = find_tables(source)
        if tables:
            return "csv"
        files = visible(source, SUFFIXES)
        if not files:
            raise DataError(f"{source} has no images ({', '.join(SUFFIXES)}) and no annotations of them.") from error
        raise DataError(f"{error}{f' {others}' if others else ''}") from error
    masks = [one.pair.mask for one in found if one.pair.mask is not None]
    return "tiffstack" if _is_stack(masks[0]) else "masks"


def _is_stack(path: Path) -> bool:
    try:
        return path.suffix.lower() in (".tif", ".tiff") and count_pages(path) > 1
    except DataError:
        return False


def _table(source: Path) -> Path:
    if source.is_file():
        return source
    tables, others = find_tables(source)
    if not tables:
        raise DataError(f"{source} has no table (.csv) of images and masks.{f' {others}' if others else ''}")
    if len(tables) > 1:
        names = some([path.name for path in tables])
        raise DataError(f"{source} has several tables of images and masks ({names}); name the one that is meant.")
    return tables[0]
