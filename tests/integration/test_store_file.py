"""The file store's files: who may read them, what becomes of bad ones, and of processes that are killed."""

import asyncio
import errno
import fcntl
import json
import os
import re
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import ConfigError, StoreError
from proxy.tokens.stores.base import DEAD_HOLDER
from tests.support.gateway import ROOT, environment, until
from tests.support.stores import PAIR, Workshop, key_file, watching
from tests.support.storework import section


@pytest.fixture(params=["tokens.json", "tokens/"], ids=["file", "folder"])
def place(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def workshop(tmp_path: Path, place: str) -> Workshop:
    key_file(tmp_path)
    return Workshop(section(tmp_path, place))


def file_of(folder: Path, place: str, identity: str = "opentv") -> Path:
    return folder / place / f"{identity}.json" if place.endswith("/") else folder / place


def set_aside(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.corrupt-*"))


async def test_files_are_for_their_owner_alone(tmp_path: Path, workshop: Workshop, place: str) -> None:
    before = os.umask(0)
    try:
        store = workshop.store()
        async with store.lock("opentv"):
            await store.save("opentv", PAIR)
    finally:
        os.umask(before)
    made = [path for path in tmp_path.rglob("*") if path.name != "keys"]
    assert file_of(tmp_path, place) in made
    for path in made:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


async def test_a_file_that_others_could_read_is_closed_to_them_by_the_next_save(
    tmp_path: Path, workshop: Workshop, place: str
) -> None:
    store = workshop.store()
    await store.save("opentv", PAIR)
    file_of(tmp_path, place).chmod(0o644)
    await store.save("opentv", PAIR)
    assert stat.S_IMODE(file_of(tmp_path, place).stat().st_mode) == 0o600


async def test_no_piece_of_a_secret_is_in_any_file(tmp_path: Path, workshop: Workshop) -> None:
    store = workshop.store()
    async with store.lock("opentv"):
        await store.save("opentv", PAIR)
    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "keys")
    assert b"opentv" in content
    for secret in (PAIR.access, PAIR.refresh or "", PAIR.binding):
        for start in range(len(secret) - 15):
            assert secret[start : start + 16].encode() not in content


def bad_contents(good: bytes) -> dict[str, bytes]:
    tree = json.loads(good)
    changed = {**tree, "pairs": {"opentv": tree["pairs"]["opentv"][:-6] + "AAAAA="}}
    return {
        "empty": b"",
        "cut off": good[: len(good) // 2],
        "a byte changed": json.dumps(changed).encode(),
        "not ours": b"PK\x03\x04 something else",
        "another JSON": b'{"opentv": "eyJ"}',
        "a later format": json.dumps({**tree, "format": "opentv-proxy-store/2"}).encode(),
        "no text in it": json.dumps({**tree, "pairs": {"opentv": None}}).encode(),
        "nested without end": b"[" * 200_000,
    }


@pytest.mark.parametrize("kind", list(bad_contents(b'{"pairs": {"opentv": "xxxxxxxx"}}')))
@pytest.mark.parametrize("then", ["load", "save", "delete"])
async def test_a_bad_file_is_set_aside_said_and_counted_and_never_overwritten(
    tmp_path: Path, workshop: Workshop, place: str, kind: str, then: str
) -> None:
    store = workshop.store()
    await store.save("opentv", PAIR)
    file = file_of(tmp_path, place)
    bad = bad_contents(file.read_bytes())[kind]
    file.write_bytes(bad)
    if then == "load":
        assert await store.load("opentv") is None
    elif then == "save":
        await store.save("opentv", replace(PAIR, access="NEXT"))
    else:
        await store.delete("opentv")
    (aside,) = set_aside(tmp_path)
    assert aside.read_bytes() == bad
    assert re.fullmatch(rf"{re.escape(file.name)}\.corrupt-\d{{8}}T\d{{6}}Z", aside.name)
    (words,) = workshop.told.words
    assert f"was set aside as {aside}" in words
    assert workshop.told.counted() == {"load": 1}
    await store.save("opentv", PAIR)
    assert await store.load("opentv") == PAIR
    assert len(workshop.told.words) == 1


async def test_several_bad_files_within_a_second_are_all_kept(tmp_path: Path, workshop: Workshop, place: str) -> None:
    store = workshop.store()
    file = file_of(tmp_path, place)
    for step in range(4):
        file.write_bytes(b"%d" % step)
        assert await store.load("opentv") is None
    assert sorted(path.read_bytes() for path in set_aside(tmp_path)) == [b"0", b"1", b"2", b"3"]


async def test_of_a_bad_entry_the_other_identities_take_no_harm(tmp_path: Path) -> None:
    key_file(tmp_path)
    workshop = Workshop(section(tmp_path, "tokens.json"))
    store = workshop.store()
    await store.save("opentv", PAIR)
    await store.save("other", replace(PAIR, access="OTHER"))
    tree = json.loads((tmp_path / "tokens.json").read_bytes())
    tree["pairs"]["opentv"] = tree["pairs"]["other"]  # moved: it opens for its own identity only
    (tmp_path / "tokens.json").write_text(json.dumps(tree))
    assert await store.load("opentv") is None
    assert await store.load("other") == replace(PAIR, access="OTHER")
    assert await store.names() == ["other"]
    assert len(set_aside(tmp_path)) == 1


async def test_a_file_sealed_with_another_key_is_set_aside_and_good_again_with_its_key(
    tmp_path: Path, workshop: Workshop, place: str
) -> None:
    await workshop.store().save("opentv", PAIR)
    key_file(tmp_path, 7)
    store = workshop.store()
    assert await store.load("opentv") is None
    assert "which the key file does not hold" in workshop.told.words[0]
    await store.save("opentv", replace(PAIR, access="NEXT"))
    assert await store.load("opentv") == replace(PAIR, access="NEXT")
    (aside,) = set_aside(tmp_path)
    key_file(tmp_path, 7, 0)
    aside.rename(file_of(tmp_path, place))
    assert await store.load("opentv") == PAIR


async def test_a_rotated_key_file_reads_the_old_and_writes_the_new(tmp_path: Path, workshop: Workshop) -> None:
    store = workshop.store()
    await store.save("opentv", PAIR)
    key_file(tmp_path, 7, 0)
    assert await store.load("opentv") == PAIR
    await store.save("opentv", PAIR)
    key_file(tmp_path, 7)
    assert await store.load("opentv") == PAIR
    assert workshop.told.words == []


async def test_a_file_from_a_killed_write_is_no_obstacle(tmp_path: Path, workshop: Workshop, place: str) -> None:
    store = workshop.store()
    await store.save("opentv", PAIR)
    file = file_of(tmp_path, place)
    file.with_name(f".{file.name}.tmp").write_bytes(b"half a wr")
    assert await store.load("opentv") == PAIR
    await store.save("opentv", replace(PAIR, access="NEXT"))
    assert await store.load("opentv") == replace(PAIR, access="NEXT")
    assert not file.with_name(f".{file.name}.tmp").exists()


async def test_a_folder_that_went_away_is_a_store_that_is_down_and_comes_back(
    tmp_path: Path, workshop: Workshop, place: str
) -> None:
    folder = tmp_path / "mount"
    folder.mkdir()
    store = workshop.store(path=f"{folder}/{place}")
    await store.save("opentv", PAIR)
    folder.rename(tmp_path / "gone")
    async with watching(store) as found:
        with pytest.raises(StoreError, match="cannot be used"):
            await store.save("opentv", PAIR)
        with pytest.raises(StoreError, match="is gone"):
            async with store.lock("opentv"):
                pass
        (tmp_path / "gone").rename(folder)
        await until(lambda: PAIR in found(), 2, "the pair again")
    assert await store.load("opentv") == PAIR


async def test_what_is_no_regular_file_is_refused_and_does_not_hold_the_gateway(
    tmp_path: Path, workshop: Workshop, place: str
) -> None:
    store = workshop.store()
    file = file_of(tmp_path, place)
    os.mkfifo(file)
    async with asyncio.timeout(5):
        with pytest.raises(StoreError, match="no regular file"):
            await store.load("opentv")
        with pytest.raises(StoreError, match="no regular file"):
            await store.save("opentv", PAIR)


async def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    key_file(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "tokens.json").symlink_to("data/real.json")
    store = Workshop(section(tmp_path, "tokens.json")).store()
    await store.save("opentv", PAIR)
    assert (tmp_path / "tokens.json").is_symlink()
    assert (tmp_path / "data/real.json").is_file()
    assert await store.load("opentv") == PAIR


async def test_a_writer_that_does_not_go_on_is_waited_for_two_seconds(tmp_path: Path) -> None:
    key_file(tmp_path)
    store = Workshop(section(tmp_path, "tokens.json")).store()
    with (tmp_path / "tokens.json.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=r"keeps .* locked"):
            await store.save("opentv", PAIR)
    await store.save("opentv", PAIR)


async def test_a_pair_that_could_not_be_saved_leaves_the_next_holder_in_doubt(tmp_path: Path) -> None:
    key_file(tmp_path)
    store = Workshop(section(tmp_path, "tokens.json")).store()
    await store.save("opentv", PAIR)
    async with store.lock("opentv"):
        (tmp_path / ".tokens.json.tmp").mkdir()  # nothing can be written aside
        with pytest.raises(StoreError):
            await store.save("opentv", replace(PAIR, access="NEXT"))
    (tmp_path / ".tokens.json.tmp").rmdir()
    assert await store.load("opentv") == PAIR
    async with store.lock("opentv") as lease:
        assert lease.orphaned
        await store.save("opentv", PAIR)
    async with store.lock("opentv") as lease:
        assert not lease.orphaned


@pytest.mark.parametrize(
    ("path", "words"), [("keys/tokens.json", "File exists"), ("keys/", "File exists"), ("/proc/tokens.json", "")]
)
def test_a_place_where_nothing_can_be_written_is_refused_at_start(tmp_path: Path, path: str, words: str) -> None:
    key_file(tmp_path)
    workshop = Workshop(section(tmp_path, "x"))
    with pytest.raises(ConfigError, match=rf"(?s)store\.file\.path: .*{words}"):
        workshop.store(path=path if path.startswith("/") else f"{tmp_path}/{path}")


def test_a_key_file_without_a_key_is_refused_at_start(tmp_path: Path) -> None:
    key_file(tmp_path).write_text("no key\n")
    with pytest.raises(ConfigError, match=r"store\.file\.key_file: key 1 of .*: expected 32 random bytes in base64"):
        Workshop(section(tmp_path, "tokens.json")).store()


@asynccontextmanager
async def at_work(folder: Path, place: str, *what: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.storework", str(folder), place, *what),
        stdout=asyncio.subprocess.PIPE,
        env=environment(),
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_lock_keeps_other_processes_out_and_a_killed_holder_is_survived_at_once(
    tmp_path: Path, workshop: Workshop, place: str
) -> None:
    store = workshop.store()
    async with at_work(tmp_path, place, "hold") as holder:
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"held\n"
        lock = store.lock("opentv")
        waiting = asyncio.ensure_future(lock.__aenter__())
        async with asyncio.timeout(5), store.lock("other"):
            pass
        await asyncio.sleep(0.3)
        assert not waiting.done()
        holder.kill()
        await holder.wait()
        async with asyncio.timeout(min(1, DEAD_HOLDER)):
            lease = await waiting
        assert lease.orphaned
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), workshop.store().lock("opentv"):
            pass
    await lock.__aexit__(None, None, None)


async def test_killed_a_hundred_times_while_saving_it_loses_nothing_that_was_safe(tmp_path: Path, place: str) -> None:
    key_file(tmp_path)
    async with at_work(tmp_path, place, "saves", "100") as process:
        out, _ = await process.communicate()
    report: dict[str, Any] = json.loads(out)
    assert report["wrong"] == 0, report
    assert report["told"] == [], report
    assert set_aside(tmp_path) == []
    assert report["saved"] > 100, report
    assert report["orphaned"] > 10, report


def test_words_for_a_file_that_is_mounted_alone_say_what_to_do() -> None:
    from proxy.tokens.stores.shelf import told

    with pytest.raises(StoreError, match="mount its folder"), told(Path("/tokens.json")):
        raise OSError(errno.EBUSY, "Device or resource busy")
