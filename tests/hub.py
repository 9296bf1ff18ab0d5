"""The Hugging Face hub's documented routes over models in folders, for its own client, on a port of this machine.

https://huggingface.co/docs/hub/api and what `huggingface_hub` asks for: a model's files at a revision with sizes and
digests, and the files by `resolve`, from which those of weights are sent on to another address, whole or in ranges.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_right"


@dataclass
class Served:
    """What the hub has, and what it was asked for.

    Attributes:
        models: folders by `organisation/model`.
        gated: those that want a token.
        asked: (file, first byte, last byte) of each range of weights that was sent.
        broken: how many answers with weights end in the middle.
        changed: files whose bytes are not what their digests say.
    """

    models: dict[str, Path]
    gated: set[str] = field(default_factory=set)
    asked: list[tuple[str, int, int]] = field(default_factory=list)
    broken: int = 0
    changed: set[str] = field(default_factory=set)
    url: str = ""
    end: Callable[[], None] = lambda: None

    @property
    def nbytes(self) -> int:
        return sum(last + 1 - first for _, first, last in self.asked)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Served

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self._info(*found.groups())
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            self._tree(*found.groups())
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(*found.groups())
        elif found := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            self._send(self.hub.models[found[1]] / found[2])
        else:
            self._refuse(404, "EntryNotFound")

    do_HEAD = do_GET

    def _may(self, repo: str, revision: str | None) -> bool:
        right = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repo not in self.hub.models:
            self._refuse(401 if not right else 404, "RepoNotFound")
        elif repo in self.hub.gated and not right:
            self._refuse(401, "GatedRepo")
        elif revision not in {None, "main", COMMIT}:
            self._refuse(404, "RevisionNotFound")
        else:
            return True
        return False

    def _info(self, repo: str, revision: str | None) -> None:
        if self._may(repo, revision):
            files = sorted(each for each in self.hub.models[repo].iterdir() if each.is_file())
            info = {"id": repo, "sha": COMMIT, "siblings": list(map(sibling, files))}
            self._reply(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _tree(self, repo: str, revision: str) -> None:
        if self._may(repo, revision):
            tree = []
            for each in map(sibling, sorted(self.hub.models[repo].iterdir())):
                lfs = {"lfs": {"oid": each["lfs"]["sha256"], **each["lfs"]}} if "lfs" in each else {}
                tree.append(
                    {"type": "file", "path": each["rfilename"], "size": each["size"], "oid": each["blobId"]} | lfs
                )
            self._reply(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})

    def _resolve(self, repo: str, revision: str, name: str) -> None:
        if not self._may(repo, revision):
            return
        path = self.hub.models[repo] / name
        if not path.is_file():
            self._refuse(404, "EntryNotFound")
        elif is_large(path):
            there = {
                "Location": f"/cdn/{repo}/{name}",
                "X-Linked-Size": str(path.stat().st_size),
                "X-Repo-Commit": COMMIT,
            }
            self._reply(302, b"", there | {"X-Linked-Etag": f'"{sha256(path)}"'})
        else:
            self._send(path)

    def _send(self, path: Path) -> None:
        data = path.read_bytes()
        if path.name in self.hub.changed:
            data = data[:-1] + bytes([data[-1] ^ 1])
        first, last, status = 0, len(data) - 1, 200
        if found := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            first, last, status = int(found[1]), min(int(found[2]), last), 206
        part = data[first : last + 1]
        if is_large(path):
            self.hub.asked.append((path.name, first, last))
            if self.hub.broken and len(part) > 1000:
                self.hub.broken -= 1
                part = part[: len(part) // 2]
                self.close_connection = True
        ranges = {"Content-Range": f"bytes {first}-{last}/{len(data)}"} if status == 206 else {}
        more = {"Accept-Ranges": "bytes", "X-Repo-Commit": COMMIT, "ETag": f'"{sha256(path)}"', **ranges}
        self._reply(status, part, more, last + 1 - first)

    def _refuse(self, status: int, code: str) -> None:
        self._reply(status, b'{"error": "no"}', {"X-Error-Code": code, "X-Error-Message": code})

    def _reply(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(HTTPStatus(status))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def is_large(path: Path) -> bool:
    return path.suffix in {".safetensors", ".gguf"}


def sha256(path: Path) -> str:
    return _sha256(path, path.stat().st_mtime_ns)


@cache
def _sha256(path: Path, changed: int) -> str:
    del changed
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sibling(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    found = {
        "rfilename": path.name,
        "size": len(data),
        "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
    }
    return found | ({"lfs": {"sha256": sha256(path), "size": len(data), "pointerSize": 134}} if is_large(path) else {})


@contextmanager
def served(models: dict[str, Path]) -> Iterator[Served]:
    """A hub that has these models, for as long as it is wanted."""
    hub = Served(models)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Mine", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    hub.end = end
    try:
        yield hub
    finally:
        end()
