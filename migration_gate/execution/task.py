"""
A migration to apply: its script and its name in the history. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from migration_gate.files.script import Script


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A script, and the version that the history gets, in the spelling it uses."""

    script: Script
    version: str
