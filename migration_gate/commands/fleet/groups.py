"""
What is the same in many targets, told once: values become text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from migration_gate.commands.answers import AdoptedLine, RecordedLine, UndoLine


T = TypeVar("T", bound=UndoLine | RecordedLine)


def describe_groups(
    answers: Mapping[str, Sequence[T]], describe: Callable[[Sequence[T]], str]
) -> str:
    """
    Return a block for all targets with the same lines, in the order of their first.

    When another tool applied a file is no part of it: a block has the times of its
    first target. A target without a line has no block.
    """
    alike: dict[tuple[T, ...], list[str]] = {}
    for name, lines in answers.items():
        if lines:
            alike.setdefault(tuple(map(_without_time, lines)), []).append(name)
    return "\n\n".join(
        f"{_name(names)}:\n{describe(answers[names[0]])}" for names in alike.values()
    )


def _without_time(line: T) -> T:
    return replace(line, applied_at=None) if isinstance(line, AdoptedLine) else line


def _name(names: Sequence[str]) -> str:
    first = names[0]
    return f"In {len(names)} targets, the first {first}" if names[1:] else f"In {first}"
