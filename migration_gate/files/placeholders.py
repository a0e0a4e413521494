"""
Flyway's and goose's placeholders, ``${name}``, filled in where those tools do it. Pure.

Both work on the text and know no quotes: a value stands as it is, in strings, comments
and the bodies of functions too. One that is not set is refused.
"""

from __future__ import annotations

import re

from collections.abc import Iterator, Mapping
from typing import Final

from migration_gate.files.names import VERSIONED, is_repeatable
from migration_gate.statements import Filled, ScriptError, find


OPENING: Final = b"${"
# PlaceholderReplacingReader.java: up to the next "}", whatever stands there.
FLYWAY: Final = re.compile(rb"\$\{(?P<name>[^}]*)\}?")
FLYWAYS_OWN: Final = "flyway:"
# parser.go: lines of their own, in any case of the words; interpolate: the forms.
ENVSUB: Final = re.compile(
    rb"^--[ \t-]*\+goose[ \t]+envsub[ \t]+(?P<turn>on|off)[ \t]*\r?$",
    re.IGNORECASE | re.MULTILINE,
)
GOOSE: Final = re.compile(
    rb"\$(?:\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})?"
)
SET_OR_WRITE: Final = "Set GATE_VAR_{name}, or write its value."
NO_PLACEHOLDERS: Final = (
    'Where no placeholder is meant, say "-- gate: no-placeholders" at the head of the '
    "file."
)
GOOSE_FORMS: Final = (
    "goose fills in what stands after it. Write ${NAME} or ${NAME:-default}; end the "
    'stretch with "-- +goose ENVSUB OFF" before what is to stay as it is.'
)


def fill_placeholders(
    version: str, filled: Filled, values: Mapping[str, str]
) -> Filled:
    """
    Return a file's text with its placeholders filled in.

    Args:
        version: By its form it is Flyway's or not.
        values: Those of the variables that are set.

    Raises:
        ScriptError: A placeholder has no value, or is of a form that is not known.
    """
    if find(filled.text, OPENING, b"+goose") < 0:
        return filled
    text = filled.text[:]
    if VERSIONED.fullmatch(version.removesuffix(".sql")) or is_repeatable(version):
        return filled.replaced(_find_flyway(text, values))
    return filled.replaced(_find_goose(text, values))


def _find_flyway(
    text: bytes, values: Mapping[str, str]
) -> Iterator[tuple[int, int, str, bytes]]:
    names = {name.lower(): name for name in values}
    for match in FLYWAY.finditer(text):
        called = match["name"].decode(errors="replace").strip()
        if called.lower().startswith(FLYWAYS_OWN):
            problem = "placeholder of Flyway's own, which only Flyway fills in"
            raise ScriptError(match.start(), problem, "Write what it stands for.")
        name = names.get(called.lower())
        if name is None or not match[0].endswith(b"}"):
            raise _unset(match.start(), called)
        yield match.start(), match.end(), name, values[name].encode()


def _find_goose(
    text: bytes, values: Mapping[str, str]
) -> Iterator[tuple[int, int, str, bytes]]:
    for start, end in _find_stretches(text):
        for match in GOOSE.finditer(text, start, end):
            if match["name"] is None:
                problem = 'a "$" where goose fills in variables'
                raise ScriptError(match.start(), problem, GOOSE_FORMS)
            name, default = match["name"].decode(), match["default"]
            if name not in values and default is None:
                raise _unset(match.start(), name)
            filling = values[name].encode() if name in values else default or b""
            yield match.start(), match.end(), name, filling


def _find_stretches(text: bytes) -> Iterator[tuple[int, int]]:
    """Yield what stands between ENVSUB ON and the next OFF, or the end."""
    start: int | None = None
    for match in ENVSUB.finditer(text):
        is_on = match["turn"].lower() == b"on"
        if is_on and start is None:
            start = match.end()
        elif not is_on and start is not None:
            yield start, match.start()
            start = None
    if start is not None:
        yield start, len(text)


def _unset(offset: int, called: str) -> ScriptError:
    name = called if re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", called) else ""
    if not name:
        problem = "placeholder whose name is none that a variable can have"
        return ScriptError(offset, problem, NO_PLACEHOLDERS)
    remedy = f"{SET_OR_WRITE.format(name=name)} {NO_PLACEHOLDERS}"
    return ScriptError(offset, f'variable "{name}" is not set', remedy)
