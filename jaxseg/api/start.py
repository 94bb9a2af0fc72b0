"""Training from Python as from the command line: what `jaxseg.train(...)` does."""

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxseg import compiler
from jaxseg.arguments import expanded
from jaxseg.config import command
from jaxseg.config.config_dict import AnyConfigDict
from jaxseg.errors import ConfigError
from jaxseg.inference.trained import TrainedRun, load
from jaxseg.run.check import check
from jaxseg.run.messages import FROM_PYTHON, python_call
from jaxseg.run.workdir import default_workdir


class TrainModule(types.ModuleType):
    """The module `jaxseg.train`, which can be called: `run = jaxseg.train("experiments/resunet.py:folder")`.

    Importing `jaxseg.train`, as `from jaxseg.train import main` does, sets the attribute `train` of the package to the
    module. A function of that name would be lost then, so the module itself is made callable.
    """

    train: Callable[..., Any]  # the module's function

    def __call__(
        self, experiment: str | Path | AnyConfigDict, workdir: str | Path | None = None, **overrides: Any
    ) -> TrainedRun:
        """Trains or resumes as the command line does; returns the run with its best checkpoint, ready to predict.

        Args:
            experiment: `FILE.py[:ARG]`, or a configuration that starts from `jaxseg.config.default_config()`.
            workdir: where the run is kept; None: runs/EXPERIMENT.
            **overrides: keys, as `**{"data.dir": PATH}` or `data__dir=PATH`; text is read as on the command line.

        Raises:
            JaxsegError: whatever the command line prints as an error.
            KeyboardInterrupt: if a signal stopped the run, which is saved; the same call resumes it.
        """
        config = command.configure(experiment, overrides)
        if workdir is None and isinstance(experiment, AnyConfigDict):
            raise ConfigError("Give a workdir: a configuration has no file that the default could be named after.")
        directory = default_workdir(str(experiment)) if workdir is None else expanded(workdir)
        compiler.keep_programs(config.compile.cache)
        check(config, before_training=True)
        result = self.train(config, directory, python_call(experiment, workdir, overrides), FROM_PYTHON)
        if result is None:
            raise KeyboardInterrupt(f"A signal stopped the run in {directory}; the same call resumes it.")
        return load(directory)
