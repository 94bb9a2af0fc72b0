"""The former name of `jaxseg.config.recipes`, which experiment files written for version 0.1 import."""

from jaxseg.config.recipes import VARIANTS, for_ablation, for_data

__all__ = ["VARIANTS", "for_ablation", "for_data"]
