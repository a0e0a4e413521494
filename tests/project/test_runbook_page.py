"""What the runbook says of reasons and messages is what the code has."""

from __future__ import annotations

import ast

from collections.abc import Iterable, Iterator
from pathlib import Path

from migration_gate.report.errors import (
    GateError,
    MigrationFilesError,
    SettingsError,
)
from tests.project.pages import (
    MODULES,
    PACKAGE,
    find_dotted,
    parse,
    read_code,
    read_table,
)


PAGE = "docs/runbook.md"
PARSERS = [PACKAGE / f"settings/{name}.py" for name in ("parsing", "durations")]
# What PostgreSQL says, not the gate.
POSTGRESQL_SAYS = {
    "already exists",
    "syntax error",
    "must be owner of",
    "canceling statement due to lock timeout",
}


def find_kinds(kind: type[GateError]) -> Iterator[type[GateError]]:
    """Yield a kind of error and all kinds of it."""
    yield kind
    for special in kind.__subclasses__():
        yield from find_kinds(special)


def test_the_reasons_are_those_of_the_errors() -> None:
    """Every reason that a closed gate can have, and no other."""
    reasons = {kind.reason for kind in find_kinds(GateError)}
    described = [read_code(row[0])[0] for row in read_table(PAGE, "reason")]
    assert sorted(described) == sorted(reasons)


def write_template(node: ast.Constant | ast.JoinedStr) -> str:
    """Return a string of the code as a page shows it, an ellipsis for each value."""
    parts = getattr(node, "values", [node])
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts
    )


def find_texts() -> Iterator[str]:
    """Yield the strings in the code."""
    for path in MODULES:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Constant | ast.JoinedStr):
                yield write_template(node)


def test_the_messages_to_look_for_are_the_gates() -> None:
    """A message that the code no longer has helps nobody."""
    texts = "\n".join(find_texts())
    rows = read_table(PAGE, "message contains")
    named = {part for row in rows for part in read_code(row[0])}
    assert named >= POSTGRESQL_SAYS
    assert {part for part in named - POSTGRESQL_SAYS if part not in texts} == set()


def find_told(kinds: set[str], modules: Iterable[Path] = MODULES) -> Iterator[str]:
    """Yield the messages of these kinds of errors, a value in them as an ellipsis."""
    for path in modules:
        for node in ast.walk(parse(path)):
            if (
                isinstance(node, ast.Call)
                and find_dotted(node.func) in kinds
                and node.args
                and isinstance(node.args[0], ast.Constant | ast.JoinedStr)
            ):
                yield write_template(node.args[0])


def test_every_message_has_its_row() -> None:
    """Faults of settings and files apart, which say themselves what to write."""
    kinds = {kind.__name__ for kind in find_kinds(GateError)}
    kinds -= {kind.__name__ for kind in find_kinds(SettingsError)}
    kinds -= {kind.__name__ for kind in find_kinds(MigrationFilesError)}
    kinds -= {"ConnectionLostError", "AlreadyAppliedError"}  # are told as others
    told = set(find_told(kinds | {"UsageError"}))
    assert len(told) > 10
    assert find_unnamed(told) == set()


def test_every_rule_of_a_value_has_its_row() -> None:
    """What can be wrong with the value of a setting, each of which its parser says."""
    told = set(find_told({"ValueError"}, PARSERS))
    assert len(told) > 10
    assert find_unnamed(told) == set()


def test_what_closes_a_fleet_has_its_row() -> None:
    """What its list breaks, and why targets were left."""
    told = set(find_told({"fault"}, (PACKAGE / "commands/fleet").glob("*.py")))
    told |= set(find_sentences(PACKAGE / "commands/fleet/run.py", "_why_left"))
    told |= set(find_sentences(PACKAGE / "settings/environment.py", "_fleet_faults"))
    assert len(told) > 10
    assert find_unnamed(told) == set()


def find_unnamed(told: set[str]) -> set[str]:
    """Return the messages of which no row has a part."""
    rows = read_table(PAGE, "message contains")
    named = {part for row in rows for part in read_code(row[0])}
    return {text for text in told if not any(part in text for part in named)}


def find_sentences(path: Path, function: str) -> Iterator[str]:
    """Yield what a function of a module may say, but for remedies and docstring."""
    (found,) = [
        node
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef) and node.name == function
    ]
    for node in ast.walk(found):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
            if " " in text and text[0].islower():
                yield text
