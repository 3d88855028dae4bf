"""Katib's trials, as the Kubernetes API has them."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path

import urllib3

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes tells a pod who it is: `token`, `ca.crt`, `namespace`."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_TIMEOUT = urllib3.Timeout(10.0)


class TrialsError(Exception):
    """The Kubernetes API did not do what it was asked; the text says what, and why."""


class Trials:
    """The trials of the namespace that a pod runs in."""

    def __init__(self, api: str | None = None, account: Path = ACCOUNT) -> None:
        """`api` is the URL of the Kubernetes API; None = as the environment of a pod has it.

        Raises:
            TrialsError: this is no pod of Kubernetes.
        """
        try:
            self._api = (
                api
                or f"https://{_bracketed(os.environ['KUBERNETES_SERVICE_HOST'])}:"
                + (os.environ["KUBERNETES_SERVICE_PORT"])
            )
            self._namespace = (account / "namespace").read_text().strip()
        except (KeyError, OSError) as error:
            raise TrialsError(f"this is no pod of Kubernetes with a service account: {error}") from error
        self._account = account
        self._http = urllib3.PoolManager(ca_certs=str(account / "ca.crt"), timeout=_TIMEOUT)

    def mark_early_stopped(self, name: str) -> None:
        """Add the condition EarlyStopped to the status of a trial, which is what completes it for Katib.

        Raises:
            ValueError: no trial can have that name.
            TrialsError: it could not be added.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"trial_name: {name[:300]!r} is no name of a Kubernetes object")
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {
            "type": "EarlyStopped",
            "status": "True",
            "reason": "TrialEarlyStopped",
            "message": "pathwatch told the run of the trial to stop",
            "lastUpdateTime": now,
            "lastTransitionTime": now,
        }
        path = f"/apis/kubeflow.org/v1beta1/namespaces/{self._namespace}/trials/{name}/status"
        try:
            # Added in one go, so that what others write meanwhile is not lost.
            answer = self._http.request(
                "PATCH",
                self._api + path,
                json=[{"op": "add", "path": "/status/conditions/-", "value": condition}],
                headers={
                    "Content-Type": "application/json-patch+json",
                    # Read each time: Kubernetes replaces it while the pod runs.
                    "Authorization": f"Bearer {(self._account / 'token').read_text().strip()}",
                },
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise TrialsError(f"the status of trial {name} is not changed: {error}") from error
        if answer.status != 200:
            said = " ".join(answer.data[:500].decode(errors="replace").split())
            raise TrialsError(f"the status of trial {name} is not changed: HTTP {answer.status}: {said}")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
