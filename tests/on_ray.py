"""Runs the black-box tests of actors on a Ray cluster, in an environment that has Ray: `make test-ray`.

``python tests/on_ray.py [arguments of pytest]`` starts a cluster of its own, runs the tests in it, and ends it. What
differs there is skipped with its reason, which is listed in `ray_differs.py`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

TESTS = Path(__file__).parent
MODULES = ("ray_engine", "actors_basic")


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        python_path = [str(TESTS.parent), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(python_path)
        gcs, client = _free_port(), _free_port()
        start = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=16",
            "--include-dashboard=false", "--disable-usage-stats", "--node-ip-address=127.0.0.1", f"--port={gcs}",
            f"--ray-client-server-port={client}", "--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={folder}",
            "--object-store-memory=500000000",
        ]  # fmt: skip
        with Path(folder, "start.log").open("w") as log:
            cluster = subprocess.Popen(start, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            _wait_for(client)
            environment |= {
                "ACTORS_TEST_RAY": f"127.0.0.1:{gcs}", "ACTORS_TEST_RAY_CLIENT": f"ray://127.0.0.1:{client}",
                "RAY_TMPDIR": folder,
            }  # fmt: skip
            chosen = arguments or [str(TESTS / f"test_{name}.py") for name in MODULES]
            done = subprocess.run([sys.executable, "-m", "pytest", "-q", *chosen], env=environment, check=False)
        finally:
            cluster.terminate()
            try:
                cluster.wait(30)
            except subprocess.TimeoutExpired:
                cluster.kill()
        return done.returncode


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise SystemExit("no Ray cluster came up within 120 s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
