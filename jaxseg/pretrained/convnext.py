"""The names of ConvNeXt in torchvision, timm and transformers; what follows the last stage is left out."""

import numpy as np

from jaxseg.pretrained.rules import Rule, dense, layer, norm

STAGES = 4
# Blocks of the deepest stage of any published member.
MOST = 27


def pointwise(x: np.ndarray) -> np.ndarray:
    """Linear weight f[o,c] -> kernel f[1,1,c,o] of a 1x1 convolution."""
    return dense(x)[None, None]


def scale(x: np.ndarray) -> np.ndarray:
    """Layer scale f[c,1,1] or f[c] -> f[c]."""
    return x.reshape(-1)


def torchvision() -> list[Rule]:
    """Rules of torchvision's `convnext_*`: stages are features.1, 3, 5, 7, and what stands before them 0, 2, 4, 6."""
    rules = layer(r"features\.0\.0", "stem") + norm(r"features\.0\.1", "stem_norm")
    for i in range(STAGES):
        if i > 0:
            rules += norm(rf"features\.{2 * i}\.0", f"stage{i}/norm")
            rules += layer(rf"features\.{2 * i}\.1", f"stage{i}/reduce")
        for j in range(MOST):
            rules += _block(
                rf"features\.{2 * i + 1}\.{j}\.", f"stage{i}/block{j + 1}",
                (r"block\.0", r"block\.2", r"block\.3", r"block\.5", "layer_scale"),
            )  # fmt: skip
    return [*rules, Rule(r"classifier\..*", None)]


def timm() -> list[Rule]:
    """Rules of timm's `convnext_*`, of the classifiers and (with underscores) of the features alone."""
    rules = layer(r"stem[._]0", "stem") + norm(r"stem[._]1", "stem_norm")
    for i in range(STAGES):
        if i > 0:
            rules += norm(rf"stages[._]{i}\.downsample\.0", f"stage{i}/norm")
            rules += layer(rf"stages[._]{i}\.downsample\.1", f"stage{i}/reduce")
        for j in range(MOST):
            rules += _block(
                rf"stages[._]{i}\.blocks\.{j}\.", f"stage{i}/block{j + 1}",
                ("conv_dw", "norm", r"mlp\.fc1", r"mlp\.fc2", "gamma"),
            )  # fmt: skip
    return [*rules, Rule(r"head\..*", None)]


def transformers() -> list[Rule]:
    """Rules of transformers' `ConvNextBackbone`, with its norm of each level (`output_norm`)."""
    rules = layer(r"embeddings\.patch_embeddings", "stem") + norm(r"embeddings\.layernorm", "stem_norm")
    for i in range(STAGES):
        if i > 0:
            rules += norm(rf"encoder\.stages\.{i}\.downsampling_layer\.0", f"stage{i}/norm")
            rules += layer(rf"encoder\.stages\.{i}\.downsampling_layer\.1", f"stage{i}/reduce")
        for j in range(MOST):
            rules += _block(
                rf"encoder\.stages\.{i}\.layers\.{j}\.", f"stage{i}/block{j + 1}",
                ("dwconv", "layernorm", "pwconv1", "pwconv2", "layer_scale_parameter"),
            )  # fmt: skip
        rules += norm(rf"hidden_states_norms\.stage{i + 1}", f"norm{i}")
    return rules


def _block(theirs: str, ours: str, names: tuple[str, str, str, str, str]) -> list[Rule]:
    depthwise, norm_, expand, project, gamma = (theirs + name for name in names)
    return [
        *layer(depthwise, f"{ours}/depthwise"),
        *norm(norm_, f"{ours}/norm"),
        *layer(expand, f"{ours}/expand", pointwise),
        *layer(project, f"{ours}/project", pointwise),
        Rule(gamma, f"params/{ours}/scale", scale),
    ]
