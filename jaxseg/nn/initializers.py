"""The initial values of kernels: He et al. 2015, "Delving Deep into Rectifiers", section 2.2.

Both draw with mean 0 and the variance 2 / fan_in of equation 10, with which features keep their mean square from one
convolution with a ReLU to the next. fan_in is the number of values that an output sums: kernel_size² c / groups.
"""

from flax import linen as nn

from jaxseg.types import Initializer

he_normal: Initializer = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")
"""A normal distribution, truncated at two standard deviations and widened to keep the variance."""

he_uniform: Initializer = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
"""The uniform distribution on [-a, a] with a = sqrt(6 / fan_in)."""

KERNEL_INITS: dict[str, Initializer] = {"he_normal": he_normal, "he_uniform": he_uniform}
"""The initialisers that a network takes by name; see `Layers.kernel_init`."""
