"""The experiments that are shipped: every variant is valid, and each trains."""

import re

import numpy as np
import pytest
from parity import FAST_COMPILE
from test_train import ROOT

from jaxseg import command, setup
from jaxseg.config import update, validate
from jaxseg.presets import VARIANTS
from jaxseg.report import read_log
from jaxseg.train import main, train

EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.py"))


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    """Experiments are named from the root of the repository."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_and_variant_is_valid(name, variant):
    validate(command.load_experiment(f"experiments/{name}.py:{variant}"))
    docstring = (ROOT / "experiments" / f"{name}.py").read_text().split('"""')[1]
    assert f"python -m jaxseg.train --config experiments/{name}.py" in docstring
    # Never a number that nobody saw: the owner of an experiment writes one in after training it.
    measured = r"[Ss]hapes validation mIoU: (\.\d{3} \(|not yet measured\.)"
    assert re.search(measured, docstring) and "@" not in docstring


# The step of the variants at full size differs from one to the other in sizes alone; that of `shapes` is run below.
@pytest.mark.parametrize("variant", ["voc", *(pytest.param(v, marks=pytest.mark.slow) for v in ("camvid", "folder"))])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_network_of_full_size_can_be_traced(name, variant):
    setup.check(command.load_experiment(f"experiments/{name}.py:{variant}"))


@pytest.mark.parametrize(
    ("name", "variant"),
    [(name, "shapes") for name in EXPERIMENTS]
    + [("resunet", "camvid"), *(pytest.param("resunet", v, marks=pytest.mark.slow) for v in ("folder", "voc"))],
)
def test_every_experiment_trains_a_shrunk_step(tmp_path, name, variant):
    config = command.load_experiment(f"experiments/{name}.py:{variant}")
    crop = (16, 16) if config.augment.crop else ()
    update(
        config, data__source="shapes", data__size=(24, 20), augment__crop=crop, data__shapes_train=8,
        data__shapes_val=8, steps=1, batch_size=8, eval__batch_size=8, schedule__warmup=0, log__tensorboard=False,
        log__images=0, compile__options=FAST_COMPILE,
    )  # fmt: skip
    args = config.model.args.to_dict()
    widths = {"cnn": (4, 4), "encoder_decoder": (4, 4), "unet": (4, 4, 4)}
    if name in widths or "widths" in args:
        update(config, model__args=args | {"widths": widths[name] if name in widths else (4, 4, 4)})
    result = train(config, tmp_path, "x")
    assert result.images == 8 and np.isfinite(result.loss)


@pytest.mark.slow
def test_first_command_reaches_what_the_readme_promises(tmp_path):
    """The README's first command, as it stands: validation mIoU of at least .90 on the shapes data."""
    assert main(["--config", "experiments/resunet.py", "--workdir", str(tmp_path / "run")]) == 0
    assert read_log(tmp_path / "run" / "log.jsonl")[-1]["mean_iou"] >= 0.90
