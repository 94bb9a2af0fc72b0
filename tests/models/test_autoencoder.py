"""The autoencoder: its layers in torch, its loss, the probe, and an encoder that a segmenter can take over."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from helpers.papers import Torch, conv, count, normed
from helpers.parity import FAST_COMPILE, assert_close
from helpers.variables import drawn, shapes

from jaxseg import models
from jaxseg.data import make_eval_loader
from jaxseg.data.augment import to_float
from jaxseg.data.base import DataInfo
from jaxseg.data.transforms import resize_image
from jaxseg.inference.score import score
from jaxseg.losses import make_loss
from jaxseg.losses.reconstruction import reconstruction
from jaxseg.parallel import make_strategy
from jaxseg.state import init_state
from jaxseg.step import make_eval_step
from jaxseg.types import IGNORE


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def test_count():
    widths, expected = (64, 128, 256, 512), conv(1, 64, 3) + conv(1, 64, 10)
    for c, o in zip((3, *widths), widths):
        expected += normed(3, c, o) + normed(3, o, o)
    for below, o in ((512, 256), (256, 128), (128, 64)):
        expected += conv(2, below, o) + 2 * normed(3, o, o)
    assert count("autoencoder", 3, num_classes=10) == expected


@pytest.mark.parametrize("size", [(8, 12), (7, 9)])
def test_reconstruction_is_its_layers_in_torch(size):
    model, image = models.build("autoencoder", num_classes=2, widths=[4, 6, 8]), draw(2, *size, 3)
    variables = drawn(model, jnp.asarray(image))
    _, out = jax.jit(model.apply, compiler_options=FAST_COMPILE)(variables, image)
    t = Torch(variables)
    x = t.torch.tensor(np.pad(image, ((0, 0), (0, -size[0] % 4), (0, -size[1] % 4), (0, 0))).transpose(0, 3, 1, 2))
    for i in range(3):
        x = x if i == 0 else t.f.max_pool2d(x, 2)
        x = t.layer(t.layer(x, f"encoder/stage{i}/conv1"), f"encoder/stage{i}/conv2")
    for i in (1, 0):
        x = t.up(x, f"decoder/stage{i}/up")
        x = t.layer(t.layer(x, f"decoder/stage{i}/conv1"), f"decoder/stage{i}/conv2")
    expected = t.conv(x, "reconstruction").detach().numpy().transpose(0, 2, 3, 1)[:, : size[0], : size[1]]
    pair = out["reconstruction"]
    assert_close(pair["prediction"], expected)
    np.testing.assert_array_equal(pair["target"], image)


def test_no_gradient_leaves_the_probe():
    model, image = models.build("autoencoder", num_classes=2, widths=[4, 6]), draw(1, 4, 4, 3)
    variables = drawn(model, jnp.asarray(image))

    @jax.jit
    def gradients(params):
        def of(choose):
            return jax.grad(lambda p: jnp.sum(choose(*model.apply({**variables, "params": p}, image)) ** 2))(params)

        return of(lambda logits, out: logits), of(lambda logits, out: out["reconstruction"]["prediction"])

    of_logits, of_image = gradients(variables["params"])
    for name in of_logits:
        for probe, images in zip(jax.tree.leaves(of_logits[name]), jax.tree.leaves(of_image[name])):
            assert np.any(probe != 0) == (name == "head") and np.any(images != 0) == (name != "head"), name


@pytest.mark.parametrize(
    ("segmenter", "fields"),
    [
        ("unet", {}),
        ("attention_unet", {}),
        ("unet", {"encoder": "residual", "encoder_args": {"widths": [4, 6, 8]}}),
        ("unet", {"encoder": "resnet18", "widths": [8, 8, 8, 8]}),
    ],
)
def test_the_encoder_is_that_of_the_segmenter(segmenter, fields):
    """Same names, shapes and types under params/encoder and batch_stats/encoder."""
    fields = {"widths": [4, 6, 8]} | fields

    def encoder_of(name):
        variables, _, _ = shapes(models.build(name, num_classes=3, **fields), (1, 32, 32, 3))
        return {group: variables[group]["encoder"] for group in ("params", "batch_stats")}

    assert encoder_of("autoencoder") == encoder_of(segmenter) and encoder_of(segmenter)["params"]


def test_resunet_takes_over_the_residual_encoder():
    encoder = {"widths": [4, 6, 8], "output_norm": False}  # the sums that ResUNet reads
    auto = models.build("autoencoder", num_classes=3, widths=[4, 6], encoder="residual", encoder_args=encoder)
    ours, _, _ = shapes(auto, (1, 8, 8, 3))
    theirs, _, _ = shapes(models.build("resunet", num_classes=3, widths=[4, 6, 8]), (1, 8, 8, 3))
    assert ours["params"]["encoder"] == theirs["params"]["encoder"]
    assert ours["batch_stats"]["encoder"] == theirs["batch_stats"]["encoder"]


def test_a_segmenter_with_the_encoder_sees_the_same():
    widths, image = [4, 6, 8], draw(1, 8, 8, 3)
    auto, unet = (models.build(name, num_classes=3, widths=widths) for name in ("autoencoder", "unet"))
    learned, fresh = drawn(auto, jnp.asarray(image)), drawn(unet, jnp.asarray(image))
    started = {group: {**fresh[group], "encoder": learned[group]["encoder"]} for group in ("params", "batch_stats")}
    (_, ours), (_, theirs) = jax.jit(auto.apply)(learned, image), jax.jit(unet.apply)(started, image)
    for i in range(3):
        np.testing.assert_array_equal(ours[f"encoder/stage{i}"], theirs[f"encoder/stage{i}"])


class Half(nn.Module):
    """Half the image as its reconstruction, and the logits of nothing."""

    @nn.compact
    def __call__(self, image, *, train=False):
        logits = self.param("logits", nn.initializers.zeros, (1, 1, 1, 2)) + jnp.zeros((*image.shape[:3], 2))
        return logits, {"aux": (), "reconstruction": {"prediction": image / 2, "target": image}}


class Images:
    """Three images of two sizes, without a label."""

    info = DataInfo(classes=("a", "b"), colors=((0, 0, 0), (255, 0, 0)), ignore=None, channels=3)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        h, w = self.label_size(index)
        image = np.random.default_rng(index).integers(0, 256, (h, w, 3)).astype(np.uint8)
        return {"image": image, "label": np.full((h, w), IGNORE, np.uint8)}

    def label_size(self, index):
        return ((5, 7), (8, 6), (5, 7))[index]

    def name(self, index):
        return str(index)


@pytest.mark.parametrize("fit", ["crop", "resize"])
def test_evaluation_leaves_out_what_fills_images_up(fit):
    """The rows and columns up to a multiple, and whole padding examples; the split's loss is that of its own pixels."""
    loss, tx = make_loss("reconstruction", num_classes=2), optax.sgd(0.1)
    state, strategy = init_state(Half(), tx, jax.random.key(0), (8, 8, 3)), make_strategy("jit", {}, jax.devices()[:1])
    evaluate = strategy.compile_eval(make_eval_step(Half(), loss, prepare=to_float))
    loader = make_eval_loader(Images(), batch_size=2, size=(8, 8), fit=fit, multiple=8)
    result = score(evaluate, strategy.put_state(state), loader, loss=loss, strategy=strategy)
    pixels = [
        (example["image"] if fit == "crop" else resize_image(example["image"], (8, 8))).reshape(-1, 3)
        for example in map(Images().__getitem__, range(3))
    ]
    assert result.images == 3 and result.confusion.sum() == 0
    np.testing.assert_allclose(result.loss, np.mean((np.concatenate(pixels) / 255 / 2) ** 2), rtol=1e-5)


def test_loss_is_the_mean_square_whatever_the_labels():
    prediction, target = draw(2, 3, 4, 3), draw(2, 3, 4, 3) + 1.0
    total, weight = reconstruction({"prediction": prediction, "target": target}, None)
    np.testing.assert_allclose(total / weight, np.mean((prediction.astype(np.float64) - target) ** 2), rtol=1e-5)
    out = {"reconstruction": {"prediction": prediction, "target": target}}
    logits = np.zeros((2, 3, 4, 2), np.float32)
    for labels in (np.full((2, 3, 4), IGNORE), np.zeros((2, 3, 4), int)):
        alone = make_loss("reconstruction", num_classes=2)
        np.testing.assert_allclose(alone.value(alone.stats(logits, labels, out)), total / weight, rtol=1e-6)
    both = make_loss("2 * reconstruction + cross_entropy", num_classes=2)
    expected = 2 * total / weight + np.log(2)
    np.testing.assert_allclose(both.value(both.stats(logits, labels, out)), expected, rtol=1e-5)
    inside = np.zeros((2, 3, 4), bool)
    inside[0, :2, :3] = True
    total, weight = jax.jit(reconstruction)({"prediction": prediction, "target": target}, inside)
    assert weight == 6
    np.testing.assert_allclose(total, np.sum(((prediction - target)[inside].astype(np.float64) ** 2).mean(-1)), 1e-5)
    with pytest.raises(ValueError, match=r"the images' shape \(2, 3, 4\), got \(3, 4\)"):
        reconstruction({"prediction": prediction, "target": target}, inside[0])
    with pytest.raises(ValueError, match="images of one shape"):
        reconstruction({"prediction": prediction, "target": target[..., :1]}, None)
