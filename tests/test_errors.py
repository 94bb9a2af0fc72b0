"""Parts of messages."""

import ast
import itertools
import re
from pathlib import Path

import pytest

import jaxseg
from jaxseg.errors import counted, nearest
from jaxseg.models.encoders import ENCODERS


@pytest.mark.parametrize(
    ("number", "word", "expected"),
    [
        (1, "image", "1 image"),
        (0, "image", "0 images"),
        (3, "other size", "3 other sizes"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (2, "entry", "2 entries"),
        (1.0, "epoch", "1 epoch"),
        (2.5, "epoch", "2.5 epochs"),
    ],
)
def test_a_number_and_its_word_agree(number: float, word: str, expected: str) -> None:
    assert counted(number, word) == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("swin_tiny_patch4_window7_224", "swin_tiny"),  # less than half of it, which is the least for a likeness
        ("timm/swinv2_base_window12to24_192to384.ms_in22k_ft_in1k", "swinv2_base"),
        ("vit_base_patch14_dinov2.lvd142m", "vit_base_dinov2"),  # nearer than vit_base, with which it begins
        ("vgg16_bn.tv_in1k_and_whatever_else_follows", "vgg16_bn"),  # longer than vgg16
    ],
)
def test_a_name_of_timm_is_answered_with_that_of_the_encoder(word: str, expected: str) -> None:
    assert nearest(word, ENCODERS) == f" Did you mean {expected!r}?"
    assert nearest("swinish_thing_of_another_kind_altogether", ENCODERS) == ""


def test_no_message_has_a_length_before_a_plural() -> None:
    """`{len(names)} classes` reads "1 classes" for one of them; `counted` writes both numbers right."""
    plural = re.compile(r" ([a-z]+ )?(?!(is|has|was|as|less)\b)[a-z]+s\b")
    wrong = []
    for file in sorted(Path(jaxseg.__file__).parent.rglob("*.py")):
        texts = [n for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(n, ast.JoinedStr)]
        for value, text in (pair for node in texts for pair in itertools.pairwise(node.values)):
            follows = str(text.value) if isinstance(text, ast.Constant) else ""
            shown = ast.unparse(value.value) if isinstance(value, ast.FormattedValue) else ""
            if shown.startswith("len(") and plural.match(follows):
                wrong.append(f"{file.name}: {{{shown}}}{follows}")
    assert wrong == []
