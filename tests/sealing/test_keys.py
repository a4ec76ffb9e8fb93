"""A folder opens with its own keys and with no others."""

import base64
import json
import logging

import pytest
from scripts import answer, run_script, without_package
from vaults import KEYS, ONE, OTHER, PRICE, SYMBOL, THREE, TWO, chosen, holders, market, snapshot

from tradecache import WrongKey
from tradecache.rekeying import rekey
from tradecache.stores.keyring import Keyring, Names


def test_a_wrong_key_is_one_clear_error(make, folder):
    """Who opens an encrypted folder with another key, or none, is told so, and nothing is changed or deleted."""
    cache = make(ONE)
    cache.store_price(SYMBOL, PRICE, 1)
    cache.store_bars(SYMBOL, market(100), interval="1m")
    cache.close()
    before = snapshot(folder)
    with pytest.raises(
        WrongKey, match=r"is encrypted under the key [0-9a-f]{16}, but encryption_key has"
    ) as wrong:
        make(TWO)
    assert str(folder) in str(wrong.value)
    assert "give the old key after the new one" in str(wrong.value)
    with pytest.raises(WrongKey, match="is encrypted: set encryption_key"):
        make()
    assert snapshot(folder) == before
    assert not (folder / "quarantine").exists()
    assert make(ONE).prices()["price"].to_list() == [PRICE]


def test_a_key_does_not_fit_a_plain_folder(make, folder):
    """A folder with plain entries is not opened with a key: the error says what encrypts it."""
    cache = make()
    cache.store_price(SYMBOL, PRICE, 1)
    cache.close()
    before = snapshot(folder)
    with pytest.raises(
        WrongKey, match="holds entries that are not encrypted: `tradecache rekey` encrypts it"
    ):
        make(ONE)
    assert snapshot(folder) == before
    assert len(make().prices()) == 1


def test_several_keys(make, folder):
    """The first key encrypts, and the others open what was written before; all have to be given."""
    make(ONE).store_price(SYMBOL, 1, 1)
    both = make(TWO, ONE)
    both.store_price(SYMBOL, 2, 1)
    assert both.prices()["price"].to_list() == [1, 2]
    ids = [key.id for key in Keyring(chosen(folder, ONE, TWO).encryption_key).keys]
    assert sorted(json.loads((folder / "encryption.json").read_text())["keys"]) == sorted(ids)
    for keys in ([ONE], [TWO]):
        with pytest.raises(WrongKey):
            make(*keys)
    assert len(make(ONE, TWO).prices()) == 2
    assert len(make(OTHER, TWO, ONE).prices()) == 2


def test_the_card_is_private_and_holds_no_key(make, folder):
    """`encryption.json` is for its owner only; neither it nor any other file has a key in it."""
    make(ONE, hashed=True).store_price(SYMBOL, 1, 1)
    assert (folder / "encryption.json").stat().st_mode & 0o777 == 0o600
    assert holders(folder, ONE.encode(), base64.urlsafe_b64decode(ONE)) == []


def test_a_damaged_card_is_a_clear_error(make, folder):
    """With a damaged `encryption.json` nothing is opened, and the error says what makes it anew."""
    cache = make(ONE, hashed=True)
    cache.store_price(SYMBOL, 1, 1)
    cache.close()
    card = folder / "encryption.json"
    for damaged in ("", "{}", "[]", '{"version": 9}', card.read_text().replace('"check"', '"chalk"')):
        card.write_text(damaged)
        with pytest.raises(WrongKey, match="delete that file and run `tradecache rekey`"):
            make(ONE, hashed=True)
    card.unlink()
    with pytest.raises(WrongKey, match=r"has lost its encryption\.json"):
        make(ONE, hashed=True)
    assert rekey(chosen(folder, ONE, hashed=True))["put_aside"] == 0
    assert make(ONE, hashed=True).prices()["price"].to_list() == [1]


def test_a_lost_card_is_made_anew(make, folder):
    """Where names are plain and the entries are under the keys given, a lost `encryption.json` is made anew."""
    cache = make(ONE)
    cache.store_price(SYMBOL, 1, 1)
    cache.close()
    (folder / "encryption.json").unlink()
    with pytest.raises(WrongKey, match="holds entries under the key"):
        make(TWO)
    assert make(TWO, ONE).prices()["price"].to_list() == [1]


def test_names_that_are_hidden_or_not_are_no_surprise(make, folder):
    """A folder is opened only with the `hashed_names` that it was made with."""
    make(ONE, hashed=True).close()
    with pytest.raises(WrongKey, match="has hashed names: `tradecache rekey`"):
        make(ONE)


def test_nothing_tells_a_key(make, folder, caplog):
    """No repr, log, error or traceback with its locals' reprs has a key in it."""
    with caplog.at_level(logging.DEBUG, logger="tradecache"):
        cache = make(ONE, TWO)
        cache.store_price(SYMBOL, PRICE, 1)
    ring = Keyring(cache.settings.encryption_key)
    with pytest.raises(WrongKey) as wrong:
        make(THREE)
    seal = cache.core.stack.sealed
    told = [repr(each) for each in (cache, cache.settings, ring, ring.first, seal, Names(b"secret"))]
    told += [caplog.text, str(wrong.value), repr(wrong.value), cache.settings._repr_html_()]
    assert all(key not in text for text in told for key in KEYS)
    assert all("secret" not in text for text in told[:6])


def test_crypto_is_loaded_only_with_a_key(tmp_path):
    """Without a key, neither `cryptography` nor the rooms that need it are loaded."""
    code = """
        import json, sys
        from tradecache import TradeCache
        with TradeCache(sys.argv[1]) as cache:
            cache.store_price("A", 1, 1)
            cache.prices()
        rooms = ("cryptography", "tradecache.sealing", "tradecache.stores.keyring", "tradecache.stores.cipher")
        print(json.dumps([name for name in rooms if name in sys.modules]))
    """
    assert answer(code, tmp_path / "c") == []


def test_without_cryptography(tmp_path):
    """Who sets a key and has no `cryptography` is told what installs it."""
    code = """
        import sys
        from tradecache import MissingDependency, Settings, TradeCache
        try:
            TradeCache(settings=Settings(cache_dir=sys.argv[1], encryption_key=sys.argv[2]))
        except MissingDependency as error:
            print(error)
    """
    (tmp_path / "packages").mkdir()
    done = run_script(code, tmp_path / "c", ONE, **without_package("cryptography", tmp_path / "packages"))
    assert (
        done.stdout.strip()
        == "this needs cryptography; install it with: pip install 'tradecache[encryption]'"
    )
