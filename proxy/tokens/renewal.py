"""One renewal: under the store's lock, refresh or log in, and store the pair before anybody uses it.

Replicas share a session by the store. Whoever renews looks there first, under the lock: another may have renewed
already. A refresh token of the fleet is presented only by who holds the lock, finds that very token stored, and knows
of nobody who may have presented it; in any other case a login is the price, never a second presentation (K4).
"""

from collections.abc import Callable
from typing import Final
from uuid import uuid4

from proxy.counters import Trigger
from proxy.errors import LockLostError, StoreError, TokenError
from proxy.tokens.clock import Clock
from proxy.tokens.custody import Custody
from proxy.tokens.exchanges import Exchanges
from proxy.tokens.ledger import Ledger
from proxy.tokens.pace import QUICK_LOGIN
from proxy.tokens.pair import TokenPair
from proxy.tokens.plan import Life
from proxy.tokens.sessions import Sessions
from proxy.tokens.stores.base import Lease
from proxy.tokens.systems.base import Step

EXCHANGES: Final = 3
"""The most one renewal makes: a refresh, once more when its answer was lost, a login (B7)."""
AGAIN_AFTER: Final = 0.5
APART: Final = 1.0
"""Seconds, times a random number, that part the logins of replicas while no lock does (K7)."""


class Renewal:
    """Does what ``Life`` decides. At most one runs at a time: the keeper sees to that.

    timeout: seconds after which a renewal begins no further exchange. new_id: makes correlation ids.

    State, of the event loop's thread: the pair of the fleet's session that was left for want of a store, and the one
    that was at hand when a login was last tried twice.
    """

    def __init__(
        self,
        exchanges: Exchanges,
        custody: Custody,
        sessions: Sessions,
        ledger: Ledger,
        clock: Clock,
        *,
        timeout: float,
        new_id: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        self._exchanges = exchanges
        self.custody = custody
        self._sessions = sessions
        self._ledger = ledger
        self._clock = clock
        self._timeout = timeout
        self._new_id = new_id
        self._left: TokenPair | None = None
        self._met: TokenPair | None = None

    async def run(self, life: Life, trigger: Trigger, *, urgent: bool, correlation_id: str = "") -> TokenPair:
        """The next pair, stored. Raises TokenError when there is none, with ``life`` told. urgent: somebody waits.
        correlation_id: of the request that asked, if one did."""
        asked = life.pair
        async with self.custody.lock() as lease:
            presentable, down = await self._take_up(life, lease)
            now, pair = self._clock.mono(), life.pair
            if pair is not None and pair is not asked and trigger != "manual" and life.alive(now) and not life.anew:
                return pair
            step = life.step(now)
            if (step == "refresh" and not presentable) or (step == "login" and down and not life.can_login):
                presentable = await self._unentitled(life, trigger, down=down, urgent=urgent)
            life.entitle(presentable=presentable)
            if not presentable and life.suspended(self._clock.mono()):
                raise TokenError("invalid_credentials", "the login is suspended")
            if life.pair is not pair:  # taken up meanwhile
                return await self._overtaken(life, asked)
            began = self._clock.mono()
            for left in reversed(range(EXCHANGES)):
                step = life.step(self._clock.mono(), presentable=presentable)
                if step == "login" and (pause := life.login_wait(self._clock.mono())):
                    await self._clock.sleep(pause)
                basis = life.pair
                if lease is not None and not lease.held():
                    return await self._overtaken(life, asked)
                try:
                    pair = await self._exchanges.make(
                        step, basis, trigger, correlation_id or self._new_id(), probing=life.known_down
                    )
                except TokenError as error:
                    if lease is not None and not lease.held():
                        await self._catch_up(life)
                    met = left > 0 and down and self._may_have_met(life, step, error)
                    if met:
                        await self._clock.sleep(QUICK_LOGIN * (1 + life.draw()))
                    if life.pair is not basis:  # taken up meanwhile
                        return await self._overtaken(life, asked)
                    if met:
                        continue
                    if step == "refresh":
                        life.refresh_failed(error)
                    now = self._clock.mono()
                    patient = urgent and now - began < self._timeout - AGAIN_AFTER
                    if not (left and life.carries_on(step, error, now, patient=patient)):
                        life.failed(error, step, now)
                        if error.result == "invalid_credentials" and self.custody.shared:
                            await self._clock.sleep(QUICK_LOGIN)  # the lock keeps the others from failing right after
                        raise
                    if error.lost:
                        await self._clock.sleep(AGAIN_AFTER)
                else:
                    return await self._kept(life, step, basis, pair)
        raise AssertionError("the last exchange returns or raises")

    async def load(self) -> TokenPair | None:
        """What the store still holds for this identity and configuration."""
        pair = await self._found()
        if pair is not None:
            self.custody.note(pair)
            self._ledger.adopted(pair, "store")
        return pair

    def inherit(self, former: object, pair: TokenPair | None) -> TokenPair | None:
        """After a reload: the former renewal's pair, where that meant the same and it is in no store; else None."""
        same = isinstance(former, Renewal) and self.custody.inherit(former.custody)
        return pair if same and pair is not None and not self.custody.known(pair) else None

    def follow(self, life: Life, found: TokenPair) -> bool:
        """Goes on with what another replica stored; False when that is nothing new. A session that this replica opened
        for want of a store, and that nobody else knows, ends."""
        mine = life.pair
        if mine is not None and found.fingerprint == mine.fingerprint:
            self.custody.note(found)
        if self.custody.known(found):
            return False
        now = self._clock.mono()
        if mine is not None and self.custody.alone(mine) and mine.session != found.session and life.worth_a_logout(now):
            self._sessions.retire(mine)
        self.custody.note(found)
        self._agreed(found)
        self._ledger.adopted(found, "replica")
        life.adopted(found, now)
        if self.changed(found):
            life.begin_anew()
        return True

    async def share(self, life: Life) -> TokenPair | None:
        """Stores the pair at hand, now that the store may be back; or gives the one that another replica stored in the
        meantime. The session that is replaced thereby ends."""
        mine = life.pair
        async with self.custody.lock() as lease:
            try:
                found = await self.custody.load() if lease else None
            except StoreError:
                return None
            if lease is None or mine is None or life.pair is not mine:
                return None
            if found is not None and self.follow(life, found):
                return found
            try:
                stored = self.custody.known(mine) or await self.custody.save(mine)
            except LockLostError:
                return None
            if stored:
                self._left = found or self._left
                self._agreed(mine)
        return None

    async def look(self, life: Life) -> TokenPair | None:
        """What another replica stored, or is about to: waits for its turn like who renews, but exchanges nothing."""
        async with self.custody.lock() as lease:
            found = await self._found() if lease else None
            return found if found is not None and self.follow(life, found) else None

    def changed(self, pair: TokenPair | None) -> bool:
        """Whether a person put another seed in place than the one that the pair's session came from."""
        return self._exchanges.changed(pair)

    def alone(self, pair: TokenPair) -> bool:
        """Whether the session ends with this process: nobody else knows of it, and it is the gateway's to end."""
        return self._sessions.ours(pair) and self.custody.alone(pair)

    async def close(self, last: TokenPair | None) -> None:
        """Ends the sessions that were replaced, and the last one, where given."""
        if last is not None and not self.custody.shared:  # a shared store holds another's pair than one of our own
            await self.custody.forget()
        await self._sessions.close(last)

    # Inside

    async def _take_up(self, life: Life, lease: Lease | None) -> tuple[bool, bool]:
        """Looks again, under the lock, and goes on with what is there. Whether the refresh token may be presented then,
        and whether the store is down."""
        custody, mine = self.custody, life.pair
        if not custody.shared:
            return True, False
        try:
            found = await custody.load() if lease else None
        except StoreError:
            lease = found = None
        if lease is None:
            return mine is None or not custody.known(mine), True
        if found is not None and self.follow(life, found):
            mine = found
        if mine is None or not custody.known(mine):
            return True, False
        # Gone from the store, or a former one: data were lost there, and with them perhaps a newer pair. Orphaned: it
        # may be spent; on this host who had the lock is dead for certain, and one more presentation is worth a try.
        stored = found is not None and found.fingerprint == mine.fingerprint
        return stored and (custody.local or not lease.orphaned), False

    async def _unentitled(self, life: Life, trigger: Trigger, *, down: bool, urgent: bool) -> bool:
        """The refresh token may be another replica's to present. False: log in. Raises TokenError when there is nothing
        to do but wait; True when there is no other chance."""
        now = self._clock.mono()
        if not life.can_login:
            if not down:
                return True
            words = "the token store is down, and without it a refresh token that replicas share is not presented"
            error = TokenError("network", words)
            self._ledger.withheld(trigger, error, self._clock.now())
            life.failed(error, "refresh", now)
            raise error
        if down:
            if not urgent and life.waits_for_store(now):
                raise TokenError("network", "the token store is down: the token at hand serves on")
            if not self.custody.local:
                await self._clock.sleep(life.draw() * APART)
        return False

    def _may_have_met(self, life: Life, step: Step, error: TokenError) -> bool:
        """Whether a login was refused that no lock kept apart from another replica's (K7). With a password that was
        good before, that is more likely than another password: the login is tried once more, soon. Once a token."""
        if step != "login" or error.result != "invalid_credentials" or life.pair in (None, self._met):
            return False
        self._met = life.pair
        return True

    async def _catch_up(self, life: Life) -> None:
        """Goes on with what is stored."""
        found = await self._found()
        if found is not None:
            self.follow(life, found)

    async def _found(self) -> TokenPair | None:
        try:
            return await self.custody.load()
        except StoreError:
            return None

    async def _overtaken(self, life: Life, asked: TokenPair | None) -> TokenPair:
        """This process stood still until its lock ran out: what another replica stored meanwhile is what counts."""
        await self._catch_up(life)
        pair = life.pair
        if pair is not None and pair is not asked and life.alive(self._clock.mono()):
            return pair
        error = TokenError("network", "this process stood still until its lock on the token store ran out: once more")
        life.failed(error, "refresh", self._clock.mono())
        raise error

    async def _kept(self, life: Life, step: Step, basis: TokenPair | None, pair: TokenPair) -> TokenPair:
        """The pair to use, after storing it. Before use: after a crash between the two, the stored refresh token would
        be a spent one."""
        try:
            stored = await self.custody.save(pair)
        except LockLostError:
            found = await self._found()
            if found is None:
                return pair
            if found.session != pair.session:
                self._sessions.retire(pair)
            self.follow(life, found)
            return life.pair if life.pair is not None and life.alive(self._clock.mono()) else pair
        replaced = basis if step == "login" and life.pair is basis else None
        if replaced is not None and life.worth_a_logout(self._clock.mono()):
            if stored or self.custody.alone(replaced):
                self._sessions.retire(replaced)
            else:
                self._left = replaced  # with the store down, other replicas may use it still
        if stored:
            self._agreed(pair)
        return pair

    def _agreed(self, pair: TokenPair) -> None:
        """The fleet goes on with this pair, so nobody uses what was left for want of a store."""
        left, self._left = self._left, None
        if left is not None and left.session != pair.session:
            self._sessions.retire(left)
