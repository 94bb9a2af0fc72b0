"""The ablations that come with jaxseg: every variant builds, says what it is for, and compares what it says."""

import functools
import re
from pathlib import Path
from typing import Any

import jax
import pytest

from jaxseg import setup
from jaxseg.models import summary
from jaxseg.sweep.plan import Plan, load_plan, runs_of

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(path.stem for path in (ROOT / "experiments" / "ablations").glob("*.py"))
CLASSES = 6


@functools.cache
def plan_of(name: str) -> Plan:
    return load_plan(f"experiments/ablations/{name}.py", (), None, "val")


def costs(name: str) -> dict[str, summary.Row]:
    """Parameters and operations of the network of each variant."""
    rows = {}
    for variant in plan_of(name).variants:
        config = plan_of(name).config(variant, 0)
        model = setup.make_model(config, CLASSES)
        rows[variant] = summary.modules(model, setup.input_size(config), config.data.channels)[0]
    return rows


def test_all_that_were_asked_for_are_there() -> None:
    assert NAMES == ["attention", "augmentation", "data_size", "depth_width", "loss", "norm_batch", "residual", "skips",
                     "upsampling"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_builds(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [run for run in runs_of(plan_of(name), tmp_path) if run.seed == 0]
    assert len(plan_of(name).seeds) >= 5 and 3 <= len(runs) <= 12
    for run in runs:
        config = run.config
        model, loss = setup.make_model(config, CLASSES), setup.make_loss(config, CLASSES)
        setup.make_augment(config)
        image = jax.ShapeDtypeStruct((2, *config.data.size, 3), "float32")

        def value(key: jax.Array, image: jax.Array, model: Any = model, loss: Any = loss) -> jax.Array:
            variables = model.init({"params": key, "dropout": key}, image)
            logits, _ = model.apply(variables, image, train=False)
            return loss(logits, logits.argmax(-1))

        assert jax.eval_shape(value, jax.random.key(0), image).shape == ()


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_ask_a_question_and_give_the_command(name: str) -> None:
    text = (ROOT / "experiments" / "ablations" / f"{name}.py").read_text().split('"""')[1]
    assert text.partition("\n")[0].endswith("?")
    assert f"\n    python -m jaxseg.sweep --config experiments/ablations/{name}.py\n" in text
    # Never a number that nobody saw: whoever runs an ablation writes in what it found.
    assert re.search(r"\nFound on shapes: (not yet measured\.|.*±)", text)


@pytest.mark.parametrize("name", ["skips", "upsampling", "depth_width", "attention"])
def test_networks_are_of_equal_size_where_that_is_promised(name: str) -> None:
    base, rows = plan_of(name).baseline, costs(name)
    for variant, row in rows.items():
        if variant == "subpixel":
            assert row.parameters > 1.5 * rows[base].parameters
        else:
            assert abs(row.parameters / rows[base].parameters - 1) <= 0.1, (
                variant,
                row.parameters,
                rows[base].parameters,
            )
        if name == "depth_width":
            assert abs(row.flops / rows[base].flops - 1) <= 0.1, (variant, row.flops, rows[base].flops)


def test_the_networks_of_the_residual_ablation_are_deep() -> None:
    config = plan_of("residual").config("plain", 0)
    rows = summary.modules(setup.make_model(config, CLASSES), (32, 32), 3)
    assert sum(row.kind == "ConvNormAct" for row in rows) == 60


def test_every_norm_sees_as_many_images() -> None:
    plan = plan_of("norm_batch")
    configs = [plan.config(variant, 0) for variant in plan.variants]
    assert {config.steps * config.batch_size for config in configs} == {3200} and len(configs) == 12
