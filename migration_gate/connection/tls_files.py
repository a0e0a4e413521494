"""
The files that TLS needs: opened before libpq opens them.

Where it cannot, libpq ends its text with memory that it has never written to. Reads
none of their content.
"""

from __future__ import annotations

import os

from collections.abc import Iterator, Mapping
from typing import Final

from migration_gate.connection.causes import (
    CA_FILE_MISSING,
    FILE_UNREADABLE,
    HOME_UNREADABLE,
    Cause,
)


# As libpq names them, in ~/.postgresql.
DEFAULTS: Final = {
    "sslcert": "postgresql.crt",
    "sslkey": "postgresql.key",
    "sslrootcert": "root.crt",
    "sslcrl": "root.crl",
}
OF_THE_CLIENT: Final = frozenset({"sslcert", "sslkey"})


def find_fault(parameters: Mapping[str, str]) -> tuple[Cause, str] | None:
    """Return what of the files cannot be used, and why; None where all can."""
    mode = parameters["sslmode"]
    for keyword, path in _files(parameters):
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        except (FileNotFoundError, NotADirectoryError):
            # Others libpq does without, or names by itself.
            if keyword == "sslrootcert" and mode != "require" and keyword in parameters:
                text = f'root certificate file "{path}" does not exist'
                return CA_FILE_MISSING, text
        except OSError as error:
            why = (error.strerror or "").lower()
            if keyword in parameters:
                text = f'{keyword} names file "{path}", which cannot be read: {why}'
                return FILE_UNREADABLE, text
            text = f'{keyword} is not set, and file "{path}" cannot be read: {why}'
            return HOME_UNREADABLE, text
    return None


def _files(parameters: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    skipped = OF_THE_CLIENT if parameters.get("sslcertmode") == "disable" else ()
    for keyword, name in DEFAULTS.items():
        path = parameters.get(keyword) or _in_home(name)
        if keyword not in skipped and path not in {"", "system"}:
            yield keyword, path


def _in_home(name: str) -> str:
    home = os.path.expanduser("~")  # noqa: PTH111  # pathlib costs 2 ms to load
    return "" if home == "~" else f"{home}/.postgresql/{name}"
