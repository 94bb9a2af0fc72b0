"""Checkpoints of a run: the training state and the data iterator, written by Orbax in the background.

A checkpoint is a directory named after its step. Orbax writes it under a temporary name and renames it when it is
complete, so that earlier checkpoints stay intact if the process is killed at any moment. Besides the arrays, the
checkpoint holds the item "about": shape, type and CRC-32 of every array, the state of the data iterator, the
validation metrics, the sums that the log has not written yet, the configuration, and a digest of all these. Reading
verifies them, which distinguishes a damaged checkpoint from a checkpoint of another model.
"""

import json
import math
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxseg.arguments import Count, WholeNotNegative, check_value
from jaxseg.errors import CheckpointError, HostError
from jaxseg.files import read_json
from jaxseg.run import orbax_errors, snapshot
from jaxseg.run.restored import Restored, require_one_step
from jaxseg.types import PyTree


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was skipped, or a save failed while another error was propagating."""


# If Orbax makes directories in the background and fails, its writers wait for minutes.
_ASYNC = ocp.options.AsyncOptions(create_directories_asynchronously=False)


class _Damaged(Exception):
    """The content of a checkpoint differs from what was written."""


class Checkpoints:
    """The checkpoints in one directory: the newest `keep` of them and the best by metrics["mean_iou"].

    Use it as a context manager: its end waits for the save in the background. With several processes, every process
    calls every method, and process 0 writes. Before the first `save`, nothing is created or removed, so that a run can
    be read while it trains.
    """

    def __init__(self, directory: str | Path, *, keep: int = 2, config: Mapping[str, Any] | None = None):
        """Args:
        directory: the directory of the checkpoints; the first `save` makes it.
        keep: number of newest checkpoints to keep, at least 1; the best one is kept too.
        config: the run's configuration as JSON values; every checkpoint includes it.

        Raises:
            ArgumentError: for an invalid `keep`.
        """
        orbax_errors.quieten_orbax()
        self.directory = Path(directory).absolute()
        self._keep = check_value("keep", keep, Count)
        self._config = None if config is None else json.loads(json.dumps(config))  # a copy; raises now, not in `save`
        self._checkpointer: ocp.AsyncCheckpointer | None = None
        self._pending: int | None = None  # the step that is being written
        self._saved = False
        self._size = 0  # bytes of its arrays
        self._written: dict[int, dict[str, float] | None] = {}  # step: metrics, of this object's saves

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, HostError):
            return  # a save in the background would wait for the host that has ended
        try:
            self.close()
        except CheckpointError as failure:
            if error is None:
                raise
            warnings.warn(str(failure), CheckpointWarning, stacklevel=2)  # so that `error` propagates

    def steps(self) -> list[int]:
        """Returns the steps of the complete checkpoints, oldest first."""
        if not self.directory.is_dir():
            return []
        return sorted(int(p.name) for p in self.directory.iterdir() if p.name.isdecimal() and p.is_dir())

    def latest_step(self) -> int | None:
        """Returns the step of the newest checkpoint, or None if there is none."""
        steps = self.steps()
        return steps[-1] if steps else None

    def best_step(self) -> int | None:
        """Returns the step with the highest metrics["mean_iou"], the newest of equals; None if none was evaluated."""
        ranked = self._ranked()
        return ranked[0] if ranked else None

    def path(self, step: int) -> Path:
        """Returns the directory of the checkpoint of that step."""
        return self.directory / str(step)

    def save(
        self,
        step: int,
        state: PyTree,
        iterator_state: Any = None,
        metrics: Mapping[str, float] | None = None,
        wait: bool = False,
        log: Any = None,
    ) -> None:
        """Copies the state to the host and writes it in the background.

        After it returns, the arrays of `state` may be donated or changed. A checkpoint of the same step is replaced.
        Checkpoints of later steps, which an earlier start has written, are removed when this one is complete, since
        training now repeats those steps. A second save of a step without new metrics does nothing.

        Args:
            step: the number of steps made so far.
            state: pytree of arrays; JAX arrays must be replicated or entirely on this process.
            iterator_state: state of this process's data iterator: bytes or JSON values.
            metrics: of the evaluation of this state; `mean_iou` ranks the checkpoints.
            wait: whether to wait until the checkpoint is on the disk.
            log: sums over the steps since the last line of the log, see `Reporter.open_window`.

        Raises:
            ArgumentError: for an invalid `step`.
            CheckpointError: if this save or the previous one in the background fails, for example on a full disk.
        """
        step = check_value("step", step, WholeNotNegative)
        metrics = None if metrics is None else {name: float(value) for name, value in metrics.items()}
        if step in self._written and metrics in (None, self._written[step]):
            return self.wait() if wait else None
        self.wait()
        arrays = snapshot.host_arrays(state)
        content = {
            "step": step,
            "metrics": metrics,
            "config": self._config,
            "iterators": snapshot.all_processes(snapshot.encode(iterator_state)),
            "log": log,
            "arrays": snapshot.describe(arrays),
        }
        about = snapshot.seal(content)
        self._pending = step
        self._size = sum(array.nbytes for array in arrays.values())
        self._guard(step, lambda: self._start(step, arrays, about))
        self._written[step] = metrics
        if wait:
            self.wait()
        return None

    def wait(self) -> None:
        """Waits for the save in the background, then removes the checkpoints that are not kept.

        Raises:
            CheckpointError: if the save fails.
        """
        step, writer = self._pending, self._checkpointer
        if step is None or writer is None:
            return
        self._guard(step, writer.wait_until_finished)
        self._pending = None
        if _primary():
            self._prune(step)

    def close(self) -> None:
        """Waits as `wait` does and frees the writer; the object can still read and save.

        Raises:
            CheckpointError: if the save in the background fails.
        """
        try:
            self.wait()
        finally:
            if self._checkpointer is not None:
                self._checkpointer.close()
                self._checkpointer = None

    def restore(self, template: PyTree, step: WholeNotNegative | Literal["best"] | None = None) -> Restored | None:
        """Reads a checkpoint; returns None if there is none.

        If the checkpoint is damaged, the next one in the order of age (newest first) or quality (best first) is read,
        with a `CheckpointWarning`. A checkpoint given by its step has no substitute.

        Args:
            template: pytree of arrays or `jax.ShapeDtypeStruct` (from `jax.eval_shape`) that the state must match in
                structure, shapes and types.
            step: the step; "best": the highest mean IoU, or the newest if none was evaluated; None: the newest.

        Raises:
            ArgumentError: for an invalid `step`.
            CheckpointError: if the checkpoint belongs to another model (the message lists the arrays that are missing,
                unexpected or of another shape), if every checkpoint is damaged, if there is none of that step, or if
                the processes of a run do not read the same one.
        """
        step = check_value("step", step, WholeNotNegative | Literal["best"] | None)
        restored = self._restore(template, step)
        require_one_step(restored, self.directory)
        return restored

    def _restore(self, template: PyTree, step: int | str | None) -> Restored | None:
        self.wait()
        self._written.clear()
        steps = self.steps()
        candidates = [step] if isinstance(step, int) else steps[::-1]
        if step == "best":
            candidates = self._ranked() + [s for s in candidates if s not in self._ranked()]
        if isinstance(step, int) and step not in steps:
            known = ", ".join(map(str, steps)) or "none"
            raise CheckpointError(f"There is no checkpoint of step {step} in {self.directory}; its steps: {known}.")
        for position, candidate in enumerate(candidates):
            try:
                return self._read(candidate, template)
            except _Damaged as damage:
                if not isinstance(step, int) and not self.path(candidate).exists() and self.steps():
                    return self._restore(template, step)  # a training has just replaced it by newer ones
                rest = candidates[position + 1 :]
                if not rest:
                    raise CheckpointError(
                        f"The checkpoint {self.path(candidate)} is damaged ({damage}) and there is no other to fall "
                        f"back to; remove {self.directory} to start over."
                    ) from damage.__cause__
                warnings.warn(
                    f"The checkpoint {self.path(candidate)} is damaged ({damage}); falling back to that of step "
                    f"{rest[0]}.",
                    CheckpointWarning,
                    stacklevel=2,
                )
        return None

    def _read(self, step: int, template: PyTree) -> Restored:
        about = self._about(step)
        wanted = {name: snapshot.shape_and_type(leaf) for name, leaf in snapshot.named(template).items()}
        stored = {name: (tuple(entry["shape"]), entry["dtype"]) for name, entry in about["arrays"].items()}
        if wanted != stored:
            raise CheckpointError(snapshot.mismatch(self.path(step), wanted, stored))
        try:
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
                # Before anything is read: a few bytes can announce an array of any size.
                snapshot.require_described(reader.metadata(self.path(step) / "state").item_metadata.tree, stored)
                arrays = snapshot.flat(reader.restore(self.path(step) / "state", args=ocp.args.PyTreeRestore()))
        except Exception as error:
            raise _Damaged(orbax_errors.one_line(error)) from error
        for name, (shape, dtype) in stored.items():
            if 0 in shape:
                arrays[name] = np.zeros(shape, dtype)
        found = snapshot.describe({name: arrays[name] for name in stored if name in arrays})
        broken = [name for name in stored if name not in found or found[name] != about["arrays"][name]]
        if broken:
            raise _Damaged(f"the array {broken[0]} differs from what was written")
        state = jax.tree.unflatten(jax.tree.structure(template), [arrays[name] for name in wanted])
        iterators = tuple(map(snapshot.decode, about["iterators"]))
        # Earlier versions of jaxseg wrote neither.
        config, log = (about[name] if name in about else None for name in ("config", "log"))
        return Restored(step, state, iterators, about["metrics"], config, log)

    def _about(self, step: int) -> dict[str, Any]:
        """Reads and verifies the item "about" of a checkpoint."""
        try:
            return snapshot.unseal(read_json(self.path(step) / "about" / "metadata", finite=False))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _Damaged(f"its description cannot be read: {orbax_errors.one_line(error)}") from error

    def _ranked(self) -> list[int]:
        """Returns the evaluated steps, best first."""
        scores = {}
        for step in self.steps():
            try:
                metrics = self._written[step] if step in self._written else self._about(step)["metrics"]
            except _Damaged:
                continue
            if metrics and "mean_iou" in metrics and not math.isnan(metrics["mean_iou"]):
                scores[step] = metrics["mean_iou"]
        return sorted(scores, key=lambda step: (scores[step], step), reverse=True)

    def _start(self, step: int, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
        if _primary():
            # A workdir that is gone after the first save is an error, not a new one without its configuration.
            self.directory.mkdir(parents=not self._saved, exist_ok=True)
            self._saved = True
            self._remove_leftovers()
            if self.path(step).exists():
                self.path(step).rename(self.directory / f"{step}.replaced")
        if self._checkpointer is None:
            # Given to both: the one makes the folder of the checkpoint, the other those of its items.
            of_items = ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(async_options=_ASYNC))
            self._checkpointer = ocp.AsyncCheckpointer(of_items, async_options=_ASYNC)
        filled = {name: array for name, array in arrays.items() if array.size}  # Orbax takes no empty arrays
        items = {"state": ocp.args.PyTreeSave(snapshot.nested(filled)), "about": ocp.args.JsonSave(about)}
        self._checkpointer.save(self.path(step), args=ocp.args.Composite(**items))

    def _guard(self, step: int, action: Callable[[], None]) -> None:
        """Runs a part of a save; turns its errors into `CheckpointError` and removes what it has written."""
        try:
            action()
        except Exception as error:
            self._pending = None
            self._written.pop(step, None)
            self._checkpointer = None  # may be unusable after an error; the next save makes another
            # Before the removal of files, which frees space on the disk.
            reason = orbax_errors.reason_of_a_failed_save(error, self.directory, self._size)
            if _primary():
                self._remove_leftovers()
            steps = ", ".join(map(str, self.steps()))
            intact = f"the older ones are intact (steps {steps})" if steps else "there is no older one"
            raise CheckpointError(
                f"The checkpoint of step {step} could not be saved in {self.directory} ({reason}); {intact}."
            ) from error

    def _prune(self, step: int) -> None:
        """Removes the checkpoints that are not kept, when that of `step` is complete."""
        steps = [s for s in self.steps() if s <= step]
        kept = {*steps[-self._keep :], *[s for s in self._ranked() if s <= step][:1]}
        for old in self.steps():
            if old not in kept:
                self._written.pop(old, None)
                try:  # renamed first, so that a partly removed checkpoint has no valid name
                    self.path(old).rename(self.directory / f"{old}.deleting")
                except OSError as error:
                    text = f"The old checkpoint {self.path(old)} cannot be removed: {error}."
                    warnings.warn(text, CheckpointWarning, stacklevel=3)
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """Removes the files that a killed process or a failed save left; only called while no save is running."""
        for path in self.directory.glob("*.*") if self.directory.is_dir() else ():
            step, _, suffix = path.name.partition(".")
            if not step.isdecimal():
                continue
            if suffix == "replaced" and not self.path(int(step)).exists():
                path.rename(self.path(int(step)))  # the checkpoint that should replace it was not completed
            elif suffix in ("deleting", "replaced") or suffix.startswith("orbax-checkpoint-tmp"):
                shutil.rmtree(path, ignore_errors=True)


def _primary() -> bool:
    return jax.process_index() == 0
