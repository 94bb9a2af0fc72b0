"""Every network of the experiments on the shapes, with several seeds: a file for the sweep.

    python -m jaxseg.sweep --config benchmarks/zoo_sweep.py --seeds 0
    python -m jaxseg.sweep --config benchmarks/zoo_sweep.py

The first command trains each network once, the second with three seeds. Both go on where they were ended, `--only
unet,fpn` takes some of the networks, and the report says what is missing. A variant has what the experiment of that
name has for the shapes: network, loss, optimiser and steps. A run takes 2 to 40 minutes on one core. Networks of other
tasks and experiments about training stay out, by name.
"""

from pathlib import Path

from jaxseg.config import ConfigDict, command, default_config, flatten, parse_arg
from jaxseg.config.recipes import for_data
from jaxseg.sweep import Sweep

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
# Their networks give no class to each pixel.
OTHER_TASKS = ("autoencoder", "generator")
# About training, with the network of another experiment.
OF_TRAINING = ("adversarial", "audit", "distillation", "multilabel", "pruning", "quantised", "search", "semi")
OF_TRAINING += ("vit_finetune", "weak_labels")


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns what the experiments change: the shapes data without a network's own keys."""
    parse_arg(arg, ("shapes",))
    return for_data(default_config(), "shapes")


def networks() -> dict[str, ConfigDict]:
    """Returns {name of a network: configuration of its experiment, for the shapes}."""
    names = {path.stem for path in EXPERIMENTS.glob("*.py")}.difference(OTHER_TASKS, OF_TRAINING)
    return {name: command.load_experiment(str(EXPERIMENTS / f"{name}.py")) for name in sorted(names)}


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
