import io
import mmap

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from contract import as_stored
from framecases import FRAMES, WITHOUT_ARROW_TYPE, bars, daily
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from tradecache.errors import NotStorable
from tradecache.stores.arrow import as_table, decode_frame, write_table
from tradecache.stores.values import normal_value

COMPRESSIONS = ["none", "lz4", "zstd"]


@pytest.fixture
def mapped(tmp_path):
    """Write bytes into a file and map it as a store does."""

    def write_and_map(content):
        path = tmp_path / "payload.arrow"
        path.write_bytes(content)
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    return write_and_map


def encoded(frame: pd.DataFrame, compression: str = "none") -> bytes:
    """Return the bytes of a frame's file."""
    file = io.BytesIO()
    write_table(as_table(frame), file, compression=compression)
    return file.getvalue()


def through_memory(frame: pd.DataFrame, compression: str = "none") -> pd.DataFrame:
    """Encode and decode a frame through an anonymous mapping."""
    content = encoded(frame, compression=compression)
    mapping = mmap.mmap(-1, len(content))
    mapping.write(content)
    return decode_frame(mapping)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_comes_back(mapped, name, compression):
    """Every frame that may be stored is equal after the trip through a file, at any compression."""
    frame = normal_value({"frame": FRAMES[name]})[0]["frame"]
    result = decode_frame(mapped(encoded(frame, compression=compression)))
    assert_frame_equal(result, as_stored(FRAMES[name]), check_index_type=True)


@pytest.mark.parametrize("name", FRAMES)
def test_a_table_is_what_pyarrow_makes(name):
    """Also where the long way of pyarrow is not taken, table and schema are what it would have made."""
    frame = normal_value({"frame": FRAMES[name]})[0]["frame"]
    expected = pa.Table.from_pandas(frame, preserve_index=None)
    table = as_table(frame)
    assert table.schema.equals(expected.schema, check_metadata=True)
    assert table.equals(expected)


NUMBERS = [
    "float64",
    "float32",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
]


def some_of(dtype: str, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Return any numbers of a dtype: whatever some bytes mean, NaN and infinity among them."""
    if dtype == "bool":
        return rng.integers(0, 2, rows).astype(bool)
    return np.frombuffer(rng.bytes(rows * np.dtype(dtype).itemsize), dtype=dtype)


@settings(max_examples=60)
@given(
    dtypes=st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=6),
    rows=st.integers(0, 40),
    unit=st.sampled_from(["s", "ms", "us", "ns"]),
    tz=st.sampled_from([None, "UTC", "Asia/Tokyo"]),
    compression=st.sampled_from(COMPRESSIONS),
    seed=st.integers(0, 1000),
)
def test_numbers_come_back_to_the_bit(dtypes, rows, unit, tz, compression, seed):
    """Columns of any numbers with any index of times come back with every bit and every dtype."""
    rng = np.random.default_rng(seed)
    index = pd.to_datetime(rng.integers(0, 2**31, rows), unit="s").as_unit(unit).tz_localize(tz)
    frame = pd.DataFrame({f"{n}": some_of(dtype, rows, rng) for n, dtype in enumerate(dtypes)}, index=index)
    assert_frame_equal(through_memory(frame, compression), frame, check_exact=True)


@pytest.mark.parametrize(
    "name", ["intraday bars", "daily bars", "nanoseconds", "small numbers", "a stepped range"]
)
def test_plain_columns_lie_on_the_mapping(mapped, name):
    """Uncompressed numbers and times are not copied: they are the bytes of the mapped file."""
    mapping = mapped(encoded(normal_value({"frame": FRAMES[name]})[0]["frame"]))
    frame = decode_frame(mapping)
    bytes_of_file = np.frombuffer(mapping, dtype="uint8")
    for column in frame:
        assert np.shares_memory(frame[column].to_numpy(), bytes_of_file)
    if isinstance(frame.index, pd.DatetimeIndex):
        assert np.shares_memory(frame.index.asi8, bytes_of_file)


@pytest.mark.parametrize("name", ["intraday bars", "text", "missing prices"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_last_holder_may_write(mapped, name, compression):
    """A decoded frame can be written to in place, also when nobody else holds its arrays."""
    frame = decode_frame(mapped(encoded(FRAMES[name], compression=compression)))
    frame.iloc[0, 0] = 42.0
    frame["close"] *= 0.0
    assert (frame.iloc[0, 0], frame["close"].iloc[-1]) == ({"text": 0.0}.get(name, 42.0), 0.0)


def test_other_tools_can_read_it(tmp_path):
    """The file is plain Arrow IPC: one record batch, with pandas' own metadata, read by pandas itself."""
    path = tmp_path / "bars.arrow"
    path.write_bytes(encoded(daily(1000)))
    with pa.memory_map(str(path)) as file:
        assert pa.ipc.open_file(file).num_record_batches == 1
    assert_frame_equal(pd.read_feather(path), as_stored(daily(1000)))


def test_files_of_others_can_be_read(mapped):
    """A file of several record batches, as another writer would leave it, is read as well."""
    table = pa.Table.from_pandas(bars(100))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=30)
    assert_frame_equal(decode_frame(mapped(sink.getvalue())), as_stored(bars(100)))


@pytest.mark.parametrize("name", WITHOUT_ARROW_TYPE)
def test_what_arrow_has_no_type_for_is_refused(name):
    """A column that Arrow cannot hold is an error that says so."""
    with pytest.raises(NotStorable, match="Arrow cannot hold its frame"):
        as_table(WITHOUT_ARROW_TYPE[name])


@pytest.mark.parametrize(
    "content", [b"x", b"ARROW1\0\0", b"\0" * 1000, b"ARROW1\0\0" + b"\xff" * 1000 + b"ARROW1"]
)
def test_what_is_no_arrow_file_is_an_error(mapped, content):
    """Bytes that are no Arrow file raise Arrow's own error."""
    with pytest.raises((pa.ArrowException, OSError)):
        decode_frame(mapped(content))
