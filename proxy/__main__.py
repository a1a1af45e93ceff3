"""``python -m proxy``: the same as ``opentv-proxy``."""

import sys

from proxy.cli import main

sys.exit(main())
