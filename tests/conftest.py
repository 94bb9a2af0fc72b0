"""Shared set-up: eight fake CPU devices, strict rank promotion, a compilation cache that makes a second run quick."""

import os

from helpers.xla_flags import quick_flags

os.environ["XLA_FLAGS"] = quick_flags(devices=8, given=os.environ.get("XLA_FLAGS", ""))
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/jaxseg/test-xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("MPLBACKEND", "Agg")

import gc
from collections.abc import Iterator
from importlib.util import find_spec

import jax
import pytest
from helpers.figures import blank_figures, drawn_figures

# These import TFDS. The other tests also run on a machine without it.
collect_ignore = [] if find_spec("tensorflow_datasets") else ["data/test_mask_files.py", "data/test_tfds.py"]


def pytest_report_header() -> str | None:
    """Says which tests are left out."""
    return f"left out without tensorflow_datasets: {', '.join(collect_ignore)}" if collect_ignore else None


# Tracing makes many objects that live on, such as cached programs. Looking through all of them as often as Python does
# by default takes a tenth of the time of the tests.
gc.freeze()
gc.set_threshold(200_000, 20, 100)


@pytest.fixture(scope="session", autouse=True)
def figures() -> Iterator[None]:
    """Leaves the figures of runs blank in tests without the fixture `drawn`."""
    with blank_figures():
        yield


@pytest.fixture
def drawn(figures: None) -> Iterator[None]:
    """Draws the figures in this test."""
    with drawn_figures():
        yield


@pytest.fixture
def key() -> jax.Array:
    """A fixed base key."""
    return jax.random.key(0)
