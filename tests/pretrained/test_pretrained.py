"""Foreign weights in a network: renamed, fitted, and what is said where they do not fit."""

import functools
import hashlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracles
from helpers.tiny_weights import assert_equal, network, save
from models.test_models import shapes, tiny

from jaxseg import models, pretrained
from jaxseg.errors import WeightsError
from jaxseg.models import encoders
from jaxseg.pretrained import Rule, catalogue, fitting, resnet
from jaxseg.pretrained.loading import formats
from jaxseg.pretrained.rules import layer

# Rules.


def test_rules_rename_and_tell_what_they_do_not_know():
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
        "net.layer2.conv.weight": np.arange(24.0).reshape(1, 2, 3, 4), "model.bn1.running_var": np.ones(2),
        "net.bn1.num_batches_tracked": np.array(3), "fc.bias": np.ones(1), "net.qkv": np.arange(4),
    }  # fmt: skip
    given = pretrained.convert(state, rules)
    assert set(given) == {
        "params/encoder/stage2/conv/kernel", "batch_stats/encoder/norm1/var", "params/q", "params/k",
    }  # fmt: skip
    kernel = given["params/encoder/stage2/conv/kernel"]
    assert kernel.shape == (3, 4, 2, 1) and kernel[1, 2, 1, 0] == state["net.layer2.conv.weight"][0, 1, 1, 2]
    assert given["params/k"].tolist() == [2, 3]
    with pytest.raises(ValueError, match=r"1 entries of the file are known to no rule: net\.layerx\.conv\.weight"):
        pretrained.convert({**state, "net.layerx.conv.weight": np.ones(1)}, rules)
    with pytest.raises(ValueError, match=r"Both 'model\.bn1\.running_var' and 'net\.bn1\.running_var' lead to"):
        pretrained.convert({**state, "net.bn1.running_var": np.ones(2)}, rules)


def test_arrays_with_another_number_of_axes_are_listed():
    state = {"a.weight": np.zeros((3, 4)), "b.weight": np.zeros(()), "c.weight": np.zeros((2, 1, 3, 3))}
    with pytest.raises(ValueError, match=r"^2 entries .* their layer cannot have: a.weight \(3x4\), b.weight \(a s"):
        pretrained.convert(state, layer(r"(\w)", "{1}"))


def test_merge_lists_everything_that_does_not_fit():
    ours = {"params": {"a": {"kernel": np.zeros((2, 3), np.float32)}, "b": np.zeros(2, np.float32)}}
    ours["batch_stats"] = {"mean": np.zeros(2, np.float32)}
    loaded = {"params/a/kernel": np.ones((3, 2)), "params/c": np.ones(1), "batch_stats/mean": np.ones(2)}
    with pytest.raises(ValueError) as raised:
        pretrained.merge(ours, loaded)
    for words in ("1 missing: params/b", "1 unexpected: params/c", "a/kernel (3x2 in the file, 2x3 here)"):
        assert words in str(raised.value)
    merged = pretrained.merge(ours, loaded, skip=["^params/[bc]$", "/a/"])
    assert merged["params"]["a"]["kernel"].max() == 0 and merged["batch_stats"]["mean"].min() == 1


def test_merge_takes_finite_floating_point_numbers_alone():
    ours = {"params": {name: jax.ShapeDtypeStruct((2,), jnp.float32) for name in "abc"}}
    numbers = (np.arange(2, dtype=np.int8), np.array([1, np.nan]), np.full(2, np.inf))
    loaded = {f"params/{name}": x for name, x in zip("abc", numbers)}
    with pytest.raises(ValueError) as raised:
        pretrained.merge(ours, loaded)
    for words in ("1 of whole numbers: params/a (int8)", "2 with NaN or infinite numbers: params/b, params/c."):
        assert words in str(raised.value)
    halves = {path: np.ones(2, np.float16) for path in loaded}
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(pretrained.merge(ours, halves)))


# Fitting.


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_first_convolution_is_adapted_as_smp_does(channels):
    oracles.smp()
    import torch
    from segmentation_models_pytorch.encoders._utils import patch_first_conv

    module = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.Conv2d(5, 3, 1), torch.nn.Conv2d(3, 3, 1))
    weight = pretrained.conv(module[0].weight.detach().numpy().copy())
    if channels != 3:
        patch_first_conv(module, channels)
    ours, notes = {"params/conv/kernel": jax.ShapeDtypeStruct((3, 3, channels, 5), jnp.float32)}, []
    given = pretrained.adapt_input({"params/conv/kernel": weight}, ours, channels, notes)["params/conv/kernel"]
    np.testing.assert_allclose(given, pretrained.conv(module[0].weight.detach().numpy()), rtol=1e-6, atol=1e-7)
    assert bool(notes) == (channels != 3)


def test_only_kernels_that_see_the_image_are_adapted(tmp_path):
    _, rgb = network()
    _, gray = network(channels=1, seed=1)
    loaded = pretrained.load(gray, save(tmp_path / "x.npz", rgb), encoder="residual", channels=1)
    first = [path for path, x in pretrained.flatten(rgb).items() if x.ndim == 4 and x.shape[2] == 3]
    assert [note.split()[1] for note in loaded.notes if "adapted" in note] == first and first
    given = pretrained.flatten(loaded.variables)
    for path in first:
        np.testing.assert_allclose(given[path], pretrained.flatten(rgb)[path].sum(2, keepdims=True), rtol=1e-6)
    with pytest.raises(WeightsError, match="of another shape"):  # the network's channels are not what was said
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
    assert note.startswith("left the classifier new, for 5 classes: ")
    assert sorted(note.partition(": ")[2].split(", ")) == ["params/head/bias", "params/head/kernel"]
    given, before, file = (pretrained.flatten(x) for x in (loaded.variables, other, theirs))
    for name in given:
        expected = before if "/head/" in name else file
        np.testing.assert_array_equal(given[name], expected[name], err_msg=name)


def test_head_rule_covers_classifiers_alone():
    ours = {
        "params/head/kernel": (1, 1, 8, 5), "params/head/bias": (5,), "params/aux_head/kernel": (1, 1, 4, 5),
        "params/decoder/head/kernel": (1, 1, 8, 5), "params/decoder/kernel": (1, 1, 8, 5), "params/head/conv": (8, 8),
    }  # fmt: skip
    shapes = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in ours.items()}
    theirs = {path: np.zeros((*shape[:-1], 21 if shape[-1] == 5 else 8)) for path, shape in ours.items()}
    remade = pretrained.remade_heads(theirs, shapes, 5)
    assert remade == [path for path in ours if path not in ("params/decoder/kernel", "params/head/conv")]
    assert pretrained.remade_heads(theirs, shapes, None) == []
    assert pretrained.remade_heads({**theirs, "params/head/bias": np.zeros(7)}, shapes, 5) == []  # of two networks
    wider = {**theirs, "params/head/kernel": np.zeros((1, 1, 9, 21))}
    assert "params/head/kernel" not in pretrained.remade_heads(wider, shapes, 5)


@pytest.mark.parametrize(("name", "classes"), [*((name, 5) for name in models.names()), ("mask2former", 1), ("fcn", 1)])
def test_classifiers_of_every_network_are_made_anew(name, classes):
    """All that depends on the number of classes, and nothing else."""
    theirs, ours = (pretrained.flatten(shapes(tiny(name, k), (1, 32, 32, 3))[0]) for k in (7, classes))
    other = [path for path in ours if ours[path].shape != theirs[path].shape]
    assert other and pretrained.remade_heads(theirs, ours, classes) == other


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
    assert any("left new as asked: " in note and "stage2" in note for note in loaded.notes)
    with pytest.raises(WeightsError, match=r"the pattern '\(' is no regular expression"):
        pretrained.load(ours, str(tmp_path / "x.npz"), encoder="residual", skip=["("])


def test_weights_of_another_network_are_refused_with_both_sides(tmp_path):
    _, theirs = network(encoder_args={"widths": (4, 6, 8, 8)}, widths=(4, 6, 8))
    _, ours = network(encoder_args={"widths": (4, 5, 8)})
    with pytest.raises(WeightsError) as raised:
        pretrained.load(ours, save(tmp_path / "x.npz", theirs), encoder="residual")
    assert "12 unexpected: batch_stats/encoder/stage3/" in str(raised.value) and "of another shape: " in str(
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
    with pytest.raises(WeightsError, match="known to no rule"):
        pretrained.load(ours, str(tmp_path / "x.npz"), encoder="residual", rules=rules[1:])


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
        load(skip=["queue", r"^encoder\.params"])  # known to a rule: `skip` has our paths for it


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


def test_rules_of_a_network_are_given_those_of_its_encoder(monkeypatch, tmp_path):
    joined = lambda encoder: [*pretrained.prefixed(encoder, r"encoder\.", "encoder"), Rule("last", "params/head")]  # noqa: E731
    monkeypatch.setattr(resnet, "joined", joined, raising=False)
    monkeypatch.setattr(catalogue, "NETWORK_RULES", {"unet": ("resnet:joined",)})
    np.savez(tmp_path / "x.npz", **{"encoder.layer1.0.conv2.weight": np.ones((4, 3, 2, 1)), "last": np.ones(2)})
    inside = {"block1": {"conv": {"conv": {"kernel": np.zeros((2, 1, 3, 4), np.float32)}}}}
    ours = {"params": {"encoder": {"stage1": inside}, "head": np.zeros(2, np.float32)}}
    loaded = pretrained.load(ours, str(tmp_path / "x.npz"), encoder="resnet50", model="unet")
    assert all(x.min() == 1 for x in jax.tree.leaves(loaded.variables))
    basic = {"block1": {"conv2": inside["block1"]["conv"]}}
    ours["params"]["encoder"]["stage1"] = basic
    loaded = pretrained.load(ours, str(tmp_path / "x.npz"), encoder="resnet18", model="unet")
    assert all(x.min() == 1 for x in jax.tree.leaves(loaded.variables))


# The catalogue.


def test_files_of_torchvision_are_checked_by_their_names():
    catalogue.check_torchvision_digest("resnet18-f37072fd", "f37072fd" + "0" * 56)
    catalogue.check_torchvision_digest("mine-f37072fe", "0" * 64)
    with pytest.raises(WeightsError, match=r"resnet18-f37072fd\.pth is damaged"):
        catalogue.check_torchvision_digest("resnet18-f37072fd", "f37072fe" + "0" * 56)


def test_catalogue_names_what_is_there():
    for encoder, _, repository in catalogue.ENCODER_ROWS:
        assert encoder in encoders.names() and repository.count("/") == 1
        assert catalogue.encoder_rules(encoder)
    for model, repository in catalogue.NETWORK_ROWS:
        assert model in models.names() and repository.count("/") == 1 and catalogue.network_rules(model)
    assert len({row[:2] for row in catalogue.ENCODER_ROWS}) == len(catalogue.ENCODER_ROWS)
    families = {encoders.family(name) for name in encoders.names()}
    assert set(catalogue.ENCODER_RULES) <= families | set(encoders.names())
    assert set(catalogue.NETWORK_RULES) <= set(models.names())
    networks = ("deeplabv3_resnet", "fcn_resnet", "lraspp_mobilenet_v3_large")
    assert all(stem.startswith((*encoders.names(), *networks)) for stem in catalogue._TORCHVISION.split())


def peer_of(repository: str):
    """The model whose weights the repository holds, made without them."""
    owner, name = repository.split("/")
    if owner == "timm":
        return oracles.timm().create_model(name.partition(".")[0], pretrained=False)
    if owner == "smp-hub":
        return oracles.smp().encoders.get_encoder(name.removesuffix(".imagenet"), weights=None)
    transformers = oracles.transformers()
    return transformers.SegformerForImageClassification(transformers.SegformerConfig())


@pytest.mark.parametrize(
    "encoder", ["resnet18", "resnet50d", "vgg11", "vgg11_bn", "convnext_tiny", "hrnet_w18", "mobilenet_v2", "mit_b0"]
)
def test_published_encoders_fit_ours(encoder):
    """Every entry of the peer's `state_dict` has its place in our encoder, and ours are all filled."""
    model = encoders.build(encoder)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    lists = [known.rules for known in formats(catalogue.encoder_rules(encoder), encoder)]
    for published in catalogue.encoder_weights(encoder).values():
        state = {name: x.numpy() for name, x in peer_of(published.repository).state_dict().items()}
        if encoder == "mit_b0":  # files of the same names hold heads: the authors' classifiers, and SegFormers
            theirs = published.repository.startswith("smp-hub/")
            state["head.weight" if theirs else "decode_head.classifier.weight"] = np.ones(9)
        pretrained.merge(shapes, fitting.rename(state, lists))


@pytest.mark.parametrize("name", encoders.names())
def test_every_encoder_is_known_by_what_makes_it(name):
    assert encoders.name_of(encoders.factory(name)) == name
    assert encoders.factory(name) == encoders.factory(name) and hash(encoders.factory(name)) == hash(
        encoders.factory(name)
    )
    assert encoders.name_of(type(encoders.build(name))) is None  # a class has no name here
