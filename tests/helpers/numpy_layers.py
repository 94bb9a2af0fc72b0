"""Layers in NumPy and float64, as references of the blocks of networks."""

import itertools
from typing import Any

import jax
import numpy as np


def conv(x: np.ndarray, kernel: np.ndarray, stride: int = 1, rate: int = 1) -> np.ndarray:
    """[b,h,w,c] with [u,v,c,o] of odd sides, zero-padded so that stride 1 keeps the size -> f64[b,y,x,o].

    A kernel [u,v,1,c] is depthwise.
    """
    (u, v), (h, w) = kernel.shape[:2], x.shape[1:3]
    rows, columns = rate * (u // 2), rate * (v // 2)
    padded = np.pad(x.astype(np.float64), ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    depthwise = kernel.shape[2] == 1 and x.shape[-1] > 1
    y = np.float64(0)
    for i, j in itertools.product(range(u), range(v)):
        window, tap = padded[:, rate * i : rate * i + h, rate * j : rate * j + w], kernel[i, j].astype(np.float64)
        y = y + (window * tap[0] if depthwise else window @ tap)
    return np.asarray(y)[:, ::stride, ::stride]


def instance_norm(x: np.ndarray, params: Any) -> np.ndarray:
    """Over the pixels of each image and channel; `params` has scale and bias."""
    mean, var = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * params["scale"] + params["bias"]


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0)."""
    return np.maximum(x, 0)


def halved(x: np.ndarray) -> np.ndarray:
    """[b,2h,2w,c] -> [b,h,w,c]: the maxima of windows of 2x2 pixels."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))


class Layers64:
    """Reads variables by name and applies layers in float64: f[b,h,w,c] -> f[b,h,w,c]."""

    def __init__(self, variables):
        leaves = [pair for part in variables.values() for pair in jax.tree_util.tree_flatten_with_path(part)[0]]
        self.leaves = {"/".join(p.key for p in path): np.asarray(x, np.float64) for path, x in leaves}

    def conv(self, x, name, stride=1):
        y = conv(x, self.leaves[f"{name}/kernel"], stride)
        return y + self.leaves[f"{name}/bias"] if f"{name}/bias" in self.leaves else y

    def norm(self, x, name):
        mean, var, scale, bias = (self.leaves[f"{name}/{leaf}"] for leaf in ("mean", "var", "scale", "bias"))
        return (x - mean) / np.sqrt(var + 1e-5) * scale + bias

    def layer(self, x, name, act=True):
        y = self.norm(self.conv(x, f"{name}/conv"), f"{name}/norm")
        return relu(y) if act else y
