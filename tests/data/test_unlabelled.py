"""Images without labels: masks that are ignored everywhere, and a folder without masks."""

import numpy as np
import pytest
from PIL import Image

from jaxseg.config import default_config, update, validate
from jaxseg.data import FolderSource, check, make_source
from jaxseg.data.survey import survey
from jaxseg.errors import ConfigError, DataError
from jaxseg.types import IGNORE

NAMES = [f"{i:02d}" for i in range(24)]


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def folder(tmp_path):
    """24 images, of which every second one is unlabelled, and a folder of three without masks."""
    rng = np.random.default_rng(0)
    for i, name in enumerate(NAMES):
        mask = np.resize(np.array([0, 1], np.uint8), (6, 8)) if i % 2 else np.full((6, 8), IGNORE, np.uint8)
        save(tmp_path / "images" / f"{name}.png", rng.integers(0, 256, (6, 8, 3), np.uint8))
        save(tmp_path / "masks" / f"{name}.png", mask)
    for name in "xyz":
        save(tmp_path / "unlabelled" / f"{name}.png", rng.integers(0, 256, (7, 9, 3), np.uint8))
    return tmp_path


def config_of(folder, **values):
    config = default_config()
    update(config, data__source="folder", data__dir=str(folder), data__val_fraction=0.4, **values)
    return config


ADVERSARIAL = {"adversarial__weight": 0.01, "adversarial__semi_weight": 0.1}


@pytest.mark.parametrize(
    "method",
    [ADVERSARIAL, {"loss__terms": "reconstruction + cross_entropy"}, {"loss__terms": "generator + discriminator"}],
)
def test_images_without_labels_are_never_held_out(folder, method):
    config = config_of(folder, data__unlabelled="unlabelled", **method)
    validate(config)
    train, val = (make_source(config, split) for split in ("train", "val"))
    held_out = {val.name(i) for i in range(len(val))}
    plain = {p.name for p in FolderSource(folder, "val", val_fraction=0.4).pairs}
    assert held_out == {n for n in plain if int(n) % 2} and 0 < len(held_out) < len(plain)
    names = [train.name(i) for i in range(len(train))]
    assert names == [n for n in NAMES if n not in held_out] + [f"unlabelled/{n}" for n in "xyz"]
    assert train[len(train) - 1]["image"].shape == (7, 9, 3) and train.label_size(len(train) - 1) == (7, 9)
    assert (train[len(train) - 1]["label"] == IGNORE).all() and train.info == val.info
    reports = [survey(config, split) for split in ("train", "val")]
    assert [r.problems for r in reports] == [[], []] and [r.remarks for r in reports] == [[], []]
    assert len(reports[0].unlabelled) == 15 and reports[1].unlabelled == []


def test_without_such_a_method_they_are_problems(folder):
    config = config_of(folder)
    problems = [problem for split in ("train", "val") for problem in survey(config, split).problems]
    assert len(problems) == 12 and all("Every pixel of" in p for p in problems)
    with pytest.raises(ConfigError, match=r"data\.unlabelled needs a term that images without labels have"):
        make_source(config_of(folder, data__unlabelled="unlabelled"), "train")
    with pytest.raises(ConfigError, match=r"data\.unlabelled needs data\.source=folder"):
        shapes = config_of(folder, data__unlabelled="unlabelled", **ADVERSARIAL)
        update(shapes, data__source="shapes")
        validate(shapes)


def test_the_adversarial_experiment_accepts_them(folder, capsys):
    arguments = ["--config", "experiments/adversarial.py:folder", f"--config.data.dir={folder}", "--images", "0"]
    assert check.main(arguments) == 0
    out = capsys.readouterr().out
    assert "of them without labels" in out and "adversarial.semi_weight or adversarial.unlabelled_weight above 0" in out


def test_an_autoencoder_needs_no_labels_at_all(folder):
    for name in NAMES:
        save(folder / "masks" / f"{name}.png", np.full((6, 8), IGNORE, np.uint8))
    config = config_of(folder, loss__terms="reconstruction + cross_entropy")
    sources = [make_source(config, split) for split in ("train", "val")]
    assert sum(map(len, sources)) == 24 and len(sources[0].info.classes) == 2 and min(map(len, sources)) > 0
    assert survey(config, "val").problems == []
    with pytest.raises(DataError, match="hold the values 255"):
        make_source(config_of(folder), "train")


def test_an_image_without_a_mask_beside_the_others_is_sent_to_the_folder(folder):
    (folder / "masks" / "03.png").unlink()
    with pytest.raises(DataError, match=r"03\.png has no mask .* a folder of their own, which data\.unlabelled names"):
        make_source(config_of(folder, **ADVERSARIAL), "train")


@pytest.mark.parametrize("name", ["images", ".", "link"])
def test_images_with_masks_are_refused_as_unlabelled(folder, name):
    """Else the validation images would be trained on."""
    (folder / "link").symlink_to(folder / "images")
    with pytest.raises(DataError, match=r"data\.unlabelled gives the image .*00\.png, which .* has with a mask"):
        make_source(config_of(folder, data__unlabelled=name, **ADVERSARIAL), "train")


def test_a_folder_of_unlabelled_images_that_is_missing_or_empty(folder):
    with pytest.raises(DataError, match=r"There is no folder .*nothing \(data\.unlabelled\)"):
        make_source(config_of(folder, data__unlabelled="nothing", **ADVERSARIAL), "train")
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty \(data\.unlabelled\) has no images"):
        make_source(config_of(folder, data__unlabelled="empty", **ADVERSARIAL), "train")
    (folder / "unlabelled" / "y.png").write_text("no image")
    with pytest.raises(DataError, match=r"y\.png cannot be read as an image"):
        make_source(config_of(folder, data__unlabelled="unlabelled", **ADVERSARIAL), "train")


def test_no_group_is_on_both_sides_though_its_images_without_labels_are_not_scored(folder):
    """Images 0 to 4 are of patient 1, others of patient 0: what is unlabelled of the held-out one is in no split."""
    table = folder / "patients.csv"
    table.write_text("name,patient\n" + "".join(f"{name},p{int(int(name) < 5)}\n" for name in NAMES))
    config = config_of(folder, data__group=f"{table}:patient", **ADVERSARIAL)
    train, val = (
        [s.name(i) for i in range(len(s))] for s in (make_source(config, split) for split in ("train", "val"))
    )
    patient = {int(name) < 5 for name in val}
    assert len(patient) == 1 and {int(name) < 5 for name in train} == {not patient.pop()}
    assert all(int(name) % 2 for name in val) and any(int(name) % 2 == 0 for name in train)
