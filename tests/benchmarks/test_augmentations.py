"""The picture of the augmentations has a panel of each."""

import importlib

import pytest

from jaxseg.config import KEYS


def test_the_picture_has_a_panel_of_each_augmentation():
    pytest.importorskip("matplotlib")
    settings = importlib.import_module("augmentations").SETTINGS
    keys = {name.removeprefix("augment.") for name in KEYS if name.startswith("augment.")}
    assert {key for changes in settings.values() for key in changes} <= keys
    details = {key for key in keys if any(key.startswith(f"{other}_") for other in keys)} | {"rand_magnitude"}
    assert {next(iter(changes)) for changes in settings.values() if changes} == keys - details
