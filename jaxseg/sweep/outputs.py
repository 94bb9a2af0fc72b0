"""The files that a sweep writes into its folder, and the refusal to replace files of someone else there."""

from pathlib import Path

from jaxseg.pictures import marks

PLAN_FILE = "sweep.json"
RESERVED = (
    "compiled",
    PLAN_FILE,
    "results.jsonl",
    "plot.png",
    "report.html",
    "table.md",
    "table.csv",
    "timing.md",
    "timing.csv",
    "gradients.png",
    "gradients.csv",
)
"""Names that a sweep uses in its folder beside those of its variants."""


def require_own_report(workdir: Path, gradients: bool = False) -> None:
    """Raises ConfigError if the report would replace a file that no sweep wrote.

    `gradients`: the runs that come log their gradients, as those that are there may have done; else the report has no
    file of gradients. Texts are those of a sweep where its plan, which is written first, is beside them; pictures have
    a mark.
    """
    instead = "give another --workdir, or move it out of this one"
    gradients = gradients or any(workdir.glob("*/seed-*/gradients.jsonl"))
    names = [name for name in RESERVED if gradients or not name.startswith("gradients")]
    texts = [workdir / name for name in names if Path(name).suffix in (".md", ".csv", ".jsonl")]
    found = [file for file in texts if file.exists()]
    if found and not (workdir / PLAN_FILE).exists():
        raise marks.refusal(found[0], instead)
    for name in names:
        if name.endswith(".png"):
            marks.require_own_figure(workdir / name, instead)
