import pytest
from contract import ProtocolContract

from tradecache.clock import Clock
from tradecache.settings import Settings
from tradecache.stack import build_stack


@pytest.mark.filterwarnings("ignore:Coroutine factory method key_value:UserWarning")  # about wrong types
class TestStackContract(ProtocolContract):
    """The whole stack for frames, both tiers and every wrapper, does what a store does."""

    @pytest.fixture
    def store(self, tmp_path, clock):
        stack = build_stack(Settings(cache_dir=tmp_path / "cache"), clock=Clock(clock))
        yield stack.frames
        stack.durable.close()
