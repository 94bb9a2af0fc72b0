"""SegFormer of `networks.py` in PyTorch: f[b,3,h,w] -> logits f32[b,k,h,w].

Children have the names of transformers' modules, so that the rules of `jaxseg.pretrained` apply.
"""

import itertools
from collections.abc import Sequence

import torch
from lib.torch_networks import resize
from torch import Tensor, nn
from torch.nn import functional


def image_of(tokens: Tensor, size: Sequence[int]) -> Tensor:
    """f[b,h w,c] -> f[b,c,h,w], channels-last without a copy."""
    return tokens.transpose(1, 2).unflatten(2, tuple(size))


def tokens_of(x: Tensor) -> Tensor:
    """f[b,c,h,w] -> f[b,h w,c], of channels-last without a copy."""
    return x.flatten(2).transpose(1, 2)


class SequenceReduction(nn.Module):
    def __init__(self, c: int, ratio: int) -> None:
        super().__init__()
        self.sequence_reduction, self.layer_norm = nn.Conv2d(c, c, ratio, ratio), nn.LayerNorm(c)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return self.layer_norm(tokens_of(self.sequence_reduction(image_of(x, size))))


class MixAttention(nn.Module):
    """Self-attention with keys and values from a grid that is `ratio` times coarser."""

    def __init__(self, c: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(c, c) for _ in range(4))
        self.sequence_reduction = SequenceReduction(c, ratio) if ratio > 1 else None

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        keys = x if self.sequence_reduction is None else self.sequence_reduction(x, size)
        projected = self.q_proj(x), self.k_proj(keys), self.v_proj(keys)
        q, k, v = (y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in projected)
        return self.o_proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class DepthwiseConv(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(c, c, 3, 1, 1, groups=c)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return tokens_of(self.dwconv(image_of(x, size)))


class MixFFN(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.fc1, self.dwconv, self.fc2 = nn.Linear(c, 4 * c), DepthwiseConv(4 * c), nn.Linear(4 * c, c)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return self.fc2(functional.gelu(self.dwconv(self.fc1(x), size)))


class MixBlock(nn.Module):
    def __init__(self, c: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.layernorm_before, self.layernorm_after = nn.LayerNorm(c, 1e-6), nn.LayerNorm(c, 1e-6)
        self.attention, self.mlp = MixAttention(c, heads, ratio), MixFFN(c)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        x = x + self.attention(self.layernorm_before(x), size)
        return x + self.mlp(self.layernorm_after(x), size)


class PatchEmbeddings(nn.Module):
    def __init__(self, c: int, o: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj, self.layer_norm = nn.Conv2d(c, o, kernel, stride, kernel // 2), nn.LayerNorm(o)

    def forward(self, x: Tensor) -> tuple[Tensor, Sequence[int]]:
        x = self.proj(x)
        return self.layer_norm(tokens_of(x)), x.shape[2:]


class MixStage(nn.Module):
    """Overlapping patches, then blocks."""

    def __init__(self, c: int, o: int, kernel: int, stride: int, depth: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.patch_embeddings = PatchEmbeddings(c, o, kernel, stride)
        self.blocks = nn.ModuleList(MixBlock(o, heads, ratio) for _ in range(depth))
        self.layer_norm = nn.LayerNorm(o, 1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x, size = self.patch_embeddings(x)
        for block in self.blocks:
            x = block(x, size)
        return image_of(self.layer_norm(x), size)


class MixTransformer(nn.Module):
    def __init__(self, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        rows = zip((3, *widths), widths, (7, 3, 3, 3), (4, 2, 2, 2), depths, (1, 2, 5, 8), (8, 4, 2, 1))
        self.stages = nn.ModuleList(MixStage(*row) for row in rows)

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(itertools.accumulate(self.stages, lambda x, stage: stage(x), initial=x))[1:]


class Projection(nn.Module):
    def __init__(self, c: int, o: int) -> None:
        super().__init__()
        self.proj = nn.Linear(c, o)

    def forward(self, x: Tensor) -> Tensor:
        return image_of(self.proj(tokens_of(x)), x.shape[2:])


class SegFormerHead(nn.Module):
    """Each level projected and enlarged, then one 1x1 convolution over all, coarsest first."""

    def __init__(self, widths: Sequence[int], features: int, num_classes: int) -> None:
        super().__init__()
        self.linear_projections = nn.ModuleList(Projection(c, features) for c in widths)
        self.linear_fuse = nn.Conv2d(len(widths) * features, features, 1, bias=False)
        self.batch_norm = nn.BatchNorm2d(features)
        self.classifier = nn.Conv2d(features, num_classes, 1)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        size = pyramid[0].shape[2:]
        levels = [project(x) for project, x in zip(self.linear_projections, pyramid)]
        levels = [levels[0], *(resize(x, size) for x in levels[1:])]
        x = self.batch_norm(self.linear_fuse(torch.cat(levels[::-1], 1)))
        return self.classifier(functional.relu(x, inplace=True))


class SegFormer(nn.Module):
    """SegFormer over MiT-B0."""

    def __init__(self, widths: Sequence[int], depths: Sequence[int], features: int, num_classes: int) -> None:
        super().__init__()
        self.segformer, self.decode_head = MixTransformer(widths, depths), SegFormerHead(widths, features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return resize(self.decode_head(self.segformer(x)).float(), x.shape[2:])


def segformer(num_classes: int, depths: Sequence[int] = (2, 2, 2, 2)) -> nn.Module:
    """Our `segformer` with a Mix Transformer of the widths of MiT-B0 and these depths."""
    return SegFormer((32, 64, 160, 256), depths, 256, num_classes)
