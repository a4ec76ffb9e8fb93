"""What Prometheus gets: its own parsers read it, its own tools judge it, and the real one scrapes it."""

import asyncio
import base64
import gc
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
import weakref
from pathlib import Path

import pytest
import yaml
from children import wait_until
from hypothesis import given
from hypothesis import strategies as st
from key_value.aio.stores.memory import MemoryStore
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed_open
from prometheus_client.parser import text_string_to_metric_families as parsed
from prometheus_client.registry import DuplicateTimeseries
from scripts import environment, run_command, run_script, without_package
from servers import LOCAL, PrometheusServer, binary

from tradecache import (
    CacheClosed,
    InvalidInput,
    MissingBarsWarning,
    ServerAwayWarning,
    Settings,
    StaleDataWarning,
    TradeCache,
)
from tradecache.bridge import finish
from tradecache.freshness import FixedTTL
from tradecache.metrics import CacheCollector, FolderCollector, Paced
from tradecache.rekeying import rekey
from tradecache.sources.synthetic import Synthetic
from tradecache.telemetry import HITS, LATENCIES, READS, Telemetry

DOCS = Path(__file__).parents[1] / "docs"
DASHBOARD = json.loads((DOCS / "grafana-dashboard.json").read_text(encoding="utf-8"))
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
SPELT = re.findall(r"```promql\n(.*?)\n```", (DOCS / "watching.md").read_text(encoding="utf-8"), re.DOTALL)
OF_TIERS, OF_ALL = SPELT[:2]
KEYS = [base64.urlsafe_b64encode(bytes([number]) * 32).decode() for number in (1, 2)]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Failing(Synthetic):
    """Answers until it is told not to."""

    def __init__(self):
        super().__init__()
        self.name, self.fails = "failing", False

    async def fetch(self, *asked):
        if self.fails:
            raise TypeError("broken")  # an error of the program's, which is not tried again
        return await super().fetch(*asked)


@pytest.fixture
def source():
    return Failing()


@pytest.fixture
def busy(make, source, clock):
    """A cache of which everything was asked that can be told of."""
    cache = make(source, freshness=FixedTTL(60))
    work(cache, source, clock)
    return cache


def work(cache, source, clock):
    """Ask a cache so that each tier and each outcome occurs."""
    ids = [cache.store_price(f"S{number}", 1.0 + number, 10) for number in range(7)]
    for data_id in ids[:5]:
        cache.get_price("S0", data_id)
    cache.get_price("S0", ids[0])
    cache.delete_price("S0", ids[0])
    cache.prices("S1")
    cache.latest("S1")
    cache.bars(["A", "B", "C"], "2012-01-01", "2012-02-01")
    cache.bars(["A", "B"], "2012-01-01", "2012-01-20")
    cache.bars("A", "2012-01-01", "2012-01-20", interval="1h")
    clock.advance(3600)
    source.fails = True
    with pytest.warns(StaleDataWarning):
        cache.bars("A", "2012-01-01", "2012-02-01")
    with pytest.warns((StaleDataWarning, MissingBarsWarning)):
        cache.bars(["A", "new"], "2012-01-01", "2012-02-01")
    source.fails = False


def text_of(*collectors):
    """Return what a registry of some collectors tells."""
    registry = CollectorRegistry()
    for each in collectors:
        registry.register(each)
    return generate_latest(registry).decode()


def samples(text):
    """Return each value by name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parsed(text)
        for sample in family.samples
    }


def value(text, name, **labels):
    """Return the sum of the samples of a name that have some labels."""
    return sum(
        number
        for (found, *pairs), number in samples(text).items()
        if found == name and labels.items() <= dict(pairs).items()
    )


def get(url, accept=""):
    """Return what a server answers."""
    with urllib.request.urlopen(
        urllib.request.Request(url, headers={"Accept": accept}), timeout=10
    ) as answer:
        return answer.read().decode()


def refuses(port):
    """Whether nobody listens on a port."""
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex((LOCAL, port)) != 0


def asked(prometheus, query):
    """Return what Prometheus answers: a value for each set of labels."""
    text = get(f"{prometheus.url}/api/v1/query?{urllib.parse.urlencode({'query': query})}")
    answer = json.loads(text)
    assert answer["status"] == "success"
    return {
        tuple(sorted(each["metric"].items())): float(each["value"][1]) for each in answer["data"]["result"]
    }


def scraped(prometheus, *, times=1):
    """Wait until Prometheus has scraped anew, so often."""
    for _ in range(times):
        query = f"timestamp(tradecache_build_info) > {time.time()}"
        wait_until(lambda query=query: bool(asked(prometheus, query)))


def started(folder, *options):
    """Start `tradecache serve-metrics` as a process of its own; return it, and where it says that it is."""
    command = [sys.executable, "-m", "tradecache", "serve-metrics", "--cache-dir", str(folder), *options]
    process = subprocess.Popen(
        command, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    said = process.stdout.readline()
    assert said.startswith(f"metrics of {folder}: http://"), process.communicate()
    return process, said.split()[-1]


def ended(process, number):
    """Send a signal; return the exit code and what was complained of."""
    process.send_signal(number)
    _, complaints = process.communicate(timeout=30)
    return process.returncode, complaints


@pytest.mark.slow
class TestPrometheus:
    """The real one scrapes, and is asked."""

    @pytest.fixture
    def prometheus(self, busy):
        server = busy.serve_metrics(port=0)
        with PrometheusServer(f"{LOCAL}:{server.port}") as prometheus:
            scraped(prometheus)
            yield prometheus

    def test_hit_rates_are_those_of_stats(self, busy, prometheus):
        """The documented queries give the hit rate of each tier, and that of all reads, to the last digit."""
        rates, reads = busy.stats()["hit_rate"].dropna(), busy.core.telemetry.reads()

        of_tiers = asked(prometheus, OF_TIERS)
        assert {dict(labels)["tier"]: rate for labels, rate in of_tiers.items()} == rates.to_dict()
        assert {*HITS} - {"team"} <= set(rates.index)
        assert 0 < rates["memory"] < 1
        assert asked(prometheus, OF_ALL) == {(): reads.hits / reads.requests}
        assert busy.get_cache_statistics()["hit_rate_percent"] == 100 * reads.hits / reads.requests

    def test_counts_are_those_of_events(self, busy, prometheus):
        """Requests, rows, bytes and durations are those of the events."""
        events = busy.events().assign(requests=1)
        by = ["operation", "dataset", "tier", "outcome"]
        sums = events.groupby(by)[["requests", "rows", "bytes"]].sum()

        for name in sums:
            query = f"sum by ({', '.join(by)}) (tradecache_{name}_total)"
            found = {
                tuple(dict(labels)[each] for each in by): number
                for labels, number in asked(prometheus, query).items()
            }
            assert found == sums[name].to_dict()
        total = asked(prometheus, "sum(tradecache_request_duration_seconds_sum)")[()]
        assert total == pytest.approx(events["seconds"].sum())
        assert asked(prometheus, "sum(tradecache_request_duration_seconds_count)") == {(): len(events)}

    def test_dashboard_and_documents(self, busy, prometheus, source, clock):
        """Each query of the dashboard and of the documents is accepted and returns data."""
        work(busy, source, clock)  # so that there is something to be seen between two scrapes
        scraped(prometheus, times=2)
        values = {"$__rate_interval": "1m", "$__range": "1h", "$instance": ".*"}
        for query in [*QUERIES, *SPELT]:
            filled = query
            for name, text in values.items():
                filled = filled.replace(name, text)
            assert "$" not in filled
            has_data = bool(asked(prometheus, filled))
            assert has_data != (query == "tradecache_disk_up == 0" or "server_up" in query), query

    def test_a_server_that_is_away(self, make, redis_server):
        """The documented alert is silent while the memory tier's server answers, and tells when it does not."""
        cache = make(settings=Settings(memory_url=redis_server.url))
        server, found = cache.serve_metrics(port=0), []
        alert = next(query for query in SPELT if "server_up" in query)
        panel = next(query for query in QUERIES if "server_up" in query).replace("$instance", ".*")
        with PrometheusServer(f"{LOCAL}:{server.port}") as prometheus:
            for _ in range(2):
                scraped(prometheus)
                found.append((asked(prometheus, alert), [*asked(prometheus, panel).values()]))
                redis_server.kill()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    cache.store_price("A", 1.0, 1)

        assert found == [({}, [1]), ({(("server", "memory"),): 0}, [0])]

    def test_a_reset(self, busy, prometheus):
        """After `reset_stats` counters begin anew, and Prometheus counts on."""
        before = asked(prometheus, "sum(tradecache_requests_total{operation='get'})")[()]
        busy.reset_stats()
        for _ in range(3):
            busy.get_price("S0", "none")
        scraped(prometheus)

        query = "sum(tradecache_requests_total{operation='get'})"
        assert (before > 3, asked(prometheus, query)[()]) == (True, 3)
        grown = "sum(resets(tradecache_requests_total{operation='get', tier='none'}[1m]))"
        assert asked(prometheus, grown) == {(): 1}


def test_every_metric_of_the_dashboard_is_exported(busy):
    """The dashboard and the documents name no metric that is not there."""
    text = text_of(busy.collector())
    there = {name for (name, *_) in samples(text)} | {family.name for family in parsed(text)}
    document = (DOCS / "watching.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\btradecache_[a-z_]+", " ".join([*QUERIES, document])))

    assert named - there == set()
    assert {name for name in there if name.endswith("_total")} - named == set()


@pytest.mark.parametrize("symbols", [False, True])
def test_conventions(busy, symbols):
    """Prometheus' own tool finds nothing to complain of in names, types, units and help texts."""
    for collector in (busy.collector(symbols=symbols), FolderCollector(busy.core)):
        done = subprocess.run(
            [binary("promtool"), "check", "metrics"],
            input=text_of(collector), text=True, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_names_are_told_without_looking(busy):
    """A registry that asks which names there are gets all of them."""
    for collector in (busy.collector(), FolderCollector(busy.core)):
        told = [(family.name, family.type) for family in collector.describe()]
        assert told == [(family.name, family.type) for family in collector.collect()]
        assert all(name.startswith("tradecache_") and ":" not in name for name, _ in told)


def test_two_caches_are_refused_by_one_registry(make):
    """A registry refuses a second cache, whose series would be those of the first."""
    registry = CollectorRegistry()
    registry.register(make().collector())
    with pytest.raises(DuplicateTimeseries):
        registry.register(make().collector())


def test_openmetrics(busy):
    """Who asks for OpenMetrics gets it, as its own parser wants it."""
    server = busy.serve_metrics(port=0)
    names = {family.name for family in parsed_open(get(server.url, OPENMETRICS))}

    assert {"tradecache_requests", "tradecache_request_duration_seconds", "tradecache_build"} <= names


class TestHistogram:
    """Latencies in buckets."""

    @given(st.lists(st.one_of(st.sampled_from(LATENCIES), st.floats(0, 100)), min_size=1, max_size=40))
    def test_buckets_are_exact(self, seconds):
        """Each bucket counts what took no longer than its bound, though the events are forgotten by then."""
        telemetry = Telemetry(max_events=1)
        for each in seconds:
            telemetry.record("get", "prices", "A", "memory", 1, 24, each)
        (total,) = telemetry.totals().values()

        expected = [sum(each <= bound for each in seconds) for bound in (*LATENCIES, float("inf"))]
        found = [sum(total.latencies[: place + 1]) for place in range(len(LATENCIES) + 1)]
        assert (found, total.requests) == (expected, len(seconds))
        assert total.seconds == pytest.approx(sum(seconds))

    def test_as_prometheus_wants_them(self, busy):
        """Buckets are cumulative, end with +Inf, which is the count, and stale answers are among their tier's."""
        text = text_of(busy.collector())
        name, found = "tradecache_request_duration_seconds", {}
        for (sample, *pairs), number in samples(text).items():
            if sample == f"{name}_bucket":
                labels = dict(pairs)
                found.setdefault(tuple(v for k, v in pairs if k != "le"), []).append(
                    (float(labels["le"]), number)
                )

        assert len(found) > 5
        for buckets in found.values():
            assert [bound for bound, _ in buckets] == [*LATENCIES, float("inf")]
            assert [n for _, n in buckets] == sorted(n for _, n in buckets)
        requests = value(text, "tradecache_requests_total")
        assert value(text, f"{name}_count") == requests == sum(b[-1][1] for b in found.values())


class TestCounters:
    """What is counted."""

    def test_exact_under_threads(self, make):
        """Nothing is lost while several threads ask and another one scrapes, and no counter falls meanwhile."""
        cache = make()
        ids = [cache.store_price("A", 1.0, 1) for _ in range(3)]
        server, found, ends = cache.serve_metrics(port=0), [], threading.Event()

        def ask():
            for number in range(600):
                cache.get_price("A", ids[number % 3] if number % 2 else "none")

        def scrape():
            while not ends.is_set():
                found.append(samples(get(server.url)))

        scraper, threads = threading.Thread(target=scrape), [threading.Thread(target=ask) for _ in range(4)]
        for thread in (scraper, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        ends.set()
        scraper.join()
        found.append(samples(get(server.url)))

        hits = (
            "tradecache_requests_total",
            ("dataset", "prices"),
            ("operation", "get"),
            ("outcome", "hit"),
            ("tier", "memory"),
        )
        assert (found[-1][hits], value(get(server.url), "tradecache_requests_total", operation="get")) == (
            1200,
            2400,
        )
        for before, after in itertools.pairwise(found):
            assert all(
                after[name] >= n for name, n in before.items() if name[0].endswith(("_total", "_bucket"))
            )

    def test_stale_answers_and_errors(self, busy):
        """What was answered with stale bars is one outcome, what failed another."""
        text = text_of(busy.collector())
        outcomes = busy.events()["outcome"].value_counts().to_dict()

        assert {"stale", "error", "hit", "miss", "done"} == set(outcomes)
        for outcome, count in outcomes.items():
            assert value(text, "tradecache_requests_total", outcome=outcome) == count

    def test_sources(self, busy, source):
        """How often each source was asked is counted by its name, also of those that only one call named."""
        busy.bars("A", "2012-01-01", "2012-02-01", source="synthetic")
        text = text_of(busy.collector())
        (guard,) = [each for _, each in busy.core.desk._guards.values() if each.source is source]

        assert value(text, "tradecache_source_requests_total", source="failing") == guard.requests > 5
        assert value(text, "tradecache_source_requests_total", source="synthetic") == 1

    def test_memory(self, make):
        """Bytes, bound, entries and evictions are those of the memory tier."""
        cache = make(settings=Settings(memory_bytes=20_000))
        for number in range(100):
            cache.store_price("A", 1.0 + number, 1)
        text, memory = text_of(cache.collector()), cache.core.stack.memory.occupancy()

        names = {
            "bytes": "bytes",
            "limit_bytes": "max_bytes",
            "entries": "entries",
            "evictions_total": "evictions",
        }
        assert {n: value(text, f"tradecache_memory_{n}") for n in names} == {
            n: memory[m] for n, m in names.items()
        }
        assert memory["evictions"] > 0

    def test_symbols_only_where_asked_for(self, busy):
        """No symbol is told unless it was asked for; then requests, rows and bytes have it, and the same sums."""
        names = set(busy.events()["symbol"]) - {""}
        plain, detailed = text_of(busy.collector()), text_of(busy.collector(symbols=True))

        labels = {text for (_, *pairs) in samples(plain) for pair in pairs for text in pair}
        assert labels & (names | {"symbol"}) == set()
        for name in ("requests", "rows", "bytes"):
            found = {s: value(detailed, f"tradecache_{name}_total", symbol=s) for s in names | {""}}
            assert sum(found.values()) == value(plain, f"tradecache_{name}_total")
        assert {dict(pairs).get("symbol", "") for (_, *pairs) in samples(detailed)} == names | {""}

    def test_a_scrape_does_not_grow_with_the_symbols(self, make):
        """With a thousand symbols there is no more to tell than with one."""
        cache = make()
        cache.get_price("A", "none")
        few, copied = samples(text_of(cache.collector())), len(cache.core.telemetry.totals())
        for number in range(1000):
            cache.get_price(f"S{number}", "none")

        assert set(samples(text_of(cache.collector()))) == set(few)
        assert len(cache.core.telemetry.totals()) == copied == 1

    @pytest.mark.parametrize("symbols", [1, "yes", None])
    def test_symbols_is_a_choice(self, make, symbols):
        """Whether symbols are told is said with True or False."""
        with pytest.raises(InvalidInput, match="symbols is"):
            make().collector(symbols=symbols)


class TestServers:
    """The servers that several processes share."""

    def test_where_there_are_none(self, busy):
        """Of servers that one does not have nothing is told, and nothing of those of other processes."""
        for collector in (busy.collector(), FolderCollector(busy.core)):
            assert not [name for name, *_ in samples(text_of(collector)) if "server_up" in name]

    def test_each_by_its_role(self, make, redis_server, recwarn):
        """Each shared server is up until a request meets with no answer, and again when one is answered."""
        settings = Settings(memory_url=redis_server.url, team_url=redis_server.url.replace("/0", "/1"))
        cache = make("synthetic", settings=settings)
        cache.bars("A", "2012-01-01", "2012-02-01")
        found = []

        def look():
            text = text_of(cache.collector())
            found.append([value(text, "tradecache_server_up", server=role) for role in ("memory", "team")])
            return found[-1]

        look()
        redis_server.kill()
        cache.store_price("A", 1.0, 1)
        look()
        redis_server.start()
        wait_until(lambda: cache.store_price("A", 1.0, 1) and look()[0] == 1)
        assert found[:2] == [[1, 1], [0, 1]]
        assert recwarn.pop(ServerAwayWarning)


class TestDisk:
    """What is in the folder, and how often it is looked at."""

    def test_as_info_has_it(self, make):
        """Entries, payloads, bytes and the bound are those of `info`."""
        cache = make("synthetic", settings=Settings(disk_bytes="1GiB"))
        cache.bars(["A", "B"], "2012-01-01", "2012-02-01")
        cache.store_price("A", 1.0, 1)
        text, info = text_of(cache.collector()), cache.info()

        for name in ("entries", "payloads", "bytes", "ledger_bytes"):
            assert value(text, f"tradecache_disk_{name}") == info[f"disk_{name}"] > 0
        assert value(text, "tradecache_disk_limit_bytes") == 2**30
        assert value(text, "tradecache_disk_up") == 1

    def test_damage(self, make, tmp_path):
        """What was damaged is told, also as files in quarantine."""
        cache = make("synthetic")
        cache.bars("A", "2012-01-01", "2012-02-01")
        (payload,) = (tmp_path / "cache").rglob("*.arrow")
        payload.write_bytes(b"damaged")
        before = text_of(cache.collector())
        cache.verify()
        after = text_of(cache.collector())

        for name in ("tradecache_disk_quarantined_total", "tradecache_disk_quarantine_files"):
            assert (value(before, name), value(after, name)) == (0, 1)

    def test_a_hundredth_of_the_time(self):
        """It is looked at again after a hundred times as long as that took, and a second at least."""
        now, looks = [0.0], []

        def look(takes):
            looks.append(now[0])
            now[0] += takes
            return len(looks)

        paced = Paced(0, monotonic=lambda: now[0])
        assert [paced.now(lambda: look(0)), paced.now(lambda: look(0))] == [1, 1]
        now[0] = 1.0
        assert paced.now(lambda: look(3)) == 2
        now[0] += 299
        assert paced.now(lambda: look(0)) == 2
        now[0] += 1
        assert paced.now(lambda: look(0)) == 3
        assert looks == [0, 1, 304]

    def test_others_meanwhile(self):
        """Who comes while somebody looks, or would have to wait for another process, is told what was seen last."""
        now, told = [0.0], []
        paced = Paced("nothing", monotonic=lambda: now[0])

        def look():
            told.append(paced.now(look))
            return "something"

        assert (paced.now(look), told) == ("something", ["nothing"])
        now[0] = 10.0
        assert paced.now(self.wait) == "something"

    def wait(self):
        return finish(asyncio.sleep(0))

    def test_a_closed_cache(self, make):
        """Of a folder that cannot be read it is told that it cannot, and nothing else; what was counted stays."""
        cache = make()
        cache.store_price("A", 1.0, 1)
        collector = cache.collector()
        cache.close()
        found = samples(text_of(collector))

        assert {name: n for (name, *_), n in found.items() if "disk_" in name} == {"tradecache_disk_up": 0}
        assert value(text_of(collector), "tradecache_requests_total", operation="put") == 1

    def test_a_folder_that_is_gone(self, make, tmp_path):
        """A scrape after a folder was deleted says so, and does not make it; with the next write it is there again."""
        cache, now = make(), [0.0]
        cache.store_price("A", 1.0, 1)
        collector, found = CacheCollector(cache.core, monotonic=lambda: now[0]), []

        def up():
            now[0] += 3600
            found.append(value(text_of(collector), "tradecache_disk_up"))

        up()
        shutil.rmtree(tmp_path / "cache")
        up()
        assert not (tmp_path / "cache").exists()
        wait_until(lambda: cache.store_price("A", 1.0, 1) and (tmp_path / "cache").exists())
        up()
        assert found == [1, 0, 1]

    def test_looked_at_once_a_second(self, make):
        """A scrape that comes within a second of the last one is told what was seen then."""
        cache, now = make(), [0.0]
        collector = CacheCollector(cache.core, monotonic=lambda: now[0])
        found = []
        for step in (0, 0.5, 1):
            now[0] += step
            found.append(value(text_of(collector), "tradecache_disk_entries"))
            cache.store_price("A", 1.0, 1)

        assert found == [0, 0, 2]

    def test_a_store_that_was_passed_in(self):
        """Of a store that was passed in nothing is told, as it does not tell."""
        with TradeCache(durable=MemoryStore()) as cache:
            names = {name for (name, *_) in samples(text_of(cache.collector()))}
        assert not [name for name in names if name.startswith("tradecache_disk")]
        assert "tradecache_memory_bytes" in names


class TestServing:
    """The server of a process."""

    def test_closed_with_the_cache(self, make):
        """It listens until the cache is closed; then the port is free."""
        cache = make()
        server = cache.serve_metrics(port=0)
        assert value(get(server.url), "tradecache_memory_limit_bytes") == cache.settings.memory_bytes
        assert repr(server) == f"<MetricsServer http://127.0.0.1:{server.port}/metrics>"
        cache.close()

        assert refuses(server.port)
        assert "closed" in repr(server)
        with pytest.raises(CacheClosed):
            cache.serve_metrics(port=0)
        with pytest.raises(CacheClosed):
            cache.collector()

    def test_closed_by_itself(self, make):
        """It can be closed before the cache is, more than once, and its port be taken again."""
        cache = make()
        server = cache.serve_metrics(port=0)
        server.close()
        server.close()
        again = cache.serve_metrics(port=server.port)

        assert again.port == server.port
        assert "tradecache_build_info" in get(again.url)

    def test_closed_servers_are_forgotten(self, make):
        """A server that was closed is not kept until the cache is, however many there were."""
        cache, servers = make(), weakref.WeakSet()
        for _ in range(5):
            server = cache.serve_metrics(port=0)
            servers.add(server)
            server.close()
        server = cache.serve_metrics(port=0)
        gc.collect()
        assert len(servers) == 0
        assert "tradecache_build_info" in get(server.url)

    def test_does_not_keep_the_cache(self, tmp_path):
        """A cache that is let go of is freed although it is served, with its port and what memory held."""
        cache = TradeCache(tmp_path)
        data_id = cache.store_price("A", 1.0, 1)
        cache.get_price("A", data_id)
        server, collector = cache.serve_metrics(port=0), cache.collector()
        get(server.url)
        core, memory = weakref.ref(cache.core), weakref.ref(cache.core.stack.memory)
        del cache
        gc.collect()

        assert (core(), memory()) == (None, None)
        assert list(collector.collect()) == []
        wait_until(lambda: refuses(server.port))

    def test_does_not_keep_the_interpreter(self, tmp_path):
        """A script that serves, and closes nothing, ends."""
        done = run_script(
            """
            import sys, tradecache as tc
            cache = tc.TradeCache(sys.argv[1])
            print(cache.serve_metrics(port=0).port)
            """,
            tmp_path,
        )
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
    def test_a_forked_child_lets_go_of_the_port(self, tmp_path):
        """A child does not hold the port of its parent, and can serve what it counts itself."""
        done = run_script(
            """
            import os, sys, urllib.request
            import tradecache as tc
            cache = tc.TradeCache(sys.argv[1])
            server = cache.serve_metrics(port=0)
            cache.get_price("A", "none")
            gone, told = os.pipe()
            pid = os.fork()
            if not pid:
                own = cache.serve_metrics(port=0)
                text = urllib.request.urlopen(own.url, timeout=10).read().decode()
                server.close()
                os.read(gone, 1)
                os._exit(0 if 'tier="none"} 1.0' in text and own.port != server.port else 1)
            cache.close()
            other = tc.TradeCache(sys.argv[1])
            again = other.serve_metrics(port=server.port)
            os.write(told, b".")
            assert "tradecache_build_info" in urllib.request.urlopen(again.url, timeout=10).read().decode()
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            """,
            tmp_path,
            flags=["-W", "ignore::DeprecationWarning"],  # later Pythons warn of forks beside threads
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")

    @pytest.mark.parametrize("port", [-1, 65_536, "9464", 9464.0, True, None])
    def test_bad_ports(self, make, port):
        """A port is a whole number from 0 to 65535."""
        with pytest.raises(InvalidInput, match=r"port is .* from 0 to 65535"):
            make().serve_metrics(port=port)

    @pytest.mark.parametrize(
        "address", ["", None, 1, "203.0.113.1", "no such host", "x" * 300, "\ud800", "a\0b"]
    )
    def test_bad_addresses(self, make, address):
        """An address is one of this machine."""
        with pytest.raises(InvalidInput, match=r"address is .* an address of this machine"):
            make().serve_metrics(port=0, address=address)

    def test_a_port_in_use(self, make):
        """A port that somebody listens on is refused with a sentence that says so."""
        cache = make()
        server = cache.serve_metrics(port=0)
        with pytest.raises(
            InvalidInput, match=f"port is {server.port}, but must be one that nobody listens on"
        ):
            make().serve_metrics(port=server.port)
        assert "tradecache_build_info" in get(server.url)

    def test_version_6(self, make):
        """It can listen at an address of IP version 6."""
        try:
            with socket.socket(socket.AF_INET6) as one:
                one.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IP version 6")
        server = make().serve_metrics(port=0, address="::1")
        assert server.url == f"http://[::1]:{server.port}/metrics"
        assert "tradecache_build_info" in get(server.url)

    def test_clients_that_go_away(self, make, capfd):
        """Who connects and leaves without asking, or asks for nonsense, neither stops it nor is complained of."""
        server = make().serve_metrics(port=0)
        for sent in (b"", b"GET /metrics HTTP/1.1\r\n", b"\0\xff\r\n\r\n", b"POST / HTTP/1.0\r\n\r\n"):
            with socket.create_connection((LOCAL, server.port)) as one:
                one.sendall(sent)
        with socket.create_connection((LOCAL, server.port)):  # and who stays, silently, is in nobody's way
            assert "tradecache_build_info" in get(server.url)
        assert capfd.readouterr() == ("", "")

    def test_without_the_package(self, tmp_path):
        """Without prometheus_client both faces and the command name the line that installs it."""
        hidden = without_package("prometheus_client", tmp_path)
        code = """
            import sys, tradecache as tc
            from tradecache.cli import main
            cache = tc.TradeCache(sys.argv[1])
            for work in (cache.collector, cache.serve_metrics):
                try:
                    work()
                except tc.MissingDependency as error:
                    print(error)
            sys.exit(main(["serve-metrics", "--cache-dir", sys.argv[1]]))
        """
        done = run_script(code, tmp_path / "cache", **hidden)
        line = "this needs prometheus_client; install it with: pip install 'tradecache[metrics]'\n"
        assert (done.returncode, done.stdout, done.stderr) == (1, 2 * line, f"tradecache: {line}")


class TestFolder:
    """What is told of a folder, from its history."""

    @pytest.fixture
    def opened(self, make):
        """Return what opens a session on the folder that keeps its history."""
        return lambda keep=10_000, **options: make(settings=Settings(keep_history=keep), **options)

    def test_all_sessions_together(self, opened, make, source, clock):
        """Counts of several sessions are added up, and a hit is a hit of the tier that it is one of in `stats`."""
        sums = []
        for _ in range(2):
            with opened(source=source, freshness=FixedTTL(60)) as cache:
                work(cache, source, clock)
                sums.append(text_of(cache.collector()))
        looking = make()
        text = text_of(FolderCollector(looking.core))

        for name in ("requests", "rows", "bytes", "tier_lookups"):
            of_all = [
                {key: n for key, n in samples(each).items() if key[0] == f"tradecache_{name}_total"}
                for each in (*sums, text)
            ]
            keys = set(of_all[0]) | set(of_all[1])
            assert of_all[2] == {key: of_all[0].get(key, 0) + of_all[1].get(key, 0) for key in keys}
        assert value(text, "tradecache_disk_entries") == looking.info()["disk_entries"] > 0
        assert "duration" not in text
        assert "memory_bytes" not in text

    def test_counters_never_fall(self, opened, make, clock):
        """They stay while entries of the history expire and are deleted, and each entry is counted once."""
        looking, now = make(), [0.0]
        collector = FolderCollector(looking.core, monotonic=lambda: now[0])

        def gets():
            now[0] += 3600
            return value(text_of(collector), "tradecache_requests_total", operation="get")

        found = []
        for _ in range(4):
            with opened() as cache:
                for _ in range(5):
                    cache.get_price("A", "none")
            found += [gets(), gets()]
            clock.advance(4000)
            found.append(gets())
        clock.advance(20_000)
        looking.purge()
        found.append(gets())

        assert found == [5, 5, 5, 10, 10, 10, 15, 15, 15, 20, 20, 20, 20]
        assert len(looking.history()) == 0

    def test_a_folder_that_can_no_longer_be_read(self, opened, make):
        """What was counted before stays, and it is told that the folder cannot be read."""
        looking, now = make(), [0.0]
        collector = FolderCollector(looking.core, monotonic=lambda: now[0])
        with opened() as cache:
            cache.get_price("A", "none")
        found = [text_of(collector)]
        looking.close()
        now[0] = 60.0
        found.append(text_of(collector))

        assert [value(text, "tradecache_requests_total") for text in found] == [1, 1]
        assert [value(text, "tradecache_disk_up") for text in found] == [1, 0]

    @pytest.mark.parametrize("what", ["folder", "ledger"])
    def test_a_folder_that_is_gone(self, opened, make, tmp_path, what):
        """What was counted before stays, it is told that there is no folder or no ledger, and none is made."""
        looking, now = make(), [0.0]
        collector = FolderCollector(looking.core, monotonic=lambda: now[0])
        with opened() as cache:
            cache.get_price("A", "none")
        found = [text_of(collector)]
        folder = tmp_path / "cache"
        gone = [folder] if what == "folder" else list(folder.glob("ledger-*"))
        for each in gone:
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        for _ in range(2):
            now[0] += 3600
            found.append(text_of(collector))

        assert [value(text, "tradecache_disk_up") for text in found] == [1, 0, 0]
        assert [value(text, "tradecache_requests_total") for text in found] == [1, 1, 1]
        assert [each.exists() for each in gone] == [False] * len(gone)

    @pytest.mark.parametrize("before", [KEYS[0], None])
    def test_other_keys(self, make, before):
        """After the keys have changed, what was counted before stays, and it is told that nothing can be read."""
        with make(settings=Settings(keep_history=10_000, encryption_key=before)) as cache:
            cache.get_price("A", "none")
        looking, now = make(settings=Settings(encryption_key=before)), [0.0]
        collector = FolderCollector(looking.core, monotonic=lambda: now[0])
        found = [text_of(collector)]
        keys = ",".join(filter(None, [KEYS[1], before]))
        rekey(Settings(cache_dir=looking.core.where, encryption_key=keys))
        with make(settings=Settings(keep_history=10_000, encryption_key=KEYS[1])) as cache:
            cache.get_price("A", "none")
        for _ in range(2):
            now[0] += 3600
            found.append(text_of(collector))

        assert [value(text, "tradecache_disk_up") for text in found] == [1, 0, 0]
        assert [value(text, "tradecache_requests_total") for text in found] == [1, 1, 1]

    def test_what_was_expired_and_is_back(self, opened, make, clock):
        """A step of the clock ahead and back counts nothing twice."""
        looking, now = make(), [0.0]
        collector = FolderCollector(looking.core, monotonic=lambda: now[0])
        with opened() as cache:
            cache.get_price("A", "none")
        found = []
        for step in (0, 20_000, -20_000):
            clock.advance(step)
            now[0] += 3600
            found.append(value(text_of(collector), "tradecache_requests_total"))

        assert found == [1, 1, 1]

    def test_sessions_without_a_history_are_not_seen(self, make):
        """Of a process that keeps no history only what it has stored is seen."""
        with make() as cache:
            cache.get_price("A", "none")
            cache.store_price("A", 1.0, 1)
        text = text_of(FolderCollector(make().core))

        assert (value(text, "tradecache_requests_total"), value(text, "tradecache_disk_entries")) == (0, 1)


class TestCommand:
    """`tradecache serve-metrics` as a process of its own."""

    @pytest.fixture
    def folder(self, tmp_path):
        """A folder of which a session has kept its history."""
        path = tmp_path / "folder"
        with TradeCache(path, settings=Settings(keep_history=True)) as cache:
            data_id = cache.store_price("A", 1.0, 1)
            for wanted in (data_id, data_id, "none"):
                cache.get_price("A", wanted)
            cache.prices("A")
        return path

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_until_a_signal(self, folder, number):
        """It says which port it has chosen, answers, and ends cleanly on Ctrl-C and on SIGTERM."""
        process, url = started(folder, "--port", "0")
        text = get(url)
        assert value(text, "tradecache_requests_total", operation="get", outcome="hit") == 2
        assert value(text, "tradecache_disk_entries") == 2
        assert ended(process, number) == (0, "")
        assert refuses(urllib.parse.urlsplit(url).port)

    def test_a_folder_that_is_deleted(self, folder):
        """It goes on after the folder is deleted, says that it is gone, and leaves it so."""
        process, url = started(folder, "--port", "0")
        before = get(url)
        shutil.rmtree(folder)
        wait_until(lambda: value(get(url), "tradecache_disk_up") == 0)
        after = get(url)
        name = "tradecache_requests_total"
        assert value(after, name) == value(before, name) > 0
        assert not folder.exists()
        assert ended(process, signal.SIGTERM) == (0, "")

    @pytest.mark.slow
    def test_seen_by_prometheus(self, folder):
        """The hit rates that Prometheus computes are those of the session whose history it is."""
        process, url = started(folder, "--port", "0")
        try:
            with PrometheusServer(urllib.parse.urlsplit(url).netloc) as prometheus:
                scraped(prometheus)
                assert asked(prometheus, OF_TIERS) == {
                    (("tier", "memory"),): 2 / 3,
                    (("tier", "disk"),): 1 / 2,
                }
                assert asked(prometheus, OF_ALL) == {(): 3 / 4}
        finally:
            assert ended(process, signal.SIGTERM) == (0, "")

    def test_a_port_in_use(self, folder):
        """Where somebody listens already, it ends with one line that says so."""
        with socket.socket() as one:
            one.bind((LOCAL, 0))
            one.listen()
            port = one.getsockname()[1]
            done = run_command(
                [
                    sys.executable,
                    "-m",
                    "tradecache",
                    "serve-metrics",
                    "--cache-dir",
                    folder,
                    "--port",
                    str(port),
                ]
            )
        line = f"tradecache: port is {port}, but must be one that nobody listens on at 127.0.0.1; 0 chooses a free one\n"
        assert (done.returncode, done.stdout, done.stderr) == (2, "", line)

    @pytest.mark.parametrize("port", ["http", "-1", "70000", "1.5", ""])
    def test_bad_ports(self, folder, port):
        """Another port than a number from 0 to 65535 is refused."""
        done = run_command(
            [sys.executable, "-m", "tradecache", "serve-metrics", "--cache-dir", folder, f"--port={port}"]
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(r"tradecache: port is .* from 0 to 65535; 0 chooses a free one\n", done.stderr)

    def test_a_folder_that_is_not_there(self, tmp_path):
        """Who only looks makes no folder."""
        where = tmp_path / "none"
        done = run_command([sys.executable, "-m", "tradecache", "serve-metrics", "--cache-dir", where])
        assert (done.returncode, where.exists()) == (2, False)
        assert "a folder that is there" in done.stderr

    def test_help_says_what_it_cannot_see(self):
        """The help says what is seen, what is not, and what to do about it."""
        done = run_command([sys.executable, "-m", "tradecache", "serve-metrics", "--help"])
        assert "TRADECACHE_KEEP_HISTORY=true" in done.stdout
        assert "cannot see" in done.stdout


class TestCompose:
    """The compose file and what it mounts. There is no Docker here: it is read, not run."""

    @pytest.fixture
    def services(self):
        return yaml.safe_load((DOCS / "compose.yaml").read_text(encoding="utf-8"))["services"]

    def test_what_it_mounts_is_there(self, services):
        """Each mounted file is there, and each named volume is declared."""
        assert set(services) == {"redis", "postgres", "prometheus", "grafana"}
        declared = yaml.safe_load((DOCS / "compose.yaml").read_text(encoding="utf-8"))["volumes"]
        for volume in [each for service in services.values() for each in service["volumes"]]:
            source = volume.split(":")[0]
            assert (DOCS / source).is_file() if source.startswith(".") else source in declared

    def test_only_this_machine(self, services):
        """Each port is open to this machine alone, and there is no password by default."""
        ports = [port for service in services.values() for port in service["ports"]]
        assert [port.split(":")[0] for port in ports] == [LOCAL] * 4
        text = (DOCS / "compose.yaml").read_text(encoding="utf-8")
        assert sorted(re.findall(r"\$\{(\w+):\?", text)) == [
            "GRAFANA_PASSWORD",
            "POSTGRES_PASSWORD",
            "REDIS_PASSWORD",
        ]

    def test_prometheus_accepts_its_configuration(self):
        """Prometheus' own tool finds its configuration valid; it asks at the port that is the default."""
        path = DOCS / "compose" / "prometheus.yml"
        done = subprocess.run(
            [binary("promtool"), "check", "config", path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "host.docker.internal:9464" in path.read_text(encoding="utf-8")

    def test_grafana_finds_the_dashboard(self, services):
        """The dashboard is mounted where Grafana is told to look, and Prometheus is the source it takes by default."""
        mounts = dict(each.split(":")[:2] for each in services["grafana"]["volumes"])
        provider = yaml.safe_load((DOCS / "compose/grafana-dashboards.yml").read_text(encoding="utf-8"))
        (source,) = yaml.safe_load((DOCS / "compose/grafana-datasources.yml").read_text(encoding="utf-8"))[
            "datasources"
        ]

        where = provider["providers"][0]["options"]["path"]
        assert mounts["./grafana-dashboard.json"].startswith(where + "/")
        assert (source["type"], source["isDefault"], source["url"]) == (
            "prometheus",
            True,
            "http://prometheus:9090",
        )

    def test_panels_do_not_overlap(self):
        """Each panel of the dashboard has an id and a place of its own."""
        cells = [
            (x, y)
            for panel in DASHBOARD["panels"]
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len(cells) == len(set(cells))
        assert max(x for x, _ in cells) < 24
        assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_reads_are_spelt_out_in_the_documents():
    """The operations in the query for all reads are those that are reads."""
    (spelt,) = re.findall(r'operation=~"([a-z|]+)"', OF_ALL)
    assert tuple(spelt.split("|")) == READS
