"""Which real servers do the tests start, on free loopback ports, and how are they killed and started again?"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Self

import psutil
import pytest

PATIENCE = 30  # seconds for a server to begin to answer
LOCAL = "127.0.0.1"


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind((LOCAL, 0))
        return one.getsockname()[1]


def binary(name: str) -> str:
    """Return the path of a server's program; skip the test where there is none."""
    postgres = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = str(postgres[-1]) if postgres else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: redis-server, postgresql, prometheus)")
    return found


class Server:
    """A process that listens on a port, in a folder of its own."""

    user: str | None = None

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self.options = options
        self.folder = Path(tempfile.mkdtemp(prefix="tradecache-server-"))
        self.process: subprocess.Popen | None = None

    def command(self) -> list[str]:
        """Return what is run."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Make what the server needs before its first start."""

    def start(self) -> Self:
        """Start it, and wait until it listens."""
        if self.process is None:
            self.prepare()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                stdout=log,
                stderr=log,
                user=self.user,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise AssertionError(
                    f"{self.command()[0]} did not start:\n{(self.folder / 'log').read_text()}"
                )
            time.sleep(0.02)
        return self

    def answers(self) -> bool:
        """Whether it listens."""
        with contextlib.suppress(OSError), socket.create_connection((LOCAL, self.port), timeout=1):
            return True
        return False

    def send(self, number: int) -> None:
        """Send a signal to all of its processes: SIGSTOP freezes it, SIGCONT lets it go on."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End it in this instant, as a power cut does."""
        self.send(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def stop(self) -> None:
        """End it, and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class RedisServer(Server):
    """Redis without persistence, unless its options say otherwise."""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://{LOCAL}:{self.port}/0"

    def command(self) -> list[str]:
        """Return what is run."""
        where = ["--port", str(self.port), "--bind", LOCAL, "--dir", str(self.folder)]
        return [binary("redis-server"), *where, "--save", "", "--appendonly", "no", *self.options]


class PostgresServer(Server):
    """PostgreSQL that trusts everybody who comes over the loopback, with one database, `postgres`."""

    def __init__(self, *options: str) -> None:
        super().__init__(*options)
        if os.geteuid() == 0:  # which PostgreSQL refuses to be
            self.user = "postgres"

    @property
    def url(self) -> str:
        """Where it is."""
        return f"postgresql://postgres@{LOCAL}:{self.port}/postgres"

    def prepare(self) -> None:
        """Make the data folder."""
        if self.user is not None:
            with contextlib.suppress(KeyError):
                os.chown(self.folder, pwd.getpwnam(self.user).pw_uid, -1)
        make = [binary("initdb"), "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(make, cwd=self.folder, check=True, capture_output=True, user=self.user)

    def command(self) -> list[str]:
        """Return what is run."""
        where = ["-D", "data", "-p", str(self.port), "-h", LOCAL, "-k", str(self.folder)]
        return [binary("postgres"), *where, "-c", "fsync=off", *self.options]

    def answers(self) -> bool:
        """Whether it takes connections: it listens before it does."""
        ready = [binary("pg_isready"), "-q", "-h", LOCAL, "-p", str(self.port)]
        return subprocess.run(ready, check=False).returncode == 0

    def send(self, number: int) -> None:
        """Send a signal to all of its processes, each of which leads a group of its own."""
        if self.process is not None and self.process.poll() is None:
            main = psutil.Process(self.process.pid)
            for each in [main, *main.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.send_signal(number)

    def run(self, sql: str) -> str:
        """Run SQL and return what it prints."""
        command = [binary("psql"), self.url, "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", sql]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


class PrometheusServer(Server):
    """Prometheus that scrapes one address each second."""

    def __init__(self, target: str, *options: str) -> None:
        super().__init__(*options)
        self.target = target

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{LOCAL}:{self.port}"

    def prepare(self) -> None:
        """Write its configuration."""
        job = f"[{{job_name: tradecache, static_configs: [{{targets: ['{self.target}']}}]}}]"
        text = f"global: {{scrape_interval: 1s}}\nscrape_configs: {job}\n"
        (self.folder / "prometheus.yml").write_text(text)

    def command(self) -> list[str]:
        """Return what is run."""
        where = [f"--web.listen-address={LOCAL}:{self.port}", "--config.file=prometheus.yml"]
        return [binary("prometheus"), *where, f"--storage.tsdb.path={self.folder}/data", *self.options]

    def answers(self) -> bool:
        """Whether it takes queries: it listens before it does."""
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=1):
            return True
        return False


class S3Server:
    """Moto's S3, in a thread of this process, with one bucket, `prices`."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(LOCAL, 0, verbose=False)

    @property
    def endpoint(self) -> str:
        """Where it is."""
        host, port = self._server.get_host_and_port()
        return f"http://{host}:{port}"

    @property
    def url(self) -> str:
        """The bucket, with what is needed to reach it."""
        keys = "aws_access_key_id=testing&aws_secret_access_key=testing"
        return f"s3://prices?region_name=us-east-1&endpoint_url={self.endpoint}&{keys}"

    def __enter__(self) -> Self:
        self._server.start()
        import boto3

        client = boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1",
            aws_access_key_id="testing", aws_secret_access_key="testing",
        )  # fmt: skip
        client.create_bucket(Bucket="prices")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
