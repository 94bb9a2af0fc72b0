"""Sums of losses by name: how they are spelt, what they take, and what is refused; the weights of rare classes."""

import re
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.loss_references import make, make_batch, reference, run, smooth_batch
from helpers.tiny_models import TINY
from helpers.variables import shapes

from jaxseg import losses, models
from jaxseg.arguments import Share
from jaxseg.losses.definition import Definition
from jaxseg.losses.table import LOSSES


def test_median_frequency_weights_by_hand():
    """Frequencies 60/100, 30/60 and 10/100: the median .5 over each; the class that never occurs gets 0."""
    weights = losses.median_frequency_weights(np.array([60, 30, 0, 10]), np.array([100, 60, 0, 100]))
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [0.5 / 0.6, 1.0, 0.0, 5.0], rtol=1e-6)


@pytest.mark.parametrize(
    "counts, present, words",
    [([1, 2], [3], "one length"), ([5, 1], [3, 3], "between 0 and"), ([0, 0], [0, 0], "every class count is 0")],
)
def test_median_frequencies_that_cannot_be(counts, present, words):
    with pytest.raises(ValueError, match=words):
        losses.median_frequency_weights(counts, present)


@pytest.mark.parametrize(
    "terms, expected",
    [
        ("cross_entropy", {"cross_entropy": 1.0}),
        (" cross_entropy+.5*dice ", {"cross_entropy": 1.0, "dice": 0.5}),
        ("1e+2 * mse + 1e-3*dice + 3. * cross_entropy", {"mse": 100.0, "dice": 1e-3, "cross_entropy": 3.0}),
    ],
)
def test_terms_are_read(terms, expected):
    loss = losses.make_loss(terms, num_classes=3)
    assert {term.name: term.weight for term in loss.terms} == expected
    logits, labels = make_batch(3)
    values, value = jax.jit(lambda s: (loss.values(s), loss.value(s)))(jax.jit(loss.stats)(logits, labels))
    np.testing.assert_allclose(value, sum(expected[n] * values[n] for n in expected), rtol=1e-6)
    assert hash(loss) == hash(losses.make_loss(terms, num_classes=3))  # fit to be static under jit


def test_arguments_reach_their_terms():
    logits, labels = make_batch(3)
    loss = losses.make_loss(
        "cross_entropy + dice + mse",
        num_classes=3,
        class_weights=np.array([1, 2, 3]),
        label_smoothing=0.1,
        args={"dice": {"squared": False, "smooth": 1}, "cross_entropy": {"label_smoothing": 0.2}},
    )
    values = jax.jit(lambda z, y: loss.values(loss.stats(z, y)))(logits, labels)
    for name, options in (
        ("cross_entropy", {"weights": [1, 2, 3], "smoothing": 0.2}),
        ("dice", {"squared": False, "smooth": 1.0}),
        ("mse", {"weights": [1, 2, 3]}),
    ):
        np.testing.assert_allclose(values[name], np.divide(*reference(name, logits, labels, **options)), rtol=2e-6)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"terms": "cross_entrpy"}, "'cross_entropy'"),
        ({"terms": "cross_entropy - dice"}, "cannot be read"),
        ({"terms": ""}, "cannot be read"),
        ({"terms": "dice +"}, "cannot be read"),
        ({"terms": "dice + dice"}, "twice"),
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": 65536}, "num_classes"),
        ({"class_weights": [1, 2]}, "3 numbers"),
        ({"class_weights": [1, 2, -1]}, "at least 0"),
        ({"class_weights": [1, 2, float("nan")]}, "finite"),
        ({"terms": "dice", "class_weights": [1, 2, 3]}, "No term .* takes class_weights"),
        ({"terms": "mse", "label_smoothing": 0.1}, "No term .* takes label_smoothing"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"args": {"dice": {}}}, "no term 'dice'"),
        ({"terms": "dice", "args": {"dice": {"square": True}}}, "'squared'"),
        ({"terms": "dice", "args": {"dice": {"squared": 1}}}, "True or False"),
        ({"terms": "dice", "args": {"dice": {"smooth": -1.0}}}, "at least 0"),
        ({"args": {"cross_entropy": {"label_smoothing": 2}}}, "label_smoothing"),
    ],
)
def test_what_make_loss_refuses(options, words):
    with pytest.raises(ValueError, match=words):
        losses.make_loss(**({"num_classes": 3} | options))


def test_terms_mix_in_one_sum_and_take_their_arguments():
    logits, labels = smooth_batch(3)
    text = "cross_entropy + 0.5*lovasz + tversky + 2 * dice"
    args = {"tversky": {"alpha": 1, "beta": 0.2}, "dice": {"per_image": True, "log": True}}
    loss = losses.make_loss(text, num_classes=3, args=args)
    parts = [
        (1, run("cross_entropy", logits, labels)),
        (0.5, run("lovasz", logits, labels)),
        (1, run("tversky", logits, labels, alpha=1, beta=0.2)),
        (2, run("dice", logits, labels, per_image=True, log=True)),
    ]
    np.testing.assert_allclose(jax.jit(loss)(logits, labels), sum(w * losses.divide(*p) for w, p in parts), rtol=1e-6)
    hash(loss)


def test_every_term_is_public_and_on_its_page():
    page = " ".join((Path(__file__).parents[2] / "docs" / "losses.md").read_text(encoding="utf-8").split())
    listed = re.search(r"Losses, and weighted sums of them: `([^`]+)`.*?of its own brings, `([^`]+)`", page)
    assert sorted(f"{listed[1]} {listed[2]}".split()) == sorted(LOSSES)
    for name in LOSSES:
        assert name in losses.__all__ or {f"{name}_stats", f"{name}_from_stats"} <= set(losses.__all__)
    for name in losses.__all__:
        assert hasattr(losses, name)


@pytest.mark.parametrize(
    ("term", "network"),
    [
        ("semantic_encoding", "encnet"),
        ("boundary_awareness", "pidnet"),
        ("detail", "stdc"),
        ("point_cross_entropy", "pointrend"),
        ("mask_classification", "mask2former"),
        ("reconstruction", "autoencoder"),
        ("generator", "dcgan"),
        ("discriminator", "dcgan"),
    ],
)
def test_a_loss_of_another_network_names_its_own(term, network):
    """The message for `unet` is right: the network that it names has the output."""
    loss, label = losses.make_loss(term, num_classes=3), np.zeros((1, 8, 8), np.int32)

    def stats(name):
        _, logits, out = shapes(models.build(name, num_classes=3, **TINY[name]), (1, 8, 8, 3))
        return jax.eval_shape(loss.stats, logits, label, out)

    with pytest.raises(
        ValueError, match=rf"The loss {term} reads .*, which this model does not have; .*'{network}' has it"
    ):
        stats("unet")
    assert stats(network).keys() == {term}


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("focal", {"alpha": 1.5}, r"focal.alpha must be a number in \[0, 1\]"),
        ("focal", {"one_vs_rest": 1}, "True or False"),
        ("ohem", {"min_kept": 100000}, r"ohem.min_kept must be a number in \[0, 1\]"),
        ("tversky", {"aplha": 0.3}, "'alpha'"),
        ("tversky", {"alpha": "a"}, "number of at least 0"),
        ("boundary", {"max_distance": 2.5}, "whole number"),
        ("boundary_f1", {"tolerance": 0}, "at least 1"),
        ("sampled_cross_entropy", {"samples": True}, "whole number"),
    ],
)
def test_wrong_arguments_are_named(name, options, words):
    with pytest.raises(ValueError, match=words):
        make(name, options, 3)


def test_a_loss_is_a_function_and_a_row_of_the_table(monkeypatch):
    """What `make_loss` checks and passes on follows from the signature of the function alone."""

    def squared_logits(logits, labels, *, factor: Share = 0.5, rounds: Literal[1, 2] = 1):
        return factor * rounds * jnp.sum(jnp.square(logits)), jnp.float32(labels.size)

    monkeypatch.setitem(LOSSES, "squared_logits", Definition(squared_logits))
    logits, labels = make_batch(3)
    loss = losses.make_loss(
        "cross_entropy + 2 * squared_logits", num_classes=3, args={"squared_logits": {"factor": 1, "rounds": 2}}
    )
    values = loss.values(loss.stats(logits, labels))
    np.testing.assert_allclose(values["squared_logits"], 2 * np.sum(np.square(logits)) / labels.size, rtol=1e-6)
    for name, value, words in (
        ("factr", 1, "squared_logits.factr is not an argument of the loss squared_logits. Did you mean 'factor'?"),
        ("factor", 2, "squared_logits.factor must be a number in [0, 1], got 2."),
        ("rounds", 3, "squared_logits.rounds must be one of 1, 2, got 3."),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
            losses.make_loss("squared_logits", num_classes=3, args={"squared_logits": {name: value}})
