"""The page on which a person keeps or rejects proposals: one file without a server, filled into `review.html`."""

import importlib.resources
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxseg import pictures
from jaxseg.data.proposals import MADE_BY, Decision, Row
from jaxseg.errors import printable
from jaxseg.pages.cards import color_layer
from jaxseg.pages.frame import data_url, embed
from jaxseg.pictures.images import DARK

PROGRAM = "jaxseg propose"
"""What the page names as its writer, see `pages.frame.is_page`."""
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
        overlay = Image.fromarray(color_layer(classes, colors)).resize(size, Image.Resampling.NEAREST)
        sure = Image.fromarray(np.round(255 * confidence).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
        form = "PNG" if max(h, w) <= 128 else "JPEG"
        return cls(row, digest, (h, w), data_url(picture, form), data_url(overlay, "PNG"), data_url(sure, "PNG"))


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
    return template.replace("__DATA__", embed(data))


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
