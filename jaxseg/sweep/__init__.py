"""Ablations and searches: many trainings of one experiment, and one report of them.

    python -m jaxseg.sweep --config experiments/ablations/residual.py [--workdir DIR]
    python -m jaxseg.sweep --config experiments/search.py [--workdir DIR]

An ablation trains each variant with several seeds, and has one table with their spread: it is an experiment file that
has `sweep()` beside `get_config(arg)`, which returns a `Sweep`. A search tries values of some keys: its file has
`search()`, which returns a `Search` over spaces: `Uniform`, `LogUniform`, `Integer`, `Choice`.
"""

from jaxseg.sweep.search.plan import Search
from jaxseg.sweep.search.spaces import Choice, Integer, LogUniform, Uniform
from jaxseg.sweep.variants import Sweep

__all__ = ["Choice", "Integer", "LogUniform", "Search", "Sweep", "Uniform"]
