"""How are the figures of a benchmark told: as a table, as JSON, as a file to compare with later?"""

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd


def tell(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    chosen: argparse.Namespace,
    *,
    digits: int,
    width: int,
    **more: Any,
) -> None:
    """Print figures as a table, or as JSON; with --save keep them as JSON, too.

    Args:
        name: Of the benchmark.
        rows: The figures.
        chosen: The command line: rounds, json, save.
        digits: After the point, in the table.
        width: Of the table, in characters.
        **more: What else the JSON says of how they came about.
    """
    result = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        **more,
        "rounds": chosen.rounds,
        "figures": list(rows),
    }
    if chosen.save:
        path = Path(__file__).parent / "results" / f"{result['date']}-{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")
    if chosen.json:
        print(json.dumps(result, indent=2))
        return
    with pd.option_context("display.width", width, "display.max_colwidth", 80):
        print(pd.DataFrame(list(rows)).round(digits).to_string(index=False, na_rep=""))
