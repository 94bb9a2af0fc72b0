"""The folds of cross-validation: every example is left out once, by its name alone."""

import pytest
from helpers.tiny_run import make_folder

from jaxseg.config import ConfigError, default_config, update, validate
from jaxseg.data import make_source
from jaxseg.data.folds import WithoutFold, fold_of
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
