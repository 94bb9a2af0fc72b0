"""MaxViT against timm, torchvision and loops in NumPy, and its published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracles, parity
from helpers.marks import some_slow
from helpers.variables import count_parameters, drawn, variable_shapes

from jaxseg import models, pretrained
from jaxseg.errors import WeightsError
from jaxseg.models import encoders
from jaxseg.models.encoders.maxvit import AxisAttention, MaxViT, MaxViTConv
from jaxseg.nn.folding import find_pairs, fold, folded
from jaxseg.pretrained import catalogue
from jaxseg.pretrained import maxvit as rules

SIZES = {"authors": (24, 36), "torchvision": (24, 24)}  # torchvision's grids need square images
FIELDS = {"widths": (8, 16), "depths": (2,), "head_width": 4, "window": 3, "drop_path": 0.0}
FORMS = {"authors": rules.timm, "torchvision": rules.torchvision}
EACH = pytest.mark.parametrize("form", FORMS)


def peer(form):
    """The network of timm, or of torchvision, with our fields."""
    stem, *widths = FIELDS["widths"]
    depths = FIELDS["depths"]
    if form == "torchvision":
        module = oracles.torchvision().models.maxvit.MaxVit(
            SIZES[form], stem, FIELDS["window"], widths, list(depths), FIELDS["head_width"], 0.0, num_classes=2
        )
    else:
        sizes = {"embed_dim": tuple(widths), "depths": depths, "block_type": ("M",), "stem_width": stem}
        sizes |= {"transformer_dim_head": FIELDS["head_width"], "transformer_window_size": FIELDS["window"]}
        module = oracles.timm().create_model("maxvit_tiny_tf_224", img_size=SIZES[form], num_classes=2, **sizes)
    parity.draw(module)
    return module


def levels_of(module, x):
    """The pyramid, f[b,c,h,w] of each level."""
    if hasattr(module, "forward_intermediates"):
        return module.forward_intermediates(x, intermediates_only=True)
    levels = [module.stem(x)]
    for block in module.blocks:
        levels.append(block(levels[-1]))
    return levels


@EACH
def test_pyramid_and_gradients_are_those_of_the_peers(form):
    """In evaluation, with the running statistics, and the gradients of a training step, with those of the batch."""
    torch, module = oracles.torch(), peer(form)
    encoder = MaxViT(**FIELDS, form=form)
    variables, x = parity.load(encoder, module, FORMS[form]()), parity.images(*SIZES[form])
    with torch.no_grad():
        expected = levels_of(module.eval(), parity.nchw(x))
    levels = levels_of(module.train(), parity.nchw(x))
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(level.shape, generator=generator) for level in levels]
    sum((level * weight).mean() for level, weight in zip(levels, weights)).backward()

    def loss(params):
        pyramid, _ = encoder.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
        return sum(jnp.mean(level * parity.nhwc(weight)) for level, weight in zip(pyramid, weights))

    def both(params):
        return encoder.apply({**variables, "params": params}, x), jax.grad(loss)(params)

    pyramid, found = jax.jit(both, compiler_options=parity.FAST_COMPILE)(variables["params"])
    assert [level.shape for level in pyramid] == [
        (2, SIZES[form][0] // s, SIZES[form][1] // s, c) for s, c in zip(encoder.strides, encoder.widths, strict=True)
    ]
    for ours, level in zip(pyramid, expected, strict=True):
        parity.assert_close(ours, parity.nhwc(level))
    named = {name: p.grad.numpy() for name, p in module.named_parameters() if p.grad is not None}
    found, expected = pretrained.flatten({"params": found}), pretrained.convert(named, FORMS[form]())
    largest = max(np.abs(g).max() for g in expected.values())
    assert set(found) == set(expected)
    for path, g in expected.items():
        assert np.abs(found[path] - g).max() <= 1e-3 * np.abs(g).max() + 1e-5 * largest, path


def attention_in_loops(x, params, side, grid, head_width):
    """Attention of f[h,w,c] in float64, pixel by pixel: those of the map alone, none that fill a window or a grid."""
    h, w, c = x.shape
    table = params["position"].reshape(2 * side - 1, 2 * side - 1, -1)
    query, key, value = (x @ params[name]["kernel"] + params[name]["bias"] for name in ("query", "key", "value"))
    apart = -(-h // side), -(-w // side)  # rows and columns between the places of a grid

    def place_of(i, j):
        """The window or grid of a pixel, and its place there."""
        if grid:
            return (i % apart[0], j % apart[1]), (i // apart[0], j // apart[1])
        return (i // side, j // side), (i % side, j % side)

    y = np.zeros_like(x)
    for i, j in np.ndindex(h, w):
        mine, (row, column) = place_of(i, j)
        others = [(k, m) for k, m in np.ndindex(h, w) if place_of(k, m)[0] == mine]
        for n in range(c // head_width):
            part = slice(n * head_width, (n + 1) * head_width)
            scores = []
            for k, m in others:
                down, right = np.subtract((row, column), place_of(k, m)[1]) + side - 1
                scores.append(query[i, j, part] @ key[k, m, part] / np.sqrt(head_width) + table[down, right, n])
            weights = np.exp(scores - np.max(scores))
            y[i, j, part] = sum(a * value[k, m, part] for a, (k, m) in zip(weights / weights.sum(), others))
    return y @ params["out"]["kernel"] + params["out"]["bias"]


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("size", [(6, 3), (5, 8), (1, 2)])
def test_attention_is_that_of_the_pixels_of_the_map(size, grid):
    """Where the windows of 3 do not divide a side, and where it is shorter than one of them, too."""
    attention = AxisAttention(2, 3, grid)
    x = np.random.default_rng(0).normal(size=(2, *size, 4)).astype(np.float32)
    variables = drawn(attention, x)
    params = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables["params"])
    found = jax.jit(attention.apply, compiler_options=parity.FAST_COMPILE)(variables, x)
    for ours, image in zip(found, x.astype(np.float64), strict=True):
        parity.assert_close(ours, attention_in_loops(image, params, 3, grid, 2), 1e-5)


def test_biases_of_other_windows_are_interpolated():
    """Bilinearly between the distances, those of two heads apart."""
    x = np.random.default_rng(0).normal(size=(1, 6, 6, 4)).astype(np.float32)
    resized, own = AxisAttention(2, 3, trained_side=2), AxisAttention(2, 3)
    variables = drawn(resized, x)
    assert variables["params"]["position"].shape == (9, 2)
    table = jax.image.resize(variables["params"]["position"].reshape(3, 3, 2), (5, 5, 2), "bilinear").reshape(25, 2)

    def both(variables, changed, x):
        return resized.apply(variables, x), own.apply(changed, x)

    changed = {"params": {**variables["params"], "position": table}}
    found, expected = jax.jit(both, compiler_options=parity.FAST_COMPILE)(variables, changed, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@EACH
def test_shortcuts_average_the_pixels_that_a_window_has(form):
    """Of a map of ones with odd sides; torchvision counts the zeros around it."""
    block, x = MaxViTConv(2, 2, form=form), np.ones((1, 5, 3, 2), np.float32)
    variables = jax.tree.map(jnp.zeros_like, drawn(block, x))
    if form == "torchvision":
        variables["params"]["shortcut"]["kernel"] = jnp.eye(2)[None, None]
    expected = [[4, 4], [6, 6], [4, 4]] if form == "torchvision" else [[9, 9]] * 3
    found = jax.jit(block.apply, compiler_options=parity.FAST_COMPILE)(variables, x)
    np.testing.assert_allclose(found[0, :, :, 1], np.divide(expected, 9), rtol=1e-6)


# Parameters with the norms and the two dense layers of timm's classifiers of 1000 classes; the paper says 31, 69, 120
# and 212 million.
COUNTS = {"tiny": 30_916_528, "small": 68_927_956, "base": 119_467_708, "large": 211_785_560}


@pytest.mark.parametrize("size", some_slow(COUNTS, set(COUNTS) - {"tiny"}))
def test_published_weights_fit(size):
    """At full size, by the shapes, those of other windows too."""
    torch, timm, name = oracles.torch(), oracles.timm(), f"maxvit_{size}"
    encoder = encoders.build(name)
    c = encoder.widths[-1]
    assert count_parameters(encoder) + 2 * c + (c + 1) * c + (c + 1) * 1000 == COUNTS[size]
    places = [place.repository for place in catalogue.encoder_weights(name).values()]
    windows = {place.removeprefix("timm/"): 7 for place in places}
    windows |= {f"{name}_tf_512.in1k": 16} if size == "small" else {}
    for theirs, window in windows.items():
        with torch.device("meta"):
            module = timm.create_model(theirs)
        state = {key: np.broadcast_to(np.float32(0), tuple(x.shape)) for key, x in module.state_dict().items()}
        shapes = variable_shapes(encoders.build(name, window=window), (1, 64, 64, 3))
        pretrained.merge(shapes, pretrained.rename(state, [known.rules() for known in catalogue.encoder_formats(name)]))


@pytest.mark.slow
def test_torchvisions_network_has_its_published_size():
    """At full size, by the shapes; its classifier has no bias."""
    torch = oracles.torch()
    encoder = encoders.build("maxvit_tiny", form="torchvision")
    with torch.device("meta"):
        module = oracles.torchvision().models.maxvit_t()
    state = {key: np.broadcast_to(np.float32(0), tuple(x.shape)) for key, x in module.state_dict().items()}
    pretrained.merge(variable_shapes(encoder, (1, 64, 64, 3)), pretrained.convert(state, rules.torchvision()))
    assert count_parameters(encoder) + 2 * 512 + 513 * 512 + 512 * 1000 == 30_919_624


@EACH
def test_a_file_of_a_peer_becomes_the_encoder_of_its_form(tmp_path, form):
    torch, module = oracles.torch(), peer(form)
    torch.save(module.state_dict(), tmp_path / "x.pth")
    fields = {key: value for key, value in FIELDS.items() if key != "drop_path"}

    def loaded(form):
        args = {"encoder": "maxvit_tiny", "encoder_args": fields | {"form": form}}
        model = models.build("fcn_head", num_classes=2, width=4, **args)
        return pretrained.load(variable_shapes(model, (1, 32, 32, 3)), str(tmp_path / "x.pth"), encoder="maxvit_tiny")

    found = pretrained.flatten(loaded(form).variables)
    expected = pretrained.convert(parity.state_of(module), FORMS[form]())
    for path, x in expected.items():
        np.testing.assert_array_equal(found[path.replace("/", "/encoder/", 1)], x)
    with pytest.raises(WeightsError, match="stem/conv1/bias"):
        loaded("authors" if form == "torchvision" else "torchvision")


def test_norms_behind_convolutions_are_folded_for_inference():
    """Those before the blocks, which read a sum, stay; the first convolution has a bias."""
    encoder = MaxViT(**FIELDS | {"depths": (1,)})
    x = parity.images(12, 12, batch=1)
    variables = drawn(encoder, x)

    def apply(variables, x):
        return encoder.apply(variables, x, train=False)

    pairs = find_pairs(apply, variables, x)
    inside = [f"stage1/block1/conv/{part}" for part in ("expand", "depthwise")]
    assert ["/".join(pair.norm) for pair in pairs] == ["stem/norm", *(f"{path}/norm" for path in inside)]

    def both(variables, changed, x):
        return apply(variables, x), folded(apply, pairs)(changed, x)

    run = jax.jit(both, compiler_options=parity.FAST_COMPILE)
    for whole, ours in zip(*run(variables, fold(variables, pairs), x), strict=True):
        parity.assert_close(ours, whole, 1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depths": (1, 2)}, r"widths \(8, 16\) must be those of the stem and of the 2 stages of depths \(1, 2\)"),
        ({"head_width": 3}, "attention of 16 features cannot have heads of width 3"),
    ],
)
def test_fields_that_do_not_fit_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(MaxViT(**FIELDS | fields).init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
