"""Which parameters are matrices and kernels: those that weight decay shrinks, and that Muon makes orthogonal."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxseg.types import PyTree


def decay_mask(params: PyTree) -> PyTree:
    """True for the parameters that weight decay shrinks: matrices and kernels, no norm, bias, token or positions."""
    tokens = ("class_token", "registers", "query", "level", "embedding")  # of transformers

    def decays(path: tuple[Any, ...], leaf: Any) -> bool:
        name = str(getattr(path[-1], "key", path[-1])).lower() if path else ""
        return jnp.ndim(leaf) > 1 and name not in tokens and not any(x in name for x in ("scale", "bias", "pos"))

    return jax.tree_util.tree_map_with_path(decays, params)


def matrices(params: PyTree) -> PyTree:
    """The axes by which Muon reads each parameter of `decay_mask` as a matrix; None for the others, of AdamW.

    The last axis of a kernel is that of its outputs, and all others are inputs: the kernel [h,w,i,o] of a convolution
    is a matrix of h·w·i rows and o columns, as in Jordan et al. 2024 ("Muon: An optimizer for hidden layers in neural
    networks"), where optax by itself gives all but arrays of two axes to AdamW. Each filter of a kernel [h,w,1,o]
    (depthwise, or over an image of one channel) is a matrix of one column: filters of separate channels are not made
    orthogonal to one another. A grouped kernel [h,w,i,o] of more inputs (of a ResNeXt, or a RegNet) is one matrix over
    all its groups, since its shape does not say how many there are: filters of different groups, which read different
    channels, are made orthogonal to one another. Unlike Jordan's, the first convolution and the classifier are
    among the matrices.
    """

    def axes(leaf: Any, decays: bool) -> optax.contrib.MuonDimensionNumbers | None:
        if not decays:
            return None
        last = jnp.ndim(leaf) - 1
        depthwise = last > 1 and jnp.shape(leaf)[-2] == 1
        return optax.contrib.MuonDimensionNumbers(tuple(range(last)), () if depthwise else last)

    return jax.tree.map(axes, params, decay_mask(params))
