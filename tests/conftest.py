"""Shared set-up: eight fake CPU devices, strict rank promotion, a compilation cache that makes a second run quick."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
# Two fifths less time in the compiler, for the same arithmetic; programs are run too seldom here to gain from more.
os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=1"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/jaxseg/test-xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest


@pytest.fixture
def key() -> jax.Array:
    """A fixed base key."""
    return jax.random.key(0)
