"""The sums over the steps between two lines of a run's log."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxseg.metrics import scores


class Window:
    """Sums over the steps since the last log line."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        self._means: dict[str, list[float]] = {"loss": [], "grad_norm": [], "param_norm": []}
        self._learning_rate = math.nan
        self._confusion: np.ndarray = np.zeros((), np.int64)
        if state is not None:
            self._means |= {name: list(values) for name, values in state["means"].items()}
            self._confusion = np.asarray(state["confusion"], np.int64)
        self._timed_images = 0
        self._timed_steps = 0
        self._seconds = 0.0

    def add(self, host: Mapping[str, Any], images: int, seconds: float | None) -> None:
        terms = host["terms"] if "terms" in host else {}
        numbers = {name: host[name] for name in ("loss", "grad_norm", "param_norm")}
        for name, value in (numbers | {f"loss/{term}": value for term, value in terms.items()}).items():
            self._means.setdefault(name, []).append(float(value))
        self._learning_rate = float(host["learning_rate"])
        self._confusion = self._confusion + host["confusion"].astype(np.int64)
        if seconds is not None:  # None for the first step after a pause
            self._timed_images += images
            self._timed_steps += 1
            self._seconds += seconds

    def state(self) -> dict[str, Any] | None:
        """Returns the sums without the times, which a stop interrupts; None if there are no steps."""
        if not self._means["loss"]:
            return None
        return {
            "means": {name: list(values) for name, values in self._means.items()},
            "confusion": np.asarray(self._confusion).tolist(),
        }

    @property
    def seconds_a_step(self) -> float:
        return self._seconds / self._timed_steps if self._timed_steps else math.nan

    def summary(self) -> dict[str, float]:
        rate = self._timed_images / self._seconds if self._seconds else math.nan
        numbers = {name: math.fsum(values) / len(values) for name, values in self._means.items()}
        numbers["mean_iou"] = scores(self._confusion).mean_iou
        return {**numbers, "learning_rate": self._learning_rate, "images_per_second": rate}
