"""JupyterLab and Notebook in a headless Chromium: the picture of the cluster changes as the cluster does."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from browser import chromium, keep
from clusters import eventually

nbformat = pytest.importorskip("nbformat")

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PATIENCE = 60.0  # seconds for a page that loads five megabytes, on a machine that is busy with other things
CELLS = (
    "import actors\ncluster = actors.init(local_nodes=2)",
    """
@actors.remote
class Sleeper:
    def sleep(self):
        import time
        time.sleep(600)

first, second = actors.nodes()
sleeper = Sleeper.options(name="dozer", node=first.name).remote()
waits = sleeper.sleep.remote()
print("made")
""",
    "import os, signal\nos.kill(second.pid, signal.SIGKILL)\nprint('killed', second.name)",
    "cluster",
)
CURRENT = """
const panel = window.jupyterapp && window.jupyterapp.shell.currentWidget;
const kernel = panel && panel.sessionContext && panel.sessionContext.isReady && panel.sessionContext.session.kernel;
return Boolean(kernel) && kernel.status === "idle" && panel.content.activeCellIndex === 0;
"""
QUIET = {"@jupyterlab/apputils-extension:announcements": True}  # asks for news on the internet


@pytest.fixture(params=["jupyterlab", "notebook"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server of its own, on a free port of the loopback interface; the address of a notebook there."""
    pytest.importorskip(request.param, reason=f"it is not installed: pip install {request.param}")
    app, path = {"jupyterlab": ("LabApp", "lab/tree"), "notebook": ("JupyterNotebookApp", "notebooks")}[request.param]
    folder = Path(tempfile.mkdtemp(prefix="jupyter-", dir="/tmp")).resolve()
    names = ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTERLAB_SETTINGS_DIR")
    own = {name: str(folder / name.lower()) for name in (*names, "JUPYTERLAB_WORKSPACES_DIR")}
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"} | own
    settings = folder / "jupyter_config_dir" / "labconfig" / "page_config.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"disabledExtensions": QUIET}), "utf-8")
    (folder / "work").mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code.strip()) for code in CELLS])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "work" / "cluster.ipynb")
    token = secrets.token_hex(16)
    log = folder / "log"
    options = (
        f"--{app}.expose_app_in_browser=True",
        "--no-browser",
        "--ip=127.0.0.1",
        "--port=0",
        f"--IdentityProvider.token={token}",
        "--allow-root",
    )
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", request.param, *options, f"--ServerApp.root_dir={folder / 'work'}"],
            env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        eventually(lambda: _address(server, log), PATIENCE)
        yield f"{_address(server, log)}/{path}/cluster.ipynb?token={token}"
    finally:
        offspring = psutil.Process(server.pid).children(recursive=True)
        server.send_signal(signal.SIGTERM)  # ends its kernels, which end what they have started
        server.wait(30)
        psutil.wait_procs(offspring, timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    text = log.read_text("utf-8", "replace")
    assert server.poll() is None, text
    found = re.search(r"(http://127\.0\.0\.1:\d+)/(lab|tree)", text)
    return found[1] if found else ""


class Page:
    """The notebook in the browser."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def is_ready(self) -> bool:
        """Whether the notebook is the application's current one, and its kernel waits for a cell."""
        return bool(self.browser.execute_script(CURRENT))

    def prompts(self) -> list[str]:
        return [text.strip() for text in self._texts(".jp-Notebook .jp-CodeCell .jp-InputPrompt")]

    def run_cell(self) -> None:
        """Does what Shift and Enter do: the selected cell, at first the first, runs, and the next is selected.

        By the command that the keys are bound to: keys go to whatever has the focus, which a page that still loads, or
        shows a dialogue of its own, takes away.
        """
        self.browser.execute_script("window.jupyterapp.commands.execute('notebook:run-cell-and-select-next')")

    def _texts(self, css: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)"
        found: list[str] = self.browser.execute_script(script, css)
        return found

    def pictures(self) -> list[str]:
        return self._texts(".jp-OutputArea .actors-cluster")

    def shows(self, words: str, css: str = ".jp-OutputArea-output") -> None:
        try:
            eventually(lambda: any(words in text for text in self._texts(css)), PATIENCE)
        except AssertionError:
            keep(self.browser, "jupyterlab-failed")
            raise AssertionError(f"{words!r} is not in {self._texts('.jp-OutputArea-output')}") from None


def test_the_picture_lives_as_the_cluster_does(address: str) -> None:
    with chromium() as browser:
        page = Page(browser)
        browser.get(address)
        try:
            eventually(page.is_ready, 2 * PATIENCE)
        except AssertionError:
            keep(browser, "jupyterlab-failed")
            raise AssertionError(f"the notebook is not ready: {page.prompts()}") from None
        browser.get_log("browser")  # forgets what Notebook says of its own settings while it loads
        page.run_cell()
        page.shows("Cluster of 2 devices, 0 actors", ".actors-cluster")
        (shown,) = page.pictures()
        assert shown.count("no actors") == 2

        page.run_cell()
        page.shows("made")
        page.shows("dozer (1 call)", ".actors-cluster")
        assert page.pictures()[0].startswith("Cluster of 2 devices, 1 actor")  # it is the same picture
        assert len(page.pictures()) == 1
        keep(browser, "jupyterlab-two-devices")

        page.run_cell()
        page.shows("killed ")
        page.shows("Cluster of 1 device, 1 actor", ".actors-cluster")
        page.shows(" is silent: ", ".actors-cluster")
        keep(browser, "jupyterlab-one-has-died")

        page.run_cell()
        eventually(lambda: len(page.pictures()) == 2, PATIENCE)  # that of the last cell beside that of the first
        errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert [entry["message"] for entry in errors] == []
