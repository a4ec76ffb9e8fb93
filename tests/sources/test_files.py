import pandas as pd
import pytest
from framecases import daily
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loops import run

from tradecache.errors import InvalidBars, InvalidInput, NoBars, UnknownSymbol
from tradecache.sources import Files, traits_of

START, END = pd.Timestamp("2024-01-01"), pd.Timestamp("2024-02-01")


def fetched(folder, symbol="AAPL", start=START, end=END, interval="1d", **options):
    return run(Files(folder, **options).fetch(symbol, start, end, interval))


def sound(frame):
    """Return bars whose highs are highs and whose lows are lows."""
    return frame.assign(high=frame.max(axis=1), low=frame[["open", "high", "low", "close"]].min(axis=1))


BARS = sound(daily(5))


@pytest.mark.parametrize("write", ["csv", "csv without a name", "csv in capitals", "parquet"])
def test_a_file_is_read_as_it_was_written(tmp_path, write):
    """CSV and Parquet files come back to the bit, whatever their columns and their index are called."""
    if write == "parquet":
        BARS.to_parquet(tmp_path / "AAPL.parquet")
    else:
        renamed = BARS.rename(columns=str.title) if "capitals" in write else BARS
        name = {"csv": "timestamp", "csv without a name": None, "csv in capitals": "Date"}[write]
        renamed.rename_axis(name).to_csv(tmp_path / "AAPL.csv")
    pd.testing.assert_frame_equal(fetched(tmp_path), BARS, check_exact=True, check_freq=False)


def test_only_the_range_comes(tmp_path):
    """The first day belongs to the range, the last does not."""
    BARS.to_csv(tmp_path / "AAPL.csv")
    bars = fetched(tmp_path, start=pd.Timestamp("2024-01-03"), end=pd.Timestamp("2024-01-05"))
    assert list(bars.index) == [pd.Timestamp("2024-01-03"), pd.Timestamp("2024-01-04")]


def test_parquet_comes_before_csv(tmp_path):
    """Where there are both, the Parquet file is read."""
    BARS.to_parquet(tmp_path / "AAPL.parquet")
    BARS.iloc[:1].to_csv(tmp_path / "AAPL.csv")
    assert len(fetched(tmp_path)) == 5


def test_each_interval_has_a_folder(tmp_path):
    """Bars of another interval lie in a subfolder that is called so, and only there."""
    minutes = BARS.set_axis(
        pd.date_range("2024-01-02 14:30", periods=5, freq="min", tz="UTC", name="timestamp")
    )
    (tmp_path / "1m").mkdir()
    minutes.to_csv(tmp_path / "1m" / "AAPL.csv")
    BARS.to_csv(tmp_path / "AAPL.csv")
    edges = {"start": START.tz_localize("UTC"), "end": END.tz_localize("UTC")}
    assert list(fetched(tmp_path, interval="1m", **edges).index) == list(minutes.index)
    assert len(fetched(tmp_path)) == 5
    with pytest.raises(InvalidInput, match="interval is '1h', but must be '1d', or the name of a subfolder"):
        fetched(tmp_path, interval="1h", **edges)


@pytest.mark.parametrize(
    ("start", "end"), [("2023-01-01", "2024-01-02"), ("2024-01-07", "2025-01-01")], ids=["before", "after"]
)
def test_beyond_the_file_nothing_is_known(tmp_path, start, end):
    """A range before the file's first bar, or after its last, is `outside_window`: the file may grow."""
    BARS.to_csv(tmp_path / "AAPL.csv")
    with pytest.raises(NoBars) as caught:
        fetched(tmp_path, start=pd.Timestamp(start), end=pd.Timestamp(end))
    assert caught.value.reason == "outside_window"


def test_a_file_that_grew_is_read_anew(tmp_path):
    """Nothing of a file is remembered."""
    source = Files(tmp_path)
    for rows in (3, 5):
        BARS.iloc[:rows].to_csv(tmp_path / "AAPL.csv")
        assert len(run(source.fetch("AAPL", START, END, "1d"))) == rows


def test_a_file_of_something_else_is_refused(tmp_path):
    """A file whose columns are not those of bars is an error that says which they are."""
    (tmp_path / "AAPL.csv").write_text("date,price\n2024-01-02,5\n")
    with pytest.raises(InvalidBars, match=r"columns is \['date', 'price'\]"):
        fetched(tmp_path)


def test_a_symbol_that_no_file_can_be_called_by_is_encoded(tmp_path):
    """A symbol with a slash is found in a file whose name has it percent-encoded."""
    BARS.to_csv(tmp_path / "BTC%2FUSDT.csv")
    assert len(fetched(tmp_path, "BTC/USDT")) == 5
    assert Files(tmp_path).symbols() == ["BTC%2FUSDT"]


hostile = st.sampled_from(
    ["../secret", "../secret.csv", "/etc/passwd", "..", ".", "", "sub/AAPL", "AAPL\0", "~"]
)


@given(st.one_of(hostile, st.text(max_size=20)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_symbol_leads_out_of_the_folder(tmp_path, symbol):
    """Whatever a symbol is, a file outside of the folder is not read, and no such symbol is known."""
    folder = tmp_path / "prices"
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    for outside in (tmp_path / "secret.csv", folder / "sub" / "AAPL.csv"):
        BARS.to_csv(outside)
    with pytest.raises(UnknownSymbol):
        fetched(folder, symbol)


def test_names(tmp_path):
    """Two folders of one name have bars of their own; a given name is kept."""
    folders = [tmp_path / parent / "prices" for parent in "ab"]
    for folder in folders:
        folder.mkdir(parents=True)
    first, second = (Files(folder) for folder in folders)
    assert first.name != second.name
    assert first.name.startswith("files prices ")
    assert (Files(folders[0]).name, Files(folders[0], name="mine").name) == (first.name, "mine")
    assert (repr(first), traits_of(Files(folders[0], calendar="XNYS")).calendar_for("AAPL")) == (
        "<Files prices>",
        "XNYS",
    )


def test_a_folder_that_is_not_there_is_named(tmp_path):
    """A source without its folder is refused at once."""
    with pytest.raises(InvalidInput, match=r"folder is .*nowhere'"):
        Files(tmp_path / "nowhere")
