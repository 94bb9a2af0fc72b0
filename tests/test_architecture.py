"""The house rules of the package: who may import whom, what importing costs, how long a file may be."""

import ast
import functools
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.floors import ROWS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "jaxseg"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = {part: number for number, row in enumerate(ROWS) for part in row}
# These work in anybody's script: nothing of ours but each other, nothing of others but these.
PURE = {
    "nn.ops",
    "nn",
    "models",
    "losses",
    "metrics",
    "objective",
    "state",
    "step",
    "adversarial",
    "tuning",
    "distillation",
    "consistency",
    "mixing",
}
PURE_THIRD_PARTY = {"jax", "flax", "optax", "numpy"}
# What only some parts may import.
FILE_LIBRARIES = {
    "ml_collections",
    "grain",
    "tensorflow_datasets",
    "tensorflow",
    "array_record",
    "orbax",
    "etils",
    "absl",
    "PIL",
    "matplotlib",
    "tensorboardX",
    "tqdm",
    "rich",
    "scipy",
    "skimage",
    "safetensors",
    "huggingface_hub",
    "onnx",
}
# Parts that may import some of them, or any.
FILE_PARTS = {
    "pictures",
    "data",
    "run",
    "inference",
    "explain",
    "audit",
    "propose",
    "pages",
    "report",
    "train",
    "evaluate",
    "predict",
    "data.check",
    "sweep",
}
FILE_LIBRARIES_OF = {"config": {"ml_collections"}, "export": {"onnx"}, "pretrained": {"safetensors", "huggingface_hub"}}
# `import jaxseg` and `from jaxseg import __version__` ask where the package lies and which it is, and load nothing.
FACTS = {"jaxseg", "jaxseg.__version__"}
MAX_LINES = 350


def module_of(path: Path) -> str:
    """Returns "nn.conv" for jaxseg/nn/conv.py, "nn" for jaxseg/nn/__init__.py and "" for jaxseg/__init__.py."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


def part_of(module: str) -> str:
    """Returns the part of ROWS that a module, or a name inside one, belongs to."""
    names = module.split(".")
    prefixes = [".".join(names[:end]) for end in range(len(names), 0, -1)]
    return next((prefix for prefix in prefixes if prefix in FLOORS), names[0])


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports_of(path: Path) -> frozenset[str]:
    """Returns every module that a file imports anywhere, in functions too, with absolute dotted names."""
    tree = parsed(path)
    package = ["jaxseg", *path.relative_to(PACKAGE).parent.parts]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from jaxseg import nn` imports jaxseg.nn; `from jaxseg.types import Batch` is left as jaxseg.types.Batch.
            found |= {f"{module}.{alias.name}" for alias in node.names} if module.startswith("jaxseg") else {module}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            first = node.args[0]
            if isinstance(first, ast.JoinedStr) and isinstance(first.values[0], ast.Constant):
                first = first.values[0]
            if isinstance(first, ast.Constant) and str(first.value).startswith("jaxseg"):
                found.add(str(first.value).rstrip("."))
    return frozenset(found)


def own_imports(path: Path) -> set[str]:
    """Returns the parts of ROWS that a file imports from."""
    names = {name.removeprefix("jaxseg.") for name in imports_of(path) - FACTS if _is_ours(name)}
    return {part_of(name) if part_of(name) in FLOORS else "" for name in names}


def third_party(path: Path) -> set[str]:
    """Returns the top names of the packages that a file imports, ours and the standard library's left out."""
    tops = {name.split(".")[0] for name in imports_of(path) if not _is_ours(name)}
    return tops - set(sys.stdlib_module_names)


def _is_ours(name: str) -> bool:
    return name == "jaxseg" or name.startswith("jaxseg.")


def test_every_file_has_a_floor_and_imports_only_from_floors_below():
    wrong = []
    for path in FILES:
        part, name = part_of(module_of(path)), path.relative_to(ROOT)
        if part not in FLOORS:
            wrong.append(f"{name} stands on no floor: tests/helpers/floors.py and docs/architecture.md list them")
            continue
        above = [other for other in own_imports(path) - {part} if FLOORS[other] >= FLOORS[part]]
        wrong += [f"{name} imports {other}, which does not lie below it" for other in above]
    assert not wrong, "\n".join(wrong)


def test_commands_are_no_libraries_but_for_the_training():
    commands = (
        "evaluate",
        "compare",
        "report.__main__",
        "predict",
        "crf",
        "data.check",
        "data.weaken",
        "models.__main__",
        "explain.__main__",
        "export.__main__",
        "sweep.__main__",
        "__main__",
    )
    for path in FILES:
        for imported in imports_of(path):
            module = imported.removeprefix("jaxseg.")
            assert not any(module == c or module.startswith(f"{c}.") for c in commands), f"{path.name}: {imported}"


def test_no_circle_of_files_inside_a_package():
    modules = {module_of(path): path for path in FILES}
    arrows = {}
    for name, path in modules.items():
        targets = set()
        for imported in imports_of(path):
            target = imported.removeprefix("jaxseg").removeprefix(".")
            while target and target not in modules:  # `from jaxseg.types import Batch` is jaxseg.types.Batch
                target = target.rpartition(".")[0]
            # A package's face imports its files; a file that imports from the face of its own package is a circle.
            if _is_ours(imported) and target != name and imported not in FACTS:
                targets.add(target)
        arrows[name] = targets
    for start in arrows:
        circle = circle_through(start, arrows)
        assert not circle, "a circle: " + " -> ".join(circle)


def circle_through(start: str, arrows: dict[str, set[str]]) -> list[str]:
    """Returns the shortest way along `arrows` from `start` back to it, or [] where there is none."""
    ways, seen = [[start]], set()
    for way in ways:
        for target in sorted(arrows[way[-1]]):
            if target == start:
                return [*way, start]
            if target not in seen:
                seen.add(target)
                ways.append([*way, target])
    return []


def test_circles_are_found():
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert circle_through("b", arrows) == ["b", "c", "b"]
    assert circle_through("a", arrows) == circle_through("d", arrows) == []


def test_third_party_packages_stay_on_the_floors_that_may_use_them():
    wrong = []
    for path in FILES:
        part, used, refused = part_of(module_of(path)), third_party(path), set()
        if part in PURE:
            ours = PURE | {"types", "errors", "arguments", "sets"}
            refused = used - PURE_THIRD_PARTY | own_imports(path) - ours
        elif part not in FILE_PARTS:
            allowed = FILE_LIBRARIES_OF[part] if part in FILE_LIBRARIES_OF else set()
            refused = used & (FILE_LIBRARIES - allowed)
        wrong += [f"{path.relative_to(ROOT)} imports {name}" for name in sorted(refused)]
    assert not wrong, "\n".join(wrong)


def test_third_party_packages_are_declared():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {
        "tensorflow_datasets": "tensorflow-datasets",
        "orbax": "orbax-checkpoint",
        "PIL": "pillow",
        "absl": "absl-py",
        "imageio_ffmpeg": "imageio-ffmpeg",
        "skimage": "scikit-image",
    }
    extras = project["optional-dependencies"]
    optional = (extras[name] for name in ("images", "video", "regions", "export", "search") if name in extras)
    required = [*project["dependencies"], *itertools.chain.from_iterable(optional)]
    declared = {requirement.replace(">", "=").split("=")[0].strip() for requirement in required}
    used = set().union(*(third_party(path) for path in FILES))
    assert {names[name] if name in names else name for name in used} <= declared


def test_files_are_short_and_named_for_what_they_hold():
    assert not [path for path in FILES if path.name == "utils.py"]
    lines = {path.relative_to(ROOT): path.read_text(encoding="utf-8").count("\n") for path in FILES}
    long = [f"{name} has {count} lines: split it" for name, count in lines.items() if count > MAX_LINES]
    assert not long, "\n".join(long)


def test_no_lookup_with_a_silent_default():
    found = []
    for path in FILES:
        calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
        gets = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "get"]
        # x.at[i].get() of JAX hides nothing, nor does waiting for a queue by its only argument `timeout`.
        gets = [call for call in gets if call.args or [given.arg for given in call.keywords] != ["timeout"]]
        wrong = [call for call in gets if not ast.unparse(call.func.value).rpartition("[")[0].endswith(".at")]
        found += [f"{path.relative_to(ROOT)}:{call.lineno} hides a missing key behind .get(" for call in wrong]
    assert not found, "\n".join(found)


LIGHT = ("jaxseg", "jaxseg.config", "jaxseg.data", "jaxseg.models", "jaxseg.pretrained", "jaxseg.step")


@pytest.fixture(scope="module")
def loaded_by():
    """{module: heavy modules that are loaded once it and those of LIGHT before it are}, from one process."""
    heavy = ("tensorflow_datasets", "tensorflow", "matplotlib", "scipy", "grain", "torch", "safetensors")
    heavy += ("huggingface_hub",)
    code = (
        "import importlib, json, sys\n"
        "loaded = {}\n"
        f"for module in {(*LIGHT, 'jaxseg.train')!r}:\n"
        "    importlib.import_module(module)\n"
        "    loaded[module] = set(sys.modules)\n"
        "from jaxseg.models import MODELS\n"
        f"heavy = {{*{heavy!r}, *(f'jaxseg.models.{{name}}' for name in MODELS)}}\n"
        "print(json.dumps({module: sorted(names & heavy) for module, names in loaded.items()}))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


@pytest.mark.parametrize("module", LIGHT)
def test_importing_is_light(module, loaded_by):
    assert loaded_by[module] == []


def test_a_training_starts_without_what_few_trainings_need(loaded_by):
    assert loaded_by["jaxseg.train"] == ["grain"]


def test_the_rules_are_able_to_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "nn").mkdir()
    file = tmp_path / "nn" / "conv.py"
    file.write_text(
        "import numpy as np\nfrom jaxseg import models\nfrom ..types import Array\nfrom . import norm\n"
        "def f():\n    from PIL import Image\n    import jaxseg.data.check\n"
        "    importlib.import_module(f'jaxseg.step')\n"
    )
    assert own_imports(file) == {"models", "types", "nn", "data.check", "step"}
    assert third_party(file) == {"numpy", "PIL"}
