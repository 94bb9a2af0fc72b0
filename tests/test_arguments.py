"""Arguments are checked against annotations: one sentence for an invalid value; lists and whole numbers convert."""

import pwd
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from helpers.tiny_training import ROOT

from jaxseg.arguments import (
    BelowOne,
    Count,
    Finite,
    NotNegative,
    Positive,
    Share,
    Where,
    above,
    annotations,
    check,
    check_value,
    checked,
    describe,
    expanded,
    located,
    one_or_more,
    within,
)
from jaxseg.errors import ArgumentError, ConfigError, JaxsegError, printable

PAIR = Annotated[tuple[float, ...], Where(lambda v: len(v) == 2 and v[0] <= v[1], instead="(low, high)")]


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (int, 3, 3),
        (float, 3, 3.0),
        (bool, True, True),
        (str, "a", "a"),
        (Any, [1, [2]], (1, (2,))),
        (tuple, [1, [2]], (1, (2,))),
        (Count, 1, 1),
        (Share | None, None, None),
        (Share | None, 1, 1.0),
        (float | int, 2, 2),
        (Literal["a", 2], 2, 2),
        (tuple[int, ...], [], ()),
        (tuple[float, float], [1, 2.5], (1.0, 2.5)),
        (tuple[tuple[int, int], ...], [[1, 2], [3, 4]], ((1, 2), (3, 4))),
        (PAIR, [1, 2], (1.0, 2.0)),
        (Callable[[int], int], abs, abs),
        (Mapping[str, Any], {"a": 1}, {"a": 1}),
        (Sequence[float], [1], [1]),
        (Annotated[int, within(0, 4)], 4, 4),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # hints hold functions, whose text has addresses
)
def test_valid_values_get_the_type_of_the_annotation(hint, value, expected):
    result = check_value("x", value, hint)
    assert result == expected and type(result) is type(expected)


@pytest.mark.parametrize(
    ("hint", "value", "words"),
    [
        (int, True, "a whole number"),
        (int, 1.0, "a whole number"),
        (float, "1", "a number"),
        (float, False, "a number"),
        (bool, 1, "True or False"),
        (str, 1, "text"),
        (Count, 0, "a whole number of at least 1"),
        (Count, "a", "a whole number of at least 1"),
        (Share, 1.5, "a number in [0, 1]"),
        (Share, float("nan"), "a number in [0, 1]"),
        (BelowOne, 1.0, "a number in [0, 1)"),
        (Positive, 0, "a number above 0"),
        (NotNegative, float("inf"), "a number of at least 0"),
        (Finite, float("inf"), "a finite number"),
        (Share | None, "a", "a number in [0, 1] or None"),
        (Literal["a", "b"], "c", "one of 'a', 'b'"),
        (Literal[1, 2], True, "one of 1, 2"),
        (tuple[int, ...], 3, "a tuple of whole numbers"),
        (tuple[float, float], (1.0,), "a tuple of 2 numbers"),
        (tuple[tuple[str, ...], ...], ("a",), "a tuple of tuples of words"),
        (tuple[Share, ...], (0.5, 2.0), "a tuple of numbers in [0, 1]"),
        (PAIR, (2, 1), "(low, high)"),
        (Annotated[tuple[int, ...], one_or_more("whole numbers")], (), "a tuple of one or more whole numbers"),
        (Annotated[int, above(-1), within(-5, 5)], -1, "a whole number above -1 in [-5, 5]"),
        (Callable[[int], int], 3, "a callable"),
        (Mapping[str, Any], 3, "a mapping"),
        (None, 3, "None"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # hints hold functions, whose text has addresses
)
def test_an_invalid_value_is_one_sentence(hint, value, words):
    assert describe(hint) == words
    with pytest.raises(ArgumentError) as caught:
        check_value("part.x", value, hint)
    assert str(caught.value) == f"part.x must be {words}, got {value!r}."
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, JaxsegError)


def test_the_nearest_choice_is_named():
    with pytest.raises(ArgumentError, match=r"must be one of 'jit', 'pmap', got 'jti'\. Did you mean 'jit'\?"):
        check_value("strategy", "jti", Literal["jit", "pmap"])


def test_the_type_alone_leaves_conditions_of_the_value_out_but_not_those_of_its_elements():
    assert check_value("x", -1, Count, type_only=True) == -1
    assert check_value("x", "c", Literal["a", "b"], type_only=True) == "c"
    assert check_value("x", (2, 1), PAIR, type_only=True) == (2.0, 1.0)
    with pytest.raises(ArgumentError, match="a tuple of numbers in"):
        check_value("x", (2,), tuple[Share, ...], type_only=True)


def example(a: int, b: Share = 0.5, *, size: tuple[int, ...] = (), name: Literal["x", "y"] = "x"):
    """Returns its arguments."""
    return a, b, size, name


def test_a_checked_function_converts_and_refuses():
    function = checked(example)
    assert function(1, 1, size=[2, 3]) == (1, 1.0, (2, 3), "x")
    assert type(function(1, 1)[1]) is float
    assert (function.__name__, function.__doc__) == ("example", example.__doc__)
    with pytest.raises(ArgumentError, match=r"^b must be a number in \[0, 1\], got 2\.$"):
        function(1, b=2)
    with pytest.raises(ArgumentError, match="name must be one of 'x', 'y'"):
        function(1, name="z")
    with pytest.raises(TypeError, match="unexpected keyword argument 'c'"):
        function(1, c=2)


def test_options_of_a_function_by_name():
    hints = annotations(example)
    assert list(hints) == ["size", "name"]
    assert check("example", {"size": [1]}, hints) == {"size": (1,)}
    with pytest.raises(ArgumentError, match=r"^part\.sise is not an argument of example\. Did you mean 'size'\?$"):
        check("example", {"sise": [1]}, hints, prefix="part.")
    with pytest.raises(ArgumentError, match=r"part\.name must be one of"):
        check("example", {"name": 3}, hints, prefix="part.")


def test_a_home_folder_is_found_or_missed_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/a/b") == tmp_path / "a/b" and expanded("a/~/b") == Path("a/~/b")
    assert expanded("~no-such-user.png") == Path("~no-such-user.png")  # a file may have this name
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", dict[int, object]().__getitem__)  # as in a container run with --user 12345
    with pytest.raises(ConfigError, match=r"~/a begins with ~, but this user has no home folder"):
        expanded("~/a")


def test_a_relative_path_is_named_with_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert located("a/b") == f"'a/b' (relative to {tmp_path}, the folder of this command)"
    assert located(tmp_path / "a") == f"'{tmp_path}/a'"


def test_paths_of_users_are_expanded_in_one_place():
    found = [p for p in (ROOT / "jaxseg").rglob("*.py") if ".expanduser(" in p.read_text(encoding="utf-8")]
    assert found == [ROOT / "jaxseg" / "arguments.py"]


def test_text_without_control_characters():
    assert (
        printable("caf\u00e9 \u200d $a$ | \x1b[31m\n\udce9\u2028 \u0641\u202eb")
        == "caf\u00e9 \u200d $a$ | \\x1b[31m\\n\\udce9\\u2028 \u0641\\u202eb"
    )
