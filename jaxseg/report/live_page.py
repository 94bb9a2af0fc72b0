"""The page of a run while it trains: what the log says, written again after each evaluation. It costs milliseconds."""

import math
from collections.abc import Sequence
from pathlib import Path

from jaxseg.config import ConfigDict
from jaxseg.pages.frame import Section, escape, facts, make_page, write_page
from jaxseg.pages.tables import bar, share, swatch, table
from jaxseg.pictures.colors import Colors
from jaxseg.report import parts
from jaxseg.report.run_page import PAGE, PROGRAM, log_of


def _share(value: float | None, unknown: float = math.nan) -> float:
    """Returns a score of the log, in which None stands for one that no pixel decides."""
    return unknown if value is None else float(value)


def write_live_page(workdir: Path, config: ConfigDict, classes: Sequence[str], colors: Colors) -> None:
    """Writes `PAGE` into the workdir of a run: its curves, the IoU of each class at the last evaluation, its keys.

    Raises:
        ConfigError: if it cannot be written, or would replace a file that `jaxseg report` did not write.
    """
    log = log_of(workdir)
    scored = [line for line in log if "split" in line and line["split"] != "train"]
    step = max((line["step"] for line in log), default=0)
    pairs = [("step", f"{step} of {config.steps}")]
    sections = [Section("Curves", "curves", parts.curves({workdir.name: log}))]
    if scored:
        last = scored[-1]
        best = max(scored, key=lambda line: _share(line["mean_iou"], -1.0))
        pairs += [
            (f"mean IoU at step {last['step']}", f"{100 * _share(last['mean_iou']):.2f} %"),
            (f"best, at step {best['step']}", f"{100 * _share(best['mean_iou']):.2f} %"),
        ]
        values = [_share(value) for value in last["iou"]]
        rows = [
            [swatch(classes[i], colors[i]), share(value), bar(value, math.nan, math.nan)]
            for i, value in enumerate(values)
            if len(values) <= 255 or not math.isnan(value)
        ]
        listed = table(f"At step {last['step']}", ("class", "IoU %", "0 to 100 %"), rows)
        sections.append(Section("Classes", "classes", listed))
    sections.append(Section("Configuration", "configuration", parts.config_table(config)))
    about = (
        f"<p>The run in <code>{escape(workdir)}</code>, as of its last evaluation; load the page again for the next."
    )
    if not config.data.multilabel:  # of which jaxseg report shows nothing
        about += " <code>jaxseg report</code> writes the page with images."
    page = make_page(PROGRAM, f"{workdir.name}: {config.model.name}", f"{about}</p>{facts(pairs)}", sections)
    write_page(workdir / PAGE, page, PROGRAM, "move it out of the workdir")
