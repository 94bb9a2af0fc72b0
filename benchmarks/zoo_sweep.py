"""Every network of the experiments on the shapes, with several seeds: a file for the sweep.

    python -m jaxseg.sweep --config benchmarks/zoo_sweep.py --seeds 0
    python -m jaxseg.sweep --config benchmarks/zoo_sweep.py

The first command trains each network once, the second with three seeds. Both go on where they were ended, `--only
unet,fpn` takes some of the networks, and the report says what is missing. A variant has what the experiment of that
name has for the shapes: network, loss, optimiser and steps. A run takes 2 to 40 minutes on one core.
"""

from pathlib import Path

from jaxseg.config import ConfigDict, command, default_config, flatten, parse_arg
from jaxseg.config.recipes import for_data
from jaxseg.sweep import Sweep

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
# Their networks give no class to each pixel.
OTHER_TASKS = ("autoencoder", "generator")


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns what the experiments change: the shapes data without a network's own keys."""
    parse_arg(arg, ("shapes",))
    return for_data(default_config(), "shapes")


def networks() -> dict[str, ConfigDict]:
    """Returns {name of a network: configuration of its experiment, for the shapes}."""
    names = sorted(path.stem for path in EXPERIMENTS.glob("*.py"))
    found = {
        name: command.load_experiment(str(EXPERIMENTS / f"{name}.py")) for name in names if name not in OTHER_TASKS
    }
    return {name: config for name, config in found.items() if config.model.name == name}


def sweep() -> Sweep:
    """Returns a variant for each network, compared with the U-Net."""
    own = flatten(get_config())
    variants = {}
    for name, config in networks().items():
        changed = {
            key.replace(".", "__"): value
            for key, value in flatten(config).items()
            if not key.startswith("model.args.") and (key not in own or own[key] != value)
        }
        variants[name] = {**changed, "model__args": config.model.args.to_dict()}
    return Sweep(variants, baseline="unet", seeds=(0, 1, 2))
