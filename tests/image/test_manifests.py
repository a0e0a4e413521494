"""
k8s/, containerapps/ and compose.yaml agree with the settings, and are hardened.
"""

from __future__ import annotations

import json
import re
import subprocess
import tomllib

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from migration_gate.commands.calls import read_call
from migration_gate.settings.durations import parse_duration
from migration_gate.settings.environment import POD_FIELDS, from_environ
from migration_gate.settings.known import SETTINGS
from migration_gate.settings.sources import POSTGRES_VARIABLES


ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("k8s", "containerapps", ".github")
FILES = sorted(
    [
        *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.y*ml")),
        ROOT / "compose.yaml",
        ROOT / "Dockerfile",
    ]
)
PODS = [
    *sorted((ROOT / "k8s").glob("*.yaml")),
    ROOT / "k8s/components/check/check.yaml",
]
# By the cloud that it stands in: the Job, with an identity in place of a password.
IDENTITIES = {"aks.yaml": "azure", "eks.yaml": "aws", "gke.yaml": "google"}
KNOWN = {
    "DATABASE_URL",
    *(setting.name for setting in SETTINGS),
    *POSTGRES_VARIABLES.values(),
    *(variable for variable, _ in POD_FIELDS),
}
# PostgreSQL's own image has a setting of the same family.
NAMES = re.compile(r"\b(?:GATE|POSTGRES)_[A-Z_]*[A-Z]\b")
# What the component leaves to the application's ConfigMap.
FROM_CONFIG_MAP = {
    "POSTGRES_HOST": "postgres",
    "POSTGRES_DB": "shop",
    "POSTGRES_USER": "shop_check",
}
LIMITS_NEED = {"memory"}
REASONED = (
    *("activeDeadlineSeconds:", "args:", "automountServiceAccountToken:"),
    *("backoffLimit:", "defaultMode:", "enableServiceLinks:", "fsGroup:"),
    *("imagePullPolicy:", "limits:", "maxSurge:", "maxUnavailable:"),
    *("- name: GATE_TIMEOUT", "- name: POD_NAME", "- name: POSTGRES_PASSWORD_FILE"),
    *("- onPodConditions:", "podReplacementPolicy:", "progressDeadlineSeconds:"),
    *("- action: FailJob", "- action: Ignore", "readOnlyRootFilesystem:"),
    *("requests:", "restartPolicy:"),
    *("securityContext:", "terminationGracePeriodSeconds:"),
    *("terminationMessagePolicy:", "ttlSecondsAfterFinished:"),
)


def named(file: Path) -> set[str]:
    """Return the gate's settings that a file names."""
    return {name.removesuffix("_FILE") for name in NAMES.findall(file.read_text())}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_setting_that_a_file_names_exists(file: Path) -> None:
    """In code, comments and prose alike."""
    assert named(file) - KNOWN == set()


def pods(file: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each workload of a file with its pod."""
    for document in yaml.safe_load_all(file.read_text()):
        if document and document["kind"] in {"Pod", "Deployment", "Job"}:
            spec = document["spec"]
            yield document, spec.get("template", {}).get("spec", spec)


def gates(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the containers of a pod that are gates."""
    containers = (*pod.get("initContainers", ()), *pod.get("containers", ()))
    return [each for each in containers if each["name"] in {"gate", "check"}]


@pytest.mark.parametrize("file", PODS, ids=lambda file: file.name)
def test_every_pod_meets_the_restricted_standard(file: Path) -> None:
    """Kubernetes' Pod Security Standards, and a read-only root."""
    for _, pod in pods(file):
        of_the_pod = pod.get("securityContext", {})
        for container in (*pod.get("initContainers", ()), *pod.get("containers", ())):
            context = of_the_pod | container["securityContext"]
            assert context["runAsNonRoot"] is True
            assert context["runAsUser"] == 65532
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert set(container["resources"]["limits"]) == LIMITS_NEED
        assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize("file", PODS, ids=lambda file: file.name)
def test_every_gate_shows_why_it_is_closed(file: Path) -> None:
    """And takes its password from a file, or has none."""
    for _, pod in pods(file):
        (gate,) = gates(pod)
        assert gate["terminationMessagePolicy"] == "FallbackToLogsOnError"
        assert gate["imagePullPolicy"] == "IfNotPresent"
        passwords = [each for each in gate["env"] if "PASSWORD" in each["name"]]
        wanted = [] if file.name in IDENTITIES else ["POSTGRES_PASSWORD_FILE"]
        assert [each["name"] for each in passwords] == wanted


@pytest.mark.parametrize(
    "file",
    [file for file in PODS if file.name not in IDENTITIES],
    ids=lambda file: file.name,
)
def test_every_line_that_is_no_default_has_its_reason(file: Path) -> None:
    """Above it, at least where it stands for the first time in a file."""
    lines = [line.strip() for line in file.read_text().splitlines()]
    for key in REASONED:
        found = [number for number, line in enumerate(lines) if line.startswith(key)]
        if found:
            assert lines[found[0] - 1].startswith("# "), key


@pytest.mark.parametrize("file", PODS, ids=lambda file: file.name)
def test_the_settings_of_every_gate_are_accepted(file: Path) -> None:
    """By the gate itself."""
    for _, pod in pods(file):
        (gate,) = gates(pod)
        environ = {each["name"]: each.get("value", "any") for each in gate["env"]}
        from_environ(FROM_CONFIG_MAP | environ)


@pytest.mark.parametrize("file", PODS, ids=lambda file: file.name)
def test_the_gate_ends_before_the_platform_ends_it(file: Path) -> None:
    """So the log says why, and not only the platform."""
    for workload, pod in pods(file):
        spec = workload["spec"]
        limit_s = spec.get("progressDeadlineSeconds", spec.get("activeDeadlineSeconds"))
        if limit_s is None:
            continue
        (gate,) = gates(pod)
        values = {each["name"]: each.get("value", "") for each in gate["env"]}
        assert parse_duration(values["GATE_TIMEOUT"]) < limit_s
        if "GATE_WAIT_TIMEOUT" in values:
            wait_s = parse_duration(values["GATE_WAIT_TIMEOUT"])
            assert wait_s < parse_duration(values["GATE_TIMEOUT"])


@pytest.mark.parametrize("name", ["job.yaml", "after-deploy.yaml"])
def test_every_attempt_of_the_job_can_say_why_it_failed(name: str) -> None:
    """All of them end before the deadline, at which pod and log are deleted."""
    (job,) = yaml.safe_load_all((ROOT / "k8s" / name).read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (gate,) = gates(pod)
    values = {each["name"]: each.get("value", "") for each in gate["env"]}
    attempts = spec["backoffLimit"] + 1
    # Kubernetes waits 10 s before the second, twice that before the third, and so on.
    pauses_s = 10 * (2 ** spec["backoffLimit"] - 1)
    attempt_s = parse_duration(values["GATE_TIMEOUT"])
    attempt_s += pod["terminationGracePeriodSeconds"]
    assert attempts * attempt_s + pauses_s < spec["activeDeadlineSeconds"]


@pytest.mark.parametrize("name", ["job.yaml", "after-deploy.yaml"])
def test_a_gate_that_said_why_is_not_started_again_by_its_job(name: str) -> None:
    """But one on a drained node is, whatever its exit code: the first rule decides."""
    (job,) = yaml.safe_load_all((ROOT / "k8s" / name).read_text())
    drained, closed = job["spec"]["podFailurePolicy"]["rules"]
    assert drained["action"] == "Ignore"
    assert drained["onPodConditions"] == [
        {"type": "DisruptionTarget", "status": "True"}
    ]
    (gate,) = gates(job["spec"]["template"]["spec"])
    assert closed == {
        "action": "FailJob",
        "onExitCodes": {
            "containerName": gate["name"],
            "operator": "In",
            "values": [1],
        },
    }


@pytest.mark.parametrize(("name", "login"), IDENTITIES.items())
def test_a_job_with_an_identity_is_the_other_one_but_for_the_password(
    name: str, login: str
) -> None:
    """So that the reasons of the other hold: it differs in image, account and login."""
    account, made = yaml.safe_load_all((ROOT / "k8s" / name).read_text())
    (kept,) = yaml.safe_load_all((ROOT / "k8s/job.yaml").read_text())
    pods = [job["spec"]["template"]["spec"] for job in (made, kept)]
    assert pods[0].pop("serviceAccountName") == account["metadata"]["name"]
    ours, theirs = (pod["containers"][0] for pod in pods)
    environ = {each["name"]: each.get("value") for each in ours["env"]}
    assert environ["GATE_LOGIN"] == login
    database = {"GATE_LOGIN", "POSTGRES_PASSWORD_FILE", "POSTGRES_SSL_MODE"}
    database |= {"POSTGRES_HOST", "POSTGRES_USER", "PGSSLROOTCERT"}
    for container, pod in zip((ours, theirs), pods, strict=True):
        del container["image"]
        container["env"] = [e for e in container["env"] if e["name"] not in database]
        secret = {"database", "roots"}
        for each in (container["volumeMounts"], pod["volumes"]):
            each[:] = [one for one in each if one["name"] not in secret]
    made["spec"]["template"]["metadata"] = kept["spec"]["template"]["metadata"]
    assert made == kept


def test_the_check_waits_as_long_as_the_job_may_take() -> None:
    """Its pods neither give up before, nor count as a failed rollout."""
    (job,) = yaml.safe_load_all((ROOT / "k8s/job.yaml").read_text())
    (deployment,) = yaml.safe_load_all((ROOT / "k8s/deployment.yaml").read_text())
    (check,) = gates(deployment["spec"]["template"]["spec"])
    values = {each["name"]: each.get("value", "") for each in check["env"]}
    job_s = job["spec"]["activeDeadlineSeconds"]
    assert parse_duration(values["GATE_WAIT_TIMEOUT"]) >= job_s
    assert deployment["spec"]["progressDeadlineSeconds"] > job_s


@pytest.mark.parametrize("name", ["k8s/job.yaml", "containerapps/job.yaml"])
@pytest.mark.parametrize("command", ["status", "resolve"])
def test_the_runbook_makes_a_job_of_a_command(name: str, command: str) -> None:
    """Its `sed` changes the job's name and its command, and nothing else."""
    page = (ROOT / "docs/runbook.md").read_text()
    (script,) = re.findall(rf"^sed '(.*)' {name}", page, re.MULTILINE)
    changed = change(name, in_place_of_status(script, command))
    assert len(changed) == 2
    assert "shop-command" in changed[0]
    words = yaml.safe_load(changed[1])["args"]
    assert words[0] == command
    assert read_call(words).name == command


def in_place_of_status(script: str, command: str) -> str:
    """Return a script of the runbook with another command, as its text says it."""
    if command == "status":
        return script
    page = (ROOT / "docs/runbook.md").read_text()
    (other,) = re.findall(rf"`(s/\S+\[migrate\S+\[{command}, .*?/)`", page)
    first, *rest = re.split(r"; |\n +", script)
    return "; ".join([first, other, *rest[1:]])


def change(name: str, script: str) -> list[str]:
    """Return the lines that a script for sed writes anew in a file."""
    made = subprocess.run(
        ["sed", script, ROOT / name],  # noqa: S607 -- the page's command
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    old = (ROOT / name).read_text().splitlines()
    lines = zip(old, made.splitlines(), strict=True)
    return [new for line, new in lines if line != new]


@pytest.mark.parametrize("command", ["status", "rollback", "resolve"])
def test_the_runbook_makes_one_pod_of_a_fleet(command: str) -> None:
    """Its `sed` changes the Job's name, its command and how many pods there are."""
    page = (ROOT / "docs/runbook.md").read_text()
    (script,) = re.findall(r"^sed '([^']*)' k8s/fleet.yaml", page, re.MULTILINE)
    named, *counts, args = change("k8s/fleet.yaml", in_place_of_status(script, command))
    assert "shop-command" in named
    assert [yaml.safe_load(line) for line in counts] == [
        {"completions": 1},
        {"parallelism": 1},
    ]
    words = yaml.safe_load(args)["args"]
    assert words[0] == command
    assert read_call(words).name == command
    spec = yaml.safe_load((ROOT / "k8s/fleet.yaml").read_text())["spec"]
    assert spec["maxFailedIndexes"] <= 1, "Kubernetes takes no more than completions"


def test_a_release_has_an_image_of_each_extra() -> None:
    """And the plain one."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yaml").read_text())
    extras = re.findall(
        r'^    "(\w+)": Extra\(', (ROOT / "image/extras.py").read_text(), re.MULTILINE
    )
    assert workflow["env"]["VARIANTS"].split() == ["plain", *extras]


def hooks(heading: str) -> dict[str, Any]:
    """Return the metadata that k8s/hooks.md adds to the Job, as YAML reads it."""
    page = (ROOT / "k8s/hooks.md").read_text()
    section = re.split(r"^## ", page, flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(heading)]
    (snippet,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    rendered = re.sub(r"\{\{ \.Release\.Name \}\}", "shop", snippet)
    metadata: dict[str, Any] = yaml.safe_load(rendered)["metadata"]
    return metadata


def test_the_hooks_are_what_helm_and_argo_cd_know() -> None:
    """Words of their documentation, and values that are strings, as annotations are."""
    helm = hooks("Helm")
    assert helm["name"] == "shop-migrate"
    assert helm["annotations"] == {
        "helm.sh/hook": "post-install,pre-upgrade",
        "helm.sh/hook-delete-policy": "before-hook-creation",
        "helm.sh/hook-weight": "0",
    }
    assert hooks("Argo CD")["annotations"] == {
        "argocd.argoproj.io/hook": "PreSync",
        "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation",
        "argocd.argoproj.io/sync-wave": "0",
    }


def test_the_snippet_for_ecs_lets_the_application_wait() -> None:
    """For the gate's success; and a gate that ends must not end the task."""
    page = (ROOT / "docs/orchestrators.md").read_text()
    (snippet,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    gate, app = json.loads(snippet)["containerDefinitions"]
    assert app["dependsOn"] == [{"containerName": gate["name"], "condition": "SUCCESS"}]
    assert (gate["essential"], app["essential"]) == (False, True)
    environ = {each["name"]: each["value"] for each in gate["environment"]}
    assert from_environ(environ).timeout_s == 600


def test_what_pyproject_names_is_what_is_locked() -> None:
    """At the same version, in the file of its group."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = {"run": project["project"]["dependencies"], **project["dependency-groups"]}
    for group, requirements in groups.items():
        lock = (ROOT / f"requirements/{group}.txt").read_text()
        for requirement in requirements:
            pinned = re.sub(r"\[\w+\]", "", requirement)
            assert re.search(rf"^{re.escape(pinned)}[ \\]", lock, re.MULTILINE), pinned
