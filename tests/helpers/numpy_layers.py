"""Layers of a network in NumPy and float64, with the parameters of ours."""

import itertools

import jax
import numpy as np


class Layers64:
    """Reads variables by name and applies layers in float64: f[b,h,w,c] -> f[b,h,w,c]."""

    def __init__(self, variables):
        leaves = [pair for part in variables.values() for pair in jax.tree_util.tree_flatten_with_path(part)[0]]
        self.leaves = {"/".join(p.key for p in path): np.asarray(x, np.float64) for path, x in leaves}

    def conv(self, x, name, stride=1):
        kernel = self.leaves[f"{name}/kernel"]
        up, left = (side // 2 for side in kernel.shape[:2])
        padded = np.pad(x, ((0, 0), (up, up), (left, left), (0, 0)))
        h, w = x.shape[1:3]
        depthwise = kernel.shape[2] == 1 and x.shape[-1] > 1
        y = 0.0
        for i, j in itertools.product(range(kernel.shape[0]), range(kernel.shape[1])):
            window = padded[:, i : i + h : stride, j : j + w : stride]
            y = y + (window * kernel[i, j, 0] if depthwise else window @ kernel[i, j])
        return y + self.leaves[f"{name}/bias"] if f"{name}/bias" in self.leaves else y

    def norm(self, x, name):
        mean, var, scale, bias = (self.leaves[f"{name}/{leaf}"] for leaf in ("mean", "var", "scale", "bias"))
        return (x - mean) / np.sqrt(var + 1e-5) * scale + bias

    def layer(self, x, name, act=True):
        y = self.norm(self.conv(x, f"{name}/conv"), f"{name}/norm")
        return np.maximum(y, 0) if act else y
