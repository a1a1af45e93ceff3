"""A stored pair as bytes: a JSON object with the pair's fields. Pure."""

import json
from dataclasses import MISSING, asdict, fields
from math import isfinite
from typing import Any, Final, get_args, get_type_hints

from proxy.tokens.stores.base import StoredPair

_HINTS: Final = get_type_hints(StoredPair)
_REQUIRED: Final = {field.name for field in fields(StoredPair) if field.default is MISSING}


def encode(pair: StoredPair) -> bytes:
    return json.dumps(asdict(pair), separators=(",", ":"), allow_nan=False).encode()


def decode(data: bytes) -> StoredPair:
    """Raises ValueError when it is none. A field that this version does not know is left out: a later version, side
    by side with this one during an update, may have written it."""
    try:
        tree = json.loads(data)
    except RecursionError:
        raise ValueError("no stored pair") from None
    if not isinstance(tree, dict) or not tree.keys() >= _REQUIRED:
        raise ValueError("no stored pair")
    return StoredPair(**{name: _typed(tree[name], hint) for name, hint in _HINTS.items() if name in tree})


def _typed(value: Any, hint: Any) -> Any:  # noqa: ANN401 - JSON in, a field's value out
    kinds = get_args(hint) or (hint,)
    if float in kinds and type(value) in (int, float) and isfinite(value):
        return float(value)
    if type(value) not in kinds or type(value) is float:
        raise ValueError("no stored pair")
    return value
