"""The networks of `compare_torch.py` in PyTorch: the same layers, widths and number of parameters as ours."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Network:
    """One network in both frameworks.

    Attributes:
        model: our architecture.
        fields: its fields.
        torch: builds the same as a `torch.nn.Module` whose result is logits f[b,k,h,w].
        num_classes: k.
    """

    model: str
    fields: dict[str, Any]
    torch: Callable[[], Any]
    num_classes: int = 21


WIDTHS = (32, 64, 128, 256)


def unet() -> Any:
    """U-Net as `jaxseg.models.unet` has it: two 3x3 convolutions a level, batch norm, transposed convolutions."""
    import torch
    from torch import nn

    def convs(c: int, o: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for i in (c, o):
            layers += [nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.ModuleList(convs(c, o) for c, o in zip((3, *WIDTHS), WIDTHS))
            self.up = nn.ModuleList(nn.ConvTranspose2d(c, o, 2, 2) for o, c in itertools.pairwise(WIDTHS))
            self.merge = nn.ModuleList(convs(2 * o, o) for o in WIDTHS[:-1])
            self.head = nn.Conv2d(WIDTHS[0], 21, 1)

        def forward(self, x: Any) -> Any:
            skips = []
            for i, stage in enumerate(self.down):
                x = stage(x if i == 0 else nn.functional.max_pool2d(x, 2))
                skips.append(x)
            for i in reversed(range(len(self.up))):
                x = self.merge[i](torch.cat([self.up[i](x), skips[i]], 1))
            return self.head(x)

    return UNet()


def resunet() -> Any:
    """ResUNet as `jaxseg.models.resunet` has it: pre-activation units, strided convolutions, nearest up-sampling."""
    import torch
    from torch import nn

    class Unit(nn.Module):
        def __init__(self, c: int, o: int, stride: int, first: bool) -> None:
            super().__init__()
            self.norm1 = nn.Identity() if first else nn.BatchNorm2d(c)
            self.act1 = nn.Identity() if first else nn.ReLU()
            self.conv1 = nn.Conv2d(c, o, 3, stride, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(o)
            self.conv2 = nn.Conv2d(o, o, 3, 1, 1)
            same = c == o and stride == 1
            self.shortcut = nn.Identity() if same else nn.Conv2d(c, o, 1, stride, bias=False)

        def forward(self, x: Any) -> Any:
            h = self.conv1(self.act1(self.norm1(x)))
            return self.shortcut(x) + self.conv2(torch.relu(self.norm2(h)))

    class ResUNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            pairs = zip((3, *WIDTHS), WIDTHS)
            self.down = nn.ModuleList(Unit(c, o, 1 if i == 0 else 2, i == 0) for i, (c, o) in enumerate(pairs))
            self.up = nn.ModuleList(Unit(c + o, o, 1, False) for o, c in itertools.pairwise(WIDTHS))
            self.head = nn.Conv2d(WIDTHS[0], 21, 1)

        def forward(self, x: Any) -> Any:
            skips = []
            for stage in self.down:
                x = stage(x)
                skips.append(x)
            for i in reversed(range(len(self.up))):
                x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
                x = self.up[i](torch.cat([x, skips[i]], 1))
            return self.head(x)

    return ResUNet()


NETWORKS = {
    "unet": Network("unet", {"widths": WIDTHS}, unet),
    "resunet": Network("resunet", {"widths": WIDTHS}, resunet),
}
