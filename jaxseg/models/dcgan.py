"""DCGAN: a generator that makes images from noise, and the discriminator that it learns from.

The generator G turns noise z into images, the discriminator D judges whether an image is real (Goodfellow et al. 2014,
"Generative Adversarial Nets"); both are convolutional (Radford et al. 2016, "Unsupervised Representation Learning with
Deep Convolutional Generative Adversarial Networks", section 3 and Figure 1). They learn from images alone, by the loss
terms `generator` and `discriminator`:

    python -m jaxseg.train --config experiments/generator.py --workdir runs/generator
    python -m jaxseg.predict --workdir runs/generator --samples 64 --out samples/

As the paper does in section 5.1, a linear classifier reads the features of D. It makes DCGAN a segmentation network,
too, whose mIoU says how well the classes can be read from features that were learned without labels.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.models.assembly import name_stages, to_logits
from jaxseg.nn import Conv, ConvTranspose, Layers, resize
from jaxseg.nn.initializers import normal
from jaxseg.nn.norm import is_identity
from jaxseg.types import DISCRIMINATOR, Key, PyTree

# Radford 2016, section 4: every kernel starts from a normal distribution with this standard deviation.
dcgan_normal = normal(0.02)


class Upward(nn.Module):
    """f[b,h,w,c] -> f[b,2h,2w,features]: transposed 4x4 convolution of stride 2, norm, activation.

    Children: "up", "norm". The convolution has a bias only where no norm follows.
    """

    features: int
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        bias, dtype = is_identity(self.common.norm), self.common.dtype
        x = ConvTranspose(self.features, 4, use_bias=bias, kernel_init=dcgan_normal, dtype=dtype, name="up")(x)
        return self.common.activate(self.common.normalise(x, "norm", train=train))


class Downward(nn.Module):
    """f[b,h,w,c] -> f[b,h/2,w/2,features]: 4x4 convolution of stride 2, norm, leaky ReLU with slope .2.

    Children: "conv", "norm". The convolution has a bias only where no norm follows.
    """

    features: int
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        x = _halving(self.features, is_identity(self.common.norm), self.common.dtype, "conv")(x)
        return jax.nn.leaky_relu(self.common.normalise(x, "norm", train=train), 0.2)


def _halving(features: int, use_bias: bool, dtype: Any, name: str) -> Conv:
    return Conv(features, 4, stride=2, padding=1, use_bias=use_bias, kernel_init=dcgan_normal, dtype=dtype, name=name)


class ImageGenerator(nn.Module):
    """Noise f32[b,d] -> (images f32[b,size,size,channels] in [-1, 1], features at stride 2, 4, ..., finest first).

    A projection to 4x4 pixels, transposed convolutions that double the size, and tanh (Radford 2016, Figure 1).

    Attributes:
        width: channels at half of the image's size; each halving of the size doubles them.
        levels: doublings; size = 4 · 2^levels.
        channels: of the images.
    """

    width: int
    levels: int
    channels: int
    common: Layers = Layers()

    @nn.compact
    def __call__(self, noise: jax.Array, *, train: bool = False) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        top, common = self.width * 2 ** (self.levels - 1), self.common
        bias = is_identity(common.norm)
        x = noise.reshape(noise.shape[0], 1, 1, -1)
        x = Conv(16 * top, 1, use_bias=bias, kernel_init=dcgan_normal, dtype=common.dtype, name="project")(x)
        x = common.activate(common.normalise(x.reshape(-1, 4, 4, top), "norm", train=train))
        features = [x]
        for i in reversed(range(self.levels - 1)):
            x = Upward(self.width * 2**i, common=common, name=f"stage{i}")(x, train=train)
            features.insert(0, x)
        x = ConvTranspose(self.channels, 4, kernel_init=dcgan_normal, dtype=common.dtype, name="image")(x)
        return jnp.tanh(x.astype(jnp.float32)), tuple(features)


class ImageDiscriminator(nn.Module):
    """Images f[b,size,size,c] -> (verdicts f32[b], features at stride 2, 4, ..., finest first).

    A verdict is the logit of the probability that the image is real. The first convolution, "stem", has no norm
    (Radford 2016, section 3); the last, "verdict", spans the 4x4 pixels that are left.

    Attributes:
        width: channels at stride 2; each halving of the size doubles them.
        levels: halvings; size = 4 · 2^levels.
    """

    width: int
    levels: int
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        x = jax.nn.leaky_relu(_halving(self.width, True, self.common.dtype, "stem")(x), 0.2)
        features = [x]
        for i in range(1, self.levels):
            x = Downward(self.width * 2**i, common=self.common, name=f"stage{i}")(x, train=train)
            features.append(x)
        x = Conv(1, 4, padding=0, kernel_init=dcgan_normal, dtype=self.common.dtype, name="verdict")(x)
        return x.astype(jnp.float32).reshape(-1), tuple(features)


class Judge(nn.Module):
    """Applies a discriminator in training with given variables, and drops its new running statistics.

    It has no parameters. It is a module so that `nn.rematerialised` takes each call as one stage.
    """

    discriminator: ImageDiscriminator

    @nn.compact
    def __call__(self, variables: Mapping[str, PyTree], images: jax.Array) -> jax.Array:
        """Variables of the discriminator, images f[b,size,size,c] -> verdicts f32[b]."""
        apart = self.discriminator.clone(parent=None)
        (verdicts, _), _ = apart.apply(variables, images, train=True, mutable=["batch_stats"])
        return verdicts


class DCGAN(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w; `generate` makes images of size x size pixels from noise.

    `out["verdicts"]` has what the loss terms `generator` and `discriminator` read, f32[b] each:

    - "real": D's logits for the images, which are resized to size x size;
    - "fake": those for as many generated images, which are constants here;
    - "fooled": the same numbers, where D's parameters are constants.

    So the gradient of each term reaches the parameters of its own player alone, and the running statistics of D's norms
    are those of real images. In training the noise of an example depends only on the "dropout" key and on the index of
    the example in the global batch, like the masks of `nn.Dropout`. In evaluation it depends on the example's image
    alone.

    The logits are a linear classifier of D's features of all levels, through which no gradient flows back. The images
    must be normalised to [-1, 1], the range of G: data.mean and data.std of .5. Children: "generator", "discriminator",
    "head".

    Attributes:
        num_classes: k, of the classifier.
        size: height and width of the generated images, a power of two.
        width: channels of both players at half of that size; each halving of the size doubles them (the paper's
            generator has 128, its 4x4 pixels 1024; torch's example has 64).
        latent: d, normally distributed numbers that an image is made from (the paper draws them uniformly).
    """

    num_classes: int
    size: Literal[8, 16, 32, 64, 128, 256] = 64
    width: int = 64
    latent: int = 100
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        size, levels, common = (self.size, self.size), self._levels, self.common
        real = image if image.shape[1:3] == size else resize(image, size)
        discriminator = ImageDiscriminator(self.width, levels, common=common, name=DISCRIMINATOR)
        verdict, features = discriminator(real, train=train)

        learns = train and not self.is_initializing()
        noise = self._noise(self.make_rng("dropout"), image.shape[0]) if learns else self._noise_of(image)
        generator = ImageGenerator(self.width, levels, image.shape[-1], common=common, name="generator")
        made, decoded = generator(noise, train=train)
        if learns:
            trained = discriminator.variables
            frozen = {**trained, "params": jax.lax.stop_gradient(trained["params"])}
            judge = Judge(ImageDiscriminator(self.width, levels, common=common, parent=None), name="judge")
            fake, fooled = judge(trained, jax.lax.stop_gradient(made)), judge(frozen, made)
        else:
            fake = fooled = discriminator(made, train=train)[0]

        finest = features[0].shape[1:3]
        columns = jnp.concatenate([resize(each, finest) if i else each for i, each in enumerate(features)], axis=-1)
        shape = image.shape[1:3]
        logits = to_logits(jax.lax.stop_gradient(columns), self.num_classes, shape, dtype=common.dtype)
        verdicts = {"real": verdict, "fake": fake, "fooled": fooled}
        return logits, {"aux": (), "verdicts": verdicts, **name_stages(discriminator=features, generator=decoded)}

    def generate(self, variables: Mapping[str, PyTree], noise: jax.Array) -> jax.Array:
        """Noise f32[b,latent] -> images f32[b,size,size,c] in [-1, 1], with the running statistics of the norms.

        Args:
            variables: of the whole network, as `apply` takes them.
            noise: standard normal.
        """
        params = variables["params"]["generator"]
        own = {group: tree["generator"] for group, tree in variables.items() if "generator" in tree}
        channels = params["image"]["kernel"].shape[-1]
        return ImageGenerator(self.width, self._levels, channels, common=self.common, parent=None).apply(own, noise)[0]

    @property
    def _levels(self) -> int:
        return round(math.log2(self.size)) - 2

    def _noise(self, key: Key, count: int) -> jax.Array:
        """Returns f32[count,latent], each example's from its place in the global batch."""
        place = jnp.arange(count)
        if self.common.axis_name is not None:
            place = place + jax.lax.axis_index(self.common.axis_name) * count
        return self._normal(jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, place))

    def _noise_of(self, image: jax.Array) -> jax.Array:
        """f[b,h,w,c] -> f32[b,latent], each example's from the bits of its image, whatever its batch."""
        bits = jax.lax.bitcast_convert_type(image.astype(jnp.float32), jnp.uint32)
        seeds = jnp.sum(bits.reshape(len(image), -1), axis=1, dtype=jnp.uint32)
        return self._normal(jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(0), seeds))

    def _normal(self, keys: Key) -> jax.Array:
        return jax.vmap(lambda key: jax.random.normal(key, (self.latent,)))(keys)
