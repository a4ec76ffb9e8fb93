"""How patiently is a request tried again?"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import stamina


@dataclass(frozen=True, slots=True)
class Retries:
    """How patiently a request is tried again.

    Attributes:
        attempts: At most so many, the first one included.
        first: Seconds of pause after the first; each further pause is twice as long.
        longest: The longest pause.
        jitter: Up to so many seconds more, at random, so that many who wait do not come back as one.
        patience: Seconds for all of it; also the longest time that a provider may want to be left alone
            before the request fails at once instead of waiting.
    """

    attempts: int = 4
    first: float = 0.5
    longest: float = 8.0
    jitter: float = 1.0
    patience: float = 60.0

    def tries(
        self, on: type[Exception] | Callable[[Exception], bool | float]
    ) -> "AsyncIterator[stamina.Attempt]":
        """Yield attempts until one goes well, or `on` says of its error that another would not help."""
        import stamina  # when first needed: it costs a third of what all of tradecache does

        return stamina.retry_context(
            on=on,
            attempts=self.attempts,
            timeout=self.patience,
            wait_initial=self.first,
            wait_max=self.longest,
            wait_jitter=self.jitter,
        )
