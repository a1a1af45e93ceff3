"""A YAML file as a plain tree: keys are text, nothing is guessed, nothing is repeated, everything is bounded.

Scalars follow YAML 1.2's core schema, so ``no`` is text, ``1:30`` is no number of base 60 and ``0123`` keeps its zero.
Words about a wrong file name lines, never what stands there: it may be a password.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from proxy.config.schema import dotted
from proxy.errors import ConfigError, Fault

SIZE_LIMIT = 1 << 20
"""Bytes of a configuration file."""
NODE_LIMIT = 50_000
"""Values of a configuration file, each alias counted with all it stands for."""


_ENDS = "\0 \t\r\n\x85\u2028\u2029,[]{}"
"""What ends a key and its colon within brackets."""


_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*+'|\"(?:[^\"\\]|\\.)*+\"|['\"].*", re.DOTALL)
"""What Python's repr makes of a text; a quote without its other half, to be safe, with all that follows."""
_TOKEN = re.compile(r"[,:\[\]{}?!>-]|<[a-z]+(?: [a-z]+)*>")
_QUOTES = "text that begins with one of * & ! % @ ` { [ or holds ': ' or ' #' needs quotes"
_HINTS = (
    ("mapping values are not allowed", f"is the line indented as those beside it? {_QUOTES}"),
    ("expected <block end>", "the line is not indented as those beside it, or text goes on behind a closing quote"),
    ("but found another document", "the file is one document: take the line --- out"),
    ("could not find expected", "a line is no key, colon, space and value, or is not indented as those beside it"),
    ("found unexpected end of stream", "a quote is not closed"),
    ("found unknown escape character", "within double quotes a backslash begins an escape; use single quotes"),
    ("found character", _QUOTES),
    ("found undefined alias", _QUOTES),
    ("expected ',' or", f"a comma is missing, or the closing bracket; {_QUOTES}"),
    ("expected", _QUOTES),
    ("could not determine a constructor", _QUOTES),
    ("a key is not text", _QUOTES),
)
"""What helps, by the beginning of PyYAML's words or ours; the first that fits."""


class _TooManyError(yaml.YAMLError):
    pass


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's scalars, text keys, and a bound on what aliases may unfold to."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own name and shape

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.total = 0
        self.sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        before = self.total
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self.total += 1
        if alias:
            if id(node) not in self.sizes:
                raise _TooManyError("an alias stands inside what it stands for")
            self.total += self.sizes[id(node)]
        elif node is not None:
            self.sizes[id(node)] = self.total - before
        if self.total > NODE_LIMIT:
            raise _TooManyError(f"more than {NODE_LIMIT} values")
        return node

    def check_value(self) -> bool:
        """Within brackets PyYAML ends a key at every colon; YAML 1.2 (7.3.3) does not: ``[127.0.0.0/8, ::1/128]``."""
        if self.flow_level and self.peek(1) not in _ENDS:
            return self.pointer > 0 and self.buffer[self.pointer - 1] in "\"'}]"  # {"a":1}, as in JSON
        return bool(super().check_value())

    def check_plain(self) -> bool:
        colon = bool(self.flow_level) and self.peek() == ":" and self.peek(1) not in _ENDS
        return colon or bool(super().check_plain())

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        return {str(key.value): self.construct_object(value, deep=deep) for key, value in node.value}


for tag, pattern, first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9]{0,18})", "-+0123456789"),
    ("float", r"[-+]?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][-+]?[0-9]+)?", "-+0123456789"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), list(first))


def read_yaml(path: Path) -> tuple[dict[str, Any], list[Fault]]:
    """The tree of a configuration file, and its repeated keys. Raises ConfigError when there is no tree to be had."""
    return parse_yaml(_text(path))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError:
        raise ConfigError([Fault("", f"the configuration file {path} does not exist")]) from None
    except OSError as exc:
        raise ConfigError([Fault("", f"the configuration file {path} cannot be read: {exc.strerror}")]) from None
    if len(content) > SIZE_LIMIT:
        raise ConfigError([Fault("", f"the configuration file {path} is longer than 1 MiB")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError([Fault("", f"the configuration file {path} is not UTF-8 text")]) from None


def parse_yaml(text: str) -> tuple[dict[str, Any], list[Fault]]:
    """As read_yaml, of the text itself."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        faults = _repeated(node)
        tree = loader.construct_document(node) if node is not None else {}
    except yaml.reader.ReaderError:
        raise ConfigError([Fault("", "the file holds a control character that YAML does not allow")]) from None
    except yaml.YAMLError as exc:
        raise ConfigError([Fault("", _words(exc))]) from None
    except (ValueError, LookupError, AttributeError, TypeError):  # `!!int x`: PyYAML converts without a look
        raise ConfigError([Fault("", "not valid YAML: a value does not fit its tag; leave !!tags out")]) from None
    except RecursionError:
        raise ConfigError([Fault("", "the file is nested too deeply")]) from None
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError([Fault("", "expected a mapping of keys, such as `listen: 127.0.0.1:8080`")])
    return tree, faults


def _words(exc: yaml.YAMLError) -> str:
    mark = getattr(exc, "problem_mark", None)
    where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    what = _QUOTED.sub(_harmless, str(getattr(exc, "problem", None) or exc))
    begun = getattr(exc, "context_mark", None)
    if begun is not None and what.startswith("expected ',' or"):
        what += f", in the bracket that is opened at line {begun.line + 1}, column {begun.column + 1}"
    if mark is not None and mark.buffer is not None and mark.buffer[mark.pointer : mark.pointer + 1] == "\t":
        return f"not valid YAML{where}: a tab stands here; indent and separate with spaces"
    hint = next((hint for begin, hint in _HINTS if what.startswith(begin)), "")
    return f"not valid YAML{where}: {what}{hint and f' ({hint})'}"


def _harmless(quoted: re.Match[str]) -> str:
    """PyYAML quotes marks and its names of tokens, and also what stands there: part of a value, hence of a secret."""
    inside = quoted[0][1:-1]
    return quoted[0] if _TOKEN.fullmatch(inside) else "…"


def _repeated(node: yaml.Node | None, path: tuple[str | int, ...] = ()) -> list[Fault]:
    faults: list[Fault] = []
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            faults += _repeated(item, (*path, index))
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is not text", problem_mark=key.start_mark)
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen and name != "<<":
                faults.append(
                    Fault(dotted((*path, name)), f"repeated key: on line {seen[name]} and again on line {line}")
                )
            seen.setdefault(name, line)
            faults += _repeated(value, (*path, name))
    return faults
