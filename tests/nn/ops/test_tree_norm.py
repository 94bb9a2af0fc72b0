"""The norm of many arrays: its value, and the operations that it is compiled to."""

import re

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxseg import compiler
from jaxseg.mesh import Axes, make_mesh
from jaxseg.nn.ops.by_device import STATE_AXIS
from jaxseg.nn.ops.tree_norm import tree_norm


def test_it_is_the_norm_of_all_values_as_one_vector():
    shapes = {"scale": (7,), "bias": (64,), "kernel": (3, 3, 5, 4), "count": (), "nothing": (0,), "large": (65, 64)}
    rng = np.random.default_rng(0)
    tree = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    values = np.concatenate([leaf.ravel() for leaf in tree.values()]).astype(np.float64)
    np.testing.assert_allclose(jax.jit(tree_norm)(tree), np.linalg.norm(values), rtol=1e-6)
    large = tree["large"].astype(np.float64).ravel()
    np.testing.assert_allclose(tree_norm({"large": tree["large"]}), np.linalg.norm(large), rtol=1e-6)
    assert tree_norm({}) == 0.0


def test_the_operations_do_not_grow_with_the_number_of_small_arrays():
    def operations(count):
        tree = [jax.ShapeDtypeStruct((64 + i % 3,), np.float32) for i in range(count)]
        return len(re.findall(r" (?:fusion|reduce|multiply)\(", jax.jit(tree_norm).lower(tree).compile().as_text()))

    assert 0 < operations(24) == operations(48)


def test_over_a_mesh_no_device_gathers_what_the_others_hold():
    mesh = make_mesh(Axes(data=1, fsdp=8), jax.devices())
    split = NamedSharding(mesh, PartitionSpec(STATE_AXIS))
    tree = [np.random.default_rng(i).normal(size=16).astype(np.float32) for i in range(3)]
    program = compiler.jit(tree_norm, {}, mesh, in_shardings=split).lower(tree).compile()
    assert "all-gather" not in program.as_text()
    found = program(jax.device_put(tree, split))
    np.testing.assert_allclose(found, np.linalg.norm(np.concatenate(tree).astype(np.float64)), rtol=1e-6)
