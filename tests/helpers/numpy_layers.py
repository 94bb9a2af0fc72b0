"""Layers in NumPy and float64, as references of the blocks of networks."""

from typing import Any

import numpy as np


def conv(x: np.ndarray, kernel: np.ndarray, stride: int = 1, rate: int = 1) -> np.ndarray:
    """[b,h,w,c] with [u,v,c,o] of odd sides, zero-padded so that stride 1 keeps the size -> f64[b,y,x,o]."""
    (u, v), (h, w) = kernel.shape[:2], x.shape[1:3]
    rows, columns = rate * (u // 2), rate * (v // 2)
    padded = np.pad(x.astype(np.float64), ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    y = sum(
        padded[:, rate * i : rate * i + h, rate * j : rate * j + w] @ kernel[i, j].astype(np.float64)
        for i in range(u)
        for j in range(v)
    )
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
