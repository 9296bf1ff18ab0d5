"""A server in a process of its own, as `actors serve` starts it, and what speaks HTTP to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Self

from clusters import eventually
from test_models_tokenizer import metadata
from tiny_models import make_directory, write_gguf

from actors.models import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

# In the manner of Hermes and Qwen, so that mlx-lm knows how calls are written.
TEMPLATE = (
    "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}"
    "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{% for tool_call in m.tool_calls or [] %}"
    "<tool_call>{{ tool_call.name }}</tool_call>{% endfor %}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)
MAIN = "from actors.cli import main; main()"
LONGEST = 512  # positions of the small model


def talkative(folder: Path) -> Path:
    """A small random llama that knows all bytes, conversations and tools. Its words make no sense."""
    load_tokenizer(write_gguf(folder / "words.gguf", metadata(), [])).inner._tokenizer.save_pretrained(str(folder))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    vocabulary = len(metadata()["tokenizer.ggml.tokens"])
    return make_directory(folder, vocab_size=vocabulary, eos_token_id=1, max_position_embeddings=LONGEST)


class Served:
    """`actors serve` with some options; ends with the block."""

    def __init__(self, model: object, *options: str, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-c", MAIN, "serve", str(model), "--port", "0", *options]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
        self._said: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(stream,)) for stream in (self.process.stdout, self.process.stderr)
        ]
        for reader in self._readers:
            reader.start()
        self.port = int(self.line(r"Serving .* at http://\S+:(\d+)/v1"))
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.key: str | None = None

    def _read(self, stream: Any) -> None:
        with stream:
            for line in stream:  # one by one: they are read meanwhile
                self._said.append(line)

    @property
    def said(self) -> str:
        """All that it printed."""
        return "".join(list(self._said))

    def line(self, pattern: str, within: float = 60.0) -> str:
        """Waits for what a pattern has in parentheses."""

        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.said)
            assert match or self.process.poll() is None, self.said
            return match

        return str(eventually(found, within, pattern)[1])

    def ready(self, within: float = 60.0) -> Self:
        """Waits until it answers."""

        def is_ready() -> bool:
            assert self.process.poll() is None, self.said
            return self.get("/health")[0] == 200

        eventually(is_ready, within)
        return self

    def ends(self, sign: int | None = None, within: float = 10.0) -> int:
        """Waits for its end, after a signal."""
        if sign is not None:
            self.process.send_signal(sign)
        status = self.process.wait(within)
        for reader in self._readers:
            reader.join(5)
        return status

    # -- HTTP -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def asked(self, method: str, path: str, body: object = None, **headers: str) -> Iterator[http.client.HTTPResponse]:
        """The response to a request; leaving the block closes the connection."""
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        key = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, raw, {"Content-Type": "application/json", **key, **headers})
            yield connection.getresponse()
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Status and body."""
        with self.asked("GET", path, **headers) as response:
            raw = response.read()
            is_json = "json" in response.headers.get("Content-Type", "")
            return response.status, json.loads(raw) if is_json else raw.decode()

    def post(self, path: str, body: object, **headers: str) -> tuple[int, Any]:
        """Status and body."""
        with self.asked("POST", path, body, **headers) as response:
            return response.status, json.loads(response.read())

    def events(self, path: str, body: dict[str, Any]) -> list[dict[str, Any] | str]:
        """The data of all events of a stream."""
        with self.asked("POST", path, {**body, "stream": True}) as response:
            assert response.status == 200, response.read()
            return list(events(response))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.ends(signal.SIGTERM, 20)
        self.process.kill()
        self.ends(within=20)


def events(response: http.client.HTTPResponse) -> Iterator[Any]:
    """The data of a stream's events as they come; comments are left out."""
    for line in response:
        if line.startswith(b"data: "):
            data = line[6:].decode().strip()
            yield data if data == "[DONE]" else json.loads(data)
