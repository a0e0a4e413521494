"""
Apply migrations/ and show the status: what `make run` does; or `make rehearse`.

Uses the configured database; when none is, an embedded one that is gone afterwards.
Exits with the gate's code.
"""

from __future__ import annotations

import contextlib
import os
import sys

from collections.abc import Iterator, Mapping

from dev.postgres import (
    ROOT,
    VERSION,
    Server,
    ServerError,
    ended_by_signals,
    run_to_its_end,
)


# SPEC.md, section 3: any of these names a database.
DATABASE_SETTINGS = (
    "DATABASE_URL",
    "POSTGRES_HOST",
    "PGHOST",
    "PGHOSTADDR",
    "PGSERVICE",
)


@contextlib.contextmanager
def provide_database(environ: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield the settings that name the database, for as long as it is there."""
    if any(
        environ.get(name + end) for name in DATABASE_SETTINGS for end in ("", "_FILE")
    ):
        yield {}
        return
    with Server() as server:
        say(f"No database is configured: using an embedded PostgreSQL {VERSION}.")
        yield {
            "POSTGRES_HOST": server.host,
            "POSTGRES_PORT": str(server.port),
            "POSTGRES_USER": server.user,
            "POSTGRES_PASSWORD": server.password,
            "POSTGRES_DB": "postgres",
        }


def main() -> int:
    """Run the command that is given; without one, `migrate`, and then `status`."""
    gate = [sys.executable, str(ROOT / "entrypoint.py")]
    defaults = {
        "GATE_LOG_FORMAT": "console",
        "GATE_MIGRATIONS": str(ROOT / "migrations"),
    }
    with ended_by_signals(), provide_database(os.environ) as database:
        environ = defaults | os.environ | database
        if sys.argv[1:]:
            return run_to_its_end([*gate, *sys.argv[1:]], environ)
        code = run_to_its_end([*gate, "migrate"], environ)
        return code or run_to_its_end([*gate, "status"], environ)


def say(sentence: str) -> None:
    """Tell the person at the terminal; stdout is the gate's."""
    sys.stderr.write(f"{sentence}\n")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ServerError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
