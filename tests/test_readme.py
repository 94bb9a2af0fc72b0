"""The README's code runs as it stands, and the table of benchmark results names no folder of a machine."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_library_example_runs_as_written(tmp_path):
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "example.py").write_text(code)
    names = runpy.run_path(str(tmp_path / "example.py"))
    assert int(names["train_state"].step) == 1 and float(names["metrics"]["loss"]) > 0


def test_every_file_that_the_readme_names_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"(?:experiments|benchmarks|jaxseg)/[\w/-]+\.(?:py|md|json)", text):
        assert (ROOT / name).is_file(), name


def test_result_tables_leave_the_folders_of_a_machine_out():
    collect = runpy.run_path(str(ROOT / "benchmarks" / "collect.py"))
    given = ["--config", "/home/me/p/experiments/unet.py:camvid", "--workdir=/data/runs/a"]
    given += ["--config.data.dir", "/secret", "--config.data.cache=/c", "--config.steps=3", "--config.seed", "4"]
    given += ["--config.model.encoder_weights=/data/runs/ae"]
    expected = [
        "--config",
        "experiments/unet.py:camvid",
        "--workdir",
        "runs/a",
        "--config.data.dir=PATH",
        "--config.steps=3",
        "--config.seed=4",
        "--config.model.encoder_weights=runs/ae",
    ]
    assert collect["public"](given) == expected
