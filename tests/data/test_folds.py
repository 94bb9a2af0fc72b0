"""The folds of cross-validation: every example is left out once, by its name alone."""

import numpy as np
import pytest
from helpers.tiny_run import make_folder

from jaxseg.config import ConfigError, default_config, update, validate
from jaxseg.data import make_source
from jaxseg.data.folds import HELD_OUT, WithoutFold, about_folds, balanced_folds, fold_of, groups_of
from jaxseg.data.pairs import Pair, hold_out
from jaxseg.errors import DataError


def config_with(**values):
    config = default_config()
    update(config, data__shapes_train=60, data__size=(8, 8), **values)
    return config


def test_each_example_is_left_out_by_one_fold():
    names = [f"shapes-train-{i:06d}" for i in range(60)]
    left = []
    for fold in (1, 2, 3):
        source = make_source(config_with(data__fold=f"{fold}/3"), "train")
        kept = [source.name(i) for i in range(len(source))]
        assert kept == [name for name in names if fold_of(name, 3) != fold]
        left += [name for name in names if name not in kept]
    assert sorted(left) == names and isinstance(source, WithoutFold)
    whole = make_source(config_with(), "train")
    i = names.index(kept[5])
    assert (source[5]["image"] == whole[i]["image"]).all() and source.label_size(5) == (8, 8)
    assert source.info == whole.info
    assert len(make_source(config_with(data__fold="1/3"), "val")) == 256  # of the training split alone
    assert len(make_source(config_with(data__fold="1/3"), "train", strict=False)) == 60  # as data.check reads it


def test_folds_are_about_equal_and_independent_of_what_is_held_out():
    names = [f"image{i}" for i in range(6000)]
    train = hold_out([Pair(name, None, None) for name in names], "train", 0.3)
    sizes = [sum(fold_of(pair.name, 3) == fold for pair in train) for fold in (1, 2, 3)]
    assert sum(sizes) == len(train) and max(abs(size / len(train) - 1 / 3) for size in sizes) < 0.03


def test_a_folder_has_folds_too(tmp_path):
    make_folder(tmp_path, [(8, 8)] * 9, split="train")
    make_folder(tmp_path, [(8, 8)] * 2)
    changes = {"data__source": "folder", "data__dir": str(tmp_path)}
    kept = make_source(config_with(**changes, data__fold="2/3"), "train")
    assert [kept.name(i) for i in range(len(kept))] == [str(i) for i in range(9) if fold_of(str(i), 3) != 2]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/1", "1", "a/b", "1/3/5", " 1/3"])
def test_another_form_is_refused(text):
    config = config_with(data__fold=text)
    with pytest.raises(ConfigError, match=r"data\.fold must be empty, or FOLD/FOLDS such as 2/5"):
        validate(config)


def test_an_empty_fold_is_refused():
    config = config_with(data__fold="1/500")
    with pytest.raises(DataError, match=r"leaves out 0 of 60 training images.*give fewer folds"):
        make_source(config, "train")


def _counts(seed: int, images: int = 60, classes: int = 4) -> np.ndarray:
    """Pixels of each class in each image; the last class is in a tenth of the images, the first in all."""
    random = np.random.default_rng(seed)
    has = random.random((images, classes)) < np.array([1.0, 0.6, 0.3, 0.1][:classes])
    return random.integers(10, 200, (images, classes)) * has


def test_balanced_folds_share_images_and_rare_classes():
    names = [f"image{i}" for i in range(60)]
    by_hash = np.array([fold_of(name, 5) for name in names])
    spreads = []
    for seed in range(6):
        counts = _counts(seed)
        numbers = balanced_folds(counts, names, 5)
        assert np.bincount(numbers).tolist()[1:] == [12] * 5
        for c in range(4):
            having = [(counts[numbers == fold, c] > 0).sum() for fold in range(1, 6)]
            assert max(having) - min(having) <= 2, f"class {c} is in {having} images"
        for each in (numbers, by_hash):
            shares = np.stack([counts[each == fold].sum(0) / counts[each == fold].sum() for fold in range(1, 6)])
            spreads.append(shares.std(0) / shares.mean(0))
    ours, hashed = np.mean(spreads[::2], axis=0), np.mean(spreads[1::2], axis=0)
    assert (ours < 0.7 * hashed).all()
    order = np.random.default_rng(1).permutation(60)
    again = balanced_folds(counts[order], [names[i] for i in order], 5)
    np.testing.assert_array_equal(again, numbers[order])


def test_groups_stay_whole_and_images_without_labels_are_in_no_fold():
    counts = _counts(2)
    counts[[3, 17]] = 0
    groups = [f"patient{i % 11}" for i in range(60)]
    numbers = balanced_folds(counts, groups, 4)
    assert numbers[3] == numbers[17] == 0 and set(numbers) == {0, 1, 2, 3, 4}
    for patient in set(groups):
        assert len({n for n, g in zip(numbers.tolist(), groups) if g == patient and n}) == 1
    assert np.bincount(numbers)[1:].min() >= 10
    about = about_folds(numbers, counts, ("a", "b", "c", "d"), groups)
    assert about.startswith("4 folds of 11 to 16 of 58 images in 11 groups; the class that differs most, ")
    assert about.endswith("; 2 images without labels in the training of every fold.")


def test_few_groups_are_refused_and_no_fold_is_empty():
    counts = np.ones((9, 2), int)
    with pytest.raises(DataError, match=r"4 folds need at least as many groups with labels, .* has 3; give fewer"):
        balanced_folds(counts, ["a", "b", "c"] * 3, 4)
    with pytest.raises(DataError, match=r"10 folds need at least as many images with labels, .* has 9"):
        balanced_folds(counts, list("abcdefghi"), 10)
    sizes = np.bincount(balanced_folds(counts, ["a"] * 6 + ["b", "c", "d"], 4))[1:]
    assert sorted(sizes.tolist()) == [1, 1, 1, 6]


def test_a_file_of_folds_and_groups_decide(tmp_path):
    names = [f"shapes-train-{i:06d}" for i in range(60)]
    file = tmp_path / "folds.csv"
    file.write_text("name,fold\n" + "".join(f"{name},{i % 3}\n" for i, name in enumerate(names)))
    config = config_with(data__fold="2/2", data__fold_file=str(file))
    train, fold = make_source(config, "train"), make_source(config, HELD_OUT)
    assert [train.name(i) for i in range(len(train))] == [name for i, name in enumerate(names) if i % 3 != 2]
    assert [fold.name(i) for i in range(len(fold))] == names[2::3]  # fold 0 is trained on by all
    with pytest.raises(DataError, match=r"folds\.csv has 2 folds, and data\.fold asks for one of 3"):
        make_source(config_with(data__fold="2/3", data__fold_file=str(file)), "train")
    file.write_text(f"name,fold\n{names[0]},1\n{names[1]},2\n")
    with pytest.raises(DataError, match=r"training image shapes-train-000002 is in no fold of data\.fold_file"):
        make_source(config, "train")
    grouped = make_source(config_with(data__fold="1/2", data__group=r"(\d\d)\d$"), HELD_OUT)
    tens = [grouped.name(i)[-3:-1] for i in range(len(grouped))]
    assert len(tens) == 10 * len(set(tens))
    table = tmp_path / "scenes.csv"
    table.write_text("name,scene\n" + "".join(f"{name}.png,{i // 20}\n" for i, name in enumerate(names)))
    source = make_source(config_with(), "train")
    assert groups_of(source, f"{table}:scene") == [str(i // 20) for i in range(60)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("patient", r"data\.group='patient' matches no group in the name of the image 'shapes-train-000000'"),
        ("(", r"data\.group='\(' is neither a regular expression .* nor FILE\.csv:COLUMN"),
        ("gone.csv:scene", r"gone\.csv of data\.group='gone\.csv:scene' cannot be read"),
    ],
)
def test_wrong_groups_are_named(text, words):
    with pytest.raises((DataError, ConfigError), match=words):
        groups_of(make_source(config_with(), "train"), text)
