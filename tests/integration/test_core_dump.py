"""A gateway that crashes leaves no copy of its memory behind, which holds tokens and passwords."""

import re
from pathlib import Path

from tests.support.gateway import running_gateway

CONFIG = {"routes": [{"path": "/", "upstream": "http://127.0.0.1:9", "identity": None}]}


async def test_no_core_file_is_ever_written(tmp_path: Path) -> None:
    """Whatever the limit is that it was started with: it sets both, and cannot take that back."""
    async with running_gateway(CONFIG, tmp_path) as gateway:
        limits = Path(f"/proc/{gateway.pid}/limits").read_text()
    found = re.search(r"^Max core file size +(\S+) +(\S+)", limits, re.MULTILINE)
    assert found is not None
    assert found.groups() == ("0", "0")
