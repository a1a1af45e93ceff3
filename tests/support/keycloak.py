"""A real Keycloak for the tests: a server, and a realm of a test's own with the administrator's levers."""

import itertools
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import trustme

from tests.support import keycloak_build
from tests.support.keycloak_build import ADMIN, BASE_PATH, PASSWORD

REALM_FILE = Path(__file__).with_name("realm.json")
CLIENT = "crm_client"
USER = "crm_client_user"
USER_PASSWORD = "correct horse"

_numbers = itertools.count(1)


class KeycloakServer:
    """One server on 127.0.0.1, plain and with TLS. url/tls_url: with the base path, no trailing slash.

    ca: who signed its certificate, and whose clients' certificates it takes. A server that a contributor named
    (``KEYCLOAK_URL``) has only ``url``, and is neither started nor stopped.
    """

    def __init__(self, url: str, tls_url: str | None = None, ca: trustme.CA | None = None) -> None:
        self.url = url
        self.tls_url = tls_url
        self.ca = ca

    def close(self) -> None:
        """Nothing to end."""


class OwnServer(KeycloakServer):
    """A server that this process started, from a copy in ``folder``. Blocking; ports and data outlive a kill."""

    def __init__(self, folder: Path) -> None:
        built = keycloak_build.ensure_built()
        self._home = keycloak_build.copy_for_use(built, folder / "keycloak")
        self._logs = folder
        ca = trustme.CA()
        issued = ca.issue_cert("localhost", "127.0.0.1")
        issued.private_key_pem.write_to_path(str(folder / "server.key"))
        with (folder / "server.pem").open("wb") as chain:
            chain.writelines(pem.bytes() for pem in issued.cert_chain_pems)
        ca.cert_pem.write_to_path(str(folder / "ca.pem"))
        self._port, self._tls_port = keycloak_build.free_port(), keycloak_build.free_port()
        super().__init__(
            f"http://127.0.0.1:{self._port}{BASE_PATH}", f"https://localhost:{self._tls_port}{BASE_PATH}", ca
        )
        self._process = self._run()
        self.boot_seconds = self.wait_ready()

    def _run(self) -> keycloak_build.Process:
        options = [
            f"--https-port={self._tls_port}",
            f"--https-certificate-file={self._logs / 'server.pem'}",
            f"--https-certificate-key-file={self._logs / 'server.key'}",
            f"--truststore-paths={self._logs / 'ca.pem'}",
        ]
        return keycloak_build.Process(self._home, options, self._logs, self._port)

    def wait_ready(self) -> float:
        """Until it serves; the seconds that took."""
        return self._process.wait_ready(90.0)

    def kill(self) -> None:
        """As a power cut."""
        self._process.kill()

    def launch(self) -> None:
        """Start it again on the same ports and data; ``answers`` tells when it is back."""
        self._process = self._run()

    def answers(self) -> bool:
        return self._process.answers()

    def close(self) -> None:
        self._process.stop()
        shutil.rmtree(self._home)


def named_server(environ: Mapping[str, str] = os.environ) -> KeycloakServer | None:
    """The server that a contributor named in ``KEYCLOAK_URL``, base path included; admin and password: admin."""
    url = environ.get("KEYCLOAK_URL")
    return KeycloakServer(url.rstrip("/")) if url else None


class Administrator:
    """The admin REST API of one server, as an async context manager."""

    def __init__(self, server: KeycloakServer) -> None:
        self.server = server
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        self._bearer = ""
        self._bearer_until = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def call(self, method: str, path: str, **arguments: Any) -> Any:
        """One call below ``/admin/realms``; the JSON it answers with, None where there is none."""
        headers = {"Authorization": f"Bearer {await self._token()}"}
        url = f"{self.server.url}/admin/realms{path}"
        async with self._http.request(method, url, headers=headers, **arguments) as response:
            body = await response.read()
            assert response.status < 300, f"{method} {path}: {response.status} {body!r}"
            return json.loads(body) if body else None

    async def _token(self) -> str:
        if time.monotonic() >= self._bearer_until:
            form = {"grant_type": "password", "client_id": "admin-cli", "username": ADMIN, "password": PASSWORD}
            url = f"{self.server.url}/realms/master/protocol/openid-connect/token"
            async with self._http.post(url, data=form) as response:
                response.raise_for_status()
                self._bearer = (await response.json())["access_token"]
            self._bearer_until = time.monotonic() + 30.0
        return self._bearer

    async def create_realm(self, **overrides: object) -> "Realm":
        """A realm of its own name from realm.json; ``overrides``: further fields of Keycloak's RealmRepresentation."""
        name = f"nagra-{os.getpid()}-{next(_numbers)}"
        await self.call("POST", "", json={**json.loads(REALM_FILE.read_text()), "realm": name, **overrides})
        realm = Realm(self, name)
        await realm.look_up()
        return realm


class Realm:
    """One realm, with the levers that an administrator has, and its event list: the witness."""

    def __init__(self, admin: Administrator, name: str) -> None:
        self.name = name
        self._admin = admin
        self._client_id = self._user_id = ""

    async def look_up(self) -> None:
        """The ids behind the names."""
        self._client_id = (await self._call("GET", f"/clients?clientId={CLIENT}"))[0]["id"]
        self._user_id = (await self._call("GET", f"/users?username={USER}&exact=true"))[0]["id"]

    async def _call(self, method: str, path: str, **arguments: Any) -> Any:
        return await self._admin.call(method, f"/{self.name}{path}", **arguments)

    @property
    def server(self) -> KeycloakServer:
        return self._admin.server

    @property
    def url(self) -> str:
        return f"{self.server.url}/realms/{self.name}"

    @property
    def token_url(self) -> str:
        return f"{self.url}/protocol/openid-connect/token"

    @property
    def tls_token_url(self) -> str:
        """The same by TLS, with a certificate of the server's own ``ca``."""
        return self.token_url.replace(self.server.url, self.server.tls_url or "", 1)

    @property
    def certs_url(self) -> str:
        return f"{self.url}/protocol/openid-connect/certs"

    async def events(self, *types: str) -> list[dict[str, Any]]:
        """What happened, oldest first; all types when none is named."""
        wanted = [("type", name) for name in types]
        found = await self._call("GET", "/events", params=[*wanted, ("max", "1000")])
        return list(reversed(found))

    async def count(self, *types: str) -> int:
        return len(await self.events(*types))

    async def sessions(self) -> list[dict[str, Any]]:
        """The user's sessions now."""
        found = await self._call("GET", f"/users/{self._user_id}/sessions")
        return list(found)

    async def logout_user(self) -> None:
        """An administrator ends every session of the user."""
        await self._call("POST", f"/users/{self._user_id}/logout")

    async def push_not_before(self) -> int:
        """Every token issued before now is dead; that time in Unix seconds."""
        now = int(time.time())
        await self.patch(notBefore=now)
        await self._call("POST", "/push-revocation")
        return now

    async def set_password(self, password: str) -> None:
        credential = {"type": "password", "value": password, "temporary": False}
        await self._call("PUT", f"/users/{self._user_id}/reset-password", json=credential)

    async def locked(self) -> bool:
        """Has brute force detection locked the user?"""
        found = await self._call("GET", f"/attack-detection/brute-force/users/{self._user_id}")
        return bool(found["disabled"])

    async def patch(self, **fields: object) -> None:
        """Change fields of the realm."""
        await self._call("PUT", "", json={"realm": self.name, **fields})

    async def patch_client(self, **fields: object) -> None:
        """Change fields of the client."""
        current = await self._call("GET", f"/clients/{self._client_id}")
        await self._call("PUT", f"/clients/{self._client_id}", json={**current, **fields})

    async def patch_user(self, **fields: object) -> None:
        """Change fields of the user."""
        current = await self._call("GET", f"/users/{self._user_id}")
        await self._call("PUT", f"/users/{self._user_id}", json={**current, **fields})

    async def delete(self) -> None:
        await self._call("DELETE", "")
