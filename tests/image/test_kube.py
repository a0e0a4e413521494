"""
k8s/ on something that runs it: podman's `kube play`, in the lab.

What podman cannot do is taken out first, and nothing else: the downward API's
namespace, and fsGroup, which the mode of the secret relies on.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart import find_helm, render
from tests.fix_image import BUILD_S, IMAGE, ROOT, docker
from tests.image.readme_deployment import read_deployment


pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(BUILD_S),
    pytest.mark.xdist_group("kube"),
]

K8S = ROOT / "k8s"
LAB_KUBE = ROOT.parent / "shared/lab/kube"
GOOD = {"001_first.sql": "CREATE TABLE first (id int);\n"}
BROKEN = GOOD | {"002_broken.sql": "SELECT nothing FROM nowhere;\n"}
EXAMPLE = {file.name: file.read_text() for file in (K8S / "example").glob("*.sql")}
# As docs/orchestrators.md makes it: before there is a table that it could read.
CHECK_ROLE = """
CREATE ROLE shop_check LOGIN PASSWORD '{password}';
ALTER DEFAULT PRIVILEGES FOR ROLE shop GRANT SELECT ON TABLES TO shop_check;
"""

Document = dict[str, Any]


def kube(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the lab's kube; where there is none, skip, but not in CI."""
    if not LAB_KUBE.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"there is no {LAB_KUBE}", pytrace=False)
        pytest.skip(f"there is no {LAB_KUBE}")
    done = subprocess.run(
        [LAB_KUBE, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def read(name: str) -> list[Document]:
    """Return a file's documents."""
    return [
        document
        for document in yaml.safe_load_all((K8S / name).read_text())
        if document is not None
    ]


def for_podman(document: Document) -> Document:
    """Take out what podman does not have."""
    if document["kind"] == "ConfigMap":
        return document
    pod = document["spec"]
    if "template" in pod:
        pod = pod["template"]["spec"]
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        container["env"] = [
            variable
            for variable in container.get("env", ())
            if "metadata.namespace" not in str(variable)
        ]
    for volume in pod.get("volumes", ()):
        if "secret" in volume:
            volume["secret"]["defaultMode"] = 0o444
    return document


def set_wait_timeout(deployment: Document, timeout: str) -> None:
    """Let its check give up sooner than in the manifest."""
    check = deployment["spec"]["template"]["spec"]["initContainers"][0]
    (variable,) = [each for each in check["env"] if each["name"] == "GATE_WAIT_TIMEOUT"]
    variable["value"] = timeout


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What stands in for one, with a database in it."""

    folder: Path
    password: str
    check_password: str

    def play(
        self, migrations: dict[str, str], *documents: Document
    ) -> subprocess.CompletedProcess[str]:
        """Apply manifests beside the secrets and the migrations they name."""
        beside = [
            secret("shop-database", self.password),
            secret("shop-check-database", self.check_password),
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "shop-migrations"},
                "data": migrations,
            },
        ]
        file = self.folder / "all.yaml"
        adapted = [for_podman(document) for document in documents]
        file.write_text(yaml.safe_dump_all([*beside, *adapted]))
        return kube("play", str(file), IMAGE, check=False)

    def execute(self, script: str, *, check: bool = True) -> bool:
        """Run a script as the owner, in one transaction; say whether it could be."""
        psql = ("psql", "-U", "shop", "-qAtX", "-c", script)
        return not kube("podman", "exec", "postgres-db", *psql, check=check).returncode

    def make_check_role(self) -> None:
        """Make the role that checks, as soon as there is a server to make it in."""
        deadline_s = time.monotonic() + 60
        script = CHECK_ROLE.format(password=self.check_password)
        while not self.execute(script, check=False):
            assert time.monotonic() < deadline_s, kube("logs", "postgres-db").stdout
            time.sleep(0.2)

    def state(self, container: str) -> tuple[str, int]:
        """Return a container's state and exit code."""
        form = "{{.State.Status}} {{.State.ExitCode}}"
        status, code = kube(
            "podman", "inspect", "--format", form, container
        ).stdout.split()
        return status, int(code)

    def verdict(self, container: str) -> dict[str, Any]:
        """Return the last line of a gate's log."""
        lines = kube("logs", container).stdout.splitlines()
        verdict: dict[str, Any] = json.loads(lines[-1])
        return verdict


def secret(name: str, password: str) -> Document:
    """Return a Secret with a password."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "stringData": {"password": password},
    }


@pytest.fixture
def cluster(image: str, tmp_path: Path) -> Iterator[Cluster]:
    """Start PostgreSQL as the pod `postgres`; everything is removed in the end."""
    assert image
    made = Cluster(
        folder=tmp_path,
        password=secrets.token_urlsafe(12),
        check_password=secrets.token_urlsafe(12),
    )
    database = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "postgres"},
        "spec": {
            "containers": [
                {
                    "name": "db",
                    "image": "postgres:17",
                    "imagePullPolicy": "IfNotPresent",
                    "env": [
                        {"name": "POSTGRES_USER", "value": "shop"},
                        {"name": "POSTGRES_PASSWORD", "value": made.password},
                    ],
                }
            ]
        },
    }
    remove_all()
    played = made.play({"001_unused.sql": ""}, database)
    assert played.returncode == 0, played.stderr
    try:
        yield made
    finally:
        remove_all()


def remove_all() -> None:
    """Remove what runs there, and what it left."""
    kube("podman", "pod", "rm", "--all", "--force", "--time", "0")
    for kind in ("secret", "volume"):
        kube("podman", kind, "rm", "--all", check=False)


def wait_for_end(cluster: Cluster, container: str) -> None:
    """Wait until a container has ended."""
    deadline_s = time.monotonic() + 60
    while cluster.state(container)[0] != "exited":
        assert time.monotonic() < deadline_s, kube("logs", container).stdout
        time.sleep(0.2)


def test_behind_an_open_init_container_the_application_starts(
    cluster: Cluster,
) -> None:
    """The first start waits for the database, which has only just been created."""
    played = cluster.play(GOOD, *read("init-container.yaml"))
    assert played.returncode == 0, played.stderr
    assert cluster.state("shop-pod-gate") == ("exited", 0)
    assert cluster.state("shop-pod-app") == ("running", 0)
    verdict = cluster.verdict("shop-pod-gate")
    assert (verdict["event"], verdict["applied"]) == ("gate.opened", ["001_first.sql"])
    assert verdict["pod_name"] == "shop-pod"


def test_behind_a_closed_init_container_the_application_never_starts(
    cluster: Cluster,
) -> None:
    """And the last 2048 bytes of the log, which describe shows, say why."""
    played = cluster.play(BROKEN, *read("init-container.yaml"))
    assert played.returncode == 1
    assert cluster.state("shop-pod-gate") == ("exited", 1)
    assert cluster.state("shop-pod-app") == ("created", 0)
    log = kube("logs", "shop-pod-gate").stdout
    shown = json.loads(log.encode()[-2048:].decode(errors="replace").splitlines()[-1])
    assert (shown["file"], shown["line"]) == ("002_broken.sql", 1)
    assert shown["applied"] == ["001_first.sql"]


def test_the_init_container_of_the_readme_lets_the_application_start(
    cluster: Cluster,
) -> None:
    """With names of the cluster in place of the example's."""
    deployment = read_deployment()
    pod = deployment["spec"]["template"]["spec"]
    (gate,) = pod["initContainers"]
    gate["image"] = IMAGE
    ours = {"POSTGRES_HOST": "postgres", "POSTGRES_USER": "shop"}
    for variable in gate["env"]:
        variable["value"] = ours.get(variable["name"], variable["value"])
    # Its image would have the migrations inside.
    gate["volumeMounts"].append({"name": "files", "mountPath": "/migrations"})
    pod["volumes"].append({"name": "files", "configMap": {"name": "shop-migrations"}})
    played = cluster.play(GOOD, deployment)
    assert played.returncode == 0, played.stderr
    assert cluster.verdict("shop-pod-gate")["applied"] == ["001_first.sql"]
    assert cluster.state("shop-pod-app") == ("running", 0)


def test_the_job_applies_and_the_check_lets_the_application_start(
    cluster: Cluster,
) -> None:
    """The check has a login of its own, which may read the history."""
    cluster.make_check_role()
    job = cluster.play(GOOD, *read("job.yaml"))
    assert job.returncode == 0, job.stderr
    wait_for_end(cluster, "shop-migrate-1-0-0-pod-gate")
    assert cluster.state("shop-migrate-1-0-0-pod-gate") == ("exited", 0)

    played = cluster.play(GOOD, *read("deployment.yaml"))
    assert played.returncode == 0, played.stderr
    assert cluster.state("shop-pod-check") == ("exited", 0)
    assert cluster.state("shop-pod-app") == ("running", 0)


def test_what_waits_for_the_rollout_is_applied_after_it(cluster: Cluster) -> None:
    """The gates before it leave it alone; its own Job applies it."""
    files = GOOD | {"002_after.sql": "-- gate: after-deploy\nDROP TABLE first;\n"}
    cluster.make_check_role()
    (job,), (deployment,) = read("job.yaml"), read("deployment.yaml")
    for document, part in ((job, "containers"), (deployment, "initContainers")):
        (gate, *_) = document["spec"]["template"]["spec"][part]
        gate["env"].append({"name": "GATE_PHASE", "value": "before"})
    cluster.play(files, job)
    wait_for_end(cluster, "shop-migrate-1-0-0-pod-gate")
    said = cluster.verdict("shop-migrate-1-0-0-pod-gate")
    assert said["applied"] == list(GOOD), said
    assert cluster.play(files, deployment).returncode == 0
    assert cluster.state("shop-pod-app") == ("running", 0)

    after = cluster.play(files, *read("after-deploy.yaml"))
    assert after.returncode == 0, after.stderr
    gate_name = "shop-migrate-after-1-0-0-pod-gate"
    wait_for_end(cluster, gate_name)
    assert cluster.verdict(gate_name)["applied"] == ["002_after.sql"]


def test_a_failed_job_says_why(cluster: Cluster) -> None:
    """In the last line of its log."""
    cluster.play(BROKEN, *read("job.yaml"))
    wait_for_end(cluster, "shop-migrate-1-0-0-pod-gate")
    assert cluster.state("shop-migrate-1-0-0-pod-gate")[1] == 1
    assert cluster.verdict("shop-migrate-1-0-0-pod-gate")["file"] == "002_broken.sql"


def test_a_newer_pod_does_not_start_before_its_job(cluster: Cluster) -> None:
    """An older one, behind a history that is ahead of it, does."""
    cluster.make_check_role()
    cluster.play(GOOD, *read("job.yaml"))
    wait_for_end(cluster, "shop-migrate-1-0-0-pod-gate")
    newer = GOOD | {"002_second.sql": "CREATE TABLE second (id int);\n"}

    (deployment,) = read("deployment.yaml")
    set_wait_timeout(deployment, "2s")
    assert cluster.play(newer, deployment).returncode == 1
    assert cluster.state("shop-pod-app") == ("created", 0)
    verdict = cluster.verdict("shop-pod-check")
    assert verdict["reason"] == "incomplete"
    assert "002_second.sql" in verdict["error_message"]

    cluster.execute("INSERT INTO schema_migrations (version) VALUES ('002_second.sql')")
    older = cluster.play(GOOD, *read("deployment.yaml"))
    assert older.returncode == 0, older.stderr
    assert cluster.state("shop-pod-app") == ("running", 0)


def test_the_component_holds_any_deployment_back(cluster: Cluster) -> None:
    """What kustomize makes of k8s/example, closed before its Job and open behind it."""
    documents = list(yaml.safe_load_all(kube("kustomize", str(K8S / "example")).stdout))
    (deployment,) = [each for each in documents if each["kind"] == "Deployment"]
    maps = [each for each in documents if each["kind"] == "ConfigMap"]
    cluster.make_check_role()
    cluster.play(GOOD, *read("job.yaml"))
    wait_for_end(cluster, "shop-migrate-1-0-0-pod-gate")
    set_wait_timeout(deployment, "2s")

    closed = cluster.play(GOOD, *maps, deployment)
    assert closed.returncode == 1
    assert cluster.state("shop-pod-app") == ("created", 0)
    assert cluster.verdict("shop-pod-check")["reason"] == "incomplete"

    job = cluster.play(EXAMPLE, *read("job.yaml"))
    assert job.returncode == 0, job.stderr
    wait_for_end(cluster, "shop-migrate-1-0-0-pod-gate")
    opened = cluster.play(GOOD, *maps, deployment)
    assert opened.returncode == 0, opened.stderr
    assert cluster.state("shop-pod-app") == ("running", 0)


def test_the_charts_job_and_check_let_the_application_start(cluster: Cluster) -> None:
    """What helm makes of chart/example, closed before its Job and open behind it."""
    if find_helm() is None:
        pytest.skip("there is no helm: .ci/run config builds it")
    repository, _, tag = IMAGE.partition(":")
    made = render(
        {
            "image": {"repository": repository, "tag": tag},
            "check": {"waitTimeout": "2s"},
        }
    )
    by_kind = {document["kind"]: document for document in made}
    cluster.make_check_role()
    closed = cluster.play(GOOD, by_kind["Deployment"])
    assert closed.returncode == 1
    assert cluster.state("shop-pod-app") == ("created", 0)
    assert cluster.verdict("shop-pod-check")["reason"] in {"incomplete", "refused"}

    job = by_kind["Job"]
    assert cluster.play(GOOD, job).returncode == 0
    gate_name = f"{job['metadata']['name']}-pod-gate"
    wait_for_end(cluster, gate_name)
    assert cluster.verdict(gate_name)["applied"] == list(GOOD)
    opened = cluster.play(GOOD, by_kind["Deployment"])
    assert opened.returncode == 0, opened.stderr
    assert cluster.state("shop-pod-app") == ("running", 0)


def test_migrations_may_come_from_an_image_of_their_own(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Two lines make it, as image-volume.yaml says."""
    (pod,) = read("image-volume.yaml")
    reference = pod["spec"]["volumes"][0]["image"]["reference"]
    folder = tmp_path / "image"
    (folder / "migrations").mkdir(parents=True)
    for name, text in GOOD.items():
        (folder / "migrations" / name).write_text(text)
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY migrations /\n")
    docker("build", "--quiet", "--tag", reference, str(folder))
    kube("load", reference)
    try:
        played = cluster.play({"001_unused.sql": ""}, pod)
        assert played.returncode == 0, played.stderr
        wait_for_end(cluster, "shop-migrate-gate")
        assert cluster.verdict("shop-migrate-gate")["applied"] == ["001_first.sql"]
    finally:
        docker("rmi", reference)


def test_the_component_comes_first_and_keeps_what_was_there(tmp_path: Path) -> None:
    """In a Deployment that has an init container and volumes of its own."""
    application = yaml.safe_load((K8S / "example/application.yaml").read_text())
    pod = application["spec"]["template"]["spec"]
    pod["initContainers"] = [{"name": "own", "image": "busybox"}]
    pod["volumes"] = [{"name": "own", "emptyDir": {}}]
    folder = tmp_path / "example"
    folder.mkdir()
    (folder / "application.yaml").write_text(yaml.safe_dump(application))
    component = os.path.relpath(K8S / "components/check", folder)
    kustomization = {"resources": ["application.yaml"], "components": [component]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    made = yaml.safe_load(kube("kustomize", str(folder)).stdout)
    pod = made["spec"]["template"]["spec"]
    assert [each["name"] for each in pod["initContainers"]] == ["check", "own"]
    assert {each["name"] for each in pod["volumes"]} == {
        "own",
        "migration-gate-database",
        "migration-gate-migrations",
    }
