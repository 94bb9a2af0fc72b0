"""The same numbers as a PyTorch model with the same weights, in evaluation and for one gradient step."""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from helpers.variables import variable_shapes

from jaxseg import pretrained

# Quicker to compile by far, and the same arithmetic.
FAST_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def draw(module: Any) -> None:
    """Gives a torch module weights and running statistics that no mistake of layout leaves unchanged."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, x in module.state_dict().items():
            if not x.is_floating_point():
                continue
            noise = torch.randn(x.shape, generator=generator)
            if name.endswith("running_var"):
                x.copy_(1.0 + 0.5 * torch.rand(x.shape, generator=generator))
            elif name.endswith("running_mean") or name.endswith("bias"):
                x.copy_(0.1 * noise)
            elif x.ndim >= 2:
                x.copy_(noise / (x[0].numel() ** 0.5))
            else:
                x.copy_(1.0 + 0.1 * noise)


def state_of(module: Any) -> dict[str, np.ndarray]:
    """The module's `state_dict` as NumPy arrays."""
    return {name: x.detach().numpy().copy() for name, x in module.state_dict().items()}


def load(model: nn.Module, module: Any, rules: Iterable[pretrained.Rule], channels: int = 3) -> dict[str, Any]:
    """Our variables with the module's weights; every name must be accounted for on both sides."""
    return pretrained.merge(variable_shapes(model, (1, 64, 64, channels)), pretrained.convert(state_of(module), rules))


def images(height: int, width: int, channels: int = 3, batch: int = 2, seed: int = 0) -> np.ndarray:
    """f32[b,h,w,c], standard normal."""
    return (
        np.random.default_rng(seed * 10**6 + height * 1000 + width)
        .normal(size=(batch, height, width, channels))
        .astype(np.float32)
    )


def clear_images(module: Any, size: tuple[int, int], draws: int = 6) -> np.ndarray:
    """Of several draws of images the one whose inputs of `torch.nn.ReLU`, in training, stay farthest from zero."""
    import torch

    nearest: list[float] = []
    note = lambda _, given: nearest.append(float(given[0].abs().min()))  # noqa: E731
    hooks = [x.register_forward_pre_hook(note) for x in module.modules() if isinstance(x, torch.nn.ReLU)]
    state = copy.deepcopy(module.state_dict())

    def margin(x: np.ndarray) -> float:
        nearest.clear()
        with torch.no_grad():
            module.train()(nchw(x))
        module.load_state_dict(state)  # the running statistics have moved
        return min(nearest, default=1.0)

    best = max((images(*size, seed=seed) for seed in range(draws)), key=margin)
    for hook in hooks:
        hook.remove()
    return best


def nchw(x: np.ndarray) -> Any:
    """f[b,h,w,c] -> torch f[b,c,h,w]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def nhwc(x: Any) -> np.ndarray:
    """torch f[b,c,h,w] -> f[b,h,w,c]."""
    return x.detach().numpy().transpose(0, 2, 3, 1)


def assert_close(ours: Any, theirs: Any, relative: float = 1e-4) -> None:
    """The largest difference is at most `relative` of the largest value, and the shapes agree."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    scale = np.abs(theirs).max()
    assert scale > 1e-6, "the reference is zero: nothing is compared"
    assert np.abs(ours - theirs).max() <= relative * scale, np.abs(ours - theirs).max() / scale


def at_any_size(module: Any, align_corners: bool = True) -> Any:
    """A network of segmentation_models.pytorch that enlarges its logits to the image's size, whatever that is.

    Theirs refuses sides that are no multiples of the encoder's stride, and enlarges by a factor: make it with
    `upsampling=1`.
    """
    import torch

    class AtAnySize(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module
            self.inner.requires_divisible_input_shape = False

        def forward(self, x: Any) -> Any:
            logits = self.inner(x)
            return torch.nn.functional.interpolate(
                logits, size=x.shape[2:], mode="bilinear", align_corners=align_corners
            )

        def state_dict(self, *args: Any, **kwargs: Any) -> Any:
            return self.inner.state_dict(*args, **kwargs)

    return AtAnySize()


def check_eval(
    model: nn.Module,
    module: Any,
    rules: Iterable[pretrained.Rule],
    sizes: Sequence[tuple[int, int]] = ((64, 96), (65, 79)),
    *,
    ours: Callable[[Any], Sequence[jax.Array]] = lambda result: [result[0]],
    theirs: Callable[[Any], Sequence[Any]] = lambda result: [result],
    channels: int = 3,
    relative: float = 1e-4,
) -> None:
    """Both models agree in evaluation mode, at each of `sizes`.

    Args:
        ours, theirs: what to compare, from what either model returns: f[b,h,w,c] and torch f[b,c,h,w].
    """
    import torch

    draw(module)
    module.eval()
    variables = load(model, module, rules, channels)
    apply = jax.jit(lambda v, x: tuple(ours(model.apply(v, x, train=False))), compiler_options=FAST_COMPILE)
    for height, width in sizes:
        x = images(height, width, channels)
        with torch.no_grad():
            expected = theirs(module(nchw(x)))
        given = apply(variables, x)
        assert len(given) == len(expected)
        for a, b in zip(given, expected):
            assert_close(a, nhwc(b), relative)


def check_gradients(
    model: nn.Module,
    module: Any,
    rules: Sequence[pretrained.Rule],
    size: tuple[int, int] = (64, 64),
    *,
    theirs: Callable[[Any], Any] = lambda result: result,
    relative: float = 1e-3,
    seed: int = 0,
) -> None:
    """Gradients and moved running statistics of one training step agree, entry by entry.

    The loss is the mean of logits times fixed noise plus half their mean square. Models must draw nothing (dropout 0).
    A parameter's gradient may differ by `relative` of its own largest value plus 1e-5 of the largest of all. The images
    keep the inputs of ReLUs away from zero, where rounding decides on which side they lie.
    """
    import torch

    draw(module)
    variables = load(model, module, rules)
    x = clear_images(module, size)
    with torch.no_grad():
        shape = nhwc(theirs(module.eval()(nchw(x)))).shape
    weight = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    module.train()
    logits = theirs(module(nchw(x)))
    (logits * nchw(weight)).mean().add(0.5 * (logits**2).mean()).backward()

    def loss(params: Any) -> tuple[jax.Array, Any]:
        (out, _), mutated = model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
        return jnp.mean(out * weight) + 0.5 * jnp.mean(out**2), mutated

    (_, mutated), grads = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=FAST_COMPILE)(
        variables["params"]
    )
    named = {name: p.grad.numpy() for name, p in module.named_parameters() if p.grad is not None}
    expected = pretrained.convert(named, rules)
    given = pretrained.flatten({"params": grads})
    largest = max(np.abs(g).max() for g in expected.values())
    assert set(expected) == set(given)
    for path, theirs_ in expected.items():
        difference = np.abs(np.asarray(given[path]) - theirs_).max()
        assert difference <= relative * np.abs(theirs_).max() + 1e-5 * largest, (path, difference)
    moved = pretrained.convert({k: v for k, v in state_of(module).items() if "running_mean" in k}, rules)
    stats = pretrained.flatten(mutated)
    for path, theirs_ in moved.items():
        assert_close(stats[path], theirs_, relative)


def taken(features, at):
    """What torchvision's `features` give after the layers `at`."""

    def run(x):
        result = []
        for i, layer in enumerate(features):
            x = layer(x)
            if i in at:
                result.append(x)
        return result

    return run


def check_pyramid(encoder, module, module_rules, at, sizes=((64, 96), (65, 79))):
    """An encoder gives what torchvision's `features` give after the layers `at`."""
    import torch

    class Features(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, x):
            return taken(module.features, at)(x)

    moved = [rule._replace(pattern=r"inner\." + rule.pattern) for rule in module_rules]
    check_eval(encoder, Features(), moved, sizes, ours=list, theirs=list)
