"""Swin Transformers and Swin V2 against torchvision, timm and transformers, and their published sizes."""

import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracles, parity
from helpers.marks import some_slow
from helpers.variables import count_parameters, drawn, variable_shapes

from jaxseg import models, nn, pretrained
from jaxseg.models import encoders
from jaxseg.models.encoders.swin import SwinTransformer
from jaxseg.nn.ops import windows
from jaxseg.nn.windows import log_distances
from jaxseg.pretrained import catalogue, upernet
from jaxseg.pretrained import swin as rules

WIDTHS, DEPTHS, HEADS = (4, 8), (2, 2), (1, 2)
FIELDS = {"widths": WIDTHS, "depths": DEPTHS, "heads": HEADS, "window": 3, "drop_path": 0.0}
FORMS = pytest.mark.parametrize("v2", [False, True])


def theirs_torchvision(v2):
    swin = oracles.torchvision().models.swin_transformer
    form = {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2} if v2 else {}
    module = swin.SwinTransformer(
        [4, 4], WIDTHS[0], list(DEPTHS), list(HEADS), [3, 3], stochastic_depth_prob=0.0, num_classes=2, **form
    )
    for each in module.modules():  # a table of constants, which must not be drawn as weights are
        each._non_persistent_buffers_set.add("relative_coords_table")
    return module


def levels_of_torchvision(module, x):
    """The results of the stages, which have the channels last."""
    return [y.permute(0, 3, 1, 2) for y in parity.taken(module.features, (1, 3))(x)]


@FORMS
def test_pyramid_and_gradients_are_torchvisions(v2):
    """At a size of which nothing divides a side: patches, windows and pairs all need padding."""
    torch, module = oracles.torch(), theirs_torchvision(v2)
    parity.draw(module)
    form = (rules.torchvision_v2 if v2 else rules.torchvision)()
    encoder = SwinTransformer(**FIELDS, v2=v2, rounding="down")
    variables, x = parity.load(encoder, module, form), parity.images(69, 90)
    levels = levels_of_torchvision(module, parity.nchw(x))
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=parity.nhwc(level).shape).astype(np.float32) for level in levels]
    sum((level * parity.nchw(weight)).mean() for level, weight in zip(levels, weights)).backward()

    def loss(params):
        pyramid = encoder.apply({"params": params}, x, train=True)
        return sum(jnp.mean(level * weight) for level, weight in zip(pyramid, weights)), pyramid

    gradient = jax.jit(jax.grad(loss, has_aux=True), compiler_options=parity.FAST_COMPILE)
    found, pyramid = gradient(variables["params"])
    for ours, theirs in zip(pyramid, levels, strict=True):
        parity.assert_close(ours, parity.nhwc(theirs))
    named = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in module.named_parameters()}
    expected = pretrained.convert({name: g.numpy() for name, g in named.items()}, form)
    found, largest = pretrained.flatten({"params": found}), max(np.abs(g).max() for g in expected.values())
    assert set(found) == set(expected)
    for path, g in expected.items():
        assert np.abs(found[path] - g).max() <= 1e-3 * np.abs(g).max() + 1e-5 * largest, path


@pytest.mark.parametrize("v2", some_slow([False, True], [False, True]))
def test_timms_numbers_where_windows_divide_the_image(v2):
    """timm moves the windows before it pads, so that other sizes differ; with `always_partition` as the authors'."""
    timm = oracles.timm()
    sizes = {"embed_dim": WIDTHS[0], "depths": DEPTHS, "num_heads": HEADS, "window_size": 3, "always_partition": True}
    name = "swinv2_tiny_window8_256" if v2 else "swin_tiny_patch4_window7_224"
    module = timm.create_model(name, img_size=(48, 96), num_classes=2, **sizes)
    parity.draw(module)
    encoder, x = SwinTransformer(**FIELDS, v2=v2), parity.images(48, 96)
    variables = parity.load(encoder, module, rules.timm_v2() if v2 else rules.timm())
    levels = module.eval().forward_intermediates(parity.nchw(x), intermediates_only=True)
    found = jax.jit(encoder.apply, compiler_options=parity.FAST_COMPILE)(variables, x)
    for ours, theirs in zip(found, levels, strict=True):
        parity.assert_close(ours, parity.nhwc(theirs))


# Parameters with the norm and the classifier that torchvision and timm have.
COUNTS = {
    "swin_tiny": 28_288_354,
    "swin_small": 49_606_258,
    "swin_base": 87_768_224,
    "swin_large": 196_532_476,
    "swinv2_tiny": 28_347_154,
    "swinv2_small": 49_725_670,
    "swinv2_base": 87_918_800,
    "swinv2_large": 196_739_932,
}
_EACH = some_slow(COUNTS, set(COUNTS) - {"swinv2_tiny"})


@pytest.mark.parametrize("name", _EACH)
def test_counts_are_the_published_ones(name):
    """timm's and torchvision's; torchvision's V2 has biases of zeros for the keys, which are counted there."""
    encoder = encoders.build(name)
    c = encoder.widths[-1]
    assert count_parameters(encoder) + 2 * c + 1000 * c + 1000 == COUNTS[name]


@pytest.mark.parametrize("name", some_slow(COUNTS, set(COUNTS) - {"swinv2_tiny"}))
def test_published_weights_fit(name):
    """At full size, by the shapes, under the names of timm, whose repositories they are, and of transformers."""
    torch, timm, peers = oracles.torch(), oracles.timm(), oracles.transformers()
    place = {row.encoder: row.published for row in rules.FAMILY.encoder_weights}[name].repository
    encoder = encoders.build(name)
    variables, v2 = variable_shapes(encoder, (1, 64, 64, 3)), encoder.v2
    sizes = {"embed_dim": encoder.widths[0], "depths": list(encoder.depths), "num_heads": list(encoder.heads)}
    with torch.device("meta"):
        module = timm.create_model(place.removeprefix("timm/"))
        kind = "Swinv2" if v2 else "Swin"
        config = getattr(peers, f"{kind}Config")(**sizes, window_size=encoder.window)
        other = getattr(peers, f"{kind}ForImageClassification")(config)
    lists = [known.rules() for known in catalogue.encoder_formats(name)]
    for each in (module, other):
        state = {key: np.broadcast_to(np.float32(0), tuple(x.shape)) for key, x in each.state_dict().items()}
        pretrained.merge(variables, pretrained.rename(state, lists))


@pytest.mark.parametrize("v2", some_slow([False, True], [True]))
def test_upernet_has_the_logits_of_transformers(v2):
    """Over `SwinBackbone`, whose levels have norms, and `Swinv2Backbone`, at a size of whole windows."""
    peers, kind = oracles.transformers(), "Swinv2" if v2 else "Swin"
    sizes = {"embed_dim": WIDTHS[0], "depths": list(DEPTHS), "num_heads": list(HEADS), "window_size": 3}
    backbone = getattr(peers, f"{kind}Config")(**sizes, image_size=72, out_features=["stage1", "stage2"])
    config = peers.UperNetConfig(
        backbone_config=backbone, hidden_size=8, pool_scales=[1, 2], use_auxiliary_head=False, num_labels=3
    )
    name = "swinv2_tiny" if v2 else "swin_tiny"
    (known,) = upernet.FAMILY.network_formats
    form = known.form_over(name).fields
    args = FIELDS | (form["encoder_args"] if "encoder_args" in form else {})
    fields = {**form, "width": 8, "bins": (1, 2), "aux_width": None, "encoder": name, "encoder_args": args}
    model = models.build("upernet", num_classes=3, **fields)
    parity.check_eval(
        model,
        peers.UperNetForSemanticSegmentation(config),
        upernet.transformers(rules.transformers(), (1, 2)),
        ((96, 144),),
        theirs=lambda result: [result.logits],
    )


def as_authors(state, blocks):
    """timm's names -> those of the authors' files, which have the merging of patches at the end of a stage."""
    moved = {}
    for name, x in state.items():
        parts = name.split(".")
        if "downsample" in parts:
            parts[1] = str(int(parts[1]) - 1)
        moved[".".join(parts).replace("head.fc", "head")] = x
    extra = {f"layers.{i}.blocks.1.attn_mask": np.zeros((4, 9, 9)) for i in blocks}
    return moved | extra | {"layers.0.blocks.0.attn.relative_position_index": np.zeros((9, 9), np.int64)}


@FORMS
def test_files_of_the_authors_are_known(v2):
    timm = oracles.timm()
    sizes = {"embed_dim": WIDTHS[0], "depths": DEPTHS, "num_heads": HEADS, "window_size": 3}
    name = "swinv2_tiny_window8_256" if v2 else "swin_tiny_patch4_window7_224"
    module = timm.create_model(name, img_size=96, num_classes=2, **sizes)
    state, encoder = parity.state_of(module), SwinTransformer(**FIELDS, v2=v2)
    lists = [known.rules() for known in catalogue.encoder_formats("swinv2_tiny" if v2 else "swin_tiny")]
    variables = variable_shapes(encoder, (1, 64, 64, 3))
    theirs = as_authors(state, (0, 1))
    if v2:  # their files hold the tables of distances, and no biases of the keys
        theirs = {key: x for key, x in theirs.items() if not key.endswith("k_bias")}
        theirs["layers.0.blocks.0.attn.relative_coords_table"] = np.zeros((1, 5, 5, 2), np.float32)
    assert "layers.0.downsample.reduction.weight" in theirs and "head.weight" in theirs
    found = pretrained.merge(variables, pretrained.rename(theirs, lists))
    expected = pretrained.merge(variables, pretrained.rename(state, lists))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_bias_belongs_to_a_distance():
    side, table = 3, np.random.default_rng(0).normal(size=(25, 2)).astype(np.float32)
    found, places = np.asarray(windows.by_distance(jnp.asarray(table), side)), np.indices((3, 3)).reshape(2, -1).T
    known = {tuple(distance): row for distance, row in zip(windows.distances(side), table, strict=True)}
    for q, query in enumerate(places):
        for k, key in enumerate(places):
            np.testing.assert_array_equal(found[:, q, k], known[tuple(query - key)])


@pytest.mark.parametrize(("h", "w"), [(6, 9), (9, 6)])
def test_pixels_of_two_borders_do_not_see_each_other(h, w):
    """Two pixels of a window see each other if they are as near as that before the shift."""
    side, places = 3, 1
    coordinates = jnp.asarray(np.indices((h, w)).transpose(1, 2, 0)[None])
    inside = np.asarray(windows.to_windows(windows.shifted(coordinates, places), side))
    apart = np.abs(inside[:, :, None] - inside[:, None]).max(-1)
    np.testing.assert_array_equal(windows.shift_mask((h, w), side, places), apart < side)
    back = windows.shifted(windows.from_windows(jnp.asarray(inside), side, (h, w)), -places)
    np.testing.assert_array_equal(back, coordinates)


def test_a_change_of_a_pixel_stays_in_its_windows():
    """Of a block without and with a shift: that of a window, and of those that meet it."""
    attention = functools.partial(nn.WindowAttention, 2, 4)
    x = np.random.default_rng(0).normal(size=(1, 12, 12, 4)).astype(np.float32)
    for shift, rows in ((0, range(4, 8)), (2, range(2, 6))):
        module = attention(shift)
        variables = drawn(module, x)
        run = jax.jit(module.apply, compiler_options=parity.FAST_COMPILE)
        changed = x.copy()
        changed[0, 5, 5] += 1
        different = np.abs(run(variables, changed) - run(variables, x)).max((0, -1)) > 1e-6
        expected = np.zeros((12, 12), bool)
        expected[rows.start : rows.stop, rows.start : rows.stop] = True
        np.testing.assert_array_equal(different, expected)


@pytest.mark.parametrize(("dtype", "close"), [("float16", 0.004), ("bfloat16", 0.03)])
def test_padded_windows_of_v2_have_the_gradients_of_float32(dtype, close):
    """Keys have no bias there, so that those beyond the image have no length, and no gradient of their direction."""
    x = np.random.default_rng(0).normal(size=(1, 4, 5, 4)).astype(np.float32)
    whole = nn.WindowAttention(2, 3, continuous=True)
    variables = drawn(whole, x)

    def run(module):
        def loss(variables, x):
            return jnp.sum(jnp.sin(module.apply(variables, x).astype(jnp.float32)))

        return jax.jit(jax.value_and_grad(loss, (0, 1)), compiler_options=parity.FAST_COMPILE)(variables, x)

    found, expected = (jax.tree.leaves(run(module)) for module in (whole.clone(dtype=dtype), whole))
    largest = max(np.abs(each).max() for each in expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=close * largest)


def largest(size):
    """The largest array of the gradient of an encoder, in numbers for each pixel of the image."""
    encoder = SwinTransformer(**FIELDS | {"widths": (4,), "depths": (2,), "heads": (1,)})
    variables = variable_shapes(encoder, (1, 64, 64, 3))
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    gradient = jax.grad(lambda v, x: sum(level.sum() for level in encoder.apply(v, x)))
    found = [0]

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            found.append(max((x.aval.size for x in equation.outvars), default=0))
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                walk(inner)

    walk(jax.make_jaxpr(gradient)(variables, image).jaxpr)
    return max(found) / size**2


def test_memory_grows_with_the_number_of_pixels():
    """Scores of all pixels with all would grow with its square: 16 times as many from one size to the next."""
    assert largest(192) < 1.1 * largest(96)


def test_windows_of_another_side_with_the_distances_of_the_pretraining():
    """Liu 2022, eq. 4: with windows of 5 in place of 3 the biases of the distances that both have are the same."""
    small, large = log_distances(3), log_distances(5, 3)
    inner = np.abs(windows.distances(5)).max(-1) <= 2
    np.testing.assert_array_equal(large[inner], small)
    np.testing.assert_allclose(small[0], -np.log2(9) / 3, rtol=1e-6)


@pytest.mark.parametrize("name", ["upernet", "fpn", "unet"])
def test_decoders_take_its_pyramid(name):
    fields = {"widths": (4, 8), "depths": (2, 1), "heads": (1, 2), "window": 3, "patch": 2}
    model = models.build(name, num_classes=3, encoder="swin_tiny", encoder_args=fields, **DECODERS[name])
    logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.zeros((1, 33, 18, 3)))[0]
    assert logits.shape == (1, 33, 18, 3)


DECODERS = {
    "upernet": {"width": 4, "finest": 2, "norm_features": True},
    "fpn": {"width": 4, "branch_width": 4, "finest": 2},
    "unet": {"widths": (4,)},
}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depths": (1,)}, r"depths \(1,\) must be as many as widths"),
        ({"trained_windows": (8,), "v2": True}, r"trained_windows \(8,\) must be as many as widths"),
        ({"heads": (3, 2)}, "WindowAttention of 4 features cannot have 3 heads"),
    ],
)
def test_fields_that_do_not_fit_are_named(fields, message):
    encoder = SwinTransformer(**FIELDS | fields)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))


def test_a_shift_is_below_the_side():
    with pytest.raises(ValueError, match="shift must be 0 or more and below side=3, got 3"):
        jax.eval_shape(nn.WindowAttention(1, 3, 3).init, jax.random.key(0), jnp.zeros((1, 4, 4, 2)))
