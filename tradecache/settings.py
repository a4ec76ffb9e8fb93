"""Which knobs are there, what may they be set to, and where did the cache go?"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import BeforeValidator, ByteSize, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "TRADECACHE_"

Seconds = Annotated[float, Field(gt=0, le=1e11, allow_inf_nan=False)]
Bytes = Annotated[ByteSize, Field(gt=0)]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class Settings(BaseSettings):
    """Everything that can be set, with what it is unless you say otherwise.

    Arguments beat environment variables (`TRADECACHE_MEMORY_BYTES=1GiB`), which beat the defaults. Sizes
    are bytes and may carry a unit ("256MiB"); times are seconds. The object is frozen; make another one
    with `settings.model_copy(update=...)` or by calling `Settings` again.

    >>> Settings(memory_bytes="64MiB").memory_bytes
    67108864
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True)

    cache_dir: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("tradecache", appauthor=False)
    )
    """The folder that holds the durable tier; made with mode 0700 when it is first used."""
    memory_bytes: Bytes = Field(default=ByteSize(256 * 1024**2))
    """How many bytes of values the memory tier may hold."""
    memory_ttl: Seconds = 1800.0
    """How long the memory tier may keep a value without looking at the durable tier again."""
    disk_bytes: Bytes | None = None
    """How many bytes of entries the durable tier may hold (least recently used go first); None: no bound."""
    max_entry_bytes: Bytes | None = None
    """The largest entry that is accepted; None: no bound."""
    default_ttl: Seconds | None = None
    """Time to live of what is stored without one; None: for ever."""
    compression: Literal["none", "lz4", "zstd"] = "none"
    """How frames are compressed on disk. Uncompressed frames are memory-mapped, which is fastest."""
    sync: Literal["normal", "full"] = "normal"
    """What an acknowledged write survives: "normal" the death of the process, "full" a power loss too."""
    lock_wait: Seconds = 5.0
    """How long a write waits for other processes to let go of the ledger before it counts as a fault."""
    retries: Annotated[int, Field(ge=0, le=100)] = 3
    """How often a transient fault of the durable tier is tried again."""
    retry_delay: Seconds = 0.05
    """Seconds before the first retry; each later one waits twice as long."""
    retry_max_delay: Seconds = 2.0
    """The longest wait between two retries."""
    log_level: Annotated[LogLevel, BeforeValidator(_upper)] = "DEBUG"
    """The level at which each operation of the durable tier is logged; faults are always warnings."""

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, values: Any) -> Any:
        """Refuse a misspelt argument or environment variable, naming what would have been right."""
        if isinstance(values, Mapping):
            for name in values:
                _refuse_unknown(str(name), cls.model_fields)
        for variable in os.environ:
            if variable.upper().startswith(PREFIX):
                _refuse_unknown(variable[len(PREFIX) :].lower(), cls.model_fields, shown=variable)
        return values

    def __repr__(self) -> str:
        """Show every setting, one to a line."""
        lines = [f"  {name}={getattr(self, name)!r}," for name in type(self).model_fields]
        return "\n".join(["Settings(", *lines, ")"])

    __str__ = __repr__


def _refuse_unknown(name: str, known: Mapping[str, Any], shown: str | None = None) -> None:
    if name in known:
        return
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{shown or name!r} is no setting.{hint} Allowed: {', '.join(known)}")
