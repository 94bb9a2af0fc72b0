"""Images of a page under layers: of truth, predictions and errors, of which two share the image at a divider."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxseg import pictures
from jaxseg.pages.frame import data_url, escape
from jaxseg.pictures.colors import Colors
from jaxseg.pictures.images import DARK
from jaxseg.types import ignore_label

SIDES = (512, 384, 256, 192, 128)
"""Pixels of the longer side of the pictures in a page: the first with which a page keeps its size."""
MOST_CHARACTERS = 12_000_000
"""The most characters that the pictures of a page take together."""
WRONG = (225, 0, 130, 255)
_LATER = 'decoding="async" loading="lazy"'  # of pictures: those out of sight are left until they are seen
_SMALL = 128  # images of so few pixels a side are PNG, exact


class Picture(NamedTuple):
    """The pictures of an image as data URLs: the image, and its layers in the order of their names."""

    image: str
    layers: tuple[str, ...]


class Card(NamedTuple):
    """An image of a page.

    Attributes:
        key: its name in the address.
        name: its name, as text.
        lines: what is said about it, as text.
        groups: the values of the filter that it belongs to.
        sorts: {what it can be sorted by: number}.
        classes: the indices of the classes that it holds.
        picture: its pictures.
    """

    key: str
    name: str
    lines: Sequence[str]
    groups: Sequence[str]
    sorts: Mapping[str, float]
    classes: Sequence[int]
    picture: Picture


def reduced(array: np.ndarray, side: int) -> np.ndarray:
    """Returns every n-th row and column of a map [h,w] so that its longer side has at most `side` pixels."""
    h, w = array.shape[:2]
    height, width = smaller((h, w), side)
    rows = ((np.arange(height) + 0.5) * h / height).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * w / width).astype(np.int64)
    return array[rows[:, None], columns]


def smaller(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Returns (height, width) with the longer one at most `side`."""
    factor = max(1.0, max(size) / side)
    return max(1, round(size[0] / factor)), max(1, round(size[1] / factor))


def photograph(image: np.ndarray, side: int) -> str:
    """Returns an image u8|u16|f32[h,w,c] as a data URL, its longer side at most `side`."""
    h, w = smaller((image.shape[0], image.shape[1]), side)
    picture = Image.fromarray(pictures.to_rgb(image))
    if picture.size != (w, h):
        picture = picture.resize((w, h), Image.Resampling.LANCZOS)
    return data_url(picture, "PNG" if max(h, w) <= _SMALL else "JPEG", quality=80)


def color_layer(classes: np.ndarray, colors: Colors) -> np.ndarray:
    """Returns u8[h,w,4], the colours of the classes, transparent where `pictures.overlay` is: IGNORE, nearly black."""
    shown = pictures.colorize(classes, colors)
    clear = (classes == ignore_label(len(colors))) | (shown.max(-1) <= DARK)
    return np.concatenate([shown, np.where(clear, 0, 255).astype(np.uint8)[..., None]], -1)


def error_layer(truth: np.ndarray, prediction: np.ndarray, ignored: int) -> np.ndarray:
    """Returns u8[h,w,4]: `WRONG` where the prediction is not the truth, grey where there is none, else transparent."""
    layer = np.zeros((*truth.shape, 4), np.uint8)
    layer[truth != prediction] = WRONG
    layer[truth == ignored] = (*pictures.IGNORE_COLOR, 160)
    return layer


def layer_url(layer: np.ndarray, side: int) -> str:
    """Returns a layer u8[h,w,4] as a data URL; few colours take few bytes."""
    small = np.ascontiguousarray(reduced(layer, side))
    picture = Image.fromarray(small)
    few = picture.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    exact = np.array_equal(np.asarray(few.convert("RGBA")), small)
    return data_url(few if exact else picture, "PNG")


def fitting(make: Callable[[int], dict[str, Picture]], limit: int = MOST_CHARACTERS) -> dict[str, Picture]:
    """Returns the pictures of `make(side)` with the largest side of `SIDES` with which they keep the limit."""
    made: dict[str, Picture] = {}
    for side in SIDES:
        made = make(side)
        if sum(len(p.image) + sum(map(len, p.layers)) for p in made.values()) <= limit:
            break
    return made


def gallery(
    cards: Sequence[Card],
    layers: Sequence[str],
    groups: Sequence[tuple[str, str]],
    classes: Sequence[str],
    colors: Colors,
    *,
    shown: tuple[int, int] = (0, 1),
) -> str:
    """Returns the cards and the tools above them as HTML.

    Args:
        cards: the images.
        layers: the names of the layers.
        groups: (value, name) of the choices of the filter; a card is shown if the value is among its groups.
        classes, colors: of the data.
        shown: the layers left and right of the divider at first; -1: the image alone.
    """

    def choices(chosen: int) -> str:
        names = [(-1, "image alone"), *enumerate(layers)]
        return "".join(
            f'<option value="{i}"{" selected" if i == chosen else ""}>{escape(name)}</option>' for i, name in names
        )

    kinds = "".join(f'<option value="{escape(value)}">{escape(name)}</option>' for value, name in groups)
    held = sorted({c for card in cards for c in card.classes})
    of_class = "".join(f'<option value="{c}">{escape(classes[c])}</option>' for c in held)
    sorts = dict.fromkeys(name for card in cards for name in card.sorts)
    order = "".join(f'<option value="{i}">{escape(name)}</option>' for i, name in enumerate(sorts))
    legend = "".join(_entry(classes[c], colors[c]) for c in held[:40])
    error = (
        f'<li><i style="background:rgb{WRONG[:3]}"></i>wrong, in a layer error</li>'
        if any(name.endswith("error") for name in layers)
        else ""
    )
    return (
        '<div class="gallery"><div class="tools">'
        f'<label>Show <select class="group">{kinds}</select></label>'
        f'<label>with class <select class="of-class"><option value="">any</option>{of_class}</select></label>'
        f'<label>Sort by <select class="order">{order}</select></label>'
        '<label>Name <input type="search" class="named"></label>'
        f'<label>Left <select class="left">{choices(shown[0])}</select></label>'
        '<label>Divider <input type="range" class="cut" min="0" max="100" value="50" '
        'aria-label="Divider: per cent of the width that the left layer has"></label>'
        f'<label>Right <select class="right">{choices(shown[1])}</select></label>'
        '<label>Opacity <input type="range" class="opacity" min="0" max="100" value="60" '
        'aria-label="Opacity of the layers in per cent"></label>'
        '<label><input type="checkbox" class="grey"> Grey image</label>'
        f'<span role="status" class="count"></span></div><ul class="swatches" aria-label="Classes">{legend}{error}</ul>'
        f'<div class="cards">{"".join(_card(card, list(sorts), shown, layers) for card in cards)}</div>'
        '<p class="none" hidden>No image is shown: choose another filter.</p>'
        '<dialog aria-label="Image"><form method="dialog"><button type="button" class="before">‹ Before</button>'
        '<button type="button" class="next">Next ›</button><button>Close</button></form><h3></h3>'
        "<div></div></dialog></div>"
    )


def _entry(name: str, color: Sequence[int]) -> str:
    red, green, blue = map(int, color)
    clear = max(red, green, blue) <= DARK
    style = "" if clear else f' style="background:rgb({red},{green},{blue})"'
    return f"<li><i{style}></i>{escape(name)}{' (not drawn)' if clear else ''}</li>"


def _card(card: Card, sorts: Sequence[str], shown: tuple[int, int], layers: Sequence[str]) -> str:
    sides = {shown[0]: "left", shown[1]: "right"}
    images = "".join(
        f'<img class="layer {sides[i] if i in sides else ""}" data-layer="{i}" alt="" src="{url}" {_LATER}>'
        for i, url in enumerate(card.picture.layers)
    )
    found = [card.sorts[name] if name in card.sorts else math.nan for name in sorts]
    values = " ".join("" if math.isnan(v) else f"{v:.9g}" for v in found)
    lines = "".join(f"<p>{escape(line)}</p>" for line in card.lines)
    return (
        f'<article id="{escape(card.key)}" data-groups="{escape(" ".join(card.groups))}" '
        f'data-classes="{" ".join(map(str, card.classes))}" data-sorts="{values}" tabindex="-1">'
        f'<button type="button" class="picture" aria-label="Enlarge {escape(card.name)}">'
        f'<img class="base" alt="Image {escape(card.name)}" src="{card.picture.image}" {_LATER}>{images}'
        f"</button><h3>{escape(card.name)}</h3>{lines}</article>"
    )
