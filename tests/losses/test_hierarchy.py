"""Cross-entropy over a tree of classes, the file of the tree, and the scores of its levels."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_run import make_run, short_config, tiny_config

from jaxseg import losses, metrics
from jaxseg.config import update
from jaxseg.data.hierarchy import Hierarchy, hierarchy_of, read_parents
from jaxseg.data.shapes import CLASSES
from jaxseg.errors import ConfigError
from jaxseg.inference.evaluation import evaluate
from jaxseg.run.check import check
from jaxseg.run.data import load_problem, record_data
from jaxseg.run.load import load_run
from jaxseg.run.workdir import read_data
from jaxseg.train import train
from jaxseg.types import IGNORE

LEVELS = ((0, 0, 0, 1), (0, 1, 1, 2))


def test_the_loss_by_hand() -> None:
    """Probabilities .1 .2 .3 .4 and the class 1: levels .6, .5 and .2, weighed 1, 2 and 1."""
    logits = np.log(np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]], np.float32))
    value, weight = losses.hierarchical_cross_entropy(
        logits, np.array([1, IGNORE]), levels=LEVELS, level_weights=(1.0, 2.0, 1.0)
    )
    assert weight == 1
    np.testing.assert_allclose(value, -(np.log(0.6) + 2 * np.log(0.5) + np.log(0.2)) / 4, rtol=1e-6)


@pytest.mark.parametrize("k", [4, 104])  # many classes are added in strips
def test_the_loss_and_its_gradient_in_float64(k: int) -> None:
    rng = np.random.default_rng(k)
    z, y = (8 * rng.normal(size=(2, 3, 5, k))).astype(np.float32), rng.integers(0, k, (2, 3, 5)).astype(np.int32)
    y[0, 0] = IGNORE
    levels = (tuple(i * 3 // k for i in range(k)), tuple(i // 2 for i in range(k)))
    weights, inside = np.linspace(0.5, 2, k), y != IGNORE
    loss = losses.make_loss("hierarchical_cross_entropy", num_classes=k, levels=levels, class_weights=weights)
    value, gradient = jax.jit(jax.value_and_grad(loss))(z, y)
    p = np.exp(z.astype(np.float64) - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    label, total, slope = np.where(inside, y, 0), 0.0, 0.0
    w = np.where(inside, weights[label], 0)
    for level in (*levels, tuple(range(k))):
        groups = np.array(level)
        member = groups[label][..., None] == groups
        of_group = (p * member).sum(-1, keepdims=True)
        total -= (w * np.log(of_group[..., 0])).sum() / 3
        slope += (w[..., None] * (p - p * member / of_group)) / 3
    np.testing.assert_allclose(value, total / w.sum(), rtol=1e-5)
    np.testing.assert_allclose(gradient, slope / w.sum(), atol=1e-6)


def test_one_level_is_cross_entropy_and_wrong_labels_are_noticed() -> None:
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(2, 3, 4)).astype(np.float32), rng.integers(0, 4, (2, 3))
    np.testing.assert_allclose(losses.hierarchical_cross_entropy(z, y)[0], losses.cross_entropy(z, y)[0], rtol=1e-6)
    assert jnp.isnan(losses.hierarchical_cross_entropy(z, np.full((2, 3), 9), levels=LEVELS)[0])
    nothing = jax.grad(lambda z: losses.hierarchical_cross_entropy(z, np.full((2, 3), IGNORE), levels=LEVELS)[0])(z)
    np.testing.assert_array_equal(nothing, np.zeros_like(z))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"levels": ((0, 1),)}, "has 2 groups, where each of 4 classes needs one"),
        ({"levels": LEVELS, "level_weights": (1.0,)}, "needs 3 numbers, one for each level and one for the classes"),
        ({"levels": LEVELS, "level_weights": (0.0, 0.0, 0.0)}, "not all 0"),
    ],
)
def test_levels_that_cannot_be(arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        losses.hierarchical_cross_entropy(np.zeros((1, 4), np.float32), np.zeros(1, np.int32), **arguments)
    with pytest.raises(ValueError, match=words):
        losses.make_loss("hierarchical_cross_entropy", num_classes=4, args={"hierarchical_cross_entropy": arguments})
    with pytest.raises(ValueError, match="with k = 1 use cross_entropy"):
        losses.hierarchical_cross_entropy(np.zeros((1, 1), np.float32), np.zeros(1, np.int32))


def write(tmp_path: Path, content: object) -> Path:
    file = tmp_path / "tree.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_a_tree_of_unequal_depth(tmp_path: Path) -> None:
    """car and bus are vehicles, which move as people do; the sky is named nowhere and stays by itself."""
    tree = {"car": "vehicle", "bus": "vehicle", "vehicle": "moving", "person": "moving"}
    parents = read_parents(write(tmp_path, tree))
    found = hierarchy_of(parents, ("sky", "car", "person", "bus"), "tree.json")
    assert found.levels == ((0, 1, 1, 1), (0, 1, 2, 1))
    assert found.names == (("sky", "moving"), ("sky", "vehicle", "person"))
    # A class may be the group of others: the stem of a plant.
    assert hierarchy_of({"leaf": "plant"}, ("plant", "leaf", "soil"), "").levels == ((0, 0, 1),)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": "b", "b": "c", "c": "b"}, "has a circle: b -> c -> b"),
        ({"a": "a"}, "has a circle: a -> a"),
        ({"a": ["b"]}, "must hold one JSON object"),
        ({}, "must hold one JSON object"),
        ("{", "cannot be read"),
    ],
)
def test_files_that_hold_no_tree(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_parents(write(tmp_path, content))


def test_classes_that_the_data_do_not_have() -> None:
    with pytest.raises(ConfigError, match=r"names 'rode', which is neither .*\(road, sky\).*Did you mean 'road'"):
        hierarchy_of({"rode": "ground"}, ("road", "sky"), "tree.json")


def test_confusion_of_groups_by_hand() -> None:
    matrix = np.array([[5, 1, 0], [2, 6, 1], [0, 1, 4]])
    np.testing.assert_array_equal(metrics.group_confusion(matrix, (0, 0, 1)), [[14, 1], [1, 4]])
    with pytest.raises(ValueError, match="needs a group for each, got 2"):
        metrics.group_confusion(matrix, (0, 1))


TREE = {"disc": "round", "ring": "round", "square": "straight", "triangle": "straight", "cross": "straight"}


def test_a_run_with_loss_hierarchy_keeps_its_levels_and_scores_them(tmp_path: Path) -> None:
    """The file is read once: the groups are in data.json, with which the loss is built again."""
    file = write(tmp_path, TREE | {"round": "shape", "straight": "shape"})
    config = tiny_config(loss__terms="hierarchical_cross_entropy", log__images=0)
    update(config, loss__hierarchy=str(file), loss__args={"hierarchical_cross_entropy": {"level_weights": (1, 1, 2)}})
    update(config, eval__batch_size=8)
    check(config)
    workdir = make_run(tmp_path / "run", config, {})
    (workdir / "data.json").unlink()
    data = record_data(workdir, config, load_problem(config))
    file.unlink()
    assert data == read_data(workdir)
    assert data.hierarchy == Hierarchy(
        ((0, 1, 1, 1, 1, 1), (0, 1, 2, 2, 1, 2)), (("background", "shape"), ("background", "round", "straight"))
    )
    run = load_run(workdir)
    [term] = run.parts.loss.terms
    assert dict(term.options)["levels"] == data.hierarchy.levels
    result = evaluate(run)
    coarse = metrics.group_confusion(result.confusion, data.hierarchy.levels[0])
    assert result.levels[0].mean_iou == metrics.scores(coarse).mean_iou
    assert f"level 1 of the hierarchy: mIoU {100 * result.levels[0].mean_iou:.2f} % (background" in str(result)
    of_levels = result.to_dict()["levels"]
    assert [each["name"] for each in of_levels[1]["classes"]] == ["background", "round", "straight"]
    assert np.isfinite(result.loss) and len(CLASSES) == 6


def test_a_hierarchical_loss_without_a_hierarchy() -> None:
    with pytest.raises(ConfigError, match=r"needs the groups of the classes; give loss\.hierarchy=FILE"):
        config = tiny_config(loss__terms="hierarchical_cross_entropy")
        update(config, eval__batch_size=8)
        check(config)


@pytest.mark.parametrize(
    ("tree", "weights", "words"),
    [
        (TREE, (1, 2, 3), r"level_weights needs 2 numbers"),
        (TREE | {"rind": "round"}, (1, 1), r"names 'rind', which is neither one of the classes"),
    ],
)
def test_a_tree_that_does_not_fit_the_data_is_refused_before_the_workdir(
    tmp_path: Path, tree: object, weights: object, words: str
) -> None:
    config = short_config(loss__terms="hierarchical_cross_entropy", loss__hierarchy=str(write(tmp_path, tree)))
    update(config, loss__args={"hierarchical_cross_entropy": {"level_weights": weights}})
    with pytest.raises(ConfigError, match=words):
        train(config, tmp_path / "run", "again")
    assert not (tmp_path / "run").exists()
