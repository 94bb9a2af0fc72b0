"""jaxseg: semantic image segmentation in JAX and Flax.

Importing the package is cheap: it loads no model, no data set library and no plotting. Start at
`experiments/resunet.py`, then read `jaxseg/train.py`, `jaxseg/step.py` and `jaxseg/models/resunet.py`.
"""

__version__ = "0.1.0"
