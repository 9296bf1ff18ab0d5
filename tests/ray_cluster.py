"""A Ray cluster of three nodes on this machine, for the tests: ``python ray_cluster.py FOLDER`` runs one.

It prints one line of JSON, the environment of a program that is to use it, and ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

NAMES = ("first", "second", "third")

# Ray would start a process for each CPU as soon as a program comes, and end those that idle for a second.
SETTINGS = {"prestart_worker_first_driver": False, "enable_worker_prestart": False}

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "10",
    # Off, as it is on macOS, Ray stays on the loopback interface.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}  # fmt: skip


def main(folder: str) -> None:
    from ray.cluster_utils import Cluster

    Path(folder, "ray").mkdir(exist_ok=True)  # where Ray writes the address that "auto" joins
    gcs, client = _free_port(), _free_port()
    common = {
        "node_ip_address": "127.0.0.1", "num_cpus": 4, "object_store_memory": 400_000_000, "include_dashboard": False,
        "dashboard_agent_listen_port": 0,
    }  # fmt: skip
    head = {
        "gcs_server_port": gcs, "ray_client_server_port": client, "temp_dir": folder, "_system_config": SETTINGS,
        "node_name": NAMES[0],
    }  # fmt: skip
    cluster = Cluster(initialize_head=True, head_node_args={**common, **head})
    for name in NAMES[1:]:
        cluster.add_node(**common, node_name=name)
    found = {
        "ACTORS_TEST_RAY": f"127.0.0.1:{gcs}", "ACTORS_TEST_RAY_CLIENT": f"ray://127.0.0.1:{client}",
        "RAY_TMPDIR": folder, **ENVIRONMENT,
    }  # fmt: skip
    print(json.dumps(found), flush=True)
    sys.stdin.read()
    cluster.shutdown()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    os.environ.update(ENVIRONMENT)
    main(sys.argv[1])
