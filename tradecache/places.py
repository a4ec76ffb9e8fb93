"""Which shared places of final bars do settings name, and what do they stand on?"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from key_value.aio.protocols.key_value import AsyncKeyValue

from tradecache.bridge import PerLoop
from tradecache.claims import KeyClaims, RedisClaims
from tradecache.clock import Clock
from tradecache.credentials import SecretURL
from tradecache.errors import InvalidInput, MissingDependency
from tradecache.framecodec import FrameCodec
from tradecache.redisclient import redis_client, redis_faults, redis_store
from tradecache.servers import Connected, Connection
from tradecache.settings import Settings
from tradecache.shelving import PATIENCE, Place, Shelving
from tradecache.stack import keyring_of, sealed_by
from tradecache.stores.local import LocalStore
from tradecache.stores.safenames import PREFIX, SafeNames
from tradecache.team import Team
from tradecache.wrappers import TRANSIENT, Retry, SizeLimit

if TYPE_CHECKING:
    from redis.asyncio import Redis

LARGE_PATIENCE = 2.0  # seconds for an answer of a server that holds frames
S3_OPTIONS = (
    "region_name",
    "endpoint_url",
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
)
TABLE = "tradecache_team"
LONGEST_NAME = 100


def shelving_of(settings: Settings, *, clock: Clock, team: AsyncKeyValue | None = None) -> Shelving:
    """Return the shelves that `settings` name, the team's (or `team`, a store that was passed in) before the archive.

    Raises:
        InvalidInput: For a URL that names nothing.
        MissingDependency: Without the extra that a URL needs.
    """
    places = []
    if team is not None:
        places.append(_team(team, settings, clock=clock, name=f"the team's {type(team).__name__}"))
    elif settings.team_url is not None:
        places.append(_team_at(settings.team_url, settings, clock=clock))
    if settings.archive_url is not None:
        places.append(_archive(settings.archive_url))
    return Shelving(places)


def _archive(url: SecretURL) -> Place:
    from tradecache.archive import Archive
    from tradecache.database import driver

    driver()  # which tells what has to be installed
    return Place("archive", Archive(url, name=f"the archive at {url}"[:LONGEST_NAME], timeout=PATIENCE))


def _team_at(url: SecretURL, settings: Settings, *, clock: Clock) -> Place:
    """Return the team's shelf at a URL."""
    name = f"the team's store at {url}"
    match url.scheme:
        case "postgresql":
            return _anew(
                _team_on(
                    Connected(_postgresql(url)), settings, clock=clock, name=name, faults=_asyncpg_faults()
                )
            )
        case "s3":
            return _anew(
                _team_on(Connected(_s3(url)), settings, clock=clock, name=name, faults=_botocore_faults())
            )
        case "file":
            store = LocalStore(Path(unquote(urlsplit(url.get_secret_value()).path)), clock=clock)
            return _team(store, settings, clock=clock, name=name)._replace(close=partial(_closed, store))
    return _team_on_redis(url, settings, clock=clock, name=name)


def _team_on_redis(url: SecretURL, settings: Settings, *, clock: Clock, name: str) -> Place:
    redis_client(url)  # which refuses what is no URL of a server
    clients: PerLoop[Redis] = PerLoop(partial(redis_client, url, patience=LARGE_PATIENCE))
    clients_of = clients.here
    server = redis_store(clients_of)
    place = _team_on(server, settings, clock=clock, name=name, faults=redis_faults())
    return place._replace(claims=RedisClaims(clients_of, prefix=f"{PREFIX}claims::"))


def _team_on(
    server: Connected, settings: Settings, *, clock: Clock, name: str, faults: tuple[type[Exception], ...]
) -> Place:
    place = _team(server, settings, clock=clock, name=name, faults=faults)
    return place._replace(close=server.close)


def _team(
    store: AsyncKeyValue,
    settings: Settings,
    *,
    clock: Clock,
    name: str,
    faults: tuple[type[Exception], ...] = (),
) -> Place:
    """Return a team's shelf in any store, whose client raises `faults` for reasons that may pass."""
    again = Retry(
        store,
        is_quiet=True,
        max_retries=settings.retries,
        initial_delay=settings.retry_delay,
        max_delay=settings.retry_max_delay,
        retry_on=(*TRANSIENT, *faults),
    )
    limited: AsyncKeyValue = again
    if settings.max_entry_bytes:
        limited = SizeLimit(again, max_size=settings.max_entry_bytes)
    named = SafeNames(limited)
    ring = keyring_of(settings)
    coded = FrameCodec(named, ring=ring)
    if ring is None:
        return Place("team", Team(coded, name=name), KeyClaims(named))
    sealed = sealed_by(coded, settings, clock=clock, ring=ring, with_frames=True)
    return Place("team", Team(sealed, name=name), KeyClaims(named), called=sealed.hidden)


def _anew(place: Place) -> Place:
    """Return a place that is connected to anew after a fault: its store is of no use any more then."""
    return place._replace(renew=place.close)


async def _closed(store: LocalStore) -> None:
    store.close()


def _postgresql(url: SecretURL) -> Callable[[], Connection]:
    try:
        from key_value.aio.stores.postgresql import PostgreSQLStore
    except ImportError as error:
        raise MissingDependency("asyncpg", "postgresql") from error

    logging.getLogger("asyncpg").addHandler(logging.NullHandler())  # else it prints what we warn of

    def connect() -> Connection:
        with _stability_known():
            store = PostgreSQLStore(url=url.get_secret_value(), table_name=TABLE)
        return Connection(store, store.close)

    return connect


def _s3(url: SecretURL) -> Callable[[], Connection]:
    """Return what makes a store in a bucket: `s3://bucket?region_name=...&endpoint_url=...`."""
    try:
        from key_value.aio.stores.s3 import S3Store
    except ImportError as error:
        raise MissingDependency("aiobotocore", "s3") from error
    parts = urlsplit(url.get_secret_value())
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    unknown = [name for name in options if name not in S3_OPTIONS]
    if unknown or parts.path.strip("/") or "@" in parts.netloc:
        wrong = unknown[0] if unknown else parts.path or "***@"
        raise InvalidInput("team_url", wrong, f"s3://bucket, and in its query only {', '.join(S3_OPTIONS)}")

    def connect() -> Connection:
        with _stability_known():
            store = S3Store(bucket_name=parts.netloc, **options)
        return Connection(store, store.close)

    return connect


@contextmanager
def _stability_known() -> Iterator[None]:
    """Make a store whose format may change with py-key-value, which is pinned, without a warning each time."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A configured store is unstable", UserWarning)
        yield


def _asyncpg_faults() -> tuple[type[Exception], ...]:
    import asyncpg

    return asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.CannotConnectNowError


def _botocore_faults() -> tuple[type[Exception], ...]:
    from botocore.exceptions import ConnectionError as NoConnection
    from botocore.exceptions import HTTPClientError

    return NoConnection, HTTPClientError
