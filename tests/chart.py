"""
The Helm chart as an application's chart has it, rendered.

    python -m tests.chart FOLDER

writes what helm makes of it into a folder, in each of the ways below.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml


ROOT: Final = Path(__file__).resolve().parents[1]
CHART: Final = ROOT / "chart"
EXAMPLE: Final = CHART / "example"
BUILT: Final = ROOT / ".cache/go/helm"
SECRET: Final = {"name": "shop-database", "key": "password"}
PIECES: Final = ("job", "serviceAccount", "networkPolicy")
# Only where there is a second phase.
AFTER: Final = """
{{ if .Values.gate.settings.GATE_PHASE }}
{{ include "migration-gate.afterJob" . }}
{{ end }}
"""
POD: Final = """
apiVersion: v1
kind: Pod
metadata:
  name: {name}
spec:
  initContainers:
    {{{{- include "migration-gate.{piece}" . | nindent 4 }}}}
  containers:
    - name: app
      image: app
  {{{{- with include "migration-gate.{volumes}" . }}}}
  volumes:
    {{{{- . | nindent 4 }}}}
  {{{{- end }}}}
"""
# What an application may want of the chart, beside its example.
WAYS: Final[Mapping[str, Mapping[str, Any]]] = {
    "plain": {},
    "helm hook": {"job": {"hook": "helm"}},
    "argocd hook": {"job": {"hook": "argocd"}},
    "url": {"database": {"host": "", "urlSecret": {"name": "shop-url"}}},
    "azure": {
        "image": {
            "digest": f"sha256:{'0' * 64}",
            "pullSecrets": [{"name": "registry"}],
        },
        "database": {"passwordSecret": {"name": ""}, "sslMode": "verify-full"},
        "settings": {"GATE_LOGIN": "azure", "GATE_DDL_LOCK_TIMEOUT": "5s"},
        "serviceAccount": {
            "create": True,
            "annotations": {"azure.workload.identity/client-id": "0-0"},
        },
        "job": {"podLabels": {"azure.workload.identity/use": "true"}},
        "networkPolicy": {
            "ports": [443],
            "to": [{"ipBlock": {"cidr": "10.0.0.0/24"}}],
        },
    },
    "two phases": {"job": {"hook": "argocd"}, "settings": {"GATE_PHASE": "before"}},
    "openshift": {"runAsUser": None, "runAsGroup": None},
    "all the rest": {
        "env": [{"name": "PGSSLROOTCERT", "value": "/etc/db/ca.pem"}],
        "envFrom": [{"configMapRef": {"name": "more"}}],
        "volumes": [{"name": "ca", "configMap": {"name": "db-ca"}}],
        "volumeMounts": [{"name": "ca", "mountPath": "/etc/db", "readOnly": True}],
        "telemetry": {
            "endpoint": "http://agent:4318",
            "headersSecret": {"name": "telemetry"},
        },
        "job": {
            "annotations": {"team": "shop"},
            "podAnnotations": {"sidecar.istio.io/inject": "false"},
            "nodeSelector": {"kubernetes.io/arch": "arm64"},
            "tolerations": [{"key": "batch", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "priorityClassName": "high",
        },
    },
}


def find_helm() -> str | None:
    """Return the command; `.ci/run config` builds it."""
    return str(BUILT) if BUILT.exists() else shutil.which("helm")


class HelmError(Exception):
    """Helm refused."""


def render(values: Mapping[str, Any], *, revision: int = 1) -> list[dict[str, Any]]:
    """Return what helm makes of the example, its values changed, with every piece."""
    documents = yaml.safe_load_all(render_text(values, revision=revision))
    return [document for document in documents if document]


def render_text(values: Mapping[str, Any], *, revision: int = 1) -> str:
    """Return the text of it. Raises HelmError."""
    helm = find_helm()
    assert helm is not None
    with tempfile.TemporaryDirectory() as folder:
        application = Path(folder, "shop")
        lay_out(application)
        given = Path(folder, "values.yaml")
        given.write_text(yaml.safe_dump({"gate": dict(values)}))
        if revision > 1:  # helm template knows no revision but the first
            for template in (application / "charts").rglob("*.tpl"):
                text = template.read_text()
                template.write_text(text.replace(".Release.Revision", str(revision)))
        done = subprocess.run(
            [helm, "template", "shop", str(application), "--values", str(given)],
            check=False,
            capture_output=True,
            text=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": folder},
        )
    if done.returncode:
        raise HelmError(done.stderr)
    return done.stdout


def lay_out(application: Path) -> None:
    """Write the example with the chart in it, as `helm dependency build` does."""
    shutil.copytree(EXAMPLE, application)
    library = application / "charts/migration-gate"
    shutil.copytree(CHART, library, ignore=shutil.ignore_patterns("example"))
    templates = application / "templates"
    for piece in PIECES:
        text = f'{{{{ include "migration-gate.{piece}" . }}}}\n'
        (templates / f"{piece}.yaml").write_text(text)
    (templates / "afterJob.yaml").write_text(AFTER)
    pods = {"initContainer": "volumes", "check": "checkVolumes"}
    for piece, volumes in pods.items():
        text = POD.format(name=piece.lower(), piece=piece, volumes=volumes)
        (templates / f"{piece}.yaml").write_text(text)


def write_all(folder: Path) -> None:
    """Write each way into a file of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in WAYS.items():
        (folder / f"{name.replace(' ', '-')}.yaml").write_text(render_text(values))


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
