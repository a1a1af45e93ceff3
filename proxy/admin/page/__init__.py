"""The status page for people: made of the document of ``/status`` and of nothing else. Pure.

``facts`` reads the document, ``verdict`` says what is wrong, ``document`` writes HTML, ``plaintext`` what curl shows.
"""

from proxy.admin.page.assets import HEADERS as PAGE_HEADERS
from proxy.admin.page.document import notice, pieces
from proxy.admin.page.facts import read
from proxy.admin.page.plaintext import text
from proxy.admin.page.words import printable

__all__ = ["PAGE_HEADERS", "notice", "pieces", "printable", "read", "text"]
