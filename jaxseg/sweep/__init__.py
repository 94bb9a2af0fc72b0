"""Ablations: variants of one experiment, each trained with several seeds, in one table with their spread.

    python -m jaxseg.sweep --config experiments/ablations/residual.py [--workdir DIR]

An ablation is an experiment file that has `sweep()` beside `get_config(arg)`; what `sweep` returns is a `Sweep`.
"""

from jaxseg.sweep.plan import Sweep

__all__ = ["Sweep"]
