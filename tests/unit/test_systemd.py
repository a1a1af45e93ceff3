"""The systemd unit: what systemd itself says of it, and that it is in step with the gateway that it runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from proxy.cli import MISCONFIGURED
from proxy.config import parse_config
from proxy.config.load import SEARCH
from proxy.config.types import parse_duration
from proxy.descriptors import shortage

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "config/systemd"
UNIT: Final = FOLDER / "opentv-auth-proxy.service"
DROP_IN: Final = FOLDER / "credentials.conf"
LOGOUTS: Final = 3.0  # seconds that the end may take beyond drain and renewals (docs/how-it-works.md)
EXPOSURE: Final = 15  # tenths: systemd gives 0.0 to 10.0, and calls up to 2.0 "OK"; a bare unit has 9.6

SITE: Final = {
    "identities": {"opentv": {"system": "token_file", "file": "/run/token"}},
    "routes": [{"path": "/", "upstream": "https://operator.example.com", "identity": "opentv"}],
}


def settings(file: Path, section: str = "Service") -> dict[str, list[str]]:
    """Of one section: key → its values in order."""
    found: dict[str, list[str]] = {}
    here = ""
    for line in file.read_text().splitlines():
        if line.startswith("["):
            here = line.strip("[]")
        elif line and not line.startswith("#") and here == section:
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def systemd(*command: str | Path) -> str:
    """What a program of systemd says; it has to be content. Without systemd a skip, in CI a failure."""
    if shutil.which(str(command[0])) is None:
        words = f"{command[0]} is not installed (Debian, Ubuntu: apt-get install systemd)"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)
    done = subprocess.run(  # noqa: S603 - fixed words
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit with its drop-in as an operator has them; this interpreter stands for the one that runs the gateway."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/opentv-proxy/bin/opentv-proxy", sys.executable))
    (tmp_path / f"{UNIT.name}.d").mkdir()
    shutil.copy(DROP_IN, tmp_path / f"{UNIT.name}.d")
    return unit


def test_systemd_finds_no_fault_in_unit_and_drop_in(installed: Path) -> None:
    """An unknown key or a wrong value is only a line in the journal, easily missed; here it is a failure."""
    assert systemd("systemd-analyze", "verify", "--man=no", installed) == ""


def test_a_fault_in_the_drop_in_would_be_found(installed: Path) -> None:
    """That systemd reads it at all."""
    with (installed.parent / f"{UNIT.name}.d" / DROP_IN.name).open("a") as file:
        file.write("LoadCredentail=x:/y\n")
    assert "LoadCredentail" in systemd("systemd-analyze", "verify", "--man=no", installed)


def test_systemd_finds_the_service_well_locked_in(installed: Path) -> None:
    words = systemd("systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE}", installed)
    assert "Overall exposure level" in words


def test_the_user_is_one_that_systemd_can_make(tmp_path: Path) -> None:
    file = FOLDER / "opentv-auth-proxy.sysusers.conf"
    (tmp_path / "etc").mkdir()
    assert "opentv-proxy" in systemd("systemd-sysusers", "--dry-run", f"--root={tmp_path}", file)
    assert settings(UNIT)["User"] == settings(UNIT)["Group"] == ["opentv-proxy"]


def test_it_starts_reloads_and_ends_as_the_gateway_does() -> None:
    """No notification is sent, hence exec. SIGHUP reloads. A wrong configuration is not tried again and again."""
    service = settings(UNIT)
    config = parse_config(SITE)
    assert service["Type"] == ["exec"]
    assert service["ExecStart"] == [f"/opt/opentv-proxy/bin/opentv-proxy run -c {SEARCH[0]}"]
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert (service["Restart"], service["RestartPreventExitStatus"]) == (["on-failure"], [str(MISCONFIGURED)])
    patience = parse_duration(int(service["TimeoutStopSec"][0]))
    renewal = 2 * max(identity.timeout for identity in config.identities.values())
    assert patience >= config.shutdown.drain + renewal + LOGOUTS
    assert shortage(config, int(service["LimitNOFILE"][0])) is None


def test_it_never_stops_trying_as_what_is_wrong_may_pass() -> None:
    assert settings(UNIT, "Unit")["StartLimitIntervalSec"] == ["0"]
    assert parse_duration(int(settings(UNIT)["RestartSec"][0])) >= 5, "each start may be a login"


def test_it_writes_nowhere_but_into_its_state() -> None:
    service = settings(UNIT)
    assert (service["ProtectSystem"], service["StateDirectory"]) == (["strict"], ["opentv-proxy"])
    assert (service["StateDirectoryMode"], service["UMask"]) == (["0700"], ["0077"])
    assert not {"ReadWritePaths", "RuntimeDirectory", "LogsDirectory", "CacheDirectory"} & service.keys()


def test_metrics_keep_what_they_read_in_proc() -> None:
    """The start time in process_start_time_seconds is reckoned from /proc/stat, which ProcSubset=pid would hide."""
    assert "ProcSubset" not in settings(UNIT)


def test_the_drop_in_names_each_credential_once_by_a_file_of_its_own() -> None:
    pairs = [value.split(":") for value in settings(DROP_IN)["LoadCredential"]]
    assert [path for _, path in pairs] == [f"/etc/opentv-proxy/secrets/{name}" for name, _ in pairs]
    assert len({name for name, _ in pairs}) == len(pairs)
