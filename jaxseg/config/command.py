"""The command line: `--config FILE[:ARG] --config.KEY=VALUE --workdir DIR`, and the help that lists every key."""

import argparse
import contextlib
import functools
import importlib.util
import inspect
import io
import linecache
import logging
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxseg.arguments import expanded
from jaxseg.config.config_dict import GROUPS, AnyConfigDict, ConfigDict, KeyAccessError
from jaxseg.config.parser import CommandParser, add_experiment, experiment_of, split_overrides
from jaxseg.config.recipes import folder_config
from jaxseg.config.schema import FREE_FORM, KEYS, Key
from jaxseg.config.values import choose_length, default_config, flatten, parse_value, set_key, unknown_key, validate
from jaxseg.errors import ConfigError, JaxsegError, about_the_machine, first_line, nearest, printable, raise_together

_LOG = logging.getLogger(__name__)


def load_experiment(spec: str) -> ConfigDict:
    """Returns the configuration of `FILE[:ARG]`.

    Raises:
        ConfigError: if the file does not exist, is not a Python file, raises an error, or has no `get_config(arg)` that
            returns a configuration with exactly the known keys and values of the right types.
    """
    return load_file(spec)[1]


def load_file(spec: str) -> tuple[types.ModuleType, ConfigDict]:
    """Returns the experiment file `FILE[:ARG]` as a module, and its configuration; raises as `load_experiment` does."""
    path_text, _, arg = spec.partition(":")
    path = expanded(path_text)
    if not path.is_file():
        folders = {path.parent, Path("experiments")}
        near = [str(p) for folder in folders if folder.is_dir() for p in sorted(folder.glob("*.py"))]
        alone = [p for p in near if Path(p).stem == path.stem]
        if alone:
            raise ConfigError(f"There is no experiment file {path_text!r}. Did you mean {alone[0]!r}?")
        raise ConfigError(f"There is no experiment file {path_text!r}.{nearest(path_text, near) if near else ''}")
    module_spec = importlib.util.spec_from_file_location(f"jaxseg_experiment_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise ConfigError(f"{path_text} is not a Python file; --config takes FILE.py or FILE.py:ARG.")
    module = importlib.util.module_from_spec(module_spec)
    with blaming(path_text):
        module_spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise ConfigError(f"{path_text} defines no get_config(arg).")
        _check_signature(path_text, module.get_config)
        config = module.get_config(arg or None)
    if not isinstance(config, AnyConfigDict):
        raise ConfigError(f"get_config in {path_text} must return a ConfigDict, got {type(config).__name__}.")
    return module, _checked(f"get_config in {path_text}", config)


@contextlib.contextmanager
def blaming(path: str) -> Iterator[None]:
    """Turns any error in the experiment file `path` into a ConfigError that names the line."""
    try:
        yield
    except KeyAccessError as error:
        text = str(error)
        raise ConfigError(f"{path}{_place(Path(path), error)}: {text[0].lower()}{text[1:]}") from error
    except ConfigError:
        raise
    except JaxsegError as error:
        raise ConfigError(f"{path}{_place(Path(path), error)}: {error}") from error
    except SyntaxError as error:
        raise ConfigError(f"{path} is not valid Python, line {error.lineno}: {error.msg}.") from error
    except Exception as error:  # a user's file may raise anything
        raise ConfigError(f"{path}{_place(Path(path), error)}: {_reason(error)}") from error


def _check_signature(path: str, get_config: Any) -> None:
    try:
        inspect.signature(get_config).bind(None)
    except TypeError as error:
        raise ConfigError(f"get_config in {path} must take one argument: def get_config(arg=None).") from error


def _place(path: Path, error: Exception) -> str:
    """Returns ", line N (the source)" for the last line of the file that led to `error`; empty if there is none."""
    lines = [
        f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == path.resolve()
    ]
    if not lines or lines[-1] is None:
        return ""
    return f", line {lines[-1]} ({linecache.getline(str(path), lines[-1]).strip()})"


def _reason(error: Exception) -> str:
    """Returns the type and the first line of an error as one sentence."""
    first, name = first_line(error), type(error).__name__
    return f"{name}: {first}." if first != name else f"{name}."


def _checked(origin: str, config: AnyConfigDict) -> ConfigDict:
    """Checks that the config of `origin` has exactly the known keys, with the right types; locks and returns it."""
    flat, fresh = flatten(config), default_config()
    try:
        for key, value in flat.items():
            set_key(fresh, key, value)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from error
    missing = [key for key in KEYS if key not in flat and key not in FREE_FORM]
    if missing:
        raise ConfigError(f"{origin} must start from default_config(); it lacks the key {missing[0]}.")
    for key, value in flatten(fresh).items():
        if key in KEYS and key not in FREE_FORM and (flat[key] != value or type(flat[key]) is not type(value)):
            set_key(config, key, value)  # only where the type changes, to keep references between keys
    config.lock()
    return config if isinstance(config, ConfigDict) else ConfigDict(config)


def parse_overrides(config: ConfigDict, arguments: Sequence[str]) -> None:
    """Applies `--config.KEY=VALUE` arguments (also `--config.KEY VALUE`) to `config`.

    If they select a different encoder than `config`, its `model.args.encoder_args` are dropped, with a note.
    """
    apply_overrides(config, read_overrides(arguments))


def apply_overrides(config: ConfigDict, given: Sequence[tuple[str, Any]]) -> None:
    """Sets each (key, value) in `config`; see `parse_overrides` for the encoder's arguments.

    `epochs` replaces the steps of the experiment, and `steps` its epochs; both together raise ConfigError, and so do
    values of wrong types, with a line for each.
    """
    choose_length(config, given)
    _drop_encoder_args(config, given)
    raise_together(*(functools.partial(set_key, config, key, value) for key, value in given))


def configure(experiment: str | Path | AnyConfigDict, overrides: Mapping[str, Any]) -> ConfigDict:
    """Returns the valid configuration of an experiment with some keys changed, as the command line does.

    A training refuses a normalisation of images in [0, 255] when it starts a run, and not when it resumes one.

    Args:
        experiment: `FILE[:ARG]`, or a configuration, which is copied.
        overrides: {key: value}; `__` can replace the dot of a key, and text is parsed as on the command line.

    Raises:
        ConfigError: for anything wrong in the configuration.
    """
    if isinstance(experiment, AnyConfigDict):
        config = _checked("The configuration", experiment.copy_and_resolve_references())
    elif isinstance(experiment, str | Path):
        config = load_experiment(str(experiment))
    else:
        raise ConfigError(
            f"An experiment is FILE.py, FILE.py:ARG or a ConfigDict, got an object of type {type(experiment).__name__}."
        )
    apply_overrides(config, read_overrides(overrides))
    validate(config, trained=True)
    return config


def read_overrides(overrides: Sequence[str] | Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Returns (key, value) for each override, in order; text is parsed as the type of its key.

    Args:
        overrides: `--config.KEY=VALUE` arguments; or {key: value}, in which `__` can replace the dot of a key.

    Raises:
        ConfigError: for an argument of another form, or with a line for each unknown key.
    """
    if isinstance(overrides, Mapping):
        named = [(name.replace("__", "."), value) for name, value in overrides.items()]
        texts = [(key, str(value) if isinstance(value, Path) else value) for key, value in named]
        return [(key, parse_value(key, value) if isinstance(value, str) else value) for key, value in texts]
    rest, given, unknown = list(overrides), [], []
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
            unknown.append(unknown_key(key))
        given.append((key, parse_value(key, text)))
    if unknown:
        raise ConfigError("\n".join(dict.fromkeys(map(str, unknown))))
    return given


def _drop_encoder_args(config: ConfigDict, given: Sequence[tuple[str, Any]]) -> None:
    """Drops the encoder arguments of `config` if the overrides `given` select another encoder.

    Another encoder has different arguments, or uses the same names differently. Overrides of encoder arguments are set
    later.
    """
    args, keys = config.model.args, dict(given)
    named = keys["model.args.encoder"] if "model.args.encoder" in keys else None
    own = args["encoder"] if "encoder" in args else None
    if named in (None, own) or "encoder_args" not in args or "model.args" in keys:
        return
    left = args["encoder_args"]
    with args.unlocked():
        del args["encoder_args"]
    if "model.args.encoder_args" in keys or not isinstance(left, GROUPS):
        return
    dropped = [f"{key}={value}" for key, value in left.items() if f"model.args.encoder_args.{key}" not in keys]
    if dropped:
        _LOG.warning(
            "model.args.encoder_args of the experiment (%s) belong to its encoder%s and are dropped for %s",
            ", ".join(dropped),
            "" if own is None else f" {own}",
            named,
        )


def help_text() -> str:
    """Returns the list of all keys with default, meaning and expected values, for `--help`."""
    lines = [
        f"  --config.{name}={_show_default(key.default)}\n      {key.meaning}{_show_expected(key)}"
        for name, key in KEYS.items()
    ]
    return "keys of the configuration, with their defaults (an experiment file changes some):\n" + "\n".join(lines)


def _show_expected(key: Key) -> str:
    return "" if key.kind is None else f" [{key.expected}]"


def _show_default(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(str(v) for v in default) or "()"
    return str(default) if default != "" else "''"


def parse_command_line(
    argv: Sequence[str],
    program: str,
    description: str,
    add_options: Any = None,
    *,
    workdir: bool = True,
    data: bool = False,
) -> tuple[argparse.Namespace, ConfigDict]:
    """Parses `--config FILE[:ARG]`, `--workdir DIR` and `--config.KEY=VALUE`; returns the options and a valid config.

    The experiment file can also stand alone, without `--config`.

    Args:
        argv: the arguments after the program's name.
        program: how the program is called, for the usage line.
        description: one sentence for `--help`.
        add_options: called with the parser to add the command's own options.
        workdir: whether the command has a workdir. The run in it may have a normalisation of images in [0, 255]; see
            `configure`.
        data: whether a folder of images and masks may stand for an experiment, that of `recipes.folder_config`.

    Raises:
        ConfigError: for anything wrong in the configuration.
    """
    parser = CommandParser(
        prog=program,
        description=description,
        epilog=help_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_experiment(parser, data)
    if workdir:
        parser.add_argument("--workdir", metavar="DIR", default="", help="folder of the run (default runs/EXPERIMENT)")
    if add_options is not None:
        add_options(parser)
    words, overrides = split_overrides(argv)
    options, rest = parser.parse_known_args(words)
    options.config = experiment_of(parser, options)
    is_data = data and expanded(options.config).is_dir()
    config = folder_config(options.config) if is_data else load_experiment(options.config)
    parse_overrides(config, [*rest, *overrides])
    validate(config, trained=workdir)
    return options, config


@contextlib.contextmanager
def _notes() -> Iterator[None]:
    """Prints each log message of jaxseg once, as "note: ..."; other libraries' handlers do not repeat it."""
    logger, handler = logging.getLogger("jaxseg"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    said: set[str] = set()  # the variants of a sweep log the same messages
    handler.addFilter(lambda record: not ((text := record.getMessage()) in said or said.add(text)))
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def run_command(function: Callable[[], int]) -> int:
    """Runs the body of a command line and prints a `JaxsegError` as one sentence on stderr.

    Returns:
        The exit status: what `function` returns, 1 after an error, 130 after Ctrl-C as in shells.
    """
    # Names of classes and files may hold what the console's encoding lacks.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _notes():
            return function()
    except JaxsegError as error:
        print("\n".join(map(printable, f"error: {error}".split("\n"))), file=sys.stderr)
        return 1
    except Exception as error:
        sentence = about_the_machine(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
