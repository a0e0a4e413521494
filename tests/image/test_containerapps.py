"""
containerapps/ has the form that Azure's own SDK knows.
"""

from __future__ import annotations

import re

from pathlib import Path
from typing import Any

import pytest
import yaml

from azure.mgmt.appcontainers import models

from migration_gate.settings.durations import parse_duration
from migration_gate.settings.environment import from_environ


ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "containerapps"
MODELS = {
    "app.yaml": models.ContainerApp,
    "job.yaml": models.Job,
    "app-identity.yaml": models.ContainerApp,
    "job-identity.yaml": models.Job,
}


def read(name: str) -> dict[str, Any]:
    """Return one of the files."""
    text: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return text


def unknown(model: object, given: object, place: str) -> list[str]:
    """Name what a model does not know: its classes keep such keys without a word."""
    if isinstance(given, list) and isinstance(model, list):
        return [
            fault
            for number, (part, each) in enumerate(zip(model, given, strict=True))
            for fault in unknown(part, each, f"{place}[{number}]")
        ]
    attributes = getattr(model, "_attr_to_rest_field", None)
    if not isinstance(given, dict) or attributes is None:
        return []
    names = {field._rest_name: name for name, field in attributes.items()}
    faults = [f"{place}.{key}" for key in given if key not in names]
    for key in given.keys() & names:
        faults += unknown(getattr(model, names[key]), given[key], f"{place}.{key}")
    return faults


@pytest.mark.parametrize("name", MODELS)
def test_the_sdk_knows_every_key(name: str) -> None:
    """No key is a slip of the pen, at any depth."""
    given = read(name)
    assert unknown(MODELS[name](given), given, name) == []


@pytest.mark.parametrize("name", MODELS)
def test_an_unknown_key_would_be_found(name: str) -> None:
    """The test above sees what the SDK itself keeps in silence."""
    given = read(name)
    given["properties"]["template"]["containers"][0]["imageName"] = "gate"
    found = unknown(MODELS[name](given), given, name)
    assert found == [f"{name}.properties.template.containers[0].imageName"]


@pytest.mark.parametrize("name", MODELS)
def test_the_settings_are_accepted_and_fit_the_platform(name: str) -> None:
    """The gate ends, and says why, before the platform ends it."""
    properties = read(name)["properties"]
    template = properties["template"]
    (gate,) = template.get("initContainers") or template["containers"]
    environ = {each["name"]: each["value"] for each in gate["env"]}
    from_environ(environ)
    limit_s = properties["configuration"].get("replicaTimeout", 1800)
    assert parse_duration(environ["GATE_TIMEOUT"]) < limit_s


@pytest.mark.parametrize("name", MODELS)
def test_every_mount_and_secret_is_there(name: str) -> None:
    """A mount names a volume, and the volume a secret, of the same file."""
    properties = read(name)["properties"]
    template = properties["template"]
    (gate,) = template.get("initContainers") or template["containers"]
    volumes = {volume["name"]: volume for volume in template.get("volumes", [])}
    given = properties["configuration"].get("secrets", [])
    secrets = {each["name"] for each in given}
    for mount in gate.get("volumeMounts", []):
        wanted = {each["secretRef"] for each in volumes[mount["volumeName"]]["secrets"]}
        assert wanted <= secrets


def test_terraform_makes_the_job_with_the_same_settings() -> None:
    """No password in it, and the limits are in the same order."""
    text = (FOLDER / "main.tf").read_text()
    told = re.findall(r'env \{\s+name += "(\w+)"\s+value = (\S+)', text)
    environ = {name: value.strip('"') for name, value in told}
    from_environ(environ)
    (gate,) = read("job-identity.yaml")["properties"]["template"]["containers"]
    assert environ.keys() == {each["name"] for each in gate["env"]}
    (limit_s,) = re.findall(r"replica_timeout_in_seconds = (\d+)", text)
    assert parse_duration(environ["GATE_TIMEOUT"]) < int(limit_s)
    assert "password_auth_enabled         = false" in text


def test_the_identity_that_migrates_is_not_the_applications() -> None:
    """Each that is assigned says where it is available, in a word that the SDK has."""
    given = read("app-identity.yaml")
    settings = given["properties"]["configuration"]["identitySettings"]
    lifecycles = {each["identity"]: each["lifecycle"] for each in settings}
    assert lifecycles.keys() == given["identity"]["userAssignedIdentities"].keys()
    known = {lifecycle.value for lifecycle in models.IdentitySettingsLifeCycle}
    assert set(lifecycles.values()) == {"Init", "None"} <= known


def test_the_pipeline_knows_every_end_of_an_execution() -> None:
    """What it asks about has an end in each state that the platform does not leave."""
    page = (ROOT / "docs/orchestrators.md").read_text()
    (bad,) = re.findall(r"^ *([\w |]+)\) exit 1 ;;$", page, re.MULTILINE)
    (good,) = re.findall(r"^ *(\w+)\) break ;;$", page, re.MULTILINE)
    goes_on = {"Running", "Processing", "Unknown"}
    states = {state.value for state in models.JobExecutionRunningState}
    assert {good, *bad.split(" | ")} == states - goes_on
    execution = models.JobExecution({"properties": {"status": good}})
    assert execution.status == good


@pytest.mark.parametrize("name", MODELS)
def test_no_file_holds_a_secret(name: str) -> None:
    """Each is read from the vault by the platform; an identity needs none."""
    given = read(name)["properties"]["configuration"].get("secrets", [])
    assert bool(given) == (not name.endswith("-identity.yaml"))
    for secret in given:
        assert secret.keys() == {"name", "keyVaultUrl", "identity"}
