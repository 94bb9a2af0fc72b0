"""What fine-tuning changes of an optimiser: which parameters it updates, and by how much in each layer."""

import jax
import optax
from jax.tree_util import keystr

from jaxseg.state import by_path
from jaxseg.tuning.layers import layer_factors
from jaxseg.tuning.selection import Selection
from jaxseg.types import PyTree


def only(selection: Selection, tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns what applies `tx` to the selected parameters alone; the others have no state and no update.

    Raises:
        ArgumentError: its `init`, for a pattern that no parameter has.
    """

    def labels(params: PyTree) -> PyTree:
        selection.require_found(by_path(params))
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "trained" if selection.trains(keystr(path, simple=True, separator="/")) else "frozen",
            params,
        )

    return optax.partition({"trained": tx, "frozen": optax.set_to_zero()}, labels)


def scaled_by_layer(decay: float) -> optax.GradientTransformation:
    """Returns what multiplies each update by the factor of its layer, see `tuning.layer_factors`.

    Raises:
        ArgumentError: its `init`, for a network without an encoder or with one of unknown layers.
    """

    def init(params: PyTree) -> optax.EmptyState:
        layer_factors(params, decay)
        return optax.EmptyState()

    def update(updates: PyTree, state: PyTree, params: PyTree | None = None) -> tuple[PyTree, PyTree]:
        del params
        return jax.tree.map(lambda update, factor: factor * update, updates, layer_factors(updates, decay)), state

    return optax.GradientTransformation(init, update)
