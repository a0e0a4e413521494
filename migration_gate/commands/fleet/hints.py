"""
What to do about a target that failed, in words that fit a fleet. Pure.
"""

from __future__ import annotations

import re
import shlex

from typing import Final


# Prisma's own has what it is about after the flag.
RESOLVE: Final = re.compile(r"\bresolve (?=[^-].*? --(?:not-)?applied\b)", re.DOTALL)
AGAIN: Final = re.compile(r"\b(?:start|give)\b[^.;:]*\bagain\b", re.IGNORECASE)


def name_target(hint: str, target: str) -> str:
    """Let a command that is about one target name it, as a shell takes it."""
    variable = f"GATE_TARGET={shlex.quote(target)}"
    return RESOLVE.sub(lambda found: f"{variable} {found[0]}", hint)


def start_again(hint: str, what: str) -> str:
    """
    Say that another start does what is left, unless the hint asks for one already.

    A statement that ends the hint ends with its semicolon, and the sentence goes on.

    Args:
        hint: What to do about the first failure; may be empty.
        what: What is started.
    """
    if AGAIN.search(hint):
        return hint
    again = f"tart {what} again: it does only what is left."
    return f"{hint} then s{again}" if hint.endswith(";") else f"{hint} S{again}".strip()
