"""The convolutional networks of `networks.py` in PyTorch: f[b,3,h,w] -> logits f32[b,k,h,w].

Children of DeepLabV3+ have the names that segmentation_models.pytorch gives them, so that the rules of
`jaxseg.pretrained` apply. Logits become float32 before up-sampling, as in jaxseg.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, align_corners=False."""
    return functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def conv_norm_act(c: int, o: int, kernel: int = 3, **options: Any) -> list[nn.Module]:
    """A convolution without bias that keeps the size at stride 1, batch norm, ReLU."""
    conv = nn.Conv2d(c, o, kernel, padding=kernel // 2, bias=False, **options)
    return [conv, nn.BatchNorm2d(o), nn.ReLU(inplace=True)]


class UNet(nn.Module):
    """Two 3x3 convolutions a level, batch norm, max-pooling, transposed convolutions."""

    def __init__(self, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        stage = lambda c, o: nn.Sequential(*conv_norm_act(c, o), *conv_norm_act(o, o))  # noqa: E731
        self.down = nn.ModuleList(stage(c, o) for c, o in zip((3, *widths), widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(c, o, 2, 2) for o, c in itertools.pairwise(widths))
        self.merge = nn.ModuleList(stage(2 * o, o) for o in widths[:-1])
        self.head = nn.Conv2d(widths[0], num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for i, stage in enumerate(self.down):
            x = stage(x if i == 0 else functional.max_pool2d(x, 2))
            skips.append(x)
        for i in reversed(range(len(self.up))):
            x = self.merge[i](torch.cat([self.up[i](x), skips[i]], 1))
        return self.head(x).float()


class PreActUnit(nn.Module):
    """Norm, ReLU, convolution, twice; a 1x1 projection where the shape changes."""

    def __init__(self, c: int, o: int, stride: int = 1, *, first: bool = False) -> None:
        super().__init__()
        self.preact = nn.Identity() if first else nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(inplace=False))
        self.conv1 = nn.Conv2d(c, o, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(o)
        self.conv2 = nn.Conv2d(o, o, 3, 1, 1)
        self.shortcut = nn.Identity() if c == o and stride == 1 else nn.Conv2d(c, o, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(self.preact(x))
        return self.shortcut(x) + self.conv2(functional.relu(self.norm2(h), inplace=True))


class ResUNet(nn.Module):
    """Pre-activation units, strided convolutions, nearest up-sampling."""

    def __init__(self, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        pairs = enumerate(zip((3, *widths), widths))
        self.down = nn.ModuleList(PreActUnit(c, o, 1 if i == 0 else 2, first=i == 0) for i, (c, o) in pairs)
        self.up = nn.ModuleList(PreActUnit(c + o, o) for o, c in itertools.pairwise(widths))
        self.head = nn.Conv2d(widths[0], num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for stage in self.down:
            x = stage(x)
            skips.append(x)
        for i in reversed(range(len(self.up))):
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = self.up[i](torch.cat([x, skips[i]], 1))
        return self.head(x).float()


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 convolutions beside a shortcut."""

    def __init__(self, c: int, o: int, stride: int, dilation: int, *, project: bool) -> None:
        super().__init__()
        width = o // 4
        self.conv1, self.bn1 = nn.Conv2d(c, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, o, 1, bias=False), nn.BatchNorm2d(o)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if project:
            self.downsample = nn.Sequential(nn.Conv2d(c, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.bn1(self.conv1(x)))
        h = self.relu(self.bn2(self.conv2(h)))
        h = self.bn3(self.conv3(h))
        return self.relu(h + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Returns the levels of stride 4 and 16; the last stage dilates in place of its stride (torchvision's form)."""

    def __init__(self, depths: Sequence[int]) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        c = 64
        for i, (depth, o, stride) in enumerate(zip(depths, (256, 512, 1024, 2048), (1, 2, 2, 1)), start=1):
            blocks = []
            for n in range(depth):
                dilation = 2 if i == 4 and n > 0 else 1
                blocks.append(Bottleneck(c, o, stride if n == 0 else 1, dilation, project=n == 0))
                c = o
            setattr(self, f"layer{i}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        low = self.layer1(functional.max_pool2d(x, 3, 2, 1))
        return low, self.layer4(self.layer3(self.layer2(low)))


def separable(c: int, o: int, dilation: int = 1) -> list[nn.Module]:
    """A 3x3 depthwise and a 1x1 convolution, batch norm, ReLU."""
    depthwise = nn.Conv2d(c, c, 3, padding=dilation, dilation=dilation, groups=c, bias=False)
    pointwise = nn.Conv2d(c, o, 1, bias=False)
    return [nn.Sequential(depthwise, pointwise), nn.BatchNorm2d(o), nn.ReLU(inplace=True)]


class ASPP(nn.Module):
    """A 1x1 convolution, separable ones of three rates and the image's mean, concatenated and projected."""

    def __init__(self, c: int, o: int, rates: Sequence[int]) -> None:
        super().__init__()
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_norm_act(c, o, 1))
        atrous = [nn.Sequential(*separable(c, o, rate)) for rate in rates]
        self.convs = nn.ModuleList([nn.Sequential(*conv_norm_act(c, o, 1)), *atrous, pool])
        self.project = nn.Sequential(*conv_norm_act((len(rates) + 2) * o, o, 1))

    def forward(self, x: Tensor) -> Tensor:
        *branches, mean = [conv(x) for conv in self.convs]
        return self.project(torch.cat([*branches, mean.expand_as(branches[0])], 1))


class DeepLabV3PlusDecoder(nn.Module):
    """Atrous pyramid pooling, joined with the level of stride 4 by two separable convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.aspp = nn.Sequential(ASPP(2048, 256, (6, 12, 18)))
        self.block1 = nn.Sequential(*conv_norm_act(256, 48, 1))
        self.block2 = nn.Sequential(*separable(256 + 48, 256), *separable(256, 256))

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        return self.block2(torch.cat([resize(self.aspp(high), low.shape[2:]), self.block1(low)], 1))


class DeepLabV3Plus(nn.Module):
    """DeepLabV3+ over a ResNet of bottlenecks at output stride 16."""

    def __init__(self, depths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.encoder, self.decoder = ResNet(depths), DeepLabV3PlusDecoder()
        self.segmentation_head = nn.Sequential(nn.Conv2d(256, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        return resize(self.segmentation_head(self.decoder(*self.encoder(x))).float(), x.shape[2:])


def unet(widths: Sequence[int], num_classes: int) -> nn.Module:
    """Our `unet` of these widths."""
    return UNet(widths, num_classes)


def resunet(widths: Sequence[int], num_classes: int) -> nn.Module:
    """Our `resunet` of these widths."""
    return ResUNet(widths, num_classes)


def deeplabv3plus(num_classes: int, depths: Sequence[int] = (3, 4, 6, 3)) -> nn.Module:
    """Our `deeplabv3plus` with a ResNet of bottlenecks and these depths as its encoder: ResNet-50."""
    return DeepLabV3Plus(depths, num_classes)
