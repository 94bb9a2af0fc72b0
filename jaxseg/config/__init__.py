"""Configuration: what the keys are, how their values are set and checked, the command line, and recipes.

`schema` lists every key with its default, meaning and valid values, `config_dict` is the mapping that holds them,
`values` sets and checks them, `rules` says what several of them ask of each other, `command` reads experiment files and
the command line, and `recipes` has the usual training settings of each data set.
"""

from jaxseg.config.config_dict import ConfigDict
from jaxseg.config.rules import require_pruning_within_steps, require_short_warmup, takes_pairs
from jaxseg.config.schema import FREE_FORM, FREE_KEYS, KEYS, LAYOUT_KEYS, RENAMED
from jaxseg.config.values import (
    WITHHELD,
    as_val_group,
    default_config,
    differences,
    flatten,
    free_keys,
    from_dict,
    held_out_group,
    parse_arg,
    set_key,
    to_dict,
    update,
    validate,
    with_values,
)
from jaxseg.errors import ConfigError

__all__ = [
    "FREE_FORM",
    "FREE_KEYS",
    "KEYS",
    "LAYOUT_KEYS",
    "RENAMED",
    "WITHHELD",
    "ConfigDict",
    "ConfigError",
    "as_val_group",
    "default_config",
    "differences",
    "flatten",
    "free_keys",
    "from_dict",
    "held_out_group",
    "parse_arg",
    "require_pruning_within_steps",
    "require_short_warmup",
    "set_key",
    "takes_pairs",
    "to_dict",
    "update",
    "validate",
    "with_values",
]
