# %% [markdown]
# # Build a network from blocks
#
# A U-shaped network of the blocks of `jaxseg.nn` in thirty lines, trained with the step and loss of jaxseg on images of
# shapes; then the same network with one block exchanged, and the gradients of both. A few minutes on a CPU.

# %%
import functools
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import linen

from jaxseg import losses, metrics, nn, state, step
from jaxseg.data.shapes import CLASSES, COLORS, ShapesSource
from jaxseg.models import summary

# %% [markdown]
# ## The network
#
# A model of jaxseg is a Linen module that returns logits at the size of the image and a dictionary, whose `aux` are
# further logits for the loss, here none. The encoder halves the resolution at each level, the decoder doubles it and
# reads the encoder's features of the same level (the skip). `pad_to_multiple` and `crop_to` are for images that the
# strides do not divide.


# %%
class Segmenter(linen.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w."""

    num_classes: int
    widths: tuple[int, ...] = (16, 32, 64)
    units: int = 1
    shortcut: str = "auto"  # "none": the plain network
    gate: bool = False  # an attention gate on each skip
    common: nn.Layers = nn.Layers()

    def level(self, x, i, path, train, stride=1):
        for j in range(self.units):
            first = {"stride": stride if j == 0 else 1, "shortcut": self.shortcut, "common": self.common}
            x = nn.PreActBlock(self.widths[i], **first, name=f"{path}{i}_{j}")(x, train=train)
        return x

    @linen.compact
    def __call__(self, image, *, train=False):
        x, size = nn.pad_to_multiple(image, 2 ** (len(self.widths) - 1))
        x, skips = nn.ConvNormAct(self.widths[0], common=self.common, name="stem")(x, train=train), []
        for i in range(len(self.widths)):
            x = self.level(x, i, "down", train, stride=1 if i == 0 else 2)
            skips.append(x)
        for i in reversed(range(len(self.widths) - 1)):
            skip = skips[i]
            if self.gate:
                skip, _ = nn.AttentionGate(common=self.common, name=f"gate{i}")(skip, x)
            x = jnp.concatenate([nn.upsample(x, 2), skip], axis=-1)
            x = self.level(x, i, "up", train)
        x = self.common.activate(self.common.normalise(x, "last_norm", train=train))
        return nn.crop_to(nn.classifier(self.num_classes, name="head")(x), size), {"aux": ()}


# %% [markdown]
# What it costs, module by module, without computing anything: `down1_0` is the first unit of the second level.

# %%
SIDE, BATCH, STEPS = 32, 16, 300

network = Segmenter(len(CLASSES))
for row in summary.modules(network, (SIDE, SIDE)):
    if "/" not in row.path:
        costs = f"{row.parameters:8,} parameters {row.flops / 2e6:8.2f} M multiply-adds"
        print(f"{row.path or 'all':12} {row.kind:12} {row.shape!s:14} {costs}")

# %% [markdown]
# ## Data
#
# Images of coloured shapes, made as they are read: no download. They are f32[b,h,w,3] from -1 to 1.


# %%
def read(split, length):
    source = ShapesSource(split, length, (SIDE, SIDE))
    examples = [source[i] for i in range(length)]
    images = np.stack([example["image"] for example in examples]) / 127.5 - 1
    return images.astype(np.float32), np.stack([example["label"] for example in examples])


train_images, train_labels = read("train", 512)
val_images, val_labels = read("val", 128)

# %% [markdown]
# ## Training
#
# The step is a pure function: state, batch and key give the next state and what to log. `gradients=True` adds the norm
# of each parameter's gradient. The loss is cross-entropy plus Dice.


# %%
def train(network, seed=0):
    """Returns the state, the norm of each gradient at the first and last step, and the seconds that it took."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 3e-3, 20, STEPS)
    tx = optax.adamw(schedule, weight_decay=1e-4)
    loss = losses.make_loss("cross_entropy + dice", num_classes=len(CLASSES))
    run_step = jax.jit(step.make_train_step(network, tx, loss, gradients=True))
    first = jax.jit(lambda key: state.init_state(network, tx, key, (SIDE, SIDE, 3)))
    now, order, began = first(jax.random.key(seed)), np.random.default_rng(seed), time.perf_counter()
    norms = []
    for number in range(STEPS):
        chosen = order.choice(len(train_images), BATCH, replace=False)
        batch = {"image": train_images[chosen], "label": train_labels[chosen]}
        now, logged = run_step(now, batch, jax.random.key(seed + 1))
        if number in (0, STEPS - 1):
            norms.append(jax.tree.map(float, logged["gradients"]))
        if number % 50 == 0 or number == STEPS - 1:
            print(f"step {number:4}  loss {float(logged['loss']):.3f}")
    return now, norms, time.perf_counter() - began


def evaluate(network, trained):
    """Returns the mIoU over the validation images, and their classes u8[n,h,w]."""
    apply = jax.jit(functools.partial(network.apply, train=False))
    logits = [apply(trained.variables, images)[0] for images in np.split(val_images, 8)]
    classes = np.concatenate([np.asarray(metrics.predict_classes(each)) for each in logits])
    counts = metrics.confusion_matrix(jnp.asarray(classes), jnp.asarray(val_labels, jnp.int32), len(CLASSES))
    return float(metrics.scores(np.asarray(counts)).mean_iou), classes


trained, norms, seconds = train(network)
score, classes = evaluate(network, trained)
print(f"mIoU {score:.3f} after {STEPS} steps, {seconds:.0f} s")

# %% [markdown]
# ## Predictions

# %%
palette = np.asarray(COLORS, np.uint8)
figure, axes = plt.subplots(3, 4, figsize=(8, 6), layout="constrained")
for column in range(4):
    pictures = ((val_images[column] + 1) / 2, palette[val_labels[column]], palette[classes[column]])
    for panel, picture, name in zip(axes[:, column], pictures, ("image", "mask", "prediction")):
        panel.imshow(picture, interpolation="nearest")
        panel.set(xticks=[], yticks=[], ylabel=name if column == 0 else "")
figure.savefig("predictions.png", dpi=100)

# %% [markdown]
# ## Exchange one block
#
# The same data, order of images and number of steps, with the shortcuts off and with gates on the skips. One seed says
# little, so the first network is trained with another seed too: a difference between two networks that is not clearly
# larger than that between two seeds of one is no finding. `python -m jaxseg.sweep` compares with several seeds and
# gives intervals.
#
# On one CPU core, with jax 0.10, this printed residual .457, plain .577, gated .334, and residual with another seed
# .328. The plain network is above both residual ones, and the gated one between them, but by no more than the two seeds
# differ: of none of this is it clear that it is more than the seed. Shortcuts are for depth (docs/results.md and
# docs/ablations.md have longer runs of both).

# %%
others = {"plain": Segmenter(len(CLASSES), shortcut="none"), "gated": Segmenter(len(CLASSES), gate=True)}
scores, gradients = {"residual": score}, {"residual": norms}
for name, other in others.items():
    other_trained, gradients[name], _ = train(other)
    scores[name], _ = evaluate(other, other_trained)
again, _, _ = train(network, seed=1)
scores["residual, another seed"], _ = evaluate(network, again)
for name, value in scores.items():
    print(f"{name:24} mIoU {value:.3f}")

# %% [markdown]
# ## Gradients
#
# The norm of the gradient of each 3x3 kernel of the units, in the order of the forward pass, at the first step. Five
# units are few; the page on residual units (`docs/blocks/residual.md`) has the same for thirty-two.

# %%
ORDER = [
    f"{path}{i}_{j}"
    for path, levels in (("down", (0, 1, 2)), ("up", (1, 0)))
    for i in levels
    for j in range(network.units)
]
figure, panel = plt.subplots(figsize=(7, 3.5), layout="constrained")
for name, (at_first, _) in gradients.items():
    values = [at_first[f"{unit}/conv{k}/kernel"] for unit in ORDER for k in (1, 2)]
    panel.plot(range(1, len(values) + 1), values, marker=".", label=name)
    print(f"{name:10} first kernel {values[0]:.4f}, last {values[-1]:.4f}")
panel.set(yscale="log", xlabel="3x3 convolution, from the image", ylabel="norm of the gradient, first step")
panel.legend()
figure.savefig("gradients.png", dpi=100)
