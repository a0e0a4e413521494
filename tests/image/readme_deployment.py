"""
The init container of the README, in a whole Deployment.

What the README leaves to the reader, the application and its labels, is put beside it.
"""

from __future__ import annotations

import sys

from typing import Any

import yaml

from tests.project.pages import read_blocks


LABELS = {"app.kubernetes.io/name": "shop"}


def read_deployment() -> dict[str, Any]:
    """Return what a reader has who merged the snippet into a Deployment."""
    (snippet,) = [b for b in read_blocks("README.md", "yaml") if "initContainers" in b]
    pod = yaml.safe_load(snippet)["spec"]["template"]["spec"]
    application = {
        "name": "app",
        "image": "postgres:17",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", "echo 'application: started'; exec sleep infinity"],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop"},
        "spec": {
            "selector": {"matchLabels": LABELS},
            "template": {
                "metadata": {"labels": LABELS},
                "spec": {**pod, "containers": [application]},
            },
        },
    }


if __name__ == "__main__":
    yaml.safe_dump(read_deployment(), sys.stdout)
