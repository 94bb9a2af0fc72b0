"""Configuration: what the keys are, how their values are set and checked, the command line, and recipes.

`schema` lists every key with its default and meaning, `values` sets and checks them, `command` reads experiment files
and the command line, and `recipes` has the settings with which a data set is usually trained.
"""

from jaxseg.config.schema import CHOICES, FREE_FORM, FREE_KEYS, KEYS, RENAMED
from jaxseg.config.values import (
    ELEMENTS,
    ConfigDict,
    default_config,
    differences,
    flatten,
    from_dict,
    parse_arg,
    set_key,
    to_dict,
    update,
    validate,
)
from jaxseg.errors import ConfigError

__all__ = [
    "CHOICES",
    "ELEMENTS",
    "FREE_FORM",
    "FREE_KEYS",
    "KEYS",
    "RENAMED",
    "ConfigDict",
    "ConfigError",
    "default_config",
    "differences",
    "flatten",
    "from_dict",
    "parse_arg",
    "set_key",
    "to_dict",
    "update",
    "validate",
]
