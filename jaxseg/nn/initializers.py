"""The initial values of kernels: He et al. 2015, "Delving Deep into Rectifiers", section 2.2.

`he_normal` and `he_uniform` draw with mean 0 and the variance 2 / fan_in of equation 10, with which features keep their
mean square from one convolution with a ReLU to the next. fan_in is the number of values that an output sums:
kernel_size² c / groups. Networks from other papers have variances of their own, from the functions below.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.types import Initializer, Key

Distribution = Literal["normal", "truncated_normal", "uniform"]
Fan = Literal["fan_in", "fan_out", "fan_avg"]

# The standard deviation of a standard normal distribution that is truncated to [-2, 2].
_TRUNCATED_STD = np.float32(0.87962566103423978)


@dataclasses.dataclass(frozen=True)
class Draw:
    """An initialiser that draws all values from one distribution of mean 0: `draw(key, shape)` is f32[*shape].

    The values are those of `jax.nn.initializers`. The fields say what is drawn, so that `jaxseg.nn.initialise` can draw
    the kernels of a whole network at once.

    Attributes:
        distribution: "normal", "truncated_normal" at two standard deviations, or "uniform" on [-a, a].
        std: the standard deviation of the normal distribution before it is truncated. None: the variance of what is
            drawn is gain / fan.
        gain: the numerator of the variance.
        fan: the denominator of the variance: the number of inputs of an output, of outputs of an input, or their mean.
    """

    distribution: Distribution
    std: float | None = None
    gain: float = 1.0
    fan: Fan = "fan_in"

    def __post_init__(self) -> None:
        if self.std is not None and self.distribution == "uniform":
            raise ValueError("A uniform Draw takes its variance from gain and fan, and no std.")

    def __call__(self, key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        """f[*shape], drawn with this key."""
        if self.std is None:
            init = jax.nn.initializers.variance_scaling(self.gain, self.fan, self.distribution)
        elif self.distribution == "normal":
            init = jax.nn.initializers.normal(self.std)
        else:
            init = jax.nn.initializers.truncated_normal(self.std)
        return init(key, tuple(shape), dtype)

    def can_draw(self, shape: Sequence[int]) -> bool:
        """Whether there are values to draw, and a fan if the variance needs one."""
        return 0 not in shape and (self.std is not None or len(shape) >= 2)

    def factor(self, shape: Sequence[int]) -> np.float32:
        """The number that a standard draw is multiplied with: of N(0, 1), N(0, 1) within [-2, 2], or U(-1, 1)."""
        if self.std is not None:
            return np.float32(self.std)
        inputs, outputs = math.prod(shape[:-1]), math.prod(shape) // shape[-2]
        fans = {"fan_in": inputs, "fan_out": outputs, "fan_avg": (inputs + outputs) / 2}
        variance = np.float32(self.gain / fans[self.fan])
        if self.distribution == "uniform":
            return np.sqrt(np.float32(3) * variance)
        return np.sqrt(variance) / (_TRUNCATED_STD if self.distribution == "truncated_normal" else np.float32(1))


def normal(std: float) -> Draw:
    """The normal distribution of this standard deviation."""
    return Draw("normal", std)


def truncated_normal(std: float) -> Draw:
    """The normal distribution of this standard deviation, truncated at two of them: their σ is .88 of it."""
    return Draw("truncated_normal", std)


def variance_scaling(gain: float, fan: Fan, distribution: Distribution) -> Draw:
    """The distribution of variance gain / fan."""
    return Draw(distribution, None, gain, fan)


he_normal: Draw = variance_scaling(2.0, "fan_in", "truncated_normal")
"""A normal distribution, truncated at two standard deviations and widened to keep the variance."""

he_uniform: Draw = variance_scaling(2.0, "fan_in", "uniform")
"""The uniform distribution on [-a, a] with a = sqrt(6 / fan_in)."""

lecun_normal: Draw = variance_scaling(1.0, "fan_in", "truncated_normal")
"""The truncated normal distribution of variance 1 / fan_in (LeCun et al. 1998, "Efficient BackProp", equation 16)."""

xavier_uniform: Draw = variance_scaling(1.0, "fan_avg", "uniform")
"""The uniform distribution of variance 2 / (fan_in + fan_out) (Glorot & Bengio 2010, equation 16)."""

KERNEL_INITS: dict[str, Initializer] = {"he_normal": he_normal, "he_uniform": he_uniform}
"""The initialisers that a network takes by name; see `Layers.kernel_init`."""
