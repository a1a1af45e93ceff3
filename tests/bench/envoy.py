"""Envoy's configuration: its HTTP connection manager with the credential injector in front of the router.

Shapes: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/credential_injector_filter
"""

import json

from tests.bench import tools
from tests.bench.configs import Setup

_HTTP = "type.googleapis.com/envoy.extensions"


def envoy(setup: Setup) -> list[str]:
    injector = _injector(setup)
    manager: dict[str, object] = {
        "@type": f"{_HTTP}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "crm",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "crm",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "platform", "timeout": "60s"}}],
                }
            ]
        },
        "http_filters": [
            {"name": "envoy.filters.http.credential_injector", "typed_config": injector},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_HTTP}.filters.http.router.v3.Router"},
            },
        ],
    }
    if setup.access_log:
        kind = f"{_HTTP}.access_loggers.file.v3.FileAccessLog"
        log = {"@type": kind, "path": str(setup.access_log)}
        manager["access_log"] = [{"name": "envoy.access_loggers.file", "typed_config": log}]
    config = {
        "admin": {"address": _address(setup.admin)},
        "static_resources": {
            "listeners": [
                {
                    "name": "crm",
                    "address": _address(setup.listen),
                    "filter_chains": [
                        {
                            "filters": [
                                {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
                            ]
                        }
                    ],
                }
            ],
            "clusters": [_cluster(setup.upstream)],
        },
    }
    flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    flags += ["--service-node", "bench", "--service-cluster", "bench"]  # the secret's file counts as discovery
    return [tools.find("envoy"), *flags, "-c", setup.write("envoy.json", json.dumps(config))]


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(port: int) -> dict[str, object]:
    endpoint = {"endpoint": {"address": _address(port)}}
    return {
        "name": "platform",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "platform", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _injector(setup: Setup) -> dict[str, object]:
    """The filter that adds the token, read from a file as a mounted secret would be."""
    value = {"secret": {"inline_string": f"Bearer {setup.rig.token}"}}
    kind = f"{_HTTP}.transport_sockets.tls.v3.Secret"
    secret = {"resources": [{"@type": kind, "name": "credential", "generic_secret": value}]}
    secret_file = setup.write("secret.json", json.dumps(secret))
    generic = {
        "@type": f"{_HTTP}.http.injected_credentials.generic.v3.Generic",
        "credential": {"name": "credential", "sds_config": {"path_config_source": {"path": secret_file}}},
        "header": "Authorization",
    }
    return {
        "@type": f"{_HTTP}.filters.http.credential_injector.v3.CredentialInjector",
        "overwrite": True,
        "credential": {"name": "envoy.http.injected_credentials.generic", "typed_config": generic},
    }
