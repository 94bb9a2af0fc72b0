"""Arrays take the place of a network's own: what does not fit is listed, channels and classifiers are adapted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from helpers import oracles
from helpers.tiny_models import tiny
from helpers.variables import shapes

from jaxseg import models, pretrained


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


def test_merge_takes_only_finite_floating_point_numbers():
    ours = {"params": {name: jax.ShapeDtypeStruct((2,), jnp.float32) for name in "abc"}}
    numbers = (np.arange(2, dtype=np.int8), np.array([1, np.nan]), np.full(2, np.inf))
    loaded = {f"params/{name}": x for name, x in zip("abc", numbers)}
    with pytest.raises(ValueError) as raised:
        pretrained.merge(ours, loaded)
    for words in ("1 of whole numbers: params/a (int8)", "2 with NaN or infinite numbers: params/b, params/c."):
        assert words in str(raised.value)
    halves = {path: np.ones(2, np.float16) for path in loaded}
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(pretrained.merge(ours, halves)))


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


def test_only_classifiers_keep_their_initial_values():
    ours = {
        "params/head/kernel": (1, 1, 8, 5),
        "params/head/bias": (5,),
        "params/aux_head/kernel": (1, 1, 4, 5),
        "params/decoder/head/kernel": (1, 1, 8, 5),
        "params/decoder/kernel": (1, 1, 8, 5),
        "params/head/conv": (8, 8),
    }
    shapes = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in ours.items()}
    theirs = {path: np.zeros((*shape[:-1], 21 if shape[-1] == 5 else 8)) for path, shape in ours.items()}
    replaced = pretrained.new_classifiers(theirs, shapes, 5)
    assert replaced == [path for path in ours if path not in ("params/decoder/kernel", "params/head/conv")]
    assert pretrained.new_classifiers(theirs, shapes, None) == []
    assert pretrained.new_classifiers({**theirs, "params/head/bias": np.zeros(7)}, shapes, 5) == []  # of two networks
    wider = {**theirs, "params/head/kernel": np.zeros((1, 1, 9, 21))}
    assert "params/head/kernel" not in pretrained.new_classifiers(wider, shapes, 5)


# One classifier, several, with auxiliary ones, of embeddings, of queries, of an encoding; those of others are like one.
QUICK = ("deeplabv2", "encnet", "eomt", "fcn", "mask2former", "pidnet", "segmenter", "unet")
SLOW = [pytest.param(name, 5, marks=pytest.mark.slow) for name in models.names() if name not in QUICK]


@pytest.mark.parametrize(("name", "classes"), [*((name, 5) for name in QUICK), *SLOW, ("mask2former", 1), ("fcn", 1)])
def test_classifiers_of_every_network_keep_their_initial_values(name, classes):
    """Everything that depends on the number of classes, and nothing else."""
    theirs, ours = (pretrained.flatten(shapes(tiny(name, k), (1, 32, 32, 3))[0]) for k in (7, classes))
    other = {path for path in ours if ours[path].shape != theirs[path].shape}
    if name == "pointrend":  # the biases too of a perceptron that reads the logits
        other |= {path for path in ours if path.startswith("params/points/")}
    assert other and pretrained.new_classifiers(theirs, ours, classes) == [path for path in theirs if path in other]


def test_a_perceptron_beside_the_logits_is_whole_or_new():
    """A `PointRend` for 3 classes, and weights for 7: none of its perceptron is of the file, and all else is."""

    def layers(k):
        made = {"params/encoder/kernel": (3, 3, 3, 4), "params/head/kernel": (1, 1, 4, k), "params/head/bias": (k,)}
        for name, inputs, outputs in (("dense1", 4 + k, 6), ("dense2", 6 + k, 6), ("score", 6 + k, k)):
            made |= {f"params/points/{name}/kernel": (inputs, outputs), f"params/points/{name}/bias": (outputs,)}
        return made

    ours = traverse_util.unflatten_dict({path: np.zeros(shape) for path, shape in layers(3).items()}, sep="/")
    same, other = ({path: np.ones(shape) for path, shape in layers(k).items()} for k in (3, 7))
    merged = pretrained.flatten(pretrained.adapt_and_merge(ours, other, num_classes=3))
    assert {path for path, x in merged.items() if x.any()} == {"params/encoder/kernel"}
    merged = pretrained.flatten(pretrained.adapt_and_merge(ours, same, num_classes=3))
    assert all(x.all() for x in merged.values())
