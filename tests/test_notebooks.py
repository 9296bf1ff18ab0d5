"""Every notebook runs from its first cell to its last, and is kept without outputs; the quickstart has more tests."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("ipykernel")
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SECONDS = 120  # for a cell, on a machine that is busy with other things
SAID = {
    "data-parallel": ("the same losses: True", "the same weights: True"),
    "debugging": ("balances: [1, 3, 33]", "(Pdb) 27", "the audit says: 27", "(3, 3)", "30"),
    "lan-from-nothing": ("2 devices answered", "2 members: "),
    "sharded-model": ("foretold: ", "the same tokens: True", "stages now: 2"),
}


@pytest.fixture(autouse=True)
def _jupyter_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The user's own kernels, profiles and settings stay out of it."""
    folder = tempfile.mkdtemp(prefix="jupyter-", dir="/tmp")
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, f"{folder}/{name.lower()}")
    yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs_as_jupyter_writes_it(path: Path) -> None:
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.id for cell in code if cell.outputs or cell.execution_count is not None] == []
    text = path.read_text("utf-8")
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"


SLOW = {"debugging": [pytest.mark.slow], "sharded-model": [pytest.mark.slow, pytest.mark.timeout(600)]}


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, [])) for name in SAID])
def test_it_runs_and_says_what_its_text_promises(name: str, tmp_path: Path) -> None:
    path = next(path for path in NOTEBOOKS if path.stem == name)
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=resources).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    for words in SAID[name]:
        assert words in printed
    assert not [wrong for cell in notebook.cells for output in cell.get("outputs", ()) for wrong in _foreign(output)]


SHOWN_EVERYWHERE = {"text/html", "text/plain", "text/markdown", "image/png", "image/svg+xml"}
ACTIVE = re.compile(
    r"<(script|iframe|link|object|embed|form)\b|\son\w+\s*=|(?:src|href)\s*=\s*[\"']?https?:|url\(", re.IGNORECASE
)


def _foreign(output: dict[str, Any]) -> Iterator[str]:
    """What a front end that has no extension of ours, and trusts nobody, would not show."""
    data = output.get("data", {})
    if data and "text/plain" not in data:
        yield "no text"
    yield from data.keys() - SHOWN_EVERYWHERE
    yield from (found.group() for found in ACTIVE.finditer(data.get("text/html", "")))
