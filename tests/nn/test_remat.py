"""Rematerialisation by stage: the backward pass keeps less, and the numbers stay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.marks import some_slow
from helpers.tiny_models import ENCODERS, TINY
from helpers.tiny_run import tiny_config
from helpers.tiny_step import assert_same
from helpers.variables import variable_shapes

from jaxseg import models, parallel, step, train
from jaxseg.config import differences, update
from jaxseg.losses import make_loss
from jaxseg.models import encoders
from jaxseg.nn import rematerialised
from jaxseg.nn.remat import is_stage
from jaxseg.run.check import check
from jaxseg.state import init_state

# A network each of the two U-shapes and one over a published encoder, with batch norm and dropout where they have it.
NETWORKS = {
    "unet": {"widths": [4, 8, 16]},
    "resunet": {"widths": [4, 8, 16], "blocks": 2},
    "deeplabv3plus": {
        "width": 8,
        "low_width": 4,
        "encoder": "resnet18",
        "encoder_args": {"depths": [2, 2], "widths": [4, 8, 8]},
    },
}


def kept(apply, variables, image):
    """Returns the bytes that the backward pass of a training step takes from the forward pass, image included."""

    def backward(variables, image):
        def train(params):
            draws = {"dropout": jax.random.key(0)}
            return apply({**variables, "params": params}, image, train=True, mutable=["batch_stats"], rngs=draws)[0]

        return jax.vjp(train, variables["params"])[1]

    residuals = jax.tree.leaves(jax.eval_shape(backward, variables, image))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in residuals)


def assert_keeps_less(model, size=32, batch=2):
    image = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    variables = variable_shapes(model, image.shape)
    less = kept(rematerialised(model.apply), variables, image)
    assert less < 0.5 * kept(model.apply, variables, image)


# The children of these are like those of another network: a U-shape's (unet), layers between an encoder and a head,
# with or without an auxiliary one (encnet), or a transformer's (segformer). The encoder of lraspp is looked at below.
ALIKE = ("attention_decoder", "autoencoder", "cnn", "deeplabv1", "deeplabv2", "deeplabv3plus", "encoder_decoder")
ALIKE += (
    "bisenetv1",
    "bisenetv2",
    "ddrnet",
    "enet",
    "erfnet",
    "fast_scnn",
    "icnet",
    "manet",
    "multiresunet",
    "nnunet",
    "pan",
    "pidnet",
)
ALIKE += ("ann", "ccnet", "danet", "gcnet", "isanet", "nonlocal_net", "segnext")
ALIKE += ("r2unet", "resunetpp", "transunet", "u2net", "unetr")
ALIKE += ("pp_liteseg", "stdc")
ALIKE += ("fcn_head", "knet", "lraspp", "ocrnet", "pointrend", "pspnet", "segnet", "upernet", "vgg_head")
ALIKE += ("attention_unet", "deeplabv3", "dpt", "eomt", "fcn", "fpn", "linear_head", "linknet", "resunet", "segmenter")


@pytest.mark.parametrize("name", some_slow(models.names(), ALIKE))
def test_every_network_keeps_less_for_the_backward_pass(name):
    # Of 16 times the stem's channels, or more, whose kernels are kept.
    size = 256 if name in ("bisenetv1", "ddrnet", "icnet", "pidnet", "pp_liteseg", "stdc") else 32
    batch = 8 if name == "dcgan" else 2  # the kernels of DCGAN are kept, and they have more values than two images
    assert_keeps_less(models.build(name, num_classes=3, **TINY[name]), size, batch)


MEMBERS = {encoders.family(name): name for name in encoders.names()}  # of each family one
# The stages of these are lists of blocks, as those of ResNet are.
OF_BLOCKS = ("convnext", "densenet", "efficientnet", "mobilenet", "mobilenet_v4", "plain", "regnet", "residual", "vgg")


@pytest.mark.parametrize("name", some_slow(MEMBERS.values(), [MEMBERS[family] for family in OF_BLOCKS]))
def test_so_does_a_network_over_every_family_of_encoders(name):
    fields = {"encoder": name, "encoder_args": ENCODERS[name], "aux_width": None, "width": 4}
    assert_keeps_less(models.build("fcn_head", num_classes=3, **fields))


@pytest.mark.parametrize(
    "name", ["unet", *(pytest.param(n, marks=pytest.mark.slow) for n in ("resunet", "deeplabv3plus"))]
)
def test_a_step_needs_less_memory_and_ends_in_the_same_state(name):
    model, tx = models.build(name, num_classes=3, **NETWORKS[name]), optax.sgd(0.1, momentum=0.9)
    strategy = parallel.make_strategy("jit", {}, jax.devices()[:1])
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.normal(size=(4, 64, 64, 3)).astype(np.float32),
        "label": rng.integers(0, 3, (4, 64, 64)).astype(np.uint8),
    }
    init = jax.jit(lambda key: init_state(model, tx, key, (64, 64, 3)))(jax.random.key(1))
    memory, ends = [], []
    for remat in (False, True):
        compiled_step = step.make_train_step(model, tx, make_loss("cross_entropy", num_classes=3), remat=remat)
        given = strategy.put_state(init), strategy.put_batch(batch), strategy.put_key(jax.random.key(2))
        program = strategy.compile_train(compiled_step, remat=remat).lower(*given).compile()
        memory.append(program.memory_analysis().temp_size_in_bytes)
        ends.append(jax.device_get(program(*given)))
    assert_same(ends[1], ends[0], rtol=1e-4)
    assert memory[1] < 0.6 * memory[0]


def test_a_transformer_between_encoder_and_decoder_is_split_by_its_blocks():
    """Each block is computed again by itself; all at once they would need the memory of all."""
    fields = TINY["transunet"] | {"depth": 6}
    model, image = models.build("transunet", num_classes=3, **fields), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = variable_shapes(model, image.shape)
    run = rematerialised(model.apply)
    program = jax.make_jaxpr(lambda v, x: run(v, x, train=True, mutable=["batch_stats"])[0][0])(variables, image)
    stages = [str(each) for each in program.jaxpr.eqns if each.primitive.name in ("checkpoint", "remat2")]
    assert sum(" exp " in stage for stage in stages) == 6  # that of a softmax


def test_what_is_a_stage():
    stages = [("encoder", "stem"), ("encoder", "stage1"), ("decoder", "stage0"), ("aspp",), ("head",)]
    stages += [("transformer", "stem"), ("transformer", "block1"), ("adapter", "injector1")]
    others = [
        (),
        ("encoder",),
        ("adapter",),
        ("decoder",),
        ("transformer",),
        ("encoder", "stage1", "block1"),
        ("aspp", "conv"),
    ]
    assert all(map(is_stage, stages)) and not any(map(is_stage, others))


def test_the_key_reaches_the_step_that_is_checked_and_the_one_that_trains(monkeypatch, tmp_path):
    class Reached(Exception):
        pass

    def reached(self, step, *, remat=False, constants=0):
        raise Reached(f"remat={remat}")

    made = []
    monkeypatch.setattr(step, "rematerialised", lambda apply: made.append(apply) or apply)
    monkeypatch.setattr(parallel.JitStrategy, "compile_train", reached)
    config = tiny_config(remat=True)
    update(config, eval__batch_size=8)
    check(config)
    assert len(made) == 1
    with pytest.raises(Reached, match="remat=True"):
        train.train(config, tmp_path / "run", "the command")
    assert len(made) == 2


def test_a_run_goes_on_with_the_value_it_began_with():
    """Last bits differ: after one step of the residual networks above, in a quarter to a half of the arrays."""
    assert differences(tiny_config(), tiny_config(remat=True)) == ["remat: False -> True"]
