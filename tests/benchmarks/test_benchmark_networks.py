"""What the benchmarks compare is one network: the same random weights give the same logits, in training too."""

import functools
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import oracles
from helpers.marks import some_slow
from helpers.parity import FAST_COMPILE, assert_close, draw, images, load, nchw, nhwc, state_of

from jaxseg import pretrained
from jaxseg.pretrained import Rule, conv_transpose, deeplab, layer, mit, norm, resnet

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import operations
from lib.networks import NETWORKS

LEVELS = range(4)
# Statistics of few values magnify rounding: over 50 layers and two images of 32x48, torch's own float32 lies 9e-4 from
# its float64, over eight images 1e-4.
TRAINED = 1e-3


def unet_rules() -> list[Rule]:
    """The torch module's layers are numbered within a stage: convolution, norm, ReLU, twice."""
    rules = layer("head", "head")
    for i in LEVELS:
        rules += layer(rf"up\.{i}", f"decoder/stage{i}/up", conv_transpose)
        for theirs, ours in ((rf"down\.{i}", f"encoder/stage{i}"), (rf"merge\.{i}", f"decoder/stage{i}")):
            for n in (1, 2):
                rules += layer(rf"{theirs}\.{3 * n - 3}", f"{ours}/conv{n}/conv")
                rules += norm(rf"{theirs}\.{3 * n - 2}", f"{ours}/conv{n}/norm")
    return rules


def resunet_rules() -> list[Rule]:
    rules = layer("head", "head")
    for i in LEVELS:
        for theirs, ours in ((rf"down\.{i}", f"encoder/stage{i}"), (rf"up\.{i}", f"decoder/stage{i}")):
            for child in ("conv1", "conv2", "shortcut"):
                rules += layer(rf"{theirs}\.{child}", f"{ours}/block1/{child}")
            rules += norm(rf"{theirs}\.preact\.0", f"{ours}/block1/norm1")
            rules += norm(rf"{theirs}\.norm2", f"{ours}/block1/norm2")
    return rules


def deeplabv3plus_rules() -> list[Rule]:
    """Those of segmentation_models.pytorch, and a second separable convolution, which its decoder has not."""
    rules = deeplab.smp_deeplabv3plus(resnet.torchvision())
    rules += layer(r"decoder\.block2\.3\.0", "fuse2/depthwise") + layer(r"decoder\.block2\.3\.1", "fuse2/pointwise")
    return rules + norm(r"decoder\.block2\.4", "fuse2/norm")


def segformer_rules() -> list[Rule]:
    return mit.segformer_transformers()


RULES = {
    "unet": unet_rules,
    "resunet": resunet_rules,
    "deeplabv3plus": deeplabv3plus_rules,
    "segformer": segformer_rules,
}


def test_every_network_is_compared():
    assert set(RULES) == set(NETWORKS)


def both(model, variables, x):
    """(logits, moved statistics) of training, where nothing may drop, and the logits of evaluation."""
    (trained, out), moved = model.apply(variables, x, train=True, mutable=["batch_stats"])
    assert out["aux"] == ()
    return trained, moved, model.apply(variables, x)[0]


@pytest.mark.parametrize("name", some_slow(RULES, ("deeplabv3plus", "segformer")))
def test_the_torch_form_is_the_same_function(name):
    torch = oracles.torch()
    network, rules, x = NETWORKS[name], RULES[name](), images(32, 48, batch=4)
    module, model = network.torch(), network.ours()
    draw(module)
    variables = load(model, module, rules)
    trained, moved, evaluated = jax.jit(functools.partial(both, model), compiler_options=FAST_COMPILE)(variables, x)
    with torch.no_grad():
        assert_close(evaluated, nhwc(module.eval()(nchw(x))))
        assert_close(trained, nhwc(module.train()(nchw(x))), TRAINED)
    after = {name: array for name, array in state_of(module).items() if name.endswith("running_mean")}
    given = pretrained.flatten(moved)
    for path, mean in pretrained.convert(after, rules).items():
        assert_close(given[path], mean, TRAINED)


def test_layers_alone_are_those_of_torch():
    """The first layer of each kind that the networks have: both forms of it give the same numbers."""
    torch = oracles.torch()
    layers = {}
    for network in NETWORKS.values():
        for found in operations.layers_of(network.smallest(), 2, 64):
            layers.setdefault(operations.kind_of(found), found)
    assert set(layers) == {*operations.KINDS.values(), "1x1 convolution", "depthwise convolution"}
    for kind, found in layers.items():
        form = operations.primitive(found)
        x = np.random.default_rng(0).normal(size=form.shape).astype(np.float32)
        theirs = form.torch(torch, *map(torch.from_numpy, form.to_torch(*form.parameters)), nchw(x)).numpy()
        if kind == "attention":
            theirs = theirs.transpose(0, 2, 1, 3)
        elif kind not in ("dense", "layer norm"):
            theirs = theirs.transpose(0, 2, 3, 1)
        assert_close(form.ours(*form.parameters, x), theirs)


def flax_rules(name: str) -> list[Rule]:
    """Paths of the plain Flax form, as `pretrained.flatten` has them -> ours."""
    rules = [Rule(r"params/head/(\w+)", "params/head/{1}")]
    if name == "unet":
        # Flax's transposed convolution has the mirrored kernel of torch's, and ours.
        rules += [Rule(r"params/up(\d)/kernel", "params/decoder/stage{1}/up/kernel", lambda k: k[::-1, ::-1])]
        rules += [Rule(r"params/up(\d)/bias", "params/decoder/stage{1}/up/bias")]
        places, children = {"down": "encoder", "merge": "decoder"}, r"/(conv|norm)(\d)/(\w+)"
        inside = "/conv{4}/{3}/{5}"
    else:
        places, children, inside = {"down": "encoder", "up": "decoder"}, r"/(\w+)/(\w+)", "/block1/{3}/{4}"
    for theirs, ours in places.items():
        rules.append(Rule(rf"(\w+)/{theirs}(\d){children}", f"{{1}}/{ours}/stage{{2}}{inside}"))
    return rules


@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if network.flax])
def test_the_plain_flax_form_has_our_logits_and_statistics(name):
    network, x = NETWORKS[name], images(32, 48)
    ours, naive = network.ours(), network.naive()
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(naive.init, jax.random.key(0), x)
    # Around one, so that variances and scales are positive; kernels as small as their many terms ask.
    variables = jax.tree.map(
        lambda s: (
            1.0 + 0.1 * rng.normal(size=s.shape)
            if s.ndim == 1
            else rng.normal(size=s.shape) / np.sqrt(np.prod(s.shape[:-1]))
        ).astype(np.float32),
        shapes,
    )
    converted = pretrained.convert(pretrained.flatten(variables), flax_rules(name))
    mine = pretrained.merge(jax.eval_shape(ours.init, jax.random.key(0), x), converted)

    def run(mine, variables, x):
        trained, moved = naive.apply(variables, x, train=True, mutable=["batch_stats"])
        return both(ours, mine, x), (trained, moved, naive.apply(variables, x))

    result = jax.jit(run, compiler_options=FAST_COMPILE)(mine, variables, x)
    (trained, moved, evaluated), (trained_, moved_, evaluated_) = result
    assert_close(trained, trained_)
    assert_close(evaluated, evaluated_)
    given, expected = pretrained.flatten(moved), pretrained.convert(pretrained.flatten(moved_), flax_rules(name))
    assert set(given) == set(expected)
    for path, statistic in expected.items():
        assert_close(given[path], statistic)
