"""The command `jaxseg`: what it lists, how it starts its commands, and what it answers to wrong words."""

import importlib
import inspect
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers.tiny_run import make_run, tiny_config

import jaxseg
from jaxseg import __main__ as cli

ROOT = Path(__file__).parent.parent


def test_help_lists_every_command_in_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 0 and lines[0] == "usage: jaxseg COMMAND [ARGUMENT ...]"
    for name, (_, what) in cli.COMMANDS.items():
        assert [line.split(maxsplit=1) for line in lines if line.startswith(f"  {name} ")] == [[name, what]]


def test_without_a_command_it_prints_its_help_and_fails(capsys):
    assert cli.main([]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "evaluate" in said.err


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("trian", "There is no command 'trian'. Did you mean 'train'?"),
        ("eval", "There is no command 'eval'. Did you mean 'evaluate'?"),
        (
            "xyz",
            "There is no command 'xyz'. Known: audit, check, crf, evaluate, explain, export, fit, models, predict, "
            "propose, publish, quantise, reproduce, shrink, sweep, train, weaken.",
        ),
    ],
)
def test_an_unknown_command_is_answered_with_the_nearest(capsys, word, answer):
    assert cli.main([word, "--config", "x.py"]) == 2
    assert capsys.readouterr().err == f"error: {answer}\n"


def test_an_unknown_option_is_refused(capsys):
    assert cli.main(["--verison"]) == 2
    assert capsys.readouterr().err == "error: There is no option --verison. Did you mean '--version'?\n"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_says_how_it_was_called(capsys, name):
    module = importlib.import_module(cli.COMMANDS[name][0])
    of_module = f"python -m {cli.COMMANDS[name][0].removesuffix('.__main__')}"
    assert inspect.signature(module.main).parameters["program"].default == of_module
    for main, arguments, program in ((cli.main, [name], f"jaxseg {name}"), (module.main, [], of_module)):
        with pytest.raises(SystemExit) as end:
            main([*arguments, "--help"])
        assert end.value.code == 0 and capsys.readouterr().out.startswith(f"usage: {program} [-h]")


@pytest.mark.parametrize(
    ("words", "first"),
    [(["help"], "usage: jaxseg COMMAND"), (["help", "predict"], "usage: jaxseg predict [-h]")],
)
def test_help_is_a_word_too(capsys, words, first):
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 0 and capsys.readouterr().out.startswith(first)
    assert cli.main(["help", "predicts"]) == 2
    assert "Did you mean 'predict'?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["trian"]])
def test_it_answers_without_importing_jax(arguments):
    code = (
        "import sys\nfrom jaxseg.__main__ import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        "print(sorted({'jax', 'numpy', 'ml_collections'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version_is_written_once_and_told_by_the_program():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"] and project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "jaxseg.__version__"}
    assert project["project"]["scripts"] == {"jaxseg": "jaxseg.__main__:main"}
    run = [sys.executable, "-m", "jaxseg", "--version"]
    assert subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout == (
        f"jaxseg {jaxseg.__version__}\n"
    )


def test_an_editable_install_puts_the_checkout_on_the_path():
    """Only then `import jaxseg` finds the package in the folder that contains a checkout named jaxseg."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["package-dir"] == {"": "."}


def test_the_types_travel_with_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["package-data"]["jaxseg"] == ["py.typed", "propose/review.html"]
    assert (ROOT / "jaxseg" / "py.typed").is_file() and (ROOT / "jaxseg" / "propose" / "review.html").is_file()


def test_a_command_gets_its_arguments_and_gives_its_status(tmp_path, capsys):
    workdir = make_run(tmp_path / "run", tiny_config())
    assert cli.main(["evaluate", "--workdir", str(workdir), "--split", "test"]) == 0
    assert "5 images" in capsys.readouterr().out
    assert json.loads((workdir / "evaluate-test.json").read_text())["split"] == "test"
    assert cli.main(["evaluate", "--workdir", str(tmp_path / "none")]) == 1
    assert "does not exist" in capsys.readouterr().err
