"""What every model promises: any size and channel count, float32 logits, stable names, gradients everywhere."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers.marks import some_slow
from helpers.parity import FAST_COMPILE
from helpers.tiny_models import ADAPTER, ENCODERS, TINY, Backbone, tiny
from helpers.variables import applied_shapes, drawn, initialised, paths, shapes, variable_shapes

from jaxseg import models, pretrained
from jaxseg.models import encoders
from jaxseg.models.attention_decoder import pooling_factor
from jaxseg.models.fields import field_names
from jaxseg.nn import Dropout, StochasticDepth, make_norm

# Where the classifier is not the one layer "head" (a sum of several scores).
HEADS = {"deeplabv2": "head/branch0/score", "u2net": "fused_scores"}
# Outputs that a loss term of the same name reads in place of the logits.
READ_BY_LOSSES = ("semantic_encoding", "reconstruction", "verdicts", "boundary", "detail", "points")
CLASSES = {name: type(tiny(name)) for name in models.names()}
# The image of the tests that need the variables alone: they are traced once for all of them.
IMAGE = (2, 33, 47, 3)
TRAINED = (2, 7, 8, 3)
# Where a group norm of few channels would have a single value at TRAINED.
REAL_TIME = ("bisenetv1", "bisenetv2", "ddrnet", "enet", "erfnet", "fast_scnn", "icnet", "pidnet", "pp_liteseg")
REAL_TIME += ("stdc",)
LARGER = {"pan": (2, 32, 32, 3), **dict.fromkeys(REAL_TIME, (2, 64, 64, 3))}
# Transformers have layer norms whatever `norm` says.
LAYER_NORMS = ("dpt", "eomt", "gcnet", "knet", "linear_head", "mask2former", "segformer", "segmenter")
LAYER_NORMS += ("segnext", "transunet", "unetr")
NO_OTHER_NORMS = ("eomt", "linear_head", "segmenter")


def test_every_model_is_tested():
    assert set(TINY) == set(models.names())


def check_outputs(image, classes, logits, out):
    assert logits.shape == (*image[:3], classes) and logits.dtype == jnp.float32
    assert all(aux.shape == logits.shape and aux.dtype == jnp.float32 for aux in out["aux"])


@pytest.mark.parametrize("name", models.names())
def test_logits_have_the_image_size_and_bfloat16_computes_in_bfloat16(name):
    """Parameters and logits are float32 all the same, and those of the first call are the same in training."""
    variables, *first = shapes(tiny(name), IMAGE)
    check_outputs(IMAGE, 5, *first)
    half, pixel = tiny(name, dtype="bfloat16"), (1, 1, 1, 3)
    variables_of_training, *trained = shapes(half, IMAGE, train=True)
    assert variables == variables_of_training
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    assert ("encoder" in variables["params"]) == (name not in models.WITHOUT_ENCODER)
    evaluated = applied_shapes(half, variables, pixel)
    for image, (logits, out) in ((IMAGE, trained), (pixel, evaluated)):
        check_outputs(image, 5, logits, out)
        inner = {stage for stage in out if "/" in stage and not stage.startswith("scores/")}  # scores are logits
        assert {out[stage].dtype for stage in inner} == {jnp.dtype("bfloat16")}
    assert evaluated[1]["aux"] == ()


@pytest.mark.slow  # the images above and below are padded and cropped in the same places
@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize(("image", "classes"), [((1, 1, 1, 1), 1), ((1, 7, 64, 4), 2)])
def test_logits_have_the_size_of_other_images(name, image, classes):
    larger = (2, *image[1:])  # in training batch norm refuses a single value
    variables, *trained = shapes(tiny(name, classes), larger, train=True)
    check_outputs(larger, classes, *trained)
    check_outputs(image, classes, *applied_shapes(tiny(name, classes), variables, image))


def without_norms(name):
    """The paths of the parameters of a network without norms, for the smallest image of one channel and one class."""
    image = (2, 1, 1, 1)
    variables, *trained = shapes(tiny(name, 1, norm="none"), image, train=True)
    check_outputs(image, 1, *trained)
    assert "batch_stats" not in variables
    return paths(variables["params"])


@pytest.mark.parametrize("image", [(1, 1, 1, 3), (1, 33, 47, 1)])
def test_unet_without_padding_gives_the_image_size(image):
    _, logits, out = shapes(tiny("unet", padding="valid"), image)
    assert logits.shape == (*image[:3], 5)
    assert out["encoder/stage0"].shape[1] > image[1]


# Smaller still: with a further level or unit of the same kind there are more operations to compile, no other ones.
SHORT = {
    **{name: {"widths": [4, 8]} for name in TINY if "widths" in TINY[name] and name not in REAL_TIME},
    **{
        name: {"encoder_args": {"widths": [4, 8]}}
        for name in ("deeplabv3plus", "encnet", "fpn", "isanet", "knet", "upernet")
    },
    "pointrend": {"encoder_args": {"widths": [4, 8]}},
    "dpt": {},
    "fc_densenet": {"layers": [1, 2, 1]},
    "linknet": {"encoder_args": {"widths": [12, 24]}},
    "lraspp": {"encoder_args": TINY["lraspp"]["encoder_args"] | {"rows": TINY["lraspp"]["encoder_args"]["rows"][::2]}},
    "bisenetv1": {"context_width": 16},
    "bisenetv2": {"detail_widths": [4, 4, 16], "semantic_widths": [4, 4, 6, 16]},
    "ddrnet": {"pool_width": 16},
    "manet": {"widths": [4], "encoder_args": {"widths": [8, 12]}},
    "pan": {"width": 16, "encoder_args": {"widths": [4, 8]}},
    "pp_liteseg": {"context_width": 16},
    "segformer": {"encoder_args": TINY["segformer"]["encoder_args"] | {"depths": [1, 1]}},
    "resunetpp": {"widths": [4, 8, 16]},
    "transunet": {"widths": [4], "encoder_args": {"widths": [4, 8]}},
    "u2net": {"widths": [4, 8], "mids": [4, 4]},
    "stdc": {"context_width": 16},
}


def trained_model(name):
    """Returns the network whose gradients are looked at."""
    return models.build(name, num_classes=5, norm="group", **TINY[name] | (SHORT[name] if name in SHORT else {}))


# Their gradients are compared with those of a peer in tests of their own,
COMPARED = ("deeplabv3", "eomt", "knet", "linear_head", "manet", "mask2former", "nnunet", "segformer", "unet")
# and the parts of these are those of others.
ALIKE = ("attention_unet", "autoencoder", "deeplabv1", "deeplabv2", "encoder_decoder", "fcn_head", "fpn", "pspnet")
ALIKE += ("ann", "ccnet", "danet", "gcnet", "isanet", "nonlocal_net", "segnet", "vgg_head")
ALIKE += ("multiresunet", "r2unet", "resunetpp", "transunet", "u2net", "unetr")
SLOW = {*LARGER, *COMPARED, *ALIKE}


FITTED = [(name, norm) for name in models.names() for norm in ("instance", "group", "layer")]


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        each if each[1] == "group" and each[0] not in SLOW else pytest.param(*each, marks=pytest.mark.slow)
        for each in FITTED
    ],
)
def test_every_norm_fits_every_model(name, norm):
    """The group norm is that of the training below."""
    if norm == "group":
        variables = variable_shapes(trained_model(name), LARGER[name] if name in LARGER else TRAINED)
    else:
        variables, _, _ = shapes(tiny(name, norm=norm), IMAGE, train=True)
    assert "batch_stats" not in variables
    assert any("norm" in path for path in paths(variables["params"]))


@pytest.mark.parametrize("name", models.names())
def test_norms_can_be_left_out_and_layers_have_a_bias_where_no_norm_follows(name):
    variables, without = variable_shapes(tiny(name), IMAGE), without_norms(name)
    with_norm = paths(variables["params"])
    assert ("batch_stats" in variables) == (name not in NO_OTHER_NORMS)
    assert any("norm" in path for path in with_norm)
    assert any("norm" in path for path in without) == (name in LAYER_NORMS)
    for path in with_norm:
        block, _, leaf = path.rpartition("/")
        if leaf == "kernel" and block.endswith("/conv"):
            assert f"{block}/bias" not in with_norm and f"{block}/bias" in without


def test_parameter_names_are_stable():
    resunet = paths(variable_shapes(tiny("resunet"), IMAGE)["params"])
    assert {"encoder/stage0/block1/conv1/kernel", "encoder/stage2/block1/norm1/scale", "head/kernel"} <= resunet
    assert {"encoder/stage1/block1/shortcut/kernel", "decoder/stage0/block1/conv2/kernel"} <= resunet
    unet = paths(variable_shapes(tiny("unet"), IMAGE)["params"])
    assert {"encoder/stage2/conv2/conv/kernel", "decoder/stage1/up/kernel", "decoder/stage0/conv1/norm/scale"} <= unet
    attention = paths(variable_shapes(tiny("attention_decoder"), IMAGE)["params"])
    assert {"decoder/stage1/attention/query/kernel", "decoder/stage0/conv/conv/kernel"} <= attention
    for name in models.names():
        head, kernel = (
            HEADS[name] if name in HEADS else "head",
            "embedding" if name == "segmenter" else "kernel",
        )
        assert {f"{head}/{kernel}", f"{head}/bias"} <= paths(variable_shapes(tiny(name), IMAGE)["params"])


def test_padding_of_unet_changes_no_parameter():
    same, valid = variable_shapes(tiny("unet"), IMAGE), variable_shapes(tiny("unet", padding="valid"), (1, 1, 1, 3))
    assert jax.tree.map(lambda a: a.shape, same) == jax.tree.map(lambda a: a.shape, valid)


@pytest.mark.parametrize("name", some_slow(models.names(), SLOW))
def test_gradients_reach_every_parameter(name, key):
    model, rng, shape = trained_model(name), np.random.default_rng(1), LARGER[name] if name in LARGER else TRAINED
    image = jnp.asarray(rng.normal(size=shape), jnp.float32)
    weight = jnp.asarray(rng.normal(size=(*shape[:3], 5)), jnp.float32)

    @functools.partial(jax.jit, compiler_options=FAST_COMPILE)
    @jax.grad
    def gradient(params):
        logits, out = model.apply({"params": params}, image, train=True, rngs={"dropout": key})
        read = jax.tree.leaves([out[name] for name in READ_BY_LOSSES if name in out])
        return sum(jnp.sum(scores * weight) for scores in (logits, *out["aux"])) + sum(jnp.sum(x**2) for x in read)

    gradients = gradient(drawn(model, image)["params"])
    for path, g in jax.tree_util.tree_flatten_with_path(gradients)[0]:
        path = "/".join(p.key for p in path)
        assert np.isfinite(g).all(), path
        if name == "deeplabv3plus" and path.startswith("encoder/norm0/"):  # of a level that its decoder does not read
            continue
        # The softmax over keys does not change when every key moves by the same vector.
        assert np.abs(g).max() > 0 or path.endswith("/attention/key/bias"), path


def test_one_pixel_of_two_images_trains():
    """Every stage is a single pixel: statistics over two values must give numbers all the same."""
    model, image = tiny("resunet"), jnp.ones((2, 1, 1, 3))
    apply = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    (logits, _), _ = apply(drawn(model, image), image)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("name", "fields"), [("encoder_decoder", {}), pytest.param("fpn", ADAPTER, marks=pytest.mark.slow)]
)
def test_bfloat16_is_near_float32(name, fields):
    image = jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 8, 3)), jnp.float32)
    exact, rough = (tiny(name, norm="group", dtype=dtype, **fields) for dtype in ("float32", "bfloat16"))
    variables = drawn(exact, image)
    a, b = (jax.jit(lambda m=m: m.apply(variables, image)[0])() for m in (exact, rough))
    assert 0 < np.abs(a - b).max() < 0.1 * np.abs(a).max()


def test_dropout_needs_train_and_a_key():
    model = tiny("cnn", norm="none")
    image = jnp.asarray(np.random.default_rng(1).normal(size=(1, 8, 8, 3)), jnp.float32)
    variables = drawn(model, image)
    run = jax.jit(lambda k, train: model.apply(variables, image, train=train, rngs={"dropout": k})[0], static_argnums=1)
    keys = jax.random.key(1), jax.random.key(2)
    np.testing.assert_array_equal(run(keys[0], False), run(keys[1], False))
    np.testing.assert_array_equal(run(keys[0], True), run(keys[0], True))
    assert np.abs(run(keys[0], True) - run(keys[1], True)).max() > 0


DROPOUT = [name for name, cls in CLASSES.items() if "dropout" in field_names(cls)]
# Dropout in an encoder, a decoder, attention, a head, an auxiliary head: the others have it in one of these places.
MONTE_CARLO = ("attention_decoder", "deeplabv3", "eomt", "fc_densenet", "mask2former", "segformer", "segnet", "unet")


@pytest.mark.parametrize("name", some_slow(DROPOUT, set(DROPOUT) - set(MONTE_CARLO)))
def test_monte_carlo_dropout_reaches_every_network(name):
    """Every dropout is on, and batch norm changes no statistics: `apply` would raise, as they are not mutable."""
    drops = []

    def see(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if isinstance(context.module, Dropout) and context.module.rate > 0:
            drops.append(y is not args[0])
        return y

    apply = functools.partial(tiny(name, dropout=0.5).apply, train=False, rngs={"monte_carlo": jax.random.key(0)})
    variables = variable_shapes(tiny(name), IMAGE)
    with nn.intercept_methods(see):
        jax.eval_shape(apply, variables, jax.ShapeDtypeStruct(IMAGE, jnp.float32))
    assert drops and all(drops)


def test_monte_carlo_dropout_uses_the_running_statistics():
    model = tiny("segnet", dropout=0.5)
    image = jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 8, 3)), jnp.float32)
    variables = drawn(model, image)
    run = jax.jit(lambda image, rngs: model.apply(variables, image, train=False, rngs=rngs)[0])
    one, again, other = (run(image, {"monte_carlo": jax.random.key(i)}) for i in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0 and np.abs(one - run(image, {})).max() > 0
    # The batch has no effect on its first image.
    changed = run(image.at[1].set(0.0), {"monte_carlo": jax.random.key(1)})
    np.testing.assert_allclose(changed[0], one[0], atol=1e-6)
    assert np.abs(changed[1] - one[1]).max() > 0


def test_shortcut_forms_of_resunet():
    counts = {}
    for form in ("auto", "projection", "learned", "none"):
        params = shapes(tiny("resunet", shortcut=form, blocks=2), (1, 8, 8, 3))[0]["params"]
        counts[form] = sum(leaf.size for leaf in jax.tree.leaves(params))
        assert any("shortcut" in path for path in paths(params)) == (form != "none")
    assert counts["none"] < counts["auto"] < counts["projection"] < counts["learned"]


def test_up_sampling_forms_of_resunet():
    for up in ("nearest", "bilinear", "transposed"):
        params = shapes(tiny("resunet", up=up), (1, 9, 8, 3))[0]["params"]
        assert ("decoder/stage0/up/kernel" in paths(params)) == (up == "transposed")


def test_attention_can_be_left_out_and_looked_at():
    variables, _, _ = shapes(tiny("attention_decoder", attention=False), (1, 8, 8, 3))
    assert not any("attention" in path for path in paths(variables["params"]))
    model = tiny("attention_decoder", sow_attention=True, max_tokens=16)
    image = jnp.zeros((1, 12, 8, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    _, kept = jax.eval_shape(lambda v: model.apply(v, image, mutable=["intermediates"]), variables)
    (weights,) = kept["intermediates"]["decoder"]["stage0"]["attention"]["attention"]
    assert weights.shape == (1, 2, 6, 6)  # 12 x 8 positions are 6 x 4 after one halving, still too many, then 3 x 2


def test_attention_is_bounded_by_max_tokens():
    assert [pooling_factor(*size, 16) for size in ((4, 4), (4, 5), (1, 1), (1, 1000), (9, 9))] == [1, 2, 1, 64, 4]
    model = models.build("attention_decoder", num_classes=2)
    shapes(model, (1, 720, 960, 3), train=True)


@pytest.mark.parametrize("name", ["attention_decoder", "attention_unet", "autoencoder", "resunet", "unet"])
def test_decoders_take_any_pyramid(name):
    for encoder in ("plain", "residual"):
        model = models.build(name, num_classes=3, widths=[8, 4], encoder=encoder, encoder_args={"widths": [4, 6, 8]})
        variables, logits, _ = shapes(model, (1, 13, 10, 3), train=True)
        assert logits.shape == (1, 13, 10, 3)
        first = {"plain": "encoder/stage0/conv1/conv/kernel", "residual": "encoder/stage0/block1/conv1/kernel"}
        assert first[encoder] in paths(variables["params"])
    _, logits, _ = shapes(models.build(name, num_classes=3, widths=[8, 4], encoder=Backbone), (1, 13, 10, 3))
    assert logits.shape == (1, 13, 10, 3)
    with pytest.raises(ValueError, match="too few for an encoder of 3 levels"):
        shapes(models.build(name, num_classes=3, widths=[8], encoder=Backbone), (1, 8, 8, 3))


# A member of each family, and other forms of some. The rest differ in numbers, of which the tiny ones have their own.
FORMS = {encoders.family(name): name for name in encoders.names()}.values()
OTHER_FORMS = ("convnext_small", "efficientnet_b0", "efficientnet_v2_s", "mobilenet_v3_large", "resnet18d")
OTHER_FORMS += (
    "resnet50",
    "seresnext50_32x4d",
    "tf_efficientnet_b0",
    "vgg11",
    "vit_base_dinov2_reg",
    "vit_base_dinov3",
)


@pytest.mark.parametrize("name", some_slow(encoders.names(), set(encoders.names()) - {*FORMS, *OTHER_FORMS}))
def test_encoders_keep_their_promise(name):
    encoder = encoders.build(name, **ENCODERS[name])
    widths, strides = encoder.widths, encoder.strides
    assert len(widths) == len(strides) and list(strides) == sorted(strides)
    for h, w, c in ((strides[-1], 2 * strides[-1], 3), (strides[-1] + 1, 1, 4)):
        pyramid, _ = initialised(encoder, ((2, h, w, c),))  # some encoders of a family are equal when they are tiny
        assert [f.shape for f in pyramid] == [(2, -(-h // s), -(-w // s), n) for s, n in zip(strides, widths)]


def test_every_encoder_is_tested():
    assert set(ENCODERS) == set(encoders.names())


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("resnet", {}, "no model 'resnet'. Did you mean 'resunet'"),
        ("unet", {"width": [1]}, "unet.width is not an argument of the model unet. Did you mean 'widths'"),
        ("unet", {"widths": "64"}, "widths must be a tuple of one or more whole numbers of at least 1, got '64'"),
        ("unet", {"widths": [4, 0]}, "widths must be a tuple of one or more whole numbers of at least 1, got .4, 0."),
        ("unet", {"widths": []}, "widths must be a tuple of one or more whole numbers of at least 1, got .."),
        ("nnunet", {"factors": [[1, 1], [0, 2]]}, "tuples of 2 whole numbers of at least 1 or None, got .*0, 2"),
        ("transunet", {"grid": [0, 3]}, "transunet.grid must be a tuple of 2 whole numbers of at least 1, got .0, 3."),
        (
            "fpn",
            {"encoder": "sam2_hiera_tiny", "encoder_args": {"grid": [3, 0]}},
            "sam2_hiera_tiny.grid must be a tuple of 2 whole numbers of at least 1, got .3, 0.",
        ),
        ("unet", {"convs": 1.5}, "convs must be a whole number of at least 1, got 1.5"),
        ("unet", {"convs": True}, "convs must be a whole number"),
        ("unet", {"dropout": "a"}, "dropout must be a number"),
        ("unet", {"padding": "full"}, "padding must be one of 'same', 'valid', got 'full'"),
        ("resunet", {"shortcut": "long"}, "shortcut must be one of"),
        ("attention_decoder", {"attention": 1}, "attention must be True or False"),
        ("unet", {"norm": "bach"}, "batch"),
        ("unet", {"act": "rleu"}, "no activation 'rleu'. Did you mean 'relu'"),
        ("unet", {"dtype": "float64"}, "float32, bfloat16"),
        ("unet", {"num_classes": 0}, "num_classes must be a whole number of at least 1, got 0"),
        ("unet", {"encoder": "resdual"}, "no encoder 'resdual'. Did you mean 'residual'"),
        (
            "unet",
            {"encoder": "plain", "encoder_args": {"wdths": [1]}},
            "wdths is not an argument of the encoder plain",
        ),
        ("unet", {"encoder_args": {"widths": [1]}}, "encoder_args needs encoder"),
        ("cnn", {"encoder": "plain"}, "cnn.encoder is not an argument of the model cnn, which takes no named encoder"),
        ("encoder_decoder", {"up_kernel": 5}, "up_kernel must be one of 2, 3, 4"),
    ],
)
def test_wrong_arguments_are_named(name, fields, message):
    with pytest.raises(ValueError, match=message.replace("(", "\\(").replace("?", "\\?")):
        models.build(name, **({"num_classes": 3} | fields))


WITH_DEFAULT = {name: default for name, default in models.with_encoder().items() if default is not None}


@pytest.mark.parametrize("name", WITH_DEFAULT)
def test_the_default_encoder_by_name_is_the_default(name):
    by_name = models.build(name, num_classes=3, encoder=WITH_DEFAULT[name])
    assert by_name == models.build(name, num_classes=3)
    assert by_name.encoder() == models.build(name, num_classes=3).encoder()  # field by field


@pytest.mark.parametrize("name", WITH_DEFAULT)
def test_the_needs_of_a_network_hold_for_every_encoder_that_has_the_field(name):
    needs = dict(models.build(name, num_classes=3).encoder.fields)
    for encoder in encoders.names():
        built = models.build(name, num_classes=3, encoder=encoder).encoder()
        had = {field: getattr(built, field) for field in needs if field in field_names(type(built))}
        assert had == {field: needs[field] for field in had}, encoder
    for field in needs:
        other = models.build(name, num_classes=3, encoder_args={field: CHANGED[field]})
        assert getattr(other.encoder(), field) == CHANGED[field]
        named = models.build(name, num_classes=3, encoder=WITH_DEFAULT[name], encoder_args={field: CHANGED[field]})
        assert named == other


@pytest.mark.parametrize("name", WITH_DEFAULT)
def test_a_network_leaves_to_the_name_of_an_encoder_what_the_name_fixes(name):
    """Else the depths and widths of its default would be those of every encoder that is named in its place."""
    fixed = {field for file, cls, fields in encoders.CLASSES.values() for field in fields}
    assert not fixed & set(dict(models.build(name, num_classes=3).encoder.fields))


CHANGED = {
    "output_stride": 32,
    "multi_grid": (1, 1),
    "first_dilated": False,
    "levels": "convolved",
    "norm_levels": False,
    "tap": "last",
    "upsample": "nearest",
}


def dilations(model):
    """Returns the atrous rates of the 3x3 convolutions of a network in the order of the compiled program."""
    # At output stride 16 all taps of rate 18 meet pixels; those that meet only padding are left out of the program.
    image = jax.ShapeDtypeStruct((1, 320, 320, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    program = jax.make_jaxpr(lambda v, x: model.apply(v, x)[0])(variables, image)
    return [rate for rate in _rates(program.jaxpr) if rate > 1]


def _rates(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield equation.params["rhs_dilation"][0]
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "eqns"):
                    yield from _rates(inner)
                elif hasattr(inner, "jaxpr"):
                    yield from _rates(inner.jaxpr)


@pytest.mark.parametrize("name", ["deeplabv3", "deeplabv3plus"])
@pytest.mark.parametrize("encoder", some_slow(("resnet101", "resnet50", "seresnet50"), ("seresnet50", "resnet101")))
def test_the_holes_of_the_program_are_those_of_the_paper(name, encoder):
    """The last stage at output stride 16 has rates 2·(1, 2, 4), the pyramid pooling 6, 12, 18 (Chen 2017)."""
    tiny_stages = {"depths": (1, 1, 1, 3), "widths": (8, 8, 8, 8, 8)}
    model = models.build(name, num_classes=2, width=16, encoder=encoder, encoder_args=tiny_stages)
    assert dilations(model) == [2, 4, 8, 6, 12, 18]
    plain = tiny_stages | {"multi_grid": (1, 1, 1), "first_dilated": False}
    model = models.build(name, num_classes=2, width=16, encoder=encoder, encoder_args=plain)
    assert dilations(model) == [2, 2, 6, 12, 18]


@pytest.mark.parametrize(
    ("name", "encoder", "stride"),
    [("deeplabv2", "resnet101", 8), ("pspnet", "vgg16", 8), ("deeplabv3", "mit_b0", 32), ("fcn", "vgg16", 32)],
)
def test_a_named_encoder_has_the_strides_that_the_network_wants(name, encoder, stride):
    strides = models.build(name, num_classes=2, encoder=encoder).encoder().strides
    assert strides[-1] == stride
    assert name != "fcn" or strides == (2, 4, 8, 16, 32)


def test_an_encoder_of_the_networks_own_draws_over_the_mapped_axis():
    """Its layers get the network's settings."""
    model = models.build("segformer", num_classes=2, axis_name="data")
    found = []

    def record(call, args, kwargs, context):
        if isinstance(context.module, StochasticDepth):
            found.append(context.module.axis_name)
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes(model, (1, 32, 32, 3))
    assert found and set(found) == {"data"}


@pytest.mark.parametrize("name", ["pspnet", "upernet"])
def test_one_image_leaves_the_statistics_of_its_mean_alone(name, key):
    model = models.build(name, num_classes=5, **TINY[name] | {"encoder_args": {"widths": [4, 8]}})
    image = jnp.ones((1, 16, 16, 3))
    variables = drawn(model, image)
    apply = functools.partial(model.apply, train=True, rngs={"dropout": key}, mutable=["batch_stats"])
    _, moved = jax.jit(apply, compiler_options=FAST_COMPILE)(variables, image)
    before, after = (pretrained.flatten(tree["batch_stats"]) for tree in (variables, moved))
    kept = {path for path in before if np.array_equal(before[path], after[path])}
    assert {path for path in before if "/bin1/" in path} <= kept and len(kept) < len(before)


def test_num_classes_is_asked_for():
    with pytest.raises(ValueError, match="'unet' needs num_classes"):
        models.build("unet")


def test_forms_that_exclude_each_other():
    with pytest.raises(ValueError, match="hidden_kernel must be odd"):
        shapes(tiny("cnn").clone(hidden_kernel=4), (1, 8, 8, 3))
    with pytest.raises(ValueError, match="padding='valid'"):
        shapes(models.build("unet", num_classes=2, padding="valid", encoder="plain"), (1, 8, 8, 3))
    with pytest.raises(ValueError, match="num_heads 4 does not divide the width 6"):
        shapes(models.build("attention_decoder", num_classes=2, widths=[6, 8]), (1, 8, 8, 3))


def test_models_compare_equal_and_hash():
    """Equal models share a compilation: `jit` takes them as static arguments."""
    assert tiny("unet") == tiny("unet") and hash(tiny("unet")) == hash(tiny("unet"))
    assert tiny("unet", norm=make_norm("group")) != tiny("unet", norm=make_norm("layer"))


def test_only_the_model_asked_for_is_imported():
    code = (
        "import sys; from jaxseg import models; models.build('cnn', num_classes=2); "
        "print([m for m in sys.modules if m.startswith('jaxseg.models.') and m.count('.') == 2])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # What every network is made with, and the network.
    parts = ("assembly", "cnn", "encoders", "feature_pyramid", "fields", "vit_adapter")
    assert set(eval(done.stdout)) == {f"jaxseg.models.{part}" for part in parts}
