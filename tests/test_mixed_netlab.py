"""Mixed company: two minor versions of Python, and two versions of this package, on hosts of one lab."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from house import House, eventually
from netlab import netlab, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.netlab,
    pytest.mark.skipif(unavailable() is not None, reason=unavailable() or ""),
    pytest.mark.timeout(300),
]
ROOT = Path(__file__).parents[1]
HERE = "{}.{}".format(*sys.version_info)

PACKAGE = """
import sys
import actors
@actors.remote
class Installed:
    def python(self): return "{}.{}".format(*sys.version_info)
    def echo(self, value): return value
@actors.remote
def version(): return "{}.{}".format(*sys.version_info)
"""

PROGRAM = """
import json, sys
import numpy as np
import actors, shared_package
actors.init(expect_nodes=2, timeout=20)
mine = "{}.{}".format(*sys.version_info)
far = next(n for n in actors.nodes() if n.versions["python"].rsplit(".", 1)[0] != mine)
there = shared_package.Installed.options(node=far.name).remote()
said = {
    "far": actors.get(there.python.remote()),
    "array": actors.get(there.echo.remote(np.arange(1 << 20))).sum().item(),
    "task": actors.get(shared_package.version.options(node=far.name).remote()),
}
@actors.remote
class Mine:
    def python(self): return "{}.{}".format(*sys.version_info)
def refusal(wait):
    try:
        return repr(wait())
    except Exception as error:
        cause = error if isinstance(error, actors.exceptions.VersionMismatchError) else error.__cause__
        return [type(cause).__name__, str(cause).splitlines()[0]]
said["class"] = refusal(lambda: actors.get(Mine.options(node=far.name).remote().python.remote(), timeout=30))
said["function"] = refusal(lambda: actors.get(there.echo.remote(lambda: 1), timeout=30))
said["anywhere"] = actors.get([Mine.options(scheduling_strategy="SPREAD").remote().python.remote() for _ in range(4)])
print(json.dumps(said), flush=True)
"""


@pytest.fixture(scope="module")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter of another minor version that has what this package needs."""
    made = sorted(ROOT.glob(".venv-3.*/bin/python"))
    for python in made:
        if subprocess.run([python, "-c", "import grpc, zeroconf"], check=False, capture_output=True).returncode == 0:
            return str(python)
    found = subprocess.run(["sh", ROOT / ".ci" / "pythons"], capture_output=True, text=True, check=True).stdout.split()
    minor = "import sys; print('{}.{}'.format(*sys.version_info))"
    others = [
        p
        for p in found
        if subprocess.run([p, "-c", minor], capture_output=True, text=True, check=True).stdout.strip() != HERE
    ]
    if not others:
        pytest.skip(f"only Python {HERE} is installed")
    place = tmp_path_factory.mktemp("other") / "venv"
    subprocess.run([others[-1], "-m", "venv", place], check=True, capture_output=True)
    install = [place / "bin" / "python", "-m", "pip", "install", "--quiet", ROOT]
    done = subprocess.run(install, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"what the package needs cannot be installed for {others[-1]}: {done.stderr[-200:]}")
    subprocess.run(
        [place / "bin" / "python", "-m", "pip", "uninstall", "-y", "mlx-actors"], check=True, capture_output=True
    )
    return str(place / "bin" / "python")


@pytest.fixture(scope="module")
def house(other_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("mixed")
    package = folder / "site-packages"
    package.mkdir()
    (package / "shared_package.py").write_text(PACKAGE)
    path = f"PYTHONPATH={ROOT}:{package}"
    with netlab(3) as lab:
        house = House(lab, folder, {1: [path, sys.executable], 2: [path, other_python]})
        try:
            house.pair(2)
            yield house
        finally:
            house.stop(3)


@pytest.mark.parametrize("host", [1, 2])
def test_two_minors_share_data_and_installed_code(house: House, host: int) -> None:
    eventually(lambda: len(house.answer(host)) == 2)
    process = house.start(host, "-c", PROGRAM)
    out, _ = process.communicate(timeout=90)
    said = json.loads(out.splitlines()[-1])
    far, near = said["far"], said["anywhere"][0]
    assert far != near
    assert (said["task"], said["array"]) == (far, sum(range(1 << 20)))
    assert said["anywhere"] == [near] * 4  # placed where it runs
    for what in ("class", "function"):
        kind, text = said[what]
        assert "VersionMismatchError" in kind + text
        assert f"Python {near}" in text
        assert f"Python {far}" in text


def test_doctor_names_both_versions(house: House) -> None:
    status, out = house.run(1, "doctor", "--json")
    assert status == 1
    (finding,) = [f for f in json.loads(out) if f["check"] == "versions" and not f["ok"]]
    assert HERE in finding["what"]
    assert "host2 runs Python 3." in finding["what"]


def test_another_protocol_is_refused_by_name(house: House, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    for package in ("actors", "discovery"):
        shutil.copytree(ROOT / package, newer / package)
    version = newer / "actors" / "version.py"
    version.write_text(version.read_text().replace("PROTOCOL = 1", "PROTOCOL = 2").replace("0.1.0", "0.2.0"))
    other = House(house.lab, house.folder, {3: [f"PYTHONPATH={newer}", sys.executable]})
    other.does(3, "start")
    with house.invitation(1) as (shown, invite):
        other.run(3, "join", shown["code"])
        assert invite.wait(30) == 0
    line = eventually(
        lambda: [ln for ln in house.log(1).splitlines() if "protocol 2" in ln and "install the same version" in ln]
    )
    assert "0.2.0" in line[0]
    status, out = house.run(1, "doctor", "--json", "host3")
    assert status == 1
    (finding,) = [f for f in json.loads(out) if not f["ok"]]
    assert "protocol" in finding["what"]
