"""The norm of the gradient by layer: shows whether gradients vanish or explode on the way from the loss to the image.

A run with `log.gradients` writes the norms to `gradients.jsonl`, see `jaxseg.run.report`.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxseg.build import Parts
from jaxseg.models import summary
from jaxseg.pictures.figure import DPI, save_figure
from jaxseg.run.report import GRADIENTS_FILE, read_log
from jaxseg.state import by_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE = "gradients.png"
_LINES = 5  # steps in one picture
_NAMES = 40  # names of layers in one picture


def layers(parts: Parts) -> tuple[str, ...]:
    """Returns the paths of the network's kernels, one for each layer, in the order of the forward pass.

    Layers that only training uses, such as auxiliary heads, come last.
    """
    height, width, channels = parts.image_shape
    place = {row.path: i for i, row in enumerate(summary.modules(parts.model, (height, width), channels))}
    variables, _ = summary.shapes(parts.model, (height, width), channels)
    owners = [name.removesuffix("/kernel") for name in by_path(variables["params"]) if name.endswith("/kernel")]
    return tuple(f"{name}/kernel" for name in sorted(owners, key=lambda n: place[n] if n in place else len(place)))


def of_layers(norms: Mapping[str, float | None], names: Sequence[str]) -> list[float]:
    """Returns the norms of the layers `names`; NaN for a layer without a norm above 0, which has no logarithm."""
    found = [norms[name] if name in norms else None for name in names]
    return [norm if norm else math.nan for norm in found]


def draw_run(parts: Parts, workdir: Path) -> None:
    """Draws the gradient norms of the run in `workdir` to its `gradients.png`; does nothing without log.gradients."""
    if not parts.config.log.gradients:
        return
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    records, names = read_log(workdir / GRADIENTS_FILE), layers(parts)
    figure = Figure(figsize=(11.0, 5.2), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    last = len(records) - 1
    for number in sorted({round(i * last / (_LINES - 1)) for i in range(_LINES)}):
        color = colormaps["viridis"](0.9 * number / max(last, 1))
        draw_layers(axis, of_layers(records[number]["norms"], names), f"step {records[number]['step']}", color=color)
    stride = -(-len(names) // _NAMES)
    shown = [name.removesuffix("/kernel") for name in names[::stride]]
    axis.set_xticks(range(0, len(names), stride), shown, rotation=90, fontsize=6)
    axis.set(title="gradient by layer, from the image to the logits", ylabel="norm of the gradient")
    axis.legend(frameon=False)
    save_figure(figure, workdir / PICTURE)


def draw_layers(axis: "Axes", norms: Sequence[float], label: str, *, whole: bool = False, **style: Any) -> None:
    """Draws the norms of one network's layers over their index, or with `whole` over their relative depth in [0, 1]."""
    places = [i / max(len(norms) - 1, 1) if whole else i for i in range(len(norms))]
    axis.plot(places, norms, marker=".", linewidth=1.2, label=label, **style)
    axis.set_yscale("log")
    axis.grid(alpha=0.3)
