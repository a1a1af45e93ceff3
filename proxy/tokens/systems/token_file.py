"""A bearer token in a file that something else keeps fresh. Pure but for reading it."""

from math import inf

from proxy.config import SecretValue, TokenFileIdentity
from proxy.errors import SecretError
from proxy.tokens import claims
from proxy.tokens.pair import Grant
from proxy.tokens.systems.base import Local
from proxy.tokens.systems.replies import LONGEST_TOKEN


class TokenFile(Local):
    def __init__(self, identity: TokenFileIdentity) -> None:
        self._file = SecretValue(path=identity.file)

    @property
    def place(self) -> str:
        return str(self._file.path)

    def mint(self, wall: float) -> Grant:
        token = self._file.read().strip()
        if not token or len(token) > LONGEST_TOKEN or not all("!" <= character <= "~" for character in token):
            raise SecretError(f"the token file {self.place} holds no token: one line of printable ASCII is expected")
        inside = claims.decode(token)
        if token.startswith("eyJ") and token.count(".") != 4 and (not inside or token.endswith(".")):
            # A JWT begins like this, always (an object in base64), and an encrypted one has four dots: what cannot be
            # read is half written.
            raise SecretError(f"the token in {self.place} is cut off, or no JWT that can be read")
        expires = claims.moment(inside, "exp")
        lifetime = inf if expires is None else expires - wall
        if lifetime <= 0:
            raise SecretError(f"the token in {self.place} has expired; compare this machine's clock with its issuer's")
        return Grant(
            token,
            refresh=None,
            lifetime=lifetime,
            issued_at=claims.moment(inside, "iat"),
            roles=claims.roles(inside) if inside else None,
        )
