"""
How a gate ends that cannot connect: at once, after the grace, or after the wait.

`close` runs one and compares; the limits are such that each kind of failure ends fast
and the others would not.
"""

from __future__ import annotations

import itertools

from collections.abc import Mapping
from typing import Final

from psycopg.conninfo import conninfo_to_dict

from migration_gate.connection import causes
from migration_gate.connection.causes import Cause, Kind
from migration_gate.connection.remedies import name_in_remedy
from tests.fix_gate import Gate, Run
from tests.fix_postgres import Database


FILES: Final = {"001_create.sql": "CREATE TABLE made (id int);"}
FOREVER: Final = "60s"
LIMITS: Final[Mapping[Kind, Mapping[str, str]]] = {
    "local": {"GATE_WAIT_TIMEOUT": FOREVER, "GATE_AUTH_GRACE": FOREVER},
    "refused": {"GATE_WAIT_TIMEOUT": FOREVER, "GATE_AUTH_GRACE": "0"},
    "away": {"GATE_WAIT_TIMEOUT": "1s", "GATE_AUTH_GRACE": "0"},
    "early": {"GATE_WAIT_TIMEOUT": "1500ms", "GATE_AUTH_GRACE": "0"},
}
VERDICTS: Final[Mapping[Kind, frozenset[str]]] = {
    "local": frozenset({"settings", "unreachable"}),
    "refused": frozenset({"refused"}),
    "away": frozenset({"unreachable"}),
    "early": frozenset({"unreachable"}),
}
SECRET_PART_LENGTH: Final = 4


def cause(reason: str) -> Cause:
    """Return the cause of that reason; where several have it, the first."""
    everywhere = [*causes.CAUSES, *vars(causes).values()]
    known = [c for c in everywhere if isinstance(c, Cause)]
    return next(c for c in known if c.reason == reason)


def close(  # noqa: PLR0913  # what differs from case to case
    gate: Gate,
    reason: str,
    *,
    database: Database | None = None,
    env: Mapping[str, str] | None = None,
    command: str = "migrate",
    timeout: float = 15.0,
    silent: bool = False,
) -> Run:
    """
    Run a gate that cannot get in, and say how it ended.

    It ends as that kind of failure must, gives that reason's remedy, and shows no part
    of a password. With ``silent`` the first attempt takes all the time there is.
    """
    expected = cause(reason)
    run = gate(
        command,
        database=database,
        env={**LIMITS[expected.kind], **(env or {})},
        migrations=FILES,
        timeout=timeout,
    )
    assert run.exit_code == 1
    assert run.verdict["event"] == "gate.closed"
    known = dict(database.conninfo) if database else {}
    url = (env or {}).get("DATABASE_URL", "")
    known |= {key: str(value) for key, value in conninfo_to_dict(url).items()}
    remedy = name_in_remedy(expected.remedy, known)
    assert run.verdict["hint"] == remedy, run.verdict["error_message"]
    assert run.verdict["reason"] in VERDICTS[expected.kind]
    retries = run.all("database.retry_scheduled")
    if expected.kind in {"away", "early"} and not silent:
        assert [event["reason"] for event in retries] == [reason]
    else:
        assert retries == []
    if database is not None:
        require_no_secret(run, database.password)
    return run


def require_no_secret(run: Run, *secrets: str) -> None:
    """Find no part of a secret in anything that a gate ever wrote."""
    for secret in secrets:
        parts = [
            secret[at : at + SECRET_PART_LENGTH]
            for at in range(len(secret) - SECRET_PART_LENGTH + 1)
        ]
        assert [part for part in parts if part in run.output] == []


def times(run: Run, name: str) -> list[float]:
    """Return the seconds between the events of a name."""
    waited = [float(event["waited_s"]) for event in run.all(name)]
    return [later - earlier for earlier, later in itertools.pairwise(waited)]
