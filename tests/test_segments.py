import numpy as np
import pandas as pd
import pytest
from key_value.aio.stores.memory import MemoryStore
from loops import run
from pandas.testing import assert_frame_equal

from tradecache.clock import Clock
from tradecache.errors import NotEnumerable
from tradecache.segments import AT_LEAST, LOCAL, SegmentStore, Series
from tradecache.settings import Settings
from tradecache.stack import build_stack

DAY = 86_400_000_000
SERIES = Series("sample", "AAPL", "1d")
LOCAL_SERIES = Series(LOCAL, "AAPL", "1d")


def bars(first, count):
    index = pd.DatetimeIndex((np.arange(first, first + count) * DAY).view("M8[us]"), name="timestamp")
    return pd.DataFrame({"close": np.arange(first, first + count, dtype="float64")}, index=index)


@pytest.fixture
def make(tmp_path, clock):
    """Return what makes one more store on the same folder, as another process has it."""
    made = []

    def make(durable=None):
        stack = build_stack(Settings(cache_dir=tmp_path), clock=Clock(clock), durable=durable)
        made.append(stack.durable)
        return SegmentStore(stack)

    yield make
    for store in made:
        if hasattr(store, "close"):
            store.close()


async def add(store, first, count, *, fetched_at=1, fresh_until=None, series=SERIES, **more):
    frame = bars(first, count) if count else None
    return await store.put(
        series, first * DAY, (first + max(count, 1)) * DAY,
        frame=frame, fetched_at=fetched_at, fresh_until=fresh_until, **more,
    )  # fmt: skip


async def everything(store, series=SERIES):
    """Return all bars that the timeline of a series shows."""
    parts = []
    for span in (await store.timeline(series)).spans(now=0):
        if span.segment.rows:
            frame = await store.frame(series, span.segment)
            keep = (frame.index.asi8 >= span.start) & (frame.index.asi8 < span.end)
            parts.append(frame[keep])
    return pd.concat(parts)


@pytest.mark.parametrize(
    "series",
    [
        SERIES,
        Series("ccxt:binance", "BTC/USDT", "1m"),
        Series("files", "a/../b", "1h"),
        Series("local", "%2F", "1d"),
        Series("local", "Ünï 💹", "1d"),
    ],
)
def test_a_series_is_found_again_under_its_own_name(make, series):
    """Source, symbol and interval come back as they were, whatever characters they have."""

    async def main():
        await add(make(), 0, 3, series=series)
        return await make().series()

    assert Series.of(series.collection) == series
    assert run(main()) == [series]


def test_similar_names_are_kept_apart():
    """No two series share a collection."""
    names = [("a", "b/c", "1d"), ("a/b", "c", "1d"), ("a", "b%2Fc", "1d"), ("a", "B/c", "1d")]
    assert len({Series(*name).collection for name in names}) == len(names)


def test_a_segment_comes_back_whole(make):
    """What was stored is on the timeline of a new process, with its frame."""

    async def main():
        stored = await add(make(), 10, 5, fetched_at=7, fresh_until=99)
        other = make()
        (found,) = await other.timeline(SERIES)
        return stored, found, await other.frame(SERIES, found)

    stored, found, frame = run(main())
    assert found == stored
    assert (found.start, found.end, found.rows, found.outcome) == (10 * DAY, 15 * DAY, 5, "bars")
    assert_frame_equal(frame, bars(10, 5))


def test_an_absence_is_a_segment_without_a_frame(make):
    """Why there are no bars is remembered, with its own time to ask again."""

    async def main():
        await add(make(), 3, 0, fresh_until=50, outcome="before_listing")
        return list(await make().timeline(SERIES))

    (segment,) = run(main())
    assert (segment.outcome, segment.rows, segment.fresh_until) == ("before_listing", 0, 50)


def test_files_lie_where_other_tools_look(make, tmp_path):
    """A segment is one Arrow file under source, symbol and interval, named by its range."""
    run(add(make(), 0, 3))
    (file,) = tmp_path.rglob("*.arrow")
    assert file.parent == tmp_path / "bars" / "sample" / "AAPL" / "1d"
    assert file.name.startswith("1970-01-01_1970-01-04")


def test_another_process_is_noticed(make):
    """A timeline at hand is read anew once another process has written to the folder."""

    async def main():
        ours, theirs = make(), make()
        await add(ours, 0, 3)
        before = len(await ours.timeline(SERIES)), ours.known(SERIES) is not None
        await add(theirs, 3, 3, fetched_at=2)
        at_hand = ours.known(SERIES)
        return before, at_hand, len(await ours.timeline(SERIES))

    assert run(main()) == ((1, True), None, 2)


def test_own_writes_are_on_the_timeline_at_once(make):
    """What this process stores and removes is seen without reading the ledger again."""

    async def main():
        store = make()
        await store.timeline(SERIES)
        kept, gone = await add(store, 0, 3), await add(store, 3, 3)
        await store.remove(SERIES, [gone.key])
        return list(store.known(SERIES)), kept

    found, kept = run(main())
    assert found == [kept]


def test_a_lost_file_makes_its_range_missing(make, tmp_path):
    """A segment whose payload is gone is taken off the timeline, so that it is fetched again."""

    async def main():
        segment = await add(make(), 0, 3)
        store = make()
        await store.timeline(SERIES)
        for file in tmp_path.rglob("*.arrow"):
            file.unlink()
        return await store.frame(SERIES, segment), len(await store.timeline(SERIES))

    assert run(main()) == (None, 0)


def test_small_neighbours_are_put_together(make):
    """Days that were stored one by one become one segment, with the same bars, for every process."""
    days = AT_LEAST + 5

    async def main():
        store, other = make(), make()
        for day in range(days):
            await add(store, day, 1, fetched_at=day + 1)
        await other.timeline(SERIES)
        await store.tidy(SERIES)
        return (
            len(await store.timeline(SERIES)),
            len(await other.timeline(SERIES)),
            await everything(store),
            await everything(make()),
        )

    ours, theirs, frame, fresh = run(main())
    assert (ours, theirs) == (1, 1)
    assert_frame_equal(frame, bars(0, days), check_freq=False)
    assert_frame_equal(fresh, bars(0, days), check_freq=False)


def append(store, first, count, *, fetched_at, series=LOCAL_SERIES):
    frame = bars(first, count)
    return store.append(series, first * DAY, (first + count) * DAY, frame=frame, fetched_at=fetched_at)


def test_bars_that_come_one_by_one_make_one_segment(make):
    """Each grows the segment before it, over weekends too, and says when the oldest of them came."""

    async def main():
        store = make()
        for number, day in enumerate([0, 1, 2, 5, 6]):
            await append(store, day, 1, fetched_at=number + 1)
        (span,) = (await store.timeline(LOCAL_SERIES)).spans(now=9)
        return span.segment, await everything(store, LOCAL_SERIES), await everything(make(), LOCAL_SERIES)

    segment, ours, fresh = run(main())
    assert (segment.start, segment.end, segment.rows) == (0, 7 * DAY, 5)
    assert (segment.fetched_at, segment.oldest, segment.fresh_until) == (5, 1, None)
    assert ours.index.asi8.tolist() == [0, DAY, 2 * DAY, 5 * DAY, 6 * DAY]
    assert_frame_equal(ours, fresh, check_freq=False)


@pytest.mark.parametrize(
    ("before", "day"),
    [
        pytest.param({"count": 256}, 256, id="there are many already"),
        pytest.param({"count": 2}, 30, id="it lies further back than a holiday"),
        pytest.param({"count": 2, "fresh_until": 9}, 2, id="it is not final"),
        pytest.param({"count": 0}, 1, id="it has no bars"),
    ],
)
def test_bars_stay_apart(make, before, day):
    """What is before new bars is left alone where it is large, far away, still forming or empty."""

    async def main():
        store = make()
        await add(store, 0, fetched_at=1, series=LOCAL_SERIES, **before)
        await append(store, day, 1, fetched_at=2)
        return len(await store.timeline(LOCAL_SERIES))

    assert run(main()) == 2


def test_bars_with_other_columns_stay_apart(make):
    """Bars that have a column more do not change those before them."""

    async def main():
        store = make()
        await append(store, 0, 2, fetched_at=1)
        frame = bars(2, 1).assign(trades=5)
        await store.append(LOCAL_SERIES, 2 * DAY, 3 * DAY, frame=frame, fetched_at=2)
        return [segment.rows for segment in await store.timeline(LOCAL_SERIES)]

    assert run(main()) == [2, 1]


def test_a_hole_of_a_source_is_not_filled(make):
    """Between a source's segments a hole is a question still to ask, and they stay apart."""

    async def main():
        store = make()
        for number in range(AT_LEAST):
            await append(store, 2 * number, 1, fetched_at=number + 1, series=SERIES)
        await store.tidy(SERIES)
        return len(await store.timeline(SERIES))

    assert run(main()) == AT_LEAST


def test_what_is_still_forming_is_not_put_together(make):
    """A segment that is not final stays on its own."""

    async def main():
        store = make()
        for day in range(AT_LEAST):
            await add(store, day, 1, fetched_at=day + 1)
        await add(store, AT_LEAST, 1, fetched_at=99, fresh_until=5)
        await store.tidy(SERIES)
        return [segment.fresh_until for segment in await store.timeline(SERIES)]

    assert sorted(run(main()), key=str) == [5, None]


def test_hidden_segments_are_deleted_in_time(make, tmp_path):
    """Once enough segments are overshadowed, they and their files go."""

    async def main():
        store = make()
        for fetch in range(AT_LEAST + 1):
            await add(store, 0, 4, fetched_at=fetch, fresh_until=1)
        await store.tidy(SERIES)
        return len(await store.timeline(SERIES))

    assert run(main()) == 1
    assert len(list(tmp_path.rglob("*.arrow"))) == 1


def test_a_store_without_order_is_refused(make):
    """A durable store that cannot list its keys in order cannot hold segments, and the error says so."""
    with pytest.raises(NotEnumerable, match="MemoryStore cannot list all its keys"):
        run(make(MemoryStore()).timeline(SERIES))
