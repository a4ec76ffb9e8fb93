import pytest
from contract import ProtocolContract
from cryptography.fernet import Fernet

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


@pytest.mark.filterwarnings("ignore:Coroutine factory method key_value:UserWarning")  # about wrong types
class TestSealedStackContract(ProtocolContract):
    """The whole stack does the same when what it stores is encrypted."""

    @pytest.fixture(params=[False, True], ids=["names", "hashed names"])
    def store(self, tmp_path, clock, request):
        key = Fernet.generate_key()
        settings = Settings(cache_dir=tmp_path / "cache", encryption_key=key, hashed_names=request.param)
        stack = build_stack(settings, clock=Clock(clock))
        yield stack.frames
        stack.durable.close()
