"""Frames as files, and an old file that stays whole until the new one is."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from tradecache.errors import InvalidInput
from tradecache.export import WRITERS, checked_path, write_frame

FRAME = pd.DataFrame(
    {"symbol": ["AAPL", 'Œ, "quoted"\n日経'], "price": [0.1 + 0.2, 1e-300]},
    index=pd.DatetimeIndex([datetime(2013, 3, 1, 21, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)], name="timestamp"),
)  # fmt: skip
READERS = {
    ".parquet": pd.read_parquet,
    ".csv": lambda path: pd.read_csv(path, index_col="timestamp", converters={"price": float}),
    ".feather": lambda path: pd.read_feather(path).set_index("timestamp"),
}
suffixes = pytest.mark.parametrize("suffix", list(READERS))


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    resource = pytest.importorskip("resource", reason="this system has no limits for file sizes")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_each_format_has_a_test():
    """The formats tested here are all there are."""
    assert list(READERS) == list(WRITERS)


@suffixes
def test_round_trip(tmp_path, suffix):
    """Each format gives back every value exactly, and the index by its name."""
    path = write_frame(FRAME, tmp_path / f"frame{suffix}")

    result = READERS[suffix](path)

    result.index = pd.to_datetime(result.index).as_unit("us")
    assert_frame_equal(result, FRAME)
    assert names(tmp_path) == [f"frame{suffix}"]


@suffixes
def test_new_file_replaces_the_old_one(tmp_path, suffix):
    """Writing again replaces the file."""
    path = write_frame(FRAME, tmp_path / f"frame{suffix}")
    write_frame(FRAME.iloc[:1], path)

    assert len(READERS[suffix](path)) == 1


@suffixes
def test_old_file_stays_whole_when_the_disk_is_full(tmp_path, suffix):
    """A write that fails half-way raises, leaves the old file as it was, and no other file."""
    path = write_frame(FRAME, tmp_path / f"frame{suffix}")
    before = path.read_bytes()
    large = pd.DataFrame({"n": range(200_000)}, index=pd.RangeIndex(200_000, name="timestamp"))

    with largest_file(20_000), pytest.raises(OSError, match="File too large"):
        write_frame(large, path)

    assert path.read_bytes() == before
    assert names(tmp_path) == [path.name]


@suffixes
def test_old_file_stays_whole_when_the_frame_cannot_be_written(tmp_path, suffix):
    """A frame that the format cannot hold leaves the old file as it was, and no other file."""

    class Unspeakable:
        def __str__(self) -> str:
            raise ValueError("no text for this")

    path = write_frame(FRAME, tmp_path / f"frame{suffix}")
    before = path.read_bytes()

    with pytest.raises((ValueError, TypeError)):
        write_frame(FRAME.assign(price=[Unspeakable(), Unspeakable()]), path)

    assert path.read_bytes() == before
    assert names(tmp_path) == [path.name]


def test_missing_folder_is_an_error(tmp_path):
    """A folder that does not exist is not made."""
    with pytest.raises(OSError, match="nowhere"):
        write_frame(FRAME, tmp_path / "nowhere" / "frame.csv")

    assert names(tmp_path) == []


def test_long_name(tmp_path):
    """A name as long as the file system allows can be written."""
    name = "x" * 251 + ".csv"

    assert write_frame(FRAME, tmp_path / name).exists()
    assert names(tmp_path) == [name]


def test_home(tmp_path, monkeypatch):
    """`~` is the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))

    assert write_frame(FRAME, Path("~/frame.csv")) == tmp_path / "frame.csv"
    assert names(tmp_path) == ["frame.csv"]


@pytest.mark.parametrize("path", ["x.parquet", Path("x.csv"), "X.FEATHER", "a.b/c.d.csv"])
def test_path_with_a_known_suffix(path):
    """The suffix alone says what is written, in any case."""
    assert checked_path(path) == Path(path)


@pytest.mark.parametrize(
    "path", ["x", "x.xlsx", "x.csv.gz", ".csv", "", ".", None, 5, b"x.csv", ["x.csv"], "a\0.csv"], ids=repr
)  # fmt: skip
def test_other_paths(path):
    """What is no path, or has another suffix, is named together with what is allowed."""
    with pytest.raises(InvalidInput) as caught:
        checked_path(path)

    assert (caught.value.field, caught.value.value) == ("path", path)
    assert caught.value.allowed == "the path of a file that ends in .parquet, .csv, .feather"
