"""What the devices exchange in the compiled steps of every network and encoder: sums, never images or features."""

import contextlib
import dataclasses

import jax
import optax
import pytest
from helpers.collectives import assert_only_sums, forms_of_gpus
from helpers.marks import some_slow
from helpers.tiny_adversarial import SEMI, players
from helpers.tiny_models import ENCODERS, tiny

from jaxseg import losses, models
from jaxseg.adversarial import Discriminator, SegmenterWithDiscriminator
from jaxseg.parallel import make_strategy
from jaxseg.state import init_state
from jaxseg.step import make_eval_step, make_train_step

TERMS = {
    "autoencoder": "cross_entropy + reconstruction",
    "encnet": "cross_entropy + 0.2 * semantic_encoding",
    "eomt": "mask_classification",
    "mask2former": "mask_classification",
    "pidnet": "cross_entropy + dice + boundary_awareness",
    "pointrend": "cross_entropy + point_cross_entropy",
    "stdc": "cross_entropy + dice + detail",
}
# One of each family, and those whose blocks have other operations.
FAMILIES = (
    "convnext_tiny",
    "efficientnet_b0",
    "hrnet_w18",
    "mit_b0",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "plain",
    "residual",
    "resnet18",
    "resnet50d",
    "resnext50_32x4d",
    "seresnet18",
    "vgg11_bn",
    "vit_base_dinov2_reg",
    "wide_resnet50_2",
)


def check(model, terms, monkeypatch):
    """Compiles the training step and the evaluation step for eight devices, in the forms of a GPU."""
    strategy, tx = make_strategy("jit", {"batch_size": 16}), optax.sgd(0.1)
    loss = losses.make_loss(terms, num_classes=5)
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(lambda key: init_state(model, tx, key, (32, 32, 3)), key)
    image, label = jax.ShapeDtypeStruct((16, 32, 32, 3), "float32"), jax.ShapeDtypeStruct((16, 32, 32), "uint8")
    batch = {"image": image, "label": label}
    with forms_of_gpus(monkeypatch):
        train = strategy.compile_train(make_train_step(model, tx, loss)).lower(state, batch, key).compile()
        evaluate = strategy.compile_eval(make_eval_step(model, loss)).lower(state, batch).compile()
    parameters, statistics = (
        sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (state.params, state.batch_stats)
    )
    # Batch norm also has two sums a channel in the backward pass. Parameters in several places (Mask2Former) have a sum
    # for each, and the kernels of transposed convolutions are padded. The rest is the loss and the confusion matrix.
    assert_only_sums(train, 2 * (parameters + statistics) + 500)
    assert_only_sums(evaluate, 500)


@pytest.mark.slow
@pytest.mark.parametrize("name", models.names())
def test_networks_exchange_sums_alone(name, monkeypatch):
    check(tiny(name), TERMS[name] if name in TERMS else "cross_entropy + dice", monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_encoders_exchange_sums_alone(name, monkeypatch):
    model = models.build("fcn_head", num_classes=5, width=8, encoder=name, encoder_args=ENCODERS[name])
    check(model, "cross_entropy", monkeypatch)


@pytest.mark.parametrize("form", some_slow(("gpu", "cpu"), {"cpu"}))
def test_the_adversarial_step_exchanges_sums_alone(form, monkeypatch):
    """With every term, and a discriminator that sees the image; evaluation applies the segmenter alone."""
    model = SegmenterWithDiscriminator(tiny("cnn", 3), Discriminator((4, 8)), sees_image=True)
    loss, tx = dataclasses.replace(SEMI, unlabelled_from=3, truth_scaling=0.9), players()
    strategy, key = make_strategy("jit", {"batch_size": 8}), jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(lambda key: init_state(model, tx, key, (16, 16, 3)), key)
    image, label = jax.ShapeDtypeStruct((8, 16, 16, 3), "float32"), jax.ShapeDtypeStruct((8, 16, 16), "uint8")
    with forms_of_gpus(monkeypatch) if form == "gpu" else contextlib.nullcontext():
        step = strategy.compile_train(make_train_step(model, tx, loss))
        program = step.lower(state, {"image": image, "label": label}, key).compile()
    # The discriminator's gradients are those of true and of predicted maps.
    assert_only_sums(program, 2 * sum(leaf.size for leaf in jax.tree.leaves(state.params)))
