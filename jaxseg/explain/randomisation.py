"""Does a map depend on what the network has learned: cascading randomisation of the parameters (Adebayo et al. 2018).

"Sanity Checks for Saliency Maps", section 3.1. The parameters are replaced by freshly drawn ones, layer after layer
from the logits down. A map that stays the same says something about the image alone, as an edge detector does.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from scipy.stats import rankdata

from jaxseg.types import PyTree


def groups_from_the_top(model: nn.Module, variables: PyTree, image: Any, depth: int = 2) -> list[str]:
    """Returns the names of the groups of parameters, those that the network uses last first.

    Args:
        model: a network.
        variables: its variables, or their shapes.
        image: f32[b,h,w,c], or its shape.
        depth: names in the path of a group: 2 makes each stage of encoder and decoder one group, such as
            "encoder/stage0".
    """

    def forward(params: PyTree, image: Any) -> jax.Array:
        rest = {name: values for name, values in variables.items() if name != "params"}
        return model.apply({"params": params, **rest}, image, train=False)[0]

    paths = list(flatten_dict(jax.tree.map(lambda _: 0, variables["params"]), sep="/"))
    jaxpr = jax.make_jaxpr(forward)(variables["params"], image).jaxpr
    # A dictionary is flattened in the order of its names, at each level.
    ordered = sorted(paths, key=lambda path: path.split("/"))
    names = {id(v): _group(path, depth) for v, path in zip(jaxpr.invars, ordered)}
    last: dict[str, int] = {}
    for i, equation in enumerate(jaxpr.eqns):
        last.update({names[id(v)]: i for v in equation.invars if id(v) in names})
    return sorted(last, key=lambda group: -last[group])


def randomised(
    variables: PyTree, fresh: PyTree, groups: list[str], depth: int = 2
) -> Iterator[tuple[str, dict[str, PyTree]]]:
    """Yields (group, variables) with the parameters and statistics of this group and those before it from `fresh`.

    Args:
        variables: those of the trained network.
        fresh: those of `model.init` with another key.
        groups: of `groups_from_the_top`.
        depth: as there.
    """
    mixed = {name: dict(flatten_dict(tree, sep="/")) for name, tree in variables.items()}
    drawn = {name: flatten_dict(tree, sep="/") for name, tree in fresh.items()}
    for group in groups:
        for name, flat in mixed.items():
            flat.update({path: drawn[name][path] for path in flat if _group(path, depth) == group})
        yield group, {name: unflatten_dict(flat, sep="/") for name, flat in mixed.items()}


def sanity_check(
    explain: Callable[[PyTree], np.ndarray], variables: PyTree, fresh: PyTree, groups: list[str], depth: int = 2
) -> dict[str, float]:
    """Returns {group: rank correlation of the map before with the map after groups down to this one are randomised}.

    The correlation is Spearman's of the absolute values, as in the paper; 0 where one map is constant. It should fall
    towards 0. One that stays near 1 means that the map does not explain this network.

    Args:
        explain: variables -> map f32[h,w].
        variables, fresh, groups, depth: as of `randomised`.
    """
    before = explain(variables)
    return {
        group: rank_correlation(before, explain(mixed)) for group, mixed in randomised(variables, fresh, groups, depth)
    }


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Returns Spearman's correlation of the absolute values of two maps; 0 where one of them is constant."""
    a, b = np.abs(a).ravel(), np.abs(b).ravel()
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def _group(path: str, depth: int) -> str:
    """Returns the first names of a parameter's path, without that of the parameter."""
    names = path.split("/")
    return "/".join(names[: min(depth, max(1, len(names) - 1))])
