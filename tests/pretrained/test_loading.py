"""Weights of a file in a network: renamed and merged; notes say what was done, errors list what does not fit."""

import functools
import hashlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracles
from helpers.tiny_weights import assert_equal, network, save

from jaxseg import models, pretrained
from jaxseg.errors import WeightsError
from jaxseg.pretrained import Rule, catalogue, resnet
from jaxseg.pretrained.family import Family, NetworkFormat


def test_only_kernels_that_see_the_image_are_adapted(tmp_path):
    _, rgb = network()
    _, gray = network(channels=1, seed=1)
    loaded = pretrained.load(gray, save(tmp_path / "x.npz", rgb), encoder="residual", channels=1)
    first = [path for path, x in pretrained.flatten(rgb).items() if x.ndim == 4 and x.shape[2] == 3]
    assert [note.split()[1] for note in loaded.notes if "adapted" in note] == first and first
    given = pretrained.flatten(loaded.variables)
    for path in first:
        np.testing.assert_allclose(given[path], pretrained.flatten(rgb)[path].sum(2, keepdims=True), rtol=1e-6)
    with pytest.raises(WeightsError, match="of another shape"):  # `channels` is wrong
        pretrained.load(gray, str(tmp_path / "x.npz"), encoder="residual")


def test_whole_network_with_the_same_classes_and_with_others(tmp_path):
    _, theirs = network(num_classes=3)
    path = save(tmp_path / "x.npz", theirs)
    _, same = network(num_classes=3, seed=1)
    loaded = pretrained.load(same, path, model="unet", num_classes=3)
    assert_equal(loaded.variables, theirs)
    assert loaded.notes == () and loaded.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    _, other = network(num_classes=5, seed=1)
    loaded = pretrained.load(other, path, model="unet", num_classes=5)
    [note] = loaded.notes
    assert note.startswith("kept the initial classifier, for 5 classes: ")
    assert sorted(note.partition(": ")[2].split(", ")) == ["params/head/bias", "params/head/kernel"]
    given, before, file = (pretrained.flatten(x) for x in (loaded.variables, other, theirs))
    for name in given:
        expected = before if "/head/" in name else file
        np.testing.assert_array_equal(given[name], expected[name], err_msg=name)


def test_encoder_alone_leaves_the_rest_and_skips_what_is_asked(tmp_path):
    _, theirs = network()
    _, ours = network(seed=1)
    inner = {name: tree["encoder"] for name, tree in theirs.items()}
    for variables in (theirs, inner):  # out of a network, or a file of the encoder alone
        loaded = pretrained.load(ours, save(tmp_path / "x.npz", variables), encoder="residual")
        given, before, file = (pretrained.flatten(x) for x in (loaded.variables, ours, theirs))
        for name in given:
            expected = file if "/encoder/" in name else before
            np.testing.assert_array_equal(given[name], expected[name], err_msg=name)
    loaded = pretrained.load(ours, str(tmp_path / "x.npz"), encoder="residual", skip=["encoder/stage2/"])
    given = pretrained.flatten(loaded.variables)
    assert all(np.array_equal(given[n], before[n]) for n in given if "encoder/stage2/" in n)
    assert any("kept the initial values as asked: " in note and "stage2" in note for note in loaded.notes)
    with pytest.raises(WeightsError, match=r"the pattern '\(' is not a regular expression"):
        pretrained.load(ours, str(tmp_path / "x.npz"), encoder="residual", skip=["("])


def test_weights_of_another_network_are_refused_with_both_sides(tmp_path):
    _, theirs = network(encoder_args={"widths": (4, 6, 8, 8)}, widths=(4, 6, 8))
    _, ours = network(encoder_args={"widths": (4, 5, 8)})
    with pytest.raises(WeightsError) as raised:
        pretrained.load(ours, save(tmp_path / "x.npz", theirs), encoder="residual")
    assert "16 unexpected: batch_stats/encoder/norm3/" in str(raised.value) and "of another shape: " in str(
        raised.value
    )
    assert str(tmp_path / "x.npz") in str(raised.value)


def test_foreign_names_without_rules_and_with(tmp_path):
    _, ours = network()
    flat = pretrained.flatten({name: tree["encoder"] for name, tree in ours.items()})
    file = {"backbone." + name.replace("/", "."): np.asarray(x) + 1 for name, x in flat.items()}
    np.savez(tmp_path / "x.npz", **file, **{"decoder.weight": np.ones(2)})
    with pytest.raises(WeightsError, match=r"no rules are known that rename its entries \(backbone"):
        pretrained.load(ours, str(tmp_path / "x.npz"), encoder="residual")
    rules = [Rule(name.replace("/", "."), name) for name in flat]
    loaded = pretrained.load(ours, str(tmp_path / "x.npz"), encoder="residual", rules=rules)
    assert "took the encoder under 'backbone.'" in loaded.notes
    for name, x in pretrained.flatten(loaded.variables).items():
        np.testing.assert_array_equal(x, pretrained.flatten(ours)[name] + ("/encoder/" in name), err_msg=name)
    with pytest.raises(WeightsError, match="No rule knows"):
        pretrained.load(ours, str(tmp_path / "x.npz"), encoder="residual", rules=rules[1:])


@pytest.mark.parametrize(
    "prefix",
    [
        "model.",
        "net.backbone.",
        "_orig_mod.module.",
        "module._orig_mod.module.",
        "mine.",
        "model._orig_mod.",  # a LightningModule around a compiled network
        "model.model.",
        "mine.yours.",
        "model.encoder._orig_mod.",
        "module.encoder.module.",
    ],
)
def test_prefixes_of_wrappers_are_taken_off_in_any_order(tmp_path, prefix):
    _, ours = network()
    flat = pretrained.flatten({name: tree["encoder"] for name, tree in ours.items()})
    rules = [Rule(name.replace("/", "."), name) for name in flat]
    file = {prefix + name.replace("/", "."): np.asarray(x) + 1 for name, x in flat.items()}
    np.savez(tmp_path / "x.npz", **file)
    load = functools.partial(pretrained.load, ours, str(tmp_path / "x.npz"), encoder="residual", rules=rules)
    loaded = load()
    assert any(note.startswith("took ") for note in loaded.notes)
    for name, x in pretrained.flatten(loaded.variables).items():
        np.testing.assert_array_equal(x, pretrained.flatten(ours)[name] + ("/encoder/" in name), err_msg=name)
    # A LightningModule keeps its loss and its metrics beside the network.
    if prefix in ("model.", "mine.", "model.model.", "mine.yours."):
        np.savez(tmp_path / "x.npz", **file, **{"loss.weight": np.ones(2)})
        known = r"No rule knows 1 entry of the file: loss\.weight\. Patterns in weights_skip"
        with pytest.raises(WeightsError, match=known):
            load()
        assert "left out as asked: loss.weight" in load(skip=["loss"]).notes
    if prefix == "model.":
        whole = {f"model.encoder.{n.removeprefix(prefix)}": x for n, x in file.items()}
        np.savez(tmp_path / "x.npz", **whole, **{"model.decoder.weight": np.ones(2)})
        assert "took the encoder under 'encoder.'" in load().notes


def test_patterns_leave_out_what_no_rule_knows_and_must_be_found(tmp_path):
    _, ours = network()
    flat = pretrained.flatten({name: tree["encoder"] for name, tree in ours.items()})
    rules = [Rule(name.replace("/", "."), name) for name in flat]
    file = {"encoder." + name.replace("/", "."): np.asarray(x) + 1 for name, x in flat.items()}
    np.savez(tmp_path / "x.npz", **file, **{"encoder.queue": np.ones(2)})
    load = functools.partial(pretrained.load, ours, str(tmp_path / "x.npz"), encoder="residual", rules=rules)
    loaded = load(skip=[r"^encoder\.queue$"])
    assert loaded.notes == ("left out as asked: encoder.queue", "took the encoder under 'encoder.'")
    first = next(iter(flat)).replace("/", "/encoder/", 1)
    np.testing.assert_array_equal(pretrained.flatten(loaded.variables)[first], pretrained.flatten(ours)[first] + 1)
    with pytest.raises(WeightsError, match=r"the pattern 'stag3/' of what to skip is found in no name"):
        load(skip=["queue", "stag3/"])
    with pytest.raises(WeightsError, match="of what to skip is found in no name"):
        load(skip=["queue", r"^encoder\.params"])  # a rule knows it: `skip` takes our path of it


@pytest.mark.parametrize(("channels", "wrapped"), [(3, False), (1, True)])
def test_a_torchvision_file_becomes_the_encoder(tmp_path, channels, wrapped):
    torch = oracles.torch()
    module = oracles.torchvision().models.resnet18(weights=None)
    state = module.state_dict()
    torch.save({"state_dict": {f"module.{n}": x for n, x in state.items()}} if wrapped else state, tmp_path / "x.pth")
    model = models.build("unet", num_classes=2, encoder="resnet18", widths=[4, 4, 4, 4])
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, channels)))
    loaded = pretrained.load(shapes, str(tmp_path / "x.pth"), encoder="resnet18", channels=channels)
    given = pretrained.flatten(loaded.variables)
    for name, x in given.items():
        assert isinstance(x, jax.ShapeDtypeStruct) == ("/encoder/" not in name), name
    stem = pretrained.conv(state["conv1.weight"].numpy())
    stem = stem.sum(2, keepdims=True) if channels == 1 else stem
    np.testing.assert_allclose(given["params/encoder/stem/conv/kernel"], stem, rtol=1e-6, atol=1e-6)
    count = sum(x.numel() for n, x in state.items() if "num_batches" not in n and not n.startswith("fc."))
    adapted = state["conv1.weight"].numel() * (3 - channels) // 3
    assert sum(x.size for n, x in given.items() if "/encoder/" in n) == count - adapted
    assert len(loaded.notes) == (3 if wrapped else 0)


def test_rules_of_a_network_take_those_of_its_encoder(monkeypatch, tmp_path):
    joined = lambda encoder: [*pretrained.prefixed(encoder, r"encoder\.", "encoder"), Rule("last", "params/head")]  # noqa: E731
    formats = (NetworkFormat("unet", "a peer", joined, takes=("encoder",)),)
    family = Family(encoder_formats=resnet.FAMILY.encoder_formats, network_formats=formats)
    monkeypatch.setattr(catalogue, "families", lambda: (family,))
    np.savez(tmp_path / "x.npz", **{"encoder.layer1.0.conv2.weight": np.ones((4, 3, 2, 1)), "last": np.ones(2)})
    inside = {"block1": {"conv": {"conv": {"kernel": np.zeros((2, 1, 3, 4), np.float32)}}}}
    ours = {"params": {"encoder": {"stage1": inside}, "head": np.zeros(2, np.float32)}}
    loaded = pretrained.load(ours, str(tmp_path / "x.npz"), encoder="resnet50", model="unet")
    assert all(x.min() == 1 for x in jax.tree.leaves(loaded.variables))
    basic = {"block1": {"conv2": inside["block1"]["conv"]}}
    ours["params"]["encoder"]["stage1"] = basic
    loaded = pretrained.load(ours, str(tmp_path / "x.npz"), encoder="resnet18", model="unet")
    assert all(x.min() == 1 for x in jax.tree.leaves(loaded.variables))
