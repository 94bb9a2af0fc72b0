"""Pure functions of arrays, with gradients written by hand where XLA compiles those better than the automatic ones.

They know no layer and no parameter. The layers of `jaxseg.nn` call them, and `jaxseg.nn` exports them.
"""

from jaxseg.nn.ops.conv import conv2d, conv_transpose2d, depth_to_space, space_to_depth
from jaxseg.nn.ops.conv_stride1 import conv2d_stride1
from jaxseg.nn.ops.conv_upsampled import conv2d_upsampled
from jaxseg.nn.ops.deformable import deformable_attention
from jaxseg.nn.ops.dense_crf import dense_crf
from jaxseg.nn.ops.depthwise import depthwise_conv2d
from jaxseg.nn.ops.dot_product import dot_product_attention
from jaxseg.nn.ops.group_norm import group_norm
from jaxseg.nn.ops.pooling import (
    adaptive_avg_pool,
    avg_pool,
    global_avg_pool,
    max_pool,
    max_pool_with_indices,
    max_unpool,
)
from jaxseg.nn.ops.resize import crop_to, pad_to_multiple, resize, resize_to_sizes, upsample

__all__ = [
    "adaptive_avg_pool",
    "avg_pool",
    "conv2d",
    "conv2d_stride1",
    "conv2d_upsampled",
    "conv_transpose2d",
    "crop_to",
    "deformable_attention",
    "dense_crf",
    "depth_to_space",
    "depthwise_conv2d",
    "dot_product_attention",
    "global_avg_pool",
    "group_norm",
    "max_pool",
    "max_pool_with_indices",
    "max_unpool",
    "pad_to_multiple",
    "resize",
    "resize_to_sizes",
    "space_to_depth",
    "upsample",
]
