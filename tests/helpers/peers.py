"""The formats of peers' networks, by the architecture and the peer."""

from jaxseg.pretrained import catalogue
from jaxseg.pretrained.family import NetworkFormat, PeerForm


def format_of(model: str, peer: str) -> NetworkFormat:
    """Returns the one format in which the peer's files of this architecture come."""
    (known,) = (known for known in catalogue.network_formats(model) if known.peer == peer)
    return known


def form_of(model: str, peer: str, encoder: str) -> PeerForm:
    """Returns the fields that give our network over `encoder` the form of the peer's."""
    form = format_of(model, peer).form_over(encoder)
    assert form is not None
    return form
