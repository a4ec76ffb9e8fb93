"""What does a type checker know of the public face? Checked by mypy, never run."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal, assert_type

import pandas as pd
from key_value.aio.stores.memory import MemoryStore
from matplotlib.axes import Axes
from pydantic import ByteSize

from tradecache import PriceData, Settings, TradeCache, TradingDataCache, warm_cache
from tradecache.archive import Archive
from tradecache.bridge import shared_bridge
from tradecache.credentials import SecretKey, SecretURL
from tradecache.exporter import MetricsServer
from tradecache.freshness import FixedTTL
from tradecache.glance import Glance
from tradecache.metrics import CacheCollector
from tradecache.monitor import Monitor
from tradecache.notebook import allow_nested_run
from tradecache.rekeying import rekey
from tradecache.samples import sample_points

NOON = datetime(2024, 6, 3, 12, tzinfo=UTC)


def construction(settings: Settings, folder: Path) -> None:
    """Both faces are made alike: a folder as text or path, all else by name."""
    for make in (TradeCache, TradingDataCache):
        make()
        make("prices")
        make(folder, settings=settings, clock=lambda: NOON)
        make(durable=MemoryStore())
        make("prices", source=Archive("postgresql://host/prices", columns={}), team=MemoryStore())
        make("prices", source="sample", freshness=FixedTTL(60))
    TradeCache("prices", settings)  # type: ignore[call-arg]
    TradeCache("prices", clock=NOON)  # type: ignore[arg-type]
    TradeCache("prices", memory="64MiB")  # type: ignore[call-arg]
    TradeCache("prices", team="redis://host")  # type: ignore[arg-type]
    assert_type(rekey(settings), pd.Series)


def points(cache: TradeCache, frame: pd.DataFrame) -> None:
    """One price point, or many, in and out."""
    assert_type(cache.store_price("AAPL", 189.5, 1_000), str)
    assert_type(cache.store_price("AAPL", 189, 0.5, timestamp=NOON, ttl=60), str)
    assert_type(
        cache.store_price("AAPL", 189, 0.5, timestamp=pd.Timestamp(NOON), ttl=timedelta(hours=1)), str
    )
    assert_type(cache.store_prices(frame, ttl=1.5), pd.Index)
    assert_type(cache.get_price("AAPL", "id"), PriceData | None)
    assert_type(cache.get_latest_price("AAPL"), PriceData | None)
    assert_type(cache.delete_price("AAPL", "id"), bool)
    cache.store_price("AAPL", "189.5", 1_000)  # type: ignore[arg-type]
    cache.store_price("AAPL", 189.5, 1_000, NOON)  # type: ignore[call-arg]
    cache.store_price("AAPL", 189.5, 1_000, ttl="60")  # type: ignore[arg-type]
    cache.store_prices([189.5])  # type: ignore[arg-type]


def ranges(cache: TradeCache, folder: Path) -> None:
    """Several symbols over a range of time, whose ends are spelt in any way that names one."""
    assert_type(cache.prices(), pd.DataFrame)
    assert_type(cache.prices("AAPL", "2013-01", date(2013, 2, 1)), pd.DataFrame)
    assert_type(cache.prices(["AAPL", "MSFT"], NOON, pd.Timestamp(NOON)), pd.DataFrame)
    assert_type(cache.latest(("AAPL", "MSFT")), pd.DataFrame)
    assert_type(cache.warm(["AAPL"]), pd.DataFrame)
    assert_type(cache.invalidate("AAPL", end="2013"), pd.Series)
    assert_type(cache.export(folder / "prices.parquet", "AAPL"), Path)
    assert_type(cache.export("prices.csv", start=NOON), Path)
    cache.prices("AAPL", 2013)  # type: ignore[arg-type]
    assert_type(cache.warm("AAPL", "2013", interval="1h", source="sample", progress=False), pd.DataFrame)
    cache.warm()  # type: ignore[call-arg]


def bars(cache: TradeCache, frame: pd.DataFrame) -> None:
    """Bars of one symbol or several, and what is told of them."""
    assert_type(cache.bars("AAPL"), pd.DataFrame)
    assert_type(
        cache.bars(
            ["AAPL", "MSFT"], "2013", NOON, interval="1h", columns=["close"], layout="long", refresh=True,
            allow_stale=False, on_error="raise", source="yfinance",
        ),
        pd.DataFrame,
    )  # fmt: skip
    assert_type(cache.store_bars("AAPL", frame, interval="5m", ttl=60), None)
    assert_type(cache.plan("AAPL", "2013", interval="1h", refresh=True), pd.DataFrame)
    assert_type(cache.coverage(), pd.DataFrame)
    assert_type(cache.coverage("AAPL", "2013", interval="1h", source="local"), pd.DataFrame)
    assert_type(cache.explain(), pd.DataFrame)
    assert_type(cache.failures(), pd.DataFrame)
    assert_type(cache.invalidate("AAPL", interval="1h", source="local"), pd.Series)
    assert_type(cache.export("bars.parquet", "AAPL", interval="1h"), Path)
    cache.bars("AAPL", layout="tall")  # type: ignore[arg-type]
    cache.bars("AAPL", on_error="skip")  # type: ignore[arg-type]
    cache.bars("AAPL", "2013", "2014", "1d")  # type: ignore[call-arg]


def statistics(cache: TradeCache, ax: Axes) -> None:
    """What the cache tells of itself."""
    assert_type(cache.stats(), pd.DataFrame)
    assert_type(cache.stats(by="symbol"), pd.DataFrame)
    assert_type(cache.events(), pd.DataFrame)
    assert_type(cache.hit_rate("10s"), pd.DataFrame)
    assert_type(cache.hit_rate(by="symbol", history=cache.history()), pd.DataFrame)
    assert_type(cache.history(), pd.DataFrame)
    assert_type(cache.expiries("AAPL"), pd.DataFrame)
    assert_type(cache.occupancy(), pd.DataFrame)
    assert_type(cache.hit_rate(window=0.5), pd.DataFrame)
    assert_type(cache.get_cache_statistics(), dict[str, int | float])
    assert_type(cache.reset_stats, Callable[[], None])
    assert_type(cache.monitor(every=0.5, recent=3), Monitor)
    assert_type(cache.collector(symbols=True), CacheCollector)
    assert_type(cache.serve_metrics(port=0, address="::1", symbols=True), MetricsServer)
    assert_type(cache.serve_metrics().url, str)
    assert_type(cache.serve_metrics().port, int)
    cache.serve_metrics(9464)  # type: ignore[call-arg]
    assert_type(cache.plot.hit_rate(), Axes)
    assert_type(cache.plot.hit_rate(window="1s", ax=ax, color="red"), Axes)
    assert_type(cache.plot.hit_rate(by="symbol", history=cache.history()), Axes)
    assert_type(cache.plot.latency(by="dataset", ax=ax), Axes)
    assert_type(cache.plot.coverage(["AAPL"], start="2012", end="2013"), Axes)
    assert_type(cache.plot.ttl(), Axes)
    assert_type(cache.plot.occupancy(), Axes)
    assert_type(cache.plot.warming(cache.warm("AAPL"), cache.warm("AAPL")), Axes)
    cache.plot.hit_rate("1s")  # type: ignore[call-arg]


def housekeeping(cache: TradeCache) -> None:
    """What keeps the folder in order."""
    assert_type(cache.info(), pd.Series)
    assert_type(cache.purge(), pd.Series)
    assert_type(cache.verify(), pd.DataFrame)
    assert_type(cache.close, Callable[[], None])
    assert_type(cache.settings, Settings)
    assert_type(cache.core, TradingDataCache)
    with cache as same:
        assert_type(same, TradeCache)


async def awaited(core: TradingDataCache, frame: pd.DataFrame, folder: Path) -> None:
    """The async core answers with the same types."""
    assert_type(await core.store_price("AAPL", 189.5, 1_000, timestamp=NOON, ttl=60), str)
    assert_type(await core.store_prices(frame, ttl=timedelta(days=1)), pd.Index)
    assert_type(await core.get_price("AAPL", "id"), PriceData | None)
    assert_type(await core.get_latest_price("AAPL"), PriceData | None)
    assert_type(await core.delete_price("AAPL", "id"), bool)
    assert_type(await core.latest("AAPL"), pd.DataFrame)
    assert_type(await core.prices(["AAPL"], "2013", "2014"), pd.DataFrame)
    assert_type(await core.bars("AAPL", "2013", interval="1h"), pd.DataFrame)
    assert_type(await core.store_bars("AAPL", frame), None)
    assert_type(await core.plan(["AAPL"]), pd.DataFrame)
    assert_type(await core.warm(["AAPL"], progress=False), pd.DataFrame)
    assert_type(await core.coverage("AAPL"), pd.DataFrame)
    assert_type(core.explain(), pd.DataFrame)
    assert_type(core.failures(), pd.DataFrame)
    assert_type(await core.invalidate(), pd.Series)
    assert_type(await core.export(folder / "prices.feather"), Path)
    assert_type(await core.purge(), pd.Series)
    assert_type(await core.verify(), pd.DataFrame)
    assert_type(await core.info(), pd.Series)
    assert_type(core.get_cache_statistics(), dict[str, int | float])
    assert_type(core.stats("operation"), pd.DataFrame)
    assert_type(core.events(), pd.DataFrame)
    assert_type(core.hit_rate(history=await core.history()), pd.DataFrame)
    assert_type(await core.expiries(), pd.DataFrame)
    assert_type(await core.occupancy(), pd.DataFrame)
    assert_type(core.glance(recent=3), Glance)
    assert_type(core.collector(), CacheCollector)
    assert_type(core.serve_metrics(), MetricsServer)
    assert_type(core.is_closed, bool)
    assert_type(core.servers(), dict[str, bool])
    assert_type(core.reset_stats, Callable[[], None])
    assert_type(core.settings, Settings)
    assert_type(await warm_cache(core, "AAPL"), pd.DataFrame)
    assert_type(await warm_cache(core, ["AAPL", "MSFT"]), pd.DataFrame)
    await core.cleanup()
    async with core as same:
        assert_type(same, TradingDataCache)


def price_data(point: PriceData) -> None:
    """A price point is frozen."""
    assert_type(PriceData(symbol="AAPL", price=189.5, volume=1_000, timestamp=NOON), PriceData)
    assert_type(point.symbol, str)
    assert_type(point.price, float)
    assert_type(point.volume, float)
    assert_type(point.timestamp, datetime)
    point.price = 190  # type: ignore[misc]
    PriceData(symbol="AAPL", price=189.5)  # type: ignore[call-arg]


def settings_object(settings: Settings) -> None:
    """Settings are frozen; what is unset is None."""
    assert_type(Settings(memory_bytes="64MiB", default_ttl=3600, log_level="info"), Settings)
    assert_type(settings.model_copy(update={"retries": 1}), Settings)
    assert_type(settings.cache_dir, Path)
    assert_type(settings.memory_bytes, ByteSize)
    assert_type(settings.memory_ttl, float)
    assert_type(settings.disk_bytes, ByteSize | None)
    assert_type(settings.max_entry_bytes, ByteSize | None)
    assert_type(settings.default_ttl, float | None)
    assert_type(settings.compression, Literal["none", "lz4", "zstd"])
    assert_type(settings.sync, Literal["normal", "full"])
    assert_type(settings.lock_wait, float)
    assert_type(settings.retries, int)
    assert_type(settings.retry_delay, float)
    assert_type(settings.retry_max_delay, float)
    assert_type(settings.keep_history, float | None)
    assert_type(settings.memory_url, SecretURL | None)
    assert_type(settings.team_url, SecretURL | None)
    assert_type(settings.archive_url, SecretURL | None)
    assert_type(settings.encryption_key, tuple[SecretKey, ...])
    assert_type(settings.hashed_names, bool)
    assert_type(settings.budget_dir, Path)
    assert_type(settings.log_level, Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
    settings.retries = 1  # type: ignore[misc]
    Settings(memory="64MiB")  # type: ignore[call-arg]


def helpers() -> None:
    """What stands beside the two faces."""

    async def answer() -> int:
        return 42

    assert_type(shared_bridge().run(answer()), int)
    assert_type(allow_nested_run, Callable[[], None])
    assert_type(sample_points(), pd.DataFrame)
