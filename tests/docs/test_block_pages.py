"""The pages of docs/blocks: their code runs, and their costs, receptive fields and drawings are those of the blocks."""

import functools
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from helpers.parity import FAST_COMPILE

from jaxseg import nn
from jaxseg.models.ccnet import CrissCrossAttention
from jaxseg.models.summary import matrix_flops
from jaxseg.state import count_parameters

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "blocks").glob("*.md"))}
PICTURES = ROOT / "docs" / "images" / "blocks"
HEAD = "parameters | multiply-adds | at 64 | field |"


class Up(linen.Module):
    """A resize by two and a convolution."""

    features: int
    common: nn.Layers

    @linen.compact
    def __call__(self, x, *, train=False):
        x = nn.resize(x, (2 * x.shape[1], 2 * x.shape[2]), "nearest")
        return nn.ConvNormAct(self.features, common=self.common, name="conv")(x, train=train)


def own_branch(v):
    return nn.ResidualBlock(functools.partial(nn.ConvNormAct, v.c, common=v.common))


# The block of each row of the tables, from the letters of the pages, and the letters that are not 1 when it is counted.
CASES: dict[str, tuple[Callable[[Any], linen.Module], dict[str, int]]] = {
    "Conv(f, k, s, d, g)": (lambda v: nn.Conv(v.f, v.k, v.s, v.d, v.g), {"k": 5, "s": 2, "d": 2, "g": 2}),
    "ConvNormAct(f, k, s, d, g)": (
        lambda v: nn.ConvNormAct(v.f, v.k, v.s, v.d, v.g, common=v.common),
        {"k": 3, "s": 2, "d": 2, "g": 2},
    ),
    "ConvNormAct(f, k, s, d, separable=True)": (
        lambda v: nn.ConvNormAct(v.f, v.k, v.s, v.d, separable=True, common=v.common),
        {"k": 3, "s": 2, "d": 2},
    ),
    'StripConv(k, "row")': (lambda v: nn.StripConv(v.k, "row"), {"k": 5}),
    "ConvTranspose(f, s, s)": (lambda v: nn.ConvTranspose(v.f, v.s, v.s), {"s": 3}),
    "ConvTransposeNormAct(f, 3, 2)": (lambda v: nn.ConvTransposeNormAct(v.f, common=v.common), {}),
    "ConvTranspose(f, 4, 2)": (lambda v: nn.ConvTranspose(v.f, 4, 2), {}),
    "resize": (lambda v: Up(v.f, v.common), {"k": 3, "s": 2}),
    "SubPixelUp(f, s, k)": (lambda v: nn.SubPixelUp(v.f, v.s, v.k), {"k": 5, "s": 2}),
    "ASPP(f, rates)": (lambda v: nn.ASPP(v.f, (2, 3, 4), common=v.common), {"r": 3}),
    "PyramidPooling(f)": (lambda v: nn.PyramidPooling(v.f, common=v.common), {}),
    "SummedPyramidPooling(f)": (lambda v: nn.SummedPyramidPooling(v.f, common=v.common), {}),
    "DAPPM(f, m)": (lambda v: nn.DAPPM(v.f, v.m, common=v.common), {"h": 16, "m": 8}),
    "BasicBlock(c)": (lambda v: nn.BasicBlock(v.c, common=v.common), {}),
    "PreActBlock(c)": (lambda v: nn.PreActBlock(v.c, common=v.common), {}),
    "BottleneckBlock(c)": (lambda v: nn.BottleneckBlock(v.c, common=v.common), {}),
    "InvertedResidual(c, e)": (lambda v: nn.InvertedResidual(v.c, v.e, residual=True, common=v.common), {"e": 20}),
    "FusedInvertedResidual(c, e)": (
        lambda v: nn.FusedInvertedResidual(v.c, v.e, residual=True, common=v.common),
        {"e": 20},
    ),
    "ResidualBlock": (own_branch, {}),
    "BasicBlock(f, s)": (lambda v: nn.BasicBlock(v.f, v.s, common=v.common), {"s": 2}),
    "PreActBlock(f, s)": (lambda v: nn.PreActBlock(v.f, v.s, common=v.common), {"s": 2}),
    "SqueezeExcite": (lambda v: nn.SqueezeExcite(), {"m": 1}),
    "AttentionGate": (lambda v: nn.AttentionGate(), {"m": 8}),
    "MultiHeadAttention(n)": (lambda v: nn.MultiHeadAttention(v.n), {}),
    "SelfAttention2D(n)": (lambda v: nn.SelfAttention2D(v.n), {}),
    "WindowAttention(n, s)": (lambda v: nn.WindowAttention(v.n, v.s), {"s": 4}),
    "CrissCrossAttention": (lambda v: CrissCrossAttention(1), {"m": 2}),
}
PYRAMIDS = {"PyramidPooling(f)", "SummedPyramidPooling(f)"}
NEW_SHAPE = {"BasicBlock(f, s)", "PreActBlock(f, s)"}
WAYS_UP = {name for name in CASES if name.startswith("ConvTranspose")} | {"resize", "SubPixelUp(f, s, k)"}


def letters(name: str, **values: Any) -> SimpleNamespace:
    given = {"h": 12, "w": 16, "c": 16, "f": 24, "n": 4, **dict.fromkeys("ksdgrem", 1), **CASES[name][1], **values}
    return SimpleNamespace(common=nn.Layers(), **given, t=given["h"] * given["w"])


def at_64(name: str) -> SimpleNamespace:
    """The letters of the column "at 64", as the pages say them."""
    stride = 2 if name in NEW_SHAPE | WAYS_UP else 8 if name == "WindowAttention(n, s)" else 1
    inner = {"SqueezeExcite": 4, "AttentionGate": 32, "CrissCrossAttention": 8, "DAPPM(f, m)": 32}
    same = {"h": 64, "w": 64, "c": 64, "k": 3, "d": 1, "g": 1, "r": 3, "e": 6 * 64}
    return letters(name, **same, s=stride, f=128 if name in NEW_SHAPE else 64, m=inner[name] if name in inner else 0)


def inputs(name: str, v: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
    if name == "MultiHeadAttention(n)":
        return (jax.ShapeDtypeStruct((1, v.t, v.c), jnp.float32),)
    return (jax.ShapeDtypeStruct((1, v.h, v.w, v.c), jnp.float32),) * (2 if name == "AttentionGate" else 1)


def value(formula: str, v: Any) -> float:
    """A formula of the pages: a space between two factors is their product, and ² a square."""
    products = re.sub(r"(?<=[\w²)]) (?=[\w(])", " * ", formula.strip("`"))
    return eval(products.replace("²", "**2"), {"__builtins__": {}}, vars(v))


def rows() -> dict[str, list[str]]:
    """{the first code of a row: its cells} of the tables of costs."""
    found = {}
    for text in PAGES.values():
        for body in re.findall(rf"^\| block[^\n]*\| {re.escape(HEAD)}\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE):
            for line in body.splitlines():
                cells = [cell.strip() for cell in line.strip("|").split(" | ")]
                found[re.findall(r"`(.+?)`", cells[0])[0]] = cells
    return found


ROWS = rows()


def test_every_row_of_the_tables_is_counted():
    assert ROWS.keys() == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_parameters_and_multiply_adds_are_those_of_the_page(name):
    v = letters(name)
    block, given = CASES[name][0](v), inputs(name, v)
    variables = jax.eval_shape(block.init, jax.random.key(0), *given)
    program = jax.make_jaxpr(lambda variables, *given: block.apply(variables, *given))(variables, *given)
    _, parameters, products, shown, _ = ROWS[name]
    assert value(parameters, v) == count_parameters(variables["params"])
    found = list(matrix_flops(program.jaxpr))
    if name in PYRAMIDS:  # their means and resizing are products with matrices
        found = [(names, flops) for names, flops in found if names[-1] == "conv"]
    counted = sum(flops for _, flops in found)
    if name == 'StripConv(k, "row")':  # k products, k - 1 sums of them and one with the bias, no convolution
        counted = jax.jit(block.apply).lower(variables, *given).cost_analysis()["flops"]
    assert 2 * value(products, v) == pytest.approx(counted, rel=1e-4)
    of_64 = [round(value(formula, at_64(name))) for formula in (parameters, products)]
    assert shown == "; ".join(f"{number:,}" if number < 1e6 else f"{number / 1e6:.1f} M" for number in of_64)


def test_multiply_adds_are_half_of_the_operations_that_xla_counts():
    """Without padding, whose zeros XLA leaves out, and without a bias, whose sum it counts."""
    conv = nn.Conv(24, 3, padding=0, use_bias=False)
    x = jax.ShapeDtypeStruct((1, 12, 16, 16), jnp.float32)
    variables = jax.eval_shape(conv.init, jax.random.key(0), x)
    cost = jax.jit(conv.apply).lower(variables, x).cost_analysis()
    formula = ROWS["Conv(f, k, s, d, g)"][2]
    v = letters("Conv(f, k, s, d, g)", h=10, w=14, k=3, s=1, d=1, g=1)  # the pixels of the result
    assert cost["flops"] == pytest.approx(2 * value(formula, v), rel=1e-3)


def positive(tree: Any) -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.uniform(0.1, 0.3, leaf.shape).astype(np.float32), tree)


@pytest.fixture(scope="module")
def fields() -> dict[str, np.ndarray]:
    """bool[h,w] of each block: the pixels of the input that change the pixel (3, 3) of the result.

    Numbers above 0 everywhere keep each ReLU open and each sum from cancelling.
    """
    blocks, given = {}, {}
    for name, (build, _) in CASES.items():
        if name not in WAYS_UP | {"MultiHeadAttention(n)"}:
            v = letters(name, h=16, w=16, c=4, f=4)
            v.common = nn.Layers(norm=None)
            blocks[name] = build(v)
            shapes = inputs(name, v)
            variables = jax.eval_shape(blocks[name].init, jax.random.key(0), *shapes)
            given[name] = positive((variables, shapes))

    @functools.partial(jax.jit, compiler_options=FAST_COMPILE)
    def gradients(given):
        found = {}
        for name, block in blocks.items():
            variables, (x, *others) = given[name]

            def pixel(x, block=block, variables=variables, others=others):
                y = block.apply(variables, x, *others)
                return jnp.sum((y[0] if isinstance(y, tuple) else y)[0, 3, 3])

            found[name] = jnp.any(jax.grad(pixel)(x)[0] != 0, axis=-1)
        return found

    return jax.tree.map(np.asarray, gradients(given))


def test_receptive_fields_are_those_of_the_page(fields):
    for name, field in fields.items():
        stated, v = ROWS[name][4], letters(name)
        sides = [int(np.ptp(np.flatnonzero(field.any(axis)))) + 1 for axis in (1, 0)]
        if stated in ("the image", "a window", "row and column"):
            count = {"the image": field.size, "a window": v.s**2, "row and column": sum(field.shape) - 1}
            assert field.sum() == count[stated], name
        else:
            height, *width = (value(each, v) for each in re.findall(r"`.+?`", stated))
            assert sides == [height, *(width or [height])], name


@pytest.mark.parametrize("page", PAGES)
def test_the_snippets_of_a_page_run_as_written(page):
    snippets = re.findall(r"^```python\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)
    assert snippets
    exec("\n".join(snippets), {"__name__": page})


def test_what_a_shortcut_adds_is_that_of_the_page():
    x = jax.ShapeDtypeStruct((1, 4, 4, 6), jnp.float32)

    def parameters(block, form):
        unit = block(6, shortcut=form, common=nn.Layers())
        return count_parameters(jax.eval_shape(unit.init, jax.random.key(0), x)["params"])

    table = PAGES["residual"].partition("| `shortcut` |")[2].partition("\n\n")[0]
    stated = [line.strip("|").split(" | ") for line in table.splitlines()[2:]]
    forms = {form: cells[3:5] for cells in stated for form in re.findall(r"`(\w+)`", cells[0])}
    assert set(forms) == set(nn.SHORTCUTS)
    for form, adds in forms.items():
        for block, formula in zip((nn.BasicBlock, nn.PreActBlock), adds):
            added = parameters(block, form) - parameters(block, "identity")
            assert added == value(formula.strip(), SimpleNamespace(c=6)), (form, block)


def test_the_drawings_are_those_of_the_script_and_lie_inside_their_panels():
    drawings = runpy.run_path(str(ROOT / "docs" / "blocks" / "drawings.py"))["DRAWINGS"]
    assert {path.stem for path in PICTURES.iterdir()} == drawings.keys()
    for name, draw in drawings.items():
        drawing = draw()
        assert (PICTURES / f"{name}.svg").read_text(encoding="utf-8") == drawing.svg(), "run docs/blocks/drawings.py"
        assert sum(f"(../images/blocks/{name}.svg)" in text for text in PAGES.values()) == 1
        for shape in ElementTree.fromstring(drawing.svg()).iter("{http://www.w3.org/2000/svg}rect"):
            left, top, width, height = (float(shape.attrib[key]) for key in ("x", "y", "width", "height"))
            assert left >= 0 and top >= 0, name
            assert left + width <= drawing.width and top + height <= drawing.height, name
        for text in ElementTree.fromstring(drawing.svg()).iter("{http://www.w3.org/2000/svg}text"):
            assert 0 < float(text.attrib["x"]) < drawing.width and 10 < float(text.attrib["y"]) < drawing.height - 5


def test_the_network_of_the_notebook_has_thirty_lines_and_takes_any_size():
    text = (ROOT / "docs" / "notebooks" / "blocks.py").read_text(encoding="utf-8")
    [code] = [cell for cell in re.split(r"^# %%.*\n", text, flags=re.MULTILINE) if "class Segmenter" in cell]
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    names = {"jax": jax, "jnp": jnp, "linen": linen, "nn": nn}
    exec(code, names)
    image = jax.ShapeDtypeStruct((2, 13, 22, 3), jnp.float32)
    for fields in ({}, {"shortcut": "none"}, {"gate": True}):
        network = names["Segmenter"](5, widths=(4, 8), units=1, **fields)
        (logits, out), _ = jax.eval_shape(
            lambda network=network: network.init_with_output(jax.random.key(0), jnp.zeros(image.shape), train=True)
        )
        assert logits.shape == (2, 13, 22, 5) and out["aux"] == ()
