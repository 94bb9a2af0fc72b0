"""Training with images without labels by the command: what is stored, resumed bit for bit, and refused."""

import shutil

import numpy as np
import pytest
from helpers.parity import FAST_COMPILE
from helpers.tiny_run import tiny_config
from helpers.tiny_training import assert_identical, state_of

from jaxseg import build
from jaxseg.config import update, validate
from jaxseg.consistency import ConsistencyLoss, DroppedFeatures
from jaxseg.errors import ConfigError, DataError
from jaxseg.losses import Loss
from jaxseg.run.check import check, note_without_effect
from jaxseg.run.report import read_log
from jaxseg.train import train


def semi_config(**values):
    config = tiny_config(
        steps=4,
        batch_size=8,
        data__shapes_train=16,
        data__labelled="1/4",
        data__labelled_rows=4,
        semi__method="fixmatch",
        semi__cutmix=0.5,
        semi__class_share=0.5,
        semi__ramp_up=3,
        augment__zoom=(0.8, 1.2),
        ema__decay=0.9,
        eval__every=4,
        checkpoint__every=2,
        log__every=1,
        log__images=0,
        log__tensorboard=False,
        compile__options=FAST_COMPILE,
    )
    update(config, eval__batch_size=8, **values)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("semi") / "run"
    config = semi_config()
    validate(config)
    train(config, workdir, "again")
    return workdir


def test_a_run_writes_its_choice_and_the_terms(finished):
    names = (finished / "labelled.txt").read_text().splitlines()
    assert len(names) == 4 and all(name.startswith("shapes-train-0000") for name in names)
    steps = [record for record in read_log(finished / "log.jsonl") if record["split"] == "train"]
    assert len(steps) == 4
    for record in steps:
        assert record["loss/consistency"] > 0 and 0.5 <= record["loss/confident"] <= 1
    # exp(-5 (1 - t/3)²) is .007 at step 0 and 1 at step 3
    assert steps[0]["loss/consistency"] < 0.05 * steps[3]["loss/consistency"]


def test_a_stopped_run_resumes_bit_for_bit(finished, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    for path in (workdir / "checkpoints").iterdir():
        if "4" in path.name:
            shutil.rmtree(path)
    before = state_of(workdir)
    train(semi_config(), workdir, "again")
    assert "shapes: 16 training (4 of them with labels) and 5 validation images" in capsys.readouterr().err
    after = state_of(workdir)
    assert any((before[name] != after[name]).any() for name in after if "params" in name)
    assert_identical(after, state_of(finished))


def test_a_run_with_another_choice_is_not_resumed(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    names = (workdir / "labelled.txt").read_text().splitlines()
    (workdir / "labelled.txt").write_text("\n".join([*names[1:], "shapes-train-999999"]) + "\n")
    with pytest.raises(ConfigError, match=r"trained with the labels of the 4 images in its labelled\.txt, but now 4"):
        train(semi_config(), workdir, "again")
    with pytest.raises(ConfigError, match=r"another configuration.*data\.labelled_seed: -1 -> 3"):
        train(semi_config(data__labelled_seed=3), finished, "again")


def test_the_list_of_a_run_can_be_given_to_another(finished, tmp_path):
    path = finished / "labelled.txt"
    config = semi_config(data__labelled=str(path), steps=1, semi__method="", data__labelled_rows=0)
    train(config, tmp_path / "run", "again")  # the labels alone
    assert (tmp_path / "run" / "labelled.txt").read_text() == path.read_text()


def test_a_share_that_leaves_no_label_writes_nothing(tmp_path):
    with pytest.raises(DataError, match=r"none keeps its labels"):
        train(semi_config(data__labelled=0.01), tmp_path / "run", "again")
    assert not (tmp_path / "run").exists()


def test_the_keys_reach_the_loss_and_the_step(monkeypatch):
    given = {}
    monkeypatch.setattr("jaxseg.pieces.images.make_teach_of", lambda network, **fields: given.update(fields))
    strength = []
    monkeypatch.setattr(
        "jaxseg.pieces.images.photometric.make_stronger", lambda s: strength.append(s) or (lambda key, image: image / 2)
    )
    config = semi_config(semi__weight=0.3, semi__threshold=0.6, semi__strength=0.7, data__mean=(0.2,), data__std=(0.5,))
    update(config, semi__features=0.4)
    parts = build.build_parts(config, 6, axis_name="devices")
    assert parts.learner == DroppedFeatures(parts.learner.network, 0.4, "devices")
    assert parts.objective == ConsistencyLoss(
        parts.loss, method="fixmatch", weight=0.3, ramp_up=3, threshold=0.6, class_share=0.5
    )
    parts.train_step()
    assert (given["cutmix"], given["one_vs_rest"], given["both"], strength) == (0.5, False, True, [0.7])
    # The stronger view changes values in [0, 1]: half of 0.4 is 0.2.
    image = np.full((2, 2, 3), (0.4 - 0.2) / 0.5, np.float32)
    np.testing.assert_allclose(given["stronger"](None, image), 0.0, atol=1e-6)
    plain = build.build_parts(tiny_config(), 6)
    assert isinstance(plain.objective, Loss)


def test_keys_without_effect_are_noted(caplog):
    note_without_effect(semi_config(semi__method="", data__labelled_rows=0))
    note_without_effect(semi_config(semi__method="mean_teacher", data__labelled="a.txt", data__labelled_seed=1))
    assert sorted(record.message.split(" has")[0] for record in caplog.records) == [
        *("data.labelled_seed", "semi.class_share", "semi.class_share", "semi.cutmix", "semi.ramp_up"),
    ]
    assert "semi.cutmix has no effect here: it needs semi.method=mean_teacher or fixmatch." in caplog.text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss__terms": "reconstruction + cross_entropy", "model__name": "autoencoder"}, "compares images"),
        (
            {"loss__terms": "sampled_cross_entropy", "loss__args": {"sampled_cross_entropy": {"sampling": "uniform"}}},
            r"semi\.method compares the logits of all classes",
        ),
        ({"loss__terms": "cross_entropy + entropy", "semi__features": 0.5}, r"semi\.features adds views"),
        (
            {"model__name": "erfnet", "semi__features": 0.5},
            "a child that model.name=erfnet does not have",
        ),
    ],
)
def test_losses_that_a_teacher_has_no_answer_for(values, message):
    config = semi_config(model__args={}, **values)
    with pytest.raises(ConfigError, match=message):
        check(config)
