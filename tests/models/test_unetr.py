"""UNETR against MONAI's, with the same weights, and what it refuses."""

import re

import jax
import numpy as np
import pytest
from helpers import oracles
from helpers.parity import FAST_COMPILE, assert_close, draw, images, nchw, nhwc, state_of
from helpers.variables import shapes, variable_shapes

from jaxseg import models, pretrained
from jaxseg.pretrained.rules import Rule, conv_transpose, dense, layer, norm

WIDTH, TAPS = 8, (4, 7, 10, 12)


def vit_rules():
    def split(x):
        return tuple(np.ascontiguousarray(part.T) for part in np.split(x, 3))

    block = r"vit\.blocks\.(\d+)"
    parts = tuple(f"params/encoder/block{{1}}/attention/{name}/kernel" for name in ("query", "key", "value"))
    return [
        *layer(r"vit\.patch_embedding\.patch_embeddings", "encoder/stem/patch"),
        Rule(r"vit\.patch_embedding\.position_embeddings", "params/encoder/stem/position"),
        Rule(r".*cross_attn.*", None),
        Rule(rf"{block}\.attn\.qkv\.weight", parts, split),
        *layer(rf"{block}\.attn\.out_proj", "encoder/block{1}/attention/out", dense),
        *norm(rf"{block}\.norm(\d)", "encoder/block{1}/norm{2}"),
        *layer(rf"{block}\.mlp\.linear1", "encoder/block{1}/expand", dense),
        *layer(rf"{block}\.mlp\.linear2", "encoder/block{1}/reduce", dense),
        *norm(r"vit\.norm", "encoder/norm"),
    ]


def unit_rules(theirs, ours):
    rules = []
    for number, name in ((1, "conv1"), (2, "conv2")):
        rules += layer(rf"{theirs}\.conv{number}\.conv", f"{ours}/{name}/conv")
        rules += norm(rf"{theirs}\.norm{number}", f"{ours}/{name}/norm")
    rules += layer(rf"{theirs}\.conv3\.conv", f"{ours}/shortcut")
    return rules + norm(rf"{theirs}\.norm3", f"{ours}/shortcut_norm")


def rules_of_monai():
    rules = vit_rules() + unit_rules(r"encoder1\.layer", "decoder/skip0")
    for i in (1, 2, 3):
        theirs, ours = rf"encoder{i + 1}", f"decoder/skip{i}"
        rules += layer(rf"{theirs}\.transp_conv_init\.conv", f"{ours}/up1", conv_transpose)
        for j in (0, 1):
            rules += layer(rf"{theirs}\.blocks\.{j}\.0\.conv", f"{ours}/up{j + 2}", conv_transpose)
            rules += unit_rules(rf"{theirs}\.blocks\.{j}\.1", f"{ours}/block{j + 2}")
    for i in range(4):
        theirs, ours = rf"decoder{i + 2}", f"decoder/stage{i}"
        rules += layer(rf"{theirs}\.transp_conv\.conv", f"{ours}/up", conv_transpose)
        rules += unit_rules(rf"{theirs}\.conv_block", f"{ours}/block")
    return rules + layer(r"out\.conv\.conv", "head")


def renumbered(state):
    """Our blocks are counted from 1."""
    return {re.sub(r"(vit\.blocks\.)(\d+)", lambda m: f"{m[1]}{int(m[2]) + 1}", name): x for name, x in state.items()}


def test_the_network_is_that_of_monai():
    """Of an odd image it is theirs with zeros at the bottom and right."""
    torch = oracles.torch()
    nets = pytest.importorskip("monai.networks.nets")
    sizes = {"feature_size": 4, "hidden_size": WIDTH, "mlp_dim": 4 * WIDTH, "num_heads": 2, "spatial_dims": 2}
    module = nets.UNETR(3, 5, (32, 48), norm_name=("instance", {"affine": True}), **sizes)
    draw(module)
    encoder = {"width": WIDTH, "num_heads": 2, "grid": (2, 3), "class_token": False, "epsilon": 1e-5, "taps": TAPS}
    fields = {"features": 4, "norm": "instance", "act": "leaky_relu", "encoder_args": encoder}
    model = models.build("unetr", num_classes=5, **fields)
    # Theirs has no biases of query, key and value.
    arrays = pretrained.convert(renumbered(state_of(module)), rules_of_monai())
    wanted = pretrained.flatten(variable_shapes(model, (1, 32, 48, 3)))
    absent = {path: np.zeros(x.shape, np.float32) for path, x in wanted.items() if path not in arrays}
    assert {tuple(path.split("/")[-3:]) for path in absent} == {
        ("attention", name, "bias") for name in ("query", "key", "value")
    }
    variables = pretrained.merge(variable_shapes(model, (1, 32, 48, 3)), arrays | absent)
    apply = jax.jit(lambda x: model.apply(variables, x)[0], compiler_options=FAST_COMPILE)
    x = images(27, 41)
    padded = np.pad(x, ((0, 0), (0, 5), (0, 7), (0, 0)))
    with torch.no_grad():
        expected = nhwc(module.eval()(nchw(padded)))[:, :27, :41]
    assert_close(apply(x), expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoder": "plain", "encoder_args": {"widths": (4, 8)}}, r"unetr reads levels of one stride.* are \(1, 2\)"),
        ({"encoder_args": {"taps": (3, 12)}}, "unetr needs patches of 2.n pixels .*, got patches of 16 and 2 levels"),
        ({"encoder": "vit_base_dinov2"}, "got patches of 14 and 4 levels"),
    ],
)
def test_other_encoders_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        shapes(models.build("unetr", num_classes=2, **fields), (1, 32, 32, 3))
