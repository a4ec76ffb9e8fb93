import hypothesis
import pytest
from clocks import FakeClock

pytest.register_assert_rewrite("contract")
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")


@pytest.fixture
def clock():
    return FakeClock()
