# SPDX-License-Identifier: Apache-2.0
"""Runs the containers of one workflow pod as processes, one after the other: the kubelet of a cluster without nodes.

Called inside of a mount namespace of its own (`unshare --mount`), with the pod as JSON on standard input. Commands and
variables are the pod's; /tmp, /run and /dev are as fresh as in a container; rights are those of $KUBECONFIG. Prints
{"exitCode", "message"} of the container that failed, or of the last one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TERMINATION = Path("/dev/termination-log")


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def become_a_container() -> None:
    mount("--make-rprivate", "/")
    mount("-t", "tmpfs", "tmpfs", "/tmp")
    devices = Path("/tmp/dev")
    devices.mkdir()
    for name in ("null", "zero", "random", "urandom"):
        (devices / name).touch()
        mount("--bind", f"/dev/{name}", str(devices / name))
    mount("--rbind", str(devices), "/dev")
    mount("-t", "tmpfs", "tmpfs", "/run")
    Path("/var/run/argo").mkdir()


def variables(pod: dict[str, Any], container: dict[str, Any]) -> dict[str, str]:
    fields = {f"metadata.{key}": pod["metadata"][key] for key in ("name", "namespace", "uid")}
    return {
        entry["name"]: entry.get("value", "")
        if "valueFrom" not in entry
        else fields[entry["valueFrom"]["fieldRef"]["fieldPath"]]
        for entry in container.get("env", ())
    }


def main() -> None:
    pod = json.load(sys.stdin)
    become_a_container()
    outside = {key: os.environ[key] for key in ("PATH", "KUBECONFIG")} | {"HOME": "/tmp"}
    code = 0
    for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
        TERMINATION.write_text("")
        command = [*container.get("command", ()), *container.get("args", ())]
        code = subprocess.run(
            command,
            env=outside | variables(pod, container),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            check=False,
        ).returncode
        if code:
            break
    print(json.dumps({"exitCode": code, "message": TERMINATION.read_text()}))


if __name__ == "__main__":
    main()
