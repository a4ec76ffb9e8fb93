"""How a cache and its settings are shown in a notebook."""

import os
import re
import shutil
import sys
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tradecache import Settings, SourceUnavailable, StaleDataWarning, TradeCache
from tradecache.cards import cache_card
from tradecache.clock import MAX_TTL
from tradecache.freshness import FixedTTL
from tradecache.glance import glance_at
from tradecache.settings import PREFIX
from tradecache.sources.synthetic import Synthetic
from tradecache.telemetry import Telemetry

HEAD = ["memory", "disk", "source", "in all"]
MEMORY = {"entries": 0, "bytes": 0, "max_bytes": 1024**2}
TAGS = {"table", "caption", "tbody", "tr", "th", "td", "b", "span"}
ATTRIBUTES = {"style", "scope", "aria-hidden"}
ODD = st.text(st.characters(exclude_categories=()))  # control characters and lone surrogates among them


class Card(HTMLParser):
    """A card, parsed: its rows as texts, and whatever a card may not have."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        html.encode()
        self.feed(html)
        self.close()
        self.faults += [f"<{tag}> is not closed" for tag in self._open]

    def handle_starttag(self, tag, attrs):
        self._open.append(tag)
        self.faults += [f"<{tag}>"] * (tag not in TAGS)
        self.faults += [f"{name}={value}" for name, value in attrs if name not in ATTRIBUTES]
        styles = " ".join(value for name, value in attrs if name == "style")
        self.faults += re.findall(r"url|#\w+|rgb|(?<!\w)color", styles)
        if tag in {"caption", "tr"}:
            self.rows.append([])
        if tag in {"caption", "th", "td"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> is in the wrong place")

    def handle_data(self, data):
        self.rows[-1][-1] += data

    def handle_comment(self, data):
        self.faults.append(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


def rows_of(thing: Any) -> dict[str, list[str]]:
    """Return the well-formed card of a thing as its rows, by their first cell."""
    card = Card(thing if isinstance(thing, str) else thing._repr_html_())
    assert card.faults == []
    return {row[0]: row[1:] for row in card.rows}


def sayable(text: str) -> str:
    """Return a text without what UTF-8 cannot hold."""
    return text.encode(errors="replace").decode()


def card_of(where: str = "prices", *, telemetry=None, memory=MEMORY, source="local", is_closed=False) -> str:
    seen = glance_at(telemetry or Telemetry(), lambda: memory)
    return cache_card(where, source=source, seen=seen, is_closed=is_closed)


class TestCache:
    """The card of a cache."""

    def test_empty(self, make, tmp_path):
        """Before the first request it says so."""
        assert rows_of(make(settings=Settings(memory_bytes="64MiB"))) == {
            f"TradeCache {tmp_path / 'cache'}": [],
            "memory": ["0 B of 64 MiB, 0 entries, 0 hits"],
            "disk": ["0 hits of 0 requests"],
            "source": ["local, 0 fetches"],
            "in all": ["no requests yet, 0 errors, 0 stale answers"],
        }

    def test_it_says_what_the_statistics_say(self, make):
        """Requests, hits, fetches and stale answers are those of `stats()`."""
        source = Synthetic()
        cache = make(source, freshness=FixedTTL(60, jitter=0))
        cache.bars(["AAPL", "MSFT"], "2024-05", "2024-05")
        cache.bars("AAPL", "2024-05", "2024-05")
        cache.get_price("AAPL", cache.store_price("AAPL", 1.0, 1))
        cache.latest()
        cache.prices()
        stats = cache.stats()

        rows = rows_of(cache)

        assert stats["hits"].to_dict() == {"memory": 2, "disk": 2, "source": 0}
        assert stats["requests"].to_dict() == {"memory": 4, "disk": 4, "source": 2}
        assert rows["memory"][0].endswith(" of 256 MiB, 3 entries, 2 hits")
        assert rows["disk"] == ["2 hits of 4 requests, 50.0%"]
        assert rows["source"] == ["synthetic, 2 fetches"]
        assert rows["in all"] == ["6 requests, 66.7% hits, 0 errors, 0 stale answers"]

    def test_errors_and_stale_answers(self, make, clock, no_pauses):
        """What failed and what was no longer fresh are counted."""

        class Failing(Synthetic):
            fails = False

            async def fetch(self, *asked):
                if self.fails:
                    raise SourceUnavailable
                return await super().fetch(*asked)

        source = Failing()
        cache = make(source, freshness=FixedTTL(60, jitter=0))
        cache.bars("AAPL", "2024-05", "2024-05")
        source.fails = True
        clock.advance(61)
        with pytest.warns(StaleDataWarning):
            cache.bars("AAPL", "2024-05", "2024-05")
        with pytest.raises(SourceUnavailable):
            cache.bars("MSFT", "2024-05", "2024-05")

        assert rows_of(cache)["in all"] == ["3 requests, 33.3% hits, 1 error, 1 stale answer"]

    def test_writes_do_not_count(self):
        """Reads alone are counted, each under the tier that answered it."""
        telemetry = Telemetry()
        for operation, dataset, tier, is_stale in (
            *[("get", "prices", "memory", False)] * 1000,
            ("bars", "bars 1d", "disk", True),
            ("bars", "bars 1d", "error", False),
            ("latest", "prices", "none", False),
            ("bars", "bars 1h", "source", False),
            *[("put", "prices", "disk", False)] * 7,
            ("delete", "prices", "error", False),
        ):
            telemetry.record(operation, dataset, "AAPL", tier, 1, 24, 0.0, is_stale)
        rows = rows_of(card_of(telemetry=telemetry, source="mine"))
        assert rows["memory"][0].endswith("1,000 hits")
        assert rows["disk"] == ["1 hit of 4 requests, 25.0%"]
        assert rows["source"] == ["mine, 1 fetch"]
        assert rows["in all"] == ["1,004 requests, 99.7% hits, 1 error, 1 stale answer"]

    @pytest.mark.parametrize(("held", "width"), [(0, "0%"), (512 * 1024, "50%"), (2 * 1024**2, "100%")])
    def test_the_bar(self, held, width):
        """A bar shows how full the memory is, and is never longer than its frame."""
        memory = {"entries": 1, "bytes": held, "max_bytes": 1024**2}
        assert re.findall(r"width:(\d+%)", card_of(memory=memory)) == [width]

    def test_closed(self, make, tmp_path):
        """A closed cache says that it is; what was counted stays."""
        cache = make()
        cache.get_price("AAPL", cache.store_price("AAPL", 1.0, 1))
        cache.close()

        rows = rows_of(cache)

        assert next(iter(rows)) == f"TradeCache {tmp_path / 'cache'} (closed)"
        assert rows["memory"] == ["0 B of 256 MiB, 0 entries, 1 hit"]

    def test_without_its_folder(self, make, tmp_path):
        """The card needs no folder, as nothing is read for it."""
        cache = make()
        before = rows_of(cache)
        shutil.rmtree(tmp_path / "cache")
        assert rows_of(cache) == before

    @pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be there")
    def test_values_are_escaped(self, tmp_path):
        """A folder's name is shown as it is, whatever it would mean in HTML."""
        folder = str(tmp_path / """<b>&"'</table>""")
        with TradeCache(folder) as cache:
            rows = rows_of(cache)

        assert list(rows) == [f"TradeCache {folder}", *HEAD]

    @given(where=ODD, source=ODD)
    def test_any_names(self, where, source):
        """Whatever a folder or a source is called, the card is a card, and UTF-8."""
        rows = rows_of(card_of(where, source=source))

        assert list(rows) == [sayable(f"TradeCache {where}"), *HEAD]
        assert rows["source"] == [sayable(f"{source}, 0 fetches")]


class TestSettings:
    """The card of settings."""

    @pytest.fixture(autouse=True)
    def _no_variables_of_ours(self, monkeypatch):
        for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
            monkeypatch.delenv(name)

    def test_every_setting_has_a_row(self, monkeypatch, tmp_path):
        """Names stand as they are given, sizes also in MiB, times also in longer units; all is as by default."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        rows = rows_of(Settings())
        assert list(rows) == ["Settings", *Settings.model_fields]
        assert {tuple(row[1:]) for row in rows.values()} == {(), ("default",)}
        assert rows["cache_dir"][0] == str(tmp_path / "tradecache")
        assert rows["memory_bytes"][0] == "268,435,456 bytes (256 MiB)"
        assert rows["memory_ttl"][0] == "1,800 s (30 min)"
        assert rows["disk_bytes"][0] == "None"
        assert rows["retries"][0] == "3"
        assert rows["retry_delay"][0] == "0.05 s"

    def test_what_was_changed(self, monkeypatch):
        """What is not as by default is bold, is called changed, and has its default beside it."""
        monkeypatch.setenv(PREFIX + "SYNC", "full")
        settings = Settings(cache_dir="/prices", disk_bytes="1.5GiB", keep_history=True, retries=3)

        rows = rows_of(settings)

        changed = {name: row for name, row in rows.items() if row[1:] != ["default"] and row}
        assert changed == {
            "cache_dir": ["/prices", f"changed, default: {Settings().cache_dir}"],
            "disk_bytes": ["1,610,612,736 bytes (1.5 GiB)", "changed, default: None"],
            "sync": ["full", "changed, default: normal"],
            "keep_history": ["2,592,000 s (30 d)", "changed, default: None"],
        }
        assert settings._repr_html_().count("<b>changed</b>") == len(changed)
        assert "<b>full</b>" in settings._repr_html_()

    def test_a_default_that_was_given_is_one(self):
        """What was given but is as by default does not count as changed."""
        usual = Settings()
        assert rows_of(usual.model_copy()) == rows_of(Settings(retries=3, sync="normal")) == rows_of(usual)

    def test_secrets(self):
        """A secret is never shown, neither as a value nor as a default."""

        class WithKeys(Settings):
            used: SecretStr = SecretStr("usual")
            unused: SecretStr = SecretStr("usual")

        settings = WithKeys(used="mine")

        assert not re.search("mine|usual", settings._repr_html_())
        rows = rows_of(settings)
        assert rows["used"] == ["**********", "changed, default: **********"]
        assert rows["unused"] == ["**********", "default"]

    @pytest.mark.parametrize(
        ("seconds", "spelt"),
        [
            (0.001, "0.001 s"),
            (59.5, "59.5 s"),
            (60, "60 s (1 min)"),
            (100, "100 s (1.7 min)"),
            (5400, "5,400 s (1.5 h)"),
            (86400, "86,400 s (1 d)"),
            (86400 * 1e6, "86,400,000,000 s (2,740 y)"),
        ],
    )
    def test_times(self, seconds, spelt):
        """A time is spelt in seconds, and from a minute on in the longest unit that it fills too."""
        assert rows_of(Settings(lock_wait=seconds))["lock_wait"][0] == spelt

    @given(
        folder=ODD.filter(lambda text: text and "\0" not in text and text[0] != "~"),
        size=st.integers(1, 2**63 - 1),
        seconds=st.floats(0, MAX_TTL, exclude_min=True),
    )
    def test_any_values(self, folder, size, seconds):
        """Whatever is set, the card is a card, and UTF-8."""
        settings = Settings(cache_dir=folder, disk_bytes=size, default_ttl=seconds)
        rows = rows_of(settings)
        assert rows["cache_dir"][0] == sayable(str(settings.cache_dir))
        assert rows["disk_bytes"][0].startswith(f"{size:,} bytes (")

    def test_no_file_is_read(self):
        """To show the settings no file is opened, looked at or listed."""
        touched = []
        watching = True

        def watch(event, arguments):
            if watching and event.split(".")[0] in {"open", "os", "import", "pathlib"}:
                touched.append((event, arguments))

        settings = Settings(cache_dir="/prices")
        sys.addaudithook(watch)
        settings._repr_html_()
        watching = False

        assert touched == []
