"""
What modules compile whenever they are imported: asked of them once, for the image.

    python -I -S image/compiled.py FOLDER... <MODULES >RECORD

`dataclasses` writes the methods of each class as text, and compiles it; `re` compiles
patterns. Imports the modules, a name on each line, from the folders and the standard
library, reads the settings of a start, and writes in the form of `marshal`, by the
module that wants it:

- the texts that `dataclasses` compiled for its classes, in order;
- for each pattern with its flags what `re` gave the machine that matches: flags, code,
  the number of groups, the names of groups with their numbers, and the names in order.
"""

# ruff: noqa: INP001 -- a program, not a package

from __future__ import annotations

import _sre  # type: ignore[import-not-found]  # what `re` runs on
import importlib
import marshal
import sys

from collections.abc import Mapping, Sequence
from types import FrameType, SimpleNamespace
from typing import Any, Final


Texts = dict[str, list[str]]
Patterns = dict[str, dict[tuple[str | bytes, int], tuple[Any, ...]]]
# What functions ask `re` for is found by calling them.
ENVIRON: Final = {
    "DATABASE_URL": "postgresql://user:word%20word@host:5432/name?sslmode=require",
    "GATE_HISTORY_TABLE": "schema.history",
}


def record(names: Sequence[str]) -> tuple[Texts, Patterns]:
    """Import the modules, read settings; return what was compiled meanwhile."""
    patterns = record_patterns()
    texts = record_texts()
    for name in names:
        importlib.import_module(name)
    settings = importlib.import_module("migration_gate.settings.settings")
    settings.from_environ(ENVIRON, needs_database=True)
    return texts, patterns


def record_patterns() -> Patterns:
    """Note what `re` compiles from now on."""
    patterns: Patterns = {}
    compiler = vars(importlib.import_module("re._compiler"))
    original = compiler["compile"]
    given: list[Any] = []

    def compile_and_note(pattern: str | bytes, flags: int = 0) -> object:
        compiled: object = original(pattern, flags)
        module = caller(sys._getframe(1))  # noqa: SLF001
        patterns.setdefault(module, {})[pattern, int(flags)] = tuple(given)
        return compiled

    def note_code(  # noqa: PLR0913, PLR0917  # as it is
        pattern: str | bytes,
        flags: int,
        code: Sequence[int],
        groups: int,
        numbers: Mapping[str, int],
        names: Sequence[str | None],
    ) -> object:
        plain = tuple(map(int, code))
        given[:] = int(flags), plain, groups, tuple(numbers.items()), tuple(names)
        return _sre.compile(pattern, flags, code, groups, numbers, names)

    compiler["compile"] = compile_and_note
    compiler["_sre"] = SimpleNamespace(**{**vars(_sre), "compile": note_code})
    return patterns


def caller(frame: FrameType | None) -> str:
    """Return the name of the innermost module that is not a part of `re`."""
    name = "re"
    while frame is not None and name.partition(".")[0] == "re":
        name = frame.f_globals.get("__name__", "")
        frame = frame.f_back
    return name


def record_texts() -> Texts:
    """Note what `dataclasses` executes from now on, by the module it is for."""
    texts: Texts = {}

    def note(text: str, module: dict[str, Any], result: dict[str, Any]) -> None:
        texts.setdefault(module["__name__"], []).append(text)
        exec(text, module, result)  # noqa: S102  # as dataclasses does

    # A name of the module's own comes before the built-in one.
    vars(importlib.import_module("dataclasses"))["exec"] = note
    return texts


if __name__ == "__main__":
    sys.path[:0] = sys.argv[1:]
    sys.stdout.buffer.write(marshal.dumps(record(sys.stdin.read().split())))
