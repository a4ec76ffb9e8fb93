"""What does an archive know of a series once new answers are kept: which of them hides which? No I/O."""

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from tradecache.archiveform import Form, form_of
from tradecache.errors import NotStorable
from tradecache.segments import Series, rows_between
from tradecache.shelves import Piece
from tradecache.timeline import Segment, Timeline

log = logging.getLogger("tradecache")


class Known(NamedTuple):
    """A row of the coverage: what is known of one range; the form is None where there are no bars."""

    start: int
    end: int
    outcome: str
    fetched_at: int
    form: str | None


class Answer(NamedTuple):
    """A piece that is to be kept, and whether it can be; its form is None where it has no bars."""

    piece: Piece
    form: Form | None
    is_kept: bool


class Seen(NamedTuple):
    """A part of an answer that nothing newer hides."""

    start: int
    end: int
    answer: Answer

    @property
    def known(self) -> Known:
        """The row of the coverage that says so."""
        piece, form, _ = self.answer
        text = None if form is None else form.text()
        return Known(self.start, self.end, piece.outcome, piece.fetched_at, text)

    @property
    def extras(self) -> Form:
        """The columns of its bars that the table has none of."""
        form = self.answer.form
        return Form(()) if form is None else Form(tuple(form.extras.items()))

    @property
    def bars(self) -> pd.DataFrame:
        """The bars of an answer that has some."""
        return rows_between(_frame(self.answer), self.start, self.end)


def answers_of(series: Series, pieces: Iterable[Piece]) -> list[Answer]:
    """Return pieces with their forms; those whose bars would come back as others are not to be kept."""
    result = []
    for piece in pieces:
        try:
            result.append(Answer(piece, _form(series, piece), is_kept=True))
        except NotStorable as error:
            log.warning("%s: bars are not archived, %s", " ".join(series), error)
            result.append(Answer(piece, None, is_kept=False))
    return result


def _form(series: Series, piece: Piece) -> Form | None:
    if piece.frame is None or not len(piece.frame):
        return None
    return form_of(piece.frame, interval=series.interval, start=piece.start, end=piece.end)


def years_of(answers: Iterable[Answer]) -> list[int]:
    """Return the years of which there are bars to keep, in order."""
    years: set[int] = set()
    for answer in answers:
        if answer.form is not None:
            labels = _frame(answer).index.asi8  # type: ignore[attr-defined]
            first, last = labels[[0, -1]].view("M8[us]").astype("M8[Y]")
            edges = np.arange(first, last + 2).astype("M8[us]").astype("int64")
            filled = np.flatnonzero(np.diff(labels.searchsorted(edges)))
            years.update((filled + 1970 + first.astype("int64")).tolist())
    return sorted(years)


def joined(rows: Iterable[Known], *, of_one_time: bool = False) -> list[Known]:
    """Return rows in order with neighbours joined that say the same, so that bars kept one by one are one piece."""
    result: list[Known] = []
    for row in rows:
        last = result[-1] if result else None
        is_same = last is not None and last[1:3] + last[4:] == (row.start, row.outcome, row.form)
        if last is not None and is_same and not (of_one_time and last.fetched_at != row.fetched_at):
            result[-1] = last._replace(end=row.end, fetched_at=max(last.fetched_at, row.fetched_at))
        else:
            result.append(row)
    return result


def painted(known: Sequence[Known], answers: Sequence[Answer]) -> tuple[list[Known], list[Seen]]:
    """Return what is seen of what was known, and of new answers, where the later one hides the earlier one."""
    old = {f"0 {number}": each for number, each in enumerate(known)}
    new = {f"1 {number:9}": each for number, each in enumerate(answers)}  # of one time, the new one is seen
    said: dict[str, Known | Piece] = {**old, **{key: each.piece for key, each in new.items()}}
    segments = [Segment(each.start, each.end, each.fetched_at, None, key) for key, each in said.items()]
    spans = [(span, span.segment.key) for span in Timeline(segments).spans(0) if span.segment is not None]
    kept = [old[key]._replace(start=span.start, end=span.end) for span, key in spans if key in old]
    return kept, [Seen(span.start, span.end, new[key]) for span, key in spans if key in new]


def _frame(answer: Answer) -> pd.DataFrame:
    if answer.piece.frame is None:
        raise AssertionError  # it has a form
    return answer.piece.frame
