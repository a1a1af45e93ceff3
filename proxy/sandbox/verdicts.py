"""What the operator API can say of a credential.

``agreement``: well signed, but with another header or other claims than agreed on.
"""

from typing import Literal

Verdict = Literal[
    "valid", "missing", "repeated", "scheme", "signature", "agreement", "expired", "stale", "revoked", "role"
]

WORDS: dict[str, str] = {
    "missing": "Access token is missing",
    "repeated": "More than one credential",
    "scheme": "The credential is not in the scheme asked for",
    "signature": "Access token is invalid",
    "expired": "Access token is expired",
    "stale": "Access token is older than the not-before policy",
    "revoked": "Access token is not active",
    "agreement": "Header or claims of the token are not as agreed",
    "role": "Operation is not permitted",
    "fault": "Access token is invalid",
}
