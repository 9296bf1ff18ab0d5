"""The programs of ``examples/`` run, and print the same under Ray where there is a Ray.

``RAY_PYTHON`` names an interpreter that has it; without that, this one is asked.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from actors.exceptions import ModelError
from actors.models import demo_model

EXAMPLES = Path(__file__).parent.parent / "examples"
SECONDS = 180

PRINTED = {
    "batch_predictor": """\
shards in order: True
30131 of 60000 accepted
again, as they come: 30131
""",
    "bigger_engine": """\
each rank says: [500000500000, 500000500000]
doubled: [2, 4, 6]
by its name: 1000001000000
""",
    "data_parallel": """\
all ranks say the same: True
and the same as one process: True
the loss has fallen to a fifth: True
""",
    "monte_carlo_pi": """\
progress: only forward to 100%
pi is about 3.1427
""",
    "parameter_server": """\
synchronous: [1.0, 2.0, 3.0, 4.0, 5.0]
asynchronous: [1.0, 2.0, 3.0, 4.0, 5.0]
""",
    "sharded_module": """\
Pipeline(layers 0 to 1, 2 to 4) gives what the whole gives: True
Pipeline(layers 0 to 2, 3 to 6) gives what the whole gives: True
""",
    "steer": """\
strength 0: the plain text? True
strength 4: the plain text? False
""",
    "tree_of_actors": """\
[('north', 2), ('south', 2)]
primes below 5000 and 10000: 669 1229
""",
    "web_crawler": """\
30 pages, each once: True
31 links led nowhere
""",
    "word_count": """\
words: 48 different: 35
the: 10
is: 4
and: 2
air: 1
bay: 1
""",
}

OURS = {"bigger_engine", "data_parallel", "sharded_module", "steer"}  # shows what Ray has elsewhere or not at all


def run(python: str, program: Path, folder: Path) -> str:
    done = subprocess.run(
        [python, str(program)], cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def under_ray(text: str) -> str:
    """The same program for Ray: only the imports name another module."""
    return re.sub(r"^from actors\b", "from ray", text.replace("import actors as ray", "import ray"), flags=re.MULTILINE)


def ray_python() -> str | None:
    return os.environ.get("RAY_PYTHON") or (sys.executable if find_spec("ray") else None)


def test_each_example_is_checked() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(PRINTED)


@pytest.mark.parametrize("name", sorted(set(PRINTED) - {"steer"}))
def test_it_prints_what_it_should(name: str, tmp_path: Path) -> None:
    assert run(sys.executable, EXAMPLES / f"{name}.py", tmp_path) == PRINTED[name]


@pytest.mark.slow
def test_a_model_is_steered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACTORS_HOME", raising=False)  # the user's own cache has the model
    try:
        demo_model()
    except ModelError as error:
        pytest.skip(str(error))
    assert run(sys.executable, EXAMPLES / "steer.py", tmp_path) == PRINTED["steer"]


@pytest.mark.slow
def test_training_goes_on_after_a_lost_device_and_shows_its_loss_curve(tmp_path: Path) -> None:
    lines = run(sys.executable, EXAMPLES / "elastic" / "train.py", tmp_path).splitlines()
    steps = [line.split() for line in lines if line.startswith("step")]
    assert [int(words[1]) for words in steps] == list(range(1, len(steps) + 1))  # none is made twice or left out
    assert [line for line in lines if "1 of 3 members were lost during step; 2 go on" in line]
    losses = [float(words[3]) for words in steps]
    assert losses[-1] < losses[9] / 10 < losses[0] / 10


@pytest.mark.skipif(ray_python() is None, reason="there is no Ray; RAY_PYTHON names an interpreter that has it")
@pytest.mark.parametrize("name", sorted(set(PRINTED) - OURS))
def test_it_prints_the_same_under_ray(name: str, tmp_path: Path) -> None:
    program = tmp_path / f"{name}.py"
    program.write_text(under_ray((EXAMPLES / f"{name}.py").read_text("utf-8")), "utf-8")
    python = ray_python()
    assert python is not None
    assert run(python, program, tmp_path) == PRINTED[name]
