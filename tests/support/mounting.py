"""What a kubelet does before it starts a container: environment, and files of volumes, in a folder for /."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from charts import Manifest, the_container

OURS = ("/etc/pathwatch", "/var/lib/pathwatch")


def mount(
    pod: Manifest, manifests: Iterable[Manifest], secrets: Mapping[str, Mapping[str, str]], root: Path
) -> list[str]:
    """Files of the pathwatch container below `root`, and the arguments it is started with.

    Paths in both begin with `root`. A secret or key that is not there is a KeyError: the pod would not start.
    """
    configs = {m["metadata"]["name"]: m["data"] for m in manifests if m["kind"] == "ConfigMap"}
    container = the_container(pod)
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
    for mounted in container["volumeMounts"]:
        folder = root / mounted["mountPath"].lstrip("/")
        folder.mkdir(parents=True)
        for name, text in _files(volumes.get(mounted["name"], {}), configs, secrets).items():
            (folder / name).write_text(_below(root, text))
            (folder / name).chmod(0o440)
    return [_below(root, argument) for argument in container["args"]]


def environment(pod: Manifest, name: str) -> dict[str, str]:
    """Of the pathwatch container in a pod of that name, but for what is in secrets.

    `$(NAME)` is what was said before; what was not stays as it is written, as with a kubelet.
    """
    said: dict[str, str] = {}
    for variable in the_container(pod).get("env", []):
        source = variable.get("valueFrom", {})
        if "fieldRef" in source:
            assert source["fieldRef"] == {"fieldPath": "metadata.name"}
            said[variable["name"]] = name
        elif "secretKeyRef" not in source:
            said[variable["name"]] = re.sub(
                r"\$\((\w+)\)", lambda found: said.get(found[1], found[0]), variable["value"]
            )
    return said


def _files(
    volume: Mapping[str, Any],
    configs: Mapping[str, Mapping[str, str]],
    secrets: Mapping[str, Mapping[str, str]],
) -> Mapping[str, str]:
    if "configMap" in volume:
        return configs[volume["configMap"]["name"]]
    if "secret" not in volume:
        return {}
    content = secrets[volume["secret"]["secretName"]]
    items = volume["secret"].get("items", [{"key": key, "path": key} for key in content])
    return {item["path"]: content[item["key"]] for item in items}


def _below(root: Path, text: str) -> str:
    for path in OURS:
        text = text.replace(path, f"{root}{path}")
    return text
