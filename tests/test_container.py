"""The container files say what exists: the files they copy, the commands they run, and the options of these."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import pytest

from actors.cli.main import actors
from actors.device import PORT

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "compose.yaml").read_text()


def instructions() -> list[tuple[str, str]]:
    lines = [line for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def parses(argv: list[str]) -> None:
    """The command line is one of ours, with its options; nothing of it runs."""
    assert argv[0] == "actors"
    command = actors.get_command(click.Context(actors), argv[1])
    assert command is not None, argv
    with command.make_context(argv[1], argv[2:], resilient_parsing=False):
        pass


def test_what_is_copied_is_there() -> None:
    sources = [name for word, rest in instructions() if word == "COPY" for name in rest.split()[:-1]]
    assert {"pyproject.toml", "actors", "discovery"} <= set(sources)
    assert all((ROOT / name).exists() for name in sources)


def test_the_command_of_the_container_is_ours() -> None:
    words = dict(instructions())
    argv = json.loads(words["CMD"])
    parses(argv)
    assert "--foreground" in argv
    assert words["ENV"].startswith("ACTORS_HOME=")
    assert words["EXPOSE"] == str(PORT)


def test_the_commands_of_the_compose_file_are_ours() -> None:
    told = re.findall(r"#\s+docker compose exec (?:-T )?\w+ (actors .+?)(?:  .*)?$", COMPOSE, re.MULTILINE)
    assert len(told) == 3
    for line in told:
        parses(shlex.split(line.replace("CODE", "57-5TM3-CS15").replace("PORT", "4321")))


def test_the_compose_file_has_three_nodes_of_one_image() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML, which other packages bring, is not here")
    read = yaml.safe_load(COMPOSE)
    assert set(read["services"]) == {"a", "b", "c"}
    for name, service in read["services"].items():
        assert service["build"] == "."
        assert service["hostname"] == name
        assert service["volumes"] == [f"{name}:/state"]
    assert set(read["volumes"]) == set(read["services"])
