"""Distillation: the terms against float64, their gradients, exactness over devices, and runs with a teacher."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.tiny_adversarial import quick
from helpers.tiny_run import TINY, make_run, short_config, tiny_config
from helpers.tiny_step import Tiny, assert_same
from helpers.tiny_training import assert_identical, state_of

from jaxseg.build import build_parts
from jaxseg.config import default_config
from jaxseg.distillation import (
    DistillationLoss,
    DistilledNetwork,
    Teacher,
    channel_divergence,
    feature_distance,
    pixel_divergence,
)
from jaxseg.errors import ConfigError
from jaxseg.losses import make_loss
from jaxseg.parallel import make_strategy
from jaxseg.run.check import check
from jaxseg.run.load import load_run
from jaxseg.run.report import read_log
from jaxseg.run.teacher import read_teacher, with_teacher
from jaxseg.state import init_state
from jaxseg.step import make_train_step
from jaxseg.train import train

RNG = np.random.default_rng(0)
OURS, THEIRS = RNG.normal(size=(2, 3, 4, 5)), RNG.normal(size=(2, 3, 4, 5))


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def kl(p, q):
    return float(np.sum(p * np.log(p / q)))


def f32(*arrays):
    return tuple(jnp.asarray(a, jnp.float32) for a in arrays)


def test_pixel_term_is_hintons():
    total, weight = pixel_divergence(*f32(OURS, THEIRS), 2.0)
    expected = 4 * kl(softmax(THEIRS / 2, -1), softmax(OURS / 2, -1))
    assert total == pytest.approx(expected, rel=1e-5) and weight == 2 * 3 * 4
    one, _ = pixel_divergence(*f32(OURS[..., :1], THEIRS[..., :1]), 1.0)  # one logit: classes of logits 0 and z
    two, _ = pixel_divergence(*f32(*(np.concatenate([0 * x[..., :1], x[..., :1]], -1) for x in (OURS, THEIRS))), 1.0)
    assert one == pytest.approx(float(two), rel=1e-5)
    each = [pixel_divergence(*f32(OURS[..., i : i + 1], THEIRS[..., i : i + 1]), 1.5)[0] for i in range(5)]
    together, _ = pixel_divergence(*f32(OURS, THEIRS), 1.5, one_vs_rest=True)
    assert together == pytest.approx(float(sum(each)), rel=1e-5)


def test_channel_term_is_shus():
    total, weight = channel_divergence(*f32(OURS, THEIRS), 3.0)
    p, q = (softmax(x.reshape(2, 12, 5) / 3, 1) for x in (THEIRS, OURS))
    assert total == pytest.approx(9 * kl(p, q), rel=1e-4) and weight == 2 * 5
    # A constant added to a channel changes no distribution over its pixels.
    shifted, _ = channel_divergence(*f32(OURS + np.arange(5.0), THEIRS), 3.0)
    assert shifted == pytest.approx(float(total), rel=1e-4)


def test_feature_term_is_that_of_fitnets():
    total, weight = feature_distance(*f32(OURS, THEIRS))
    assert total / weight == pytest.approx(0.5 * np.mean((OURS - THEIRS) ** 2), rel=1e-5)


@pytest.mark.parametrize(
    "term", [lambda x: pixel_divergence(x, THEIRS, 2.0), lambda x: channel_divergence(x, THEIRS, 2.0)]
)
def test_terms_vanish_with_their_gradient_where_both_agree_and_pull_towards_the_teacher(term):
    with jax.enable_x64(True):
        value, gradient = jax.value_and_grad(lambda x: term(x)[0])(jnp.asarray(THEIRS))
        assert abs(value) < 1e-12 and np.abs(gradient).max() < 1e-12
        ours, along = jnp.asarray(OURS), jnp.asarray(THEIRS - OURS)
        slope = jnp.vdot(jax.grad(lambda x: term(x)[0])(ours), along)
        finite = (term(ours + 1e-6 * along)[0] - term(ours - 1e-6 * along)[0]) / 2e-6
        assert slope < 0 and finite == pytest.approx(float(slope), rel=1e-6)


# --- the step ---


class Features(Tiny):
    """`Tiny` whose logits are named features."""

    def __call__(self, image, *, train=False):
        logits, out = super().__call__(image, train=train)
        return logits, {**out, "stage": logits}


TEACHER = Features(norm="batch")
LOSS = make_loss("cross_entropy", num_classes=3)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(3)
    label = rng.integers(0, 3, (8, 6, 6)).astype(np.uint8)
    label[0] = 255
    return {"image": rng.normal(size=(8, 6, 6, 3)).astype(np.float32), "label": label}


@pytest.fixture(scope="module")
def teacher():
    variables = quick(TEACHER.init)(jax.random.key(9), jnp.zeros((1, 6, 6, 3)))
    return jax.tree.map(lambda x: np.asarray(x + 0.1), dict(variables))


def run(batch, teacher, kind, *, strategy="jit", devices=1, accumulate=1):
    """The state and the last metrics after two steps."""
    strat = make_strategy(strategy, {"batch_size": len(batch["image"])}, jax.devices()[:devices])
    stage = {"stage": "stage", "teacher_stage": "stage", "channels": 3} if kind == "feature" else {}
    learner = DistilledNetwork(Features(axis_name=strat.axis_name), None, **stage)
    loss, tx = DistillationLoss(LOSS, kind, weight=2.0, temperature=2.0), optax.sgd(0.5)

    def step(state, batch, key, variables):
        taught = DistilledNetwork(learner.student, Teacher(TEACHER, variables, lambda x: 0.5 * x), **stage)
        make = make_train_step(taught, tx, loss, accumulate=accumulate, axis_name=strat.axis_name)
        return make(state, batch, key)

    alone = DistilledNetwork(Features(), None, **stage)
    state = quick(lambda key: init_state(alone, tx, key, (6, 6, 3)))(jax.random.key(1))
    compiled = strat.compile_train(step, constants=(teacher,))
    state, key = strat.put_state(state), strat.put_key(jax.random.key(2))
    for _ in range(2):
        state, metrics = compiled(state, strat.put_batch(batch), key)
    return jax.device_get(strat.get_state(state)), jax.device_get(strat.first(metrics))


def test_same_numbers_however_the_batch_is_cut(batch, teacher):
    state, metrics = run(batch, teacher, "channel")
    assert metrics["terms"]["distillation"] > 0
    expected = metrics["terms"]["cross_entropy"] + 2 * metrics["terms"]["distillation"]
    assert metrics["loss"] == pytest.approx(expected + 0.4 * metrics["terms"]["auxiliary1"], rel=1e-5)
    for how in ({"strategy": "pmap", "devices": 8}, {"accumulate": 4, "devices": 2}):
        other, measured = run(batch, teacher, "channel", **how)
        assert_same(other.params, state.params)
        assert_same(measured, metrics)


def test_the_map_of_features_learns_and_the_teacher_is_what_evaluation_gives(batch, teacher):
    _, first = run(batch, teacher, "feature")
    learner = DistilledNetwork(Features(), Teacher(TEACHER, teacher, lambda x: 0.5 * x), "stage", "stage", 3)
    variables = quick(learner.init)({"params": jax.random.key(1)}, jnp.zeros((1, 6, 6, 3)))
    assert variables["params"]["distillation"]["kernel"].shape == (3, 3)
    (logits, out), _ = learner.apply(variables, batch["image"], train=True, mutable=["batch_stats"])
    theirs, _ = TEACHER.apply(teacher, 0.5 * batch["image"], train=False)
    np.testing.assert_allclose(out["teacher"], theirs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        out["distillation"], logits @ variables["params"]["distillation"]["kernel"], rtol=1e-5, atol=1e-6
    )
    assert np.isfinite(first["terms"]["distillation"])
    with pytest.raises(ConfigError, match=r"^distill\.stage must name features of the network, stage; got 'stge'"):
        DistilledNetwork(Features(), None, "stge", "stage", 3).init(
            {"params": jax.random.key(1)}, jnp.zeros((1, 6, 6, 3))
        )


# --- runs ---


@pytest.fixture(scope="module")
def taught_by(tmp_path_factory):
    """A wider run of the same classes, whose images have another mean."""
    args = TINY | {"widths": (6,)}
    config = tiny_config(model__args=args, data__mean=(0.3, 0.4, 0.5))
    return make_run(tmp_path_factory.mktemp("teacher") / "run", config)


def test_a_taught_run_resumes_and_loads_without_its_teacher(taught_by, tmp_path):
    teacher = shutil.copytree(taught_by, tmp_path / "teacher")
    config = short_config(
        distill__teacher=str(teacher),
        distill__kind="feature",
        distill__weight=0.5,
        distill__stage="encoder/stage0",
        optimizer__learning_rate=0.03,
        schedule__name="constant",
    )
    check(config)
    train(config, tmp_path / "a", "again")
    log = [record for record in read_log(tmp_path / "a" / "log.jsonl") if record["split"] == "train"]
    assert log[-1]["loss/distillation"] < log[0]["loss/distillation"]
    stored = state_of(tmp_path / "a")
    assert stored["params/distillation/kernel"].shape == (4, 6)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "4")
    train(config, tmp_path / "b", "again")
    assert_identical(state_of(tmp_path / "b"), stored)
    shutil.rmtree(teacher)
    make_run(teacher, tiny_config(model__args=TINY | {"widths": (6,)}), {11: 0.5})
    with pytest.raises(ConfigError, match=r"learned from a teacher after 10 steps; .* has other parameters, after 11"):
        train(config, tmp_path / "b", "again")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "teacher.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"teacher\.json"):
        train(config, tmp_path / "other", "again")
    assert (tmp_path / "other" / "teacher.json").read_text() == "{}"
    shutil.rmtree(teacher)
    loaded = load_run(tmp_path / "a")
    assert loaded.config.distill.channels == 6
    plain = build_parts(tiny_config(), 6)
    assert loaded.variables["params"].keys() == jax.eval_shape(plain.init, jax.random.key(0)).params.keys()


def test_the_objective_of_a_configuration(taught_by):
    config = short_config(distill__teacher=str(taught_by), distill__kind="channel", distill__temperature=3.0)
    objective = build_parts(config, 6).objective
    assert isinstance(objective, DistillationLoss)
    assert (objective.kind, objective.weight, objective.temperature) == ("channel", 1.0, 3.0)


def test_the_teacher_sees_the_image_with_its_own_mean(taught_by):
    config, taught = read_teacher(short_config(distill__teacher=str(taught_by)))
    assert (config.distill.channels, taught.num_classes) == (0, 6)
    raw = np.random.default_rng(0).random((1, 16, 16, 3)).astype(np.float32)
    mean, std = (np.asarray(v, np.float32).reshape(1, 1, 1, -1) for v in (config.data.mean, config.data.std))
    run = load_run(taught_by)
    expected, _ = run.model.apply(run.variables, run.parts.prepare(raw), train=False)
    logits, _ = taught.teacher((raw - mean) / std)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


def test_teachers_that_do_not_suit_are_refused(taught_by, tmp_path):
    teacher = {"distill__teacher": str(taught_by)}
    for values, message in (
        ({"distill__teacher": str(tmp_path / "no")}, r"^distill\.teacher: The workdir .* does not exist"),
        (teacher | {"distill__kind": "feature"}, r"^distill\.kind=feature needs distill\.stage"),
        (
            teacher | {"distill__kind": "feature", "distill__stage": "encoder/stage9"},
            r"^distill\.stage must name features of the network, .*encoder/stage0.*; got 'encoder/stage9'",
        ),
        (
            teacher | {"distill__kind": "feature", "distill__stage": "encoder/stage0", "distill__teacher_stage": "x"},
            r"^distill\.teacher_stage must name features",
        ),
        (
            teacher | {"data__channels": 1, "data__mean": (0.5,), "data__std": (0.5,)},
            r"sees images of data\.channels=3",
        ),
        (
            teacher | {"model__num_classes": 4},
            r"gives 6 logits a pixel, this run 4; give a teacher of the same classes",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            check(short_config(**values))
    config, taught = read_teacher(short_config(**teacher))
    parts = build_parts(config, 6)
    with pytest.raises(
        ConfigError, match=r"knows the classes background, .*, this run has a, b; give a teacher of the"
    ):
        with_teacher(parts, taught, ("a", "b"))
    assert default_config().distill.teacher == ""
