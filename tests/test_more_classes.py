"""More than 255 classes: labels of 16 bits, in which 255 is a class and 65535 is ignored, on the whole path."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_run import make_run, tiny_config
from PIL import Image

from jaxseg import losses, metrics, pictures
from jaxseg.config import update
from jaxseg.data import augment
from jaxseg.data.base import require_bytes
from jaxseg.data.class_counts import label_counts
from jaxseg.data.evaluation import make_eval_loader
from jaxseg.data.folder import FolderSource
from jaxseg.data.hierarchy import hierarchy_of
from jaxseg.data.masks import check_palette
from jaxseg.data.rasters import stored_values
from jaxseg.data.transforms import random_crop, resize_label
from jaxseg.data.weak.weakened import WeakenedSource
from jaxseg.errors import ConfigError, DataError
from jaxseg.inference.outputs import labels_picture
from jaxseg.inference.regions import fill_holes, find_regions, remove_small
from jaxseg.inference.surface import surface_sums
from jaxseg.types import IGNORE, IGNORE_16, ignore_in, ignore_label, label_type

K = 300


def test_what_a_number_of_classes_decides():
    assert [(ignore_label(k), label_type(k)) for k in (1, 255, 256, 65535)] == [
        *[(IGNORE, np.uint8)] * 2,
        *[(IGNORE_16, np.uint16)] * 2,
    ]
    assert ignore_in(np.zeros(1, np.uint16)) == 65535 and ignore_in(np.zeros(1, np.uint8)) == 255


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two images of 16x16 and one of 12x16, whose masks hold the classes 0, 255, 256 and 299, and 65535."""
    path = tmp_path_factory.mktemp("many")
    for split, sizes in (("train", [(16, 16)]), ("val", [(16, 16), (12, 16)])):
        for kind in ("images", "masks"):
            (path / split / kind).mkdir(parents=True)
        for i, (h, w) in enumerate(sizes):
            mask = np.array([0, 255, 256, 299], np.uint16)[np.arange(h * w).reshape(h, w) // 32 % 4]
            mask[0, :4] = 65535
            image = np.stack([mask % 251, mask // 256 * 90, mask * 0 + 9], -1).astype(np.uint8)
            Image.fromarray(image).save(path / split / "images" / f"{i}.png")
            Image.fromarray(mask).save(path / split / "masks" / f"{i}.{'png' if i == 0 else 'tif'}")
    (path / "classes.json").write_text(json.dumps({"classes": [f"c{i}" for i in range(K)]}))
    return path


def test_reading(folder):
    source = FolderSource(folder, "val")
    label = source[1]["label"]  # a TIFF file of 16 bits
    assert label.dtype == np.uint16 and label.shape == (12, 16)
    assert np.unique(label).tolist() == [0, 255, 256, 299, 65535] and (label[0, :4] == 65535).all()
    counts = label_counts(source)
    assert counts.shape == (2, K) and counts[0, 255] == 64 and counts[0].sum() == 16 * 16 - 4
    assert source.info.ignored_everywhere((2, 3)).tolist() == [[65535] * 3] * 2
    # The smaller mask, and the row that fills the batch up, are padded with what is ignored.
    loader = make_eval_loader(source, batch_size=3, size=(16, 16), fit="resize", process_index=0, process_count=1)
    batch = next(iter(loader))
    padded = batch["label"][np.argsort(batch["index"])]
    assert padded.dtype == np.uint16 and (padded[0] == 65535).all() and (padded[2][12:] == 65535).all()
    np.testing.assert_array_equal(padded[2][:12, :16], label)


def test_a_value_of_no_class_and_255_where_it_is_none(folder, tmp_path):
    names = [{"index": i, "name": f"c{i}"} for i in range(K) if i != 255]
    for kind in ("images", "masks"):
        (tmp_path / kind).symlink_to(folder / "val" / kind)
    (tmp_path / "classes.json").write_text(json.dumps({"classes": names}))
    with pytest.raises(DataError, match=r"holds the values 255, which no class has.*ignored: 65535"):
        FolderSource(tmp_path, "val", val_fraction=0.9)
    (tmp_path / "classes.json").write_text(json.dumps({"classes": names, "ignore_index": 255}))
    source = FolderSource(tmp_path, "val", val_fraction=0.9)
    label = source[0]["label"]
    assert set(np.unique(label)) == {0, 255, 298, 65535}  # 256 is the class at place 255, and 299 at 298


def test_names_in_the_configuration_and_no_names(folder, tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).symlink_to(folder / "val" / kind)
    source = FolderSource(tmp_path, "val", val_fraction=0.9, classes=[f"c{i}" for i in range(K)])
    assert source.info.values == tuple(range(K)) and 255 in source[0]["label"]
    with pytest.raises(DataError, match=r"holds the value 65535.*Give the names of more than 255 classes"):
        FolderSource(tmp_path, "val", val_fraction=0.9)
    assert len(check_palette([(i // 256, i % 256, 0) for i in range(K)]).values) == K


def test_augmentation(key):
    """255 moves as every class does, and what lies outside the image is 65535; a balanced crop finds a class of 300."""
    label = jnp.full((8, 8), 255).at[5, 6].set(299)
    image = jnp.zeros((8, 8, 1))
    zoomed = np.asarray(jax.jit(augment.make_augment(zoom=(0.5, 0.5), ignore=65535))(key, image, label)[1])
    assert set(np.unique(zoomed)) <= {255, 299, 65535}
    assert (zoomed == 65535).sum() == 48
    balanced = jax.vmap(augment.make_augment(crop=(2, 2), crop_balanced=1.0, ignore=65535), in_axes=(0, None, None))
    crops = np.asarray(jax.jit(balanced)(jax.random.split(key, 200), image, label)[1])
    share = (crops == 299).any(axis=(1, 2)).mean()
    assert 0.35 < share < 0.7  # one of two classes, in 1 of 64 pixels
    narrow = np.arange(6, dtype=np.uint16).reshape(2, 3) + 254
    window = random_crop(np.zeros((2, 3, 1), np.uint8), narrow, (3, 3), np.random.default_rng(0))[1]
    assert window.tolist() == [*narrow.tolist(), [65535] * 3]
    np.testing.assert_array_equal(resize_label(narrow, (4, 6)), np.repeat(np.repeat(narrow, 2, 0), 2, 1))


OF_PIXELS = ("cross_entropy", "ohem", "sampled_cross_entropy", "entropy")


@pytest.mark.parametrize("terms", [" + ".join(OF_PIXELS), "dice + lovasz + boundary + tversky + focal"])
def test_losses_leave_65535_out(terms):
    """Classes of no probability change no loss of pixels, and the logits of ignored pixels change no other loss."""
    rng = np.random.default_rng(0)
    labels, few = rng.integers(0, 4, (2, 6, 5)).astype(np.int32), rng.normal(size=(2, 6, 5, 4)).astype(np.float32)
    labels[0, 0] = IGNORE
    many = np.concatenate([few, np.full((2, 6, 5, K - 4), -1e4, np.float32)], -1)
    wide = np.where(labels == IGNORE, IGNORE_16, np.where(labels == 3, 255, labels))
    many[..., [3, 255]] = many[..., [255, 3]]
    changed = np.where((labels == IGNORE)[..., None], rng.normal(size=many.shape), many).astype(np.float32)
    loss = losses.make_loss(terms, num_classes=K)
    sums, others = (jax.jit(loss.stats)(logits, wide) for logits in (many, changed))
    small = losses.make_loss(terms, num_classes=4).stats(few, labels)
    for name in sums:
        for got, other in zip(jax.tree.leaves(sums[name]), jax.tree.leaves(others[name])):
            assert np.isfinite(got).all(), name
            if name != "entropy":  # the one term of unlabelled pixels
                np.testing.assert_allclose(got, other, rtol=1e-6, atol=1e-6, err_msg=name)
        if name in OF_PIXELS:
            np.testing.assert_allclose(sums[name], small[name], rtol=2e-6, err_msg=name)


def test_cross_entropy_of_class_255_by_hand():
    logits = np.random.default_rng(1).normal(size=(1, 2, 2, K))
    labels = np.array([[[255, 299], [IGNORE_16, 0]]], np.int32)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    want = -np.mean([np.log(p[0, 0, 0, 255]), np.log(p[0, 0, 1, 299]), np.log(p[0, 1, 1, 0])])
    loss = losses.make_loss("cross_entropy", num_classes=K)
    np.testing.assert_allclose(loss(np.float32(logits), labels), want, rtol=1e-6)
    assert np.isnan(loss(np.float32(logits), np.full((1, 2, 2), 300)))  # a label of no class is noticed


@pytest.mark.parametrize("samples", [8, 280])
def test_sampled_classes_beyond_255(samples):
    labels = jnp.array([[[255, 299], [IGNORE_16, 7]]])
    present = losses.present_classes(labels, K)
    assert np.flatnonzero(present).tolist() == [7, 255, 299]
    chosen = losses.sample_classes(jax.random.key(0), present, samples)
    local = np.asarray(chosen.local_labels(labels))
    assert local[0, 1, 0] == ignore_label(samples)
    np.testing.assert_array_equal(np.asarray(chosen.classes)[local[local != local[0, 1, 0]]], [255, 299, 7])
    assert int(chosen.local_labels(jnp.array([[[300]]]))[0, 0, 0]) == -1


def test_counts_of_many_classes_have_the_scores_of_the_matrix():
    k = metrics.MOST_PAIRS + 1
    rng = np.random.default_rng(0)
    labels, predicted = (rng.integers(0, 6, (2, 8, 8)) * 200 for _ in range(2))
    labels[0, 0] = IGNORE_16
    counts = np.asarray(metrics.confusion_matrix(predicted, labels, k), np.int64)
    assert counts.shape == (3, k)
    inside = labels != IGNORE_16
    matrix = np.zeros((k, k), np.int64)
    np.add.at(matrix, (labels[inside], predicted[inside]), 1)
    got, want = metrics.scores(counts), metrics.scores(matrix)
    for name in ("iou", "precision", "recall", "f1", "support", "mean_iou", "pixel_accuracy", "frequency_weighted_iou"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name), err_msg=name)
    lines = metrics.table(got, [f"c{i}" for i in range(k)])
    assert "c200 " in lines and "c201 " not in lines and "6 of 1025 classes occur and are listed" in lines
    with pytest.raises(ConfigError, match=r"at most 1024 classes.*has 1025"):
        hierarchy_of({"c1": "g"}, [f"c{i}" for i in range(k)], "tree.json")


def test_boundaries_and_regions():
    label = np.full((9, 9), 255, np.uint16)
    label[2:7, 2:7] = 299
    label[4, 4], label[0, 0] = 3, IGNORE_16
    sums = surface_sums(label, label, K)
    assert sums["images"].sum() == 3 and sums["surface_dice"][[3, 255, 299]].tolist() == [1, 1, 1]
    regions = find_regions(label)
    assert regions.classes.dtype == np.uint16
    assert dict(zip(regions.classes.tolist(), regions.area.tolist())) == {3: 1, 255: 55, 299: 24}
    assert fill_holes(label, [299])[4, 4] == 299
    small = remove_small(label, 2)
    assert small[4, 4] == 299 and small[0, 0] == IGNORE_16 and small.dtype == np.uint16


def test_colours_and_files():
    colors = pictures.default_colors(3000)
    assert len(set(colors)) == 3000 and colors[:500] == pictures.default_colors(500)
    label = np.array([[0, 255, 2999, IGNORE_16]], np.uint16)
    want = [[colors[0], colors[255], colors[2999], pictures.IGNORE_COLOR]]
    np.testing.assert_array_equal(pictures.colorize(label, colors), want)
    picture = labels_picture(label, colors, range(3000))
    np.testing.assert_array_equal(np.array(picture), label)
    np.testing.assert_array_equal(np.array(labels_picture(label, colors, range(3000), in_colors=True)), want)
    assert stored_values(range(256)).dtype == np.uint16  # 255 is a class: "no class" needs another number
    assert stored_values(range(256))[IGNORE_16] == 65535 and stored_values(range(255)).dtype == np.uint8


def test_what_takes_bytes_alone_is_refused(folder):
    with pytest.raises(
        DataError, match="An audit takes labels of 8 bits, which hold at most 255 classes, and there are"
    ):
        require_bytes("An audit", 256)
    with pytest.raises(DataError, match=r"data\.weaken takes labels of 8 bits"):
        WeakenedSource(FolderSource(folder, "train"), "points")


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    import jaxseg

    config = tiny_config(data__source="folder", data__dir=str(folder))
    update(config, batch_size=8, eval__batch_size=8)
    return jaxseg.load(make_run(tmp_path_factory.mktemp("run"), config))


def test_training_step(run):
    """The class 255 has a gradient, and 65535 has none: the loss is that of the same batch without those rows."""
    step = jax.jit(run.parts.train_step())
    image = np.zeros((8, 16, 16, 3), np.uint8)
    label = np.full((8, 16, 16), 255, np.uint16)
    label[:, 8:] = IGNORE_16
    start = run.parts.init(jax.random.key(0))
    state, logged = step(start, {"image": image, "label": label}, jax.random.key(0))
    confusion = np.asarray(logged["confusion"])
    assert confusion.shape == (K, K) and confusion[255].sum() == confusion.sum() == 8 * 8 * 16
    assert np.isfinite(logged["loss"]) and float(logged["grad_norm"]) > 0
    again = step(state, {"image": image, "label": label}, jax.random.key(0))[1]
    assert float(again["loss"]) < float(logged["loss"])


def test_evaluation_and_prediction(run, folder, tmp_path, capsys):
    from jaxseg import predict

    scored = run.evaluate("val")
    truth = [FolderSource(folder, "val")[i] for i in range(2)]
    predicted = [run.predict(each["image"]).classes for each in truth]
    assert all(p.dtype == np.uint16 for p in predicted)
    want = np.zeros((K, K), np.int64)
    for each, p in zip(truth, predicted):
        inside = each["label"] != IGNORE_16
        np.add.at(want, (each["label"][inside], p[inside]), 1)
    np.testing.assert_array_equal(scored.confusion, want)
    assert scored.write_report().keys() == {"scores"}  # a picture of 300 x 300 cells could not be read
    files = [str(folder / "val" / "images" / "0.png")]
    command = ["--workdir", str(run.workdir), "--no-overlay", "--out"]
    assert predict.main([*command, str(tmp_path / "png"), "--regions", *files]) == 0
    assert "class indices, in 16 bits" in capsys.readouterr().out
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "png" / "0.png")), predicted[0])
    table = (tmp_path / "png" / "regions.csv").read_text().splitlines()
    assert {int(line.split(",")[2]) for line in table[1:]} == set(np.unique(predicted[0]).tolist())
    assert predict.main([*command, str(tmp_path / "tif"), "--format", "tiff", "--tiles", "16", *files]) == 0
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "tif" / "0.tif")), predicted[0])
    assert predict.main([*command, str(tmp_path / "npz"), "--format", "npz", "--top-k", "2", *files]) == 0
    with np.load(tmp_path / "npz" / "0.npz") as arrays:
        np.testing.assert_array_equal(arrays["labels"], predicted[0])
        assert arrays["indices"].dtype == np.uint16
        np.testing.assert_array_equal(arrays["indices"][..., 0], predicted[0])


def test_export(run, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    from jaxseg.export import export_run

    export_run(run, tmp_path / "net.onnx")
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    (classes,) = runtime.InferenceSession(tmp_path / "net.onnx").run(None, {"image": image})
    assert classes.dtype == np.uint16
    np.testing.assert_array_equal(classes[0], run.predict(image[0]).classes)
