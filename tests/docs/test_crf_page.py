"""The table of presets in docs/crf.md has the numbers of the code."""

import re
from pathlib import Path

from jaxseg.nn import CRF, CRF_PRESETS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "crf.md"


def test_the_table_of_presets_is_that_of_the_code() -> None:
    rows = {cells[0]: cells for cells in re.findall(r"^\| `([\w-]+)` \|(.+)\|$", PAGE.read_text("utf-8"), re.MULTILINE)}
    for name in CRF_PRESETS:
        crf = CRF.parse(name)
        assert rows[name][1].split("|", 1)[1].strip() == (
            f"w {crf.smooth_weight:g}, θ {crf.smooth_xy:g} | w {crf.appearance_weight:g}, θ {crf.appearance_xy:g} and "
            f"{crf.appearance_rgb:g} | {crf.iterations} | `{crf.normalization}`"
        )
    defaults = {
        name: str(value) if not isinstance(value, float) else f"{value:g}" for name, value in vars(CRF()).items()
    }
    for name, value in defaults.items():
        assert rows[name][1].rpartition("|")[2].strip().strip("`") == value, name
