"""One configuration key, and the annotations of values that several keys have."""

from typing import Annotated, Any, NamedTuple

from jaxseg.arguments import Count, Finite, Where, bare, describe, one_or_more

# A tuple such as a size is checked as a whole: an invalid one may be set and then overridden, as any other value.
Color = Annotated[
    tuple[int, int, int],
    Where(lambda v: 0 <= min(v) <= max(v) < 256, instead="colours (red, green, blue) of whole numbers from 0 to 255"),
]
Numbers = Annotated[
    tuple[float, ...], Where(lambda v: all(abs(x) < float("inf") for x in v), instead="a tuple of finite numbers")
]
PositiveNumbers = Annotated[
    tuple[float, ...], Where(lambda v: all(0 < x < float("inf") for x in v), instead="a tuple of numbers above 0")
]
Widths = Annotated[tuple[Count, ...], one_or_more("whole numbers of at least 1")]


class Key(NamedTuple):
    """One configuration key.

    Attributes:
        default: its value where no experiment sets it.
        meaning: what it does, for `--help`.
        kind: annotation that says what its value must be (see `jaxseg.arguments`); None: any of the default's type.
        free: whether a resumed run may change it: it changes no number of a run, or, as compile.options and strategy,
            no more than another version of XLA does. (`remat` changes last bits.)
    """

    default: Any
    meaning: str
    kind: Any = None
    free: bool = False

    @property
    def hint(self) -> Any:
        """The annotation of its value."""
        if self.kind is None:
            return Finite if isinstance(self.default, float) else type(self.default)
        return self.kind

    @property
    def type(self) -> Any:
        """The type of its value: str, or tuple[str, ...]."""
        return bare(self.hint)

    @property
    def expected(self) -> str:
        """The words that complete "must be ..."."""
        return describe(self.hint)
