"""Form bodies, and the one kind of check that every token system makes alike."""

import hmac
from urllib.parse import parse_qsl

from proxy.sandbox.replies import RefusalError


def read_form(body: bytes) -> dict[str, str]:
    """The form fields. Raises RefusalError when one comes twice (RFC 6749 3.2)."""
    pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=1000)
    form = dict(pairs)
    if len(form) != len(pairs):
        raise RefusalError(400, "invalid_request", "duplicated parameter")
    return form


def same(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogatepass"))
