"""The source protocol and the choice of a source by the configuration."""

import subprocess
import sys

import pytest

from jaxseg.config import default_config, update
from jaxseg.data import DataInfo, make_source
from jaxseg.data.sources import SOURCES, check_source
from jaxseg.errors import ConfigError, DataError


def config_with(**values):
    config = default_config()
    update(config, **values)
    return config


class Fake:
    """A source of nothing but its length and classes."""

    def __init__(self, length, classes):
        self.length = length
        self.info = DataInfo(classes, ((0, 0, 0),) * len(classes), None, 3)

    def __len__(self):
        return self.length


@pytest.mark.parametrize("split, length", [("train", 5), ("val", 3), ("test", 3)])
def test_shapes_take_length_size_and_channels_from_the_configuration(split, length):
    config = config_with(data__shapes_train=5, data__shapes_val=3, data__size=(20, 30), data__channels=1)
    source = make_source(config, split)
    assert len(source) == length
    assert source[length - 1]["image"].shape == (20, 30, 1)
    assert source[length - 1]["label"].shape == (20, 30)
    assert source.info.channels == 1


def test_another_seed_of_the_run_leaves_the_data_alone():
    first, second = (make_source(config_with(seed=seed, data__shapes_train=2), "train") for seed in (0, 1))
    assert (first[1]["image"] == second[1]["image"]).all()


def test_unknown_source_names_the_nearest():
    with pytest.raises(ConfigError, match=r"data\.source='camvit'.*Did you mean 'camvid'"):
        make_source(config_with(data__source="camvit"), "train")


def test_unknown_split_of_the_shapes_names_the_nearest():
    with pytest.raises(DataError, match=r"no split 'vall'\. Did you mean 'val'"):
        make_source(config_with(), "vall")


def test_classes_of_the_configuration_that_disagree_with_the_data():
    with pytest.raises(DataError, match=r"data\.classes names 2 classes \(cat, dog\).*has 6 \(background, disc"):
        make_source(config_with(data__classes=("cat", "dog")), "train")
    names = make_source(config_with(), "val").info.classes
    assert make_source(config_with(data__classes=names), "val").info.classes == names


@pytest.mark.parametrize(
    "outputs, classes, message", [(21, 6, "num_classes is 21.*has 6 classes"), (1, 6, "two classes")]
)
def test_outputs_of_the_model_that_disagree_with_the_data(outputs, classes, message):
    source = Fake(4, tuple("abcdef"[:classes]))
    with pytest.raises(DataError, match=message):
        check_source(source, config_with(model__num_classes=outputs), "train")


@pytest.mark.parametrize("outputs, classes", [(0, 6), (6, 6), (1, 2), (2, 2)])
def test_outputs_of_the_model_that_agree(outputs, classes):
    check_source(Fake(4, tuple("abcdef"[:classes])), config_with(model__num_classes=outputs), "train")


def test_zero_length_split():
    with pytest.raises(DataError, match=r"split 'val' of the shapes data has no images"):
        check_source(Fake(0, ("a", "b")), config_with(), "val")


def test_info_needs_a_colour_for_each_class_and_no_more_classes_than_a_label_holds():
    with pytest.raises(DataError, match="2 class names and 1 class colour are given"):
        DataInfo(("a", "b"), ((0, 0, 0),), None, 3)
    with pytest.raises(DataError, match="65536 classes"):
        DataInfo(("a",) * 65536, ((0, 0, 0),) * 65536, None, 3)


def test_every_source_of_the_help_text_is_known():
    from jaxseg.config import KEYS

    assert all(name in KEYS["data.source"].meaning for name in SOURCES)


def test_importing_the_data_package_and_making_shapes_loads_nothing_heavy():
    code = (
        "import sys, jaxseg.data as d; from jaxseg.config import default_config\n"
        "d.make_source(default_config(), 'val')[0]\n"
        "heavy = {'grain', 'tensorflow_datasets', 'matplotlib', 'PIL', 'orbax'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_lazy_names_of_the_data_package():
    import jaxseg.data

    assert jaxseg.data.ShapesSource.__name__ == "ShapesSource"
    assert "make_train_loader" in dir(jaxseg.data)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        jaxseg.data.nothing  # noqa: B018
