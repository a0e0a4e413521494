"""Pure and effectful never share a module (STYLE T3)."""

from __future__ import annotations

import ast

from pathlib import Path

import pytest


PACKAGE = Path(__file__).resolve().parent.parent / "migration_gate"
REQUIRED = {
    "settings",
    "migration",
    "statements/splitting",
    "plan",
    "verdict",
    "errors",
}
PURE = sorted(
    str(path.relative_to(PACKAGE).with_suffix(""))
    for path in PACKAGE.rglob("*.py")
    if path.parent.name == "statements"
    or "Pure" in (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "")
)
EFFECTS = {
    *("psycopg", "os", "time", "logging", "structlog", "socket", "subprocess"),
    *("random", "select", "shutil", "signal", "sys", "tempfile", "tenacity"),
}
# What may be used of a module with effects, and why.
ALLOWED = {
    "records": {"psycopg"},  # psycopg.sql only composes
}


def imported(module: str) -> set[str]:
    """Return the modules that a module imports, wherever in its text."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text("utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "imports are absolute"
            names.add(node.module)
    return names


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_imports_nothing_with_effects(module: str) -> None:
    """No driver, disk, clock, log, chance or process."""
    found = imported(module) - ALLOWED.get(module, set())
    assert {name.partition(".")[0] for name in found} & EFFECTS == set()


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_imports_only_pure_ones_of_ours(module: str) -> None:
    """Nothing with effects comes in by another door."""
    prefix = "migration_gate."
    ours = {n.removeprefix(prefix) for n in imported(module) if n.startswith(prefix)}
    found = {name.replace(".", "/") for name in ours}
    assert found <= {*PURE, "statements"}


def test_the_modules_that_decide_are_pure() -> None:
    """They say so in their first lines, and are judged here like all that do."""
    assert set(PURE) >= REQUIRED
