"""How does a test drive JupyterLab in a real browser?"""

import contextlib
import json
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Error, Locator, Page, sync_playwright
from scripts import environment

PATIENCE = 90_000  # milliseconds that a notebook may take
TRIES = 20
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


class Lab:
    """A notebook that is open in JupyterLab."""

    def __init__(self, page: Page) -> None:
        self.page = page

    @property
    def cells(self) -> Locator:
        """The code cells."""
        return self.page.locator(".jp-CodeCell")

    def command(self, menu: str, item: str) -> None:
        """Choose an item of a menu."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{menu}$")).click()
        self.page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{item}$")).click()

    def wait_until_idle(self) -> None:
        """Wait until no cell is running or queued."""
        self.page.wait_for_function(
            "() => ![...document.querySelectorAll('.jp-InputArea-prompt')].some(p => p.textContent.includes('[*]'))",
            timeout=PATIENCE,
        )

    def scroll_through(self) -> None:
        """Show every cell once: those far from sight are not drawn before."""
        for n in range(self.cells.count()):
            self.show(self.cells.nth(n))

    def show(self, place: Locator) -> None:
        """Scroll to a place, and look for it again where JupyterLab has drawn it anew meanwhile."""
        for _ in range(TRIES):
            with contextlib.suppress(Error):
                place.evaluate("found => found.scrollIntoView({block: 'center'})")
                return
            self.page.wait_for_timeout(100)
        place.scroll_into_view_if_needed()

    def save(self) -> None:
        """Save the notebook, and wait until it is."""
        self.command("File", "Save Notebook")
        self.page.wait_for_function("() => !document.querySelector('.lm-TabBar-tab.jp-mod-dirty')")


@contextlib.contextmanager
def open_lab(folder: Path, notebook: str) -> Iterator[Lab]:
    """Start JupyterLab on a folder and open one of its notebooks in Chromium; end both in the end."""
    with _server(folder) as (url, token), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        try:
            page = browser.new_page(viewport={"width": 1300, "height": 1000})
            page.goto(f"{url}/lab/tree/{notebook}?token={token}&reset")
            page.locator(".jp-CodeCell").first.wait_for(timeout=PATIENCE)
            page.locator("#jp-main-statusbar", has_text="| Idle").wait_for(timeout=PATIENCE)
            yield Lab(page)
        finally:
            browser.close()


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[tuple[str, str]]:
    token, home = secrets.token_hex(16), folder / ".jupyter"
    (home / "labconfig").mkdir(parents=True)
    silent = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (home / "labconfig" / "page_config.json").write_text(json.dumps(silent))
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}",
    ]  # fmt: skip
    homes = {
        name: str(home)
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTER_DATA_DIR")
    }
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment(homes), stdout=log, stderr=log)
    try:
        yield _address(home, server), token
    finally:
        server.terminate()
        server.wait(30)


def _address(home: Path, server: "subprocess.Popen[bytes]") -> str:
    """Wait until the server has said where it is."""
    for _ in range(600):
        for found in home.glob("jpserver-*.json"):
            with contextlib.suppress(json.JSONDecodeError):
                facts: dict[str, Any] = json.loads(found.read_text())
                return f"http://127.0.0.1:{facts['port']}"
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(0.1)
            break
    raise RuntimeError((home / "log").read_text())
