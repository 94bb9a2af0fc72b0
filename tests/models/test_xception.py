"""Aligned Xception against timm, and its published sizes."""

import functools

import pytest
from helpers import oracles, parity
from helpers.marks import some_slow
from helpers.variables import count_parameters, variable_shapes

from jaxseg.errors import ArgumentError
from jaxseg.models import encoders
from jaxseg.models.encoders.xception import Xception
from jaxseg.pretrained import catalogue
from jaxseg.pretrained import xception as rules

ENTRY = ((4, 2), (6, 1), (6, 2))


def small_timm():
    timm, torch = oracles.timm(), oracles.torch()
    blocks = [
        {"in_chs": 64, "out_chs": 4, "stride": 2},
        {"in_chs": 4, "out_chs": 6, "stride": 1},
        {"in_chs": 6, "out_chs": 6, "stride": 2},
        {"in_chs": 6, "out_chs": 6, "stride": 1},
        {"in_chs": 6, "out_chs": (6, 8, 8), "stride": 2},
        {"in_chs": 8, "out_chs": (8, 8, 10), "stride": 1, "no_skip": True, "start_with_relu": False},
    ]
    norm = functools.partial(torch.nn.BatchNorm2d, eps=1e-3)
    return timm.models.xception_aligned.XceptionAligned(blocks, num_classes=2, norm_layer=norm)


def test_pyramid_is_timms():
    module = small_timm()
    module.forward = lambda x: module.forward_intermediates(x, intermediates_only=True)
    encoder = Xception(ENTRY, 1, (8, 8, 10))
    assert encoder.widths == (4, 6, 8, 10) and encoder.strides == (2, 4, 8, 16)
    parity.check_eval(encoder, module, rules.timm(ENTRY, 1), ((33, 46),), ours=list, theirs=list)


PUBLISHED = {"xception41": 26_969_560, "xception65": 39_916_312, "xception71": 42_338_736}


@pytest.mark.parametrize("name", some_slow(PUBLISHED, ("xception65", "xception71")))
def test_counts_are_those_of_timm(name):
    encoder = encoders.build(name)
    assert encoder.widths == (128, 256, 728, 1024, 2048) and encoder.strides == (2, 4, 8, 16, 32)
    assert count_parameters(encoder) + 2048 * 1000 + 1000 == PUBLISHED[name]


@pytest.mark.slow  # the rules follow the same list of blocks
@pytest.mark.parametrize("name", PUBLISHED)
def test_files_of_timm_fit(name):
    [known] = catalogue.encoder_formats(name)
    parity.load(encoders.build(name), oracles.timm().create_model(name), known.rules())


def test_dilation_follows_the_stride_that_it_replaces():
    """As timm has it: the convolution whose stride goes keeps its rate, the blocks after it have twice that."""
    encoder = Xception(ENTRY, 1, (8, 8, 10), output_stride=8)
    assert encoder.strides == (2, 4, 8, 8)
    last = encoder._stages[-1]
    assert [(block.stride, block.dilation) for block in last] == [(1, 1), (1, 2)]
    shapes = variable_shapes(Xception(ENTRY, 1, (8, 8, 10)), (1, 32, 32, 3))
    assert variable_shapes(encoder, (1, 32, 32, 3)) == shapes
    with pytest.raises(ArgumentError, match="entry must begin with a block of stride 2"):
        _ = Xception(entry=((4, 1),)).widths
