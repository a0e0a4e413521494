"""
What a failed connect's text means, and as much of it as may be told. Pure.
"""

from __future__ import annotations

import re

from typing import Final

from migration_gate.connection.causes import (
    CAUSES,
    CLIENT_CERTIFICATE,
    NOT_ALLOWED,
    TLS_REQUIRED,
    UNKNOWN,
    Cause,
)


# The lines that libpq adds where a query of the server's own, or a function, failed.
# Most starts meet no failure: patterns are compiled where they are used.
OF_CODE: Final = r"(?m)^(?:CONTEXT|QUERY|LINE \d+):"
BEFORE_CODE: Final = r".*? failed: [^:\n]*:"
FUNCTION: Final = r"(?m)^(?:CONTEXT: +)?(\S+ function [\w.]+\([^)\n]*\)(?: line \d+)?)"
NEXT_FAILURE: Final = r"\n(?=connection to server )"
FILE_REASON: Final = (
    r'(?s)(could not (?:load|open|read)[^"\n]* file "[^"\n]*"): (.*?)'
    rf"(?={NEXT_FAILURE}|\Z)"
)
KNOWN_REASONS: Final = frozenset(
    {
        "Permission denied",
        "No such file or directory",
        "bad decrypt",
        "bad password read",
        "interrupted or cancelled",
        "key type mismatch",
        "key values mismatch",
        "no certificate or crl found",
        "no start line",
        "unsupported",
    }
)
# Of a parameter that a session should begin with: the name is kept.
OF_PARAMETER: Final = (
    r'(?<=invalid value for parameter ")([^"]*"): .*'
    r"|(?<=invalid command-line argument for server process)(): .*"
)


def find_cause(text: str) -> Cause:
    """
    Tell what a failed connect's text means.

    It can hold two failures, of the attempt with TLS and of the one without. A client
    certificate that cannot be used is no reason where TLS is not needed; nor is the
    lack of TLS where the attempt with TLS failed for another.
    """
    failures = re.split(NEXT_FAILURE, text)
    for lesser in ({CLIENT_CERTIFICATE}, {NOT_ALLOWED, TLS_REQUIRED}):
        others = [one for one in failures if _find_one(one) not in lesser]
        failures = others or failures
    return _find_one("\n".join(failures))


def _find_one(text: str) -> Cause:
    said = shorten_text(text)
    return next((cause for cause in CAUSES if re.search(cause.pattern, said)), UNKNOWN)


def shorten_text(text: str) -> str:
    """
    Fold a failure to one line, without what psycopg puts in front.

    Of a file that cannot be read libpq may say anything: it ends such a text with
    memory that it has never written to. What code in the database raises at the login
    may be made of rows, and libpq adds the query. A parameter's value is nobody's.
    """
    failures = dict.fromkeys(map(_hide_code, re.split(NEXT_FAILURE, text)))
    told = "\n".join(failures).partition("\n\tIs the server running")[0]
    told = told.partition("\nEither provide the file")[0]  # or weaken sslmode
    told = re.sub(FILE_REASON, _keep_known, told)
    told = re.sub(OF_PARAMETER, lambda found: found[1] or "", told)
    folded = " ".join(told.split())
    return folded.removeprefix("connection failed: ").removeprefix(
        "connection is bad: "
    )


def _hide_code(failure: str) -> str:
    """Leave out what code has raised, and the query; the function is named."""
    if not re.search(OF_CODE, failure):
        return failure
    before = re.match(BEFORE_CODE, failure)
    raised = (
        f"{before[0] if before else ''} code in the database raised an error at the "
        "login"
    )
    functions = ", ".join(dict.fromkeys(re.findall(FUNCTION, failure)))
    return f"{raised} ({functions})" if functions else raised


def _keep_known(said: re.Match[str]) -> str:
    reason = said[2].strip()
    return f"{said[1]}: {reason}" if reason in KNOWN_REASONS else said[1]
