"""A tiny U-Net over the residual encoder, with random variables, and a file of them."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import models, pretrained
from jaxseg.pretrained.files import safetensors_of

ENCODED = {"encoder": "residual", "encoder_args": {"widths": (4, 6, 8)}, "widths": (4, 6)}


def network(num_classes=3, channels=3, seed=0, **fields):
    """The network, and random variables of it."""
    model = models.build("unet", num_classes=num_classes, **(ENCODED | fields))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, channels)))
    rng = np.random.default_rng(seed)
    return model, jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def save(path, variables):
    """Writes the variables under our names; returns the path."""
    np.savez(path, **{name: np.asarray(x) for name, x in pretrained.flatten(variables).items()})
    return str(path)


def in_two_files(arrays):
    """{name: content} of arrays in two files of safetensors, every second one in each, and of the list of these."""
    parts = {f"model-0000{i + 1}-of-00002.safetensors": list(arrays)[i::2] for i in range(2)}
    made = {file: safetensors_of({n: np.asarray(arrays[n]) for n in names}, {}) for file, names in parts.items()}
    where = {name: file for file, names in parts.items() for name in names}
    index = json.dumps({"metadata": {"total_size": 1}, "weight_map": where})
    return {**made, "model.safetensors.index.json": index.encode()}


def assert_equal(a, b):
    a, b = pretrained.flatten(a), pretrained.flatten(b)
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_array_equal(a[path], b[path], err_msg=path)
