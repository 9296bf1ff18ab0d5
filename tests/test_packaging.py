"""What is built and declared is what a fresh machine needs."""

import ast
import email
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from hatchling import build
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Modules that come with what is declared, and whose use is no reason to declare them beside it.
COMES_WITH = {"huggingface_hub": "mlx-lm", "tokenizers": "mlx-lm", "transformers": "mlx-lm", "IPython": "ipykernel"}


HOSTS = {"joblib", "mypy", "opentelemetry", "pytest", "ray", "torch", "typing_extensions"}  # who uses these has them


def _names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(requirement).name) for requirement in requirements}


def _third_party_imports() -> Iterator[tuple[Path, str]]:
    for file in sorted([*ROOT.glob("actors/**/*.py"), *ROOT.glob("discovery/**/*.py")]):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            else:
                continue
            for module in modules:
                top = module.partition(".")[0]
                if top in HOSTS:
                    continue
                if top not in sys.stdlib_module_names | {"actors", "discovery"}:
                    yield file, module


def _distributions(module: str) -> set[str]:
    top = module.partition(".")[0]
    if top in COMES_WITH:
        return {COMES_WITH[top]}
    if top == "google":  # a namespace that many share
        return {"protobuf"}
    return {canonicalize_name(name) for name in packages_distributions().get(top, [top])}


@pytest.mark.slow
def test_every_import_is_declared() -> None:
    extras = PROJECT["optional-dependencies"]
    declared = _names(PROJECT["dependencies"]).union(*map(_names, extras.values()))
    undeclared = {
        f"{file.relative_to(ROOT)}: {module}"
        for file, module in _third_party_imports()
        if not _distributions(module) & declared
    }
    assert undeclared == set()


def test_extra_all_is_the_other_extras() -> None:
    extras = PROJECT["optional-dependencies"]
    (everything,) = map(Requirement, extras["all"])
    assert everything.name == PROJECT["name"]
    assert everything.extras == set(extras) - {"all"}


def test_python_versions_are_stated_alike() -> None:
    supported = SpecifierSet(PROJECT["requires-python"])
    assert "3.10" not in supported
    named = {entry.rpartition(" ")[2] for entry in PROJECT["classifiers"] if "Python :: 3." in entry}
    assert named == {"3.11", "3.12", "3.13"}
    assert all(minor in supported for minor in [*named, "3.14", "4.0"]), "an upper bound shuts later Pythons out"


def test_installed_version_is_the_declared_one() -> None:
    assert version("mlx-actors") == PROJECT["version"]


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    before = Path.cwd()
    os.chdir(ROOT)  # where a build backend is called, by PEP 517
    try:
        build.build_wheel(str(folder))
        build.build_sdist(str(folder))
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(scope="module")
def wheel(artefacts: Path) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(next(artefacts.glob("*.whl"))) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


def test_wheel_holds_the_two_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"actors", "discovery"}


def test_wheel_holds_every_module_and_the_type_markers(wheel: zipfile.ZipFile) -> None:
    modules = {
        str(file.relative_to(ROOT))
        for package in ("actors", "discovery")
        for file in (ROOT / package).rglob("*")
        if file.suffix in {".py", ".pyi"} or file.name == "py.typed"
    }
    assert {"actors/py.typed", "discovery/py.typed", "actors/_wire/distributed_comm_pb2.pyi"} <= modules
    assert modules - set(wheel.namelist()) == set()


def test_wheel_installs_the_command_and_the_licence(wheel: zipfile.ZipFile, metadata: Message) -> None:
    entries = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "actors = actors.cli:main" in wheel.read(entries).decode()
    assert "actors.testing.plugin = actors.testing.plugin" in wheel.read(entries).decode()
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())
    assert metadata["License-Expression"] == "Apache-2.0"


def test_mlx_is_asked_for_only_where_it_exists(metadata: Message) -> None:
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    markers = [r.marker for r in requirements if r.name == "mlx" and r.marker]

    def wanted(platform: str, machine: str) -> bool:
        environment = {"sys_platform": platform, "platform_machine": machine, "extra": ""}
        return any(marker.evaluate(environment) for marker in markers)

    assert wanted("darwin", "arm64")
    assert wanted("linux", "x86_64")
    assert wanted("linux", "aarch64")
    assert not wanted("darwin", "x86_64")
    assert not wanted("linux", "riscv64")


def test_sdist_is_enough_to_build_and_test(artefacts: Path) -> None:
    with tarfile.open(next(artefacts.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        ".ci/pythons",
        "CHANGELOG.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "actors/__init__.py",
        "discovery/__init__.py",
        "proto/distributed_comm.proto",
        "pyproject.toml",
        "tests/conftest.py",
    }
    assert needed - names == set()
    assert {name for name in names if "__pycache__" in name or name.startswith(".venv")} == set()


def _make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", *arguments]
    # A make that runs this suite would pass its own flags on.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        command, cwd=ROOT, env=inherited | environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_make_says_what_to_install_where_venv_is_missing(tmp_path: Path) -> None:
    (tmp_path / "ensurepip.py").write_text("raise ModuleNotFoundError('as on Debian without python3-venv')\n")
    done = _make("demo", f"PYTHON={sys.executable}", f"VENV={tmp_path}/venv", PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert "apt-get install python3-venv" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_make_says_that_python_is_not_there(tmp_path: Path) -> None:
    done = _make("test", "PYTHON=no-such-python", f"VENV={tmp_path}/venv")
    assert done.returncode != 0
    assert "Python 3.11 or later; no-such-python is not there" in done.stderr


def test_make_alone_lists_its_targets() -> None:
    done = _make()
    assert done.returncode == 0
    assert {"make demo", "make test", "make test-all"} <= {line[:14].strip() for line in done.stdout.splitlines()}
