"""Rules rename the entries of a foreign file and lay their arrays out as ours."""

import itertools
import random
import re

import numpy as np
import pytest

from jaxseg import pretrained
from jaxseg.pretrained import Rule, layer
from jaxseg.pretrained import rules as rules_
from jaxseg.pretrained.rules import finder, names_of


def test_rules_rename_and_list_the_names_that_they_do_not_know():
    rules = [
        *pretrained.prefixed(
            [*pretrained.layer(r"layer(\d+)\.conv", "stage{1}/conv"), *pretrained.norm(r"bn(?P<n>\d)", "norm{n}")],
            r"(?:net|model)\.",
            "encoder",
        ),
        Rule(r"net\.qkv", ("params/q", "params/k"), lambda x: np.split(x, 2)),
        Rule(r"fc\..*", None),
    ]
    state = {
        "net.layer2.conv.weight": np.arange(24.0).reshape(1, 2, 3, 4),
        "model.bn1.running_var": np.ones(2),
        "net.bn1.num_batches_tracked": np.array(3),
        "fc.bias": np.ones(1),
        "net.qkv": np.arange(4),
    }
    given = pretrained.convert(state, rules)
    assert set(given) == {
        "params/encoder/stage2/conv/kernel",
        "batch_stats/encoder/norm1/var",
        "params/q",
        "params/k",
    }
    kernel = given["params/encoder/stage2/conv/kernel"]
    assert kernel.shape == (3, 4, 2, 1) and kernel[1, 2, 1, 0] == state["net.layer2.conv.weight"][0, 1, 1, 2]
    assert given["params/k"].tolist() == [2, 3]
    with pytest.raises(ValueError, match=r"No rule knows 1 entry of the file: net\.layerx\.conv\.weight"):
        pretrained.convert({**state, "net.layerx.conv.weight": np.ones(1)}, rules)
    with pytest.raises(ValueError, match=r"Both 'model\.bn1\.running_var' and 'net\.bn1\.running_var' lead to"):
        pretrained.convert({**state, "net.bn1.running_var": np.ones(2)}, rules)


def test_arrays_with_another_number_of_axes_are_listed():
    state = {"a.weight": np.zeros((3, 4)), "b.weight": np.zeros(()), "c.weight": np.zeros((2, 1, 3, 3))}
    with pytest.raises(ValueError, match=r"^The shape of 2 entries .* of the layer: a.weight \(3x4\), b.weight \(a s"):
        pretrained.convert(state, layer(r"(\w)", "{1}"))


def test_the_first_rule_that_matches_is_found_among_names_and_patterns():
    listed = [
        Rule(r"b\.w", "params/0"),
        Rule(r"(a|b)\.(\w)", "params/1"),
        Rule(r"a\.w", "params/2"),
        Rule(r"bxw", None),
    ]
    find = finder(listed)
    for name, place in (("b.w", 0), ("a.w", 1), ("b.x", 1), ("bxw", 3), ("c.w", None), ("b.w.", None), ("", None)):
        found = find(name)
        assert (None if found is None else listed.index(found[1])) == place, name
        expected = next(((re.fullmatch(r.pattern, name), r) for r in listed if re.fullmatch(r.pattern, name)), None)
        assert (found and (found[0].groups(), found[1])) == (expected and (expected[0].groups(), expected[1]))


def test_the_names_of_a_pattern_are_those_it_matches():
    def draw(depth):
        parts = []
        for _ in range(source.randint(0, 2)):
            kind = source.randrange(4)
            if kind < 2 or not depth:
                parts.append(source.choice(("a", "b", r"\.", "a?", r"\.?")))
            else:
                begin = source.choice(("(", "(?:"))
                parts.append(begin + draw(depth - 1) + ")" + "?" * (kind == 2))
        return "".join(parts) + ("|" + draw(depth) if source.randrange(4) == 0 else "")

    source = random.Random(0)
    words = ["".join(letters) for n in range(7) for letters in itertools.product("ab.", repeat=n)]
    for _ in range(100):
        pattern = draw(2)
        names, compiled = names_of(pattern), re.compile(pattern)
        assert names is not None and set(names) >= {word for word in words if compiled.fullmatch(word)}, pattern
        assert all(compiled.fullmatch(name) for name in names), pattern


OTHERS = (r"a.b", r"a+", r"\d", r"(a)\1", r"a??b", r"a(?=b)", r"(?i:a)", r"[ab]", r"a{2}", r"a\\", r"(?P<n>a)")


@pytest.mark.parametrize("pattern", [*OTHERS, "(a|b)" * 7, "|".join("ab" * 33)])
def test_a_pattern_of_many_names_or_other_parts_is_compared(pattern):
    assert names_of(pattern) is None


@pytest.mark.parametrize("pattern", ["(a", "a)", "a)(b", "?", "a|?", "(?)", "(?:?a)", "(?P<1>a)"])
def test_what_is_no_regular_expression_is_an_error(pattern):
    with pytest.raises(re.error):
        finder([Rule(pattern, None)])


def test_names_with_a_choice_are_looked_up(monkeypatch):
    compiled = []
    monkeypatch.setattr(rules_, "_compiled", lambda pattern: compiled.append(pattern) or re.compile(pattern))
    rules = [Rule(rf"(?:model\.)?block{i}\.(weight|bias)", f"params/{i}/{{1}}") for i in range(2000)]
    find = finder(rules)
    match, rule = find("model.block7.bias") or pytest.fail("No rule was found.")
    assert match.groups() == ("bias",) and rule is rules[7] and find("model.block7.scale") is None
    assert compiled == [rules[7].pattern]
