"""DenseNet against torchvision, and its published sizes."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax.errors import InvalidRngError
from helpers import oracles, parity
from helpers.marks import some_slow
from helpers.variables import count_parameters, variable_shapes

from jaxseg.errors import ArgumentError
from jaxseg.models import encoders
from jaxseg.models.encoders.densenet import DenseNet
from jaxseg.pretrained import densenet as rules

SMALL = {"layers": (1, 2, 1, 1), "growth": 4, "stem": 8}
PUBLISHED = {121: 7_978_856, 161: 28_681_000, 169: 14_149_480, 201: 20_013_928}


def theirs(features, x):
    """The stem, and what each pooling and the classifier of torchvision's DenseNet get, before its 1x1 convolution."""
    relu = oracles.torch().relu
    x = relu(features.norm0(features.conv0(x)))
    pyramid, x = [x], features.pool0(x)
    for i in range(1, 5):
        x = getattr(features, f"denseblock{i}")(x)
        x = relu((features.norm5 if i == 4 else getattr(features, f"transition{i}").norm)(x))
        pyramid.append(x)
        if i < 4:
            transition = getattr(features, f"transition{i}")
            x = transition.pool(transition.conv(x))
    return pyramid


def test_pyramid_is_torchvisions():
    torch = oracles.torch()

    class Features(torch.nn.Module):
        def __init__(self):
            super().__init__()
            make = functools.partial(oracles.torchvision().models.DenseNet, num_classes=2)
            inner = make(growth_rate=4, block_config=SMALL["layers"], num_init_features=8)
            self.features, self.classifier = inner.features, inner.classifier

        def forward(self, x):
            return theirs(self.features, x)

    sizes = ((65, 79), (64, 32))
    parity.check_eval(
        DenseNet(**SMALL, rounding="down"), Features(), rules.torchvision(), sizes, ours=list, theirs=list
    )


@pytest.mark.parametrize("layers", some_slow(PUBLISHED, (161, 169, 201)))
def test_counts_are_the_published_ones(layers):
    encoder = encoders.build(f"densenet{layers}")
    assert count_parameters(encoder) + 1000 * encoder.widths[-1] + 1000 == PUBLISHED[layers]


@pytest.mark.slow  # builds 70 million numbers of torch
@pytest.mark.parametrize("layers", PUBLISHED)
def test_files_of_torchvision_fit(layers):
    module = getattr(oracles.torchvision().models, f"densenet{layers}")()
    parity.load(encoders.build(f"densenet{layers}"), module, rules.torchvision())


def test_dropout_is_drawn_in_training_alone_and_no_stage_is_refused():
    encoder = DenseNet(**SMALL, dropout=0.5)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = variable_shapes(encoder, x.shape)
    apply = functools.partial(encoder.apply, mutable=["batch_stats"])
    jax.eval_shape(apply, variables, x)
    with pytest.raises(InvalidRngError, match="dropout"):
        jax.eval_shape(functools.partial(apply, train=True), variables, x)
    with pytest.raises(ArgumentError, match="layers must name one stage or more"):
        jax.eval_shape(DenseNet(layers=()).init, jax.random.key(0), x)
