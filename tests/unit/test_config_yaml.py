"""The file as YAML: bounded, nothing repeated, nothing guessed."""

from pathlib import Path

import pytest

from proxy.config import load_config
from proxy.errors import ConfigError

PLAIN = "routes: [{path: /, upstream: 'https://h'}]\n"


def listing(tmp_path: Path, text: str) -> str:
    """The faults of a file, empty when it loads."""
    file = tmp_path / "proxy.yaml"
    file.write_text(text)
    try:
        load_config(file, {}, {}, read_secrets=False)
    except ConfigError as exc:
        return str(exc)
    return ""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "routes: is required"),
        ("- a", "expected a mapping of keys"),
        ("a: 1\n---\nb: 2", "not valid YAML at line 2"),
        ("a: b: c", "not valid YAML at line 1, column 5: mapping values are not allowed here"),
        ("a: \x01", "control character"),
        ("[" * 3000, "nested too deeply"),
        ("? [a]\n: b", "a key is not text"),
        ("x: &a [*a]", "an alias stands inside what it stands for"),
        ("# " + "x" * (1 << 20), "longer than 1 MiB"),
        (
            "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}' if i else '1'] * 20)}]" for i in range(9)),
            "more than 50000",
        ),
        ("log: {level: info, level: info}", "log.level: repeated key: on line 1 and again on line 1"),
    ],
    ids=lambda text: text[:30],
)
def test_a_file_that_is_no_configuration_is_refused_in_words(tmp_path: Path, text: str, fault: str) -> None:
    """Not YAML, not a mapping, too large, a bomb, repeated keys."""
    assert fault in listing(tmp_path, text)


QUOTES = "needs quotes"


@pytest.mark.parametrize(
    ("text", "words", "quotes"),
    [
        ("a:\n\tb: 2\n", "at line 2, column 1: a tab stands here; indent and separate with spaces", False),
        ("a:\n  - b\n \t- c\n", "at line 3, column 2: a tab stands here", False),
        ("a:\n  b: 1\n c: 2\n", "the line is not indented as those beside it", False),
        ("a: b\n  c: d", "is the line indented as those beside it?", True),
        ("a: 1\n---\nb: 2", "take the line --- out", False),
        ("x: &a [*a]", "an alias stands inside what it stands for", False),
        ("a: 'x", "a quote is not closed", False),
        ('a: "\\q"', "use single quotes", False),
        ("a: @secret", "that cannot start any token", True),
        ("a: *secret", "found undefined alias", True),
        ("a: !secret x", "constructor for the tag", True),
        (
            "a: {b",
            "expected ',' or '}', but got '<stream end>', in the bracket that is opened at line 1, column 4 (a",
            True,
        ),
        (
            "routes: [{path: /, upstream: http://x}",
            "expected ',' or ']', but got '<stream end>', in the bracket that is opened at line 1, column 9 (a",
            True,
        ),
        ("a: [1\nsecret: 2\n", "expected ',' or ']', but got ':', in the bracket that is opened at line 1", True),
        ("a: !se\"c're't x", "expected …, but found …", True),
        ("a: !s'secret x", "constructor for the tag … (", True),
    ],
)
def test_the_advice_is_of_what_is_wrong(tmp_path: Path, text: str, words: str, quotes: bool) -> None:
    said = listing(tmp_path, text)
    assert words in said
    assert (QUOTES in said) is quotes
    assert "secret" not in said


def test_an_empty_section_is_as_if_not_written(tmp_path: Path) -> None:
    """`clients:` with every line under it commented out is null in YAML."""
    assert listing(tmp_path, PLAIN + "clients:\nlisten:\nlimits: {head_time: }\nidentities:\nstore:\nlog: null\n") == ""


def test_yaml_guesses_nothing(tmp_path: Path) -> None:
    """`no`, dates, base 60, leading zeroes and IPv6 are text; anchors and merge keys work."""
    file = tmp_path / "proxy.yaml"
    file.write_text(
        "routes:\n- &r {path: /, upstream: 'https://h', rejected: {result_codes: [no, 012, 1:30, 2024-01-01, 0x1f]}}\n"
        "- {<<: *r, path: /b}\n"
        'clients: {"allow_from":[127.0.0.0/8, ::1/128, ::2], trusted_proxies: [::3]}\n'
    )
    config = load_config(file, {}, {}).config
    routes, clients = config.routes, config.clients
    assert [str(network) for network in clients.allow_from] == ["127.0.0.0/8", "::1/128", "::2/128"]
    assert [str(network) for network in clients.trusted_proxies] == ["::3/128"]
    assert routes[1].rejected.result_codes == ["no", "012", "1:30", "2024-01-01", "0x1f"]
    assert [entry.path for entry in routes] == ["/", "/b"]
