"""The losses of a generator of images and of its discriminator (Goodfellow et al. 2014, "Generative Adversarial Nets").

Both read the verdicts of the discriminator D, logits of the probability that an image is real, and no labels.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxseg.arguments import BelowOne
from jaxseg.losses.pixels import SumWeight
from jaxseg.types import Array


def generator(verdicts: Mapping[str, Array], inside: Array | None = None) -> SumWeight:
    """-log D(G(z)), the mean over generated images, as (sum f32[], weight f32[]).

    This is the form that does not saturate where D is sure (Goodfellow 2014, section 3, below equation 1).

    Args:
        verdicts: has "fooled", f32[b], the logits of D for generated images, with D's parameters as constants.
        inside: bool[b,h,w]; an image without a True pixel is a padding example, and its generated image does not
            count. None: all count.
    """
    return _mean(jax.nn.softplus(-_logits(verdicts, "fooled")), inside)


def discriminator(
    verdicts: Mapping[str, Array], inside: Array | None = None, *, smoothing: BelowOne = 0.0
) -> SumWeight:
    """-log D(x) - log(1 - D(G(z))), the mean over pairs of a real and a generated image, as (sum f32[], weight f32[]).

    The two binary cross-entropies are added (Goodfellow 2014, equation 1): 2 log 2 where D always answers 1/2.

    Args:
        verdicts: has "real" and "fake", f32[b] each, the logits of D for real images, and for generated images that are
            constants.
        inside: as for `generator`.
        smoothing: s, where the target of a real image is 1 - s in place of 1 (one-sided label smoothing, Salimans et
            al. 2016, "Improved Techniques for Training GANs", section 3.4).
    """
    real, fake = _logits(verdicts, "real"), _logits(verdicts, "fake")
    of_real = (1.0 - smoothing) * jax.nn.softplus(-real) + smoothing * jax.nn.softplus(real)
    return _mean(of_real + jax.nn.softplus(fake), inside)


def _logits(verdicts: Mapping[str, Array], name: str) -> jax.Array:
    logits = jnp.asarray(verdicts[name], jnp.float32)
    if logits.ndim != 1:
        raise ValueError(f"A discriminator has one verdict an image, f32[b], got {name!r} of shape {logits.shape}.")
    return logits


def _mean(losses: jax.Array, inside: Array | None) -> SumWeight:
    """f32[b] -> their sum over the images that count, and the number of these."""
    if inside is None:
        return jnp.sum(losses), jnp.float32(losses.size)
    counts = jnp.any(jnp.asarray(inside), axis=(1, 2))
    if counts.shape != losses.shape:
        raise ValueError(f"inside needs one mask for each of the {losses.size} images, got {inside.shape}.")
    return jnp.sum(jnp.where(counts, losses, 0.0)), jnp.sum(counts, dtype=jnp.float32)
