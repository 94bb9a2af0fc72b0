"""What earlier calls of prediction left in a folder, and does not belong to the classes that a later one writes.

Files of the same networks, options and content of the image belong to them, and stay.
"""

import csv
import io
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxseg.errors import ConfigError, counted
from jaxseg.files import names_in_npz, read_json, write_atomically
from jaxseg.inference import uncertainty_files
from jaxseg.inference.outputs import Outputs, holds_own_arrays, is_output
from jaxseg.inference.predictions_table import images_of_table
from jaxseg.inference.regions import prediction as regions
from jaxseg.inference.regions.files import is_own

_PICTURES = (".png", ".tif", "-overlay.png", uncertainty_files.PICTURE)


@dataclass(frozen=True)
class EarlierFiles:
    """Finds and removes files of earlier calls that a call does not renew; `find_earlier` makes it before any writing.

    Several threads may call it.

    Attributes:
        out: the folder.
        owners: {file: NAME} of what the call writes, and of its images, which have no NAME ("").
        images: {NAME: image} of the table of the call before.
        removed: how many files were removed, by what they are called, such as "NAME-overlay.png".
        replaced: the images whose classes are others than before, and those of former outputs under their names.
        same: {NAME: image} of those whose classes are the same as before.
    """

    out: Path
    owners: Mapping[Path, str]
    images: Mapping[str, Path]
    removed: Counter[str] = field(default_factory=Counter)
    replaced: set[Path] = field(default_factory=set)
    same: dict[str, Path] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def beside(self, name: str, written: Collection[Path]) -> dict[str, Path]:
        """Returns {what: file} of the files of jaxseg under a NAME but those that are `written` anew."""
        ends = (*_PICTURES, ".npz", uncertainty_files.MAPS, regions.OUTLINES)
        files = {end: self.out / f"{name}{end}" for end in ends}
        found = {end: file for end, file in files.items() if os.path.isfile(file)}  # False for a name that is too long
        own = {end for end in _PICTURES if end in found and is_output(found[end])}
        marked = {  # arrays have no mark of their own, so a picture beside them has to have one
            ".npz": lambda file: holds_own_arrays(file) and (own or "made_by" in names_in_npz(file)),
            uncertainty_files.MAPS: lambda file: uncertainty_files.holds_maps(file) and own,
            regions.OUTLINES: is_own,
        }
        own |= {end for end, is_marked in marked.items() if end in found and is_marked(found[end])}

        def stays(file: Path) -> bool:
            place, former = file.resolve(), str(file.relative_to(self.out).with_suffix(""))
            of_another = former != name and former in self.images
            return file in written or of_another or (place in self.owners and self.owners[place] != name)

        return {f"NAME{end}": found[end] for end in own if not stays(found[end])}

    def keep(self, path: Path, name: str) -> None:
        """Learns of an image whose classes are the same as before, so that its other files stay."""
        with self._lock:
            self.same[name] = path.resolve()

    def remove(self, path: Path, name: str, files: Mapping[str, Path], renewed: Collection[Path] = ()) -> None:
        """Removes files that `beside` found, before other classes are written: they never lie beside these.

        Those that are `renewed` afterwards do not count as removed.

        Raises:
            OSError: if one cannot be removed.
        """
        for file in files.values():
            file.unlink(missing_ok=True)
        with self._lock:
            self.removed.update(what for what, file in files.items() if file not in renewed)
            self.replaced.update((path.resolve(), *([self.images[name]] if name in self.images else [])))

    def prune_tables(self, written: Collection[Path]) -> None:
        """Takes the images whose classes are others out of the tables of earlier calls but those `written` by this one.

        Those whose own files are gone, as after a call that was killed, are taken out too. A table without any image
        left is removed.

        Raises:
            ConfigError: if a table cannot be written.
        """
        tables: tuple[tuple[str, str, Callable[[Path], bool], Callable[..., tuple[int, int, bytes]]], ...] = (
            # first the annotations, which list images without regions too
            (regions.ANNOTATIONS, regions.OUTLINES, is_own, _annotations_without),
            (regions.TABLE, regions.OUTLINES, is_own, _lines_without),
            (uncertainty_files.TABLE, uncertainty_files.MAPS, uncertainty_files.is_table, _lines_without),
        )
        for name, end, own, without in tables:
            file = self.out / name
            gone = self.replaced | {p for each, p in self.same.items() if not (self.out / f"{each}{end}").is_file()}
            if file in written or not gone or not file.is_file() or not own(file):
                continue

            def is_gone(image: str, gone: Collection[Path] = gone) -> bool:
                return Path(image).resolve() in gone or (self.out / image).resolve() in gone

            try:
                count, left, content = without(file, is_gone)
                if not left and not (name == regions.TABLE and (self.out / regions.ANNOTATIONS).is_file()):
                    file.unlink()
                    self.removed[name] += 1
                elif count:
                    write_atomically(file, lambda stream, content=content: stream.write(content))
                    self.removed[f"{counted(count, 'entry')} of {name}"] += 1
            except (ValueError, KeyError, TypeError, csv.Error):  # it is damaged: nothing tells what it lists
                continue
            except OSError as error:
                raise ConfigError(f"{file} cannot be written: {error.strerror or error}.") from error

    def __str__(self) -> str:
        """One line about what was removed; "" if nothing was."""
        if not self.removed:
            return ""
        parts = [f"{count} {what}" if what.startswith("NAME") else what for what, count in sorted(self.removed.items())]
        why = "since an earlier call made it with other networks or options, or of other content of the images"
        return f"Removed, {why}: {', '.join(parts)}."


def find_earlier(outputs: Outputs, names: Mapping[Path, str], suffixes: Iterable[str]) -> EarlierFiles:
    """Returns what tells the files of earlier calls from those of this call.

    Args:
        outputs: what the call writes for each image.
        names: {image: the NAME of its outputs} of all images of the call.
        suffixes: what follows NAME in further files that it writes.
    """
    out, suffixes, owners = outputs.out, tuple(suffixes), {}
    for name in names.values():
        files = (*outputs.files(name).values(), *(out / f"{name}{suffix}" for suffix in suffixes))
        owners |= {file.resolve(): name for file in files}
    return EarlierFiles(out, owners | {path.resolve(): "" for path in names}, images_of_table(out))


def _lines_without(file: Path, replaced: Callable[[str], bool]) -> tuple[int, int, bytes]:
    """Returns how many lines of a table name replaced images, how many do not, and the table of these."""
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as lines:
        header, *rows = csv.reader(lines)
    kept = [row for row in rows if row and not replaced(row[0])]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *kept])
    return len(rows) - len(kept), len(kept), text.getvalue().encode("utf-8", "surrogateescape")


def _annotations_without(file: Path, replaced: Callable[[str], bool]) -> tuple[int, int, bytes]:
    """As `_lines_without`, of the images of a file of COCO."""
    content: dict[str, Any] = read_json(file)
    kept = [image for image in content["images"] if not replaced(image["file_name"])]
    known = {image["id"] for image in kept}
    count = len(content["images"]) - len(kept)
    content |= {"images": kept, "annotations": [a for a in content["annotations"] if a["image_id"] in known]}
    return count, len(kept), f"{json.dumps(content)}\n".encode()
