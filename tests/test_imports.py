import ast
import inspect
import re
from pathlib import Path

import pytest
from scripts import answer

import tradecache
from tradecache import errors

PACKAGE = Path(tradecache.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOMS = [path for path in MODULES if path.name != "__init__.py"]
PICTURE = re.compile(r"## The house in one picture.*?```\n(.*?)```", re.DOTALL)
HEAVY = [
    "IPython",
    "anywidget",
    "bokeh_sampledata",
    "ccxt",
    "diskcache",
    "exchange_calendars",
    "ipywidgets",
    "matplotlib",
    "nest_asyncio2",
    "prometheus_client",
    "tqdm",
    "uvloop",
    "yfinance",
]
ONLY_IN_BRIDGE = {
    "Thread",
    "ThreadPoolExecutor",
    "call_soon_threadsafe",
    "get_event_loop",
    "new_event_loop",
    "run_coroutine_threadsafe",
    "run_forever",
    "run_until_complete",
    "set_event_loop",
}


def name_of(path):
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def imported_by(path):
    """Return the modules of the package that a module imports, also within its functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    rooms = {"tradecache." + name_of(room).replace("/", "."): name_of(room) for room in ROOMS}
    return sorted(rooms[name] for name in names & set(rooms))


def picture():
    """Return the row of CONTRIBUTING.md's picture in which each module is drawn, from the top."""
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = PICTURE.search(text)[1].splitlines()
    return {name: row for row, line in enumerate(lines) for name in re.findall(r"(\w+)\.py", line)}


def test_import_is_light(tmp_path):
    """`import tradecache` loads no plots, notebooks, calendars or providers, and writes nothing anywhere."""
    code = f"""
        import json, sys
        import tradecache
        print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
    """
    home = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TMPDIR")}
    assert answer(code, cwd=tmp_path, env=home | {"PYTHONDONTWRITEBYTECODE": "1"}) == []
    assert list(tmp_path.iterdir()) == []


def test_all_is_sorted_and_complete():
    """`__all__` lists what the package hands out, every error among it, in order."""
    public = {
        name
        for name, value in vars(tradecache).items()
        if not (name.startswith("_") or inspect.ismodule(value))
    }
    tree = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert tradecache.__all__ == sorted(public)
    assert tree <= public


def test_public_rooms_are_there_when_they_are_named(tmp_path):
    """`tc.freshness` and `tc.sources` need no import of their own, and cost nothing until then."""
    code = """
        import json, sys
        import tradecache as tc
        before = [name for name in sys.modules if name in ("tradecache.freshness", "tradecache.sources")]
        print(json.dumps([before, tc.freshness.FixedTTL.__name__, tc.sources.__name__, "bridge" in dir(tc)]))
    """
    assert answer(code, cwd=tmp_path) == [[], "FixedTTL", "tradecache.sources", False]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is_for(path):
    """Each module opens with a docstring whose first line is a sentence."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    assert docstring.splitlines()[0].endswith((".", "?"))


def test_every_room_is_in_the_picture():
    """The picture in CONTRIBUTING.md shows every module, and none that is not there."""
    assert sorted(picture()) == sorted(path.stem for path in ROOMS)


@pytest.mark.parametrize("path", ROOMS, ids=name_of)
def test_nothing_points_back_up(path):
    """A module imports only what is drawn in its own row of the picture or below it."""
    rows = picture()
    above = [name for name in imported_by(path) if rows.get(Path(name).stem, -1) < rows.get(path.stem, -1)]
    assert above == []


@pytest.mark.parametrize("path", [path for path in ROOMS if path.parent.name == "stores"], ids=name_of)
def test_stores_stand_on_the_ground_floor(path):
    """A store imports other stores' rooms and the ground floor, nothing else of the package."""
    ground = {"clock", "errors", "forks", "models", "ranges", "settings", "steps"}
    assert [name for name in imported_by(path) if not name.startswith("stores/") and name not in ground] == []


@pytest.mark.parametrize("path", [path for path in ROOMS if path.stem != "bridge"], ids=name_of)
def test_only_the_bridge_makes_loops_and_threads(path):
    """Event loops and threads are made, run and reached in `bridge.py` alone."""
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    used = {getattr(node, "attr", getattr(node, "id", "")) for node in tree}
    assert sorted(used & ONLY_IN_BRIDGE) == []
