"""Who may use the gateway: it lends an operator's rights to whoever reaches it, so everything is refused by default.

Two questions, both must be answered well: does the client come from an allowed address, and (where any of basic,
api_keys or client certificates is configured) does it bring a credential. Pure but for ``reload_secrets``.
"""

import hashlib
import secrets
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable, Iterable
from hmac import compare_digest
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Literal, NamedTuple

from proxy.config import Clients as ClientsConfig
from proxy.errors import ConfigError, Fault, SecretError
from proxy.gateway.headers import fold

_KNOWN_MAX = 4096  # addresses whose judgement is remembered
_HOPS_MAX = 32  # X-Forwarded-For elements that are read, from the right
_NOBODY = hashlib.sha256(secrets.token_bytes(32)).digest()  # the password of users that do not exist
_REALM = b"opentv-auth-proxy"

Network = IPv4Network | IPv6Network
Values = Callable[[bytes], list[bytes]]


class _Place(NamedTuple):
    """What is known of an address, for good: the networks are fixed for a Clients' lifetime."""

    address: str
    allowed: bool
    trusted: bool


class Verdict:
    """reason: why the client is refused, the metric's label; None when it is admitted.

    client: its address, X-Forwarded-For resolved. consumed: folded names of the fields that carry a credential for this
    gateway and never travel on. trusted: whether the peer is a trusted proxy. tried: a credential was presented, and
    the answer tells that it is wrong. repeated: the name of a credential's field that came more than once, or empty.
    """

    __slots__ = ("client", "consumed", "reason", "repeated", "tried", "trusted")

    def __init__(
        self,
        reason: Literal["address", "credential"] | None,
        client: str,
        consumed: frozenset[bytes],
        trusted: bool,
        *,
        tried: bool = False,
        repeated: str = "",
    ) -> None:
        self.reason: Literal["address", "credential"] | None = reason
        self.client = client
        self.consumed = consumed
        self.trusted = trusted
        self.tried = tried
        self.repeated = repeated

    def __repr__(self) -> str:
        return f"<Verdict {self.reason or 'admitted'} {self.client}>"


_NOTHING: frozenset[bytes] = frozenset()


class Clients:
    """Judges connections and requests by one ``clients`` section.

    Raises ConfigError when a secret cannot be read at the start. State: ``_passwords`` and ``_keys``, SHA-256 digests,
    replaced as a whole by ``reload_secrets``; ``_places``, a bounded memory of addresses. All on the event loop.
    """

    def __init__(self, config: ClientsConfig, *, listen_has_client_ca: bool) -> None:
        self._allow_from: tuple[Network, ...] = tuple(config.allow_from)
        self._trusted: tuple[Network, ...] = tuple(config.trusted_proxies)
        self._places: dict[str, _Place] = {}
        self._password_sources = {user.encode(): entry.secret("password") for user, entry in config.basic.items()}
        self._keys_source = config.api_keys.secret("keys") if config.api_keys else None
        self._passwords: dict[bytes, bytes] = {}
        self._keys: tuple[bytes, ...] = ()
        self._certificate = listen_has_client_ca
        self._all = config.require == "all"
        self._key_field = config.api_keys.header.lower().encode() if config.api_keys else b""
        self._key_only = frozenset({fold(self._key_field)}) if self._key_field else _NOTHING
        self._key_and_basic = self._key_only | {b"authorization"}
        self._credentials = bool(config.basic or config.api_keys or listen_has_client_ca)
        try:
            self.reload_secrets()
        except SecretError as error:
            raise ConfigError([Fault("clients", str(error))]) from None

    def reload_secrets(self) -> None:
        """Read every secret anew. What could be read is in force at once, even when this raises SecretError.

        A file that cannot be read (being replaced, a volume gone) leaves its old secret in force. A keys file without
        a key revokes them all: that is how an operator takes them back.
        """
        faults: list[str] = []
        passwords: dict[bytes, bytes] = {}
        for user, source in self._password_sources.items():
            try:
                passwords[user] = _digest(source.read().encode()) if source else _NOBODY
            except SecretError as error:
                faults.append(str(error))
                passwords[user] = self._passwords.get(user, _NOBODY)
        if self._keys_source is not None:
            try:
                keys = self._keys_source.keys()
                self._keys = tuple(_digest(key.encode()) for key in keys)
                if not self._keys:
                    faults.append(f"the keys file {self._keys_source.path} holds no key: no client is admitted by one")
            except SecretError as error:
                faults.append(str(error))
        self._passwords = passwords
        if faults:
            raise SecretError("; ".join(faults))

    def connection_verdict(self, peer_ip: str) -> Literal["admitted", "denied", "ask"]:
        """Asked once per connection. Only after ``ask`` has each request on it to be put before ``judge``."""
        place = self._place(peer_ip)
        if place.trusted:
            return "ask"
        if not place.allowed:
            return "denied"
        return "ask" if self._credentials else "admitted"

    def judge(self, peer_ip: str, has_certificate: bool, values: Values) -> Verdict:
        """One request. ``values(b"x-forwarded-for")``: all values of the field with that lower-case name, in order.

        has_certificate: the client showed one that the listener's ``client_ca_file`` vouches for.
        """
        peer = self._place(peer_ip)
        client = self._behind(peer, values(b"x-forwarded-for")) if peer.trusted else peer
        if not client.allowed:
            return Verdict("address", client.address, _NOTHING, peer.trusted)
        if not self._credentials:
            return Verdict(None, client.address, _NOTHING, peer.trusted)
        consumed = self._key_only
        proofs: list[bool] = []
        tried, repeated = False, ""
        if self._certificate:
            proofs.append(has_certificate)
        if self._key_field:
            keys = values(self._key_field)
            proofs.append(self._knows_key(keys))
            tried = len(keys) == 1
            if len(keys) > 1:
                repeated = self._key_field.decode("latin-1")
        if self._passwords:
            authorizations = values(b"authorization")
            if len(authorizations) > 1:  # one of them could travel on; which one counts is anybody's guess
                twice = "Authorization"
                return Verdict("credential", client.address, self._key_and_basic, peer.trusted, repeated=twice)
            known, ours, basic = self._knows_user(authorizations)
            proofs.append(known)
            tried |= basic
            if ours:
                consumed = self._key_and_basic
        if all(proofs) if self._all else any(proofs):
            return Verdict(None, client.address, consumed, peer.trusted)
        return Verdict("credential", client.address, consumed, peer.trusted, tried=tried, repeated=repeated)

    def challenge(self) -> list[bytes]:
        """Complete header lines for a 401, which must name a way in (RFC 9110 11.6.1).

        RFC 7617 2.1 for ``charset``. Keys and certificates have no registered scheme; the words say what is expected.
        """
        lines = []
        if self._passwords:
            lines.append(b'WWW-Authenticate: Basic realm="%b", charset="UTF-8"\r\n' % _REALM)
        if self._key_field:
            lines.append(b'WWW-Authenticate: ApiKey realm="%b", header="%b"\r\n' % (_REALM, self._key_field))
        if self._certificate and not lines:
            lines.append(b'WWW-Authenticate: ClientCertificate realm="%b"\r\n' % _REALM)
        return lines

    def _place(self, text: str) -> _Place:
        place = self._places.get(text)
        if place is not None:
            return place
        address = _address(text)
        if address is None:
            return _Place(text, allowed=False, trusted=False)
        if len(self._places) >= _KNOWN_MAX:
            self._places.clear()
        place = _Place(str(address), _within(address, self._allow_from), _within(address, self._trusted))
        self._places[text] = place
        return place

    def _behind(self, peer: _Place, forwarded: list[bytes]) -> _Place:
        """The first address, from the right, that no trusted proxy has: everything left of it is the client's own word.

        An element that is no address ("unknown", "_hidden") was written by a proxy that is trusted but would not say
        who its peer is. Nobody vouches for that peer's address, so it is not allowed, whatever ``allow_from`` says;
        the last trusted hop stands in for it in logs. Likewise beyond ``_HOPS_MAX``.
        """
        place = peer
        elements = [element.strip() for element in b",".join(forwarded).split(b",")]
        named = [element for element in elements if element]  # RFC 9110 5.6.1.2: empty elements do not count
        for count, element in enumerate(reversed(named)):
            text = element.decode("latin-1")
            host = text if text in self._places else _host(text)
            if host is None or count == _HOPS_MAX:
                return _Place(place.address, allowed=False, trusted=False)
            place = self._place(host)
            if not place.trusted:
                break
        return place

    def _knows_key(self, values: list[bytes]) -> bool:
        if len(values) != 1:
            return False
        digest = _digest(values[0])
        found = False
        for key in self._keys:  # all of them: the time taken must not tell which one came close
            found |= compare_digest(digest, key)
        return found

    def _knows_user(self, authorizations: list[bytes]) -> tuple[bool, bool, bool]:
        """Whether the one value admits its user; whether it is meant for this gateway and must not travel on; whether
        it is Basic at all.

        Meant for us: a user of ours, also with a wrong password (it may be the old one, or nearly the right one), and
        Basic that cannot be read, which is of no use to anybody else. Another user's, and other schemes, are not.
        """
        words = b"".join(authorizations).split(None, 1)
        if not words or words[0].lower() != b"basic":
            return False, False, False
        try:
            user, colon, password = a2b_base64(b"".join(words[1:]), strict_mode=True).partition(b":")
        except Base64Error:
            return False, True, True
        known = self._passwords.get(user)
        # An unknown user costs the same hash and comparison: the time taken must not tell which names exist.
        same = compare_digest(_digest(password), known or _NOBODY)
        return same and known is not None, known is not None or not colon, True


def _digest(secret: bytes) -> bytes:
    """Comparing digests in constant time tells nothing, not even the length."""
    return hashlib.sha256(secret).digest()


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An IPv4-mapped IPv6 address is the IPv4 address; a scope (``fe80::1%eth0``) does not count."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.version == 6 and address.ipv4_mapped) or address


def _within(address: IPv4Address | IPv6Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _host(element: str) -> str | None:
    """The address of an X-Forwarded-For element: also ``192.0.2.1:4711``, ``[2001:db8::1]:4711``, or in quotes."""
    text = element.strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    return text if _address(text) is not None else None
