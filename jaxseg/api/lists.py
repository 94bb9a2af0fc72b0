"""The names that `create_model` and a configuration know."""

import fnmatch

from jaxseg import models
from jaxseg.models import encoders


def list_models(pattern: str = "*") -> list[str]:
    """Returns the names of the networks that match a pattern with the wildcards * and ?, sorted."""
    return sorted(fnmatch.filter(models.names(), pattern))


def list_encoders(pattern: str = "*") -> list[str]:
    """Returns the names of the encoders that match a pattern with the wildcards * and ?, sorted."""
    return sorted(fnmatch.filter(encoders.names(), pattern))
