"""Draws the pictures of the pages of blocks as SVG: `python docs/blocks/drawings.py` writes docs/images/blocks/*.svg.

Each picture has a light panel of its own behind it, so that it is legible on a light and on a dark page.
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "images" / "blocks"

INK, PANEL, EDGE = "#1b2130", "#f7f8fb", "#c6cbd6"
FILLS = {
    "conv": ("#cfe0fb", "#3566b0"),
    "norm": ("#d5efd9", "#3c8a4c"),
    "act": ("#fde3c4", "#b5701b"),
    "pool": ("#e7daf6", "#7a4db3"),
    "data": ("#ffffff", "#6b7385"),
    "gate": ("#fbd3d8", "#b53a4c"),
}
STRONG = {"query": "#b53a4c", "seen": "#8fb4ee", "none": "#ffffff"}
HEIGHT = 30  # of a box
GAP = 26  # between two boxes of a chain

Point = tuple[float, float]


class Drawing:
    """Boxes, arrows and cells on a panel of `width` x `height` pixels."""

    def __init__(self, width: int, height: int, title: str):
        self.width, self.height, self.title, self.parts = width, height, title, []

    def text(self, x: float, y: float, text: str, size: int = 13, anchor: str = "middle", bold: bool = False) -> None:
        weight = ' font-weight="bold"' if bold else ""
        self.parts.append(f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}"{weight}>{text}</text>')

    def box(self, x: float, y: float, text: str, kind: str, width: float = 0) -> float:
        """Draws a box around (x, y), at least as wide as its text, and returns its width."""
        width = width or box_width(text)
        fill, stroke = FILLS[kind]
        self.parts.append(
            f'<rect x="{x - width / 2:g}" y="{y - HEIGHT / 2:g}" width="{width:g}" height="{HEIGHT}" rx="5" '
            f'fill="{fill}" stroke="{stroke}"/>'
        )
        self.text(x, y + 4.5, text)
        return width

    def circle(self, x: float, y: float, text: str) -> None:
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="11" fill="#ffffff" stroke="{INK}"/>')
        self.text(x, y + 5, text, 15)

    def arrow(self, *points: Point, head: bool = True) -> None:
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        end = ' marker-end="url(#head)"' if head else ""
        self.parts.append(f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="1.4"{end}/>')

    def line(self, start: Point, end: Point, colour: str = INK, width: float = 1.4) -> None:
        self.parts.append(
            f'<line x1="{start[0]:g}" y1="{start[1]:g}" x2="{end[0]:g}" y2="{end[1]:g}" stroke="{colour}" '
            f'stroke-width="{width:g}"/>'
        )

    def cell(self, x: float, y: float, side: float, fill: str) -> None:
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}" fill="{fill}" stroke="{EDGE}"/>'
        )

    def grid(self, x: float, y: float, side: float, shape: tuple[int, int], fill: Callable[[int, int], str]) -> None:
        """Draws rows and columns of cells, filled with what `fill(row, column)` names in STRONG; a path a colour."""
        paths: dict[str, str] = {}
        for row, column in itertools.product(range(shape[0]), range(shape[1])):
            colour = STRONG[fill(row, column)]
            start = f"M{x + column * side:g} {y + row * side:g}"
            paths[colour] = paths.setdefault(colour, "") + f"{start}h{side:g}v{side:g}h-{side:g}z"
        self.parts += [f'<path d="{path}" fill="{colour}" stroke="{EDGE}"/>' for colour, path in paths.items()]

    def chain(self, x: float, y: float, boxes: Sequence[tuple[str, str]]) -> list[float]:
        """Draws boxes from left to right with arrows between them, from the left edge x; returns their centres."""
        centres = []
        for number, (text, kind) in enumerate(boxes):
            width = box_width(text)
            if number:
                self.arrow((x - GAP, y), (x - 2, y))
            self.box(x + width / 2, y, text, kind)
            centres.append(x + width / 2)
            x += width + GAP
        return centres

    def column(self, x: float, y: float, boxes: Sequence[tuple[str, str]], step: float = 46, width: float = 0) -> float:
        """Draws boxes from top to bottom with arrows between them; returns the y of the last."""
        for number, (text, kind) in enumerate(boxes):
            if number:
                self.arrow((x, y - step + HEIGHT / 2), (x, y - HEIGHT / 2 - 2))
            self.box(x, y, text, kind, width)
            y += step
        return y - step

    def svg(self) -> str:
        """Returns the picture as a file's text."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" font-family="Helvetica, Arial, sans-serif" fill="{INK}" role="img">'
        )
        marker = (
            '<defs><marker id="head" markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto">'
            f'<path d="M0 0 L6.5 3 L0 6 z" fill="{INK}"/></marker></defs>'
        )
        panel = (
            f'<rect x=".5" y=".5" width="{self.width - 1}" height="{self.height - 1}" rx="8" fill="{PANEL}" '
            f'stroke="{EDGE}"/>'
        )
        return "\n".join([head, f"<title>{self.title}</title>", marker, panel, *self.parts, "</svg>"]) + "\n"


def box_width(text: str) -> float:
    return max(30, 7.1 * len(text) + 18)


def convolution() -> Drawing:
    drawing = Drawing(640, 150, "ConvNormAct, and its separable form")
    drawing.text(16, 28, "ConvNormAct", anchor="start", bold=True)
    plain = [("x", "data"), ("conv k×k, c → f", "conv"), ("norm", "norm"), ("act", "act"), ("y", "data")]
    drawing.chain(16, 52, plain)
    drawing.text(16, 98, "separable=True", anchor="start", bold=True)
    separable = [("x", "data"), ("k×k of each channel", "conv"), ("1×1, c → f", "conv"), ("norm", "norm")]
    drawing.chain(16, 122, [*separable, ("act", "act"), ("y", "data")])
    return drawing


def dilated() -> Drawing:
    drawing = Drawing(640, 216, "The taps of a 3x3 convolution at three atrous rates")
    for number, rate in enumerate((1, 2, 4)):
        left = 22 + 208 * number
        drawing.text(left + 90, 24, f"rate {rate}: 9 taps, field {2 * rate + 1}×{2 * rate + 1}", bold=True)

        def fill(row: int, column: int, rate: int = rate) -> str:
            if (row, column) == (5, 5):
                return "query"
            return "seen" if {row - 5, column - 5} <= {-rate, 0, rate} else "none"

        drawing.grid(left + 2, 34, 16, (11, 11), fill)
    return drawing


def upsampling() -> Drawing:
    drawing = Drawing(640, 330, "Three ways up, and where the taps of a transposed convolution fall")
    rows = [
        ("ConvTranspose", [("x", "data"), ("transposed k×k, c → f", "conv"), ("y: 2h × 2w", "data")]),
        ("resize, then ConvNormAct", [("x", "data"), ("resize ×2", "pool"), ("conv 3×3, c → f", "conv")]),
        ("SubPixelUp", [("x", "data"), ("conv 3×3, c → 4 f", "conv"), ("channels → 2×2 pixels", "pool")]),
    ]
    for number, (name, boxes) in enumerate(rows):
        drawing.text(16, 24 + 62 * number, name, anchor="start", bold=True)
        ends = [] if boxes[-1][1] == "data" else [("y: 2h × 2w", "data")]
        drawing.chain(16, 48 + 62 * number, [*boxes, *ends])
    for number, (kernel, before, counts) in enumerate(((2, 0, "1 1 1 1 1 1"), (3, 1, "1 2 1 2 1 1"))):
        left, top = 30 + 310 * number, 230
        drawing.text(left + 110, top - 12, f"kernel {kernel}, stride 2, along one axis", bold=True)
        for i in range(3):
            drawing.cell(left + 32 + 72 * i, top, 16, STRONG["seen"])
            for tap in range(kernel):
                target = 2 * i - before + tap
                if 0 <= target < 6:
                    drawing.line((left + 40 + 72 * i, top + 16), (left + 22 + 36 * target, top + 60), width=1)
        for target, count in enumerate(counts.split()):
            drawing.cell(left + 14 + 36 * target, top + 60, 16, "#ffffff")
            drawing.text(left + 22 + 36 * target, top + 73, count, 12)
    drawing.text(320, 322, "The numbers count the taps that reach a pixel.", 12)
    return drawing


def norms() -> Drawing:
    drawing = Drawing(640, 186, "Which values share one mean and variance")
    shared: dict[str, Callable[[int, int], bool]] = {
        "batch": lambda image, channel: channel == 1,
        "group": lambda image, channel: image == 1 and channel in (2, 3),
        "instance": lambda image, channel: image == 1 and channel == 1,
    }
    for number, (name, inside) in enumerate(shared.items()):
        left = 70 + 146 * number
        drawing.text(left + 54, 26, name, bold=True)
        drawing.grid(left, 36, 18, (4, 6), lambda i, j, inside=inside: "seen" if inside(i, j) else "none")
    left = 70 + 146 * 3
    drawing.text(left + 54, 26, "layer", bold=True)
    drawing.grid(left, 36, 18, (4, 6), lambda i, j: "none")
    for channel in range(6):
        drawing.cell(left + 18 * channel + 6, 36 + 18 + 6, 6, STRONG["seen"])
    drawing.text(62, 76, "images", 11, "end")
    drawing.text(124, 124, "channels", 11)
    drawing.text(320, 150, "A cell holds the h × w pixels of one channel of one image.", 12)
    drawing.text(320, 168, "The layer norm takes one pixel of a cell, with that of all channels.", 12)
    return drawing


def aspp() -> Drawing:
    drawing = Drawing(640, 262, "Atrous spatial pyramid pooling")
    rows = ["1×1", "3×3, rate r1", "3×3, rate r2", "3×3, rate r3", "mean of the image, 1×1"]
    drawing.box(34, 130, "x", "data")
    drawing.box(400, 130, "concat", "data")
    for number, text in enumerate(rows):
        y = 36 + 47 * number
        width = box_width(text)
        drawing.arrow((49, 130), (78, 130), (78, y), (210 - width / 2 - 2, y))
        drawing.box(210, y, text, "pool" if "mean" in text else "conv")
        drawing.arrow((210 + width / 2, y), (340, y), (340, 130), (400 - box_width("concat") / 2 - 2, 130))
    drawing.chain(460, 130, [("1×1, 5 f → f", "conv"), ("y", "data")])
    drawing.arrow((400 + box_width("concat") / 2, 130), (458, 130))
    return drawing


def residual() -> Drawing:
    drawing = Drawing(640, 470, "Three residual units")
    units = {
        "BasicBlock": ["conv", "norm", "act", "conv", "norm", "+", "act"],
        "PreActBlock": ["norm", "act", "conv", "norm", "act", "conv", "+"],
        "ResidualBlock": ["h(x)", "W_r", "+", "act"],
    }
    words = {"conv": "conv 3×3", "norm": "norm", "act": "act", "h(x)": "your branch h", "W_r": "W_r"}
    for number, (name, parts) in enumerate(units.items()):
        x, step = 90 + 205 * number, 48
        drawing.text(x + 20, 26, name, bold=True)
        drawing.box(x, 56, "x", "data")
        y, side, before = 56 + step, x + 86, 56 + HEIGHT / 2
        for part in parts:
            radius = 11 if part == "+" else HEIGHT / 2
            drawing.arrow((x, before), (x, y - radius - 2))
            if part == "+":
                drawing.circle(x, y, "+")
                drawing.arrow((x + 15, 56), (side, 56), (side, y), (x + 13, y))
                if name == "ResidualBlock":
                    drawing.box(side, (56 + y) / 2, "W_c", "conv")
            else:
                kind = {"conv": "conv", "norm": "norm", "act": "act", "h(x)": "data", "W_r": "conv"}[part]
                drawing.box(x, y, words[part], kind)
            before, y = y + radius, y + step
        drawing.arrow((x, before), (x, y - 17))
        drawing.text(x, y - 4, "y")
    return drawing


def bottleneck() -> Drawing:
    drawing = Drawing(640, 376, "The widths inside a bottleneck and inside an inverted residual unit")
    units = {
        "BottleneckBlock": [("1×1", 70, "conv"), ("3×3", 70, "conv"), ("1×1", 200, "conv")],
        "InvertedResidual": [("1×1", 200, "conv"), ("3×3 of each channel", 200, "conv"), ("1×1, no act", 70, "conv")],
    }
    for number, (name, boxes) in enumerate(units.items()):
        x = 150 + 310 * number
        drawing.text(x + 20, 26, name, bold=True)
        wide = 200 if number == 0 else 90
        drawing.box(x, 56, "x: c channels", "data", wide if number == 0 else 110)
        before, y = 71, 108
        for text, width, kind in boxes:
            drawing.arrow((x, before), (x, y - HEIGHT / 2 - 2))
            drawing.box(x, y, text, kind, max(width, box_width(text)) if width == 70 else width)
            before, y = y + HEIGHT / 2, y + 52
        drawing.arrow((x, before), (x, y - 13))
        drawing.circle(x, y, "+")
        start = x + (100 if number == 0 else 55)
        drawing.arrow((start, 56), (x + 128, 56), (x + 128, y), (x + 13, y))
        before = y + 11
        if number == 0:
            drawing.arrow((x, before), (x, y + 31))
            drawing.box(x, y + 48, "act", "act")
            before = y + 63
        drawing.arrow((x, before), (x, before + 20))
        drawing.text(x, before + 34, "y")
    return drawing


def squeeze_excite() -> Drawing:
    drawing = Drawing(700, 130, "Squeeze-and-excitation")
    boxes = [("x", "data"), ("mean over h, w", "pool"), ("1×1, c → m", "conv"), ("ReLU", "act"), ("1×1, m → c", "conv")]
    centres = drawing.chain(16, 88, [*boxes, ("sigmoid", "gate")])
    end = centres[-1] + box_width("sigmoid") / 2
    drawing.arrow((end, 88), (end + 28, 88))
    drawing.circle(end + 41, 88, "×")
    drawing.arrow((centres[0], 73), (centres[0], 34), (end + 41, 34), (end + 41, 75))
    drawing.arrow((end + 52, 88), (end + 80, 88))
    drawing.text(end + 90, 92, "y")
    drawing.text((centres[0] + end) / 2, 26, "f[b,h,w,c]", 12)
    return drawing


def attention_gate() -> Drawing:
    drawing = Drawing(700, 200, "The attention gate of a skip")
    first = drawing.chain(16, 88, [("skip", "data"), ("θ: r×r, stride r", "conv")])
    second = drawing.chain(16, 160, [("gate", "data"), ("φ: 1×1", "conv")])
    drawing.circle(250, 88, "+")
    drawing.arrow((first[1] + box_width("θ: r×r, stride r") / 2, 88), (237, 88))
    drawing.arrow((second[1] + box_width("φ: 1×1") / 2, 160), (250, 160), (250, 101))
    boxes = [("ReLU", "act"), ("ψ: 1×1", "conv"), ("sigmoid", "gate"), ("resize", "pool")]
    centres = drawing.chain(284, 88, boxes)
    drawing.arrow((261, 88), (282, 88))
    end = centres[-1] + box_width("resize") / 2
    drawing.arrow((end, 88), (end + 26, 88))
    drawing.circle(end + 39, 88, "×")
    drawing.text(end + 14, 80, "α", 13)
    drawing.arrow((first[0], 73), (first[0], 36), (end + 39, 36), (end + 39, 75))
    drawing.arrow((end + 50, 88), (end + 72, 88))
    drawing.text(end + 82, 92, "y")
    return drawing


def self_attention() -> Drawing:
    drawing = Drawing(700, 220, "Self-attention over pixels")
    drawing.box(66, 110, "x + position", "data")
    right = 66 + box_width("x + position") / 2
    for y, text in ((40, "query: t × d"), (110, "key: t × d"), (180, "value: t × d")):
        drawing.arrow((right, 110), (right + 16, 110), (right + 16, y), (206 - box_width(text) / 2 - 2, y))
        drawing.box(206, y, text, "conv")
    drawing.box(346, 75, "q kᵀ / √d", "data")
    drawing.arrow((206 + box_width("query: t × d") / 2, 40), (346, 40), (346, 58))
    drawing.arrow((206 + box_width("key: t × d") / 2, 110), (346, 110), (346, 92))
    drawing.box(446, 75, "softmax", "gate")
    drawing.arrow((346 + box_width("q kᵀ / √d") / 2, 75), (446 - box_width("softmax") / 2 - 2, 75))
    drawing.text(514, 68, "t × t", 12)
    drawing.circle(549, 110, "·")
    drawing.arrow((446 + box_width("softmax") / 2, 75), (549, 75), (549, 97))
    drawing.arrow((206 + box_width("value: t × d") / 2, 180), (549, 180), (549, 123))
    drawing.chain(582, 110, [("out", "conv"), ("y", "data")])
    drawing.arrow((560, 110), (580, 110))
    return drawing


def windows() -> Drawing:
    drawing = Drawing(640, 196, "Which pixels one pixel sees")
    query = (2, 5)
    seen: dict[str, Callable[[int, int], bool]] = {
        "all pixels": lambda i, j: True,
        "a window": lambda i, j: i < 4 and j >= 4,
        "a moved window": lambda i, j: 2 <= i < 6 and 2 <= j < 6,
        "row and column": lambda i, j: i == query[0] or j == query[1],
    }
    for number, (name, inside) in enumerate(seen.items()):

        def fill(row: int, column: int, inside: Callable[[int, int], bool] = inside) -> str:
            if (row, column) == query:
                return "query"
            return "seen" if inside(row, column) else "none"

        left = 20 + 154 * number
        drawing.text(left + 68, 26, name, bold=True)
        drawing.grid(left, 38, 17, (8, 8), fill)
    return drawing


DRAWINGS: dict[str, Callable[[], Drawing]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        convolution,
        dilated,
        upsampling,
        norms,
        aspp,
        residual,
        bottleneck,
        squeeze_excite,
        attention_gate,
        self_attention,
        windows,
    )
}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWINGS.items():
        (FOLDER / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
