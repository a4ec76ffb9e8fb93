import ast
import json
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xxhash
from loops import run
from servants import frame_of

import tradecache
from tradecache import NotStorable, TradeCache
from tradecache.stores.ledger import PUT, Row, row_checksum

FORBIDDEN = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
SAYS_SO = ("read_pickle", "to_pickle", "allow_pickle=True", "eval(", "exec(")


class Bomb:
    """What makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path):
    """Where the bomb would leave its mark; it must not, but could."""
    marker = tmp_path / "executed"
    yield marker
    assert not marker.exists()
    pickle.loads(pickle.dumps(Bomb(marker)))
    assert marker.exists()


@pytest.fixture
def bomb(marker):
    return pickle.dumps(Bomb(marker))


def use_everything(folder):
    """Read, list, check and tidy a folder in every way there is; none of them is an error."""
    with TradeCache(folder) as cache:
        for call in (
            cache.prices,
            cache.latest,
            cache.info,
            lambda: cache.warm("AAPL", progress=False),
            lambda: cache.get_price("AAPL", "key"),
            lambda: cache.get_latest_price("AAPL"),
            lambda: run(cache.core.stack.frames.get("key", collection="bars/x")),
            lambda: run(cache.core.stack.frames.ttl("key", collection="bars/x")),
            lambda: run(cache.core.stack.durable.scan("bars/x")),
            lambda: cache.export(folder.parent / "prices.csv"),
            cache.verify,
            cache.verify,
            cache.purge,
            lambda: cache.delete_price("AAPL", "key"),
            lambda: run(cache.core.stack.frames.delete("key", collection="bars/x")),
            cache.purge,
        ):
            call()


def is_missing(folder, collection):
    """Whether what was entered in a collection is a miss, in a copy of the folder as it is."""
    copy = shutil.copytree(folder, folder.with_name("copy"))
    with TradeCache(copy) as cache:
        return run(cache.core.stack.durable.get("key", collection=collection)) is None


def stored(folder):
    """Store one point and one frame under the names that `use_everything` asks for."""
    with TradeCache(folder) as cache:
        cache.store_price("AAPL", 1, 1)
        run(cache.core.stack.durable.put("key", {"n": 1}, collection="symbol:AAPL"))
        run(cache.core.stack.durable.put("key", {"frame": frame_of(1)}, collection="bars/x"))
    (path,) = folder.glob("bars/x/*.arrow")
    return path


def enter(folder, collection, value, *, path=None, content=b""):
    """Enter a row with checksums that fit, as somebody would who knows how."""
    payload = xxhash.xxh3_64_intdigest(content) - 2**63 if path else None
    size = len(value) + len(content)
    checksum = row_checksum(collection, "key", 1, None, value, path, payload)
    with closing(sqlite3.connect(folder / "ledger-1.db", isolation_level=None)) as ledger:
        ledger.execute(PUT, Row(collection, "key", 1, None, 1, size, checksum, value, path, payload))


def test_pickle_in_place_of_a_payload(tmp_path, bomb):
    """A pickle where a payload was is a damaged payload."""
    path = stored(tmp_path / "cache")
    path.write_bytes(bomb)
    assert is_missing(tmp_path / "cache", "bars/x")
    use_everything(tmp_path / "cache")


def test_pickle_as_a_payload_that_the_ledger_vouches_for(tmp_path, bomb):
    """A pickle that has the size and the checksum of its row is no Arrow file, and a miss."""
    path = stored(tmp_path / "cache")
    path.write_bytes(bomb)
    enter(tmp_path / "cache", "bars/x", b"{}", path=f"bars/x/{path.name}", content=bomb)
    assert is_missing(tmp_path / "cache", "bars/x")
    use_everything(tmp_path / "cache")


@pytest.mark.parametrize("collection", ["symbol:AAPL", "bars/x"])
def test_pickle_as_a_value_in_the_ledger(tmp_path, bomb, collection):
    """A pickle in the place of JSON, with a checksum that fits, is a miss."""
    stored(tmp_path / "cache")
    enter(tmp_path / "cache", collection, bomb)
    assert is_missing(tmp_path / "cache", collection)
    use_everything(tmp_path / "cache")


def test_pickles_lying_about(tmp_path, bomb):
    """Pickles under any name in the folder, quarantine/ too, are never looked into."""
    folder = tmp_path / "cache"
    stored(folder)
    (folder / "quarantine").mkdir()
    for name in ("x.pkl", "x.arrow", ".x.arrow.tmp", "cache.db", "changes", "quarantine/x.arrow"):
        (folder / name).write_bytes(bomb)
    (folder / "bars/x/key.0123456789abcdef.arrow").write_bytes(bomb)
    use_everything(folder)


def test_pickle_in_place_of_the_ledger(tmp_path, bomb):
    """A pickle where the ledger was is a damaged ledger."""
    stored(tmp_path / "cache")
    (tmp_path / "cache" / "ledger-1.db").write_bytes(bomb)
    use_everything(tmp_path / "cache")


def arrow_file(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def described(columns, **changes):
    """Return a table with what pandas notes of its one column, some of that changed."""
    about = json.loads(pa.Table.from_pandas(pd.DataFrame({"close": [1.0]})).schema.metadata[b"pandas"])
    about["columns"][0].update(changes)
    return pa.table(columns).replace_schema_metadata({"pandas": json.dumps(about)})


def extension(bomb):
    marks = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": bomb}
    return pa.table({"close": [b"x"]}, schema=pa.schema([pa.field("close", pa.binary(), metadata=marks)]))


PLAIN = {"close": [1.0, 2.0]}
TABLES = {
    "objects": lambda bomb: described({"close": [bomb]}, pandas_type="object", numpy_type="object"),
    "metadata": lambda bomb: pa.table(PLAIN).replace_schema_metadata({"pandas": bomb}),
    "no object": lambda bomb: pa.table(PLAIN).replace_schema_metadata({"pandas": b"[1, 2]"}),
    "type": lambda bomb: described(
        PLAIN, pandas_type=bomb.decode("latin-1"), numpy_type=bomb.decode("latin-1")
    ),
    "type of a module": lambda bomb: described(PLAIN, pandas_type="os.system", numpy_type="os.system"),
    "metadata of a column": lambda bomb: described(PLAIN, metadata={"pickle": bomb.decode("latin-1")}),
    "Python's extension type": extension,
}


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_pickle_inside_an_arrow_file(tmp_path, bomb, make):
    """A pickle in the columns, the types or the metadata of a real Arrow file is bytes, and stays that."""
    folder = tmp_path / "cache"
    path = stored(folder)
    content = arrow_file(make(bomb))
    path.write_bytes(content)
    enter(folder, "bars/x", b"{}", path=f"bars/x/{path.name}", content=content)
    use_everything(folder)


@pytest.mark.parametrize("value", [Bomb, object(), np.int64(1), {1, 2}, b"bytes", lambda: None])
def test_objects_are_refused(tmp_path, value):
    """What is neither JSON nor a frame cannot be stored at all, as a value or in the columns of a frame."""
    with TradeCache(tmp_path) as cache:
        store = cache.core.stack.durable
        for each in ({"x": value}, {"x": [value]}, {"frame": {"x": value}}):
            with pytest.raises(NotStorable):
                run(store.put("key", each, collection="any"))
        if not isinstance(value, (bytes, np.int64)):
            with pytest.raises(NotStorable):
                run(store.put("key", {"frame": pd.DataFrame({"x": [value]})}, collection="any"))
        assert run(store.keys("any")) == []


def sources():
    return sorted(Path(tradecache.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_no_module_can_unpickle(path):
    """No module of the package imports anything that unpickles, nor names a function that does."""
    text = path.read_text(encoding="utf-8")
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module.split(".")[0], *(alias.name for alias in node.names)}
    assert imported & FORBIDDEN == set()
    assert [word for word in SAYS_SO if word in text] == []


def test_no_unpickling_while_everything_is_used(tmp_path, bomb):
    """In a process whose unpickler is trapped, all of it can be used."""
    path = stored(tmp_path / "cache")
    path.write_bytes(bomb)
    code = """
import sys, pathlib

def trap(event, arguments):
    if event == "pickle.find_class":
        sys.stderr.write(f"unpickled {arguments}")
        raise SystemExit(3)

import test_pickle
sys.addaudithook(trap)
test_pickle.use_everything(pathlib.Path(sys.argv[1]))
"""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "cache")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
