"""How does a frame become a file that other tools read?"""

import secrets
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from tradecache.errors import InvalidInput

WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".parquet": lambda frame, path: frame.to_parquet(path, engine="pyarrow"),
    ".csv": lambda frame, path: frame.to_csv(path),
    ".feather": lambda frame, path: frame.reset_index().to_feather(path),
}


def checked_path(path: object) -> Path:
    """Return where to write, with ~ as the home folder.

    Raises:
        InvalidInput: For a suffix other than .parquet, .csv and .feather.
    """
    chosen = Path(path) if isinstance(path, (str, Path)) else Path()
    if chosen.suffix.lower() not in WRITERS or "\0" in str(chosen):
        raise InvalidInput("path", path, f"the path of a file that ends in {', '.join(WRITERS)}")
    return chosen.expanduser()


def write_frame(frame: pd.DataFrame, path: Path) -> Path:
    """Write `frame` to `path` in the format of its suffix; an old file stays whole until the new one is.

    Returns:
        The path.

    Raises:
        InvalidInput: For a suffix other than .parquet, .csv and .feather.
        OSError: When the file cannot be written.
    """
    path = checked_path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        WRITERS[path.suffix.lower()](frame, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
