import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from tradecache.errors import InvalidInput
from tradecache.layouts import chosen_columns, long_frame, wide_frame


def bars(days, *, volume="float64", tz=None):
    index = pd.DatetimeIndex(days, name="timestamp", tz=tz).as_unit("us")
    numbers = np.arange(len(index), dtype="float64")
    return pd.DataFrame({"close": numbers + 0.5, "volume": numbers.astype(volume)}, index=index)


def test_wide_has_one_column_for_each_symbol_of_a_field():
    """`wide["close"]` is a frame with the symbols as its columns."""
    first, second = bars(["2024-01-02", "2024-01-03"]), bars(["2024-01-02", "2024-01-03"])
    found = wide_frame({"AAPL": first, "MSFT": second})
    expected = pd.DataFrame({"AAPL": first["close"], "MSFT": second["close"]})
    assert_frame_equal(found["close"], expected.rename_axis(columns="symbol"))
    assert found.columns.names == ["field", "symbol"]
    assert list(found.columns.get_level_values("field").unique()) == ["close", "volume"]


@pytest.mark.parametrize("tz", [None, "UTC"])
def test_wide_index_is_the_union_and_holes_are_nan(tz):
    """A symbol without a bar where another has one is NaN there, in order and with the time zone kept."""
    found = wide_frame({"A": bars(["2024-01-02", "2024-01-04"], tz=tz), "B": bars(["2024-01-03"], tz=tz)})
    expected = pd.DatetimeIndex(["2024-01-02", "2024-01-03", "2024-01-04"], name="timestamp", tz=tz)
    assert found.index.equals(expected.as_unit("us"))
    assert found.index.dtype == expected.as_unit("us").dtype
    assert found["close"]["A"].tolist()[::2] == [0.5, 1.5]
    assert found["close"].isna().to_numpy().tolist() == [[False, True], [True, False], [False, True]]


def test_wide_keeps_whole_numbers_where_there_is_no_hole():
    """Integer volumes stay integers unless a hole makes them floats."""
    whole = wide_frame({"A": bars(["2024-01-02"], volume="int64"), "B": bars(["2024-01-02"])})
    assert whole["volume"].dtypes.astype(str).to_dict() == {"A": "int64", "B": "float64"}
    holes = wide_frame({"A": bars(["2024-01-02"], volume="int64"), "B": bars(["2024-01-03"])})
    assert holes["volume"].dtypes.astype(str).to_dict() == {"A": "float64", "B": "float64"}


def test_wide_has_extra_fields_for_those_that_have_them():
    """A field that one symbol lacks has no column for that symbol; text is kept as text."""
    days = ["2024-01-02"]
    found = wide_frame({"A": bars(days).assign(note="split"), "B": bars(days)})
    assert list(found["note"].columns) == ["A"]
    assert found["note"]["A"].tolist() == ["split"]
    assert found["close"].dtypes.astype(str).tolist() == ["float64", "float64"]


def test_wide_is_what_pandas_would_build():
    """The fast way gives what `pd.concat` gives."""
    rng = np.random.default_rng(7)
    index = pd.date_range("2024-01-01", periods=40, unit="us", name="timestamp", freq=None)
    frames = {
        name: pd.DataFrame(rng.random((40, 3)), columns=["open", "close", "volume"], index=index)[
            rng.random(40) < share
        ]
        for name, share in (("A", 0.5), ("B", 0.9), ("C", 2.0))
    }
    joined = pd.concat(frames, axis="columns", names=["symbol", "field"], sort=True).swaplevel(axis="columns")
    found = wide_frame(frames)
    assert_frame_equal(found, joined.reindex(columns=found.columns), check_freq=False)


def test_an_empty_answer_is_a_wide_frame_too():
    """Symbols without any bar keep their columns and dtypes."""
    found = wide_frame({"A": bars([]), "B": bars([])})
    assert found.shape == (0, 4)
    assert set(found.dtypes.astype(str)) == {"float64"}


def test_long_has_symbol_and_timestamp_as_its_index():
    """One bar to a row, the symbols below one another."""
    found = long_frame({"A": bars(["2024-01-02"]), "B": bars(["2024-01-02", "2024-01-03"])})
    assert found.index.names == ["symbol", "timestamp"]
    assert found.loc["B", "close"].tolist() == [0.5, 1.5]


def test_columns_are_chosen_in_the_order_asked_for():
    """Some columns come in the order in which they were asked for; an unknown one is named."""
    frame = bars(["2024-01-02"])
    assert list(chosen_columns(frame, ["volume", "close"])) == ["volume", "close"]
    assert chosen_columns(frame, None) is frame
    with pytest.raises(InvalidInput, match=r"columns is \['vwap'\], but must be among close, volume"):
        chosen_columns(frame, ["vwap"])
