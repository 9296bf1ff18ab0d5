"""What a notebook shows: pictures of things, and what actors print in the cell that has caused it."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

pytest.importorskip("ipykernel")
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

from jupyter_client.manager import AsyncKernelManager  # noqa: E402
from test_notebook import Kernel, _jupyter_of_its_own, environment, on_sockets_of_its_own  # noqa: E402, F401

from actors.events import ClusterView  # noqa: E402
from actors.notebook import pictures  # noqa: E402

CELLS = {
    "init": "import actors\ncluster = actors.init(local_nodes=2)",
    "make": """
@actors.remote
class Talker:
    def say(self, what):
        "Says it."
        print("says", what)
        return what
    def pass_on(self, other, what):
        return actors.get(other.say.remote(what))
    def later(self, latch):
        actors.get(latch.wait.remote())
        print("a late line")
    def pass_on_later(self, latch, other):
        actors.get(latch.wait.remote())
        print("late by itself")
        actors.get(other.say.remote("late by way of the first"))
    def sleep(self, seconds):
        import time
        time.sleep(seconds)
    def fail(self):
        raise ValueError("<b>not so</b>")
    def count(self):
        for _ in actors.util.progress.tqdm(range(3), desc="counting"):
            pass

@actors.remote
class Latch:
    def __init__(self):
        import asyncio
        self.opened = asyncio.Event()
    async def wait(self):
        await self.opened.wait()
    async def open(self):
        self.opened.set()

one, two = Talker.remote(), Talker.options(name="second").remote()
latch, gate = Latch.remote(), Latch.remote()
actors.get([one.say.remote(0), two.say.remote(0)])
""",
    "nested": "ref = one.pass_on.remote(two, 'by way of the first')",
    "own": "print('own')\nactors.get(ref)",
    "causes": "held = one.pass_on_later.remote(gate, two)",
    "runs meanwhile": "print('meanwhile')\nactors.get([gate.open.remote(), held, two.say.remote('of this cell')])",
    "late": "late = one.later.remote(latch)",
    "open": "actors.get([latch.open.remote(), late])",
    "handle": "one",
    "ref": "one.say.remote(1)",
    "group": "Talker.group(2)",
    "plan": """
from actors.models.checkpoint import ModelInfo
from actors.models.plan import Device, make_plan

tiny = ModelInfo("tiny", "llama", 4, 8, 16, (2**20,) * 4, (10**6,) * 4, 2**19, 0, False, False)
make_plan(tiny, [Device("desk"), Device("<lamp>", speed=0.5)])
""",
    "many": "actors.get([one.sleep.remote(0.4) for _ in range(5)])",
    "few": "actors.get([one.sleep.remote(0.01) for _ in range(2)])",
    "bar": "actors.get(one.count.remote())",
    "error": "try:\n    actors.get(one.fail.remote())\nexcept ValueError as caught:\n    error = caught\nerror",
    "raised": "await one.fail.remote()",
    "flood": "many = Talker.remote()\nactors.get([many.say.remote('x' * 1000) for _ in range(3000)]);",
    "magic": "given = 20\n",
    "everywhere": "%%actors --give given\nimport os\nprint('there')\nkept = given + 1\nkept",
    "once more": "%%actors vm-none\nkept",
    "not given": "%%actors --give nothing_such\n1",
    "kept": "%%actors\nkept + 1",
    "again": "same = actors.init(local_nodes=2)\nsame is cluster",
    "cluster": "cluster",
    "end": "actors.shutdown()",
}


@pytest.fixture(scope="module")
def outputs() -> dict[str, list[Any]]:
    """The outputs of all cells, run by a real kernel, by name."""
    cells = [nbformat.v4.new_code_cell(code) for code in CELLS.values()]
    manager = AsyncKernelManager(kernel_name="python3", **on_sockets_of_its_own())
    client = nbclient.NotebookClient(
        nbformat.v4.new_notebook(cells=cells), km=manager, timeout=60, allow_errors=True, store_widget_state=False
    )
    client.execute(env=environment(), cleanup_kc=True)
    return {name: cell.outputs for name, cell in zip(CELLS, client.nb.cells, strict=True)}


def text(outputs: list[Any], stream: str = "stdout") -> str:
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == stream)


def bundles(outputs: list[Any]) -> list[Any]:
    return [output.data for output in outputs if output.output_type in {"display_data", "execute_result"}]


def test_init_shows_the_devices_and_the_picture_goes_on_living(outputs: dict[str, list[Any]]) -> None:
    (shown,) = bundles(outputs["init"])
    assert shown["text/plain"].startswith("Cluster of 2 devices, ")
    assert "Talker" in shown["text/plain"]  # which were made in a later cell
    assert "GiB" in shown["text/plain"]
    assert "This program has left the cluster." in shown["text/plain"]
    assert shown["text/html"].count('aria-label="memory"') == 2
    assert "<script" not in shown["text/html"]
    assert "http" not in shown["text/html"]


def test_an_equal_init_is_the_same_cluster_and_shows_it_again(outputs: dict[str, list[Any]]) -> None:
    first, last = bundles(outputs["again"])
    assert first["text/plain"].startswith("Cluster of 2 devices")
    assert last["text/plain"] == "True"
    (shown,) = bundles(outputs["cluster"])
    assert "text/html" in shown


def test_what_is_printed_is_shown_in_the_cell_that_caused_it(outputs: dict[str, list[Any]]) -> None:
    said = text(outputs["nested"]) + "".join(bundle["text/plain"] for bundle in bundles(outputs["nested"]))
    assert "says by way of the first" in said
    assert text(outputs["own"]) == "own\n"


def test_what_is_printed_while_another_cell_runs_is_shown_in_the_cell_that_caused_it(
    outputs: dict[str, list[Any]],
) -> None:
    (late,) = bundles(outputs["causes"])
    said = {line.partition(") ")[2] for line in late["text/plain"].splitlines()}  # by two processes, in either order
    assert said == {"late by itself", "says late by way of the first"}
    assert text(outputs["causes"]) == ""
    own, *others = text(outputs["runs meanwhile"]).splitlines()
    assert (own, [line.partition(") ")[2] for line in others]) == ("meanwhile", ["says of this cell"])


def test_what_is_printed_after_the_end_of_its_cell_is_shown_there_too(outputs: dict[str, list[Any]]) -> None:
    (late,) = bundles(outputs["late"])
    assert re.fullmatch(r"\(Talker pid=\d+ node=\S+\) a late line", late["text/plain"])
    assert "a late line" not in text(outputs["open"])


def test_things_have_a_picture_and_a_text(outputs: dict[str, list[Any]]) -> None:
    for name, words in {
        "handle": [".say", "(what)", "Says it."],
        "ref": ["Talker", "actors.get(ref)"],
        "group": ["Group of 2 actors", "rank 1"],
        "plan": ["4 layers of tiny in 2 stages", "stage 1", "&lt;lamp&gt;: layers ", " to 3, ", " MiB, "],
        "error": ["ValueError: &lt;b&gt;not so", "node", "it raised", "in fail"],
    }.items():
        (shown,) = [output.data for output in outputs[name] if output.output_type == "execute_result"]
        assert shown["text/plain"]
        assert [word for word in words if word not in shown["text/html"]] == []


def test_an_error_is_one_chain_that_ends_where_it_was_raised(outputs: dict[str, list[Any]]) -> None:
    (error,) = [output for output in outputs["raised"] if output.output_type == "error"]
    plain = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(error.traceback))
    assert "one.fail.remote()" in plain
    assert ", in fail" in plain
    assert 'raise ValueError("<b>not so</b>")' in plain  # as it stands in the cell
    assert "sealed.py" not in plain


def test_a_wait_for_many_values_is_shown_once_it_lasts(outputs: dict[str, list[Any]]) -> None:
    wait, _ = bundles(outputs["many"])
    assert wait["text/plain"].startswith("5 of 5 values after ")
    assert len(bundles(outputs["few"])) == 1  # its own value


def test_a_bar_is_drawn_in_the_cell_that_called(outputs: dict[str, list[Any]]) -> None:
    (bar,) = bundles(outputs["bar"])
    assert bar["text/plain"].endswith("counting: 3/3 (100%)")
    assert 'role="progressbar"' in bar["text/html"]


def test_a_flood_is_bounded_and_says_what_was_left_out(outputs: dict[str, list[Any]]) -> None:
    said = text(outputs["flood"])
    assert len(said) < 2_500_000
    left_out = sum(map(int, re.findall(r"… (\d+) lines more", said)))
    assert said.count("says xxx") + left_out == 3000
    assert left_out > 0


def test_a_cell_runs_on_nodes(outputs: dict[str, list[Any]]) -> None:
    (values,) = bundles(outputs["everywhere"])
    assert sorted(eval(values["text/plain"]).values()) == [21, 21]
    assert text(outputs["everywhere"]).count(") there\n") in {1, 2}  # those that say the same are counted
    assert "no node is called vm-none" in text(outputs["once more"], "stderr")
    assert "this notebook has no nothing_such" in text(outputs["not given"], "stderr")
    (values,) = bundles(outputs["kept"])
    assert sorted(eval(values["text/plain"]).values()) == [22, 22]


def test_an_interrupt_says_what_goes_on() -> None:
    kernel = Kernel()
    try:
        kernel.run("""
            import actors
            actors.init(local_nodes=1)
            @actors.remote
            class Sleeper:
                async def sleep(self):
                    import asyncio
                    await asyncio.sleep(600)
            sleeper = Sleeper.remote()
        """)
        cell = kernel.start("""
            import os
            os.environ["ACTORS_SLOW_SECONDS"] = "0.3"
            actors.get(sleeper.sleep.remote())
        """)
        cell.shows("has not answered for 0.3 s: it has run for ", "stderr")
        kernel.interrupt()
        assert cell.reply()["status"] == "error"
        for wait in ("actors.get(sleeper.sleep.remote())", "await sleeper.sleep.remote()"):
            cell = kernel.start(f"print('waiting', flush=True)\n{wait}")
            cell.shows("waiting")

            time.sleep(0.5)  # it says nothing of a wait that has not begun
            kernel.interrupt()
            cell.shows("what it waited for goes on: ", "stderr")
            cell.shows("actors.cancel(ref)", "stderr")
            assert cell.reply()["status"] == "error"
    finally:
        kernel.close()


def test_a_picture_without_anything_in_it() -> None:
    picture = pictures.of_cluster(ClusterView((), (("vm", "it is <gone>"),)))
    assert picture.text.splitlines() == ["Cluster of 0 devices, 0 actors", "vm is silent: it is <gone>"]
    assert "it is &lt;gone&gt;" in picture.html
