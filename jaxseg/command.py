"""The command line: `--config FILE[:ARG] --config.KEY=VALUE --workdir DIR`, and the help that lists every key."""

import argparse
import ast
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxseg.config import FREE_FORM, KEYS, ConfigDict, ConfigError, nearest, set_key, validate


def _parse_value(key: str, text: str) -> Any:
    """Reads the text after `--config.KEY=` as the type of that key."""
    kind = type(KEYS[key][0]) if key in KEYS else None
    if kind is str:
        return text
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if kind is tuple and isinstance(value, str) and value:
        return tuple(part.strip() for part in value.split(","))
    if kind is tuple and not isinstance(value, list | tuple):
        return () if value == "" else (value,)
    return value


def load_experiment(spec: str) -> ConfigDict:
    """Returns the configuration of `FILE[:ARG]`.

    Raises:
        ConfigError: if the file is not there, is no Python file, or has no `get_config(arg)`.
    """
    path_text, _, arg = spec.partition(":")
    path = Path(path_text)
    if not path.is_file():
        near = [str(p) for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ConfigError(f"There is no experiment file {path_text!r}.{nearest(path_text, near) if near else ''}")
    module_spec = importlib.util.spec_from_file_location(f"jaxseg_experiment_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise ConfigError(f"{path_text} is not a Python file; --config takes FILE.py or FILE.py:ARG.")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ConfigError(f"{path_text} is not valid Python, line {error.lineno}: {error.msg}.") from error
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{path_text} defines no get_config(arg).")
    return module.get_config(arg or None)


def parse_overrides(config: ConfigDict, arguments: Sequence[str]) -> None:
    """Applies `--config.KEY=VALUE` arguments (also `--config.KEY VALUE`) to `config`."""
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--config."):
            raise ConfigError(f"Unknown argument {word!r}; options of a run are written --config.KEY=VALUE.")
        key, equals, text = word.removeprefix("--config.").partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"--config.{key} needs a value: --config.{key}=VALUE.")
            text = rest.pop(0)
        if key not in KEYS and not key.startswith(tuple(f + "." for f in FREE_FORM)):
            raise ConfigError(f"There is no config key {key!r}.{nearest(key, KEYS)}")
        set_key(config, key, _parse_value(key, text))


def help_text() -> str:
    """Returns the list of all keys with default and meaning, for `--help`."""
    lines = [f"  --config.{key}={_show(default)}\n      {meaning}" for key, (default, meaning) in KEYS.items()]
    return "keys of the configuration, with their defaults (an experiment file changes some):\n" + "\n".join(lines)


def _show(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(str(v) for v in default) or "()"
    return str(default) if default != "" else "''"


def parse_command_line(
    argv: Sequence[str], program: str, description: str, add_options: Any = None
) -> tuple[argparse.Namespace, ConfigDict]:
    """Reads `--config FILE[:ARG]`, `--workdir DIR` and `--config.KEY=VALUE`; returns the options and a valid config.

    Args:
        argv: the arguments after the program's name.
        program: how the program is called, for the usage line.
        description: one sentence for `--help`.
        add_options: called with the parser to add options of its own.

    Raises:
        ConfigError: for anything wrong in the configuration.
    """
    parser = argparse.ArgumentParser(
        prog=program, description=description, epilog=help_text(), allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--config", metavar="FILE[:ARG]", required=True, help="experiment file and its variant")
    parser.add_argument("--workdir", metavar="DIR", default="", help="where the run is kept (default runs/EXPERIMENT)")
    if add_options is not None:
        add_options(parser)
    options, rest = parser.parse_known_args(argv)
    config = load_experiment(options.config)
    parse_overrides(config, rest)
    validate(config)
    return options, config
