"""A device that lacks an extra: it is a member like all others, and what it lacks is said by name."""

from __future__ import annotations

import json
import subprocess
import sysconfig
import venv
from importlib import metadata
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
LACKING = 2

PROGRAM = """
import json
import actors
actors.init(expect_nodes=2, timeout=20)
far = next(n for n in actors.nodes() if n.name == "host2")
@actors.remote
class Echo:
    def echo(self, value): return value
said = {"versions": sorted(far.versions), "echo": actors.get(Echo.options(node="host2").remote().echo.remote(1))}
@actors.remote
class Model:
    def make(self):
        from actors.models.extra import require_mlx_lm
        require_mlx_lm()
try:
    said["model"] = repr(actors.get(Model.options(node="host2").remote().make.remote()))
except Exception as error:
    said["model"] = f"{error}"
print(json.dumps(said), flush=True)
"""


@pytest.fixture(scope="module")
def lacking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter that has all that this one has, but for mlx-lm and MLX."""
    pytest.importorskip("mlx_lm", reason="the extra `models` is not installed here, so nobody can lack it")
    folder = tmp_path_factory.mktemp("lacking")
    packages = folder / "packages"
    packages.mkdir()
    for installed in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(installed).iterdir():
            if not entry.name.lower().startswith("mlx"):
                (packages / entry.name).symlink_to(entry)
    # This package itself may be installed from this very checkout; what it is called must be known there too.
    ours = Path(str(metadata.distribution("mlx-actors").locate_file(""))).resolve()
    for entry in ours.glob("mlx_actors-*"):
        (packages / entry.name).symlink_to(entry)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = str(folder / "venv" / "bin" / "python")
    inside = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    Path(inside, "shared.pth").write_text(f"{packages}\n{ROOT}\n")
    return python


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, lacking: str) -> Iterator[House]:
    with netlab(2) as lab:
        house = House(lab, tmp_path_factory.mktemp("extras"), {LACKING: [lacking]})
        try:
            house.pair(2)
            eventually(lambda: house.answer(1) == {"host1", "host2"})
            yield house
        finally:
            house.stop(2)


def test_it_says_which_extra_it_lacks_and_does_all_the_rest(house: House) -> None:
    out, _ = house.start(1, "-c", PROGRAM).communicate(timeout=90)
    said = json.loads(out.splitlines()[-1])
    assert said["echo"] == 1
    assert "mlx-lm" not in said["versions"]
    assert "mlx-lm" in metadata.packages_distributions().get("mlx_lm", [])
    for words in ("host2", "mlx-lm", "mlx-actors[models]"):
        assert words in said["model"], said


def test_the_doctor_names_it(house: House) -> None:
    status, out = house.run(1, "doctor")
    (line,) = [line for line in out.splitlines() if "lacks the extra" in line]
    assert "host2 lacks the extra models" in line, (status, out)
    assert "pip install 'mlx-actors[models]'" in line
