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


def write_frame(frame: pd.DataFrame, path: Path) -> Path:
    """Write `frame` to `path` in the format of its suffix; an old file stays whole until the new one is.

    Returns:
        The path.

    Raises:
        InvalidInput: For a suffix other than .parquet, .csv and .feather.
        OSError: When the file cannot be written.
    """
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise InvalidInput("path", str(path), f"a file name that ends in {', '.join(WRITERS)}")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        writer(frame, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
