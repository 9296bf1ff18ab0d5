"""Importing is cheap: what is heavy is loaded by those who use it, when they use it."""

import subprocess
import sys

import pytest

_HEAVY = {
    "IPython",
    "cryptography",
    "google.protobuf",
    "grpc",
    "mlx",
    "mlx.core",
    "mlx_lm",
    "mypy",
    "numpy",
    "platformdirs",
    "psutil",
    "rich",
    "starlette",
    "uvicorn",
    "zeroconf",
}


def _loaded_by(module: str) -> set[str]:
    program = f"import sys, {module}; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", program], text=True, timeout=60).split())


@pytest.mark.parametrize("module", ["actors", "actors.collective", "actors.models", "discovery"])
def test_import_loads_nothing_heavy(module: str) -> None:
    assert _loaded_by(module) & _HEAVY == set()


def test_a_program_that_shards_loads_mlx_lm_when_it_asks_for_a_model() -> None:
    """Not before: then a program without it is told what to install, and a notebook is spared the advice of tqdm."""
    assert _loaded_by("actors.models.sharded") & {"mlx_lm", "transformers", "huggingface_hub", "tqdm"} == set()


def test_discovery_loads_nothing_of_actors() -> None:
    assert {name for name in _loaded_by("discovery") if name.partition(".")[0] == "actors"} == set()


@pytest.mark.slow
def test_the_names_looked_for_are_those_that_loading_leaves() -> None:
    assert _loaded_by("grpc, google.protobuf, mlx_lm, mlx.core, cryptography, zeroconf") >= {
        "google.protobuf",
        "grpc",
        "mlx_lm",
        "numpy",
        "mlx",
        "cryptography",
        "zeroconf",
    }
