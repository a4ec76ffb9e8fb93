"""How is a Redis or Valkey server reached, so that it can neither hold anybody up nor end a program?"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tradecache.credentials import SecretURL
from tradecache.errors import InvalidInput, MissingDependency
from tradecache.servers import Connected, Connection

if TYPE_CHECKING:
    from redis.asyncio import Redis

PATIENCE = 0.25  # seconds for an answer, or a connection; a healthy server takes a thousandth of it
SCHEMES = {"valkey": "redis", "valkeys": "rediss"}  # redis-py knows the server by its older name only
CONNECTIONS = 32  # for more at once wait for one; the client's own pool would raise


def redis_client(url: SecretURL, *, patience: float = PATIENCE, connections: int = CONNECTIONS) -> "Redis":
    """Return a client of redis-py for a URL `redis://`, `rediss://`, `valkey://` or `valkeys://`.

    It connects when it is first asked something, never tries again by itself, and gives up after `patience` seconds.

    Raises:
        MissingDependency: Without the extra `redis`.
        InvalidInput: For a URL that redis-py does not take.
    """
    try:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as error:
        raise MissingDependency("redis", "redis") from error
    options: dict[str, Any] = {
        "protocol": 2,  # which older servers speak, too
        "max_connections": connections,
        "timeout": None,  # for a free connection: those before us have a limit of their own
        "socket_timeout": patience,
        "socket_connect_timeout": patience,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": True,
    }
    text = url.get_secret_value()
    text = SCHEMES.get(url.scheme, url.scheme) + text[len(url.scheme) :]
    pool, fault = None, ""
    try:
        int(urlsplit(text).path.strip("/") or 0)  # else redis-py would take database 0
        pool = BlockingConnectionPool.from_url(text, **options)
        pool.make_connection()  # type: ignore[no-untyped-call]  # looks at the options, and does not connect
    except (TypeError, ValueError) as error:
        fault = type(error).__name__  # whose words might show a password, as its context would
    if pool is None or fault:
        raise InvalidInput(
            "url", str(url), f"a URL that redis-py takes, with a number as its database ({fault})"
        )
    return Redis.from_pool(pool)


def redis_faults() -> tuple[type[Exception], ...]:
    """Return what redis-py raises where trying again may help: its errors are not the built-in ones."""
    from redis import exceptions

    return exceptions.ConnectionError, exceptions.TimeoutError, ConnectionError, TimeoutError


def redis_errors() -> tuple[type[Exception], ...]:
    """Return everything that redis-py raises when a server does not do as it is asked."""
    from redis.exceptions import RedisError

    return RedisError, OSError


def redis_store(client: Callable[[], "Redis"]) -> Connected:
    """Return py-key-value's store on a server, with clients made by `client`."""
    from tradecache.redisstore import QuickRedisStore

    def connect() -> Connection:
        one = client()
        return Connection(QuickRedisStore(client=one), one.aclose)

    return Connected(connect)
