"""The blocks that networks are built of: convolutions, norms, residual blocks, attention, pooling and resizing.

All take and return f[b,h,w,c] of any height and width, or the tokens of attention. The functions of arrays lie in
`jaxseg.nn.ops`, the layers over them here. docs/blocks/ has their equations, costs and gradients.
"""

from jaxseg.nn.atrous import ASPP, rates_at
from jaxseg.nn.attention import AttentionGate, MultiHeadAttention, SelfAttention2D, SqueezeExcite, sincos_position
from jaxseg.nn.clock import at_step, current_step
from jaxseg.nn.context import DAPPM, NormActConv
from jaxseg.nn.conv import (
    ClassHead,
    Conv,
    ConvNormAct,
    ConvTranspose,
    ConvTransposeNormAct,
    classifier,
    identity_kernel,
    near_zero,
    of_classes,
    unit_gain,
)
from jaxseg.nn.cosine import WithCosineHead
from jaxseg.nn.crf import CRF, CRF_PRESETS, DenseCRF, LayerCRF, WithCRF, without_crf
from jaxseg.nn.deformable import DeformableAttention
from jaxseg.nn.dense import Dense, parameter
from jaxseg.nn.draws import initialise
from jaxseg.nn.dropout import Dropout, StochasticDepth, draw_of_examples, drop_rates, keys_of_examples
from jaxseg.nn.initializers import KERNEL_INITS, he_normal, he_uniform
from jaxseg.nn.inverted import FusedInvertedResidual, InvertedResidual, round_channels
from jaxseg.nn.joined import Joined, join_upsampled
from jaxseg.nn.large_fov import LargeFOV
from jaxseg.nn.layers import BARE, Layers
from jaxseg.nn.norm import BatchNorm, GroupNorm, Identity, LayerNorm, NormSpec, is_identity, make_norm
from jaxseg.nn.ops.conv import conv2d, conv_transpose2d, depth_to_space, space_to_depth
from jaxseg.nn.ops.conv_upsampled import conv2d_upsampled
from jaxseg.nn.ops.cubic import resize_cubic
from jaxseg.nn.ops.deformable import deformable_attention
from jaxseg.nn.ops.dense_crf import dense_crf
from jaxseg.nn.ops.dot_product import dot_product_attention
from jaxseg.nn.ops.group_norm import group_norm
from jaxseg.nn.ops.pooling import (
    adaptive_avg_pool,
    avg_pool,
    global_avg_pool,
    max_along,
    max_pool,
    max_pool_with_indices,
    max_unpool,
)
from jaxseg.nn.ops.resize import crop_to, pad_to_multiple, resize, resize_to_sizes, resize_windows, upsample
from jaxseg.nn.pyramid import PyramidPooling, SummedPyramidPooling
from jaxseg.nn.quantisation import Quantisation, WithQuantisedInputs
from jaxseg.nn.refinement import AttentionRefinement, ContextPath, GatedFusion
from jaxseg.nn.remat import rematerialised
from jaxseg.nn.residual import SHORTCUTS, BasicBlock, BottleneckBlock, PreActBlock, ResidualBlock
from jaxseg.nn.strips import StripConv
from jaxseg.nn.subpixel import SubPixelUp
from jaxseg.nn.windows import WindowAttention

__all__ = [
    "ASPP",
    "BARE",
    "CRF",
    "CRF_PRESETS",
    "DAPPM",
    "KERNEL_INITS",
    "SHORTCUTS",
    "AttentionGate",
    "AttentionRefinement",
    "BasicBlock",
    "BatchNorm",
    "BottleneckBlock",
    "ClassHead",
    "ContextPath",
    "Conv",
    "ConvNormAct",
    "ConvTranspose",
    "ConvTransposeNormAct",
    "DeformableAttention",
    "Dense",
    "DenseCRF",
    "Dropout",
    "FusedInvertedResidual",
    "GatedFusion",
    "GroupNorm",
    "Identity",
    "InvertedResidual",
    "Joined",
    "LargeFOV",
    "LayerCRF",
    "LayerNorm",
    "Layers",
    "MultiHeadAttention",
    "NormActConv",
    "NormSpec",
    "PreActBlock",
    "PyramidPooling",
    "Quantisation",
    "ResidualBlock",
    "SelfAttention2D",
    "SqueezeExcite",
    "StochasticDepth",
    "StripConv",
    "SubPixelUp",
    "SummedPyramidPooling",
    "WindowAttention",
    "WithCRF",
    "WithCosineHead",
    "WithQuantisedInputs",
    "adaptive_avg_pool",
    "at_step",
    "avg_pool",
    "classifier",
    "conv2d",
    "conv2d_upsampled",
    "conv_transpose2d",
    "crop_to",
    "current_step",
    "deformable_attention",
    "dense_crf",
    "depth_to_space",
    "dot_product_attention",
    "draw_of_examples",
    "drop_rates",
    "global_avg_pool",
    "group_norm",
    "he_normal",
    "he_uniform",
    "identity_kernel",
    "initialise",
    "is_identity",
    "join_upsampled",
    "keys_of_examples",
    "make_norm",
    "max_along",
    "max_pool",
    "max_pool_with_indices",
    "max_unpool",
    "near_zero",
    "of_classes",
    "pad_to_multiple",
    "parameter",
    "rates_at",
    "rematerialised",
    "resize",
    "resize_cubic",
    "resize_to_sizes",
    "resize_windows",
    "round_channels",
    "sincos_position",
    "space_to_depth",
    "unit_gain",
    "upsample",
    "without_crf",
]
