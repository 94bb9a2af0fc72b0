# %% [markdown]
# # Read the parts of a network
#
# A network is a Linen module: a description without numbers. Its variables are a dictionary of arrays. This notebook
# looks at both, at the named stages, and at one gradient.

# %%
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import losses, models, pretrained
from jaxseg.models import encoders

print(models.names())
print(encoders.names())

# %% [markdown]
# ## Module and variables
#
# `build` checks every field and names the nearest right one. `eval_shape` finds all shapes without computing anything.

# %%
model = models.build("unet", num_classes=3, widths=(8, 16, 32))
image = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 50, 70, 3)), jnp.float32)
shapes = jax.eval_shape(model.init, jax.random.key(0), image)
for path, shape in sorted(pretrained.flatten(shapes).items()):
    print(f"{path:55} {shape.dtype} {list(shape.shape)}")

# %% [markdown]
# ## Logits and named stages
#
# The logits have the image's own size, here 50x70, which no stride divides. `out` holds the auxiliary logits (`aux`)
# and every named stage.

# %%
variables = jax.jit(model.init)(jax.random.key(0), image)
logits, out = jax.jit(model.apply)(variables, image)
assert logits.shape == (2, 50, 70, 3) and logits.dtype == jnp.float32
for name, value in out.items():
    print(name, [list(x.shape) for x in jax.tree.leaves(value)])

# %% [markdown]
# ## The loss and its gradient
#
# A loss adds sums over pixels and divides once. The pixels with label 255 are in neither sum.

# %%
labels = jnp.asarray(np.random.default_rng(1).integers(0, 3, (2, 50, 70)), jnp.int32).at[:, :10].set(255)
loss = losses.make_loss("cross_entropy + dice", num_classes=3)


def objective(params):
    """The loss of this batch as a function of the parameters, with the statistics of the batch."""
    state = {**variables, "params": params}
    (logits, _), _ = model.apply(state, image, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(1)})
    return loss(logits, labels)


value, gradient = jax.jit(jax.value_and_grad(objective))(variables["params"])
print(f"loss {value:.4f}")
norms = {path: float(jnp.linalg.norm(x.ravel())) for path, x in pretrained.flatten(gradient).items()}
for path, norm in sorted(norms.items(), key=lambda item: -item[1])[:5]:
    print(f"{path:55} {norm:.4f}")

# %% [markdown]
# ## Another encoder
#
# An encoder turns an image into a pyramid. Any encoder fits any network with a field `encoder`. Its `strides` and
# `widths` are known before anything is computed.

# %%
encoder = encoders.build("resnet18")
print(encoder.strides, encoder.widths)
with_resnet = models.build("unet", num_classes=3, encoder="resnet18", widths=(16, 32, 64, 128))
shapes = jax.eval_shape(with_resnet.init, jax.random.key(0), image)
print(sum(x.size for x in jax.tree.leaves(shapes["params"])), "parameters")
