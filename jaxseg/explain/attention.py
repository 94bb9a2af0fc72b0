"""Where a network attends: the weights of every attention in it, as maps over the image.

The attention is read while the network runs, from what its modules take and give, and the network is not changed:

- `MultiHeadAttention` and `SelfAttention2D` (attention_decoder, encoders mit_*, pvt_v2_* and vit_*, segformer): to
  which pixels the explained pixels attend, as the mean over these pixels and the heads. What a patch of a vision
  transformer attends to in the class token, registers and queries has no place and is left out.
- `MultiHeadAttention` between queries and pixels (mask2former): to which pixels the queries attend that predict the
  explained class at the explained pixels, in proportion to how much each predicts it.
- `DeformableAttention` (mask2former): at which points the explained pixels read, with the weights of the points; that
  of ViT-Adapter, between patches and levels, is left out.
- `AttentionGate` (attention_unet, attention_decoder with kind="gate"): the gate, for all pixels and classes the same.
- `ObjectAttention` (ocrnet): how much each pixel attends to the object of the explained class; and the region of that
  object, the share of each pixel in it.

Weights of channels alone, as those of squeeze-and-excitation and of EncNet, and those between the kernels of classes
(knet) have no place and are no maps.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg.explain.view import averaging
from jaxseg.models.knet import KernelAttention
from jaxseg.models.ocrnet import ObjectAttention
from jaxseg.nn import AttentionGate, DeformableAttention, MultiHeadAttention, SelfAttention2D
from jaxseg.nn.ops.dot_product import NEVER
from jaxseg.types import PyTree

_Name = tuple[str, ...]
_KINDS = (MultiHeadAttention, SelfAttention2D, DeformableAttention, AttentionGate, ObjectAttention)
# Children whose results the weights are computed from.
_READ = frozenset(("query", "key", "query2", "key2", "offsets", "weights", "reduce", "aux_head", "patch"))
_PATCHES = ("encoder", "stem", "patch")  # of a vision transformer: its result has the grid of the patches


def attention_maps(
    model: nn.Module, variables: PyTree, image: jax.Array, pixels: jax.Array, class_index: int
) -> dict[str, jax.Array]:
    """Returns {module: f32[y,x]}, a map of each attention at the attention's own size.

    Args:
        model: a network.
        variables: its variables.
        image: f32[1,h,w,c], normalised.
        pixels: f32[h,w], the weight of each explained pixel, not all 0.
        class_index: the explained class, of networks that have queries or objects of a class.
    """
    calls: dict[_Name, tuple[nn.Module, tuple[Any, ...], Any]] = {}
    inner: dict[_Name, Any] = {}

    def read(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        result = call(*args, **kwargs)
        module = context.module
        if context.method_name == "__call__":
            shown = not isinstance(module, KernelAttention) and module.path[:1] != ("adapter",)
            if shown and isinstance(module, _KINDS):
                calls[module.path] = (module, args, result)
            elif module.path and module.path[-1] in _READ:
                inner[module.path] = result
        return result

    with nn.intercept_methods(read):
        out: Any = model.apply(variables, image, train=False)[1]
    sizes = [x.shape[1:3] for name, x in out.items() if "/" in name]
    maps: dict[str, jax.Array] = {}
    for path, (module, args, result) in calls.items():
        name = "/".join(path)
        if isinstance(module, AttentionGate):
            maps[name] = result[1][0, :, :, 0]
        elif isinstance(module, ObjectAttention):
            maps[name] = _to_object(inner, path, args[0].shape[1:3], class_index)
            regions = inner["aux_head",]
            shares = jax.nn.softmax(regions[0].reshape(-1, regions.shape[-1]).astype(jnp.float32), axis=0)
            maps["regions"] = shares[:, min(class_index, shares.shape[-1] - 1)].reshape(regions.shape[1:3])
        elif isinstance(module, DeformableAttention):
            maps[name] = _points(module, inner, path, args[2], pixels)
        else:
            weights = _weights(module, inner, path, args)
            found = _pixels_or_queries(module, weights, args, inner, path, sizes, pixels, out, class_index)
            if found is not None:
                maps[name] = found
    return {name: values.astype(jnp.float32) for name, values in maps.items()}


def _weights(module: Any, inner: dict[_Name, Any], path: _Name, args: tuple[Any, ...]) -> jax.Array:
    """Returns the attention weights f32[n,q,t] of the first image, the softmax of equation 1 of Vaswani 2017."""
    heads = module.num_heads
    q, k = (inner[*path, name][0].astype(jnp.float32) for name in ("query", "key"))
    q, k = (x.reshape(x.shape[0], heads, -1) for x in (q, k))
    if len(args) > 4 and args[4] is not None:  # the rotation of a vision transformer
        q, k = (args[4](x[None])[0] for x in (q, k))
    scores = jnp.einsum("qnd,tnd->nqt", q, k) / math.sqrt(q.shape[-1])
    if isinstance(module, MultiHeadAttention) and len(args) > 3 and args[3] is not None:
        scores = jnp.where(args[3][0], scores, NEVER)
    return jax.nn.softmax(scores, axis=-1)


def _pixels_or_queries(
    module: Any,
    weights: jax.Array,
    args: tuple[Any, ...],
    inner: dict[_Name, Any],
    path: _Name,
    sizes: list[tuple[int, ...]],
    pixels: jax.Array,
    out: dict[str, Any],
    class_index: int,
) -> jax.Array | None:
    """Returns the map of attention to pixels; None of attention between queries, which have no places."""
    weights = weights.mean(0)
    queries, tokens = weights.shape
    if isinstance(module, SelfAttention2D):
        grid = args[0].shape[1:3]
        return _by_pixels(weights, grid, pixels).reshape(grid)
    if path[0] == _PATCHES[0] and _PATCHES in inner:  # the last tokens are the patches
        grid = inner[_PATCHES].shape[1:3]
        others = tokens - grid[0] * grid[1]
        return _by_pixels(weights[others:, others:], grid, pixels).reshape(grid)
    with_queries = "queries" in out and queries == out["queries"][0].shape[2]
    if with_queries and (len(args) == 1 or args[1].shape[1] == queries):
        return None
    reduced = (*path[:-1], "reduce")
    keys = inner[reduced].shape[1:3] if reduced in inner else _grid(tokens, sizes)
    if keys is None:
        return None
    if with_queries:
        return (_of_queries(out["queries"], pixels, class_index) @ weights).reshape(keys)
    grid = _grid(queries, sizes)
    return None if grid is None else _by_pixels(weights, grid, pixels).reshape(keys)


def _grid(tokens: int, sizes: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    """Returns the (height, width) among the sizes of the stages that has this many pixels."""
    return next((size for size in sizes if size[0] * size[1] == tokens), None)


def _by_pixels(weights: jax.Array, grid: tuple[int, ...], pixels: jax.Array) -> jax.Array:
    """Weights f32[q,t] of queries on a grid -> f32[t], their mean over the explained pixels."""
    return _on_grid(pixels, grid).reshape(-1) @ weights


def _on_grid(pixels: jax.Array, grid: tuple[int, ...]) -> jax.Array:
    """Weights of pixels f32[h,w] -> f32[y,x] of the places of a grid that covers the image, with the sum 1."""
    down, across = (averaging(places, side) for places, side in zip(grid, pixels.shape))
    placed = down @ pixels @ across.T
    return placed / placed.sum()


def _of_queries(queries: tuple[jax.Array, jax.Array], pixels: jax.Array, class_index: int) -> jax.Array:
    """Returns f32[q] with the sum 1: how much each query adds to the score of a class at the explained pixels."""
    classes, masks = queries[0][-1, 0], jax.nn.sigmoid(queries[1][-1, 0])
    there = jnp.einsum("yxq,yx->q", masks, _on_grid(pixels, masks.shape[:2]))
    parts = jax.nn.softmax(classes, axis=-1)[:, class_index] * there
    return parts / jnp.maximum(parts.sum(), 1e-30)


def _to_object(inner: dict[_Name, Any], path: _Name, grid: tuple[int, ...], class_index: int) -> jax.Array:
    """Returns f32[y,x], the weight of the object of a class in the attention of each pixel."""
    query, key = (inner[*path, name][0].astype(jnp.float32) for name in ("query2", "key2"))
    query, key = (x.reshape(-1, x.shape[-1]) for x in (query, key))
    weights = jax.nn.softmax(query @ key.T / math.sqrt(query.shape[-1]), axis=-1)
    return weights[:, min(class_index, weights.shape[-1] - 1)].reshape(grid)


def _points(module: Any, inner: dict[_Name, Any], path: _Name, sizes: Any, pixels: jax.Array) -> jax.Array:
    """Returns f32[y,x] on the finest level's grid: the points at which the explained pixels read, by their weights.

    The queries are the pixels of all levels, and each level counts the same.
    """
    n, p, levels = module.num_heads, module.points, len(sizes)
    offsets = inner[*path, "offsets"][0].reshape(-1, n, levels, p, 2)
    weights = jax.nn.softmax(inner[*path, "weights"][0].reshape(-1, n, levels * p), axis=-1).reshape(-1, n, levels, p)
    grids = [np.stack(np.meshgrid((np.arange(w) + 0.5) / w, (np.arange(h) + 0.5) / h), -1) for h, w in sizes]
    centres = np.concatenate([grid.reshape(-1, 2) for grid in grids]).astype(np.float32)
    scale = np.array([(w, h) for h, w in sizes], np.float32).reshape(1, 1, levels, 1, 2)
    places = centres[:, None, None, None] + offsets / scale
    asking = jnp.concatenate([_on_grid(pixels, size).reshape(-1) for size in sizes]) / levels
    shares = (asking[:, None, None, None] * weights / n).reshape(-1)
    h, w = max(sizes, key=lambda size: size[0] * size[1])
    x, y = places[..., 0].reshape(-1) * w - 0.5, places[..., 1].reshape(-1) * h - 0.5
    total = jnp.zeros((h, w), jnp.float32)
    for right in (0, 1):
        for down in (0, 1):
            column, row = jnp.floor(x) + right, jnp.floor(y) + down
            near = (1 - jnp.abs(x - column)) * (1 - jnp.abs(y - row)) * shares
            inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
            index = jnp.clip(row, 0, h - 1).astype(jnp.int32), jnp.clip(column, 0, w - 1).astype(jnp.int32)
            total = total.at[index].add(jnp.where(inside, near, 0.0))
    return total
