"""Knowledge distillation: a trained network, the teacher, adds its term to the loss of a smaller one, the student.

`make_train_step` takes a `DistilledNetwork` as its model and a `DistillationLoss` as its loss. The teacher sees the
same augmented image, in evaluation mode, and has no gradient. Its variables are no part of the training state: they are
an argument of the compiled step (`build.Parts.constants`), so that a checkpoint holds the student alone.

Every term is a pair of sum and weight, so it is exact over devices and micro-batches like any loss. The terms need no
labels, and count every pixel.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.errors import ConfigError
from jaxseg.losses import SumWeight, divide
from jaxseg.nn import resize
from jaxseg.nn.draws import initialise
from jaxseg.nn.initializers import lecun_normal
from jaxseg.objective import HeadLoss, Objective
from jaxseg.state import Learner
from jaxseg.types import DISTILLATION, Array, Key, PyTree

Kind: TypeAlias = Literal["pixel", "channel", "feature"]
_STREAM = 3  # of the key that the parameters are drawn from


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained network, applied in evaluation mode.

    Attributes:
        model: the network.
        variables: its parameters and statistics.
        to_input: the student's input f32[b,h,w,c] -> the teacher's, whose images may have another mean and deviation.
    """

    model: nn.Module
    variables: PyTree
    to_input: Callable[[jax.Array], jax.Array] = lambda image: image

    def __call__(self, image: jax.Array) -> tuple[jax.Array, Mapping[str, Any]]:
        """The student's input f32[b,h,w,c] -> (logits, out) without a gradient."""
        result: Any = self.model.apply(self.variables, self.to_input(image), train=False)
        return jax.lax.stop_gradient(result)


@dataclasses.dataclass(frozen=True)
class DistilledNetwork:
    """A student and its teacher, with the `init` and `apply` of one model (`state.Learner`).

    `out["teacher"]` is what the teacher says: its logits, or with a `stage` its features; with a stage,
    `out["distillation"]` are the student's features, mapped to as many channels by a 1x1 convolution, the child
    "distillation" of the parameters (the regressor of Romero et al. 2015, "FitNets", section 2.2).

    Attributes:
        student: the learner.
        teacher: None outside of training, where nothing but `init` is called.
        stage: name of the student's features; "": the logits are compared.
        teacher_stage: name of the teacher's features.
        channels: of the teacher's features.
    """

    student: Learner
    teacher: Teacher | None = None
    stage: str = ""
    teacher_stage: str = ""
    channels: int = 0

    def init(self, rngs: Mapping[str, Key], image: jax.Array, **arguments: Any) -> dict[str, PyTree]:
        """f32[b,h,w,c] -> the student's variables, with a `stage` with the map of its features.

        Raises:
            ConfigError: if the student has no features of this name.
        """
        variables = dict(initialise(self.student, rngs, image, **arguments))
        if not self.stage:
            return variables
        _, out = jax.eval_shape(lambda: self.student.apply(variables, image, train=False, mutable=[])[0])
        width = stage_of(out, self.stage, "distill.stage").shape[-1]
        key = jax.random.fold_in(rngs["params"], _STREAM)
        kernel = lecun_normal(key, (width, self.channels), jnp.float32)
        return {**variables, "params": {**variables["params"], DISTILLATION: {"kernel": kernel}}}

    def apply(self, variables: Mapping[str, PyTree], image: jax.Array, **arguments: Any) -> Any:
        """f32[b,h,w,c] -> ((logits, out), changed variables), as the student returns with `mutable`."""
        if self.teacher is None:
            raise ValueError("A DistilledNetwork needs its teacher in training.")
        params = {name: child for name, child in variables["params"].items() if name != DISTILLATION}
        (logits, out), changed = self.student.apply({**variables, "params": params}, image, **arguments)
        taught, their_out = self.teacher(image)
        if not self.stage:
            return (logits, {**out, "teacher": taught}), changed
        features = stage_of(out, self.stage, "distill.stage").astype(jnp.float32)
        theirs = stage_of(their_out, self.teacher_stage, "distill.teacher_stage").astype(jnp.float32)
        mapped = features @ variables["params"][DISTILLATION]["kernel"]
        if mapped.shape[1:3] != theirs.shape[1:3]:
            mapped = resize(mapped, theirs.shape[1:3])
        return (logits, {**out, "teacher": theirs, DISTILLATION: mapped}), changed


def stage_of(out: Mapping[str, Any], stage: str, key: str) -> Any:
    """Returns the features `stage` of a network's second output; raises ConfigError, naming `key`, if it has none."""
    stages = [name for name, value in out.items() if getattr(value, "ndim", 0) == 4]
    if stage not in stages:
        raise ConfigError(f"{key} must name features of the network, {', '.join(stages)}; got {stage!r}.")
    return out[stage]


@dataclasses.dataclass(frozen=True)
class DistillationLoss:
    """An objective and the term of the teacher, which is added with a weight.

    Attributes:
        objective: what the student minimises without a teacher.
        kind: "pixel", "channel" or "feature": see `pixel_divergence`, `channel_divergence` and `feature_distance`.
        weight: of the term.
        temperature: T of the first two.
        one_vs_rest: whether the logits are those of one sigmoid for each class.
    """

    objective: Objective
    kind: Kind = "pixel"
    weight: float = 1.0
    temperature: float = 1.0
    one_vs_rest: bool = False

    @property
    def of_logits(self) -> HeadLoss:
        """The loss of an auxiliary head, which the teacher does not teach."""
        return self.objective.of_logits

    def stats(self, logits: Array, labels: Array, out: Mapping[str, Any]) -> dict[str, PyTree]:
        """f32[b,h,w,k], i32[b,h,w] -> sums that add over examples, devices and micro-batches, see `losses.Loss`."""
        logits, taught = jnp.asarray(logits), out["teacher"]
        if self.kind == "feature":
            term = feature_distance(out[DISTILLATION], taught)
        elif self.kind == "channel":
            term = channel_divergence(logits, taught, self.temperature)
        else:
            term = pixel_divergence(logits, taught, self.temperature, self.one_vs_rest)
        return {"task": self.objective.stats(logits, jnp.asarray(labels), out), "distillation": term}

    def value(self, stats: Mapping[str, PyTree]) -> jax.Array:
        """Summed stats -> f32[]."""
        return self.objective.value(stats["task"]) + self.weight * divide(*stats["distillation"])

    def report(self, stats: Mapping[str, PyTree]) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed stats -> the loss f32[], and the value of each part; "distillation" is the term before its weight."""
        loss, terms = self.objective.report(stats["task"])
        term = divide(*stats["distillation"])
        return loss + self.weight * term, {**terms, "distillation": term}


def pixel_divergence(
    student: jax.Array, teacher: jax.Array, temperature: float, one_vs_rest: bool = False
) -> SumWeight:
    """f32[b,h,w,k], f32[b,h,w,k] -> T² KL(teacher || student) of the class probabilities, summed over pixels.

    Both logits are divided by T first (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2,
    where T² keeps the size of the gradient). One logit stands for two classes; with `one_vs_rest` each class is a
    problem of two, and their divergences are added.
    """
    ours, theirs = student / temperature, teacher / temperature
    if one_vs_rest or student.shape[-1] == 1:
        ours, theirs = (jnp.stack([jnp.zeros_like(x), x], -1) for x in (ours, theirs))
    divergence = temperature**2 * _divergence(theirs, ours, axis=-1)
    return divergence, jnp.asarray(student[..., 0].size, jnp.float32)


def channel_divergence(student: jax.Array, teacher: jax.Array, temperature: float) -> SumWeight:
    """f32[b,h,w,k], f32[b,h,w,k] -> T² KL(teacher || student) over the pixels, summed over images and channels.

    Each channel of an image, divided by T, becomes a distribution over its pixels by a softmax (Shu et al. 2021,
    "Channel-wise Knowledge Distillation for Dense Prediction", equations 5 and 6).
    """
    b, _, _, k = student.shape
    ours, theirs = ((x / temperature).reshape(b, -1, k) for x in (student, teacher))
    return temperature**2 * _divergence(theirs, ours, axis=1), jnp.asarray(b * k, jnp.float32)


def feature_distance(student: jax.Array, teacher: jax.Array) -> SumWeight:
    """f32[b,h,w,c], f32[b,h,w,c] -> half the squared distance, summed over all numbers (FitNets, equation 3)."""
    return 0.5 * jnp.sum((student - teacher) ** 2), jnp.asarray(student.size, jnp.float32)


def _divergence(p: jax.Array, q: jax.Array, axis: int) -> jax.Array:
    """Returns Σ p (log p - log q) over all axes, for two arrays of logits whose softmax is over `axis`."""
    log_p, log_q = jax.nn.log_softmax(p, axis), jax.nn.log_softmax(q, axis)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q))
