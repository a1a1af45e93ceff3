"""The rows from top to bottom, in the order in which somebody asks: each module one row, ``PANELS`` in reading order.

A panel's number is its address (``?viewPanel=101``): runbooks and bookmarks hold it, so it stays when panels move.
"""

from grafana.look import AnyPanel
from grafana.rows import process, token, traffic, upstream, well

# Number and title of the row, and its panels.
ROWS: list[tuple[int, str, list[AnyPanel]]] = [
    (100, "Is it well?", well.PANELS),
    (200, "Token life", token.PANELS),
    (300, "Traffic", traffic.PANELS),
    (400, "Upstream", upstream.PANELS),
    (500, "Process", process.PANELS),
]
