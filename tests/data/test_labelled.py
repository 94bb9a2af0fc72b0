"""Training images that keep their labels: the choice, the source without the others, and batches of both kinds."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxseg.config import ConfigError, default_config, update, validate
from jaxseg.data import check
from jaxseg.data.class_counts import pixel_counts
from jaxseg.data.labelled import PartlyLabelled, as_share, choose_labelled, labelled_indices
from jaxseg.data.pipeline import make_train_loader
from jaxseg.data.shapes import ShapesSource
from jaxseg.data.sources import require_use_of_unlabelled, training_source
from jaxseg.data.streams import labelled_rows_of
from jaxseg.errors import DataError
from jaxseg.types import IGNORE

SEMI = {"semi__method": "fixmatch", "data__labelled": "1/4"}


@pytest.fixture(scope="module")
def shapes():
    return ShapesSource("train", 40, (8, 8))


def config_of(**values):
    config = default_config()
    update(config, data__size=(8, 8), data__shapes_train=40, data__shapes_val=8, **values)
    return config


def test_a_share_is_a_seeds_and_part_of_every_larger_one(shapes):
    half, quarter = (choose_labelled(shapes, share, 3) for share in ("1/2", 0.25))
    assert (len(half), len(quarter)) == (20, 10) and set(quarter) < set(half)
    assert list(half) == sorted(half) and choose_labelled(shapes, 0.5, 4) != half
    longer = ShapesSource("train", 80, (8, 8))  # the same images and others: a quarter of them
    assert set(choose_labelled(longer, 0.25, 3)) & set(range(40)) <= set(half)
    assert choose_labelled(shapes, 1.0, 3) == tuple(range(40))
    assert float(as_share("1/64")) == 1 / 64 and as_share("names.txt") is None


def test_the_seed_is_that_of_the_run_or_a_key():
    chosen = [training_source(config_of(**SEMI, seed=seed)).kept for seed in (0, 1, 1)]
    assert chosen[0] != chosen[1] == chosen[2]
    assert training_source(config_of(**SEMI, seed=5, data__labelled_seed=1)).kept == chosen[1]


def test_the_others_are_hidden_from_what_learns_without_labels_and_left_out_otherwise(shapes):
    hidden, alone = training_source(config_of(**SEMI)), training_source(config_of(data__labelled=0.25))
    assert (len(hidden), len(alone)) == (40, 10) and hidden.kept == alone.kept == hidden.labelled
    assert hidden.info == shapes.info and alone.labelled == tuple(range(10))
    for i in range(40):
        np.testing.assert_array_equal(hidden[i]["image"], shapes[i]["image"])
        kept = i in hidden.kept
        np.testing.assert_array_equal(hidden[i]["label"], shapes[i]["label"] if kept else np.full((8, 8), IGNORE))
        assert hidden.name(i) == shapes.name(i) and hidden.label_size(i) == (8, 8)
    assert [alone.name(i) for i in range(10)] == [shapes.name(i) for i in alone.kept]
    # The weights of classes count the pixels of images with labels.
    for counts, wanted in zip(pixel_counts(hidden), pixel_counts(alone)):
        np.testing.assert_array_equal(counts, wanted)


def test_a_list_of_names(shapes, tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("shapes-train-000007\n\n shapes-train-000003 \n")
    assert choose_labelled(shapes, str(path), 0) == (3, 7)
    for text, message in (
        ("\n", "names no image"),
        ("shapes-train-00007\n", r"names 'shapes-train-00007', which is not in the training split\. Did you mean"),
        ("shapes-train-000007\n" * 2, "names 'shapes-train-000007' twice"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            choose_labelled(shapes, str(path), 0)
    with pytest.raises(DataError, match=r"nothing\.txt' cannot be read: No such file.*a share of the images"):
        choose_labelled(shapes, str(tmp_path / "nothing.txt"), 0)


def test_a_share_that_leaves_none(shapes):
    with pytest.raises(DataError, match=r"data\.labelled=1/100 of 40 training images .* give at least 1/40"):
        choose_labelled(shapes, "1/100", 0)


def make_folder(path):
    """Six images with masks for training, two for validation, and three images without masks."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for i in range(count):
            for kind, array in (
                ("images", rng.integers(0, 256, (8, 8, 3), np.uint8)),
                ("masks", np.resize(np.array([0, 1], np.uint8), (8, 8))),
            ):
                (path / split / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path / split / kind / f"{i}.png")
    (path / "more").mkdir()
    for name in "xyz":
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path / "more" / f"{name}.png")
    return path


def test_images_without_masks_are_no_candidates(tmp_path):
    config = config_of(data__source="folder", data__dir=str(make_folder(tmp_path)), data__unlabelled="more")
    update(config, semi__method="fixmatch")
    assert labelled_indices(training_source(config)) == tuple(range(6))
    update(config, data__labelled=0.5)
    source = training_source(config)
    assert len(source) == 9 and len(source.kept) == 3 and max(source.kept) < 6
    (tmp_path / "names.txt").write_text("more/x\n")
    update(config, data__labelled=str(tmp_path / "names.txt"))
    with pytest.raises(DataError, match=r"names 'more/x', which is one of the images without masks"):
        training_source(config)


def test_the_check_of_the_data_says_how_many_keep_their_labels(tmp_path, capsys):
    (tmp_path / "experiment.py").write_text(
        "from jaxseg.config import default_config\ndef get_config(arg=None):\n    return default_config()\n"
    )
    base = ["--config", str(tmp_path / "experiment.py"), "--images", "0", "--config.data.size=8,8"]
    base += ["--config.data.shapes_train=40", "--config.data.shapes_val=8"]
    assert check.main([*base, "--config.data.labelled=1/8"]) == 0
    assert "5 of them keep their labels (data.labelled=1/8)" in capsys.readouterr().out
    assert check.main([*base, "--config.data.labelled=nothing.txt"]) == 1
    assert "data.labelled='nothing.txt' cannot be read" in capsys.readouterr().err


class Numbers:
    """Images whose pixels tell their index."""

    def __init__(self, length):
        self.length, self.info = length, ShapesSource("train", 1, (4, 4)).info

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {"image": np.full((4, 4, 3), index, np.uint8), "label": np.zeros((4, 4), np.uint8)}

    def name(self, index):
        return str(index)

    def label_size(self, index):
        return 4, 4


def loader_of(kept=(1, 4, 7), length=11, **changes):
    arguments = {"batch_size": 8, "size": (4, 4), "fit": "resize", "channels": 3, "seed": 0, "labelled_rows": 4}
    arguments |= {"unit": 2, "process_index": 0, "process_count": 1}
    return make_train_loader(PartlyLabelled(Numbers(length), kept, True), **(arguments | changes))


def take(loader, count):
    with loader:
        return [next(loader) for _ in range(count)]


def test_each_kind_has_its_rows_and_its_epochs():
    batches = take(loader_of(), 12)
    labelled = np.array([(batch["label"] != IGNORE).all((1, 2)) for batch in batches])
    np.testing.assert_array_equal(labelled, np.tile([False, False, True, True], (12, 2)))
    index = np.array([batch["index"] for batch in batches])
    for kind, images in ((labelled, [1, 4, 7]), (~labelled, [0, 2, 3, 5, 6, 8, 9, 10])):
        epochs = index[kind].reshape(-1, len(images))
        np.testing.assert_array_equal(np.sort(epochs), np.tile(images, (len(epochs), 1)))
        assert len({tuple(epoch) for epoch in epochs}) > 1
    other = np.array([batch["index"] for batch in take(loader_of(seed=1), 12)])
    assert (other != index).any()


def test_the_loader_resumes_and_its_processes_share_a_batch():
    whole = take(loader_of(), 9)
    with loader_of() as loader:
        for _ in range(4):
            next(loader)
        state = json.loads(json.dumps(loader.get_state()))
    with loader_of() as fresh:
        fresh.set_state(state)
        for wanted in whole[4:]:
            np.testing.assert_array_equal(next(fresh)["index"], wanted["index"])
    parts = [take(loader_of(process_index=i, process_count=2), 9) for i in range(2)]
    for wanted, a, b in zip(whole, *parts):
        np.testing.assert_array_equal(np.concatenate([a["index"], b["index"]]), wanted["index"])
    for changed, key in (({"kept": (1, 4)}, "labelled 3"), ({"labelled_rows": 2}, "labelled_rows 4")):
        with pytest.raises(DataError, match=f"has {key}, this run has 2"):
            loader_of(**changed).set_state(state)


@pytest.mark.parametrize(("batch", "rows", "accumulate", "devices"), [(16, 8, 1, 4), (32, 8, 2, 4), (48, 24, 2, 3)])
def test_rows_are_spread_over_devices_and_micro_batches(batch, rows, accumulate, devices):
    unit = 2 * accumulate
    kinds = np.array(labelled_rows_of(batch, rows, unit))
    assert kinds.sum() == rows
    pairs = kinds.reshape(devices, -1, accumulate, 2)  # of a device: runs, micro-batches, a pair
    assert (pairs[..., 0] == pairs[..., 1]).all()
    assert len({int(n) for n in pairs.sum((0, 1, 3))}) == 1  # each micro-batch has as many
    assert np.ptp(pairs.sum((1, 2, 3))) <= unit  # each device has as many, but for one run


def test_rows_of_one_kind_alone():
    with pytest.raises(DataError, match=r"needs training images with and without labels, but of 3 images all have"):
        make_train_loader(Numbers(3), batch_size=8, size=(4, 4), fit="resize", channels=3, seed=0, labelled_rows=4)
    with pytest.raises(ValueError, match="3 labelled rows of a batch of 8 cannot be divided into runs of 2 rows"):
        loader_of(labelled_rows=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data__labelled": "3/2"}, r"data\.labelled must be a share above 0 and at most 1"),
        ({"data__labelled": 0.0}, r"data\.labelled must be a share above 0"),
        ({"data__labelled": "1/0"}, r"data\.labelled must be a share above 0"),
        (
            {"semi__method": "mean_teacher", "data__labelled": 0.5},
            r"mean_teacher needs the moving average .*ema\.decay",
        ),
        ({"semi__method": "fixmatch"}, r"semi\.method=fixmatch needs images without labels: data\.labelled says"),
        ({**SEMI, "adversarial__weight": 0.1}, r"semi\.method and adversarial\.weight both teach"),
        ({**SEMI, "batch_size": 12, "accumulate": 4}, r"batch_size=12 must be a multiple of 8, twice accumulate"),
        ({**SEMI, "data__labelled_rows": 5}, r"data\.labelled_rows=5 must be a multiple of 2, twice accumulate, below"),
        ({**SEMI, "data__labelled_rows": 16}, r"data\.labelled_rows=16 must be .* below batch_size=16"),
    ],
)
def test_keys_that_do_not_agree(values, message):
    with pytest.raises(ConfigError, match=message):
        validate(config_of(**values))


def test_rows_of_images_without_labels_need_what_learns_from_them():
    with pytest.raises(ConfigError, match=r"data\.labelled_rows needs a term .* set semi\.method"):
        require_use_of_unlabelled(config_of(data__labelled=0.25, data__labelled_rows=8))
