"""How are the answers for many symbols handed out, and what is said of those that could not be had?"""

import warnings
from collections.abc import Sequence

import pandas as pd

from tradecache.barframes import empty_bars
from tradecache.bars import Answer
from tradecache.errors import MissingBarsWarning, StaleDataWarning
from tradecache.layouts import Layout, OnError, chosen_columns, long_frame, wide_frame
from tradecache.views import Views

WIDE = "wide"  # the collection of views of many symbols
CALLER = 4  # from where warnings are issued up to the line that called `bars`


def hand_out(
    answers: Sequence[Answer],
    views: Views,
    *,
    is_alone: bool,
    columns: Sequence[str] | None,
    layout: Layout,
    allow_stale: bool,
    on_error: OnError,
) -> pd.DataFrame:
    """Return the bars of some answers in one frame; raise, or warn, of what could not be had.

    Args:
        answers: One for each symbol.
        views: Where wide frames are remembered.
        is_alone: Whether one symbol was asked for as text: then its frame is flat.
        columns: Which columns; None for all.
        layout: "wide" or "long".
        allow_stale: Whether stale bars are good enough.
        on_error: What becomes of the error of one of several symbols.

    Raises:
        Exception: The error of a symbol asked for alone, or the first one with on_error="raise".
    """
    _complain(answers, is_alone=is_alone, allow_stale=allow_stale, on_error=on_error)
    if is_alone or layout == "long":
        return _combined(answers, is_alone=is_alone, columns=columns, layout=layout)
    return _remembered(answers, views, columns)


def _remembered(answers: Sequence[Answer], views: Views, columns: Sequence[str] | None) -> pd.DataFrame:
    """Return the bars of several symbols in one wide frame, put together only if it was not before.

    Not where a symbol has no bars: then it has the columns that it has elsewhere, and its parts do not say which.
    """
    good = _good(answers)
    if isinstance(columns, str) or not all(answer.parts for answer in good):
        return _combined(answers, is_alone=False, columns=columns, layout="wide")
    made_of = [None if columns is None else tuple(columns), *((each.series, *each.parts) for each in good)]
    known = views.get(WIDE, made_of)
    if known is not None:
        return known
    whole = _combined(answers, is_alone=False, columns=columns, layout="wide")
    views.keep(WIDE, made_of, whole)
    return whole


def _good(answers: Sequence[Answer]) -> list[Answer]:
    return [answer for answer in answers if not answer.is_partial]


def _combined(
    answers: Sequence[Answer], *, is_alone: bool, columns: Sequence[str] | None, layout: Layout
) -> pd.DataFrame:
    """Return the bars of some answers in one frame: flat for a symbol alone, else wide or long."""
    good = {answer.series.symbol: answer.frame for answer in _good(answers)}
    if is_alone and layout == "wide":
        return chosen_columns(next(iter(good.values())), columns)
    interval = answers[0].series.interval if answers else "1d"
    frames = (
        good
        or {answer.series.symbol: empty_bars(interval) for answer in answers}
        or {"": empty_bars(interval)}
    )
    if columns is not None:
        everything = dict.fromkeys(name for frame in frames.values() for name in frame.columns)
        chosen_columns(
            pd.DataFrame(columns=list(everything)), columns
        )  # a column that no symbol has is an error
        frames = {
            symbol: chosen_columns(frame, [name for name in columns if name in frame.columns])
            for symbol, frame in frames.items()
        }
    whole = long_frame(frames) if layout == "long" else wide_frame(frames)
    return whole if answers or layout == "long" else whole.iloc[:, :0]


def _complain(answers: Sequence[Answer], *, is_alone: bool, allow_stale: bool, on_error: OnError) -> None:
    """Raise or warn of what could not be had, and of what is stale.

    Raises:
        Exception: The error of a symbol asked for alone, or of the first with on_error="raise".
    """
    failed = [answer for answer in answers if answer.is_partial]
    stale = [answer for answer in answers if answer.is_stale and not answer.is_partial]
    wrong = failed if allow_stale else failed + stale
    for answer in wrong:
        answer.is_partial = True
        if answer.error is not None and (is_alone or on_error == "raise"):
            raise answer.error
    if wrong and on_error != "ignore":
        names = ", ".join(answer.series.symbol for answer in wrong[:5])
        more = f" and {len(wrong) - 5:,} more" if len(wrong) > 5 else ""  # noqa: PLR2004
        text = f"{len(wrong):,} of {len(answers):,} symbols failed: {names}{more} ({wrong[0].error})"
        warnings.warn(f"{text}; cache.failures() has them all", MissingBarsWarning, stacklevel=CALLER)
    if allow_stale and stale:
        names = ", ".join(answer.series.symbol for answer in stale[:5])
        text = f"bars of {names} are not fresh, because the source failed ({stale[0].error})"
        warnings.warn(text, StaleDataWarning, stacklevel=CALLER)
