"""The clients that people have, against `actors serve`: they read what they are sent by rules of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
import venv

import pytest

pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")
pytest.importorskip("starlette")
pytest.importorskip("llguidance")
pytest.importorskip("openai")

import openai
from serving import Served, events, talkative
from test_serving import HI, SCHEMA, TOOL, _nodes

from actors.models import demo_model

NEVER_ENDS = {"1": -100}
INSTALL_SECONDS = 170


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    path = talkative(tmp_path_factory.mktemp("small"))
    with Served(path, "--local-nodes", "2", "--name", "org/small") as server:
        yield server.ready()


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server.url, api_key="any", max_retries=0, timeout=60) as client:
        yield client


def ask(client, **fields):
    return client.chat.completions.create(
        **{"model": "org/small", "messages": HI, "temperature": 0, "max_tokens": 10, **fields}
    )


def test_openai_in_python(client):
    assert [model.id for model in client.models.list()] == ["org/small"]
    assert client.models.retrieve("org/small").owned_by == "mlx-actors"
    whole = ask(client, logprobs=True, top_logprobs=2, n=2, seed=1)
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert whole.usage.completion_tokens == 20
    assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    completion = client.completions.create(
        model="org/small", prompt=["a", "b"], max_tokens=3, logprobs=1, temperature=0
    )
    assert [len(choice.logprobs.tokens) for choice in completion.choices] == [3, 3]


def test_openai_in_python_parses_and_calls(client):
    pydantic = pytest.importorskip("pydantic")

    class City(pydantic.BaseModel):
        big: bool

    parsed = client.chat.completions.parse(
        model="org/small", messages=HI, response_format=City, max_tokens=60, temperature=0
    )
    assert isinstance(parsed.choices[0].message.parsed.big, bool)
    with client.chat.completions.stream(
        model="org/small", messages=HI, tools=[TOOL], tool_choice="required", parallel_tool_calls=False,
        max_tokens=120, temperature=0,
    ) as stream:  # fmt: skip
        (call,) = stream.get_final_completion().choices[0].message.tool_calls
    assert set(json.loads(call.function.arguments)) == set(SCHEMA["required"])
    told = [*HI, {"role": "assistant", "tool_calls": [call.to_dict()]}]
    again = ask(client, messages=[*told, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}], tools=[TOOL])
    assert again.choices[0].finish_reason == "length"


def test_openai_in_python_has_responses(client):
    how = {"model": "org/small", "temperature": 0, "max_output_tokens": 10}
    text = ask(client).choices[0].message.content
    whole = client.responses.create(input="hi", **how)
    assert (whole.output_text, whole.status, whole.usage.output_tokens) == (text, "incomplete", 10)
    with client.responses.stream(input=[{"role": "user", "content": "hi"}], **how) as stream:
        told = list(stream)
    assert "".join(event.delta for event in told if event.type == "response.output_text.delta") == text
    assert (told[-1].type, told[-1].response.output_text) == ("response.incomplete", text)
    tool = {"type": "function", **TOOL["function"]}
    called = client.responses.create(
        input="hi", tools=[tool], tool_choice="required", parallel_tool_calls=False, **how | {"max_output_tokens": 120}
    )
    (call,) = called.output
    assert (called.status, call.name) == ("completed", "weather")
    said = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    assert client.responses.create(input=[call.to_dict(), said], tools=[tool], **how).output_text
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(input="hi", previous_response_id="resp_1", **how)
    assert caught.value.param == "previous_response_id"


def test_openai_in_python_raises_its_own_errors(client):
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, model="other")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, temperature=9)
    assert caught.value.param == "temperature"


@pytest.mark.slow
def test_an_error_in_mid_stream_reaches_the_client(tmp_path):
    """Of a model whose last node dies: there is nothing that could make up for it."""
    with Served(talkative(tmp_path), "--local-nodes", "1", "--name", "org/small") as server:
        server.ready()
        with openai.OpenAI(base_url=server.url, api_key="any", max_retries=0, timeout=60) as client:
            stream = ask(client, stream=True, max_tokens=400, logit_bias=NEVER_ENDS)
            next(stream)
            (node,) = _nodes(server)
            node.kill()
            with pytest.raises(openai.APIError) as caught:
                list(stream)
            assert caught.value.code == "device_lost", caught.value
            with pytest.raises(openai.InternalServerError) as caught:
                ask(client)
            assert caught.value.status_code == 503


@pytest.mark.slow
def test_the_demo_model_is_asked_by_two_at_once():
    """A real model, and real answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ACTORS_HOME", raising=False)  # from the user's own cache
        try:
            path = demo_model()
        except Exception as error:
            pytest.skip(f"the demo model is not there: {error}")
    body = {"model": "demo", "prompt": "The capital of France is", "temperature": 0, "max_tokens": 3}
    with Served("demo", "--local-nodes", "2", environment={"ACTORS_DEMO_MODEL": str(path)}) as server:
        server.ready(120)
        with server.asked("POST", "/v1/completions", {**body, "stream": True}) as stream:
            whole = server.post("/v1/completions", body)[1]
            parts = [each["choices"][0]["text"] for each in events(stream) if each != "[DONE]"]
        assert "".join(parts) == whole["choices"][0]["text"] == " Paris.\n"
        message = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}
        status, answer = server.post("/v1/chat/completions", {**message, "tools": [TOOL]})
        assert (status, answer["error"]["param"]) == (400, "tools")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_litellm(server, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    _installed([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "litellm"])
    program = """
import json, sys, litellm
how = dict(model="openai/org/small", api_base=sys.argv[1], api_key="any", max_tokens=10, temperature=0,
           messages=[{"role": "user", "content": "hi"}])
whole = litellm.completion(**how)
text = "".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(stream=True, **how))
assert text == whole.choices[0].message.content, (text, whole)
called = litellm.completion(**how | {"max_tokens": 120}, tools=[json.loads(sys.argv[2])], tool_choice="required",
                            parallel_tool_calls=False)
assert called.choices[0].message.tool_calls[0].function.name == "weather", called
try:
    litellm.completion(**how | {"model": "openai/other"})
except litellm.NotFoundError:
    print("good")
"""
    done = subprocess.run(
        [python, "-c", program, server.url, json.dumps(TOOL)],
        capture_output=True, text=True, timeout=120, check=False, env={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip().splitlines()[-1:]) == (0, ["good"]), done.stderr


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_openai_in_javascript(server, tmp_path):
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node or npm is not installed")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    _installed([npm, "install", "--silent", "--no-audit", "--no-fund", "openai"], cwd=tmp_path)
    (tmp_path / "program.js").write_text(
        """
import OpenAI from "openai";
import assert from "node:assert";
const client = new OpenAI({ baseURL: process.argv[2], apiKey: "any", maxRetries: 0 });
const how = { model: "org/small", messages: [{ role: "user", content: "hi" }], temperature: 0, max_tokens: 10 };
const whole = await client.chat.completions.create(how);
let text = "", usage;
const streamed = { ...how, stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create(streamed)) {
  text += chunk.choices[0]?.delta.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(text, whole.choices[0].message.content);
assert.equal(usage.total_tokens, whole.usage.total_tokens);
const tools = [JSON.parse(process.argv[3])];
const forced = { ...how, max_tokens: 120, tools, tool_choice: "required", parallel_tool_calls: false };
const called = await client.chat.completions.create(forced);
assert.equal(called.choices[0].message.tool_calls[0].function.name, "weather");
await assert.rejects(client.chat.completions.create({ ...how, model: "other" }), OpenAI.NotFoundError);
await assert.rejects(client.chat.completions.create({ ...how, n: 0 }), OpenAI.BadRequestError);
const models = []; for await (const model of client.models.list()) models.push(model.id);
assert.deepEqual(models, ["org/small"]);
console.log("good");
"""
    )
    done = subprocess.run(
        [node, "program.js", server.url, json.dumps(TOOL)],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "good"), done.stderr


def _installed(command, **how):
    """Installs something, or skips the test where there is no network."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
            **how,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{command[0]} took more than {INSTALL_SECONDS} s")
    if done.returncode:
        pytest.skip(f"it cannot be installed: {(done.stderr.strip() or done.stdout.strip())[-200:]}")
