import os
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from contract import NAMES, as_stored
from framecases import bars
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from tradecache.stores.payloads import (
    MAX_DEPTH,
    MAX_NAME,
    DamagedPayload,
    Owner,
    Payload,
    Payloads,
    safe_name,
)

ANY_TEXT = st.text(st.characters())  # lone halves of surrogate pairs as well
TRICKY = st.text(st.sampled_from("aA.%~/\\:*?\0 éкCON1"), max_size=150)
DEVICES = ["CON", "prn", "Aux", "nul", *(f"{port}{n}" for port in ("COM", "lpt") for n in range(10))]
OWNER = Owner("bars", "k", b"{}")


@pytest.fixture
def payloads(tmp_path):
    return Payloads(tmp_path)


def written(payloads: Payloads, *, collection: str = "bars", key: str = "k", rows: int = 5) -> Payload:
    return payloads.write(Owner(collection, key, b"{}"), bars(rows))


@given(ANY_TEXT | TRICKY)
@example("")
@example(".")
@example("..")
@example("../../etc/passwd")
@example("a\0b")
@example("x" * 10_000)
def test_a_safe_name_is_one_name_on_every_system(text):
    """Any text becomes one short, plain part of a path, that leads nowhere else on any system."""
    name = safe_name(text)
    assert 0 < len(name) <= MAX_NAME
    assert name.isascii()
    assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789%_=^-~")
    for path in (PurePosixPath("folder", name), PureWindowsPath("folder", name)):
        assert (path.parts, path.name) == (("folder", name), name)
    assert name.upper() not in {device.upper() for device in DEVICES}


@settings(max_examples=300)
@given(st.lists(ANY_TEXT | TRICKY, min_size=2, max_size=20, unique=True))
@example(["", "%", "%25", "~"])
@example(["CON", "%43ON", "con", "%63on"])
@example(["x" * 500 + "1", "x" * 500 + "2", "x" * 83])
@example(["é", "e\u0301", "%C3%A9"])
def test_different_texts_have_different_safe_names(texts):
    """No two texts share a safe name."""
    assert len({safe_name(text) for text in texts}) == len(texts)


@pytest.mark.parametrize(
    "text", ["AAPL", "EUR_USD", "2024-01-01_2025-01-01", "1d", "X" * MAX_NAME, "^GSPC", "ES=F"]
)
def test_plain_names_stay_readable(text):
    """What is already a plain name is left as it is."""
    assert safe_name(text) == text


@pytest.mark.parametrize("text", [*DEVICES, "changes", "quarantine", "Quarantine"])
def test_reserved_names_are_changed(text):
    """Devices of Windows, and our own names without a dot, are no safe names."""
    assert safe_name(text) == f"%{ord(text[0]):X}{text[1:]}"


@pytest.mark.parametrize(
    "name", [*NAMES.values(), *DEVICES, "a//b", "/", "a/../b", "a/./b", "/".join("x" * 50)]
)
def test_a_payload_lies_in_its_folder(payloads, name):
    """Whatever collection and key are called, the file is a regular one below the folder, and is read back."""
    payload = written(payloads, collection=name, key=name)
    path = Path(os.path.realpath(payloads.folder / payload.path))
    assert path.is_file()
    assert path.is_relative_to(os.path.realpath(payloads.folder))
    assert len(PurePosixPath(payload.path).parts) <= MAX_DEPTH + 1
    assert_frame_equal(payloads.read(payload, OWNER), as_stored(bars()))


def test_files_are_never_written_over(payloads):
    """The same collection and key get another file each time, and both can be read."""
    one, other = written(payloads, rows=1), written(payloads, rows=2)
    assert one.path != other.path
    assert [len(payloads.read(each, OWNER)) for each in (one, other)] == [1, 2]


def test_no_temporary_file_is_left(payloads, tmp_path):
    """After a write there is the payload and nothing else."""
    payload = written(payloads)
    assert [path for path, _ in payloads.files()] == [payload.path]
    assert [path.name for path in (tmp_path / "bars").iterdir()] == [PurePosixPath(payload.path).name]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits of this kind")
@pytest.mark.parametrize("rows", [1_000, 100_000])
def test_a_write_that_fails_half_way_leaves_nothing(payloads, rows):
    """When there is no room for the whole file, no part of it is left."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            payloads.write(OWNER, bars(rows))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(payloads.files()) == []


def test_a_write_where_no_folder_can_be_leaves_nothing(tmp_path):
    """When the file's folder cannot be made, nothing is left."""
    payloads = Payloads(tmp_path)
    (tmp_path / "bars").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="bars"):
        written(payloads)
    assert list(payloads.files()) == []


def test_a_synced_payload_is_read_back(tmp_path):
    """With fsync the file is written just the same."""
    payloads = Payloads(tmp_path, fsync=True, compression="zstd")
    assert_frame_equal(payloads.read(written(payloads), OWNER), as_stored(bars()))


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 4
    changed = {"cut": content[:-1], "emptied": b"", "longer": content + b"\0"}
    path.write_bytes(changed.get(how, content))


@pytest.mark.parametrize("how", ["flipped", "cut", "emptied", "longer"])
def test_damage_is_found(payloads, tmp_path, how):
    """A file that is not what was written is never decoded, not even one flipped bit of it."""
    payload = written(payloads)
    damage(tmp_path / payload.path, how)
    with pytest.raises(DamagedPayload):
        payloads.read(payload, OWNER)


def test_damage_after_the_first_read_is_found_when_the_file_was_written_to(payloads, tmp_path):
    """A file that changed after it was verified is verified again; `distrust` forces it."""
    payload = written(payloads)
    payloads.read(payload, OWNER)
    path = tmp_path / payload.path
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    damage(path, "flipped")
    os.utime(path, ns=(times[0], times[1] + 1))
    with pytest.raises(DamagedPayload, match="checksum"):
        payloads.read(payload, OWNER)
    os.utime(path, ns=times)
    payloads.distrust(payload.path)
    with pytest.raises(DamagedPayload, match="checksum"):
        payloads.read(payload, OWNER)


def test_another_file_is_not_taken_for_it(payloads, tmp_path):
    """A payload put in another's place is found out by its checksum."""
    one, other = written(payloads, rows=5), written(payloads, key="l", rows=5)
    (tmp_path / one.path).write_bytes((tmp_path / other.path).read_bytes()[:-64] + b"\0" * 64)
    with pytest.raises(DamagedPayload):
        payloads.read(one, OWNER)


def test_a_missing_file(payloads, tmp_path):
    """A file that is gone is a FileNotFoundError: another process may have replaced the entry."""
    payload = written(payloads)
    (tmp_path / payload.path).unlink()
    with pytest.raises(FileNotFoundError):
        payloads.read(payload, OWNER)


@pytest.mark.parametrize(
    "path",
    [
        "../outside.arrow",
        "bars/../../outside.arrow",
        "/etc/passwd.arrow",
        "bars/k.txt",
        "a:b.arrow",
        "a\\b.arrow",
        "\0.arrow",
    ],
)
def test_a_path_that_leads_out_is_refused(tmp_path, path):
    """Whatever the ledger says, nothing outside the folder, and nothing but payloads, is read or removed."""
    outside = tmp_path / "outside.arrow"
    outside.write_bytes(b"mine")
    payloads = Payloads(tmp_path / "cache")
    (tmp_path / "cache" / "bars").mkdir(parents=True)
    (tmp_path / "cache" / "bars" / "k.txt").write_bytes(b"mine")
    with pytest.raises(DamagedPayload, match="leads out"):
        payloads.read(Payload(path, 4, 0), OWNER)
    assert payloads.quarantine(path) is None
    payloads.remove([path])
    assert outside.read_bytes() == (tmp_path / "cache" / "bars" / "k.txt").read_bytes() == b"mine"


def test_a_link_is_not_followed(tmp_path):
    """A link planted in the folder, as a file or as a folder on the way, leads to an error."""
    elsewhere = Payloads(tmp_path / "elsewhere")
    payload = written(elsewhere)
    for link in ("folder", "file"):
        payloads = Payloads(tmp_path / link)
        if link == "folder":
            payloads.folder.mkdir()
            (payloads.folder / "bars").symlink_to(elsewhere.folder / "bars")
        else:
            (payloads.folder / "bars").mkdir(parents=True)
            (payloads.folder / payload.path).symlink_to(elsewhere.folder / payload.path)
        with pytest.raises((DamagedPayload, OSError)):
            payloads.read(payload, OWNER)
    assert len(elsewhere.read(payload, OWNER)) == 5


def test_a_folder_behind_a_link_is_fine(tmp_path):
    """The cache folder itself may be reached through a link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    payloads = Payloads(tmp_path / "link")
    assert len(payloads.read(written(payloads), OWNER)) == 5


def test_remove(payloads, tmp_path):
    """Removing deletes files, and takes absent ones, None and nothing at all in its stride."""
    payload = written(payloads)
    payloads.remove([None, "", "bars/absent.arrow", payload.path, payload.path])
    assert not (tmp_path / payload.path).exists()


def test_quarantine(payloads, tmp_path):
    """A damaged file is moved under its own name and the time, is out of the way, and is not swept."""
    payload = written(payloads)
    target = payloads.quarantine(payload.path)
    assert target.parent == tmp_path / "quarantine"
    assert target.name.endswith(PurePosixPath(payload.path).name)
    assert not (tmp_path / payload.path).exists()
    assert payloads.quarantine(payload.path) is None
    assert payloads.sweep(set(), older_than=-1) == []
    assert target.exists()


def test_sweep(payloads, tmp_path):
    """Sweeping deletes old files that are not known, tells which, and leaves what is no payload."""
    known, orphan, fresh = (written(payloads, key=key) for key in ("known", "orphan", "fresh"))
    (tmp_path / "bars" / "notes.txt").write_text("mine")
    for payload in (known, orphan):
        path = tmp_path / payload.path
        os.utime(path, (path.stat().st_mtime - 100, path.stat().st_mtime - 100))
    assert payloads.sweep({known.path}, older_than=50) == [(orphan.path, orphan.size)]
    left = sorted(path.name.split(".")[0] for path in (tmp_path / "bars").iterdir())
    assert left == ["fresh", "known", "notes"]
    assert fresh.path in [path for path, _ in payloads.files()]


def test_remove_empty(payloads, tmp_path):
    """Folders that are empty are removed, below each other too; those with files, links and those named stay."""
    kept = written(payloads)
    for name in ("gone/below", "locks", "quarantine"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "locks")
    payloads.remove_empty(but=["locks"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bars", "link", "locks", "quarantine"]
    assert (tmp_path / kept.path).exists()
