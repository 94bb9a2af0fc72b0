"""What a sweep keeps of the runs that are in its folder when it is started again, as a single run does."""

from collections.abc import Sequence
from pathlib import Path

from jaxseg.data.notes import note
from jaxseg.errors import counted
from jaxseg.run.data import stored_steps
from jaxseg.run.workdir import CONFIG_FILE, holds_checkpoint, read_config
from jaxseg.sweep.outputs import PLAN_FILE
from jaxseg.sweep.plan import Plan, read_plan


def with_stored_steps(plan: Plan, workdir: Path) -> Plan:
    """Returns the plan with the steps of the runs in `workdir`, if its variants have epochs and their data have grown.

    All seeds of a variant then have the same steps, as a single run that is resumed keeps its own.
    """
    configs = dict(plan.configs or {})
    for name in configs:
        config = plan.config(name, plan.seeds[0])
        runs = [file.parent for file in sorted((workdir / name).glob(f"seed-*/{CONFIG_FILE}"))]
        kept = next(filter(None, (stored_steps(config, run) for run in runs if config.epochs)), config.steps)
        if kept != config.steps:
            note(
                f"The runs of {name!r} in {workdir} keep the {counted(kept, 'step')} that they were started with; "
                f"epochs={config.epochs:g} of the training images that there are now would be "
                f"{counted(config.steps, 'step')}."
            )
            configs[name] = {**configs[name], "steps": kept}
    return plan._replace(configs=configs)


def stored_division(workdir: Path, overrides: Sequence[str]) -> tuple[str, ...]:
    """Returns the overrides with the division of the runs in `workdir`, unless these or a variant set it.

    The same command then resumes a sweep that was started before its keys existed, on the images that it had.

    Raises:
        ConfigError: if there is a file that is not a plan in its place, or a configuration cannot be read.
    """
    if not (workdir / PLAN_FILE).exists():
        return tuple(overrides)
    varied = {key for changes in read_plan(workdir).variants.values() for key in changes}
    given = {word.partition("=")[0].removeprefix("--config.") for word in overrides} | varied
    for file in sorted(workdir.glob(f"*/seed-*/{CONFIG_FILE}")):
        if not holds_checkpoint(file.parent):
            continue
        stored = read_config(file.parent).data
        kept = [("data.division", stored.division)] if stored.division == "former" else []
        kept += [("data.val_group", stored.val_group)] if stored.val_group == "names" else []
        kept = [(key, value) for key, value in kept if key not in given]
        for key, value in kept:
            note(f"The runs in {workdir} keep {key}={value}, with which they were started.")
        if kept:
            return (*overrides, *(f"--config.{key}={value}" for key, value in kept))
    return tuple(overrides)
