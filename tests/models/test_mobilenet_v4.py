"""MobileNetV4 against timm, and its published sizes."""

import functools

import jax
import pytest
from helpers import oracles, parity
from helpers.marks import some_slow
from helpers.variables import count_parameters, variable_shapes

from jaxseg.models import encoders
from jaxseg.models.encoders.mobilenet_v4 import ROWS, MobileNetV4, UniversalInverted
from jaxseg.pretrained import mobilenet_v4 as rules

# One block of each kind.
SMALL = (
    ("fused", 3, 2, 4, 8),
    (0, 3, 2, 0, 16),
    (0, 1, 1, 0, 8),
    (3, 5, 2, 4, 16),
    (3, 0, 1, 2, 16),
    (0, 0, 1, 2, 16),
    (0, 3, 1, 2, 16),
)
BLOCKS = [
    ["er_r1_k3_s2_e4_c8"],
    ["cn_r1_k3_s2_e1_c16", "cn_r1_k1_s1_e1_c8"],
    ["uir_r1_a3_k5_s2_e4_c16", "uir_r1_a3_k0_s1_e2_c16", "uir_r1_a0_k0_s1_e2_c16", "uir_r1_a0_k3_s1_e2_c16"],
    ["cn_r1_k1_s1_c960"],
]


def test_pyramid_is_timms():
    oracles.timm()
    from timm.models import _efficientnet_builder as builder
    from timm.models.mobilenetv3 import MobileNetV3Features

    module = MobileNetV3Features(
        block_args=builder.decode_arch_def(BLOCKS),
        out_indices=(0, 1, 2, 3),
        stem_size=8,
        act_layer=oracles.torch().nn.ReLU,
        layer_scale_init_value=None,
    )
    encoder = MobileNetV4(rows=SMALL, stem=8, last=True)
    assert encoder.strides == (2, 4, 8, 16) and encoder.widths == (8, 8, 8, 960)
    parity.check_eval(encoder, module, rules.timm(SMALL, last=True), ((33, 46),), ours=list, theirs=list)


# Those of the stages and the last convolution: the published ones without the head's 960 x 1280 + 2 x 1280 (no bias,
# with a norm) and the classifier's 1280 x 1000 + 1000.
PUBLISHED = {"small": 3_774_024, "medium": 9_715_512, "large": 32_590_864}


@pytest.mark.parametrize("size", some_slow(PUBLISHED, ("medium", "large")))
def test_counts_are_those_of_timm(size):
    encoder = encoders.build(f"mobilenet_v4_conv_{size}", last=True)
    assert encoder.strides == (2, 4, 8, 16, 32) and encoder.widths[-1] == 960
    assert count_parameters(encoder) + 960 * 1280 + 2 * 1280 + 1280 * 1000 + 1000 == PUBLISHED[size]


@pytest.mark.slow  # the rules follow the same table as the blocks
@pytest.mark.parametrize("size", PUBLISHED)
def test_files_of_timm_fit(size):
    module = oracles.timm().create_model(f"mobilenetv4_conv_{size}")
    parity.load(encoders.build(f"mobilenet_v4_conv_{size}"), module, rules.timm(ROWS[size]))


def test_dilation_keeps_the_size_and_a_block_without_kernels_has_no_stride():
    encoder = MobileNetV4(output_stride=8)
    assert encoder.strides == (2, 4, 8, 8, 8)
    assert variable_shapes(encoder, (1, 32, 32, 3)) == variable_shapes(MobileNetV4(), (1, 32, 32, 3))
    block = UniversalInverted(4, 8, start=0, kernel_size=0, stride=2)
    with pytest.raises(ValueError, match="without a depthwise kernel a block has no stride"):
        jax.eval_shape(functools.partial(block.init, jax.random.key(0)), jax.ShapeDtypeStruct((1, 4, 4, 4), "float32"))
