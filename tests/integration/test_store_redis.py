"""The store over a real Redis: what is in it, its lock when holders die, freeze or lose their data, and its errors."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trustme

from proxy.config import SecretValue
from proxy.errors import ConfigError, LockLostError, StoreError
from proxy.tokens.stores.base import DEAD_HOLDER, Store
from proxy.tokens.stores.link import Link
from proxy.tokens.stores.redis import RedisStore
from proxy.tokens.stores.sealing import Keyring, Sealer
from tests.support.gateway import ROOT, until
from tests.support.redis import RedisServer, need_redis
from tests.support.stores import PAIR, Told, Workshop, key_file, watching

KEPT = {"appendonly": "yes", "appendfsync": "always"}


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    need_redis()
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    """One that this test has for itself as long as it runs: emptied."""
    assert shared_server.ask("FLUSHALL") == "+OK"
    return shared_server


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """One that the test may stop, freeze and restart; it keeps its data."""
    need_redis()
    server = RedisServer(tmp_path / "redis", **KEPT).start()
    yield server
    server.stop()


class Replica:
    """A store whose clock and sleep are the test's. ahead: seconds that its steady clock was set forward, as if it had
    been frozen so long. running: cleared, it renews nothing any more, as after SIGSTOP or SIGKILL."""

    def __init__(self, url: str, folder: Path, prefix: str, lease: float = DEAD_HOLDER) -> None:
        self.told = Told()
        self.ahead = 0.0
        self.running = asyncio.Event()
        self.running.set()
        self.store = RedisStore(
            Link(SecretValue(text=url), self._mono),
            Sealer(Keyring(key_file(folder), self._say)),
            prefix,
            lambda _operation, _identity, words: self._say(words),
            mono=self._mono,
            sleep=self._sleep,
            lease=lease,
        )

    def _mono(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead

    def _say(self, words: str) -> None:
        self.told.words.append(words)

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.running.wait()


@pytest.fixture
async def workshop(server: RedisServer, tmp_path: Path) -> AsyncIterator[Workshop]:
    workshop = Workshop({"redis": {"url": server.url, "key_file": str(key_file(tmp_path)), "prefix": f"{uuid4()}:"}})
    yield workshop
    await workshop.close()


@pytest.fixture
def store(workshop: Workshop) -> Store:
    return workshop.store()


async def replicas(server: RedisServer, folder: Path, lease: float = DEAD_HOLDER) -> tuple[Replica, Replica]:
    prefix = f"{uuid4()}:"
    return Replica(server.url, folder, prefix, lease), Replica(server.url, folder, prefix, lease)


def freed(server: RedisServer) -> None:
    """As if the lease had run out."""
    (lock,) = [key for key in server.ask("KEYS", "*") if key.endswith(":lock")]
    assert server.ask("DEL", lock) == 1


# What is in it


async def test_no_piece_of_a_secret_is_in_any_key_or_value(server: RedisServer, store: Store) -> None:
    async with store.lock("opentv"):
        await store.save("opentv", PAIR)
        values = server.values()
    assert {key.rpartition(":")[2] for key in values} == {"pair", "lock", "fence"}
    content = repr(values).encode() + b"".join(values.values())
    for secret in (PAIR.access, PAIR.refresh or "", PAIR.binding):
        for start in range(len(secret) - 15):
            assert secret[start : start + 16].encode() not in content


@pytest.mark.parametrize(
    ("refresh_expires", "session_ends", "seconds"),
    [(None, None, None), (1800.0, None, 1800), (1800.0, 900.0, 900), (None, 900.0, 900), (10.0, None, 300)],
)
async def test_a_pair_is_kept_until_its_session_ends_and_an_offline_one_for_ever(
    server: RedisServer,
    tmp_path: Path,
    refresh_expires: float | None,
    session_ends: float | None,
    seconds: float | None,
) -> None:
    replica = Replica(server.url, tmp_path, "p:")
    ends = {"refresh_expires": refresh_expires, "session_ends": session_ends, "expires": 300.0}
    times: dict[str, Any] = {name: None if end is None else time.time() + end for name, end in ends.items()}
    await replica.store.save("opentv", replace(PAIR, **times))
    life = server.ask("PTTL", "p:{opentv}:pair")
    assert life == -1 if seconds is None else abs(life - seconds * 1000) < 2000
    await replica.store.close()


async def test_a_value_that_is_not_ours_is_set_aside_for_a_week_said_and_counted(
    server: RedisServer, workshop: Workshop, store: Store
) -> None:
    key = f"{workshop.prefix}{{opentv}}:pair"
    for count, then in enumerate(("load", "save"), 1):
        server.ask("SET", key, f"foreign {then}")
        if then == "load":
            assert await store.load("opentv") is None
        else:
            await store.save("opentv", PAIR)
        asides = [name for name in server.ask("KEYS", "*") if ":corrupt-" in name]
        assert f"foreign {then}".encode() in [server.ask("GET", name) for name in asides]
        assert all(6 * 86400 < server.ask("TTL", name) <= 7 * 86400 for name in asides)
        assert workshop.told.counted() == {"load": count}
        await asyncio.sleep(1.01)  # its name has the second in it
    assert await store.load("opentv") == PAIR
    assert await store.names() == ["opentv"]


async def test_a_value_moved_from_another_identity_is_set_aside(
    server: RedisServer, workshop: Workshop, store: Store
) -> None:
    await store.save("other", PAIR)
    moved = server.ask("GET", f"{workshop.prefix}{{other}}:pair").decode()
    server.ask("SET", f"{workshop.prefix}{{opentv}}:pair", moved)
    assert await store.load("opentv") is None
    assert "another identity's" in workshop.told.words[0]


async def test_a_value_of_a_key_that_is_not_here_is_left_alone_by_load_and_save(
    workshop: Workshop, tmp_path: Path, store: Store
) -> None:
    """A replica with a newer key file may have written it; this one must not take it away from the others."""
    (tmp_path / "newer").mkdir()
    newer = workshop.store(key_file=str(key_file(tmp_path / "newer", 9, 0)))
    await newer.save("opentv", PAIR)
    for work in (store.load("opentv"), store.save("opentv", replace(PAIR, access="MINE"))):
        with pytest.raises(StoreError, match=r"left alone: .*the key file does not hold; .* store --forget opentv"):
            await work
    assert await newer.load("opentv") == PAIR
    key_file(tmp_path, 9, 0)
    assert await store.load("opentv") == PAIR
    key_file(tmp_path)
    await store.delete("opentv")
    await store.save("opentv", PAIR)


async def test_a_key_that_holds_no_string_is_a_store_that_cannot_be_used(
    server: RedisServer, workshop: Workshop, store: Store
) -> None:
    server.ask("LPUSH", f"{workshop.prefix}{{opentv}}:pair", "x")
    with pytest.raises(StoreError, match=r"refused a command \(WRONGTYPE\)"):
        await store.load("opentv")


async def test_prefixes_keep_gateways_apart_whatever_is_in_them(workshop: Workshop, store: Store) -> None:
    await store.save("opentv", PAIR)
    for prefix in ("*", "[a-z]", "x?", "back\\slash:", "plain:"):
        other = workshop.store(prefix=prefix)
        assert await other.names() == []
        await other.save("mine", PAIR)
        assert await other.names() == ["mine"]
        assert await other.load("opentv") is None
    assert await store.names() == ["opentv"]


# The lock


async def test_a_dead_holder_is_survived_when_its_lease_ends(server: RedisServer, tmp_path: Path) -> None:
    dead, heir = await replicas(server, tmp_path, lease=1.0)
    lock = dead.store.lock("opentv")
    await lock.__aenter__()
    dead.running.clear()
    begun = asyncio.get_running_loop().time()
    async with asyncio.timeout(1.5), heir.store.lock("opentv") as lease:
        waited = asyncio.get_running_loop().time() - begun
        assert lease.orphaned
    assert waited > 0.8
    dead.running.set()
    await lock.__aexit__(None, None, None)
    async with heir.store.lock("opentv") as lease:
        assert not lease.orphaned
    await dead.store.close()
    await heir.store.close()


async def test_a_lock_outlives_an_exchange_longer_than_its_lease(server: RedisServer, tmp_path: Path) -> None:
    holder, other = await replicas(server, tmp_path, lease=0.8)
    async with holder.store.lock("opentv") as lease:
        lock = other.store.lock("opentv")
        waiting = asyncio.ensure_future(lock.__aenter__())
        for _ in range(10):
            await asyncio.sleep(0.2)
            assert not waiting.done()
            assert lease.held()
        waiting.cancel()
        await asyncio.wait((waiting,))
        await holder.store.save("opentv", PAIR)
    await holder.store.close()
    await other.store.close()


async def test_a_holder_that_was_taken_for_dead_knows_it_and_cannot_overwrite_the_newer_pair(
    server: RedisServer, tmp_path: Path
) -> None:
    frozen, heir = await replicas(server, tmp_path)
    async with frozen.store.lock("opentv") as lost:
        frozen.running.clear()
        assert lost.held()
        frozen.ahead = DEAD_HOLDER
        assert not lost.held()
        freed(server)
        async with heir.store.lock("opentv") as lease:
            assert lease.orphaned
            with pytest.raises(LockLostError):
                await frozen.store.save("opentv", replace(PAIR, access="OLD"))
            await heir.store.save("opentv", PAIR)
        with pytest.raises(LockLostError):  # nor when nobody holds it any more
            await frozen.store.save("opentv", replace(PAIR, access="OLD"))
    assert await frozen.store.load("opentv") == PAIR
    async with heir.store.lock("opentv") as lease:
        assert not lease.orphaned
    await frozen.store.close()
    await heir.store.close()


async def test_a_late_farewell_does_not_free_the_lock_of_the_next_holder(server: RedisServer, tmp_path: Path) -> None:
    late, heir = await replicas(server, tmp_path)
    lock = late.store.lock("opentv")
    await lock.__aenter__()
    freed(server)
    async with heir.store.lock("opentv"):
        await lock.__aexit__(None, None, None)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), late.store.lock("opentv"):
                pass
        await heir.store.save("opentv", PAIR)
    await late.store.close()
    await heir.store.close()


async def test_a_lease_that_ran_out_untaken_still_saves_and_is_taken_up_again(
    server: RedisServer, tmp_path: Path
) -> None:
    holder, other = await replicas(server, tmp_path, lease=2.0)
    async with holder.store.lock("opentv"):
        freed(server)
        await holder.store.save("opentv", PAIR)
        await until(lambda: any(key.endswith(":lock") for key in server.ask("KEYS", "*")), 4, "the lock again")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), other.store.lock("opentv"):
                pass
    await holder.store.close()
    await other.store.close()


async def test_a_save_without_the_lock_waits_for_nobody_and_overwrites_nobodys_work(
    server: RedisServer, tmp_path: Path
) -> None:
    holder, other = await replicas(server, tmp_path)
    async with holder.store.lock("opentv"):
        with pytest.raises(LockLostError, match="another process renews opentv"):
            await other.store.save("opentv", replace(PAIR, access="OTHER"))
        freed(server)
        await other.store.save("opentv", replace(PAIR, access="OTHER"))
        with pytest.raises(LockLostError):
            await holder.store.save("opentv", PAIR)
    assert await holder.store.load("opentv") == replace(PAIR, access="OTHER")
    await holder.store.close()
    await other.store.close()


async def test_a_pair_that_could_not_be_saved_leaves_the_next_holder_in_doubt(
    own_server: RedisServer, tmp_path: Path
) -> None:
    one, two = await replicas(own_server, tmp_path)
    await one.store.save("opentv", PAIR)
    async with one.store.lock("opentv"):
        own_server.stop()
        with pytest.raises(StoreError, match="cannot be used"):
            await one.store.save("opentv", replace(PAIR, access="NEXT"))
        own_server.start()
    async with asyncio.timeout(DEAD_HOLDER + 1), two.store.lock("opentv") as lease:
        assert lease.orphaned
        assert await two.store.load("opentv") == PAIR
    await one.store.close()
    await two.store.close()


async def test_a_holder_survives_a_restart_of_redis_that_loses_everything(
    own_server: RedisServer, tmp_path: Path
) -> None:
    one, two = await replicas(own_server, tmp_path)
    async with one.store.lock("opentv"):
        own_server.ask("FLUSHALL")
        own_server.stop()
        own_server.start()
        await until(lambda: any(key.endswith(":lock") for key in own_server.ask("KEYS", "*")), 4, "the lock again")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), two.store.lock("opentv"):
                pass
        await one.store.save("opentv", PAIR)
    assert await two.store.load("opentv") == PAIR
    await one.store.close()
    await two.store.close()


# Down


async def test_a_redis_that_is_stopped_is_told_from_a_lock_that_is_busy(
    own_server: RedisServer, tmp_path: Path
) -> None:
    one, two = await replicas(own_server, tmp_path)
    async with one.store.lock("opentv"):
        with pytest.raises(TimeoutError):  # busy: it waits
            async with asyncio.timeout(0.3), two.store.lock("opentv"):
                pass
        own_server.stop()
        async with asyncio.timeout(3):
            with pytest.raises(StoreError, match=rf"Redis at 127.0.0.1:{own_server.port} cannot be used: .*refused"):
                async with two.store.lock("opentv"):
                    pass
            for work in (two.store.load("opentv"), two.store.save("opentv", PAIR), two.store.delete("opentv")):
                with pytest.raises(StoreError):
                    await work
            with pytest.raises(StoreError):
                await two.store.names()
    assert "frees itself within 8 s" in one.told.words[0]
    own_server.start()
    await two.store.save("other", PAIR)
    assert await one.store.load("other") == PAIR
    await one.store.close()
    await two.store.close()


async def test_a_redis_that_does_not_answer_costs_a_renewal_one_wait(own_server: RedisServer, tmp_path: Path) -> None:
    replica = Replica(own_server.url, tmp_path, "p:")
    await replica.store.save("opentv", PAIR)
    own_server.freeze()
    begun = asyncio.get_running_loop().time()
    for work in (replica.store.load("opentv"), replica.store.save("opentv", PAIR), replica.store.load("opentv")):
        with pytest.raises(StoreError, match=r"no answer in time|did not answer a moment ago"):
            await work
    assert asyncio.get_running_loop().time() - begun < 3.5
    own_server.thaw()
    await asyncio.sleep(1)
    assert await replica.store.load("opentv") == PAIR
    await replica.store.close()


async def test_changes_come_again_after_a_restart_with_what_there_is_then(
    own_server: RedisServer, tmp_path: Path
) -> None:
    one, two = await replicas(own_server, tmp_path)
    await one.store.save("opentv", PAIR)
    async with watching(two.store) as found:
        await until(lambda: found() == [PAIR], 2, "what there is")
        own_server.stop()
        await until(lambda: bool(two.told.words), 2, "words about it")
        await asyncio.sleep(1)
        own_server.start()
        await until(lambda: found() == [PAIR, PAIR], 2, "what there is now")
        await one.store.save("opentv", replace(PAIR, access="NEXT"))
        await until(lambda: len(found()) == 3, 1, "the next")
    assert len(two.told.words) == 1
    await one.store.close()
    await two.store.close()


async def test_a_cancelled_command_leaves_no_answer_to_the_next_one(store: Store) -> None:
    await store.save("one", replace(PAIR, access="ONE"))
    await store.save("two", replace(PAIR, access="TWO"))
    for step in range(60):
        leaving = asyncio.ensure_future(store.load("one"))
        await asyncio.sleep(step / 20_000)
        leaving.cancel()
        found = await asyncio.gather(*(store.load(name) for name in ("two", "one", "two")))
        assert [pair.access if pair else "" for pair in found] == ["TWO", "ONE", "TWO"]
        await asyncio.wait((leaving,))


# How it is reached


async def test_an_acl_user_needs_few_rights_and_wrong_ones_are_words(server: RedisServer, workshop: Workshop) -> None:
    """The rule of docs/stores.md, word for word."""
    (rule,) = re.findall(r"ACL SETUSER gateway (on >\S+ .*)", (ROOT / "docs/stores.md").read_text())
    rule = rule.replace("PASSWORD", "s3cret%word").replace("opentv-proxy:", "p:")
    assert server.ask("ACL", "SETUSER", "gateway", *rule.split()) == "+OK"
    place = f"127.0.0.1:{server.port}/0"
    store = workshop.store(url=f"redis://gateway:s3cret%25word@{place}", prefix="p:")
    async with store.lock("opentv"):
        await store.save("opentv", PAIR)
    async with watching(store) as found:
        await until(lambda: found() == [PAIR], 1, "what there is")
        await workshop.store(prefix="p:").save("opentv", replace(PAIR, access="NEXT"))
        await until(lambda: len(found()) == 2, 1, "the next")
    assert await store.names() == ["opentv"]
    server.ask("SET", "p:{opentv}:pair", "foreign")
    assert await store.load("opentv") is None
    await store.delete("opentv")
    for url, words in (
        (f"redis://gateway:wr0ng@{place}", "refuses the user name or the password"),
        (f"redis://gateway:s3cret%25word@{place}", "its ACL does not allow"),
    ):
        with pytest.raises(StoreError, match=words) as refused:
            await workshop.store(url=url, prefix="q:").load("opentv")
        assert "s3cret" not in str(refused.value)
        assert "wr0ng" not in str(refused.value)
    server.ask("ACL", "DELUSER", "gateway")


async def test_without_the_right_to_subscribe_changes_are_read(server: RedisServer, workshop: Workshop) -> None:
    rule = "on >word ~p:* resetchannels +@all"
    assert server.ask("ACL", "SETUSER", "reader", *rule.split(" ")) == "+OK"
    store = workshop.store(url=f"redis://reader:word@127.0.0.1:{server.port}/0", prefix="p:")
    await store.save("opentv", PAIR)
    async with watching(store) as found:
        await until(lambda: found() == [PAIR], 1, "what there is")
        await store.save("opentv", replace(PAIR, access="NEXT"))
        await until(lambda: len(found()) == 2, 1, "the next")
    assert workshop.told.words == []
    server.ask("ACL", "DELUSER", "reader")


async def test_tls_with_a_private_authority(tmp_path: Path) -> None:
    need_redis()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert.pem")
    pem = str(tmp_path / "cert.pem")
    files = {"tls-cert-file": pem, "tls-key-file": pem, "tls-ca-cert-file": str(tmp_path / "ca.pem")}
    server = RedisServer(tmp_path / "redis")
    try:
        server.with_tls(files).start()
        url = f"rediss://127.0.0.1:{server.port}/0"
        keys = str(key_file(tmp_path))
        workshop = Workshop({"redis": {"url": f"{url}?ssl_ca_certs={tmp_path / 'ca.pem'}", "key_file": keys}})
        store = workshop.store()
        await store.save("opentv", PAIR)
        async with watching(store) as found:
            await until(lambda: found() == [PAIR], 1, "what there is")
        with pytest.raises(StoreError, match="not trusted here; put that authority into ssl_ca_certs"):
            await workshop.store(url=url).load("opentv")
        await workshop.close()
    finally:
        server.stop()


async def test_sentinels_lead_to_the_master(server: RedisServer, tmp_path: Path, workshop: Workshop) -> None:
    sentinel = RedisServer(tmp_path / "sentinel")
    try:
        sentinel.as_sentinel("tokens", server.port).start()
        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/tokens"
        store = workshop.store(url=url)
        async with store.lock("opentv"):
            await store.save("opentv", PAIR)
        async with watching(store) as found:
            await until(lambda: found() == [PAIR], 1, "what there is")
            await workshop.store().save("opentv", replace(PAIR, access="NEXT"))
            await until(lambda: len(found()) == 2, 1, "the next")
        with pytest.raises(StoreError, match=r"Redis at sentinel 127\.0\.0\.1:1 cannot be used"):
            await workshop.store(url="redis+sentinel://127.0.0.1:1/tokens").load("opentv")
    finally:
        sentinel.stop()


async def test_a_cluster_works_without_notices(tmp_path: Path) -> None:
    need_redis()
    server = RedisServer(tmp_path / "redis")
    try:
        server.as_cluster().start()
        assert server.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383") == "+OK"
        await until(lambda: b"cluster_state:ok" in server.ask("CLUSTER", "INFO"), 5, "the cluster")
        url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{server.port}"
        workshop = Workshop({"redis": {"url": url, "key_file": str(key_file(tmp_path))}})
        one, two = workshop.store(), workshop.store()
        async with watching(two) as found:
            async with one.lock("opentv"):
                await one.save("opentv", PAIR)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3), two.lock("opentv"):
                        pass
            await until(lambda: PAIR in found(), 1, "the pair")
        assert await two.names() == ["opentv"]
        with pytest.raises(StoreError, match=r"Redis at cluster 127\.0\.0\.1:1 cannot be used"):
            await workshop.store(url="redis+cluster://127.0.0.1:1").load("opentv")
        server.stop()
        with pytest.raises(StoreError, match="cannot be used"):
            await one.load("opentv")
        await workshop.close()
    finally:
        server.stop()


async def test_a_changed_url_file_is_used_from_then_on(server: RedisServer, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("redis://:wrong@127.0.0.1:1/0\n")
    workshop = Workshop({"redis": {"url_file": str(file), "key_file": str(key_file(tmp_path))}})
    store = workshop.store()
    with pytest.raises(StoreError):
        await store.load("opentv")
    file.write_text(f"{server.url}\n")
    await store.save("opentv", PAIR)
    file.write_text("not a URL\n")
    assert await store.load("opentv") == PAIR
    await workshop.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://u:s3cret@localhost",
        "localhost:6379",
        "redis://:s3cret@localhost:port",
        "redis://:s3cret@localhost?no_such_option=1",
        "redis://:s3cret@localhost?db=x",
        "redis+sentinel://:s3cret@localhost",
        "redis+sentinel://:s3cret@localhost/service/x",
        "redis+sentinel://:s3cret@localhost/service?no_such_option=1",
        "redis+cluster://:s3cret@localhost/1",
        "redis+cluster://:s3cret@localhost?no_such_option=1",
        "redis+cluster://:s3cret@,",
    ],
)
async def test_a_url_that_cannot_be_used_is_refused_at_start_and_not_repeated(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"^store\.redis\.url: ") as refused:
        Workshop({"redis": {"url": url, "key_file": str(key_file(tmp_path))}}).store()
    assert "s3cret" not in str(refused.value)
