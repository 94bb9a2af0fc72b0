"""Peers that tests compare with, as PyTorch models: each is skipped where it is not installed."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

_declared: list = []


def torch() -> ModuleType:
    """Returns torch with a fixed seed and one thread, or skips the test: the processes of the tests share the cores."""
    module = pytest.importorskip("torch")
    module.manual_seed(0)
    module.set_num_threads(1)
    return module


def torchvision() -> ModuleType:
    """Returns torchvision, or skips the test.

    Its compiled operators (for detection) may be built for another torch than the one installed; its models need none
    of them, only their names, which are declared first.
    """
    torch()
    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        pytest.skip("could not import 'torchvision'")
    _declare_operators(Path(spec.submodule_search_locations[0]))
    return pytest.importorskip("torchvision")


def smp() -> ModuleType:
    """Returns segmentation_models_pytorch, or skips the test."""
    torchvision()
    return pytest.importorskip("segmentation_models_pytorch")


def timm() -> ModuleType:
    """Returns timm, or skips the test."""
    torchvision()
    return pytest.importorskip("timm")


def transformers() -> ModuleType:
    """Returns transformers, or skips the test."""
    torchvision()
    return pytest.importorskip("transformers")


def _declare_operators(package: Path) -> None:
    import torch

    if _declared:
        return
    source = (package / "_meta_registrations.py").read_text(encoding="utf-8")
    names = set(re.findall(r"torchvision::(\w+)", source)) | set(re.findall(r'register_meta\("(\w+)"\)', source))
    _declared.append(torch.library.Library("torchvision", "FRAGMENT"))
    for name in names:
        if not hasattr(torch.ops.torchvision, name):
            _declared[0].define(f"{name}(...) -> Tensor")
