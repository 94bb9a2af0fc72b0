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
    """Returns the overrides with the `data.division` of the runs in `workdir`, unless these or a variant set it.

    The same command then resumes a sweep that was started before the key existed, on the images that it had.

    Raises:
        ConfigError: if there is a file that is not a plan in its place, or a configuration cannot be read.
    """
    key = "--config.data.division"
    if any(word.partition("=")[0] == key for word in overrides) or not (workdir / PLAN_FILE).exists():
        return tuple(overrides)
    if any("data.division" in changes for changes in read_plan(workdir).variants.values()):
        return tuple(overrides)
    for file in sorted(workdir.glob(f"*/seed-*/{CONFIG_FILE}")):
        if holds_checkpoint(file.parent) and (stored := read_config(file.parent).data.division) == "former":
            note(f"The runs in {workdir} keep data.division={stored}, with which they were started.")
            return (*overrides, f"{key}={stored}")
    return tuple(overrides)
