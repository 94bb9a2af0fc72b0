"""Stand-ins for the clients of trackers: modules that keep in memory what they are given."""

import sys
from collections import namedtuple
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

Metric = namedtuple("Metric", ["key", "value", "timestamp", "step"])
Param = namedtuple("Param", ["key", "value"])


class MlflowException(Exception):
    error_code = "RESOURCE_DOES_NOT_EXIST"


class Mlflow:
    """All clients of one store."""

    def __init__(self) -> None:
        self.runs: dict[str, SimpleNamespace] = {}
        self.experiments: dict[str, str] = {}

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name: str) -> str:
        self.experiments[name] = str(len(self.experiments) + 1)
        return self.experiments[name]

    def create_run(self, experiment_id: str, run_name: str) -> Any:
        of_run = f"run{len(self.runs)}"
        fields: dict[str, Any] = {"experiment": experiment_id, "name": run_name, "status": ["RUNNING"]}
        self.runs[of_run] = SimpleNamespace(**fields, params={}, metrics=[], files={}, images={})
        return SimpleNamespace(info=SimpleNamespace(run_id=of_run))

    def update_run(self, run_id: str, status: str) -> None:
        if run_id not in self.runs:
            raise MlflowException(f"No run {run_id}")
        self.runs[run_id].status.append(status)

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        run = self.runs[run_id]
        assert len(metrics) <= 1000 and len(params) <= 100, "the limits of a server"
        for key, value in params:
            assert run.params.setdefault(key, value) == value, "a parameter does not change"
        run.metrics.extend(metrics)

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self.runs[run_id].files[artifact_file] = text

    def log_image(self, run_id: str, image: Any, artifact_file: str) -> None:
        self.runs[run_id].images[artifact_file] = image.shape

    def set_terminated(self, run_id: str, status: str) -> None:
        self.runs[run_id].status.append(status)


class Wandb:
    """The runs that were opened, one for each start."""

    def __init__(self) -> None:
        self.starts: list[SimpleNamespace] = []

    def init(self, **options: Any) -> Any:
        of_run = options["id"] or f"new{len(self.starts)}"
        start = SimpleNamespace(options=options, id=of_run, rows=[], summary={}, ended=None, axes=[])
        start.log = start.rows.append
        start.define_metric = lambda name, **how: start.axes.append((name, how))
        start.finish = lambda exit_code: setattr(start, "ended", exit_code)
        self.starts.append(start)
        return start


def install(monkeypatch: pytest.MonkeyPatch) -> tuple[Wandb, Mlflow]:
    """Puts the stand-ins where `import` finds them, for the length of a test."""
    wandb, store = Wandb(), Mlflow()
    client = {"init": wandb.init, "Settings": dict, "Table": lambda **of: ("table", of), "Image": lambda x: x.shape}
    _module(monkeypatch, "wandb", **client)
    _module(monkeypatch, "mlflow", MlflowClient=lambda: store)
    _module(monkeypatch, "mlflow.entities", Metric=Metric, Param=Param)
    _module(monkeypatch, "mlflow.exceptions", MlflowException=MlflowException)
    return wandb, store


def _module(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, origin="stand-in")
    module.__dict__.update(content)
    monkeypatch.setitem(sys.modules, name, module)
