import signal

import hypothesis
import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import stamina
from clocks import FakeClock
from matplotlib.figure import Figure
from servers import PostgresServer, RedisServer, S3Server

from tradecache import TradeCache

pytest.register_assert_rewrite("contract")
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell starts its background jobs so, and children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(tmp_path, clock):
    """Return what makes one more cache on the same folder."""
    made = []

    def make(source=None, **options):
        made.append(TradeCache(tmp_path / "cache", source=source, clock=clock, **options))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


@pytest.fixture(autouse=True)
def _budgets_of_its_own(tmp_path, monkeypatch):
    """Have no test wait for the requests of another one."""
    monkeypatch.setenv("TRADECACHE_BUDGET_DIR", str(tmp_path / "budgets"))


@pytest.fixture
def redis_server():
    """Redis, which the test may kill."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server():
    """PostgreSQL for all tests, which take a database or a table of their own."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def s3_server():
    """Moto's S3 for all tests."""
    with S3Server() as server:
        yield server


@pytest.fixture
def no_pauses():
    """Have failed requests not tried again after a pause."""
    with stamina.set_testing(True):
        yield


@pytest.fixture
def agg():
    """Have charts drawn without a screen, and none left open."""
    before = mpl.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(before)


@pytest.fixture
def ax():
    """Axes of no pyplot figure."""
    return Figure().subplots()
