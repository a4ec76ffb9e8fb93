import ast
import inspect
from pathlib import Path

import pytest

from tradecache import Settings, TradeCache, TradingDataCache

API = Path(__file__).parent / "typing" / "api.py"
NAMED = {
    node.attr
    for node in ast.walk(ast.parse(API.read_text(encoding="utf-8")))
    if isinstance(node, ast.Attribute)
}


@pytest.mark.parametrize("face", [TradeCache, TradingDataCache])
def test_every_public_method_is_pinned(face):
    """`typing/api.py`, which mypy checks, names each public method of both faces."""
    public = {name for name, value in vars(face).items() if not name.startswith("_") and callable(value)}
    assert sorted(public - NAMED) == []


def test_every_setting_is_pinned():
    """`typing/api.py` names each setting."""
    assert sorted(set(Settings.model_fields) - NAMED) == []


def test_both_faces_spell_their_arguments_alike():
    """A method that both faces have takes the same arguments in both."""
    common = [
        name for name in vars(TradeCache) if name in vars(TradingDataCache) and not name.startswith("_")
    ]
    unlike = [
        name
        for name in common
        if inspect.signature(getattr(TradeCache, name)) != inspect.signature(getattr(TradingDataCache, name))
    ]
    assert unlike == []
