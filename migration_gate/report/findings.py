"""
What may be found of a migration before production finds it: names, and what to do.

Pure. Loaded by what rehearses or plans, and by a setting or directive that names one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


class Kind(NamedTuple):
    """A kind of finding: what it means for what runs meanwhile, and the remedy."""

    means: str
    remedy: str


FINDINGS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "blocks-reads": Kind(
            "queries of the table wait while the statement works",
            "Look for a form that works without the lock: CONCURRENTLY, NOT VALID and "
            "VALIDATE later, a new column filled in batches.",
        ),
        "blocks-writes": Kind(
            "INSERT, UPDATE and DELETE wait while the statement works",
            "Look for a form that works without the lock: CONCURRENTLY, or NOT VALID "
            "and VALIDATE CONSTRAINT in a later file.",
        ),
        "long-transaction": Kind(
            "a lock that was taken in a moment is kept while other statements work",
            "Put the statement that locks into a file of its own, or at the end of "
            "this one.",
        ),
        "rewrites-table": Kind(
            "every row is written anew, and all indexes with it",
            "Add a new column, fill it in batches, and let the application change "
            "over; then drop the old one.",
        ),
        "scans-table": Kind(
            "every row is read while the table is locked",
            "Add the constraint NOT VALID, and VALIDATE CONSTRAINT in a later file: "
            "that locks out nobody.",
        ),
        "index-not-concurrent": Kind(
            "an index is built while writes wait",
            "CREATE INDEX CONCURRENTLY; a constraint then takes it over with ADD … "
            "USING INDEX.",
        ),
        "not-null-without-check": Kind(
            "SET NOT NULL reads every row, since no valid CHECK proves it",
            "ADD CHECK (column IS NOT NULL) NOT VALID, VALIDATE CONSTRAINT in a later "
            "file, then SET NOT NULL, and drop the CHECK.",
        ),
        "constraint-validated-at-once": Kind(
            "ADD CONSTRAINT reads every row while the table is locked",
            "Add it NOT VALID, and VALIDATE CONSTRAINT in a later file.",
        ),
        "volatile-default": Kind(
            "each row gets a value of its own, so that the table is rewritten",
            "Add the column without it, SET DEFAULT for new rows, and fill the old "
            "ones in batches.",
        ),
        "changes-type": Kind(
            "the column has another type for code that still runs",
            "Add a new column, and let the application change over.",
        ),
        "drops-column": Kind(
            "code that still runs may read the column, and its data are gone",
            "Let the application do without it first; drop it in a later deployment.",
        ),
        "drops-table": Kind(
            "code that still runs may read the table, and its data are gone",
            "Let the application do without it first; drop it in a later deployment.",
        ),
        "drops-view": Kind(
            "code that still runs may read the view, and the file makes no other of "
            "its name",
            "Let the application do without it first; drop it in a later deployment.",
        ),
        "truncates-table": Kind(
            "all rows of the table are gone",
            "Make sure that nobody needs them.",
        ),
        "renames": Kind(
            "code that still runs knows the old name",
            "Add the new one beside it (a column, or a view of the old name), and take "
            "the old one away in a later deployment.",
        ),
        "changes-many-rows": Kind(
            "every row, or 10,000 and more, stay locked to the end of the transaction",
            "Do it in batches, in a file with the directive no-transaction.",
        ),
    }
)
NAMES: Final = ", ".join(FINDINGS)
