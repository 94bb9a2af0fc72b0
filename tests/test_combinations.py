"""Settings that meet each other: what each of two features knows of the other, and what is refused."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.tiny_run import make_run, tiny_config
from PIL import Image

from jaxseg.build import build_parts, make_strategy
from jaxseg.config import default_config, update, validate
from jaxseg.data.folder import FolderSource
from jaxseg.data.folds import without_fold
from jaxseg.data.labelled import labelled_indices
from jaxseg.data.weak.weakened import WeakenedSource
from jaxseg.errors import ConfigError
from jaxseg.inference import thresholds
from jaxseg.optim import encoder_labels
from jaxseg.run.load import load_run
from jaxseg.run.teacher import Taught, with_teacher
from jaxseg.tuning import Selection


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six images with masks, and five without in another folder."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for place, count in (("images", 6), ("more", 5)):
        (root / place).mkdir()
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(root / place / f"{place}{i}.png")
    (root / "masks").mkdir()
    for i in range(6):
        Image.fromarray(rng.integers(0, 2, (8, 8), np.uint8)).save(root / "masks" / f"images{i}.png")
    return root


def test_images_without_masks_have_none_behind_a_fold_or_weaker_labels(folder):
    source = FolderSource(str(folder), "train", unlabelled=True, unlabelled_dir=str(folder / "more"))
    having = {source.name(i) for i in labelled_indices(source)}
    assert 0 < len(having) < len(source) and all("images" in name for name in having)
    config = default_config()
    update(config, data__fold="1/2")
    part = without_fold(source, config.data)
    assert {part.name(i) for i in labelled_indices(part)} == having & {part.name(i) for i in range(len(part))}
    weaker = WeakenedSource(part, "points")
    assert labelled_indices(weaker) == labelled_indices(part)


def test_a_probe_trains_the_scale_of_a_cosine_head():
    probe = Selection(("probe",))
    assert probe.trains("head/kernel") and probe.trains("head/log_scale") and not probe.trains("decoder/log_scale")


def test_adapters_of_the_encoder_have_its_rate():
    kernel = np.zeros(1)
    params = {"encoder": {"q": kernel}, "head": {"kernel": kernel}}
    params["lora"] = {"encoder": {"q": {"a": kernel}}, "head": {"a": kernel}}
    labels = encoder_labels(params)
    assert labels["encoder"]["q"] == labels["lora"]["encoder"]["q"]["a"] == "encoder"
    assert labels["head"]["kernel"] == labels["lora"]["head"]["a"] == "rest"


def changed(**values):
    config = default_config()
    update(config, **{"model__name": "cnn", **values})
    return config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lora__rank": 2, "optimizer__encoder_rate": 0.0}, r"optimizer\.encoder_rate=0 would freeze the adapters too"),
        ({"loss__terms": "binary_cross_entropy + 0.1 * entropy"}, "The loss term entropy takes the logits for those"),
        ({"loss__terms": "binary_cross_entropy + gated_crf"}, "The loss term gated_crf takes the logits for those"),
        (
            {"model__name": "knet", "loss__terms": "dice + binary_cross_entropy"},
            "a softmax, and loss.terms has binary_cr",
        ),
        (
            {"model__name": "knet", "loss__terms": "focal", "loss__args": {"focal": {"one_vs_rest": True}}},
            "model.name=knet divides.*loss.terms has focal",
        ),
        ({"semi__method": "fixmatch", "distill__teacher": "x"}, "each have a teacher; give one of them"),
    ],
)
def test_what_contradicts_itself_is_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        build_parts(changed(**values), 3)


def test_a_changed_training_split_does_not_score():
    with pytest.raises(
        ConfigError, match=r"data\.fold changes the training split 'train', which data\.val_split names"
    ):
        validate(changed(data__fold="1/2", data__val_split="train"))


def test_devices_do_not_divide_pairs_of_images():
    values = {"data__labelled": "1/2", "semi__method": "fixmatch", "strategy": "pmap", "batch_size": 8, "accumulate": 1}
    with pytest.raises(ConfigError, match=r"batch_size / \(2 accumulate\)"):
        make_strategy(changed(**values))
    make_strategy(changed(**values | {"batch_size": 16}))


def test_a_teacher_with_sigmoids_does_not_teach_a_softmax():
    parts = build_parts(changed(distill__teacher="runs/teacher"), 3)
    taught = Taught(SimpleNamespace(), ("a", "b", "c"), 3, True, 10)
    with pytest.raises(ConfigError, match="was trained with one sigmoid for each class, this run trains a softmax"):
        with_teacher(parts, taught, ("a", "b", "c"))


def test_thresholds_replace_no_file_of_someone_else(tmp_path):
    run = load_run(make_run(tmp_path / "run", tiny_config(loss__terms="binary_cross_entropy")))
    file = run.workdir / "thresholds.json"
    thresholds.fit(run).write()
    thresholds.fit(run).write()  # its own
    assert len(json.loads(file.read_text())["thresholds"]) == 6
    file.write_text('{"mine": 1}')
    with pytest.raises(ConfigError, match=r"thresholds\.json would replace a file that jaxseg did not write"):
        thresholds.fit(run).write()
    assert file.read_text() == '{"mine": 1}'
