"""How does a test run a script in an interpreter of its own, and hear what it says?"""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tradecache

HERE = Path(__file__).parent
PATIENCE = 60  # seconds until a script that hangs is killed


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child: no settings of the user's, and the modules beside this one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRADECACHE_")}
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), **(changes or {})}


def run_command(
    command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, **options: Any
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, whatever its end is."""
    return subprocess.run(
        command, cwd=cwd, env=environment(env), text=True, capture_output=True, timeout=PATIENCE,
        check=False, stdin=subprocess.DEVNULL, **options,
    )  # fmt: skip


def run_script(
    code: str, *arguments: object, flags: Sequence[str] = (), **options: Any
) -> "subprocess.CompletedProcess[str]":
    """Run Python code to its end, whatever its end is."""
    command = [sys.executable, *flags, "-c", textwrap.dedent(code), *map(str, arguments)]
    return run_command(command, **options)


def without_package(name: str, folder: Path) -> dict[str, Any]:
    """Return the options of `run_script` that hide one installed package, and what is known of it."""
    for path in map(Path, sys.path):
        if path.name.endswith("-packages"):
            for entry in path.iterdir():
                if not entry.name.startswith(name) and not (folder / entry.name).exists():
                    (folder / entry.name).symlink_to(entry)
    paths = [str(HERE), str(Path(tradecache.__file__).parents[1]), str(folder)]
    return {"flags": ["-S"], "env": {"PYTHONPATH": os.pathsep.join(paths)}}


def answer(code: str, *arguments: object, **options: Any) -> Any:
    """Run Python code that prints one JSON value; return that. It may complain of nothing."""
    done = run_script(code, *arguments, **options)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


def start_script(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """Start Python code that is to be signalled while it runs; it says when."""
    return subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(code), *map(str, arguments)],
        env=environment(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def end_of(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Close the input of a started script and wait for it.

    Returns:
        Its exit code, what it had still to say, and what it complained of.
    """
    try:
        said, complaints = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, said, complaints
