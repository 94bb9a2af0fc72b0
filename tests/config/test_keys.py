"""Every configuration key reaches the part that it is for, and a table says which test asserts it."""

import ast
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_weights

from jaxseg import build, compiler, optim, parallel, pictures, session, train
from jaxseg.arguments import MIXING, MIXING_OPTIONS
from jaxseg.config import KEYS, ConfigDict, default_config, update
from jaxseg.data import folder, make_source, pipeline
from jaxseg.data.reading import Reading
from jaxseg.data.shapes import ShapesSource
from jaxseg.errors import ArgumentError, ConfigError, DataError
from jaxseg.nn.quantisation import Quantisation
from jaxseg.pieces import make_quantisation
from jaxseg.run import reporting
from jaxseg.run.data import load_problem
from jaxseg.run.loop import what_is_due
from jaxseg.run.pace import Rhythm
from jaxseg.run.programs import Programs
from jaxseg.run.weights import plan_weights

TESTS = Path(__file__).resolve().parents[1]


def configured(**values: Any) -> ConfigDict:
    config = default_config()
    update(config, **values)
    return config


def test_model_keys() -> None:
    model = build.make_model(configured(model__name="cnn", model__args={"widths": (4, 6)}, dtype="bfloat16"), 3)
    assert type(model).__name__ == "CNN" and model.widths == (4, 6) and model.common.dtype == jnp.bfloat16
    with pytest.raises(DataError, match=r"model\.num_classes is 4, but the shapes data has 6"):
        load_problem(configured(model__num_classes=4))


def test_split_keys() -> None:
    config = configured(data__train_split="val", data__val_split="test", data__shapes_train=7, data__shapes_val=3)
    problem = load_problem(config)
    for source, split in ((problem.train, "val"), (problem.val, "test")):
        assert isinstance(source, ShapesSource) and len(source) == 3
        np.testing.assert_array_equal(source[0]["image"], make_source(config, split)[0]["image"])


def test_folder_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def open_folder(directory: str, split: str, **fields: Any) -> Any:
        given.update(fields, directory=directory, split=split)
        return ShapesSource("val", 1, (8, 8))

    monkeypatch.setattr(folder, "FolderSource", open_folder)
    config = configured(
        data__source="folder", data__dir="mine", data__ignore=9, data__val_fraction=0.25, data__division="former"
    )
    update(config, data__palette=((1, 2, 3),), data__classes=ShapesSource("val", 1, (8, 8)).info.classes)
    make_source(config, "val")
    names = ("directory", "split", "ignore", "palette", "val_fraction", "classes", "division")
    wanted = ("mine", "val", 9, ((1, 2, 3),), 0.25, config.data.classes, "former")
    assert tuple(given[name] for name in names) == wanted


def test_compile_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"xla_cpu_enable_fast_min_max": True}
    with monkeypatch.context() as patch:
        patch.setattr(parallel, "make_strategy", lambda name, sizes, options, axes: options)
        assert dict(build.make_strategy(configured(compile__options=options))) == options
    folders: list[str] = []
    monkeypatch.setattr(compiler, "keep_programs", folders.append)
    monkeypatch.setattr(train, "check", lambda config, before_training: None)
    monkeypatch.setattr(train, "train", lambda *args, started: None)
    assert train.main(["--config", "experiments/cnn.py", "--config.compile.cache=mine"]) == 0
    assert folders == ["mine"]


def test_weights_keys(tmp_path: Path) -> None:
    """The head of the file has another shape than the network's: it may be skipped, by name."""
    _, variables = tiny_weights.network(num_classes=3)
    params = {**variables["params"], "head": {"kernel": np.zeros((2, 2)), "bias": np.zeros(9)}}
    file = str(tiny_weights.save(tmp_path / "weights.npz", {**variables, "params": params}))
    config = configured(model__name="unet", model__args=tiny_weights.ENCODED, model__weights=file)
    with pytest.raises(ConfigError, match="head"):
        plan_weights(build.build_parts(config, 3))
    update(config, model__weights_skip=("head", "^tail"))
    with pytest.raises(ConfigError, match=r"'\^tail' of what to skip is found in no name"):
        plan_weights(build.build_parts(config, 3))
    update(config, model__weights_skip=("head",))
    assert plan_weights(build.build_parts(config, 3))


def test_keys_of_the_session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What training hands to its loaders, checkpoints and reporter."""
    given: dict[str, dict[str, Any]] = {}

    def record(name: str) -> Any:
        def make(*args: Any, **fields: Any) -> contextlib.AbstractContextManager:
            given[name] = fields
            return contextlib.nullcontext()

        return make

    monkeypatch.setattr(pipeline, "make_train_loader", record("train"))
    monkeypatch.setattr(pipeline, "make_eval_loader", record("eval"))
    monkeypatch.setattr(session, "Checkpoints", record("checkpoints"))
    monkeypatch.setattr(reporting, "Reporter", record("reporter"))
    config = configured(model__name="cnn", seed=7, batch_size=3, data__workers=5, data__prefetch=9, data__channels=4)
    update(config, data__size=(8, 9), data__fit="crop", eval__batch_size=6, eval__multiple=2, checkpoint__keep=11)
    update(config, eval__tiles="8x12", eval__overlap=0.25, data__on_error="skip", data__timeout=1.5)
    update(config, semi__method="fixmatch", data__labelled=0.5, data__labelled_rows=2)
    update(config, eval__every=7, checkpoint__every=5, stop__patience=2, data__shapes_train=40, log__progress="lines")
    update(config, log__every=13, log__tensorboard=False, data__mean=(0.5,), data__std=(0.5,))
    strategy = parallel.make_strategy("jit", {})
    with contextlib.ExitStack() as stack:
        programs = Programs(init=abs, state=None, train_step=abs)
        parts, problem = build.build_parts(config, 6), load_problem(config)
        opened = session.open_session(parts, problem, strategy, programs, tmp_path, stack)
    wanted = {"batch_size": 3, "seed": 7, "workers": 5, "prefetch": 9, "channels": 4, "size": (8, 9), "fit": "crop"}
    wanted |= {"labelled_rows": 2, "unit": 2}
    assert given["train"] == wanted | {"order": None, "reading": Reading("skip", timeout=1.5)}
    assert given["eval"].pop("reading") == Reading(timeout=1.5)
    assert given["eval"] == {"batch_size": 6, "multiple": 2, "size": (8, 9), "fit": "crop"}
    assert opened.tiled is not None
    assert (opened.tiled.tiling.tiles, opened.tiled.tiling.overlap) == ((8, 12), 0.25)
    assert given["checkpoints"]["keep"] == 11
    assert (given["reporter"]["every"], given["reporter"]["tensorboard"]) == (13, False)
    assert given["reporter"]["progress"] == "lines"
    assert given["reporter"]["rhythm"] == Rhythm(evaluations=7, checkpoints=5, may_end_early=True, epoch=40 / 3)


def test_keys_of_the_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config, stop = configured(steps=10, eval__every=4, checkpoint__every=3), SimpleNamespace(agreed=lambda: False)
    due = [what_is_due(config, step, stop) for step in range(1, 11)]
    assert [step for step, each in enumerate(due, start=1) if each.evaluation] == [4, 8, 10]
    assert [step for step, each in enumerate(due, start=1) if each.checkpoint] == [3, 6, 9]
    drawn: list[int] = []
    monkeypatch.setattr(pictures, "prediction_sheet", lambda images, *rest: drawn.append(len(images)))
    monkeypatch.setattr(session, "read_image", lambda path: None)
    fake = SimpleNamespace(
        problem=load_problem(config),
        parts=build.build_parts(config, 6),
        workdir=tmp_path,
        variables=lambda state: {},
        segment=lambda variables, image: SimpleNamespace(classes=None),
        reporter=SimpleNamespace(picture=lambda *args: None),
    )
    for images in (3, 0):
        fake.config = configured(log__images=images)
        session.draw_predictions(fake, None, 1)
    assert drawn == [3]


def test_quantisation_keys() -> None:
    given = {"quantise__weights": 4, "quantise__activations": 6, "quantise__skip": ("^head",)}
    assert make_quantisation(configured(**given)) == Quantisation(4, 6, skip=("^head",))
    assert make_quantisation(configured()) is None


def test_step_keys() -> None:
    config = configured(model__name="cnn", model__args={"widths": (4,)}, data__size=(8, 8), accumulate=3)
    parts = build.build_parts(config, 3)
    batch = {"image": np.zeros((4, 8, 8, 3), np.uint8), "label": np.zeros((4, 8, 8), np.uint8)}
    state = jax.eval_shape(parts.init, jax.random.key(0))
    with pytest.raises(ArgumentError, match="accumulate=3 does not divide"):
        jax.eval_shape(parts.train_step(), state, batch, jax.random.key(0))
    assert [build.make_strategy(configured(strategy=name)).axis_name for name in ("jit", "pmap")] == [None, "data"]
    image = np.full((1, 2, 2, 3), 255, np.uint8)
    prepared = build.make_prepare(configured(data__mean=(0.25,), data__std=(0.5,)))(image)
    np.testing.assert_allclose(prepared, np.full((1, 2, 2, 3), 1.5))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("flip_horizontal", 1.0),
        ("flip_vertical", 1.0),
        ("zoom", (2.0, 2.0)),
        ("shear", 0.9),
        ("rotate", 90.0),
        ("crop", (4, 4)),
        ("brightness", 0.5),
        ("contrast", 0.5),
        ("saturation", 0.5),
        ("perspective", 0.4),
        ("elastic", 4.0),
        ("gamma", (2.0, 2.0)),
        ("hue", 0.5),
        ("blur", 3.0),
        ("low_resolution", 0.2),
        ("noise", 0.5),
        ("jpeg", 1),
        ("erase", 1.0),
        ("rand_operations", 14),
    ],
)
def test_augment_keys(key: str, value: Any) -> None:
    random = np.random.default_rng(0)
    image, label = random.integers(0, 255, (8, 8, 3), np.uint8), random.integers(0, 3, (8, 8)).astype(np.int32)
    plain, changed = configured(augment__flip_horizontal=0.0), configured(augment__flip_horizontal=0.0)
    update(changed, **{f"augment__{key}": value})
    augment = jax.jit(jax.vmap(build.make_augment(changed), in_axes=(0, None, None)))
    before = build.make_prepare(plain)(image[None])
    after, _ = augment(jax.random.split(jax.random.key(1), 6), image, label)
    assert after.shape[1:] != before.shape[1:] or np.abs(after - before).max() > 0.01


def test_the_largest_share_of_a_class_in_a_crop() -> None:
    """All of the left half is one class: a window that has another one lies at its edge or to the right of it."""
    label = np.arange(16)[None].repeat(16, 0).clip(7) - 7
    shares = {}
    for share in (1.0, 0.3):
        config = configured(augment__flip_horizontal=0.0, augment__crop=(4, 4), augment__crop_max_share=share)
        augment = jax.jit(jax.vmap(build.make_augment(config), in_axes=(0, None, None)))
        _, cut = augment(jax.random.split(jax.random.key(0), 32), np.zeros((16, 16, 3), np.uint8), label)
        shares[share] = max(np.bincount(each.ravel()).max() / 16 for each in np.asarray(cut))
    assert shares[0.3] <= 0.3 < shares[1.0]


def test_loss_keys() -> None:
    config = configured(loss__terms="focal + 2 * dice", loss__args={"focal": {"gamma": 3.0}})
    focal, dice = build.make_loss(config, 3).terms
    assert (focal.name, dict(focal.options), dice.name, dice.weight) == ("focal", {"gamma": 3.0}, "dice", 2.0)
    [term] = build.make_loss(configured(loss__label_smoothing=0.25), 3, (1.0, 2.0, 3.0)).terms
    assert dict(term.options) == {"label_smoothing": 0.25, "class_weights": (1.0, 2.0, 3.0)}
    assert build.aux_weight(configured(loss__aux_weight=0.7)) == 0.7
    assert build.aux_weight(configured(loss__aux_weight=0.7, loss__aux_weights=(0.5, 0.25))) == (0.5, 0.25)
    np.testing.assert_array_equal(build.parse_class_weights("1,2.5"), [1, 2.5])


def test_adversarial_keys() -> None:
    numbers = {
        "weight": 0.5,
        "unlabelled_weight": 0.25,
        "semi_weight": 0.75,
        "semi_threshold": 0.125,
        "unlabelled_from": 7,
        "truth_scaling": 0.9,
    }
    config = configured(**{f"adversarial__{name}": value for name, value in numbers.items()})
    update(config, adversarial__widths=(4, 6), adversarial__image=True, adversarial__learning_rate=0.25)
    objective = build.make_objective(config, build.make_loss(config, 3))
    assert {name: getattr(objective, name) for name in numbers} == numbers
    learner = build.make_learner(config, build.make_model(config, 3))
    assert learner.discriminator.widths == (4, 6) and learner.sees_image
    update(config, schedule__name="constant", optimizer__name="sgd", optimizer__learning_rate=1.0)
    params = {"head": jnp.ones(1), "discriminator": jnp.ones(1)}
    tx, _ = optim.from_config(config)
    step, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose([step["head"][0], step["discriminator"][0]], [-1.0, -0.25], rtol=1e-5)


def test_optimiser_keys() -> None:
    params = {"encoder": {"kernel": jnp.ones((2, 2))}, "head": {"kernel": jnp.ones((2, 2))}}

    def moves(steps: int = 1, **values: Any) -> tuple[float, float]:
        """How far the last of `steps` equal gradients of 1 moves a weight of the head and of the encoder."""
        config = configured(optimizer__name="sgd", optimizer__learning_rate=1.0, schedule__name="constant")
        update(config, **({"optimizer__momentum": 0.0, "optimizer__weight_decay": 0.0} | values))
        tx, _ = optim.from_config(config)
        state, move = tx.init(params), params
        for _ in range(steps):
            move, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        return float(move["head"]["kernel"][0, 0]), float(move["encoder"]["kernel"][0, 0])

    assert moves() == (-1.0, -1.0)
    assert moves(optimizer__weight_decay=0.5)[0] == -1.5
    assert moves(2, optimizer__momentum=0.5)[0] == -1.5
    assert moves(optimizer__clip=1.0)[0] == pytest.approx(-(8**-0.5))
    assert moves(optimizer__encoder_rate=0.5) == (-1.0, -0.5)
    assert moves(optimizer__train_only=("head",)) == (-1.0, 0.0)
    assert moves(2, optimizer__momentum=0.5, optimizer__args={"nesterov": True})[0] == -1.75


def test_schedule_keys() -> None:
    def rate(step: int, **values: Any) -> float:
        config = configured(steps=100, optimizer__learning_rate=2.0)
        update(config, **{f"schedule__{name}": value for name, value in values.items()})
        return float(optim.from_config(config)[1](step))

    assert rate(50, name="poly", power=2.0) == pytest.approx(0.5)
    assert rate(0, name="constant", warmup=3) == pytest.approx(0.5)
    assert rate(100, name="cosine", end=0.25) == pytest.approx(0.5)
    assert rate(10, name="step", boundaries=(5, 8), factor=0.5) == pytest.approx(0.5)
    assert rate(99, name="plateau") == 2.0


# The test that fails when a key is ignored.
ASSERTED = {
    "seed": "config/test_keys.py::test_keys_of_the_session",
    "steps": "config/test_keys.py::test_keys_of_the_loop",
    "epochs": "config/test_epochs.py::test_epochs_become_steps_once_the_data_are_open",
    "batch_size": "config/test_keys.py::test_keys_of_the_session",
    "accumulate": "config/test_keys.py::test_step_keys",
    "strategy": "config/test_keys.py::test_step_keys",
    "dtype": "config/test_keys.py::test_model_keys",
    **dict.fromkeys(("mesh.data", "mesh.fsdp", "mesh.space"), "test_mesh.py::test_the_keys_make_the_mesh"),
    "compile.options": "config/test_keys.py::test_compile_keys",
    "compile.cache": "config/test_keys.py::test_compile_keys",
    "compile.deterministic": "test_reproduce.py::test_deterministic_reaches_the_options_of_a_gpu",
    "compile.memory": "run/test_preflight.py::test_a_step_that_does_not_fit_names_the_largest_batch_that_does",
    "remat": "nn/test_remat.py::test_the_key_reaches_the_step_that_is_checked_and_the_one_that_trains",
    "model.name": "config/test_keys.py::test_model_keys",
    "model.num_classes": "config/test_keys.py::test_model_keys",
    "model.args": "config/test_keys.py::test_model_keys",
    "model.crf": "nn/test_crf.py::test_the_key_wraps_any_network_and_keeps_its_parameters",
    "model.weights": "run/test_weights.py::test_a_run_starts_from_another_run",
    "model.encoder_weights": "run/test_weights.py::test_a_run_starts_from_a_file_says_so_and_resumes_without_it",
    "model.weights_checkpoint": "run/test_weights.py::test_a_run_starts_from_another_run",
    "model.weights_skip": "config/test_keys.py::test_weights_keys",
    "data.source": "data/test_tfds.py::test_make_source_finds_the_adapter",
    "data.dir": "data/test_folder.py::test_classes_that_disagree_with_the_data",
    "data.cache": "data/test_tfds.py::test_make_source_finds_the_adapter",
    "data.max_pixels": "fuzz/test_images.py::test_the_key_and_the_option_raise_the_limit",
    "data.train_split": "config/test_keys.py::test_split_keys",
    "data.fold": "data/test_folds.py::test_each_example_is_left_out_by_one_fold",
    **dict.fromkeys(("data.fold_file", "data.group"), "data/test_folds.py::test_a_file_of_folds_and_groups_decide"),
    "data.val_group": "data/test_folder.py::test_groups_stay_on_one_side",
    "data.val_split": "config/test_keys.py::test_split_keys",
    "data.channels": "data/test_sources.py::test_shapes_take_length_size_and_channels_from_the_configuration",
    "data.range": "data/test_measured.py::test_training_prediction_and_export_see_the_same",
    "data.classes": "data/test_sources.py::test_classes_of_the_configuration_that_disagree_with_the_data",
    "data.shapes_train": "data/test_sources.py::test_shapes_take_length_size_and_channels_from_the_configuration",
    "data.shapes_val": "config/test_keys.py::test_split_keys",
    "data.annotations": "data/test_weak_labels.py::test_a_folder_with_annotations_needs_masks_for_validation_alone",
    **{
        f"data.{name}": "data/test_weak_labels.py::test_the_training_split_alone_has_weaker_labels"
        for name in ("weaken", "box_core", "mark_radius")
    },
    "data.unknown": "test_multilabel.py::test_a_run_with_classes_that_are_unknown_alone",
    "data.multilabel": "data/test_multilabel.py::test_a_configuration_opens_either_form",
    "data.unlabelled": "data/test_unlabelled.py::test_images_without_labels_are_never_held_out",
    "data.labelled": "data/test_labelled.py::test_a_share_is_a_seeds_and_part_of_every_larger_one",
    "data.proposals": "propose/test_propose_command.py::test_training_reads_what_was_kept",
    "data.labelled_seed": "data/test_labelled.py::test_the_seed_is_that_of_the_run_or_a_key",
    "data.labelled_rows": "config/test_keys.py::test_keys_of_the_session",
    "data.mean": "config/test_keys.py::test_step_keys",
    "data.std": "config/test_keys.py::test_step_keys",
    **{
        f"data.{name}": "config/test_keys.py::test_keys_of_the_session"
        for name in ("size", "fit", "workers", "prefetch", "on_error", "timeout")
    },
    **{
        f"data.{name}": "config/test_keys.py::test_folder_keys"
        for name in ("ignore", "palette", "val_fraction", "division")
    },
    "data.shapes_imbalance": "run/test_balance.py::test_the_imbalance_of_the_shapes",
    "data.sampling": "run/test_balance.py::test_the_order_of_a_run",
    "data.rare_temperature": "run/test_balance.py::test_the_order_of_a_run",
    "augment.crop_balanced": "data/test_sampling.py::test_crops_of_augmentation_are_balanced_and_change_no_other_draw",
    "augment.crop_max_share": "config/test_keys.py::test_the_largest_share_of_a_class_in_a_crop",
    **{
        key: "config/test_keys.py::test_augment_keys"
        for key in KEYS
        if key.startswith("augment.") and key not in ("augment.crop_max_share", "augment.crop_balanced")
    },
    "augment.elastic_spacing": "data/test_geometry.py::test_elastic_shifts",
    "augment.rand_magnitude": "data/test_rand_augment.py::test_nothing_changes_at_magnitude_0_and_much_at_10",
    **{f"augment.{name}": "test_mixing.py::test_a_run_mixes_its_images" for name in MIXING},
    **{f"augment.{name}": "test_mixing.py::test_the_keys_say_how_images_are_mixed" for name in MIXING_OPTIONS},
    "model.head": "nn/test_cosine.py::test_networks_without_such_a_head_are_refused",
    "loss.hierarchy": "losses/test_hierarchy.py::test_a_run_with_loss_hierarchy_keeps_its_levels_and_scores_them",
    "loss.logit_adjustment": "run/test_balance.py::test_a_run_keeps_its_prior",
    "loss.class_weights": "test_train_refusals.py::test_median_frequencies_of_nothing_labelled",
    **{
        f"loss.{name}": "config/test_keys.py::test_loss_keys"
        for name in ("terms", "label_smoothing", "aux_weight", "aux_weights", "args")
    },
    **{key: "config/test_keys.py::test_adversarial_keys" for key in KEYS if key.startswith("adversarial.")},
    **{
        key: "test_consistency_runs.py::test_the_keys_reach_the_loss_and_the_step"
        for key in KEYS
        if key.startswith("semi.")
    },
    **{key: "config/test_keys.py::test_optimiser_keys" for key in KEYS if key.startswith("optimizer.")},
    **{key: "config/test_keys.py::test_schedule_keys" for key in KEYS if key.startswith("schedule.")},
    **dict.fromkeys(
        ("schedule.patience", "stop.patience"),
        "tuning/test_progress.py::test_a_plateau_lowers_the_rate_and_ends_the_run",
    ),
    "ema.decay": "test_evaluate.py::test_the_moving_average_is_what_is_scored",
    "optimizer.layer_decay": "tuning/test_layers.py::test_updates_are_multiplied_by_the_power_of_the_distance",
    "optimizer.frozen_norms": "tuning/test_runs.py::test_a_run_with_adapters_resumes_and_loads_as_the_network",
    "lora.rank": "tuning/test_runs.py::test_a_run_with_adapters_resumes_and_loads_as_the_network",
    "lora.alpha": "tuning/test_runs.py::test_a_run_with_adapters_resumes_and_loads_as_the_network",
    "lora.targets": "tuning/test_runs.py::test_what_is_frozen_must_have_weights",
    "distill.teacher": "test_distillation.py::test_a_taught_run_resumes_and_loads_without_its_teacher",
    "distill.kind": "test_distillation.py::test_a_taught_run_resumes_and_loads_without_its_teacher",
    "distill.weight": "test_distillation.py::test_a_taught_run_resumes_and_loads_without_its_teacher",
    "distill.temperature": "test_distillation.py::test_the_objective_of_a_configuration",
    "distill.stage": "test_distillation.py::test_a_taught_run_resumes_and_loads_without_its_teacher",
    "distill.teacher_stage": "test_distillation.py::test_teachers_that_do_not_suit_are_refused",
    "distill.channels": "test_distillation.py::test_a_taught_run_resumes_and_loads_without_its_teacher",
    **{key: "pruning/test_masks.py::test_the_keys_reach_the_schedule" for key in KEYS if key.startswith("prune.")},
    **{key: "config/test_keys.py::test_quantisation_keys" for key in KEYS if key.startswith("quantise.")},
    "eval.every": "config/test_keys.py::test_keys_of_the_loop",
    "eval.batch_size": "config/test_keys.py::test_keys_of_the_session",
    "eval.multiple": "config/test_keys.py::test_keys_of_the_session",
    "eval.tiles": "config/test_keys.py::test_keys_of_the_session",
    "eval.overlap": "config/test_keys.py::test_keys_of_the_session",
    "checkpoint.every": "config/test_keys.py::test_keys_of_the_loop",
    "checkpoint.keep": "config/test_keys.py::test_keys_of_the_session",
    "checkpoint.copy_to": "run/test_copies.py::test_an_empty_machine_goes_on_bit_for_bit",
    "log.every": "config/test_keys.py::test_keys_of_the_session",
    "log.images": "config/test_keys.py::test_keys_of_the_loop",
    "log.tensorboard": "config/test_keys.py::test_keys_of_the_session",
    "log.progress": "config/test_keys.py::test_keys_of_the_session",
    "log.trackers": "run/test_tracking.py::test_a_training_is_tracked_and_stays_bit_for_bit_the_same",
    "log.project": "run/test_tracking.py::test_a_training_is_tracked_and_stays_bit_for_bit_the_same",
    "log.report": "report/test_live_page.py::test_a_training_writes_its_page_after_each_evaluation",
    "log.gradients": "run/test_gradients.py::test_a_run_is_drawn",
}


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_asserted(key: str) -> None:
    file, _, name = ASSERTED[key].partition("::")
    text = (TESTS / file).read_text(encoding="utf-8")
    [test] = [n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == name]
    first = min([test.lineno, *(d.lineno for d in test.decorator_list)])
    body = "\n".join(text.splitlines()[first - 1 : test.end_lineno])
    assert key.rpartition(".")[2] in body, f"{name} does not mention {key}"


def test_the_table_has_no_other_keys() -> None:
    assert set(ASSERTED) == set(KEYS)
