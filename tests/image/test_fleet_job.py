"""
k8s/fleet.yaml as its pods run: a container for each index, one of them killed.

What plays manifests here knows no indexes. So what a Job's controller does is done by
the test: each index gets a container, with the environment of the manifest and
JOB_COMPLETION_INDEX, and another where that was killed, as often as
backoffLimitPerIndex allows.
"""

from __future__ import annotations

import json

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fix_gate import Event, write_migrations
from tests.fix_image import HARDENED, IMAGE, ROOT, ContainerDatabase, docker
from tests.polling import until


pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]
TENANTS = [f"tenant_{number:02}" for number in range(24)]
FILES = {
    "001_made.sql": "CREATE TABLE made (id int); INSERT INTO made VALUES (1);",
    "002_slow.sql": "SELECT pg_sleep(0.3); INSERT INTO made VALUES (2);",
    "003_index.sql": "CREATE INDEX CONCURRENTLY made_index ON made (id);\n"
    "INSERT INTO made VALUES (3);",
}
VERSIONS = ",".join(sorted(FILES))
BROKEN = TENANTS[7]
END_S = 120.0
# What docker says of a container that SIGKILL ended.
KILLED = 137


class Job:
    """What the manifest says, and the containers of its pods."""

    def __init__(self, database: ContainerDatabase, folder: Path) -> None:
        (self.document,) = yaml.safe_load_all((ROOT / "k8s/fleet.yaml").read_text())
        self.spec: dict[str, Any] = self.document["spec"]
        self._pod: dict[str, Any] = self.spec["template"]["spec"]
        (self._gate,) = self._pod["containers"]
        self._database = database
        self._files = write_migrations(folder / "migrations", FILES)
        folder.chmod(0o755)
        self._password = folder / "password"
        self._password.write_text(f"{database.password}\n")
        self._password.chmod(0o444)
        self.containers: list[str] = []

    def environ(self, index: int) -> dict[str, str]:
        """Return a pod's environment: the manifest's, and what Kubernetes adds."""
        name = f"{self.document['metadata']['name']}-{index}"
        fields = {"metadata.name": name, "metadata.namespace": "shop"}
        manifest = {
            each["name"]: each["value"]
            if "value" in each
            else fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
            for each in self._gate["env"]
        }
        there = self._database.environ()
        del there["POSTGRES_PASSWORD"]
        assert there.keys() <= manifest.keys()
        return {**manifest, **there, "JOB_COMPLETION_INDEX": str(index)}

    def start(self, index: int) -> str:
        """Start the container of an index."""
        context = self._pod["securityContext"]
        given = [f"--env={name}={value}" for name, value in self.environ(index).items()]
        mounts = {
            each["name"]: each["mountPath"] for each in self._gate["volumeMounts"]
        }
        password = f"{mounts['database']}/password"
        container = docker(
            *("run", "--detach", "--network", self._database.network, *HARDENED),
            *("--user", f"{context['runAsUser']}:{context['runAsGroup']}"),
            *("--memory", self._gate["resources"]["limits"]["memory"].lower()[:-1]),
            *("--volume", f"{self._files}:{mounts['migrations']}:ro"),
            *("--volume", f"{self._password}:{password}:ro"),
            *(*given, IMAGE, *self._gate["args"]),
        ).stdout.strip()
        self.containers.append(container)
        return container

    def is_started_again(self, exit_code: int, *, attempts: int) -> bool:
        """Tell whether the Job starts another pod for the index of one that failed."""
        for rule in self.spec["podFailurePolicy"]["rules"]:
            codes = rule.get("onExitCodes", {"values": ()})["values"]
            if exit_code in codes:
                assert rule["action"] == "FailIndex"
                return False
        return attempts <= int(self.spec["backoffLimitPerIndex"])


@contextmanager
def made(database: ContainerDatabase, folder: Path) -> Iterator[Job]:
    """Make the tenants' schemas; remove them, and the containers, in the end."""
    database.execute("".join(f"CREATE SCHEMA {name};" for name in TENANTS))
    job = Job(database, folder)
    try:
        yield job
    finally:
        if job.containers:
            docker("rm", "--force", *job.containers)
        database.execute("".join(f"DROP SCHEMA {name} CASCADE;" for name in TENANTS))


def events(container: str) -> list[Event]:
    """Return what a container has logged."""
    lines = docker("logs", container).stdout.splitlines()
    return [json.loads(line) for line in lines]


def wait_for_end(container: str) -> int:
    """Return a container's exit code."""
    return int(docker("wait", container, timeout_s=END_S).stdout)


def is_at_work(container: str) -> bool:
    """Tell whether it has applied a file, and has more to do."""
    names = {event["event"] for event in events(container)}
    return "migration.applied" in names


def state(database: ContainerDatabase, tenants: Sequence[str]) -> dict[str, str]:
    """Return the rows that files left in each tenant, and its versions."""
    query = "".join(
        f"SELECT '{name}', (SELECT string_agg(id::text, '' ORDER BY id)"
        f" FROM {name}.made), (SELECT string_agg(version, ',' ORDER BY version)"
        f" FROM {name}.schema_migrations);"
        for name in tenants
    )
    found = {}
    for line in database.execute(query).splitlines():
        name, _, rest = line.partition("|")
        found[name] = rest
    return found


def test_a_killed_worker_is_started_again_and_every_tenant_is_done_once(
    container_database: ContainerDatabase, tmp_path: Path
) -> None:
    """All indexes at once, as parallelism says; one is killed at its work."""
    with made(container_database, tmp_path) as job:
        assert job.spec["completionMode"] == "Indexed"
        assert job.spec["parallelism"] == job.spec["completions"] > 1
        running = {index: job.start(index) for index in range(job.spec["completions"])}
        victim = running[1]
        until(lambda: is_at_work(victim), 60)
        docker("kill", "--signal", "KILL", victim)
        assert wait_for_end(victim) == KILLED
        assert job.is_started_again(KILLED, attempts=1)
        assert not job.is_started_again(KILLED, attempts=2)
        running[1] = job.start(1)
        codes = {index: wait_for_end(each) for index, each in running.items()}
        assert codes == dict.fromkeys(running, 0)
        verdicts = {index: events(each)[-1] for index, each in running.items()}
        begins = {events(each)[1]["begins_at"] for each in running.values()}
        found = state(container_database, TENANTS)
    assert {v["done_count"] for v in verdicts.values()} == {len(TENANTS)}
    assert {v["pod_name"] for v in verdicts.values()} == {
        f"{job.document['metadata']['name']}-{index}" for index in running
    }
    assert len(begins) == len(running)
    assert found == dict.fromkeys(TENANTS, f"123|{VERSIONS}")


def test_an_index_that_said_why_it_failed_is_not_started_again(
    container_database: ContainerDatabase, tmp_path: Path
) -> None:
    """Each worker does all others, and names the one that fails in its last line."""
    with made(container_database, tmp_path) as job:
        container_database.execute(f"CREATE TABLE {BROKEN}.made (other text);")
        workers = [job.start(index) for index in range(2)]
        codes = [wait_for_end(each) for each in workers]
        log = docker("logs", workers[0]).stdout
        found = state(container_database, [n for n in TENANTS if n != BROKEN])
    assert codes == [1, 1]
    assert not job.is_started_again(1, attempts=1)
    last = log.encode()[-2048:].decode(errors="replace").splitlines()[-1]
    assert json.loads(last)["failed"] == [f"{BROKEN}: 001_made.sql:1:1 (42P07)"]
    assert set(found.values()) == {f"123|{VERSIONS}"}
