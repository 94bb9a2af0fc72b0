"""What one or several networks say of images, each seen in one or several views: the sums behind every prediction."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxseg import losses
from jaxseg.build import Parts
from jaxseg.compiler import compiler_options
from jaxseg.data.transforms import Size, fill_up, resize_image
from jaxseg.errors import ConfigError
from jaxseg.inference import placement
from jaxseg.inference.canvas import at_sizes, flipped, onto
from jaxseg.inference.views import ONE_VIEW, Views
from jaxseg.metrics import predict_classes, predict_sets
from jaxseg.state import Network
from jaxseg.types import PyTree, ignore_label, label_type

_CANVAS = 64  # sizes that round up to the same multiple of this share a compiled resize


class Scores(NamedTuple):
    """Scores of the classes of a batch of images: the logits of one network in one view, or else mean probabilities.

    Attributes:
        values: f32[b,y,x,k]; image i is the `sizes[i]` in the top left, and what lies outside is arbitrary.
        are_logits: whether they are logits.
        sizes: (h, w) of each image.
    """

    values: jax.Array
    are_logits: bool
    sizes: tuple[Size, ...]


@dataclass(frozen=True, eq=False)
class Member:
    """A network that takes part in a prediction.

    Attributes:
        parts: the parts of the run that trained it.
        model: the model, or a form of it that computes the same, such as `folded.FoldedModel`.
    """

    parts: Parts
    model: Network

    def fitted(self, image: np.ndarray, scale: float, whole: bool) -> tuple[np.ndarray, Size]:
        """Returns what the network sees of an image [h,w,c], [y,x,c], and the (y, x) in it that the image fills.

        Args:
            image: u8|u16|f32[h,w,c].
            scale: the factor of a view.
            whole: the image is a whole one, which `data.fit` fits; else a tile, which the network sees as it is.
        """
        config, (h, w) = self.parts.config, image.shape[:2]
        if whole and config.data.fit == "resize":
            size = _scaled(tuple(config.data.size), scale)
            return resize_image(image, size), size
        size = _scaled((h, w), scale)
        image = resize_image(image, size)
        return (fill_up(image, _extended(size, config.eval.multiple)) if whole else image), size

    def network_size(self, size: Size, scale: float = 1.0) -> Size:
        """Returns the (y, x) of what the network sees of a whole image of a size."""
        config = self.parts.config
        if config.data.fit == "resize":
            return _scaled(tuple(config.data.size), scale)
        return _extended(_scaled(size, scale), config.eval.multiple)

    def size_of(self, size: Size, scale: float, whole: bool) -> Size:
        """Returns the (y, x) of what the network sees of an image or a tile of a size; see `fitted`."""
        return self.network_size(size, scale) if whole else _scaled(size, scale)


def _scaled(size: Size, scale: float) -> Size:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _extended(size: Size, multiple: int) -> Size:
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple


class Shares(NamedTuple):
    """Probabilities f32[b,h,w,k] of all classes, or f16[b,h,w,n] of the n likeliest and these classes u8[b,h,w,n]."""

    probabilities: jax.Array
    indices: jax.Array | None


@dataclass(frozen=True, eq=False)
class Networks:
    """One network, or several whose probabilities are averaged, and the views in which they see an image.

    The variables of the networks are arguments of its methods, one for each member. Members of the same architecture
    share one compiled program, which takes the variables of each in turn.

    Attributes:
        members: the networks.
        views: the views of an image.
        mesh: the devices that a batch, where its size allows it, or the rows of images are split over; None: the first
            device alone.
        thresholds: of the logit of each class, where each has a sigmoid (`inference.thresholds`); (): the most
            probable class.
        top_k: how many of the likeliest classes of a pixel `shares` gives; 0: all.
    """

    members: tuple[Member, ...]
    views: Views = ONE_VIEW
    mesh: Mesh | None = None
    thresholds: tuple[float, ...] = ()
    top_k: int = 0
    _programs: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        first = self.members[0].parts
        for member in self.members[1:]:
            for name, value, other in (
                ("outputs", first.num_classes, member.parts.num_classes),
                ("channels", first.config.data.channels, member.parts.config.data.channels),
                ("limits", tuple(first.config.data.range), tuple(member.parts.config.data.range)),
                ("sigmoids", first.loss.one_vs_rest, member.parts.loss.one_vs_rest),
                ("classes of a pixel", first.loss.multilabel, member.parts.loss.multilabel),
            ):
                if value != other and name == "classes of a pixel":
                    raise ConfigError(
                        "Networks can be averaged if all were trained with data.multilabel, or all without it."
                    )
                if value != other and name == "sigmoids":
                    raise ConfigError(
                        "Networks can be averaged if all were trained with a softmax, or all with one sigmoid a class."
                    )
                if value != other and name == "limits":
                    raise ConfigError(
                        "Networks can be averaged if they see the same values of an image as 0 and 1 (data.range); got "
                        f"{value or 'none'} and {other or 'none'}."
                    )
                if value != other:
                    raise ConfigError(
                        f"Networks can be averaged if they have the same number of {name}; got {value} and {other}."
                    )

    @property
    def limits(self) -> tuple[float, ...]:
        """The values of an image's file that become 0 and 1, `data.range`; (): those of its type."""
        return tuple(self.members[0].parts.config.data.range)

    @property
    def channels(self) -> int:
        """The channels of the images that the networks take."""
        return self.members[0].parts.config.data.channels

    @property
    def num_classes(self) -> int:
        """The channels of the logits."""
        return self.members[0].parts.num_classes

    @property
    def one_vs_rest(self) -> bool:
        """Whether the probability of a class is the sigmoid of its logit, see `losses.probabilities`."""
        return self.members[0].parts.loss.one_vs_rest

    @property
    def multilabel(self) -> bool:
        """Whether a pixel may have several classes, so that a map of classes holds sets (`jaxseg.sets`)."""
        return self.members[0].parts.loss.multilabel

    @property
    def label_type(self) -> type[np.unsignedinteger]:
        """The type of a map of classes."""
        return label_type(self.num_classes, self.multilabel)

    @property
    def single(self) -> bool:
        """Whether there is one network and one view, so that nothing is averaged."""
        return len(self.members) * len(self.views) == 1

    def scores(self, variables: Sequence[PyTree], images: Sequence[np.ndarray] | np.ndarray, whole: bool) -> Scores:
        """Returns the scores of images at their own sizes: the logits if there is one view, or mean probabilities.

        Args:
            variables: of each member.
            images: [b,h,w,c] or a list of [h,w,c], which the networks see at one size.
            whole: see `Member.fitted`.
        """
        sizes = tuple((image.shape[0], image.shape[1]) for image in images)
        if self.single:
            return Scores(next(self.logits(variables, images, whole))[1], True, sizes)
        total, share = None, np.float32(1 / (len(self.members) * len(self.views)))
        for member, logits in self.logits(variables, images, whole):
            one_vs_rest = member.parts.loss.one_vs_rest
            total = _first(logits, share, one_vs_rest) if total is None else _more(total, logits, share, one_vs_rest)
            del logits  # before the next are computed
        assert total is not None
        return Scores(total, False, sizes)

    def classes(self, scores: Scores) -> jax.Array:
        """Scores f32[b,h,w,k] -> classes i32[b,h,w]: `to_classes`, or by the `thresholds`, where IGNORE is no class.

        Where a pixel may have several: the set of those above their thresholds, by default a probability of a half.
        """
        if self.multilabel:
            return _sets_above(scores.values, scores.are_logits, self.thresholds)
        if not self.thresholds:
            return to_classes(scores)
        return _classes_above(scores.values, scores.are_logits, self.thresholds)

    def shares(self, scores: Scores) -> Shares:
        """Scores f32[b,h,w,k] -> the probabilities of all classes, or those of the `top_k` likeliest."""
        return make_shares(scores, self.one_vs_rest, self.top_k)

    def logits(
        self, variables: Sequence[PyTree], images: Sequence[np.ndarray] | np.ndarray, whole: bool
    ) -> Iterator[tuple[Member, jax.Array]]:
        """Yields (member, its logits f32[b,y,x,k], laid out as in `Scores`) for each view of each member."""
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        canvas = self.canvas(sizes, whole)
        for member, values in zip(self.members, variables):
            for scale in self.views.scales:
                fitted = [member.fitted(image, scale, whole) for image in images]
                seen, inside = np.stack([image for image, _ in fitted]), [size for _, size in fitted]
                for flip in self.views.flips:
                    network = self.program(member, seen.shape, seen.dtype, values)
                    logits = network(values, placement.place_images(self.mesh, flipped(seen, flip)))
                    if any(flip) and logits.shape[1:3] != seen.shape[1:3]:  # before it is turned upright
                        logits = onto(logits, seen.shape[1:3])
                    logits = at_sizes(logits, flip, inside, sizes, canvas)
                    yield member, logits
                    del logits  # before the next are computed

    def canvas(self, sizes: Sequence[Size], whole: bool) -> Size:
        """Returns the (y, x) of the scores of images: their size if the networks give it, else a rounded one.

        Sizes that are rounded to the same share the compiled functions that follow the network.
        """
        largest = max(h for h, _ in sizes), max(w for _, w in sizes)
        one = self.views.scales == (1.0,) and all(size == largest for size in sizes)
        if not whole or (one and all(member.network_size(largest) == largest for member in self.members)):
            return placement.even_rows(self.mesh, largest)
        return -(-largest[0] // _CANVAS) * _CANVAS, -(-largest[1] // _CANVAS) * _CANVAS

    def program(self, member: Member, shape: Sequence[int], dtype: Any, values: PyTree) -> Any:
        """Returns the compiled network of a member for images of a shape [b,y,x,c]: (variables, image) -> logits."""
        network, first = self._network(member, shape), next(iter(jax.tree.leaves(values)))
        key = (network, tuple(shape), np.dtype(dtype), getattr(first, "sharding", None))
        if key not in self._programs:
            rows, columns = placement.even_rows(self.mesh, (shape[1], shape[2]))
            image = jax.ShapeDtypeStruct((shape[0], rows, columns, shape[3]), dtype)
            self._programs[key] = network.lower(values, image).compile()
        return self._programs[key]

    def place(self, variables: PyTree) -> PyTree:
        """Copies the variables of a member to the devices."""
        return placement.place_variables(self.mesh, variables)

    def _network(self, member: Member, shape: Sequence[int]) -> Any:
        """Returns the function to compile, one for all members that compute the same with other variables."""
        config = member.parts.config
        options = compiler_options(config.compile.options)
        placed = placement.placement_name(self.mesh, shape)
        key = (member.model, tuple(config.data.mean), tuple(config.data.std), str(options), placed)
        if key not in self._programs:
            model, prepare = member.model, member.parts.prepare

            def network(variables: PyTree, image: Any) -> jax.Array:
                return model.apply(variables, prepare(image), train=False)[0]

            self._programs[key] = placement.compiled_network(network, options, self.mesh, shape)
        return self._programs[key]


def to_classes(scores: Scores) -> jax.Array:
    """Scores f32[b,h,w,k] -> the most probable class i32[b,h,w]; for k = 1 it is a probability above a half."""
    return _classes(scores.values, scores.are_logits)


def to_probabilities(scores: Scores, one_vs_rest: bool) -> jax.Array:
    """Scores f32[b,h,w,k] -> probabilities f32[b,h,w,k]; see `losses.probabilities` for logits."""
    return _shares(scores.values, one_vs_rest) if scores.are_logits else scores.values


def make_shares(scores: Scores, one_vs_rest: bool, top_k: int = 0) -> Shares:
    """Scores f32[b,h,w,k] -> the probabilities of all classes, or those of the `top_k` likeliest; 0: all."""
    every = to_probabilities(scores, one_vs_rest)
    return _top(every, top_k) if top_k else Shares(every, None)


@functools.partial(jax.jit, static_argnums=1)
def _classes(values: jax.Array, are_logits: bool) -> jax.Array:
    binary = values.shape[-1] == 1
    return predict_classes(values - 0.5 if binary and not are_logits else values)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _classes_above(values: jax.Array, are_logits: bool, thresholds: tuple[float, ...]) -> jax.Array:
    logits = values if are_logits else jax.scipy.special.logit(values)
    over = logits - jnp.array(thresholds, jnp.float32).reshape(1, 1, 1, -1)
    if values.shape[-1] == 1:
        return predict_classes(over)
    return jnp.where(jnp.max(over, axis=-1) > 0, predict_classes(over), ignore_label(values.shape[-1]))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _sets_above(values: jax.Array, are_logits: bool, thresholds: tuple[float, ...]) -> jax.Array:
    return predict_sets(values if are_logits else jax.scipy.special.logit(values), thresholds)


@functools.partial(jax.jit, static_argnums=1)
def _top(probabilities: jax.Array, count: int) -> Shares:
    values, indices = jax.lax.top_k(probabilities, count)
    return Shares(values.astype(jnp.float16), indices.astype(label_type(probabilities.shape[-1])))


_shares = jax.jit(losses.probabilities, static_argnums=1)


@functools.partial(jax.jit, static_argnums=2)
def _first(logits: jax.Array, share: jax.Array, one_vs_rest: bool) -> jax.Array:
    return share * losses.probabilities(logits, one_vs_rest)


@functools.partial(jax.jit, static_argnums=3, donate_argnums=0)
def _more(total: jax.Array, logits: jax.Array, share: jax.Array, one_vs_rest: bool) -> jax.Array:
    return total + share * losses.probabilities(logits, one_vs_rest)
