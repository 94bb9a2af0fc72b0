"""What prediction writes of the classes of a run, from the options of the command, and what the files hold in words."""

import argparse
from pathlib import Path

from jaxseg.errors import ArgumentError, ConfigError, counted, printable
from jaxseg.inference.outputs import Outputs, class_folders
from jaxseg.run.load import Run, require_one_class
from jaxseg.types import IGNORE, ignore_label

_BITS_OF_PNG = 15  # classes of the largest set that a PNG file of 16 bits holds, beside the number for unknown


def outputs_of(run: Run, options: argparse.Namespace, out: Path, identity: str = "") -> Outputs:
    """Returns what is written for each image; raises ConfigError where the run does not know what its masks hold."""
    if run.parts.loss.multilabel:
        return _outputs_of_sets(run, options, out, identity)
    if options.format == "folders":
        raise ArgumentError(
            "--format folders writes a picture for each class where a pixel may have several (data.multilabel); "
            "--format png writes the class of each pixel."
        )
    in_masks, form, none = options.values == "masks", options.format, ignore_label(len(run.classes))
    if in_masks and not run.values:
        raise ConfigError(
            f"--values masks: the run in {run.workdir} was trained by a version that did not keep the values of the "
            "masks; its training command records them, in a moment if the run has finished."
        )
    if in_masks and options.thresholds and none in run.values and not run.color_masks:
        raise ArgumentError(
            f"--thresholds writes {none} where a pixel has no class, and --values masks writes {none} for the class "
            f"{run.classes[run.values.index(none)]}; leave one of the two out."
        )
    if in_masks and not run.color_masks and form == "color":
        raise ArgumentError(
            "--values masks writes the values that the masks hold, and --format color the colours of the classes; give "
            "one of the two."
        )
    if in_masks and run.color_masks and form != "color":
        if form != "png":
            raise ArgumentError(
                f"--values masks: the masks of the run hold colours, which --format {form} does not; give --format "
                "color."
            )
        form = "color"
    return Outputs(
        out,
        run.classes,
        run.colors,
        form=form,
        overlay=not options.no_overlay,
        probabilities=options.probabilities or options.top_k is not None,
        top_k=options.top_k or 0,
        values=tuple(run.values) if in_masks and form != "color" else (),
        identity=identity,
    )


def _outputs_of_sets(run: Run, options: argparse.Namespace, out: Path, identity: str) -> Outputs:
    """Returns what is written where a pixel may have several classes."""
    if options.values == "masks":
        require_one_class(run, "--values masks")
    if options.format == "color":
        require_one_class(run, "--format color")
    if options.format == "png" and len(run.classes) > _BITS_OF_PNG:
        raise ArgumentError(
            f"--format png holds 16 bits, and a set of {counted(len(run.classes), 'class')} has more: give --format "
            "folders, tiff or npz."
        )
    return Outputs(
        out,
        run.classes,
        run.colors,
        form=options.format,
        overlay=not options.no_overlay,
        probabilities=options.probabilities,
        identity=identity,
        multilabel=True,
    )


def meaning(run: Run, values: str, form: str) -> str:
    """Returns what the files of classes hold; each class where the masks hold other numbers, or colours."""
    if run.parts.loss.multilabel:
        bits = ", ".join(f"{1 << c} {printable(name)}" for c, name in enumerate(run.classes))
        kinds = {"folders": "and a folder for each other class: 255 where it is there", "npz": "the array `labels`, "}
        if form != "folders":
            return f"{kinds[form] if form in kinds else ''}sums of {bits}"
        others = [(cls, own) for cls, own in zip(run.classes, class_folders(tuple(run.classes))) if cls != own]
        return kinds[form] + "".join(f"; {printable(cls)} is in {own}" for cls, own in others)
    many = len(run.classes) > IGNORE
    if many and form in ("png", "tiff"):  # the list of what stands for each class would be long
        given = values == "masks" and not run.color_masks
        return "the values of the masks, in 16 bits" if given else "class indices, in 16 bits"
    if form != "png" and (values != "masks" or not run.values):
        kinds = {"color": "the colours of the classes", "tiff": "class indices, coloured by a palette"}
        return kinds[form] if form in kinds else "the array `labels` of class indices"
    if run.color_masks:
        pairs = [(f"({','.join(map(str, color))})", printable(name)) for color, name in zip(run.colors, run.classes)]
        if values == "masks":
            return "the colours of the masks: " + ", ".join(f"{color} {name}" for color, name in pairs)
        stand = ", ".join(f"{i} {name} ({color} in the masks)" for i, (color, name) in enumerate(pairs))
        return f"class indices, coloured by a palette: {stand}; --values masks writes the colours of the masks"
    if not run.values or run.values == tuple(range(len(run.classes))):
        return "class indices, coloured by a palette"
    pairs = list(zip(run.values, run.classes))
    if values == "masks":
        return "the values of the masks: " + ", ".join(f"{value} {printable(name)}" for value, name in pairs)
    stand = ", ".join(f"{i} {printable(name)} ({value} in the masks)" for i, (value, name) in enumerate(pairs))
    return f"class indices, coloured by a palette: {stand}; --values masks writes the values of the masks"
