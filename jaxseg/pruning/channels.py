"""Which channels of a network go together, and the smaller network that is left without some of them.

A channel is more than the filter that makes it: residual sums, concatenations, norms and depthwise kernels all hold a
place for it, and it can only be removed from all of them at once. The smaller network is the same module with smaller
fields, such as `widths`; comparing the shapes of both says how many channels each group keeps, and following the
channels through the program (`pruning.flow`) says where each one lies. Nothing is known of any architecture here.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxseg.errors import ArgumentError, counted
from jaxseg.nn.ops.forms import traced_for
from jaxseg.pruning.flow import Axes, Flow, follow
from jaxseg.state import Network

Place: TypeAlias = tuple[str, int]
"""An axis of an array of the variables: ("params/encoder/stage0/conv1/kernel", 3)."""


class Group(NamedTuple):
    """Channels that lie in the same axes, of which as many are kept in each.

    Attributes:
        places: {axis: i[n,m], the indices of each of the n channels along it}; m is 1 but where a channel lies several
            times in one axis.
        kept: how many channels the smaller network has.
    """

    places: dict[Place, np.ndarray]
    kept: int

    @property
    def size(self) -> int:
        """n."""
        return len(next(iter(self.places.values())))


def _makes(place: Place) -> bool:
    """Whether an axis can be that of the features that a kernel makes, the last one."""
    return place[0].endswith("/kernel") and place[1] > 0


def channel_groups(network: Network, smaller: Network, image_shape: Sequence[int]) -> tuple[Group, ...]:
    """Returns the groups of channels of which `smaller` has fewer than `network`, and those that go with them.

    Args:
        network: a Linen module as of `jaxseg.models`.
        smaller: the same module with smaller fields.
        image_shape: (h, w, c) of one image.

    Raises:
        ArgumentError: if the networks differ in more than their channels, `smaller` has more of them, or they cannot be
            followed, since the network mixes them in a norm, splits them between heads, and the like.
    """
    shapes = shapes_of(network, image_shape)
    before, after = ({path: x.shape for path, x in each.items()} for each in (shapes, shapes_of(smaller, image_shape)))
    changed = _changed_axes(before, after)
    flow = Flow()
    axes = {
        path: tuple(flow.new(size) if (path, i) in changed else None for i, size in enumerate(shape))
        for path, shape in before.items()
    }
    _follow_network(flow, network, shapes, axes, image_shape)
    return _solved(_grouped(flow, axes), {place: after[place[0]][place[1]] for place in changed})


def shapes_of(network: Any, image_shape: Sequence[int]) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns {path: shape and type} of the variables of a network for images (h, w, c)."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(lambda key, x: network.init({"params": key}, x, train=False), jax.random.key(0), image)
    flat: Any = flatten_dict(dict(variables), sep="/")
    return flat


def _changed_axes(before: Mapping[str, Sequence[int]], after: Mapping[str, Sequence[int]]) -> set[Place]:
    apart = sorted(before.keys() ^ after.keys())
    if apart:
        where = "the network" if apart[0] in before else "the smaller network"
        raise ArgumentError(
            f"the smaller network must have the layers of the network, and only {where} has "
            f"{apart[0].partition('/')[2]}; {counted(len(apart), 'array')} differ."
        )
    changed = {(path, i) for path in before for i, (a, b) in enumerate(zip(before[path], after[path])) if a != b}
    for path, i in sorted(changed):
        if after[path][i] > before[path][i]:
            raise ArgumentError(
                f"the smaller network must not have more channels, and {path.partition('/')[2]} has {after[path]}, "
                f"in the network {before[path]}."
            )
    return changed


def _follow_network(
    flow: Flow,
    network: Network,
    shapes: Mapping[str, jax.ShapeDtypeStruct],
    axes: Mapping[str, Axes],
    image_shape: Sequence[int],
) -> None:
    """Follows the channels through the network in training, where its auxiliary heads are applied too."""

    def program(flat: dict[str, Any], x: jax.Array, key: jax.Array) -> dict[str, Any]:
        variables = unflatten_dict(flat, sep="/")
        _, changed = network.apply(variables, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"])
        return flatten_dict(dict(changed), sep="/")

    image = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    with traced_for("plain"):
        traced = jax.make_jaxpr(program)(dict(shapes), image, jax.eval_shape(jax.random.key, 0))
    inputs = [axes[path] for path in sorted(shapes)]  # in the order in which JAX flattens a dictionary
    results = follow(flow, traced.jaxpr, [*inputs, (None,) * 4, ()])
    statistics = [path for path in sorted(shapes) if path.startswith("batch_stats/")]
    for path, new in zip(statistics, results, strict=True):
        for a, b in zip(axes[path], new):
            flow.link(a, b)


class _Channels(NamedTuple):
    """Channels that lie in the same axes; `why` is what keeps them all, or ""."""

    places: dict[Place, np.ndarray]
    why: str

    @property
    def size(self) -> int:
        return len(next(iter(self.places.values())))

    def times(self, place: Place) -> int:
        """How often a channel lies in an axis."""
        return self.places[place].shape[1]


def _grouped(flow: Flow, axes: Mapping[str, Axes]) -> list[_Channels]:
    """Returns the channels, the connected components of the links, by the axes that they lie in."""
    total = int(flow.new(1)[0])
    links = np.concatenate([np.zeros((2, 0), np.int64), *flow.links], axis=1)
    channel_of = _components(total, links)
    why = {int(channel_of[identity]): reason for identity, reason in flow.kept.items()}
    found: dict[int, dict[Place, list[int]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(axes):
        for i, axis in enumerate(axes[path]):
            for index, identity in enumerate(() if axis is None else axis):
                found[int(channel_of[identity])][path, i].append(index)
    alike: dict[Any, list[int]] = defaultdict(list)
    for channel, places in found.items():
        reason = why[channel] if channel in why else ""
        alike[frozenset((place, len(indices)) for place, indices in places.items()), reason].append(channel)
    return [
        _Channels(
            {place: np.array([found[c][place] for c in channels]) for place in sorted(found[channels[0]])}, reason
        )
        for (_, reason), channels in alike.items()
    ]


def _components(size: int, links: np.ndarray) -> np.ndarray:
    """Returns i[size], for each identity the smallest one that links i[2,n] connect it with."""
    least = np.arange(size)
    while True:
        lower = least.copy()
        for ends in (links, links[::-1]):
            np.minimum.at(lower, ends[0], lower[ends[1]])
        lower = lower[lower]
        if (lower == least).all():
            return least
        least = lower


def _solved(groups: list[_Channels], sizes: Mapping[Place, int]) -> tuple[Group, ...]:
    """Returns the groups with the number of channels that each keeps, which the axes of the smaller network tell."""
    kept = {n: group.size for n, group in enumerate(groups) if group.why}
    on = {place: [n for n, group in enumerate(groups) if place in group.places] for place in sizes}

    def count(place: Place) -> int:
        return sum(kept[n] * groups[n].times(place) for n in on[place] if n in kept)

    while len(kept) < len(groups):
        known = len(kept)
        for place, size in sizes.items():
            unknown = [n for n in on[place] if n not in kept]
            if len(unknown) == 1:
                kept[unknown[0]] = (size - count(place)) // groups[unknown[0]].times(place)
        if len(kept) == known:
            first = groups[min(set(range(len(groups))) - kept.keys())]
            raise ArgumentError(
                f"the channels of {_words(next(iter(first.places)))} are of several kinds, and the smaller network "
                "does not say how many of each it keeps."
            )
    for place, size in sorted(sizes.items(), key=lambda item: (not _makes(item[0]), item[0])):
        reasons = sorted({groups[n].why for n in on[place]} - {""})
        if count(place) != size or any(not 0 < kept[n] <= groups[n].size for n in on[place]):
            why = reasons[0] if reasons else "layers that share them"
            raise ArgumentError(f"the channels of {_words(place)} cannot be removed one by one, because of {why}.")
        if any((np.diff(groups[n].places[place][:, 0]) <= 0).any() for n in on[place]):
            raise ArgumentError(f"the channels of {_words(place)} change their order in the network.")
    return tuple(Group(group.places, kept[n]) for n, group in enumerate(groups))


def _words(place: Place) -> str:
    return place[0].partition("/")[2]
