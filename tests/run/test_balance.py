"""How a run takes class weights, a prior and an order of images from its training data, and keeps them."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_run import tiny_config

from jaxseg import losses
from jaxseg.config import ConfigDict, update
from jaxseg.data import make_source, pixel_counts
from jaxseg.data.class_counts import image_amounts, label_counts
from jaxseg.data.shapes import CLASSES, ShapesSource
from jaxseg.data.sources import require_use_of_unlabelled, require_windows
from jaxseg.errors import ConfigError
from jaxseg.run.data import class_prior, class_weights, image_order, load_problem, record_data
from jaxseg.run.load import build_parts
from jaxseg.run.workdir import read_data


def configured(**values: object) -> ConfigDict:
    config = tiny_config()
    update(config, data__source="shapes", data__shapes_train=6, data__shapes_val=2, data__size=(16, 16), **values)
    return config


def test_the_imbalance_of_the_shapes() -> None:
    """30 to 1 from the first kind to the last, by one factor from each to the next; images without it stay the same."""
    config = configured(data__shapes_imbalance=30.0)
    source = make_source(config, "train")
    kinds = np.array([counts > 0 for counts in label_counts(ShapesSource("train", 300, (16, 16), imbalance=30.0))])
    has = kinds.mean(0)[1:]
    assert (np.diff(has) < 0).all() and 6 < has[0] / has[-1] < 60
    odds = source._odds
    np.testing.assert_allclose(odds[:-1] / odds[1:], 30 ** (1 / (len(CLASSES) - 2)))
    plain = [ShapesSource("train", 2, (16, 16), **given)[1]["label"] for given in ({}, {"imbalance": 1.0})]
    np.testing.assert_array_equal(*plain)


def test_effective_numbers_of_the_training_data() -> None:
    train = load_problem(configured()).train
    amounts = image_amounts(label_counts(train))
    np.testing.assert_allclose(amounts.sum(), 6)
    for text, beta in (("effective_number", 0.999), ("effective_number:0.5", 0.5)):
        weights = class_weights(configured(loss__class_weights=text), len(CLASSES), train)
        np.testing.assert_array_equal(weights, losses.effective_number_weights(amounts, beta))


def test_a_run_keeps_its_prior(tmp_path: Path) -> None:
    config = configured(loss__logit_adjustment=0.5)
    problem = load_problem(config)
    data = record_data(tmp_path, config, problem)
    counts, _ = pixel_counts(problem.train)
    np.testing.assert_allclose(data.class_prior, counts / counts.sum())
    assert read_data(tmp_path) == data
    parts = build_parts(config, len(CLASSES), None, class_prior=data.class_prior)
    [term] = parts.loss.terms
    np.testing.assert_allclose(dict(term.options)["logit_shift"], 0.5 * np.log(data.class_prior), rtol=1e-6)
    assert parts.loss == build_parts(config, len(CLASSES)).with_loss_of_data(None, data.class_prior).loss
    # The record of a run from before the key has none, and neither has one without an adjustment.
    old = json.loads((tmp_path / "data.json").read_text())
    del old["class_prior"]
    (tmp_path / "data.json").write_text(json.dumps(old))
    assert read_data(tmp_path).class_prior is None and class_prior(configured(), problem.train) is None


def test_a_prior_of_nothing_labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = np.zeros(2, np.int64)
    monkeypatch.setattr("jaxseg.run.data.pixel_counts", lambda source, reading: (nothing, nothing))
    with pytest.raises(ConfigError, match=r"loss\.logit_adjustment needs labelled pixels"):
        class_prior(configured(loss__logit_adjustment=1.0), None)  # type: ignore[arg-type]


def test_the_order_of_a_run() -> None:
    """data.sampling=rare: the class is drawn by data.rare_temperature, from the seed of the run."""
    config = configured(data__sampling="rare", data__rare_temperature=0.05, seed=3)
    train = load_problem(config).train
    order = image_order(config, train)
    share = label_counts(train).sum(0) / label_counts(train).sum()
    occurs = share > 0
    odds = np.where(occurs, np.exp((1 - share) / 0.05), 0)
    np.testing.assert_allclose(order.probabilities, odds / odds.sum(), rtol=1e-12)
    drawn = {seed: [order.index(seed, batch, 0, 1) for batch in range(30)] for seed in (3, 4)}
    assert (
        drawn[3] == [image_order(config, train).index(3, batch // 2, batch % 2, 2) for batch in range(30)] != drawn[4]
    )
    assert image_order(configured(), train) is None


def test_an_order_by_area_needs_windows() -> None:
    windows = configured(data__sampling="area", data__fit="crop")
    update(windows, data__size=(8, 8))
    train = make_source(configured(), "train")  # six images of 16x16, of four windows each
    assert np.bincount(image_order(windows, train).images).tolist() == [4] * 6
    with pytest.raises(ConfigError, match=r"with data\.fit=resize each is seen whole; set data\.fit=crop"):
        make_source(configured(data__sampling="area"), "train")
    update(windows, data__labelled_rows=2)
    with pytest.raises(ConfigError, match=r"data\.labelled_rows has an order .* leave one of the two out"):
        require_windows(windows)


def test_rare_classes_and_images_without_labels() -> None:
    config = configured(data__sampling="rare", data__unlabelled="more", adversarial__weight=0.1)
    update(config, adversarial__semi_weight=0.1)
    with pytest.raises(ConfigError, match=r"data\.sampling=rare draws images by the classes of their masks"):
        require_use_of_unlabelled(config)
