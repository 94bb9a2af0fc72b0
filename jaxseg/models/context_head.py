"""What networks with a context module share: attention between pixels, the convolutions around it, and the classifier.

Such a network reads the last features of a dilated encoder, relates each pixel to others and classifies
(`danet`, `nonlocal_net`, `gcnet`, `ccnet`, `ann`, `isanet`). Call these functions inside the compact `__call__` of a
network: the modules that they make are its children.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxseg.models.assembly import auxiliary_logits, make_encoder, name_stages, to_logits
from jaxseg.nn import ConvNormAct, Dropout, Layers, dot_product_attention


def attend(query: jax.Array, key: jax.Array, value: jax.Array, scale: float = 1.0) -> jax.Array:
    """Σ_j softmax_j(scale q_i · k_j) v_j: f[b,h,w,d], keys f[b,...,d], values f[b,...,e] -> f[b,h,w,e].

    Its memory is that of the weights, one number for each pair of a query and a key.
    """
    b, h, w, d = query.shape
    scaled = query * (scale * d**0.5)  # dot_product_attention divides by the square root of d
    tokens = (x.reshape(b, -1, 1, x.shape[-1]) for x in (scaled, key, value))
    return dot_product_attention(*tokens).reshape(b, h, w, value.shape[-1])


def with_context(
    x: jax.Array, context: Callable[[jax.Array], jax.Array], width: int, common: Layers, *, train: bool
) -> jax.Array:
    """f[b,h,w,c] -> f[b,h,w,width]: a context module between 3x3 convolutions (Huang 2019, "CCNet", Fig. 2).

    A 3x3 convolution to `width` channels ("reduce"), the context module, another 3x3 convolution ("project"), the
    concatenation with the input, and a 3x3 convolution of both ("fuse").
    """
    y = ConvNormAct(width, common=common, name="reduce")(x, train=train)
    y = ConvNormAct(width, common=common, name="project")(context(y), train=train)
    joined = jnp.concatenate([x, y], axis=-1)
    return ConvNormAct(width, common=common, name="fuse")(joined, train=train)


def encoded(model: Any, image: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
    """Returns the pyramid of the network's field `encoder`, the child "encoder"."""
    return make_encoder(model.encoder, model.common)(image, train=train)


def classified(
    model: Any, image: jax.Array, pyramid: Sequence[jax.Array], x: jax.Array, *, train: bool
) -> tuple[jax.Array, dict[str, Any]]:
    """Features f[b,y,x,c] -> (logits f32[b,h,w,k], stages): "dropout" of whole channels, "head", and "aux".

    Args:
        model: the network, with the fields num_classes, dropout, aux_width and common.
        image: f[b,h,w,.], whose size the logits get.
        pyramid: the encoder's levels; the second coarsest has the auxiliary head (`auxiliary_logits`).
        x: the features that are classified, stage 0 of the decoder.
        train: whether channels are dropped, and the auxiliary head computed.
    """
    common, size = model.common, image.shape[1:3]
    y = Dropout(model.dropout, axis_name=common.axis_name, spatial=True, name="dropout")(x, train=train)
    logits = to_logits(y, model.num_classes, size, dtype=common.dtype)
    aux = auxiliary_logits(model, pyramid, size, model.aux_width, model.dropout, train=train)
    return logits, {"aux": aux, **name_stages(encoder=pyramid, decoder=(x,))}
