"""Kubeconfig files: self-contained, readable by their owner only."""

import base64
import os
from pathlib import Path
from typing import Any

import yaml

from hack.cluster.certificates import KeyPair


def write_with_certificate(path: Path, url: str, ca_file: Path, client: KeyPair) -> Path:
    """Authenticates by a client certificate."""
    user = {
        "client-certificate-data": _encoded(client.certificate),
        "client-key-data": _encoded(client.key),
    }
    return _write(path, url, ca_file, user)


def write_with_token(path: Path, url: str, ca_file: Path, token: str) -> Path:
    """Authenticates by a bearer token."""
    return _write(path, url, ca_file, {"token": token})


def _write(path: Path, url: str, ca_file: Path, user: dict[str, Any]) -> Path:
    cluster = {"server": url, "certificate-authority-data": _encoded(ca_file)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "stokehold", "cluster": cluster}],
        "users": [{"name": "stokehold", "user": user}],
        "contexts": [{"name": "stokehold", "context": {"cluster": "stokehold", "user": "stokehold"}}],
        "current-context": "stokehold",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        yaml.safe_dump(config, handle, sort_keys=False)
    return path


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
