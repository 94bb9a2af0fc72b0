"""Wrong command lines: one sentence, and the nearest option where one is misspelt."""

import importlib

import pytest

from jaxseg import __main__ as cli
from jaxseg.config.parser import CommandParser, split_overrides

# A misspelt option of each command, and the right one.
MISSPELT = {
    "plan": ("--minuts", "--minutes"),
    "train": ("--wordkir", "--workdir"),
    "fit": ("--jsno", "--json"),
    "reproduce": ("--tolerence", "--tolerance"),
    "evaluate": ("--splitt", "--split"),
    "predict": ("--tile", "--tiles"),
    "report": ("--splits", "--split"),
    "compare": ("--ouput", "--out"),
    "crf": ("--spilt", "--split"),
    "explain": ("--methods", "--method"),
    "audit": ("--workdirs", "--workdir"),
    "propose": ("--numbr", "--number"),
    "export": ("--ouput", "--out"),
    "publish": ("--license", "--licence"),
    "quantise": ("--weight", "--weights"),
    "sweep": ("--seed", "--seeds"),
    "shrink": ("--channel", "--channels"),
    "models": ("--hlep", "--help"),
    "weaken": ("--kid", "--kind"),
    "convert": ("--formt", "--format"),
    "check": ("--image", "--images"),
}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_misspelt_option_is_named_with_the_nearest(name, capsys):
    wrong, right = MISSPELT[name]
    with pytest.raises(SystemExit) as end:
        importlib.import_module(cli.COMMANDS[name][0]).main([f"{wrong}=x"], f"jaxseg {name}")
    said = capsys.readouterr()
    assert end.value.code == 2 and said.out == ""
    assert said.err == (
        f"error: There is no option {wrong}. Did you mean {right!r}? jaxseg {name} --help describes the options.\n"
    )


def parser():
    made = CommandParser(prog="jaxseg try")
    made.add_argument("--which", choices=("best", "last"), required=True)
    made.add_argument("files", nargs="*")
    return made


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "The following arguments are required: --which"),
        (["--which", "bst"], "Argument --which: invalid choice: 'bst'"),
        (["--xyz123"], "There is no option --xyz123."),
        (["--whic", "best"], "Did you mean '--which'?"),  # an abbreviation is none
    ],
)
def test_errors_are_one_line_without_the_usage(words, sentence, capsys):
    with pytest.raises(SystemExit) as end:
        parser().parse_args(words)
    said = capsys.readouterr().err
    assert end.value.code == 2 and sentence in said and said.count("\n") == 1 and "usage" not in said
    assert said.endswith(" jaxseg try --help describes the options.\n")


def test_what_is_no_option_is_left_alone():
    options, rest = parser().parse_known_args(["--which", "best", "--config.data.dir=x", "--", "--odd-name.png"])
    assert options.files == ["--odd-name.png"] and "--config.data.dir=x" in rest


def test_overrides_among_words_that_are_no_options():
    words = ["a.png", "--config.data.dir", "DIR", "b.png", "--config.compile.cache=", "--out", "o", "--config.x", "--y"]
    others, overrides = split_overrides(words)
    assert others == ["a.png", "b.png", "--out", "o", "--y"]
    assert overrides == ["--config.data.dir", "DIR", "--config.compile.cache=", "--config.x"]
