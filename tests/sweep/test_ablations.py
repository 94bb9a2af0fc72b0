"""The ablations that come with jaxseg: every variant builds, says what it is for, and compares what it says."""

import functools
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import variables

from jaxseg import build, models, optim
from jaxseg.config import ConfigDict, update
from jaxseg.errors import ConfigError
from jaxseg.models import encoders, summary
from jaxseg.run.report import read_log
from jaxseg.run.weights import require_fit
from jaxseg.sweep.plan import Plan, load_plan, runs_of
from jaxseg.train import train

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "experiments" / "ablations").glob("*.py"))
RESULTS = ROOT / "benchmarks" / "results" / "ablations"
REPORTS = sorted(path.name for path in RESULTS.iterdir())  # NAME of shapes, NAME-nuclei of nuclei
CLASSES = 6
NUMBER = r"\[[-+]\d+\.\d\d, [-+]\d+\.\d\d\]|\d+\.\d\d(?!\d)(?: ± \d+\.\d\d)?"
# Their docstrings say that they have not been run, and they have no report.
NOT_RUN = (
    "autoencoder",
    "labels",
    "regularization",
)
FEW_SEEDS = {"optimizer_rates": 1, "encoder": 3}  # planned, where it is not 5
RUN_SEEDS = FEW_SEEDS | {"encoder": 1}  # run so far; its page says so
OF_A_FOLDER = (
    "activation",
    "augmentation",
    "autoencoder",
    "loss",
    "optimizer",
    "regularization",
    "residual",
    "skips",
    "which_augmentation",
)


@functools.cache
def plan_of(name: str) -> Plan:
    """The plan of NAME on the shapes, or of NAME-nuclei on a folder."""
    name, _, folder = name.partition("-")
    override = ("--config.data.dir=runs/nuclei64",) if folder else ()
    return load_plan(f"experiments/ablations/{name}.py{':folder' if folder else ''}", override, None, "val")


def network(config: ConfigDict) -> list[summary.Row]:
    """The modules of a configuration's network, by their shapes alone."""
    return _network(config.model.name, json.dumps(config.model.args.to_dict()), tuple(config.data.size))


@functools.cache
def _network(name: str, args: str, size: tuple[int, int]) -> list[summary.Row]:
    return summary.modules(models.build(name, num_classes=CLASSES, **json.loads(args)), size)


def test_all_that_were_asked_for_are_there() -> None:
    assert NAMES == [
        "activation",
        "attention",
        "augmentation",
        "autoencoder",
        "data_size",
        "depth_width",
        "encoder",
        "labels",
        "loss",
        "norm_batch",
        "optimizer",
        "optimizer_rates",
        "regularization",
        "residual",
        "sharing",
        "skips",
        "upsampling",
        "which_augmentation",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_builds(name: str, tmp_path: Path) -> None:
    runs = [run for run in runs_of(plan_of(name), tmp_path) if run.seed == plan_of(name).seeds[0]]
    most = {"labels": 13, "which_augmentation": 22, "optimizer_rates": 18, "encoder": 40}
    assert len(plan_of(name).seeds) >= FEW_SEEDS.get(name, 5)
    assert 3 <= len(runs) <= (most[name] if name in most else 12)
    if name == "encoder":  # test_the_small_encoders_... builds them all
        runs = runs[:1]
    if name.startswith("optimizer"):  # of one network
        for run in runs:
            optim.from_config(run.config)
        runs = runs[:1]
    for run in runs:
        size, args = tuple(run.config.data.size), run.config.model.args.to_dict()
        if name == "residual":  # six units of one kind say no more than two
            args["blocks"] = 2
        model = models.build(run.config.model.name, num_classes=CLASSES, **args)
        assert variables.shapes(model, (1, *size, 3))[1].shape == (1, *size, CLASSES), run.name
        loss, augment = build.make_loss(run.config, CLASSES), build.make_augment(run.config)
        optim.from_config(run.config)
        logits, labels = jax.ShapeDtypeStruct((2, *size, CLASSES), "float32"), jax.ShapeDtypeStruct((2, *size), "int32")
        if "reconstruction" not in run.config.loss.terms:  # which reads more than logits
            assert jax.eval_shape(loss, logits, labels).shape == ()
        image, label = jax.ShapeDtypeStruct((*size, 3), "uint8"), jax.ShapeDtypeStruct(size, "int32")
        augmented, _ = jax.eval_shape(augment, jax.eval_shape(lambda: jax.random.key(0)), image, label)
        assert augmented.shape == (*build.input_size(run.config), 3)


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_ask_a_question_and_give_the_command(name: str) -> None:
    text = (ROOT / "experiments" / "ablations" / f"{name}.py").read_text().split('"""')[1]
    assert text.partition("\n")[0].endswith("?")
    assert f"\n    python -m jaxseg.sweep --config experiments/ablations/{name}.py\n" in text
    reports = [report for report in (name, f"{name}-nuclei") if report in REPORTS]
    assert (name in NOT_RUN) == ("\nNot yet run." in text) == (not reports)
    # Only measured numbers: the author of an ablation adds what it found after running it.
    found = {part.split()[0].rstrip(":"): " ".join(part.split()) for part in text.split("\nFound on ")[1:]}
    assert set(found) == {report.partition("-")[2] or "shapes" for report in reports}
    for report in reports:
        numbers = re.findall(NUMBER, found[report.partition("-")[2] or "shapes"])
        table = (RESULTS / report / "table.md").read_text()
        assert numbers and all(number in table for number in numbers), (report, numbers)


def test_the_variants_of_a_folder_are_those_of_the_shapes() -> None:
    for name in OF_A_FOLDER:
        ours, theirs = plan_of(f"{name}-nuclei"), plan_of(name)
        assert ours.variants.items() <= theirs.variants.items() and ours.baseline == theirs.baseline
        config = ours.config(theirs.baseline_of(next(iter(ours.variants))), 0)
        assert config.data.source == "folder" and tuple(config.data.size) == (64, 64) and config.steps <= 1200
        assert build.input_size(config) == ((64, 64) if name == "which_augmentation" else (32, 32))
    with pytest.raises(ConfigError, match="no variant 'folder'"):
        plan_of("sharing-nuclei")


def test_the_ablations_page_shows_the_numbers_of_the_residual_table() -> None:
    table = (ROOT / "benchmarks" / "results" / "ablations" / "residual" / "table.md").read_text()
    rows = {}
    for line in table.splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            rows[cells[0].split("`")[1]] = (cells[2], cells[3], cells[4].split()[0])
    page = (ROOT / "docs" / "ablations.md").read_text()
    for variant in plan_of("residual").variants:
        [line] = [line for line in page.splitlines() if line.startswith(f"| `{variant}`")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert (cells[1], cells[2], cells[3].split()[0]) == rows[variant], variant


def test_every_score_on_the_ablations_page_is_in_a_table() -> None:
    page = (ROOT / "docs" / "ablations.md").read_text()
    tables = "".join(path.read_text() for path in RESULTS.glob("*/table.md"))
    numbers = re.findall(r"\d+\.\d\d ± \d+\.\d\d|\[[-+]\d+\.\d\d, [-+]\d+\.\d\d\]", page)
    assert len(numbers) > 30 and all(number in tables for number in numbers)


@pytest.mark.skipif("optimizer_rates" not in REPORTS, reason="optimizer_rates.py has no report")
def test_each_optimiser_has_the_best_of_its_rates() -> None:
    header, *rows = (line.split(",") for line in (RESULTS / "optimizer_rates" / "table.csv").read_text().splitlines())
    scores: dict[str, dict[float, float]] = {}
    for row in (dict(zip(header, row)) for row in rows):
        name, _, rate = row["variant"].partition("-")
        scores.setdefault(name, {})[float(rate)] = float(row["mean_iou"])
    chosen = {name: keys["optimizer.learning_rate"] for name, keys in plan_of("optimizer").variants.items()}
    assert chosen == {name: max(found, key=found.__getitem__) for name, found in scores.items()}


@pytest.mark.parametrize("name", REPORTS)
def test_the_committed_reports_are_whole_and_of_this_format(name: str) -> None:
    folder = RESULTS / name
    plan = plan_of(name)
    runs = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    seeds = len({run["seed"] for run in runs})
    assert seeds >= RUN_SEEDS.get(name, 3 if name.endswith("-nuclei") else 5)
    table = (folder / "table.md").read_text()
    header, *rows = [line.split(",") for line in (folder / "table.csv").read_text().splitlines()]
    found = {row[0]: dict(zip(header, row)) for row in rows}
    assert list(found) == list(plan_of(name).variants)
    for variant, row in found.items():
        assert row["baseline"] == plan.baseline_of(variant) and row["runs"] == row["planned"] == str(seeds)
        assert all(f"`{key}={json.dumps(value)}`" in table for key, value in plan.variants[variant].items())
    assert len(runs) == seeds * len(rows)
    for variant, row in found.items():
        scores = [run["mean_iou"] for run in runs if run["variant"] == variant]
        assert float(row["mean_iou"]) == pytest.approx(sum(scores) / seeds)
    assert all(run["step"] == plan.config(run["variant"], 0).steps for run in runs)
    assert "Partial" not in table and "Failed" not in table and (folder / "plot.png").exists()


@pytest.mark.parametrize("name", ["skips", "upsampling", "depth_width"])
def test_networks_are_of_equal_size_where_that_is_promised(name: str) -> None:
    plan = plan_of(name)
    [base, *_] = network(plan.config(plan.baseline, 0))
    for variant in plan.variants:
        [row, *_] = network(plan.config(variant, 0))
        share = row.parameters / base.parameters - 1
        assert share > 0.5 if variant == "subpixel" else abs(share) <= 0.1, (variant, share)
        if name == "depth_width":
            assert abs(row.flops / base.flops - 1) <= 0.1, (variant, row.flops / base.flops)


@pytest.mark.slow
def test_the_small_encoders_are_of_every_family_and_of_equal_size() -> None:
    plan = plan_of("encoder")
    sizes, families = {}, set()
    for variant in plan.variants:
        config = plan.config(variant, 0)
        size, args = tuple(config.data.size), config.model.args.to_dict()
        model = models.build(config.model.name, num_classes=CLASSES, **args)
        found, logits, out = variables.shapes(model, (2, *size, 3), train=True)
        assert logits.shape == (2, *size, CLASSES), variant
        # The decoder has the same strides, 4, 8 and 16, of each encoder.
        assert [out[f"decoder/stage{i}"].shape[1:3] for i in range(3)] == [(16, 16), (8, 8), (4, 4)], variant
        assert "decoder/stage3" not in out
        assert set(plan.variants[variant]) == {"model.args.encoder", "model.args.encoder_args"}
        sizes[variant] = sum(leaf.size for leaf in jax.tree.leaves(found["params"]))
        families.add(encoders.family(args["encoder"]))
    assert families == {encoders.family(name) for name in encoders.names()}
    assert all(abs(size / sizes[plan.baseline] - 1) <= 0.1 for size in sizes.values()), sizes


def test_the_networks_of_the_residual_ablation_are_deep() -> None:
    rows = network(plan_of("residual").config("plain", 0))
    assert sum(row.kind == "ConvNormAct" for row in rows) == 60
    assert all(plan_of("residual").config(variant, 0).log.gradients for variant in plan_of("residual").variants)


def test_the_residual_ablation_has_every_form_with_either_unit() -> None:
    plan = plan_of("residual")
    args = [plan.config(variant, 0).model.args for variant in plan.variants]
    forms = ("none", "auto", "projection", "learned", "scaled")
    assert sorted((a.unit, a.shortcut) for a in args) == sorted((u, f) for u in ("basic", "preact") for f in forms)


def test_shared_units_are_compared_at_equal_depth_and_operations() -> None:
    plan = plan_of("sharing")
    rows = {variant: network(plan.config(variant, 0)) for variant in plan.variants}
    assert set(rows) == {"separate", "separate-weighted", "shared", "shared-weighted"}
    assert all(abs(each[0].flops / rows["separate"][0].flops - 1) < 0.01 for each in rows.values())
    sizes = {variant: each[0].parameters for variant, each in rows.items()}
    assert sizes["shared"] < 0.5 * sizes["separate"] < 0.5 * sizes["separate-weighted"]
    assert sizes["separate-weighted"] - sizes["separate"] == 5 * (sizes["shared-weighted"] - sizes["shared"])


def test_the_encoder_of_the_autoencoder_fits_that_of_the_unet() -> None:
    plan = plan_of("autoencoder")
    assert plan.start_of("pretrained") == "autoencoder"
    configs = [plan.config(name, 0) for name in ("pretrained", "autoencoder")]
    for config in configs:
        update(config, model__args={**config.model.args.to_dict(), "widths": (4, 6)}, data__size=(16, 16))
    network, start = (build.build_parts(config, CLASSES) for config in configs)
    require_fit(network, start)
    update(configs[0], model__weights_skip=("/head/",))
    with pytest.raises(ConfigError, match=r"do not fit the model.* unexpected: .*params/reconstruction"):
        require_fit(network, start)


def test_norms_are_compared_at_one_batch_size() -> None:
    plan = plan_of("norm_batch")
    assert len(plan.baselines) == 9 and set(plan.baselines.values()) == {"batch-2", "batch-8", "batch-32"}
    for variant, base in plan.baselines.items():
        one, other = plan.config(variant, 0), plan.config(base, 0)
        assert other.model.args.norm == "batch" != one.model.args.norm
        update(one, model__args__norm="batch")
        assert one.to_dict() == other.to_dict()
        # Eight groups of eight channels would be instance norm.
        assert all(width >= 16 and width % 8 == 0 for width in one.model.args.widths)


def test_every_norm_takes_as_many_steps_at_each_batch() -> None:
    plan = plan_of("norm_batch")
    configs = [plan.config(variant, 0) for variant in plan.variants]
    found = sorted((c.model.args.norm, c.batch_size, c.steps, round(c.optimizer.learning_rate, 4)) for c in configs)
    rates = {2: 0.005, 8: 0.01, 32: 0.02}
    assert found == [(n, b, 400, r) for n in ("batch", "group", "instance", "layer") for b, r in rates.items()]


@pytest.mark.parametrize(
    ("name", "variant", "args"),
    [
        ("residual", "learned", {"widths": (4, 6), "blocks": 1}),
        ("skips", "indices", {"widths": (4, 6)}),
    ],
)
def test_a_shrunk_step(name: str, variant: str, args: dict[str, Any], tmp_path: Path) -> None:
    config = plan_of(name).config(variant, 0)
    update(config, model__args={**config.model.args.to_dict(), **args}, data__size=(16, 16), data__shapes_train=8)
    update(config, data__shapes_val=8, steps=1, schedule__warmup=0)
    result = train(config, tmp_path, "x")
    assert result.images == 8 and np.isfinite(result.loss)
    if name == "residual":
        [record] = read_log(tmp_path / "gradients.jsonl")
        assert record["step"] == 1 and record["norms"]["encoder/stage1/block1/weight/kernel"] > 0
        assert (tmp_path / "gradients.png").exists()
