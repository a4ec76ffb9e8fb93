import signal

import hypothesis
import pytest
from clocks import FakeClock

pytest.register_assert_rewrite("contract")
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell starts its background jobs so, and children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def clock():
    return FakeClock()
