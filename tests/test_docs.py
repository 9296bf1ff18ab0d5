"""What the pages say is so: programs run, commands are there, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parent.parent
PAGES = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md"))
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]\n]+\]\(([^)\s]+)\)")
_SECONDS = 90


def blocks(language: str) -> list[str]:
    return [body for kind, body in _BLOCK.findall((ROOT / "README.md").read_text("utf-8")) if kind == language]


PROGRAMS = blocks("python")
COMMANDS = [line for block in blocks("sh") for line in block.splitlines()]


def run(*arguments: str, cwd: Path, text: str | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd, input=text, capture_output=True, text=True, timeout=_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def promised(program: str) -> str:
    """What the comment at the end of the program's last line says that it prints."""
    return program.rstrip().rpartition("  # ")[2]


def test_the_first_program_has_15_lines() -> None:
    assert len(PROGRAMS[0].splitlines()) == 15


def test_the_first_program_runs_as_a_file_and_as_a_command(tmp_path: Path) -> None:
    program = PROGRAMS[0]
    file = tmp_path / "program.py"
    file.write_text(program, "utf-8")
    wanted = promised(program) + "\n"
    assert run(str(file), cwd=tmp_path) == wanted
    assert run("-c", program, cwd=tmp_path) == wanted


def test_the_first_program_runs_at_the_prompt(tmp_path: Path) -> None:
    assert promised(PROGRAMS[0]) in run("-i", "-q", cwd=tmp_path, text=PROGRAMS[0] + "\n").splitlines()


def test_the_first_program_runs_in_a_notebook(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(PROGRAMS[0])])
    nbclient.NotebookClient(book, timeout=_SECONDS, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert "".join(output.get("text", "") for output in book.cells[0].outputs) == promised(PROGRAMS[0]) + "\n"


def test_the_group_has_the_mean_on_every_rank(tmp_path: Path) -> None:
    assert run("-c", PROGRAMS[2], cwd=tmp_path).count("array([5.5])") == 3


def test_the_model_tells_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tiny model in the place of the demo's, which another test fetches."""
    pytest.importorskip("mlx_lm")
    from tiny_models import make_directory, make_gguf
    from tokenizers import pre_tokenizers

    words = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "\u0120he"]
    tokenizer = {
        "model": "gpt2", "pre": "smollm", "tokens": words, "token_type": [3, 3] + [1] * (len(words) - 2),
        "merges": ["h e", "\u0120 he"], "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    source = make_directory(tmp_path / "source", num_hidden_layers=6, vocab_size=len(words))
    told = {f"tokenizer.ggml.{key}": value for key, value in tokenizer.items()}
    monkeypatch.setenv("ACTORS_DEMO_MODEL", str(make_gguf(tmp_path / "tiny.gguf", source, **told)))
    assert run("-X", "utf8", "-c", PROGRAMS[3], cwd=tmp_path)


def test_the_ledger_keeps_its_total(tmp_path: Path) -> None:
    assert run("-c", PROGRAMS[1], cwd=tmp_path).split() == ["16", "17", "18"]


def test_every_python_block_is_run_above() -> None:
    assert len(PROGRAMS) == 4


def of_pages() -> list[tuple[str, str]]:
    """The programs of the pages under docs, each named by its page and place."""
    found = []
    for page in sorted((ROOT / "docs").glob("*.md")):
        programs = [body for kind, body in _BLOCK.findall(page.read_text("utf-8")) if kind == "python"]
        found += [(f"{page.stem}-{place}", program) for place, program in enumerate(programs)]
    return found


@pytest.mark.parametrize("program", [pytest.param(body, id=name) for name, body in of_pages()])
def test_a_program_of_a_page_prints_what_its_comments_say(program: str, tmp_path: Path) -> None:
    wanted = [line.rpartition("  # ")[2] for line in program.splitlines() if "print(" in line and "  # " in line]
    assert wanted, "its prints say in a comment what comes"
    assert run("-c", program, cwd=tmp_path).splitlines() == wanted


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_is_there(command: str) -> None:
    first, *words = command.split()
    if first == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert words[0] in targets
    elif first == "pip":
        extra = re.fullmatch(r"'\.\[(\w+)\]'", words[-1])
        assert extra is not None
        assert extra[1] in metadata.metadata("mlx-actors").get_all("Provides-Extra", [])
    else:
        (script,) = metadata.entry_points(group="console_scripts", name=first)
        assert script.load()
        from actors.cli.main import actors

        assert CliRunner().invoke(actors, [*words, "--help"]).exit_code == 0


def test_make_targets_named_in_the_pages_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {(page.name, name) for page in PAGES for name in re.findall(r"`make ([a-z-]+)", page.read_text("utf-8"))}
    assert {(page, name) for page, name in named if name not in targets} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text("utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), f"{page.name}: {target}"
        assert goal.is_relative_to(ROOT), f"{page.name}: {target} leaves the repository"
        if anchor:
            assert anchor in headings(goal), f"{page.name}: {target}"


def headings(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    found = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_every_public_name_is_in_the_reference() -> None:
    """Of the package itself by its name; what is in a module comes with that module."""
    import actors

    text = (ROOT / "docs" / "reference.rst").read_text("utf-8")
    named = set(re.findall(r"^\.\. auto\w+:: (?:actors\.)?([\w.]+)$", text, re.MULTILINE))
    aliases = {"actor"}  # Ray's name for what is described as itself
    public = {name for name in actors.__all__ if not name.startswith("_")}
    assert public - named - aliases == set()
    assert {"util.metrics", "util.progress", "testing", "communicator", "discovery"} <= named


def test_the_site_is_in_the_order_in_which_a_person_needs_it() -> None:
    text = (ROOT / "docs" / "index.md").read_text("utf-8")
    trees = re.findall(r":caption: (.+?)$(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert [caption for caption, _ in trees] == ["Begin", "How to", "How it works", "Reference"]
    pages = [line for _, tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    assert pages[:2] == ["start", "tutorial"]
    assert pages.index("from-*") < pages.index("troubleshooting") < pages.index("architecture")
    there = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index", "errors"}
    assert {name for name in there if name not in pages and not name.startswith("from-")} == set()


def test_the_architecture_page_names_no_file_that_is_gone() -> None:
    """Names in its table of one call, and folders, are as they are on disk."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    files = {path.name for part in ("actors", "discovery", "tests") for path in (ROOT / part).rglob("*.py")}
    named = {Path(name).name for name in re.findall(r"`(?:[\w/]+/)?(\w+\.py)`", text)}
    assert named - files == set()
    folders = re.findall(r"`(\w+(?:/\w+)*/)`", text)
    assert [name for name in folders if not any((base / name).is_dir() for base in (ROOT, ROOT / "actors"))] == []
