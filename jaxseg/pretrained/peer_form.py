"""Compares our network with the form of the peer's network whose weights it is given.

Some fields show in the arrays (the size of a kernel): weights do not fit without them, and `advice` names them in the
error. Others do not (aligned corners): the weights fit and the numbers differ, which `remarks` notes.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from jaxseg import models
from jaxseg.nn import rates_at
from jaxseg.pretrained.family import NetworkFormat


def encoder_of(network: nn.Module) -> Any | None:
    """Returns an encoder as the network makes it, without variables; None for a network without the field."""
    encoder = getattr(network, "encoder", None)
    return None if encoder is None else encoder()


def advice(known: NetworkFormat, encoder: str | None, network: nn.Module) -> str:
    """Returns the fields in which the network differs from the peer's, for the error of weights that do not fit.

    Args:
        known: the format of the file.
        encoder: name of the network's encoder.
        network: ours, in which the weights do not fit.
    """
    form = known.form_over(encoder)
    if form is None:
        return ""
    fields, sizes = differing_fields(form.fields, network), differing_fields(form.sizes, network)
    if not fields and not sizes:
        return ""
    usual = f"{' and ' if fields else ''}by default {', '.join(sizes)}" if sizes else ""
    return f" The file has the names of {known.peer}, whose network is ours with {', '.join(fields)}{usual}."


def remarks(
    known: NetworkFormat, encoder: str | None, network: nn.Module, arrays: Mapping[str, np.ndarray]
) -> list[str]:
    """Returns a note for weights that fit a network whose numbers differ from the peer's; none if they agree.

    The arguments are those of `advice`, and the arrays of the file by name.
    """
    form = known.form_over(encoder)
    fields = [] if form is None else differing_fields(form.fields, network)
    fields += [] if known.left_out is None else known.left_out(arrays, network)
    if not fields:
        return []
    return [f"the numbers differ from those of {known.peer}'s network, which is ours with {', '.join(fields)}"]


def differing_fields(wanted: Mapping[str, Any], network: nn.Module) -> list[str]:
    """Returns "FIELD=VALUE" for each field of `wanted` for which the network has another value."""
    differing = [
        f"{key}={_written(value)}"
        for key, value in wanted.items()
        if key != "encoder_args" and _field(network, key, wanted) != value
    ]
    if "encoder_args" in wanted:
        encoder = encoder_of(network)
        for key, value in wanted["encoder_args"].items():
            if hasattr(encoder, key) and getattr(encoder, key) != value:
                differing.append(f"encoder_args.{key}={_written(value)}")
    return differing


def _field(network: nn.Module, key: str, wanted: Mapping[str, Any]) -> Any:
    """Returns a field of the network in the terms of `wanted`."""
    if key == "act":
        return _activation_name(network)
    value = getattr(network, key)
    if key == "rates" and value is None:  # the network then follows the output stride
        return rates_at(wanted["encoder_args"]["output_stride"])
    return value


def _activation_name(network: Any) -> Any:
    """Returns the name of the network's activation, or the function itself if it is not in `models.ACTIVATIONS`."""
    function = network.common.act
    return next((name for name in models.ACTIVATIONS if getattr(jax.nn, name) is function), function)


def _written(value: Any) -> str:
    """Returns a value as the command line takes it."""
    return str(value).replace(" ", "")
