"""
What PostgreSQL's grammar says a statement is and names, to judge recognition by.

Each function returns what its namesake in `migration_gate.statements` should.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from pglast import ast
from pglast.enums import (
    AlterTableType,
    DiscardMode,
    ObjectType,
    ReindexObjectType,
    TransactionStmtKind,
    VariableSetKind,
)

from migration_gate.statements import (
    ConcurrentIndex,
    Statement,
    concurrent_index,
    forbids_transaction,
    is_copy_from_stdin,
    is_copy_to_stdout,
    setting_changed,
    tables_written,
    transaction_control,
)


Kind = TransactionStmtKind
CONTROL = {
    Kind.TRANS_STMT_BEGIN: "begin",
    Kind.TRANS_STMT_START: "begin",
    Kind.TRANS_STMT_COMMIT: "commit",
    Kind.TRANS_STMT_ROLLBACK: "rollback",
    Kind.TRANS_STMT_SAVEPOINT: "savepoint",
    Kind.TRANS_STMT_RELEASE: "release",
    Kind.TRANS_STMT_ROLLBACK_TO: "rollback_to",
    Kind.TRANS_STMT_PREPARE: "prepare",
    Kind.TRANS_STMT_COMMIT_PREPARED: "commit_prepared",
    Kind.TRANS_STMT_ROLLBACK_PREPARED: "rollback_prepared",
}
ALWAYS_OUTSIDE = (
    ast.CreatedbStmt,
    ast.DropdbStmt,
    ast.CreateTableSpaceStmt,
    ast.DropTableSpaceStmt,
    ast.AlterSystemStmt,
    ast.DropSubscriptionStmt,
)
# Whether these forbid a transaction depends on options; the table of tests has them.
SUBSCRIPTIONS = (ast.CreateSubscriptionStmt, ast.AlterSubscriptionStmt)
TABLE_MAKERS = (ast.CreateStmt, ast.CreateForeignTableStmt)
ALL_TABLES = (
    ReindexObjectType.REINDEX_OBJECT_SCHEMA,
    ReindexObjectType.REINDEX_OBJECT_SYSTEM,
    ReindexObjectType.REINDEX_OBJECT_DATABASE,
)

Table = tuple[str | None, str]
# The attributes of pglast's nodes are all optional to its annotations.
Node: TypeAlias = Any


def compare_recognition(statement: Statement, node: Node) -> Iterator[str]:
    """Say what is told of a statement that the grammar does not say."""
    pairs: list[tuple[str, object, object]] = [
        ("transaction control", transaction_control(statement), control(node)),
        ("index", concurrent_index(statement), index(node)),
        ("tables", tables_written(statement), tables(node)),
        ("COPY", _copies(statement), copies(node)),
    ]
    if not _is(node, SUBSCRIPTIONS):
        forbids = forbids_transaction(statement) is not None
        pairs.append(("outside a transaction", forbids, is_outside(node)))
    # A SELECT may be one of set_config(); the modes of transactions are no constants.
    characteristics = getattr(node, "name", None) == "SESSION CHARACTERISTICS"
    if not _is(node, ast.SelectStmt) and not characteristics:
        pairs.append(("setting", setting_changed(statement), setting(node)))
    for what, told, said in pairs:
        if told != said:
            yield f"statement {statement.number}, {what}: {told!r} is {said!r}"


def control(node: Node) -> str | None:
    """Return the kind of a transaction statement."""
    if _is(node, ast.VariableSetStmt) and node.name == "TRANSACTION":
        return "set_transaction"
    if _is(node, ast.VariableSetStmt) and node.name == "TRANSACTION SNAPSHOT":
        return "set_transaction"
    if not _is(node, ast.TransactionStmt):
        return None
    return CONTROL[Kind(node.kind)] + ("_and_chain" if node.chain else "")


def index(node: Node) -> ConcurrentIndex | None:
    """Return the names of an index statement that runs CONCURRENTLY."""
    if _is(node, ast.IndexStmt) and node.concurrent:
        return ConcurrentIndex(
            action="create",
            schema=node.relation.schemaname,
            name=node.idxname,
            table_schema=node.relation.schemaname,
            table=node.relation.relname,
            if_not_exists=bool(node.if_not_exists),
        )
    if _is(node, ast.DropStmt) and node.concurrent:
        *schema, name = [part.sval for part in node.objects[0]]
        return ConcurrentIndex(
            action="drop", schema=schema[-1] if schema else None, name=name
        )
    if _is(node, ast.ReindexStmt) and _option(node, "concurrently"):
        relation = node.relation
        if node.kind == ReindexObjectType.REINDEX_OBJECT_INDEX:
            return ConcurrentIndex(
                action="reindex", schema=relation.schemaname, name=relation.relname
            )
        if node.kind == ReindexObjectType.REINDEX_OBJECT_TABLE:
            return ConcurrentIndex(
                action="reindex",
                table_schema=relation.schemaname,
                table=relation.relname,
            )
        whole = node.kind == ReindexObjectType.REINDEX_OBJECT_SCHEMA
        return ConcurrentIndex(action="reindex", schema=node.name if whole else None)
    return None


def tables(node: Node) -> tuple[Table, ...]:
    """Return the table that a statement makes or fills."""
    relation = None
    if _is(node, TABLE_MAKERS):
        relation = getattr(node, "relation", None) or node.base.relation
    elif _is(node, ast.CreateTableAsStmt) and not node.is_select_into:
        is_table = node.objtype == ObjectType.OBJECT_TABLE
        relation = node.into.rel if is_table else None
    elif _is(node, ast.InsertStmt):
        relation = None if node.withClause else node.relation
    elif _is(node, ast.CopyStmt) and node.is_from:
        relation = node.relation
    if relation is None or relation.relpersistence == "t":
        return ()
    return ((relation.schemaname, relation.relname),)


def copies(node: Node) -> tuple[bool, bool]:
    """Tell COPY from the client and to it."""
    if not _is(node, ast.CopyStmt) or node.filename is not None:
        return False, False
    return bool(node.is_from), not node.is_from


def is_outside(node: Node) -> bool:
    """Tell what PostgreSQL refuses in a transaction block, subscriptions left out."""
    prepared = ("commit_prepared", "rollback_prepared")
    return (
        _is(node, ALWAYS_OUTSIDE)
        or control(node) in prepared
        or index(node) is not None
        or (_is(node, ast.VacuumStmt) and bool(node.is_vacuumcmd))
        or (_is(node, ast.ClusterStmt) and node.relation is None)
        or (_is(node, ast.ReindexStmt) and node.kind in ALL_TABLES)
        or (_is(node, ast.DiscardStmt) and node.target == DiscardMode.DISCARD_ALL)
        or (
            _is(node, ast.AlterDatabaseStmt)
            and any(option.defname == "tablespace" for option in node.options or ())
        )
        or (_is(node, ast.AlterTableStmt) and _detaches_concurrently(node))
    )


def setting(node: Node) -> tuple[str, str | None, str] | None:
    """Return the setting that a SET or RESET changes."""
    if not _is(node, ast.VariableSetStmt) or control(node):
        return None
    kind = VariableSetKind(node.kind)
    if kind == VariableSetKind.VAR_SET_CURRENT:
        return None
    if kind == VariableSetKind.VAR_RESET_ALL:
        return "all", None, "reset"
    if kind == VariableSetKind.VAR_RESET:
        return node.name.lower(), None, "reset"
    reach = "local" if node.is_local else "session"
    if kind == VariableSetKind.VAR_SET_DEFAULT:
        return node.name.lower(), None, reach
    values = [_constant(argument) for argument in node.args or ()]
    if node.name == "xmloption":
        values = [option.lower() for option in values]
    return node.name.lower(), ", ".join(values), reach


def _is(node: Node, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(node, kinds)


def _copies(statement: Statement) -> tuple[bool, bool]:
    return is_copy_from_stdin(statement), is_copy_to_stdout(statement)


def _constant(node: Node) -> str:
    constant = node.val
    for attribute in ("sval", "fval", "ival"):
        if hasattr(constant, attribute):
            return str(getattr(constant, attribute))
    return repr(constant)


def _option(node: Node, name: str) -> bool:
    for option in node.params or ():
        if option.defname == name:
            argument = option.arg
            return argument is None or getattr(argument, "sval", "") not in {
                *("false", "off"),
            }
    return False


def _detaches_concurrently(node: Node) -> bool:
    return any(
        command.subtype == AlterTableType.AT_DetachPartition and command.def_.concurrent
        for command in node.cmds
    )
