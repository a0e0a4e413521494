"""The Helm chart: what it makes of its values, and what it refuses."""

from __future__ import annotations

import json

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from migration_gate import __version__
from migration_gate.settings.known import SETTINGS
from tests.chart import CHART, EXAMPLE, WAYS, HelmError, find_helm, render
from tests.project.pages import ROOT, read


HELM = pytest.mark.helm
VALUES: dict[str, Any] = yaml.safe_load(read("chart/values.yaml"))
SCHEMA: dict[str, Any] = json.loads(read("chart/values.schema.json"))


@pytest.fixture(autouse=True)
def _helm(request: pytest.FixtureRequest) -> None:
    """Skip what needs helm where it is not; in CI it is built."""
    if request.node.get_closest_marker("helm") and find_helm() is None:
        pytest.skip("there is no helm: .ci/run config builds it")


def of_kind(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Return the only document of a kind."""
    (found,) = (document for document in documents if document["kind"] == kind)
    return found


def job(values: Mapping[str, Any], **how: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the Job."""
    return of_kind(render(values, **how), "Job")


def pod(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the spec of the pod that has a piece for its init container."""
    (found,) = (
        document["spec"]
        for document in render(values)
        if (document["kind"], document["metadata"]["name"]) == ("Pod", name)
    )
    return dict(found)


def container(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the gate's container of a Job."""
    (found,) = document["spec"]["template"]["spec"]["containers"]
    return dict(found)


def environ(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a container's variables; None for what comes from elsewhere."""
    return {variable["name"]: variable.get("value") for variable in found["env"]}


def paths(values: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield where values and their schema differ in names."""
    known = set(schema.get("properties", {})) - {"global"}
    if "properties" not in schema:
        return
    yield from sorted(known ^ set(values))
    for name in known & set(values):
        if isinstance(values[name], dict):
            yield from paths(values[name], schema["properties"][name])


def test_the_schema_has_the_values_that_there_are() -> None:
    """Each name in both, and nothing else is taken."""
    assert list(paths(VALUES, SCHEMA)) == []


def test_the_chart_names_the_gates_version() -> None:
    """In its own number, the image's tag, and the example."""
    chart = yaml.safe_load(read("chart/Chart.yaml"))
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)
    assert f'default "{__version__}"' in read("chart/templates/_values.tpl")
    (dependency,) = yaml.safe_load(read("chart/example/Chart.yaml"))["dependencies"]
    assert dependency["version"] == __version__


def test_the_variables_are_those_that_the_gate_knows() -> None:
    """What a template writes, and what a value may be called."""
    known = {setting.name for setting in SETTINGS}
    for template in sorted((CHART / "templates").glob("*.tpl")):
        text = template.read_text()
        named = {word for word in text.replace(".", " ").split() if "GATE_" in word}
        assert {word.strip('":)') for word in named} <= known


@HELM
def test_the_job_is_the_one_of_the_manifests() -> None:
    """What differs is what the values say."""
    made = job({})
    kept = yaml.safe_load((ROOT / "k8s/job.yaml").read_text())
    for name in ("podFailurePolicy", "podReplacementPolicy", "backoffLimit"):
        assert made["spec"][name] == kept["spec"][name]
    for name in ("activeDeadlineSeconds", "ttlSecondsAfterFinished"):
        assert made["spec"][name] == kept["spec"][name]
    pods = [document["spec"]["template"]["spec"] for document in (made, kept)]
    for name in ("restartPolicy", "terminationGracePeriodSeconds"):
        assert pods[0][name] == pods[1][name]
    for name in ("enableServiceLinks", "automountServiceAccountToken"):
        assert pods[0][name] is pods[1][name] is False
    ours, theirs = container(made), container(kept)
    assert ours["resources"] == theirs["resources"]
    assert theirs["securityContext"].items() <= ours["securityContext"].items()
    assert ours["terminationMessagePolicy"] == theirs["terminationMessagePolicy"]
    assert environ(ours)["GATE_TIMEOUT"] == environ(theirs)["GATE_TIMEOUT"]


@HELM
def test_another_pod_is_another_job() -> None:
    """And so is another revision: a Job cannot be changed."""
    first = job({})["metadata"]["name"]
    assert first == job({})["metadata"]["name"]
    other = job({"image": {"tag": "1"}})["metadata"]["name"]
    later = job({}, revision=2)["metadata"]["name"]
    assert len({first, other, later}) == 3
    assert all(name.startswith("shop-migrate-") for name in (first, other, later))


@HELM
@pytest.mark.parametrize(
    ("hook", "annotations"),
    [
        ("none", None),
        (
            "helm",
            {
                "helm.sh/hook": "post-install,pre-upgrade",
                "helm.sh/hook-delete-policy": "before-hook-creation",
                "helm.sh/hook-weight": "-1",
            },
        ),
        (
            "argocd",
            {
                "argocd.argoproj.io/hook": "Sync",
                "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation",
                "argocd.argoproj.io/sync-wave": "-1",
            },
        ),
    ],
)
def test_there_are_no_hooks_unless_asked_for(
    hook: str, annotations: Mapping[str, str] | None
) -> None:
    """One that is has one name for all releases."""
    metadata = job({"job": {"hook": hook}})["metadata"]
    assert metadata.get("annotations") == annotations
    assert (metadata["name"] == "shop-migrate") is (annotations is not None)


@HELM
@pytest.mark.parametrize(
    ("hook", "when"), [("helm", "post-install,post-upgrade"), ("argocd", "PostSync")]
)
def test_what_waits_for_the_rollout_has_a_job_after_it(hook: str, when: str) -> None:
    """With the phase of its own; the one before leaves it alone."""
    values = {"job": {"hook": hook}, "settings": {"GATE_PHASE": "before"}}
    jobs = {d["metadata"]["name"]: d for d in render(values) if d["kind"] == "Job"}
    assert set(jobs) == {"shop-migrate", "shop-migrate-after"}
    after = jobs["shop-migrate-after"]
    assert when in after["metadata"]["annotations"].values()
    assert environ(container(after))["GATE_PHASE"] == "after"
    assert environ(container(jobs["shop-migrate"]))["GATE_PHASE"] == "before"


@HELM
def test_what_a_hook_needs_comes_before_it() -> None:
    """Its account, and what it may reach."""
    values = {**WAYS["azure"], "job": {"hook": "argocd"}}
    documents = render(values)
    for kind in ("ServiceAccount", "NetworkPolicy"):
        annotations = of_kind(documents, kind)["metadata"]["annotations"]
        assert annotations["argocd.argoproj.io/sync-wave"] == "-2"


@HELM
def test_the_check_has_a_login_of_its_own() -> None:
    """And its own secret; it waits as long as the Job may take."""
    (check,) = pod({}, "check")["initContainers"]
    told = environ(check)
    assert check["args"] == ["check"]
    assert told["POSTGRES_USER"] == "shop_check"
    assert (told["GATE_WAIT_TIMEOUT"], told["GATE_TIMEOUT"]) == ("1h", "62m")
    assert environ(container(job({})))["POSTGRES_USER"] == "shop"
    volumes = {v["name"]: v for v in pod({}, "check")["volumes"]}
    secret = volumes["migration-gate-check-database"]["secret"]
    assert secret == {"secretName": "shop-check-database", "defaultMode": 0o444}


@HELM
def test_the_init_container_migrates() -> None:
    """With less time than a rollout has by default."""
    (gate,) = pod({}, "initcontainer")["initContainers"]
    assert (gate["name"], gate["args"]) == ("gate", ["migrate"])
    assert environ(gate)["GATE_TIMEOUT"] == "8m"


@HELM
def test_a_url_takes_the_place_of_host_and_user() -> None:
    """One secret, and one file."""
    told = environ(container(job(WAYS["url"])))
    assert told["DATABASE_URL_FILE"] == "/run/secrets/migration-gate/url"
    assert not [name for name in told if name.startswith("POSTGRES_")]


@HELM
def test_without_a_password_there_is_no_secret() -> None:
    """An identity of the cloud's, with its account, its labels, and the way to both."""
    documents = render(WAYS["azure"])
    made = of_kind(documents, "Job")
    found = container(made)
    assert "POSTGRES_PASSWORD_FILE" not in environ(found)
    assert environ(found)["GATE_LOGIN"] == "azure"
    assert found["image"] == f"migration-gate@sha256:{'0' * 64}"
    spec = made["spec"]["template"]["spec"]
    assert [volume["name"] for volume in spec["volumes"]] == [
        "migration-gate-migrations"
    ]
    account = of_kind(documents, "ServiceAccount")
    assert spec["serviceAccountName"] == account["metadata"]["name"] == "shop-migrate"
    assert account["metadata"]["annotations"] == {
        "azure.workload.identity/client-id": "0-0"
    }
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert labels["azure.workload.identity/use"] == "true"
    policy = of_kind(documents, "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert [port["port"] for port in policy["egress"][1]["ports"]] == [5432, 443]


@HELM
def test_openshift_gives_numbers_of_its_own() -> None:
    """So that none stands in the pod; it is no root all the same."""
    made = job(WAYS["openshift"])
    assert "65532" not in json.dumps(made)
    assert container(made)["securityContext"]["runAsNonRoot"] is True


@HELM
def test_the_files_may_be_in_an_image_or_in_the_gates_own() -> None:
    """One that is mounted as a volume; or no volume at all."""
    mounted = {"configMap": "", "imageVolume": "shop:1"}
    made = job({"migrations": mounted})["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in made["volumes"]}
    image = {"reference": "shop:1", "pullPolicy": "IfNotPresent"}
    assert volumes["migration-gate-migrations"]["image"] == image
    own = {
        "migrations": {"configMap": ""},
        "database": {"passwordSecret": {"name": ""}},
    }
    assert "volumes" not in job(own)["spec"]["template"]["spec"]
    assert "volumeMounts" not in container(job(own))


@HELM
def test_what_is_said_beside_it_is_taken_along() -> None:
    """Variables, volumes, telemetry, and where the pod runs."""
    made = job(WAYS["all the rest"])
    found, spec = container(made), made["spec"]["template"]["spec"]
    told = environ(found)
    assert told["PGSSLROOTCERT"] == "/etc/db/ca.pem"
    assert told["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://agent:4318"
    assert told["OTEL_EXPORTER_OTLP_HEADERS"] is None
    assert found["envFrom"] == WAYS["all the rest"]["envFrom"]
    assert WAYS["all the rest"]["volumeMounts"][0] in found["volumeMounts"]
    assert WAYS["all the rest"]["volumes"][0] in spec["volumes"]
    for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert spec[name] == WAYS["all the rest"]["job"][name]
    assert made["metadata"]["annotations"] == {"team": "shop"}
    annotations = made["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"sidecar.istio.io/inject": "false"}


@HELM
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"database": {"host": ""}}, "gate.database needs a host"),
        (
            {"settings": {"GATE_PHASE": "before"}},
            "afterJob needs gate.job.hook: helm or argocd",
        ),
        (
            {"settings": {"GATE_PHASE": "all"}, "job": {"hook": "helm"}},
            "afterJob needs GATE_PHASE: before",
        ),
        ({"jobs": {}}, "additional properties 'jobs' not allowed"),
        ({"job": {"hook": "pre-install"}}, "value must be one of"),
        ({"settings": {"TIMEOUT": "1m"}}, "GATE_"),
        ({"initContainer": {"timeout": "soon"}}, "does not match pattern"),
        ({"image": {"digest": "sha256:1"}}, "does not match pattern"),
    ],
)
def test_what_cannot_be_meant_is_refused(values: Mapping[str, Any], words: str) -> None:
    """By helm itself, before anything reaches a cluster."""
    with pytest.raises(HelmError, match=words):
        render(values)


def test_the_example_is_what_the_page_shows() -> None:
    """Word for word."""
    page = read("chart/README.md")
    for file in ("values.yaml", "templates/job.yaml"):
        text = (EXAMPLE / file).read_text()
        kept = text.partition("\ngate:")[2] if file == "values.yaml" else text
        assert kept.strip() in page
