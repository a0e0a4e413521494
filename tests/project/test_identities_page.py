"""What the page of identities says is known to the SDKs, to PostgreSQL and the gate."""

from __future__ import annotations

import importlib
import json
import re

from typing import Any

import pytest

from migration_gate.settings.environment import from_environ
from tests.fix_postgres import Database
from tests.project.pages import read_blocks


PAGE = "docs/identities.md"
BLOCKS: list[dict[str, Any]] = [json.loads(each) for each in read_blocks(PAGE, "json")]
# What the providers' servers have, and this one does not.
OF_THE_PROVIDERS = """
CREATE ROLE rds_iam;
CREATE ROLE "shop-gate@PROJECT.iam";
CREATE FUNCTION pgaadauth_create_principal(name text, is_admin bool, is_mfa bool)
RETURNS text LANGUAGE plpgsql AS $$ BEGIN
    EXECUTE format('CREATE ROLE %I LOGIN', name);
    RETURN name;
END $$;
"""


def test_the_task_is_one_that_ecs_registers() -> None:
    """By the SDK's own model; its settings are the gate's, and none is a password."""
    (task,) = (block for block in BLOCKS if "family" in block)
    session: Any = importlib.import_module("botocore.session")
    validate: Any = importlib.import_module("botocore.validate")
    model = session.get_session().get_service_model("ecs")
    shape = model.operation_model("RegisterTaskDefinition").input_shape
    validator = validate.ParamValidator()
    found = validator.validate(task, shape)
    assert not found.has_errors(), found.generate_report()
    slip = {**task, "networkMode": 1}
    assert validator.validate(slip, shape).has_errors()
    (gate,) = task["containerDefinitions"]
    assert gate.keys() <= shape.members["containerDefinitions"].member.members.keys()
    assert task.keys() <= shape.members.keys()
    environ = {each["name"]: each["value"] for each in gate["environment"]}
    assert from_environ(environ).login == "aws"


def test_each_policy_has_the_words_of_one() -> None:
    """One lets log in, two are what a role trusts."""
    policies = [block for block in BLOCKS if "Statement" in block]
    actions = []
    for policy in policies:
        assert policy["Version"] == "2012-10-17"
        (statement,) = policy["Statement"]
        words = {"Effect", "Action", "Resource", "Principal", "Condition"}
        assert statement.keys() <= words
        actions.append(statement["Action"])
    assert actions == [
        "rds-db:connect",
        ["sts:AssumeRole", "sts:TagSession"],
        "sts:AssumeRoleWithWebIdentity",
    ]


def test_the_job_of_cloud_run_has_settings_that_the_gate_accepts() -> None:
    """They stand in several options, as one line would be too long."""
    (command,) = (b for b in read_blocks(PAGE, "sh") if "gcloud run jobs deploy" in b)
    told = ",".join(re.findall(r"--set-env-vars (\S+)", command)).split(",")
    settings = from_environ(dict(each.split("=", 1) for each in told))
    assert settings.login == "google"


@pytest.mark.server
def test_the_sql_makes_roles_that_may_create(database: Database) -> None:
    """All that the page has, where the providers have made what is theirs."""
    with database.connect() as conn:
        conn.autocommit = False
        conn.execute(OF_THE_PROVIDERS)
        for block in read_blocks(PAGE, "sql"):
            conn.execute(block.encode())
        found = conn.execute(
            "SELECT rolname::text FROM pg_roles WHERE rolname ~ '^shop.gate'"
            " AND has_schema_privilege(oid, 'public', 'CREATE') ORDER BY 1"
        ).fetchall()
        conn.rollback()
    roles = ["shop-gate", "shop-gate@PROJECT.iam", "shop_gate"]
    assert [name for (name,) in found] == sorted(roles)
