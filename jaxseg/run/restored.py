"""What is read from a checkpoint, and what several processes that read one must agree on."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxseg.errors import CheckpointError, counted
from jaxseg.run.snapshot import all_processes
from jaxseg.types import PyTree


class Restored(NamedTuple):
    """The content of a checkpoint; `state` has the structure of the template, with NumPy arrays as leaves."""

    step: int
    state: PyTree
    iterator_states: tuple[Any, ...]
    metrics: dict[str, float] | None
    config: dict[str, Any] | None
    log: Any = None

    @property
    def iterator_state(self) -> Any:
        """The state of this process's data iterator.

        Another number of processes than the one that wrote the checkpoint takes the state that all of those had: one of
        the position in the whole sequence of batches, as the training loader's.

        Raises:
            CheckpointError: if another number of processes wrote the checkpoint, and each a state of its own.
        """
        states = self.iterator_states
        if len(states) == jax.process_count():
            return states[jax.process_index()]
        if all(state == states[0] for state in states):
            return states[0]
        raise CheckpointError(
            f"The checkpoint of step {self.step} holds a different data iterator for each of "
            f"{counted(len(states), 'process')}, this run has {jax.process_count()}: resume with the number that it "
            "was started with."
        )


def require_one_step(restored: Restored | None, directory: Path) -> None:
    """Raises CheckpointError, in every process, if the processes of a run have not read the checkpoint of one step.

    They would go on from different steps. With several processes, every process calls this function.
    """
    found = all_processes("none" if restored is None else f"that of step {restored.step}")
    if len(set(found)) > 1:
        by_process = "; ".join(f"process {index}: {which}" for index, which in enumerate(found))
        raise CheckpointError(
            f"The processes of this run do not read the same checkpoint in {directory} ({by_process}); give a workdir "
            "that all hosts share, and remove the checkpoints that one of them cannot read."
        )
