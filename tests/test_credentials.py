"""URLs and keys that are never shown."""

import base64
import pickle

import pytest

from tradecache import Settings
from tradecache.credentials import SecretKey, SecretURL
from tradecache.errors import InvalidInput

KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:1/0", "redis://host:1/0"),
        ("redis://:pässword@host:1/0", "redis://:***@host:1/0"),
        ("postgresql://me:a%40b@host/db?sslmode=require", "postgresql://me:***@host/db?sslmode=require"),
        ("postgresql://host/db?user=me&password=abc", "postgresql://host/db?user=me&password=***"),
        (
            "s3://b?aws_access_key_id=abc&aws_secret_access_key=def",
            "s3://b?aws_access_key_id=***&aws_secret_access_key=***",
        ),
        ("redis://a:b:c@d@host", "redis://a:***@host"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url, shown):
    """Neither its text nor its repr has them; who needs it asks for it."""
    secret = SecretURL(url)

    assert (str(secret), repr(secret)) == (shown, f"SecretURL('{shown}')")
    assert secret.get_secret_value() == url


@pytest.mark.parametrize("key", [KEY, KEY.encode(), SecretKey(KEY)])
def test_keys(key):
    """A key, or several, of text or bytes; they are shown as stars."""
    settings = Settings(encryption_key=[key, key])

    assert [each.get_secret_value() for each in settings.encryption_key] == [KEY, KEY]
    for text in (repr(settings), str(settings), settings._repr_html_(), settings.model_dump_json()):
        assert KEY not in text
    assert Settings(encryption_key=key).encryption_key == (SecretKey(KEY),)


@pytest.mark.parametrize(
    "wrong", ["", "secretword", KEY[:-4], KEY + "AAAA", 5, b"\xff", [KEY, "secretword"], f"{KEY},x"]
)
def test_what_is_no_key(wrong):
    """It is refused, with what is allowed and without itself."""
    with pytest.raises(InvalidInput, match="encryption_key is") as error:
        Settings(encryption_key=wrong)

    assert "secretword" not in str(error.value)
    assert KEY not in str(error.value)
    assert "new-key" in str(error.value)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("memory_url", "http://me:secretword@host"),
        ("memory_url", "redis://"),
        ("memory_url", "redis://me:secretword@host:99999"),
        ("memory_url", "redis://host:0"),
        ("memory_url", 5),
        ("team_url", "postgres:secretword"),
        ("team_url", "file:"),
        ("team_url", "file:relative"),
        ("team_url", "file://shared/folder"),
        ("archive_url", "redis://:secretword@host"),
        ("archive_url", "postgresql://me:12/secretword@host/db"),
        ("memory_url", "redis://:77#secretword@host/0"),
        ("memory_url", "redis://:77?secretword@host/0"),
        ("archive_url", "postgresql:///db"),
    ],
)
def test_what_is_no_url(name, wrong):
    """It is refused with the field's name and what is allowed, and without its password."""
    with pytest.raises(InvalidInput, match=f"{name} is") as error:
        Settings(**{name: wrong})

    if isinstance(wrong, str) and "@" in wrong:
        assert "secretword" not in str(error.value)
        assert "secretword" not in str(vars(error.value))


@pytest.mark.parametrize(
    "wrong", [{"encryption_key": "secretword"}, {"retries": -1, "encryption_key": KEY}, {"retrys": 1, "encryption_key": KEY},
              {"memory_url": "redis://me:secretword@host:99999"}]
)  # fmt: skip
def test_no_error_carries_a_secret(wrong):
    """Neither an error nor what it was raised from holds a secret; and half-made settings can be shown."""
    with pytest.raises(InvalidInput) as caught:
        Settings(**wrong)

    error = caught.value
    while error is not None:
        assert "secretword" not in f"{error!r} {vars(error)}"
        assert KEY not in f"{error!r} {vars(error)}"
        error = error.__cause__ or error.__context__
    assert repr(Settings.__new__(Settings)).startswith("Settings(")


def test_names_need_a_key():
    """Names cannot be hashed without a key."""
    with pytest.raises(InvalidInput, match="hashed_names"):
        Settings(hashed_names=True)
    assert Settings(hashed_names=True, encryption_key=KEY).hashed_names


def test_other_settings_with_the_same_secrets():
    """A copy has the same keys and URLs."""
    settings = Settings(encryption_key=KEY, memory_url="redis://me:word@host")

    assert settings.model_copy(update={"retries": 1}).model_dump() == {**settings.model_dump(), "retries": 1}
    assert pickle.loads(pickle.dumps(settings)) == settings
