"""The gradient by depth: a stack against the gradient by hand, and the committed table."""

import json

import gradient_flow
import jax
import numpy as np
from helpers.tiny_training import ROOT

from jaxseg import nn as blocks


def test_the_norms_are_those_of_the_gradient_at_the_input_of_each_unit():
    """With units that start as the identity, every unit has the gradient of the last features, from the head alone."""
    norms = gradient_flow.gradient_norms(blocks.PreActBlock, "scaled", blocks.Layers(), units=3, width=4)
    rng = np.random.default_rng(0)
    image, label = rng.normal(size=(2, 5, 6, 3)).astype(np.float32), rng.integers(0, 6, (2, 5, 6))
    found = np.asarray(jax.jit(norms)(jax.random.key(0), image, label))
    np.testing.assert_allclose(found, found[0], rtol=1e-6)

    first, _, last = jax.random.split(jax.random.key(0), 3)
    stem, head = blocks.ConvNormAct(4, common=blocks.Layers()), blocks.classifier(6)
    x, _ = jax.jit(lambda key: stem.init_with_output(key, image, train=True))(first)
    kernel = np.asarray(jax.jit(head.init)(last, x)["params"]["kernel"], np.float64)[0, 0]
    logits = np.asarray(x, np.float64) @ kernel
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    gradient = (p - np.eye(6)[label]) @ kernel.T / label.size
    np.testing.assert_allclose(found[0], np.sqrt((gradient**2).sum()), rtol=1e-4)


def test_the_committed_table_is_that_of_the_page():
    record = json.loads((ROOT / "benchmarks" / "results" / "gradient_flow.json").read_text())
    table = (ROOT / "benchmarks" / "results" / "gradient_flow.md").read_text()
    assert gradient_flow.describe(record) == table
    page = (ROOT / "docs" / "blocks" / "residual.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) == len(gradient_flow.STACKS) and all(row in page for row in rows)
