"""``python -m grafana``: writes the dashboard's JSON. ``--check``: writes nothing, and fails where it differs."""

import argparse
import sys
from pathlib import Path

from grafana.dashboard import FILE, rendered


def main() -> str | None:
    """What is wrong, in words."""
    parser = argparse.ArgumentParser(prog="python -m grafana", description="Writes the Grafana dashboard.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the file is not what would be")
    parser.add_argument("file", nargs="?", type=Path, default=FILE, help="default: the committed one")
    arguments = parser.parse_args()
    file: Path = arguments.file
    wanted = rendered()
    if arguments.check:
        same = file.is_file() and file.read_text() == wanted
        return None if same else f"{file} is not what its source says: make dashboards"
    file.write_text(wanted)
    return None


if __name__ == "__main__":
    sys.exit(main())
