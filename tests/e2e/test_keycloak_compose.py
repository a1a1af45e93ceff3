"""The realm of compose.yaml's Keycloak in a real one, with its gateway in front of the sandbox's echo."""

import json
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import yaml

from proxy.sandbox import Sandbox
from tests.conftest import StartGateway
from tests.support.compose import CONFIG, ROOT, SERVICES, mounts
from tests.support.keycloak import Administrator, KeycloakServer


async def test_the_demonstrations_realm_lets_its_gateway_in(
    keycloak_server: KeycloakServer, start: StartGateway
) -> None:
    service = SERVICES["gateway-keycloak"]
    places = mounts(service)
    config: dict[str, Any] = yaml.safe_load(places[CONFIG].read_text())
    identity = config["identities"]["opentv"]
    identity["password_file"] = str(places[identity["password_file"]])
    imported = json.loads((ROOT / "config/compose/keycloak/nagra-realm.json").read_text())
    del imported["realm"]
    async with Administrator(keycloak_server) as administrator, Sandbox() as platform, aiohttp.ClientSession() as http:
        realm = await administrator.create_realm(**imported)
        env = {
            **service["environment"],
            "OPENTV_PROXY__LISTEN": "127.0.0.1:0",
            "OPENTV_PROXY__ADMIN": "127.0.0.1:0",
            "OPENTV_PROXY__CLIENTS__ALLOW_FROM": '["127.0.0.0/8"]',
            "OPENTV_PROXY__IDENTITIES__OPENTV__TOKEN_URL": realm.token_url,
        }
        echo = urlsplit(env["OPENTV_PROXY__ROUTES__0__UPSTREAM"])
        env["OPENTV_PROXY__ROUTES__0__UPSTREAM"] = f"{platform.url}{echo.path}"
        gateway = await start(config, env)
        async with http.get(f"{gateway.url}/adm/v1/devices") as answer:
            seen = await answer.json()
        async with http.get(f"{gateway.admin_url}/status") as answer:
            token = (await answer.json())["identities"]["opentv"]
        await gateway.stop()
        await realm.delete()
    assert (token["state"], seen["target"]) == ("fresh", "/echo/adm/v1/devices")
    assert token["fingerprint"] in str(dict(seen["headers"])["Authorization"])
    assert [record for record in gateway.records if record["event"] == "roles missing"] == []
