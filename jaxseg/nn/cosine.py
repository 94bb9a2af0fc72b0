"""A head that compares directions: logits are the cosine of a pixel's features with a learned code of each class."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import linen as nn

from jaxseg.nn.conv import ClassHead


class WithCosineHead(nn.Module):
    """A network whose class heads are cosine heads: f[b,h,w,c] -> (f32[b,h,w,k], out).

    The logit of class c at a pixel with the features x is s · xᵀw_c / (‖x‖ ‖w_c‖), with the column w_c of the head's
    kernel as the code of the class and a learned s above 0, which starts at 10 (Gidaris and Komodakis, Dynamic Few-Shot
    Visual Learning without Forgetting, 2018, equation 5). No bias and no length of a code can make a frequent class
    likelier everywhere. A head has the parameters "kernel" and "log_scale"; all others keep their paths.

    Only heads of 1x1 convolutions can be cosine heads, and some networks have none that ends them
    (`models.NEED_ALL_CLASSES`); `nn.of_classes` computes some of the classes alone, as of other heads.

    Attributes:
        network: a model of `jaxseg.models`.
    """

    network: nn.Module

    def setup(self) -> None:
        nn.share_scope(self, self.network)

    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, Mapping[str, Any]]:
        with cosine_heads():
            return self.network(image, train=train)


def cosine_heads() -> contextlib.AbstractContextManager[None]:
    """Returns a context in which class heads compute cosines."""
    return nn.intercept_methods(_as_cosine)


def _as_cosine(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
    if isinstance(context.module, ClassHead) and context.method_name == "__call__":
        kwargs = {**kwargs, "cosine": True}
    return call(*args, **kwargs)
