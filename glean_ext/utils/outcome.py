"""What became of one of many things: its result, or the reason why there is none; and what became of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

from glean_ext.errors import InputError

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, eq=False)
class Outcome(Generic[T]):
    """A result, or the InputError that took its place.

    >>> Outcome.of(lambda: 4).unwrap()
    4
    """

    value: T | None = None
    error: InputError | None = None

    @classmethod
    def of(cls, work: Callable[[], T]) -> Outcome[T]:
        """What ``work`` returns, or the InputError that it raises; other exceptions pass."""
        try:
            return cls(work())
        except InputError as error:
            return cls(error=error)

    def unwrap(self) -> T:
        """The result.

        Raises:
            InputError: There is none.
        """
        if self.error is not None:
            raise self.error
        return cast(T, self.value)

    def then(self, work: Callable[[T], U]) -> Outcome[U]:
        """What ``work`` makes of the result; an error stays as it is."""
        return Outcome(error=self.error) if self.error is not None else Outcome.of(lambda: work(self.unwrap()))


@dataclass
class Report(Generic[T]):
    """What became of all tasks of a run.

    Attributes:
        done: Their number.
        failures: Why others failed.
        seconds: From the first that could begin to the last that ended.
    """

    done: int = 0
    failures: dict[T, InputError] = field(default_factory=dict)
    seconds: float = 0.0
