"""Where do bars come from that lie in a folder, one file for each symbol?"""

from pathlib import Path
from urllib.parse import quote

import pandas as pd
import xxhash

from tradecache.barframes import normal_bars
from tradecache.bridge import in_thread
from tradecache.errors import InvalidInput, NoBars, UnknownSymbol
from tradecache.intervals import interval_of
from tradecache.sources.base import checked_name

SUFFIXES = (".parquet", ".csv")
"""The kinds of files, in the order in which they are looked for."""


class Files:
    """A folder of CSV or Parquet files, one for each symbol, each with columns as a provider gives them.

    The bars of AAPL are in `AAPL.parquet` or `AAPL.csv`, in a subfolder named by the interval (`1m/`) if
    there is one, else in the folder itself. A symbol that no file can be called by, such as BTC/USDT, is
    percent-encoded: `BTC%2FUSDT.csv`. A file is found among those that the folder lists, so that no symbol
    leads out of it.

    Args:
        folder: Where the files lie.
        interval: Which bars lie in the folder itself.
        calendar: The market calendar of all of them; None: open all the time.
        name: The name under which their bars are kept; made of the folder by default.

    Raises:
        InvalidInput: When there is no such folder.
    """

    settle = pd.Timedelta(0)
    budget = ""  # nobody is asked over a network

    def __init__(
        self,
        folder: Path | str,
        *,
        interval: str = "1d",
        calendar: str | None = None,
        name: str | None = None,
    ) -> None:
        self.folder = Path(folder).expanduser().resolve()
        if not self.folder.is_dir():
            raise InvalidInput("folder", str(folder), "a folder that is there")
        self.interval = interval_of(interval).text
        self.calendar_for = calendar
        self.name = checked_name(f"files {_marked(self.folder)}" if name is None else name)

    async def fetch(self, symbol: str, start: pd.Timestamp, end: pd.Timestamp, interval: str) -> pd.DataFrame:
        """Return the bars of the symbol's file that lie in [start, end).

        Raises:
            UnknownSymbol: When there is no file for it.
            NoBars: When the file's bars end before the range, or begin after it.
            InvalidInput: When there are no files for the interval.
            InvalidBars: When the file holds something else.
        """
        bars = await in_thread(self._read, symbol, interval)
        if bars.empty or end <= bars.index[0] or start > bars.index[-1]:
            raise NoBars("outside_window")  # a file may grow, at both ends
        first, last = bars.index.searchsorted(start), bars.index.searchsorted(end)
        return bars.iloc[first:last]

    def symbols(self, interval: str | None = None) -> list[str]:
        """Return the names of the files, in order."""
        return sorted({path.stem for path in self._listed(interval or self.interval)})

    def __repr__(self) -> str:
        """Show the folder's name."""
        return f"<Files {self.folder.name}>"

    def _read(self, symbol: str, interval: str) -> pd.DataFrame:
        zone = "UTC" if interval_of(interval).is_intraday else None
        frame = _content(self._path(symbol, interval))
        first, last = pd.Timestamp(1, 1, 1, tz=zone), pd.Timestamp(9999, 12, 31, tz=zone)
        name = f"{self.name} {symbol} {interval}"
        return normal_bars(frame, interval=interval, start=first, end=last, name=name)

    def _path(self, symbol: str, interval: str) -> Path:
        listed = {path.name: path for path in self._listed(interval)}
        for suffix in SUFFIXES:
            for stem in (symbol, quote(symbol, safe=" ")):
                if stem + suffix in listed:
                    return listed[stem + suffix]
        raise UnknownSymbol(symbol, reason=f"no file in {self.folder.name} is called so")

    def _listed(self, interval: str) -> list[Path]:
        folder = self.folder / interval_of(interval).text
        if not folder.is_dir():
            folder = self.folder
            if interval != self.interval:
                allowed = f"{self.interval!r}, or the name of a subfolder"
                raise InvalidInput("interval", interval, allowed)
        return [path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file()]


def _content(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    frame = pd.read_csv(path)
    is_index = str(frame.columns[0]).startswith("Unnamed: ")  # written by to_csv from an index without a name
    return frame.set_index(frame.columns[0]) if is_index else frame


def _marked(folder: Path) -> str:
    """Return a folder's name, with a mark that keeps it apart from others of that name."""
    printable = "".join(filter(str.isprintable, folder.name))[:60]
    return f"{printable} {xxhash.xxh3_64_hexdigest(str(folder).encode('utf-8', 'surrogateescape'))[:8]}"
