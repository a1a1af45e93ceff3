"""The house rules that no linter keeps: budgets, no cycle, pure files, no patching, one module an outside library."""

import ast
import re
import subprocess
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support.lockfile import faults

ROOT = Path(__file__).resolve().parents[2]
CODE = sorted((ROOT / "proxy").rglob("*.py"))
DASHBOARD = sorted((ROOT / "grafana").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

MAX_FUNCTION, P90_FUNCTION, MAX_MODULE = 60, 30, 300

# Decide, never do: no clock, no event loop, no client, no server.
PURE = (
    "admin/page/*.py",
    "errors.py",
    "gateway/headers.py",
    "gateway/http1.py",
    "gateway/problems.py",
    "gateway/routes.py",
    "tokens/pair.py",
    "tokens/source.py",
    "tokens/systems/*.py",
)
IMPURE = ("time", "asyncio", "aiohttp.client", "aiohttp.web", "aiohttp.ClientSession", "aiohttp.connector")

# The code's outside libraries, and the one module (or package) that knows each. The sandbox is a program of its own.
KEEPERS = {
    # The demo's own traffic comes from a client like any other.
    "aiohttp": ("admin", "demo.py", "gateway/http1.py", "tokens/transport.py"),
    "prometheus_client": ("metrics.py",),
    "pydantic": ("config",),
    "pydantic_settings": ("config",),
    "redis": ("tokens/stores/link.py",),
    "structlog": ("logs.py",),
    "uvloop": ("server.py", "cli.py"),
    "yaml": ("config",),
}


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file))


def shown(file: Path) -> str:
    return str(file.relative_to(ROOT))


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a module imports: of ``from a import b`` both ``a`` and ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def lengths(files: list[Path]) -> list[tuple[int, str]]:
    """Lines of every function, longest first."""
    return sorted(
        (
            ((node.end_lineno or node.lineno) - node.lineno + 1, f"{shown(file)}:{node.lineno} {node.name}")
            for file in files
            for node in ast.walk(parsed(file))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ),
        reverse=True,
    )


def test_no_function_is_longer_than_a_screen() -> None:
    assert [found for found in lengths(CODE + DASHBOARD + TESTS) if found[0] > MAX_FUNCTION] == []


def test_nine_functions_in_ten_are_short() -> None:
    found = lengths(CODE)
    assert found[len(found) // 10][0] <= P90_FUNCTION


def test_no_module_is_longer_than_one_sitting() -> None:
    sizes = ((len(file.read_text().splitlines()), shown(file)) for file in CODE + DASHBOARD)
    assert [size for size in sizes if size[0] > MAX_MODULE] == []


def test_no_module_imports_itself_through_others() -> None:
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in CODE}
    graph = {name: {other for other in imports(parsed(file)) if other in names} for name, file in names.items()}
    # "from proxy.x import y" names proxy.x beside proxy.x.y: a package's re-export is no edge when the module is meant.
    for targets in graph.values():
        targets -= {package for package in targets if any(other.startswith(f"{package}.") for other in targets)}
    TopologicalSorter(graph).prepare()  # CycleError names the cycle


@pytest.mark.parametrize("pattern", PURE)
def test_a_pure_file_imports_no_clock_no_loop_and_no_network(pattern: str) -> None:
    files = sorted((ROOT / "proxy").glob(pattern))
    assert files, f"nothing matches {pattern}: the list here is out of date"
    for file in files:
        bad = [
            name
            for name in imports(parsed(file))
            if name.startswith(tuple(f"{one}." for one in IMPURE)) or name in IMPURE
        ]
        assert bad == [], shown(file)


def test_an_outside_library_is_known_to_one_module() -> None:
    def known(home: Path, library: str) -> bool:
        return any(home == Path(keeper) or Path(keeper) in home.parents for keeper in KEEPERS[library])

    strangers = [
        f"{shown(file)} imports {library}"
        for file in CODE
        for library in sorted({name.split(".")[0] for name in imports(parsed(file))} & KEEPERS.keys())
        if "sandbox" not in file.parts and not known(file.relative_to(ROOT / "proxy"), library)
    ]
    assert strangers == []


def patches(tree: ast.Module) -> Iterator[str]:
    """Where a test changes something that is not its own: mock, monkeypatch, setattr, an imported name's attribute."""
    imported = {
        alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {a.asname or a.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.arg in {"monkeypatch", "mocker"}:
            yield f"line {node.lineno}: the fixture {node.arg}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
            yield f"line {node.lineno}: setattr"
        elif isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if (
                    isinstance(target, ast.Attribute)
                    and isinstance(target.value, ast.Name)
                    and target.value.id in imported
                ):
                    yield f"line {node.lineno}: {target.value.id}.{target.attr} is assigned"
    yield from (f"imports {name}" for name in imports(tree) if name.split(".")[0] == "mock" or name == "unittest.mock")


def test_nothing_is_patched() -> None:
    assert [f"{shown(file)} {patch}" for file in TESTS for patch in patches(parsed(file))] == []


def test_every_suppressed_lint_says_why() -> None:
    bare = re.compile(r"#\s*(?:noqa|type: ignore|pragma: no cover)(?::\s*[A-Z0-9, ]+|\[[a-z, -]+\])?\s*$")
    found = [
        f"{shown(file)}:{number}"
        for file in CODE + DASHBOARD + TESTS
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if bare.search(line)
    ]
    assert found == []


def committed() -> list[Path]:
    """Every file that git knows, or would take; in an unpacked archive, every file."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
    names = listed.stdout.split("\0") if listed.returncode == 0 else [str(p) for p in ROOT.rglob("*")]
    return [file for name in names if name and (file := ROOT / name).is_file()]


def test_no_file_names_a_registry_or_a_place_on_someones_machine() -> None:
    registries = "pypi|pythonhosted|npmjs|crates|maven|golang|debian|adoptium"
    bad = re.compile(
        rf"https?://[a-z0-9.-]*(?:{registries})[a-z0-9.-]*\.(?:org|io|com|dev|net)|(?<![\w.])/(?:work|farm|root|home/\w+)/"
    )
    found = []
    for file in committed():
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{shown(file)}: {match[0]}" for match in bad.finditer(text)]
    assert found == []


def test_the_locks_satisfy_pyproject_and_name_no_address() -> None:
    assert faults() == []
