"""How is a Redis or Valkey server reached, so that it can neither hold anybody up nor end a program?"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tradecache.credentials import SecretURL
from tradecache.errors import InvalidInput, MissingDependency
from tradecache.servers import Connected, Connection

if TYPE_CHECKING:
    from redis.asyncio import Redis

PATIENCE = (
    0.5  # seconds for an answer, or a connection; a healthy server takes a thousandth, a busy process some
)
SCHEMES = {"valkey": "redis", "valkeys": "rediss"}  # redis-py knows the server by its older name only
CONNECTIONS = 32  # for more at once wait for one; the client's own pool would raise


class Runs:
    """Which run of a server was connected to last: another one may have come back with what it had long before.

    Attributes:
        last: The run's id, as the server gives it; "" before the first connection, and where it is not told.
    """

    def __init__(self) -> None:
        self.last = ""

    async def look(self, connection: Any) -> None:
        """Connect as redis-py does, and ask which run it is."""
        from redis.exceptions import ResponseError

        await connection.on_connect()
        try:
            await connection.send_command("INFO", "server")
            text = str(await connection.read_response())
        except ResponseError:  # who may not ask
            return
        found = (line.partition(":")[2] for line in text.splitlines() if line.startswith("run_id:"))
        self.last = next(found, "")


def redis_client(
    url: SecretURL,
    *,
    patience: float = PATIENCE,
    connections: int = CONNECTIONS,
    runs: Runs | None = None,
) -> "Redis":
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
        "timeout": 4 * patience,  # for a free connection: many who ask at once are no outage
        "socket_timeout": patience,
        "socket_connect_timeout": patience,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": True,
    }
    if runs is not None:
        options["redis_connect_func"] = runs.look
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


def redis_lost() -> tuple[type[Exception], ...]:
    """Return what redis-py raises where a connection was lost, as after a restart: another one may do at once."""
    from redis import exceptions

    return exceptions.ConnectionError, ConnectionError


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
