"""What every section of the configuration has in common, and the TLS settings that several of them share."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic.fields import FieldInfo

from proxy.config.secrets import SecretValue
from proxy.config.types import FilePath, Flag
from proxy.config.web import ServerName


def _nullable(field: FieldInfo) -> bool:
    return type(None) in get_args(field.annotation)


class Model(BaseModel):
    """A section: frozen, no unknown keys, and an error never repeats the input."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: object) -> object:
        """``clients:`` with every line below it commented out is YAML's null: the same as not written."""
        if not isinstance(data, dict):
            return data
        fields = cls.model_fields
        return {
            key: value
            for key, value in data.items()
            if not (value is None and key in fields and not _nullable(fields[key]))
        }

    def secret(self, name: str) -> SecretValue | None:
        """The secret ``name``, from the key ``name`` or from ``name_file``; None when neither is configured."""
        fields = type(self).model_fields
        if name not in fields and f"{name}_file" not in fields:
            raise KeyError(name)
        path = getattr(self, f"{name}_file", None)
        if path is not None:
            return SecretValue(path=path)
        value = getattr(self, name, None)
        if isinstance(value, list):
            return SecretValue(text="\n".join(item.get_secret_value() for item in value))
        return SecretValue(text=value.get_secret_value()) if isinstance(value, SecretStr) else None


def one_of(name: str) -> ConfigDict:
    """For a section that needs exactly one of the keys ``name`` and ``name_file``."""
    return ConfigDict(json_schema_extra={"x-needs": name})


def files_of(section: object) -> set[Path]:
    """Every file that a section names, however deep: what a FileWatcher has to watch for it."""
    if isinstance(section, Path):
        return {section}
    parts: Iterable[Any] = ()
    if isinstance(section, BaseModel):
        parts = (value for _, value in section)
    elif isinstance(section, dict):
        parts = section.values()
    elif isinstance(section, list):
        parts = section
    return {path for part in parts for path in files_of(part)}


class ClientTls(Model):
    """TLS towards an upstream or a token endpoint."""

    model_config = ConfigDict(
        json_schema_extra={"dependentRequired": {"cert_file": ["key_file"], "key_file": ["cert_file"]}}
    )

    ca_file: FilePath | None = Field(
        default=None, description="PEM file of the authorities to trust instead of the system's (a private CA)."
    )
    cert_file: FilePath | None = Field(
        default=None, description="PEM file of the certificate the gateway shows (mutual TLS); needs key_file."
    )
    key_file: FilePath | None = Field(
        default=None, description="PEM file of that certificate's private key, without a passphrase."
    )
    server_name: ServerName | None = Field(
        default=None,
        description="The name the peer's certificate must carry, and the SNI, when it is not the URL's host.",
    )
    verify: Flag = Field(
        default=True,
        description="false: the peer's certificate is not checked. For a test only; warns at start, shows in /status.",
    )


class ListenTls(Model):
    """TLS on the gateway's own port."""

    cert_file: FilePath = Field(description="PEM file of the certificate, intermediates after it.")
    key_file: FilePath = Field(description="PEM file of its private key, without a passphrase.")
    client_ca_file: FilePath | None = Field(
        default=None, description="PEM file of the authorities whose client certificates are a credential here."
    )
