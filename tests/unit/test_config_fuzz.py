"""Whatever is written, the answer is a configuration or a listing of faults, never a traceback."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config import Loaded, load_config, parse_config, render_effective
from proxy.config.schema import below, places
from proxy.config.yamlfile import parse_yaml, read_yaml
from proxy.errors import ConfigError

FILE = Path(__file__).parents[2] / "config/proxy.yaml"
TREE, _ = read_yaml(FILE)
PLACES = [place.path for place in places(TREE) if place.path]
SECRET = "hunter2"
LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.just(SECRET),
    st.sampled_from(["/", "ags"]),
)
JUNK = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["system", "tls", "x", "file", "address", "cert_file"]) | st.text(max_size=4), inner
        )
    ),
    max_leaves=6,
)


def planted(place: tuple[Any, ...], junk: object) -> dict[str, Any]:
    tree = copy.deepcopy(TREE)
    node: Any = tree
    for key in place[:-1]:
        node = below(node, key)
    node[place[-1]] = junk
    return tree


def listing(call: Callable[[], object]) -> str:
    """The faults of a load, empty when it succeeds; any other exception is a failure of the test."""
    try:
        call()
    except ConfigError as exc:
        return str(exc) or "an empty listing"
    return ""


@settings(deadline=None)
@given(st.sampled_from(PLACES), JUNK)
def test_junk_anywhere_in_the_tree(place: tuple[Any, ...], junk: object) -> None:
    """One place of the commented example holds something else; what loads can be shown."""
    tree = planted(place, junk)
    listing(lambda: parse_config(tree, read_secrets=True))
    if not listing(lambda: parse_config(tree)):
        render_effective(Loaded(parse_config(tree), None))


@settings(deadline=None)
@given(
    st.sampled_from(PLACES),
    st.sampled_from(["", "__x", "__0", "__0__path"]),
    st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=8),
)
def test_junk_in_a_variable(place: tuple[Any, ...], more: str, junk: str) -> None:
    """A variable names any place, or one below it, and holds anything."""
    environ = {"OPENTV_PROXY__" + "__".join(str(part) for part in place) + more: junk}
    listing(lambda: load_config(FILE, environ, {}, read_secrets=False))


@settings(deadline=None)
@given(st.text(max_size=40) | st.text("[]{}:,&*!|>-'\"#%@`?\n ab<", max_size=60))
def test_junk_as_a_file(text: str) -> None:
    """Any text at all."""
    assert listing(lambda: parse_config(parse_yaml(text)[0]))


@settings(deadline=None)
@given(st.sampled_from(PLACES), st.sampled_from([SECRET, [SECRET], {"x": SECRET}, [{"value": SECRET}]]))
def test_a_misplaced_secret_is_not_repeated(place: tuple[Any, ...], junk: object) -> None:
    """Whatever place it was written into, the listing does not show it."""
    tree = planted(place, junk)
    assert SECRET not in listing(lambda: parse_config(tree))
