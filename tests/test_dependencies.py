"""Internals of dependencies: the tests that docs/dependencies.md names exist, and a few that no other test covers."""

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn

from jaxseg.models.fields import field_names

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")


def test_the_page_names_files_and_tests_that_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 10
    for file, test in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{test}"
    for file in re.findall(r"`(jaxseg/[\w/]+\.py)`", PAGE):
        assert (ROOT / file).is_file(), file


def private_names(path: Path) -> set[str]:
    """Returns the private attributes of other objects than its own that a file reads or sets."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n.value) in ("self", "cls")}
    of_tuples = {"_replace", "_asdict", "_fields", "_make", "_exit"}
    names = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and re.match(r"_[a-z]", n.attr)}
    return names - own - of_tuples


def test_private_attributes_of_others_are_on_the_page():
    for path in sorted((ROOT / "jaxseg").rglob("*.py")):
        for name in private_names(path):
            assert f"`{name}`" in PAGE, f"{path.relative_to(ROOT)} uses {name}: add it to docs/dependencies.md"


def test_the_search_for_private_attributes_finds_one():
    path = ROOT / "jaxseg" / "data" / "datasets" / "offline_builders.py"
    assert private_names(path) == {"_make_download_manager"}


def test_linen_modules_are_dataclasses_with_two_fields_of_their_own():
    class Block(nn.Module):
        width: int = 3

    assert {f.name for f in dataclasses.fields(Block) if f.init} == {"width", "parent", "name"}
    assert field_names(Block) == ("width",)


def test_a_failed_allocation_has_its_status_in_its_text():
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        jax.jit(lambda: jnp.zeros(2**46))().block_until_ready()


def test_decoupled_decay_has_the_names_that_optim_looks_for():
    """Of the optimisers that experiments name: a renamed mask would make their decay L2 in silence."""
    for function, mask in ((optax.adamw, "mask"), (optax.lamb, "mask"), (optax.lion, "mask")):
        assert {"learning_rate", "weight_decay", mask} <= set(inspect.signature(function).parameters)
    for function in (optax.lars, optax.contrib.muon):
        assert "weight_decay_mask" in inspect.signature(function).parameters
