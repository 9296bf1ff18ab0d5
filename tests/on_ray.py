"""Runs the black-box tests of actors on a Ray cluster, in an environment that has Ray: `make test-ray`.

``python tests/on_ray.py [arguments of pytest]`` starts a cluster of its own, runs the tests in it, and ends it. What
differs there must fail, and is listed with its reason in `ray_differs.py`. Where ``ACTORS_TEST_TORCH`` names a folder
that holds torch, all processes of the cluster have it, and ranks talk by gloo.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from pathlib import Path

import ray_cluster
import ray_differs

TESTS = Path(__file__).parent
START_SECONDS = 120.0
TEST_SECONDS = "60"


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        more = [os.environ.get(name) for name in ("ACTORS_TEST_TORCH", "PYTHONPATH")]
        python_path = [str(TESTS.parent), str(TESTS), *filter(None, more)]
        environment = {**os.environ, **ray_cluster.ENVIRONMENT, "RAY_TMPDIR": folder}
        environment["PYTHONPATH"] = os.pathsep.join(python_path)
        log = Path(folder, "start.log")
        with log.open("w") as file:
            cluster = subprocess.Popen(
                [sys.executable, TESTS / "ray_cluster.py", folder],
                env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
            )  # fmt: skip
        try:
            environment |= _found(cluster, log)
            chosen = arguments or [str(TESTS / f"test_{name}.py") for name in ("ray_engine", *ray_differs.DIFFERS)]
            command = [sys.executable, "-m", "pytest", "-q", "--timeout", TEST_SECONDS, *chosen]
            return subprocess.run(command, env=environment, check=False).returncode
        finally:
            _end(cluster)


def _found(cluster: subprocess.Popen[bytes], log: Path) -> dict[str, str]:
    """Returns what the cluster says of itself once it runs."""
    assert cluster.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(cluster.stdout, selectors.EVENT_READ)
        line = cluster.stdout.readline() if selector.select(START_SECONDS) else b""
    if not line:
        raise SystemExit(f"no Ray cluster came up within {START_SECONDS:g} s:\n{log.read_text()[-2000:]}")
    found: dict[str, str] = json.loads(line)
    return found


def _end(cluster: subprocess.Popen[bytes]) -> None:
    assert cluster.stdin is not None
    cluster.stdin.close()
    try:
        cluster.wait(30)
    except subprocess.TimeoutExpired:
        cluster.kill()
        cluster.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
