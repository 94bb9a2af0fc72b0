"""The files that a sweep writes into its folder, and the refusal to replace files of someone else there."""

from pathlib import Path

from jaxseg.pictures import marks

PLAN_FILE = "sweep.json"
RESERVED = (
    "compiled",
    PLAN_FILE,
    "results.jsonl",
    "plot.png",
    "table.md",
    "table.csv",
    "timing.md",
    "timing.csv",
    "gradients.png",
    "gradients.csv",
)
"""Names that a sweep uses in its folder beside those of its variants."""


def require_own_report(workdir: Path) -> None:
    """Raises ConfigError if the report would replace a file that no sweep wrote.

    Texts are those of a sweep where its plan, which is written first, is beside them; pictures have a mark.
    """
    instead = "give another --workdir, or move it out of this one"
    texts = [workdir / name for name in RESERVED if Path(name).suffix in (".md", ".csv", ".jsonl")]
    found = [file for file in texts if file.exists()]
    if found and not (workdir / PLAN_FILE).exists():
        raise marks.refusal(found[0], instead)
    for name in RESERVED:
        if name.endswith(".png"):
            marks.require_own_figure(workdir / name, instead)
