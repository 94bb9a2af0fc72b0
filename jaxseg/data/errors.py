"""The error that everything in `jaxseg.data` raises for data that cannot be used."""


class DataError(ValueError):
    """Data that cannot be used: one sentence with the file, what it holds and what was expected."""
