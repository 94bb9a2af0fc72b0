"""A run in MLflow: on a server, or in files of this machine, as MLFLOW_TRACKING_URI says."""

import csv
import importlib
import io
import os
import posixpath
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.run.trackers.about import FAILED, FINISHED, STOPPED, About, Tracker

_STATUS = {FINISHED: "FINISHED", STOPPED: "KILLED", FAILED: "FAILED"}
_LONGEST = 500  # characters of a parameter, of which servers before MLflow 2.8 take no more
_AT_ONCE = 100  # parameters or numbers in one call


def open_mlflow(about: About) -> Tracker:
    """Returns the run in MLflow, new or continued; raises what the client raises."""
    return _Mlflow(about)


class _Mlflow:
    def __init__(self, about: About):
        self._client: Any = importlib.import_module("mlflow").MlflowClient()
        self._entities: Any = importlib.import_module("mlflow.entities")
        self._error: Any = importlib.import_module("mlflow.exceptions").MlflowException
        self.name = about.known
        if self.name and self._goes_on():
            return
        self.name = self._client.create_run(self._experiment(about), run_name=about.name).info.run_id
        given = [self._entities.Param(_plain(key), str(value)[:_LONGEST]) for key, value in about.config.items()]
        for start in range(0, len(given), _AT_ONCE):
            self._client.log_batch(self.name, params=given[start : start + _AT_ONCE])

    def _goes_on(self) -> bool:
        """Continues the run of an earlier start; returns whether the store still has it."""
        try:
            self._client.update_run(self.name, status="RUNNING")
        except self._error as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return True

    def _experiment(self, about: About) -> str:
        if not about.project and "MLFLOW_EXPERIMENT_ID" in os.environ:
            return os.environ["MLFLOW_EXPERIMENT_ID"]
        name = about.project or os.getenv("MLFLOW_EXPERIMENT_NAME") or "jaxseg"
        found = self._client.get_experiment_by_name(name)
        return self._client.create_experiment(name) if found is None else found.experiment_id

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        make = self._entities.Metric
        metrics = [make(_plain(name), float(value), now, step) for name, value in values.items()]
        for start in range(0, len(metrics), _AT_ONCE):
            self._client.log_batch(self.name, metrics=metrics[start : start + _AT_ONCE])

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        text = io.StringIO()
        csv.writer(text).writerows([columns, *rows])
        self._client.log_text(self.name, text.getvalue(), f"{_plain(name)}/step-{step:07d}.csv")

    def picture(self, step: int, name: str, images: np.ndarray) -> None:
        for i, image in enumerate(images):
            number = f"-{i}" if len(images) > 1 else ""
            self._client.log_image(self.name, image, artifact_file=f"{_plain(name)}/step-{step:07d}{number}.png")

    def final(self, values: Mapping[str, float]) -> None:
        self.scalars(0, values)

    def close(self, how: str) -> None:
        self._client.set_terminated(self.name, _STATUS[how])


def _plain(name: str) -> str:
    """Returns a name that MLflow allows: of some characters, and a path that is as short as it can be."""
    return posixpath.normpath(re.sub(r"[^\w\-. /]|(?<=/)[./]+", "_", name))
