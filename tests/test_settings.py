"""Which settings there are, where they come from, and what they may be."""

import math
import os
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from tradecache.credentials import SecretKey, SecretURL
from tradecache.errors import InvalidInput
from tradecache.settings import PREFIX, Settings

MIB = 1024**2
KEYS = ("A" * 43 + "=", "B" * 42 + "A=")
DEFAULTS = {
    "memory_bytes": 256 * MIB,
    "memory_ttl": 1800.0,
    "disk_bytes": None,
    "max_entry_bytes": None,
    "default_ttl": None,
    "compression": "none",
    "sync": "normal",
    "lock_wait": 5.0,
    "retries": 3,
    "retry_delay": 0.05,
    "retry_max_delay": 2.0,
    "keep_history": None,
    "memory_url": None,
    "team_url": None,
    "archive_url": None,
    "encryption_key": (),
    "hashed_names": False,
    "log_level": "DEBUG",
}
SPELT = {  # setting: as written in the environment, as it is then
    "cache_dir": ("/somewhere/else", Path("/somewhere/else")),
    "memory_bytes": ("1.5GiB", 1536 * MIB),
    "memory_ttl": ("60", 60.0),
    "disk_bytes": ("10GB", 10_000_000_000),
    "max_entry_bytes": ("4096", 4096),
    "default_ttl": ("3600.5", 3600.5),
    "compression": ("zstd", "zstd"),
    "sync": ("full", "full"),
    "lock_wait": ("0.25", 0.25),
    "retries": ("0", 0),
    "retry_delay": ("0.001", 0.001),
    "retry_max_delay": ("1", 1.0),
    "keep_history": ("86400", 86400.0),
    "memory_url": ("redis://me:word@host:6379/0", SecretURL("redis://me:word@host:6379/0")),
    "team_url": ("s3://bucket?region=x", SecretURL("s3://bucket?region=x")),
    "archive_url": ("postgresql://host/prices", SecretURL("postgresql://host/prices")),
    "encryption_key": (f"{KEYS[0]}, {KEYS[1]}", tuple(map(SecretKey, KEYS))),
    "hashed_names": ("false", False),
    "budget_dir": ("/somewhere/shared", Path("/somewhere/shared")),
    "log_level": ("warning", "WARNING"),
}
SIZES = ("memory_bytes", "disk_bytes", "max_entry_bytes")
TIMES = ("memory_ttl", "default_ttl", "lock_wait", "retry_delay", "retry_max_delay")
SIZE = 'a positive, whole number of bytes, such as 1000000, or a size, such as "256MiB"'


@pytest.fixture(autouse=True)
def _no_variables_of_ours(monkeypatch):
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)


def test_defaults(monkeypatch, tmp_path):
    """Without arguments and variables every setting is what the README's table says."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert Settings().model_dump() == {
        "cache_dir": tmp_path / "tradecache",
        "budget_dir": tmp_path / "tradecache" / "budgets",
        **DEFAULTS,
    }


@pytest.mark.parametrize("name", SPELT)
def test_environment_beats_default(monkeypatch, name):
    """Each setting is read from its variable, sizes with their units."""
    text, value = SPELT[name]
    monkeypatch.setenv(PREFIX + name.upper(), text)

    assert getattr(Settings(), name) == value


@pytest.mark.parametrize("name", SPELT)
def test_argument_beats_environment(monkeypatch, name):
    """An argument is stronger than a variable, and may be spelt the same way."""
    text, value = SPELT[name]
    monkeypatch.setenv(PREFIX + name.upper(), str(DEFAULTS.get(name) or "7"))

    assert getattr(Settings(**{name: text}), name) == value


@pytest.mark.parametrize(
    ("size", "value"),
    [("64MiB", 64 * MIB), ("64 MiB", 64 * MIB), ("1kb", 1000), ("1KiB", 1024), (1, 1), (10**15, 10**15)],
)
def test_sizes_carry_units(size, value):
    """A size is a number of bytes, or a number with a unit of thousands or of 1,024."""
    assert Settings(memory_bytes=size).memory_bytes == value


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize(
    "time", [90, 90.0, timedelta(seconds=90), timedelta(minutes=1.5), np.float64(90), "90"], ids=repr
)
def test_times_are_seconds_or_timedeltas(name, time):
    """A time is a number of seconds or a timedelta."""
    assert getattr(Settings(**{name: time}), name) == 90.0


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("size", [0, -1, 1.5, True, "x", "", "-1MiB", "5 parsecs", math.nan, [1]])
def test_impossible_size(name, size):
    """What is no size is refused with examples of what is one."""
    with pytest.raises(InvalidInput) as caught:
        Settings(**{name: size})

    assert (caught.value.field, caught.value.value, caught.value.allowed) == (name, size, SIZE)


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize(
    ("time", "allowed"),
    [
        (0, "greater than 0"),
        (-1, "greater than 0"),
        (timedelta(0), "greater than 0"),
        (math.inf, "less than or equal to 100000000000"),
        (1e12, "less than or equal to 100000000000"),
        ("1h", "a valid number, unable to parse string as a number"),
        ("", "a valid number, unable to parse string as a number"),
        (True, "a positive number of seconds, or a timedelta"),
        ([1], "a valid number"),
    ],
)
def test_impossible_time(name, time, allowed):
    """What is no time is refused, naming the setting, the value and what is allowed."""
    with pytest.raises(InvalidInput) as caught:
        Settings(**{name: time})

    assert (caught.value.field, caught.value.allowed) == (name, allowed)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (True, 2_592_000.0), ("True", 2_592_000.0), (False, None), ("false", None), (None, None),
        (timedelta(days=7), 604_800.0), (60, 60.0), (1, 1.0),
    ],
    ids=repr,
)  # fmt: skip
def test_how_long_a_history_is_kept(value, seconds):
    """True is thirty days, False not at all; anything else is a time as others are."""
    assert Settings(keep_history=value).keep_history == seconds


@pytest.mark.parametrize("name", TIMES)
def test_no_number_is_no_time(name):
    """NaN is no time."""
    with pytest.raises(InvalidInput, match=f"^{name} is nan, but must be"):
        Settings(**{name: math.nan})


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("compression", "gzip", "'none', 'lz4' or 'zstd'"),
        ("compression", None, "'none', 'lz4' or 'zstd'"),
        ("sync", "off", "'normal' or 'full'"),
        ("log_level", "LOUD", "'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL'"),
        ("log_level", 10, "'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL'"),
        ("retries", -1, "greater than or equal to 0"),
        ("retries", 101, "less than or equal to 100"),
        ("retries", 1.5, "a valid integer, got a number with a fractional part"),
        ("cache_dir", "", "the path of a folder"),
        ("cache_dir", 5, "the path of a folder"),
        ("cache_dir", None, "the path of a folder"),
        ("cache_dir", b"x", "the path of a folder"),
        ("cache_dir", "a\0b", "the path of a folder"),
    ],
)
def test_impossible_choice(name, value, allowed):
    """A value that a setting cannot have is an error that lists those it can."""
    with pytest.raises(InvalidInput) as caught:
        Settings(**{name: value})

    assert (caught.value.field, caught.value.value, caught.value.allowed) == (name, value, allowed)


def test_impossible_variable(monkeypatch):
    """An impossible value in the environment is named like an argument."""
    monkeypatch.setenv("TRADECACHE_COMPRESSION", "gzip")

    with pytest.raises(InvalidInput, match=r"^compression is 'gzip', but must be 'none', 'lz4' or 'zstd'$"):
        Settings()


def test_unknown_argument_lists_what_is_allowed():
    """A misspelt argument is an error that lists all settings and guesses which was meant."""
    with pytest.raises(InvalidInput, match=r"^setting is 'memory_byte', but must be one of ") as caught:
        Settings(memory_byte=5)

    assert all(name in caught.value.allowed for name in SPELT)
    assert caught.value.allowed.endswith("(did you mean 'memory_bytes'?)")


def test_unknown_argument_without_a_near_one():
    """Where nothing is near, there is no guess."""
    with pytest.raises(InvalidInput, match=r"^setting is 'zzz', but must be one of [^(]*$"):
        Settings(zzz=5)


def test_unknown_variable_lists_what_is_allowed(monkeypatch):
    """A misspelt variable is not dropped silently: it is an error that names the variable."""
    monkeypatch.setenv("TRADECACHE_DEFAULT_TLL", "60")

    with pytest.raises(InvalidInput, match=r"^setting is 'TRADECACHE_DEFAULT_TLL'") as caught:
        Settings()

    assert caught.value.allowed.endswith("(did you mean 'default_ttl'?)")


def test_other_variables_are_none_of_our_business(monkeypatch):
    """Variables without our prefix are left alone."""
    monkeypatch.setenv("MEMORY_BYTES", "5")
    monkeypatch.setenv("TRADE_CACHE_DIR", "/nowhere")

    assert Settings().memory_bytes == 256 * MIB


def test_settings_are_given_by_name():
    """A bare argument is a TypeError, not silently something else."""
    with pytest.raises(TypeError):
        Settings("/some/folder")


def test_home_and_relative_folders(monkeypatch, tmp_path):
    """`~` is the home folder, and a relative folder stays where it was when the process moves."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    assert Settings(cache_dir="~/prices").cache_dir == tmp_path / "prices"
    assert Settings(cache_dir="prices").cache_dir == tmp_path / "prices"
    assert Settings(cache_dir=Path("a/../b")).cache_dir == tmp_path / "a/../b"


def test_frozen():
    """A setting cannot be changed or deleted in place."""
    settings = Settings()

    with pytest.raises(ValidationError, match="frozen"):
        settings.retries = 5
    with pytest.raises(ValidationError, match="frozen"):
        del settings.retries


def test_copy_is_checked():
    """A copy with changes is checked as a new one is, and leaves the original alone."""
    settings = Settings(memory_bytes="1MiB", default_ttl=60)

    copy = settings.model_copy(update={"memory_bytes": "64MiB", "retries": 1})

    assert (copy.memory_bytes, copy.retries, copy.default_ttl) == (64 * MIB, 1, 60.0)
    assert (settings.memory_bytes, settings.retries) == (MIB, 3)
    assert settings.model_copy() == settings
    with pytest.raises(InvalidInput, match=r"^memory_bytes is 'much'"):
        settings.model_copy(update={"memory_bytes": "much"})
    with pytest.raises(InvalidInput, match=r"^setting is 'memory'"):
        settings.model_copy(update={"memory": 5})


def test_repr_shows_everything():
    """Repr and str show each setting with its value, and evaluate to the same settings."""
    settings = Settings(cache_dir="/prices", memory_bytes="64MiB", default_ttl=60)

    text = repr(settings)

    assert str(settings) == text
    assert [line.split("=")[0].strip() for line in text.splitlines()[1:-1]] == list(SPELT)
    assert eval(text, {"Settings": Settings, "PosixPath": Path, "WindowsPath": Path}) == settings
