"""Which knobs are there, what may they be set to, and where did the cache go?"""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import platformdirs
from pydantic import (
    BeforeValidator,
    ByteSize,
    Field,
    SecretStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tradecache.cards import settings_card
from tradecache.clock import MAX_TTL, SECOND
from tradecache.credentials import SecretKey, SecretURL, checked_key, checked_url
from tradecache.errors import InvalidInput

PREFIX = "TRADECACHE_"
MAX_BYTES = 2**63 - 1
THIRTY_DAYS = 30 * 86400.0
SHOULD = "Input should be "  # how pydantic begins to say what is allowed


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _seconds(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("seconds", SHOULD + "a positive number of seconds, or a timedelta")
    return value / SECOND if isinstance(value, timedelta) else value


def _kept(value: object) -> object:
    """Take True for thirty days, also as an environment variable spells it, and False for not at all."""
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower(), value)
    if isinstance(value, bool):
        return THIRTY_DAYS if value else None
    return value


def _bytes(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    try:
        return handler(None if isinstance(value, bool) else value)
    except ValidationError as error:
        allowed = 'a positive, whole number of bytes, such as 1000000, or a size, such as "256MiB"'
        raise PydanticCustomError("bytes", SHOULD + allowed) from error


def _folder(value: object) -> Path:
    if not isinstance(value, (str, Path)) or not str(value) or "\0" in str(value):
        raise PydanticCustomError("folder", SHOULD + "the path of a folder")
    return Path(value).expanduser().absolute()  # the same folder also after an `os.chdir`


REDIS = ("redis", "rediss", "valkey", "valkeys")


def _url(field: str, *schemes: str) -> BeforeValidator:
    return BeforeValidator(lambda value: None if value is None else checked_url(field, value, schemes))


def _keys(value: object) -> object:
    """Take one key, several, or several in a text with commas between them, as a variable spells them."""
    if value is None:
        return ()
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, str):
        value = [each.strip() for each in value.split(",")]
    return tuple(map(checked_key, value)) if isinstance(value, (list, tuple)) else (checked_key(value),)


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=MAX_TTL, allow_inf_nan=False)]
Bytes = Annotated[ByteSize, Field(gt=0, le=MAX_BYTES), WrapValidator(_bytes)]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class Settings(BaseSettings):
    """Everything that can be set, with what it is unless you say otherwise.

    Arguments beat environment variables (`TRADECACHE_MEMORY_BYTES=1GiB`), which beat the defaults. Sizes
    are bytes and may carry a unit ("256MiB"); times are seconds. The object is frozen; make another one
    with `settings.model_copy(update=...)` or by calling `Settings` again.

    Raises:
        InvalidInput: For a name that is no setting (listing those that are), and for a value that a setting
            cannot have (saying what it can).

    >>> Settings(memory_bytes="64MiB").memory_bytes
    67108864
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True)

    cache_dir: Annotated[Path, BeforeValidator(_folder)] = Field(
        default_factory=lambda: platformdirs.user_cache_path("tradecache", appauthor=False)
    )
    """The folder that holds the durable tier; made with mode 0700 when it is first used; ~ is your home."""
    memory_bytes: Bytes = Field(default=ByteSize(256 * 1024**2))
    """How many bytes of values the memory tier may hold."""
    memory_ttl: Seconds = 1800.0
    """How long the memory tier may keep a value without looking at the durable tier again."""
    disk_bytes: Bytes | None = None
    """How many bytes of frames the durable tier may hold (least recently used go first); None: no bound."""
    max_entry_bytes: Bytes | None = None
    """The largest entry that is accepted; None: no bound."""
    default_ttl: Seconds | None = None
    """Time to live of what is stored without one; None: for ever."""
    compression: Literal["none", "lz4", "zstd"] = "none"
    """How frames are compressed on disk. Uncompressed frames are memory-mapped, which is fastest."""
    sync: Literal["normal", "full"] = "normal"
    """What an acknowledged write survives: "normal" the death of the process, "full" a power loss too."""
    lock_wait: Seconds = 5.0
    """How long an operation waits for other processes to let go of the ledger before it counts as a fault."""
    retries: Annotated[int, Field(ge=0, le=100)] = 3
    """How often a transient fault of the durable tier is tried again."""
    retry_delay: Seconds = 0.05
    """Seconds before the first retry; each later one waits twice as long."""
    retry_max_delay: Seconds = 2.0
    """The longest wait between two retries."""
    keep_history: Annotated[Seconds | None, BeforeValidator(_kept)] = None
    """For how long counts of requests are kept in the folder, for `history()`: seconds, a timedelta, or True
    for thirty days; None: only while the process runs."""
    memory_url: Annotated[SecretURL | None, _url("memory_url", *REDIS)] = None
    """A Redis or Valkey server as the memory tier of price points, which several processes and machines share
    ("redis://host:6379/0"); frames stay in the memory of the process, too. None: only there."""
    team_url: Annotated[SecretURL | None, _url("team_url", *REDIS, "postgresql", "s3", "file")] = None
    """Where a team keeps final bars, which is asked before a source is ("redis://host/1",
    "postgresql://user@host/database", "s3://bucket", "file:///shared/folder"); None: nowhere."""
    archive_url: Annotated[SecretURL | None, _url("archive_url", "postgresql")] = None
    """A PostgreSQL database with a plain table of final bars, which is asked before a source is; None: none."""
    encryption_key: Annotated[tuple[SecretKey, ...], NoDecode, BeforeValidator(_keys)] = ()
    """The key with which everything is encrypted that leaves the process, but for the archive, which other programs
    read; of several the first one, and the others
    are for what was written before (`tradecache rekey`). Empty: nothing is."""
    hashed_names: bool = False
    """With a key: whether file names, collections and keys of servers show hashes instead of symbols."""
    budget_dir: Annotated[Path, BeforeValidator(_folder)] = Field(
        default_factory=lambda: platformdirs.user_cache_path("tradecache", appauthor=False) / "budgets"
    )
    """The folder in which all processes of a machine count their requests to each source, whatever their cache is."""
    log_level: Annotated[LogLevel, BeforeValidator(_upper)] = "DEBUG"
    """The level at which reads, writes and deletes by id on disk are logged; faults are always warnings."""

    if not TYPE_CHECKING:  # a type checker reads the signature off the fields

        def __init__(self, **values: Any) -> None:
            fault = None
            try:
                super().__init__(**values)
            except ValidationError as error:
                fault = _first_fault(error)
            if fault is not None:  # not from within, where its context would hold every value, keys too
                raise fault

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # noqa: ARG002 - pydantic's signature
        """Return other settings, with `update` checked as any argument is."""
        return type(self)(**(self.model_dump() | dict(update or {})))

    @model_validator(mode="after")
    def _hidden_with_a_key(self) -> Self:
        if self.hashed_names and not self.encryption_key:
            raise InvalidInput(
                "hashed_names", True, "False without an encryption_key, which the hashes are made with"
            )
        return self

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
        lines = [f"  {name}={getattr(self, name, '?')!r}," for name in type(self).model_fields]
        return "\n".join(["Settings(", *lines, ")"])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """Show every setting, and which ones are not as they are by default. It reads no file and cannot raise."""
        return settings_card(self)


def _refuse_unknown(name: str, known: Mapping[str, Any], shown: str | None = None) -> None:
    if name in known:
        return
    import difflib  # for a message

    close = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise InvalidInput("setting", shown or name, f"one of {', '.join(known)}{hint}")


def _first_fault(error: ValidationError) -> InvalidInput:
    fault: Any = error.errors()[0]
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, InvalidInput):
        return cause
    return InvalidInput(str(fault["loc"][0]), fault["input"], fault["msg"].removeprefix(SHOULD))
