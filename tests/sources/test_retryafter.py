from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradecache.sources.retryafter import retry_after

NOW = datetime(2024, 1, 2, 14, 30, tzinfo=UTC)


def date(seconds=0):
    return format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120), ({"retry-after": " 7 "}, 7), ({"RETRY-AFTER": "1.5"}, 1.5),
        ({"Retry-After": "0"}, 0), ({"Retry-After": date(90)}, 90), ({"Retry-After": date(-90)}, 0),
        ({"Retry-After": date(90), "date": date(30)}, 60),
        ({"Retry-After": "Tuesday, 02-Jan-24 14:31:00 GMT"}, 60),
        ({}, None), (None, None), ({"Retry-After": ""}, None), ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None), ({"Retry-After": "1e9"}, None), ({"Retry-After": "inf"}, None),
        ({"Retry-After": "9" * 400}, float("inf")), ({"Retry-After": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, None),
        ({"Retry-After": "Mon, 99999999999 Jan 2024 00:00:00 GMT"}, None),
        ({"Retry-After": date(90), "date": "Mon, 99999999999 Jan 2024 00:00:00 GMT"}, 90),
        ({"Retry-After": "²"}, None), ({"Retry-After": "Tue, 99 Jan 2024 14:30:00 GMT"}, None),
    ],
)  # fmt: skip
def test_seconds_or_a_date(headers, seconds):
    """Both forms of HTTP are seconds from the answer on; anything else says nothing."""
    assert retry_after(headers, now=NOW.timestamp()) == seconds


@given(st.text(), st.text())
def test_whatever_is_sent_is_no_error(text, sent):
    """No header that a provider sends is an error, and no wait is negative."""
    wait = retry_after({"Retry-After": text, "Date": sent})
    assert wait is None or wait >= 0
