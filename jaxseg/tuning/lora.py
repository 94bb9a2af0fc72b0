"""Low-rank adapters (Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1).

The kernel W of a 1x1 convolution, a dense layer or a projection of attention is replaced by W + (alpha / r) A B with
A f32[c,r] and B f32[r,features]; only A and B train. B starts at 0, so that the network starts as it was. The adapters
are a tree of their own in the parameters, the child "lora" beside those of the network, and are merged into the kernels
before the network is applied, so that no layer knows of them and a merged network costs what it did.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxseg.errors import ConfigError
from jaxseg.nn.initializers import variance_scaling
from jaxseg.types import LORA, Key, PyTree


@dataclasses.dataclass(frozen=True)
class Lora:
    """The settings of the adapters.

    Attributes:
        rank: r; a kernel of fewer rows or columns has an adapter of that rank.
        alpha: A B counts alpha / rank times.
        targets: regular expressions, found anywhere in the path of a kernel; empty: every kernel that can have one.
    """

    rank: int
    alpha: float = 16.0
    targets: tuple[str, ...] = ()

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return self.alpha / self.rank


def adapted_kernels(
    params: PyTree, targets: tuple[str, ...] = (), trains: Callable[[str], bool] = lambda path: False
) -> dict[str, tuple[int, int]]:
    """Returns {path: (c, features)} of the kernels that get an adapter: f[c,features] or f[1,1,c,features].

    Args:
        params: of a network; arrays or shapes.
        targets: see `Lora`.
        trains: path -> whether the kernel itself trains; such a kernel needs no adapter.

    Raises:
        ConfigError: for a target that is not a regular expression, or if there is no such kernel.
    """
    try:
        patterns = [re.compile(target) for target in targets]
    except re.error as error:
        raise ConfigError(f"lora.targets must be regular expressions, got {error.pattern!r}: {error}.") from error
    able = {path: leaf.shape for path, leaf in _flat(params).items() if _can_have_one(path, leaf.shape)}
    able = {path: shape for path, shape in able.items() if not trains(path)}
    if not able:
        raise ConfigError("lora.rank needs 1x1 convolutions or dense layers, and this network has none to adapt.")
    for pattern in patterns:
        if not any(pattern.search(path) for path in able):
            raise ConfigError(
                f"lora.targets={pattern.pattern} is found in no path of a 1x1 convolution or dense layer that does not "
                f"train itself; one is {sorted(able)[0]}."
            )
    chosen = [path for path in able if not patterns or any(pattern.search(path) for pattern in patterns)]
    return {path: (able[path][-2], able[path][-1]) for path in chosen}


def _can_have_one(path: str, shape: tuple[int, ...]) -> bool:
    return path.rpartition("/")[2] == "kernel" and (len(shape) == 2 or (len(shape) == 4 and shape[:2] == (1, 1)))


def init_adapters(key: Key, params: PyTree, lora: Lora, trains: Callable[[str], bool]) -> PyTree:
    """Returns the adapters {..., "kernel": {"a": f32[c,r], "b": f32[r,features]}}, A of variance 1 / c and B zero."""
    normal = variance_scaling(1.0, "fan_in", "normal")
    adapters = {}
    for number, (path, (rows, columns)) in enumerate(sorted(adapted_kernels(params, lora.targets, trains).items())):
        rank = min(lora.rank, rows, columns)
        adapters[f"{path}/a"] = normal(jax.random.fold_in(key, number), (rows, rank), jnp.float32)
        adapters[f"{path}/b"] = jnp.zeros((rank, columns), jnp.float32)
    return unflatten_dict(adapters, sep="/")


def merged(params: Mapping[str, PyTree], lora: Lora) -> dict[str, PyTree]:
    """Returns the parameters of the network alone, with the adapters of the child "lora" added to its kernels.

    Parameters without this child are returned as they are.
    """
    base = {name: child for name, child in params.items() if name != LORA}
    if LORA not in params:
        return base
    flat, adapters = _flat(base), _flat(params[LORA])
    for path in {path.rpartition("/")[0] for path in adapters}:
        a, b = adapters[f"{path}/a"], adapters[f"{path}/b"]
        kernel = flat[path]
        # In float32 whatever the device, so that what was trained is what is stored.
        change = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
        flat[path] = kernel + lora.scale * change.reshape(kernel.shape)
    return unflatten_dict(flat, sep="/")


def _flat(tree: PyTree) -> dict[str, Any]:
    return flatten_dict(tree, sep="/")
