"""A run in Weights & Biases. Its client writes to a folder first, so that WANDB_MODE=offline needs no network."""

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.run.trackers.about import FAILED, About, Tracker


def open_wandb(about: About) -> Tracker:
    """Returns the run in Weights & Biases, new or continued; raises what the client raises."""
    return _Wandb(about)


class _Wandb:
    def __init__(self, about: About):
        self._client: Any = importlib.import_module("wandb")
        self._run = self._client.init(
            project=about.project or os.getenv("WANDB_PROJECT") or "jaxseg",
            name=about.name,
            id=about.known or None,
            resume="allow",
            reinit="create_new",  # a run of the caller's own stays as it is
            dir=os.getenv("WANDB_DIR") or str(about.workdir),
            config=dict(about.config),
            allow_val_change=True,  # a resumed run may have other free keys
            # The console of a run is its own: a client that records it would record each drawing of the display.
            settings=self._client.Settings(console="off", save_code=False),
        )
        self.name = str(self._run.id)
        # Not the client's own steps, which only rise: a start after an interruption repeats some.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        table = self._client.Table(columns=list(columns), data=[list(row) for row in rows])
        self._run.log({"step": step, name: table})

    def picture(self, step: int, name: str, images: np.ndarray) -> None:
        self._run.log({"step": step, name: [self._client.Image(image) for image in images]})

    def final(self, values: Mapping[str, float]) -> None:
        self._run.summary.update(dict(values))

    def close(self, how: str) -> None:
        self._run.finish(exit_code=1 if how == FAILED else 0)
