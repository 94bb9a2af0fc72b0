"""The training and evaluation steps: pure functions that `jaxseg.parallel` compiles.

The gradient is exact for every division of the batch into devices and micro-batches. A loss is a pytree of sums over
pixels (`Loss.stats`) and one function of the totals (`Loss.value`), so with S = sum_i S_i over devices and
micro-batches i, the chain rule gives

    dL/dparams = sum_i  (dL/dS at the totals) . (dS_i/dparams).

The step therefore reduces the sums first, differentiates the value once at the totals, and pulls that cotangent back
through each part. (The average of the parts' means would give parts with few labelled pixels too much weight.)
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from jaxseg.errors import ArgumentError
from jaxseg.losses import ClassSample, Loss
from jaxseg.losses.definition import GUIDE
from jaxseg.metrics import class_indices, confusion_matrix, predict_and_count, predict_classes
from jaxseg.metrics.native_size import covered_mask, inside_mask, to_image_size, to_native_sizes
from jaxseg.nn import at_step, of_classes, rematerialised, resize
from jaxseg.nn.ops.barrier import after_all
from jaxseg.nn.ops.by_device import spread, whole
from jaxseg.nn.ops.tree_norm import tree_norm
from jaxseg.objective import Objective, Report, classes_of_step, value_and_report, with_classes
from jaxseg.state import Learner, Network, TrainState, average_of, by_path
from jaxseg.types import LESSON, Key, PyTree, label_type, of_map

Prepare: TypeAlias = Callable[[jax.Array], jax.Array]
Augment: TypeAlias = Callable[[Key, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
Teach: TypeAlias = Callable[[Mapping[str, jax.Array], Mapping[str, PyTree]], tuple[jax.Array, jax.Array, PyTree]]
Measure: TypeAlias = Callable[[jax.Array, jax.Array], PyTree]
Metrics: TypeAlias = dict[str, Any]
TrainStep: TypeAlias = Callable[[TrainState, Mapping[str, jax.Array], Key], tuple[TrainState, Metrics]]
EvalStep: TypeAlias = Callable[[TrainState, Mapping[str, jax.Array]], dict[str, PyTree]]


def unchanged(image: jax.Array) -> jax.Array:
    """f32[b,h,w,c] -> f32[b,h,w,c]: the `prepare` of images that are network input already."""
    return image


def make_train_step(
    model: Learner,
    tx: optax.GradientTransformation,
    loss: Objective,
    *,
    prepare: Prepare = unchanged,
    augment: Augment | None = None,
    teach: Teach | None = None,
    accumulate: int = 1,
    ema_decay: float = 0.0,
    aux_weight: float | Sequence[float] = 0.4,
    schedule: optax.Schedule | None = None,
    gradients: bool = False,
    remat: bool = False,
    axis_name: str | None = None,
) -> TrainStep:
    """Returns `step(state, batch, key) -> (state, metrics)`.

    Args:
        model: `model.apply(variables, image, train=True) -> (logits f32[b,h,w,k], {"aux": (logits, ...), ...})`.
        tx: the optimiser.
        loss: sums over pixels and the value of their totals: a `jaxseg.losses.Loss` or another `Objective`.
        prepare: raw images [b,h,w,c] -> network input; used if `augment` is None. Default: images are network input.
        augment: (key, raw image [h,w,c], label i32[h,w]) -> (network input f32[h,w,c], label), for one example.
        teach: ({image, label, key of each example}, the teacher's variables) -> (network input, label, what the loss
            reads as "lesson"), in place of `augment` (`consistency.make_teach`). The teacher is the moving average of
            the model or, without one, the model before the step.
        accumulate: number of micro-batches; the batch size must be divisible by it. Gradients are those of the whole
            batch, except through batch norm, which normalises each micro-batch by itself.
        ema_decay: decay of the parameters' moving average, warmed up as min(decay, (1 + t) / (10 + t)).
        aux_weight: weight of the loss of each auxiliary output: one number for all, or one for each, in the order of
            `out["aux"]`. nnU-Net's deep supervision has (1/2, 1/4, 1/8, ...), where the logits have weight 1.
        schedule: step -> learning rate, only for the metrics.
        gradients: whether the metrics include the norm of each parameter's gradient.
        remat: whether the backward pass computes the model's stages a second time (`nn.rematerialised`), to save the
            memory of their inner activations; compile such a step with `Strategy.compile_train(step, remat=True)`.
        axis_name: name of the `pmap` axis to reduce over; None under `jit`, where the batch is global.

    Returns:
        A pure function. `metrics` holds loss f32[], terms {name of a part of the loss: f32[]}, grad_norm f32[] and
        confusion i32[k,k] (of sets as `metrics.set_counts`) of the whole batch, and param_norm f32[] of the parameters
        and statistics after the step; with a `schedule`, learning_rate f32[]; with `gradients`, gradients {path of the
        parameter, joined by "/": norm f32[]}.
        Augmentation and dropout draw from `fold_in(key, state.step)` and the example's place in the batch, so that the
        number of devices and a restart have no effect on them. Classes that a loss samples (`Loss.class_samples`) are
        drawn from the same key once for the whole batch; `confusion` then counts the most probable class among them.
        Tracing raises ArgumentError if `accumulate` does not divide the batch size, or `aux_weight` has more or fewer
        numbers than there are auxiliary outputs.
    """
    recipe = _TrainRecipe(
        apply=rematerialised(model.apply) if remat else model.apply,
        optimiser=tx,
        loss=loss,
        prepare=prepare,
        augment=augment,
        teach=teach,
        accumulate=accumulate,
        ema_decay=ema_decay,
        aux_weight=aux_weight,
        schedule=schedule,
        report_gradients=gradients,
        axis_name=axis_name,
    )

    def step(state: TrainState, batch: Mapping[str, jax.Array], key: Key) -> tuple[TrainState, Metrics]:
        return _train_step(recipe, state, batch, key)

    return step


@dataclass(frozen=True)
class _TrainRecipe:
    """The arguments of `make_train_step`."""

    apply: Callable[..., Any]
    optimiser: optax.GradientTransformation
    loss: Objective
    prepare: Prepare
    augment: Augment | None
    teach: Teach | None
    accumulate: int
    ema_decay: float
    aux_weight: float | Sequence[float]
    schedule: optax.Schedule | None
    report_gradients: bool
    axis_name: str | None


class _Shared(NamedTuple):
    """What all parts of a batch share: the number of the step, the classes that it samples, and the teacher, if any."""

    step: jax.Array
    chosen: ClassSample | None
    teacher: Mapping[str, PyTree]


class _Gradient(NamedTuple):
    """What is logged of the whole batch's loss, and this device's part of the gradient and the confusion matrix."""

    report: Report
    grads: PyTree
    batch_stats: PyTree
    confusion: jax.Array


def _train_step(
    recipe: _TrainRecipe, state: TrainState, batch: Mapping[str, jax.Array], key: Key
) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(key, state.step)
    augment_key, dropout_key = jax.random.split(key)
    batch = _with_keys(recipe, batch, augment_key)
    chosen = classes_of_step(recipe.loss, batch["label"], key, recipe.axis_name)
    gradient_of = _gradient_at_once if recipe.accumulate == 1 else _gradient_accumulated
    shared = _Shared(state.step, chosen, whole(state.variables))
    result = gradient_of(recipe, replace(state, params=whole(state.params)), batch, dropout_key, shared)
    grads, confusion = _sum_over(recipe.axis_name, (result.grads, result.confusion))
    # The new parameters take the place of the old ones in memory. Without `after_all` XLA copies these at the start of
    # the step, because it does not see that the gradients are the last to read them.
    before, grads = after_all(state.params, grads)
    updates, opt_state = recipe.optimiser.update(grads, state.opt_state, before)
    params = optax.apply_updates(before, updates)
    metrics = {
        "loss": result.report.loss,
        "terms": result.report.terms,
        "grad_norm": tree_norm(grads),
        "param_norm": tree_norm((params, result.batch_stats)),
        "confusion": confusion,
    }
    if recipe.schedule is not None:
        metrics["learning_rate"] = jnp.float32(recipe.schedule(state.step))
    if recipe.report_gradients:
        metrics["gradients"] = {path: optax.tree.norm(gradient) for path, gradient in by_path(grads).items()}
    ema_params = average_of(state, params, recipe.ema_decay)
    return TrainState(state.step + 1, params, result.batch_stats, opt_state, ema_params), metrics


def _with_keys(recipe: _TrainRecipe, batch: Mapping[str, jax.Array], key: Key) -> dict[str, jax.Array]:
    """Returns image and label; if there is augmentation, also a key for each example by its place in the batch."""
    size = batch["image"].shape[0]
    if size % recipe.accumulate:
        raise ArgumentError(f"accumulate={recipe.accumulate} does not divide the batch of {size} on this device.")
    place = jnp.arange(size)
    if recipe.axis_name is not None:
        place = place + size * jax.lax.axis_index(recipe.axis_name)
    kept = {"image": batch["image"], "label": batch["label"]}
    if recipe.augment is not None or recipe.teach is not None:
        kept["keys"] = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, place)
    return kept


def _forward(
    recipe: _TrainRecipe,
    params: PyTree,
    batch_stats: PyTree,
    shared: _Shared,
    batch: Mapping[str, jax.Array],
    key: Key,
) -> tuple[list[PyTree], tuple[PyTree, jax.Array]]:
    """Returns the stats S_i of the logits and of each auxiliary output, and (new batch statistics, confusion)."""
    image, label, lesson = batch["image"], class_indices(batch["label"]), {}
    if recipe.teach is not None:
        image, label, lesson[LESSON] = recipe.teach(batch, shared.teacher)
    elif recipe.augment is None:
        image = recipe.prepare(image)
    else:
        # Without the barrier XLA fuses the augmentation into every operation that reads the image, and repeats it.
        image, label = jax.lax.optimization_barrier(jax.vmap(recipe.augment)(batch["keys"], image, label))
    image, label = spread(image), spread(label)
    variables, chosen = {"params": params, "batch_stats": batch_stats}, shared.chosen
    apply = at_step(recipe.apply, shared.step)
    apply = apply if chosen is None else of_classes(apply, chosen.classes)
    (logits, out), mutated = apply(variables, image, train=True, rngs={"dropout": key}, mutable=["batch_stats"])
    loss = with_classes(recipe.loss, chosen)
    aux = [resize_logits(head, label.shape[1:]) for head in out["aux"]]
    stats = [loss.stats(logits, label, {**out, **lesson, "step": shared.step, GUIDE: (image, logits)})]
    stats += [loss.of_logits.stats(each, label, lesson) for each in aux]
    new_batch_stats = mutated["batch_stats"] if "batch_stats" in mutated else batch_stats
    if chosen is None:
        _, confusion = predict_and_count(logits, label, recipe.loss.of_logits.multilabel)
    else:  # the most probable of the sampled classes
        confusion = confusion_matrix(chosen.classes[predict_classes(logits)], label, chosen.place.shape[0])
    return stats, (new_batch_stats, confusion)


def _report_and_cotangent(recipe: _TrainRecipe, stats: list[PyTree]) -> tuple[Report, list[PyTree]]:
    """Returns what is logged of L, and dL/dS, at the totals over all devices."""
    totals = _sum_over(recipe.axis_name, stats)
    value = functools.partial(value_and_report, recipe.loss, recipe.aux_weight)
    cotangent, report = jax.grad(value, has_aux=True)(totals)
    return report, cotangent


def _gradient_at_once(
    recipe: _TrainRecipe, state: TrainState, batch: Mapping[str, jax.Array], key: Key, shared: _Shared
) -> _Gradient:
    stats, pull_back, (batch_stats, confusion) = jax.vjp(
        lambda params: _forward(recipe, params, state.batch_stats, shared, batch, key), state.params, has_aux=True
    )
    report, cotangent = _report_and_cotangent(recipe, stats)
    return _Gradient(report, pull_back(cotangent)[0], batch_stats, confusion)


def _gradient_accumulated(
    recipe: _TrainRecipe, state: TrainState, batch: Mapping[str, jax.Array], key: Key, shared: _Shared
) -> _Gradient:
    """Makes two passes over the micro-batches: the first adds their stats, the second pulls dL/dS back through each."""
    unit = 1 if recipe.teach is None else 2  # a teacher has pairs of images
    micro = {name: _split(array, recipe.accumulate, unit) for name, array in batch.items()}
    keys = jax.random.split(key, recipe.accumulate)
    first = jax.tree.map(lambda x: x[0], (micro, keys))

    def forward(params: PyTree, batch_stats: PyTree, part: Any) -> Any:
        return _forward(recipe, params, batch_stats, shared, *part)

    def add_stats(total: PyTree, part: Any) -> tuple[PyTree, None]:
        stats, _ = forward(state.params, state.batch_stats, part)
        return jax.tree.map(jnp.add, total, stats), None

    def add_gradient(carry: Any, part: Any) -> tuple[Any, None]:
        grads, batch_stats, confusion = carry
        _, pull_back, (batch_stats, more) = jax.vjp(
            lambda params: forward(params, batch_stats, part), state.params, has_aux=True
        )
        return (jax.tree.map(jnp.add, grads, pull_back(cotangent)[0]), batch_stats, confusion + more), None

    stats_shape, (_, confusion_shape) = jax.eval_shape(lambda: forward(state.params, state.batch_stats, first))
    totals, _ = jax.lax.scan(add_stats, _zeros(stats_shape), (micro, keys))
    report, cotangent = _report_and_cotangent(recipe, totals)
    start = (jax.tree.map(jnp.zeros_like, state.params), state.batch_stats, _zeros(confusion_shape))
    (grads, batch_stats, confusion), _ = jax.lax.scan(add_gradient, start, (micro, keys))
    return _Gradient(report, grads, batch_stats, confusion)


def make_eval_step(
    model: Network,
    loss: Loss,
    *,
    prepare: Prepare = unchanged,
    axis_name: str | None = None,
    measures: Mapping[str, Measure] | None = None,
    maps: bool = False,
) -> EvalStep:
    """Returns `step(state, batch) -> {"confusion": i32[k,k], "stats": sums of the loss}`, over the whole batch.

    The sums of several batches add; `loss.value` of the total is the loss of the split. Logits are resized to the
    native size of each label (`batch["size"]`). Losses of whole images or unlabelled pixels leave out padding.

    Args:
        model, loss, prepare, axis_name: as for `make_train_step`.
        measures: further sums by name, each a function of (logits, labels) such as `metrics.calibration_stats`.
        maps: whether to add "maps": {"prediction" and "label": u8|u16[b,h,w], "size": i32[b,2]} of the whole batch,
            which are not sums; each image is the `size` (height, width) in the top left. Only under `jit`.
    """
    measures = measures or {}

    def step(state: TrainState, batch: Mapping[str, jax.Array]) -> dict[str, PyTree]:
        image, label = spread(prepare(batch["image"])), spread(class_indices(batch["label"]))
        logits, out = model.apply(whole(state.variables), image, train=False)
        out = {**out, GUIDE: (image, logits)}
        (height, width), (rows, columns), seen, covered = image.shape[1:3], label.shape[1:], label, None
        inside = inside_mask(batch["inside"], (height, width)) if "inside" in batch else None
        if "size" in batch:
            if inside is not None and loss.learns_unlabelled:
                covered = covered_mask(batch["inside"], batch["size"], (height, width), (rows, columns))
            seen = to_image_size(label, batch["size"], (height, width))
            logits = to_native_sizes(logits, batch["size"], (rows, columns))
        predicted, confusion = predict_and_count(logits, label, loss.multilabel)
        sums = {"confusion": confusion, "stats": loss.stats(logits, label, out, seen, inside, covered)}
        sums |= {name: measure(logits, label) for name, measure in measures.items()}
        if not maps:
            return _sum_over(axis_name, sums)
        size = batch["size"] if "size" in batch else jnp.broadcast_to(jnp.array([(rows, columns)]), (len(label), 2))
        narrow = label_type(logits.shape[-1], loss.multilabel)
        drawn = {"prediction": predicted.astype(narrow), "label": of_map(label, batch["label"], narrow), "size": size}
        return {**_sum_over(axis_name, sums), "maps": drawn}

    return step


def resize_logits(logits: jax.Array, size: Sequence[int]) -> jax.Array:
    """f32[b,h,w,k] -> logits at the height and width `size`, bilinear; unchanged if they have this size already."""
    height, width = size
    return logits if logits.shape[1:3] == (height, width) else resize(logits, (height, width), method="bilinear")


def _sum_over(axis_name: str | None, tree: PyTree) -> PyTree:
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def _split(array: jax.Array, parts: int, unit: int) -> jax.Array:
    """[b, ...] -> [parts, b / parts, ...], strided by `unit` rows: each device splits its own part of the batch."""
    if unit > 1:
        return _split(array.reshape(-1, unit, *array.shape[1:]), parts, 1).reshape(parts, -1, *array.shape[1:])
    return array.reshape(array.shape[0] // parts, parts, *array.shape[1:]).swapaxes(0, 1)


def _zeros(shapes: PyTree) -> PyTree:
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
