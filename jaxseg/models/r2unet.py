"""R2U-Net (Alom et al. 2018, "Recurrent Residual Convolutional Neural Network based on U-Net (R2U-Net) ...").

A U-Net whose stages are two recurrent convolutional layers and a shortcut (Fig. 4d). A recurrent layer convolves its
input and its own result of the time before (equations 1 and 2), `steps` times after the first.

The widely used implementations have one kernel for both, which reads their sum; the paper writes two, w^f and w^r.
`kernels` chooses. `steps=0` is a residual U-Net, Fig. 4c. The features of each time have a norm of their own, since
their means and variances differ; the paper names no norm.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import WholeNotNegative
from jaxseg.models.assembly import name_stages, to_logits, walk_up
from jaxseg.nn import Conv, ConvTranspose, Layers, is_identity, max_pool, pad_to_multiple
from jaxseg.nn.conv import unit_gain

Kernels = Literal["one", "two"]


class RecurrentConv(nn.Module):
    """O_0 = act(norm_0(w^f x)), O_t = act(norm_t(w^f x + w^r O_(t-1))) (eqs. 1-2): f[b,h,w,c] -> f[b,h,w,c].

    With kernels="one" w^r is w^f. Children: "forward", "recurrent" (of two kernels), "norm0", ..., "norm{steps}".
    """

    steps: int = 2
    kernels: Kernels = "one"
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        common, features = self.common, x.shape[-1]
        form: dict[str, Any] = {"dtype": common.dtype, "kernel_init": common.kernel_init}
        forward = Conv(features, use_bias=is_identity(common.norm), **form, name="forward")
        first = forward(x)
        y = common.activate(common.normalise(first, "norm0", train=train))
        if self.steps and self.kernels == "two":
            recurrent = Conv(features, use_bias=False, **form, name="recurrent")
        for t in range(1, self.steps + 1):
            y = forward(x + y) if self.kernels == "one" else first + recurrent(y)
            y = common.activate(common.normalise(y, f"norm{t}", train=train))
        return y


class RecurrentBlock(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,features]: two recurrent layers and the sum with what goes into them (Fig. 4d).

    A 1x1 convolution first brings the input to the features. Children: "project", "layer1", "layer2".
    """

    features: int
    steps: int = 2
    kernels: Kernels = "one"
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        # No activation follows, so the map keeps the mean square; nothing else bounds the sums of the stages.
        y = x = Conv(self.features, 1, dtype=self.common.dtype, kernel_init=unit_gain, name="project")(x)
        for name in ("layer1", "layer2"):
            y = RecurrentConv(self.steps, self.kernels, self.common, name=name)(y, train=train)
        return x + y


class RecurrentEncoder(nn.Module):
    """f[b,h,w,c] -> features of each stage, finest first, with 2x2 max-pooling between them. Children: "stage0", ..."""

    widths: tuple[int, ...]
    steps: int
    kernels: Kernels
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        pyramid = []
        for i, features in enumerate(self.widths):
            x = x if i == 0 else max_pool(x, 2)
            x = RecurrentBlock(features, self.steps, self.kernels, self.common, name=f"stage{i}")(x, train=train)
            pyramid.append(x)
        return tuple(pyramid)


class RecurrentStage(nn.Module):
    """(f[b,h,w,c], skip f[b,2h,2w,features]) -> f[b,2h,2w,features]. Children: "up", "block"."""

    features: int
    steps: int
    kernels: Kernels
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, *, train: bool = False) -> jax.Array:
        x = ConvTranspose(self.features, 2, 2, dtype=self.common.dtype, name="up")(x)
        block = RecurrentBlock(self.features, self.steps, self.kernels, self.common, name="block")
        return block(jnp.concatenate([x, skip], -1), train=train)


class RecurrentDecoder(nn.Module):
    """Pyramid (finest first) -> decoder features finest first, one level fewer. Children: "stage0", "stage1", ..."""

    steps: int
    kernels: Kernels
    common: Layers = Layers()

    @nn.compact
    def __call__(self, pyramid: tuple[jax.Array, ...], *, train: bool = False) -> tuple[jax.Array, ...]:

        def stage(i: int, x: jax.Array, skip: jax.Array) -> jax.Array:
            form = (skip.shape[-1], self.steps, self.kernels, self.common)
            return RecurrentStage(*form, name=f"stage{i}")(x, skip, train=train)

        return walk_up(stage, pyramid)


class R2UNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w; the image is padded to a multiple of the coarsest stride.

    Attributes:
        num_classes: k.
        widths: features of each stage, finest first; the last is the bottom.
        steps: t, how often each layer reads its own result (the paper: 2).
        kernels: "one" for input and result together, or "two", as the paper's equation 1.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    steps: WholeNotNegative = 2
    kernels: Kernels = "one"
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        form = (self.steps, self.kernels, self.common)
        x, size = pad_to_multiple(image, 2 ** (len(self.widths) - 1))
        pyramid = RecurrentEncoder(self.widths, *form, name="encoder")(x, train=train)
        decoded = RecurrentDecoder(*form, name="decoder")(pyramid, train=train)
        top = (*decoded, *pyramid)[0]
        logits = to_logits(top, self.num_classes, x.shape[1:3], size, dtype=self.common.dtype)
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=decoded)}
