"""The networks of `compare_torch.py` and `operations.py`: in jaxseg, in PyTorch and, for some, in plain Flax.

`tests/benchmarks/test_benchmark_networks.py` checks that they are the same functions. None has dropout, stochastic
depth or an auxiliary head.
"""

import dataclasses
import importlib
from typing import Any

from flax import linen as nn

from jaxseg import models

WIDTHS = (32, 64, 128, 256)


@dataclasses.dataclass(frozen=True)
class Network:
    """One network in each framework.

    Attributes:
        model: our architecture.
        fields: its fields.
        theirs: arguments of the function of the same name for PyTorch (and in `flax_networks.py`).
        file: where that function is.
        flax: whether there is a plain Flax form.
        num_classes: k.
    """

    model: str
    fields: dict[str, Any]
    theirs: dict[str, Any] = dataclasses.field(default_factory=dict)
    file: str = "torch_networks"
    flax: bool = False
    num_classes: int = 21

    def smallest(self) -> "Network":
        """Returns a network of the same kind that is quick to compile."""
        if "widths" in self.fields:
            return self.with_widths((4, 8))
        depths = {"depths": (1, 1, 1, 1)}
        arguments = depths | (self.fields["encoder_args"] if "encoder_args" in self.fields else {})
        return dataclasses.replace(self, fields=self.fields | {"encoder_args": arguments}, theirs=depths)

    def with_widths(self, widths: tuple[int, ...]) -> "Network":
        """Returns the network with these widths of its levels, if it has such a field, else itself."""
        if "widths" not in self.fields:
            return self
        return dataclasses.replace(self, fields=self.fields | {"widths": widths}, theirs={"widths": widths})

    def ours(self, dtype: str = "float32") -> nn.Module:
        """Returns our model: f[b,h,w,3] -> (f32[b,h,w,k], stages)."""
        return models.build(self.model, num_classes=self.num_classes, dtype=dtype, **self.fields)

    def torch(self) -> Any:
        """Returns the `torch.nn.Module`: f[b,3,h,w] -> logits f[b,k,h,w]."""
        build = getattr(importlib.import_module(f"lib.{self.file}"), self.model)
        return build(num_classes=self.num_classes, **self.theirs)

    def naive(self, dtype: str = "float32") -> nn.Module:
        """Returns the plain Flax form: f[b,h,w,3] -> f32[b,h,w,k]."""
        build = getattr(importlib.import_module("lib.flax_networks"), self.model)
        return build(num_classes=self.num_classes, dtype=dtype, **self.theirs)


NETWORKS = {
    "unet": Network("unet", {"widths": WIDTHS, "dropout": 0.0}, {"widths": WIDTHS}, flax=True),
    "resunet": Network("resunet", {"widths": WIDTHS}, {"widths": WIDTHS}, flax=True),
    # Over a ResNet without the paper's multi-grid, as torchvision's, which the other frameworks' networks here have.
    "deeplabv3plus": Network(
        "deeplabv3plus",
        {
            "encoder": "resnet50",
            "encoder_args": {"multi_grid": (1, 1, 1), "first_dilated": False},
            "dropout": 0.0,
        },
    ),
    "segformer": Network(
        "segformer",
        {"dropout": 0.0, "encoder": "mit_b0", "encoder_args": {"drop_path": 0.0}},
        file="torch_segformer",
    ),
}
