"""Runs of a generator by the commands: training, resuming, loading, samples, and what is refused."""

from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.parity import FAST_COMPILE
from helpers.tiny_run import make_run, tiny_config
from helpers.tiny_training import assert_identical, state_of
from PIL import Image

from jaxseg import build, models, pictures
from jaxseg.config import update
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.inference import load, load_run
from jaxseg.inference.samples import sample, write_samples
from jaxseg.predict import main as predict
from jaxseg.run.report import read_log
from jaxseg.train import train


def config_of(**values):
    config = tiny_config(
        steps=4,
        batch_size=8,
        data__shapes_train=16,
        data__mean=(0.5,),
        data__std=(0.5,),
        loss__terms="generator + discriminator + cross_entropy",
        optimizer__name="adam",
        optimizer__args={"b1": 0.5},
        optimizer__weight_decay=0.0,
        eval__every=2,
        checkpoint__every=2,
        log__every=1,
        log__images=0,
        log__tensorboard=False,
        compile__options=FAST_COMPILE,
    )
    update(config, model__name="dcgan", eval__batch_size=8)
    update(config, model__args={"size": 8, "width": 4, "latent": 3}, **values)
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of four steps."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    train(config_of(), workdir, "again")
    return workdir


def test_a_run_logs_both_losses_and_its_samples(workdir):
    log = read_log(workdir / "log.jsonl")
    steps = [r for r in log if r["split"] == "train"]
    assert [r["step"] for r in steps] == [1, 2, 3, 4]
    for r in steps:
        parts = [r[f"loss/{name}"] for name in ("generator", "discriminator", "cross_entropy")]
        assert r["loss"] == pytest.approx(sum(parts), rel=1e-5)
    ends = [r for r in log if r["split"] == "val"]
    assert all(r["frechet_distance"] > 0 and r["frechet_distance_of_training"] > 0 for r in ends) and len(ends) == 2
    sheet = np.asarray(Image.open(workdir / "samples.png"))
    assert sheet.shape == (8 * 66 + 2, 8 * 66 + 2, 3)
    # The picture of the last step is that of the last checkpoint.
    run = load_run(workdir, "last")
    np.testing.assert_array_equal(sheet, pictures.grid(list(sample(run.parts, run.variables, 64))))


def test_a_resumed_run_is_the_uninterrupted_one(workdir, tmp_path, monkeypatch):
    from jaxseg.run import loop

    with monkeypatch.context() as patch:
        patch.setattr("jaxseg.train.asked_to_stop", lambda config, step, stop: step == 2)
        patch.setattr(loop, "asked_to_stop", lambda config, step, stop: step == 2)
        assert train(config_of(), tmp_path / "stopped", "again") is None
    train(config_of(), tmp_path / "stopped", "again")
    assert_identical(state_of(tmp_path / "stopped"), state_of(workdir))
    ours, theirs = (read_log(path / "log.jsonl") for path in (tmp_path / "stopped", workdir))
    for records in (ours, theirs):
        for record in records:
            record.pop("images_per_second", None)
    assert ours == theirs


def test_the_command_writes_samples(workdir, tmp_path, capsys):
    assert predict(["--workdir", str(workdir), "--samples", "3", "--out", str(tmp_path / "some")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("3 images from noise by dcgan after 4 steps: ") and "sample-02.png" in said
    assert predict(["--workdir", str(workdir), "--samples", "1", "--out", str(tmp_path / "some")]) == 0
    assert "also has 2 pictures of earlier calls, such as " in capsys.readouterr().out
    images = [np.asarray(Image.open(tmp_path / "some" / f"sample-0{i}.png")) for i in range(3)]
    assert images[0].shape == (8, 8, 3) and len({image.tobytes() for image in images}) == 3
    run = load(workdir, "last")
    np.testing.assert_array_equal(run.sample(3), images)
    np.testing.assert_array_equal(run.sample(70)[:3], images)  # the first of a seed, however many are made
    assert not np.array_equal(run.sample(3, seed=1), images)
    with pytest.raises(ArgumentError, match="count must be a whole number of at least 1, got 0"):
        run.sample(0)
    with pytest.raises(ArgumentError, match=r"seed must be a whole number in \[0, 4294967295\], got 4294967296"):
        run.sample(1, seed=2**32)
    Image.fromarray(images[0]).save(tmp_path / "sample-00.png")
    with pytest.raises(ConfigError, match=r"sample-00\.png would replace a file that prediction did not write"):
        write_samples(np.stack(images), tmp_path)
    write_samples(np.stack(images), tmp_path / "some")  # its own files are replaced


def test_the_classifier_segments_and_the_discriminator_is_loaded(workdir, tmp_path):
    run = load(workdir)
    assert set(run.variables["params"]) == {"discriminator", "generator", "head"}
    assert run.predict(np.zeros((9, 7, 3), np.uint8)).classes.shape == (9, 7)


def test_samples_of_any_channels_are_written(tmp_path):
    for channels, shape in ((1, (8, 8)), (2, (8, 8, 3)), (4, (8, 8, 3)), (5, (8, 8, 3))):
        [file] = write_samples(np.full((1, 8, 8, channels), 7, np.uint8), tmp_path)
        assert np.asarray(Image.open(file)).shape == shape


def test_samples_are_the_generators_images_in_bytes():
    parts = build.build_parts(config_of(), 6)
    variables = parts.init(jax.random.key(3)).variables
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(5), 1), (3,))
    made = np.asarray(parts.model.generate(variables, noise[None]))[0]
    np.testing.assert_allclose(sample(parts, variables, 2, seed=5)[1], 255 * (made / 2 + 0.5), atol=0.51)


def test_other_networks_refuse_samples(tmp_path: Path, capsys):
    workdir = make_run(tmp_path / "run", tiny_config())
    assert predict(["--workdir", str(workdir), "--samples", "2", "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "Samples need a network that generates images, dcgan; cnn segments images" in error
    assert not (tmp_path / "out").exists()
    assert not models.can_generate(load_run(workdir).model)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: IMAGES"),
        (["--seed", "1", "a.png"], "--seed is that of the noise of --samples"),
        (["--samples", "2", "a.png"], "--samples makes images from noise; it takes no IMAGES"),
        (["--samples", "0"], "--samples must be at least 1, got 0"),
        (["--samples", "1", "--seed", "-1"], "--seed must be in [0, 4294967295], got -1"),
        (["--samples", "1", "--seed", str(2**64)], "--seed must be in [0, 4294967295], got 18446744073709551616"),
    ],
)
def test_wrong_options_are_named(words, message, capsys):
    with pytest.raises(SystemExit):
        predict(["--workdir", "runs/none", *words])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data__mean": (0.485,)}, r"data\.mean must be 0\.5 for model\.name=dcgan, .* got 0\.485"),
        ({"data__std": (0.5, 0.5, 0.25)}, r"data\.std must be 0\.5 .* got 0\.5, 0\.5, 0\.25"),
        ({"adversarial__weight": 0.1}, r"adversarial\.weight adds a discriminator of label maps, but"),
    ],
)
def test_keys_that_do_not_suit_a_generator_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        build.build_parts(config_of(**values), 6)
