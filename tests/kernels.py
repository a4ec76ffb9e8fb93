"""How does a test run the cells of a notebook, all queued at once, in a real Jupyter kernel?"""

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from scripts import environment

PATIENCE = 60  # seconds that one cell may take


class Cell(NamedTuple):
    """What came of one cell."""

    status: str
    """"ok", "error" or "aborted"."""
    printed: str
    shown: dict[str, Any]
    """The last value, by MIME type."""
    error: str
    """The error's class, "" when there was none."""


class Kernel:
    """A running kernel that does what "Run All" and the stop button do."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self._manager = manager
        self._client = client

    def run_all(self, *cells: str) -> list[Cell]:
        """Queue every cell before the first answer is read; return what came of each."""
        return self.outcomes(self.queue(*cells))

    def queue(self, *cells: str) -> list[str]:
        """Send cells; return the ids of their requests."""
        return [self._client.execute(cell, stop_on_error=False) for cell in cells]

    def outcomes(self, requests: Sequence[str]) -> list[Cell]:
        """Wait for the cells of some requests."""
        statuses: dict[str, str] = {}
        while len(statuses) < len(requests):
            reply = self._client.get_shell_msg(timeout=PATIENCE)
            statuses[reply["parent_header"]["msg_id"]] = reply["content"]["status"]
        said: dict[str, list[tuple[str, dict[str, Any]]]] = {request: [] for request in requests}
        idle: set[str] = set()
        while idle < set(requests):
            request, kind, content = self.hear()
            if kind == "status" and content["execution_state"] == "idle":
                idle.add(request)
            elif request in said:
                said[request].append((kind, content))
        return [_cell(statuses[request], said[request]) for request in requests]

    def wait_until_printed(self, text: str) -> None:
        """Wait until a running cell has printed something."""
        printed = ""
        while text not in printed:
            _, kind, content = self.hear()
            printed += content["text"] if kind == "stream" else ""

    def wait_until_heard(self, kind: str) -> dict[str, Any]:
        """Wait for a message of some kind, from whatever thread of the kernel; return its content."""
        while True:
            _, heard, content = self.hear()
            if heard == kind:
                return content

    def interrupt(self) -> None:
        """Press the stop button."""
        self._manager.interrupt_kernel()

    def restart(self) -> None:
        """Restart the kernel: what it had in memory is gone."""
        self._manager.restart_kernel(now=True)
        self._client.wait_for_ready(timeout=PATIENCE)

    def hear(self) -> tuple[str, str, dict[str, Any]]:
        """Wait for the next message; return which request it belongs to, its kind and its content."""
        message = self._client.get_iopub_msg(timeout=PATIENCE)
        return message["parent_header"].get("msg_id", ""), message["msg_type"], message["content"]


@contextlib.contextmanager
def running_kernel(folder: Path, *options: str, **variables: str) -> Iterator[Kernel]:
    """Start an ipykernel of this interpreter from a kernel spec in `folder`; shut it down in the end."""
    spec = folder / "kernels" / "tested"
    spec.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", *options]
    (spec / "kernel.json").write_text(
        json.dumps({"argv": command, "display_name": "tested", "language": "python"})
    )
    manager = KernelManager(
        kernel_name="tested",
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(folder / "kernels")]),
        connection_file=str(folder / "connection.json"),
    )
    home = {
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    manager.start_kernel(cwd=str(folder), env=environment(home | variables))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _cell(status: str, said: Sequence[tuple[str, dict[str, Any]]]) -> Cell:
    printed = "".join(content["text"] for kind, content in said if kind == "stream")
    shown = [content["data"] for kind, content in said if kind == "execute_result"]
    errors = [content["ename"] for kind, content in said if kind == "error"]
    return Cell(status, printed, (shown or [{}])[-1], (errors or [""])[-1])
