"""Of a database that is glanced at, a fleet says what a gate for it alone says."""

from __future__ import annotations

import json

from typing import Final

import pytest

from tests.commands.test_fleet import FILES, counts, list_names
from tests.commands.test_fleet_alike import FINE, REFUSED
from tests.fix_gate import Gate
from tests.fix_postgres import Databases


pytestmark = pytest.mark.timeout(60)

TABLE: Final = "schema_migrations"
NOT_UNIQUE: Final = f"ALTER TABLE {TABLE} DROP CONSTRAINT {TABLE}_version_key"
# What is done to a history, which belongs to another program then, or is not safe.
FOREIGN: Final = {
    "gate_version": f"ALTER TABLE {TABLE} ALTER gate_version TYPE int USING 1",
    "version": f"ALTER TABLE {TABLE} ALTER version TYPE int USING id",
    "superseded": f"ALTER TABLE {TABLE} ALTER superseded TYPE jsonb USING '{{}}'",
    "applied_at": f"ALTER TABLE {TABLE} ALTER applied_at TYPE date",
    "domain": f"CREATE DOMAIN word AS text; ALTER TABLE {TABLE}"
    " ALTER checksum TYPE word",
    "doubled": f"{NOT_UNIQUE}; INSERT INTO {TABLE} (version, checksum)"
    f" SELECT version, checksum FROM {TABLE} WHERE id = 1",
    "id": f"ALTER TABLE {TABLE} ALTER id DROP DEFAULT",
    "partial": f"{NOT_UNIQUE}; CREATE UNIQUE INDEX {TABLE}_version_key"
    f" ON {TABLE} (version) WHERE version <> ''",
    **{name: REFUSED[name][0] for name in ("type", "needed", "twice", "partly")},
    "unlogged": REFUSED["unlogged"][0],
}
OURS: Final = {
    **{name: FINE[name] for name in ("more", "order", "less", "indexed")},
    "blanks": f"ALTER TABLE {TABLE} ALTER version TYPE char(40)",
    "zone": f"ALTER TABLE {TABLE} ALTER applied_at TYPE timestamptz",
    "number": f"ALTER TABLE {TABLE} ALTER duration_ms TYPE numeric",
    "identity": f"ALTER TABLE {TABLE} ALTER id DROP DEFAULT,"
    " ALTER id ADD GENERATED ALWAYS AS IDENTITY",
}


def test_each_history_is_judged_as_by_a_gate_alone(
    gate: Gate, databases: Databases
) -> None:
    """By every command, whatever the table is like."""
    files = {**FILES, "R__view.sql": "CREATE OR REPLACE VIEW seen AS SELECT 1 AS one;"}
    home = databases.create()
    targets = {kind: databases.create() for kind in (*FOREIGN, *OURS)}
    names = {target.name: kind for kind, target in targets.items()}
    env = {"GATE_TARGETS": f"databases:{list_names(list(names))}"}
    env["GATE_WAIT_TIMEOUT"] = "1s"
    assert gate(database=home, migrations=files, env=env).exit_code == 0
    for kind, statement in (FOREIGN | OURS).items():
        targets[kind].execute(statement)
    alone = {
        kind: gate(database=targets[kind], migrations=files).verdict for kind in targets
    }
    refused = {kind: alone[kind]["error_message"] for kind in FOREIGN}
    assert REFUSED["unlogged"][1] in refused["unlogged"]
    others = [said for kind, said in refused.items() if kind != "unlogged"]
    assert all("belongs to another program" in said for said in others)
    assert {alone[kind]["exit_code"] for kind in OURS} == {0}
    for command in ("status", "plan"):
        run = gate(command, "--json", database=home, migrations=files, env=env)
        lines = {names[line["target"]]: line for line in json.loads(run.stdout)}
        assert {
            kind: line["reason"]
            for kind, line in lines.items()
            if line["state"] != "up to date"
        } == refused
    for command in ("check", "migrate"):
        run = gate(command, database=home, migrations=files, env=env)
        assert counts(run) == [len(targets), len(OURS), len(FOREIGN), 0, 0]
        failed = {place.partition(":")[0] for place in run.verdict["failed"][:-1]}
        assert {names[name] for name in failed} <= FOREIGN.keys()
    closed = {
        names[event["target"]]: event["error_message"]
        for event in run.all("target.closed")
    }
    assert closed == refused
