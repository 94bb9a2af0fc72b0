"""The page on which a person keeps or rejects proposals: one file without a server, filled into `review.html`."""

import base64
import importlib.resources
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxseg import pictures
from jaxseg.data.proposals import MADE_BY, Decision, Row
from jaxseg.errors import printable
from jaxseg.pictures.images import DARK
from jaxseg.types import IGNORE

MARK = '<meta name="generator" content="jaxseg propose">'
"""What a page has in its head, by which a later call knows that it may replace it."""
SIDE = 384
"""Pixels of the longer side of the pictures in the page; larger images are made smaller."""


class Card(NamedTuple):
    """What the page shows of a proposal: its line of the table, the digest of its mask, and pictures as data URLs."""

    row: Row
    digest: str
    size: tuple[int, int]
    image: str
    mask: str
    confidence: str

    @classmethod
    def of(
        cls,
        row: Row,
        digest: str,
        image: np.ndarray,
        classes: np.ndarray,
        confidence: np.ndarray,
        colors: Sequence[tuple[int, int, int]],
    ) -> "Card":
        """Makes the pictures of a proposal.

        Args:
            row: its line of the table.
            digest: of its mask.
            image: u8|u16|f32[h,w,c].
            classes: u8[h,w].
            confidence: f32[h,w], in [0, 1].
            colors: of the classes; one that is nearly black, as that of a background often is, is transparent.
        """
        h, w = classes.shape
        factor = max(1.0, max(h, w) / SIDE)
        size = max(1, round(w / factor)), max(1, round(h / factor))
        picture = Image.fromarray(pictures.to_rgb(image)).resize(size, Image.Resampling.LANCZOS)
        overlay = Image.fromarray(_layer(classes, colors)).resize(size, Image.Resampling.NEAREST)
        sure = Image.fromarray(np.round(255 * confidence).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
        form = "PNG" if max(h, w) <= 128 else "JPEG"
        return cls(row, digest, (h, w), _url(picture, form), _url(overlay, "PNG"), _url(sure, "PNG"))


def make_page(
    cards: Sequence[Card],
    classes: Sequence[str],
    colors: Sequence[tuple[int, int, int]],
    decisions: Mapping[str, Decision],
    title: str,
    folder: str,
) -> str:
    """Returns the text of the page.

    Args:
        cards: the proposals, in their order.
        classes, colors: of the masks.
        decisions: those that decisions.json has already.
        title: what made the proposals, in words.
        folder: the path of the folder, under which the browser keeps what was decided.
    """
    known = [
        {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*color), "clear": max(color) <= DARK}
        for name, color in zip(classes, colors)
    ]
    data = {
        "made_by": MADE_BY,
        "folder": printable(folder),
        "title": title,
        "classes": list(classes),
        "legend": known,
        "proposals": [_of_card(card) for card in cards],
        "decisions": {name: found._asdict() for name, found in decisions.items()},
    }
    template = importlib.resources.files("jaxseg.propose").joinpath("review.html").read_text(encoding="utf-8")
    # No text of a user can end the element, for it has no "<"; JSON has no other place where one may stand.
    return template.replace("__DATA__", json.dumps(data).replace("<", "\\u003c").replace(">", "\\u003e"))


def is_page(file: Path) -> bool:
    """Returns whether a file is a page that `jaxseg propose` wrote."""
    with file.open("rb") as stream:
        return MARK.encode() in stream.read(2048)


def _of_card(card: Card) -> dict[str, Any]:
    row = card.row
    return {
        "name": row.name,
        "path": printable(str(row.image)),
        "mask": card.digest,
        "score": row.score,
        "confidence": row.confidence,
        "size": f"{card.size[1]} × {card.size[0]}",
        "picture": card.image,
        "overlay": card.mask,
        "sure": card.confidence,
    }


def _layer(classes: np.ndarray, colors: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Returns u8[h,w,4], the colours of the classes, transparent where an overlay is (see `pictures.overlay`)."""
    shown = pictures.colorize(classes, colors)
    clear = (classes == IGNORE) | (shown.max(-1) <= DARK)
    return np.concatenate([shown, np.where(clear, 0, 255).astype(np.uint8)[..., None]], -1)


def _url(picture: Image.Image, form: str) -> str:
    file = io.BytesIO()
    picture.save(file, form, **({"quality": 85} if form == "JPEG" else {"optimize": True}))
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
