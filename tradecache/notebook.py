"""What does a notebook need beyond the sync face?"""

import asyncio
from importlib.metadata import PackageNotFoundError, version

from tradecache.errors import MissingDependency, NestingRefused

PACKAGE = "nest-asyncio2>=1.7.3"


def allow_nested_run() -> None:
    """Let cells call `asyncio.run(main())` although Jupyter's own loop is running.

    For code that was pasted from a script. It patches asyncio for the whole kernel (with nest-asyncio2,
    the maintained successor of nest-asyncio, which loses queued cells), so it is never done for you.
    tradecache does not need it: `TradeCache` works in any cell, and `await` works at the top of one.

    Raises:
        MissingDependency: When nest-asyncio2 1.7.3 or later is not installed.
        NestingRefused: When the running loop is not asyncio's own (uvloop, for one).
    """
    try:
        found = tuple(int(part) for part in version("nest-asyncio2").split(".")[:3])
    except PackageNotFoundError as error:
        raise MissingDependency(PACKAGE, "notebook") from error
    if found < (1, 7, 3):
        raise MissingDependency(PACKAGE, "notebook")
    import nest_asyncio2

    try:
        nest_asyncio2.apply()
    except ValueError as error:
        raise NestingRefused(_loop_name()) from error


def _loop_name() -> str:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return "the event loop policy in use"
    return f"{type(loop).__module__}.{type(loop).__qualname__}"
