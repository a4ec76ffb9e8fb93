"""What does a notebook need beyond the sync face?"""

import asyncio
import re
from typing import TYPE_CHECKING

from tradecache.bridge import loop_in_use
from tradecache.errors import MissingDependency, NestingRefused

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

OLDEST = (1, 7, 3)
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
    if _installed("nest-asyncio2") < OLDEST:
        raise MissingDependency(PACKAGE, "notebook")
    import nest_asyncio2

    loop = loop_in_use()
    if not isinstance(loop, asyncio.BaseEventLoop):  # asked before nest-asyncio2 patches what it then refuses
        raise NestingRefused(f"{type(loop).__module__}.{type(loop).__qualname__}")
    nest_asyncio2.apply()


def _installed(package: str) -> tuple[int, ...]:
    """Return the version of a package, () when it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return tuple(int(part) for part in re.findall(r"\d+", version(package))[:3])
    except PackageNotFoundError:
        return ()


def load_ipython_extension(ipython: "InteractiveShell") -> None:
    """Give a notebook `%tradecache`; this is what `%load_ext tradecache` calls."""
    from tradecache.magics import load

    load(ipython)


def unload_ipython_extension(ipython: "InteractiveShell") -> None:
    """Take `%tradecache` away again; this is what `%unload_ext tradecache` calls."""
    from tradecache.magics import unload

    unload(ipython)
