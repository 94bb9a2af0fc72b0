"""The sweep over the networks: each is trained as its experiment trains it."""

import json
from pathlib import Path

from jaxseg.config import command, flatten
from jaxseg.sweep.plan import load_plan

ROOT = Path(__file__).resolve().parents[2]


def test_each_network_is_trained_as_in_its_experiment() -> None:
    plan = load_plan(str(ROOT / "benchmarks" / "zoo_sweep.py"), (), None, "val")
    zoo = json.loads((ROOT / "benchmarks" / "results" / "zoo.json").read_text())["networks"]
    networks = {row["experiment"] for row in zoo}
    assert set(plan.variants) == networks - {"adversarial", "autoencoder", "generator"} and "swin" in plan.variants
    for name in plan.variants:
        own = command.load_experiment(str(ROOT / "experiments" / f"{name}.py"))
        own.seed = 2
        assert flatten(plan.config(name, 2)) == flatten(own), name
