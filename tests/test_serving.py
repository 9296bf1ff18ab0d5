"""`actors serve` as its clients meet it: a process of its own, a model over two nodes, and HTTP."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import threading
import time

import psutil
import pytest

pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")
pytest.importorskip("starlette")
pytest.importorskip("llguidance")

from clusters import eventually
from serving import LONGEST, Served, events, talkative
from tiny_models import whole_directory, whole_tokens

from actors.models import load_tokenizer

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI = [{"role": "user", "content": "hi"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "big": {"type": "boolean"}},
    "required": ["city", "big"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": SCHEMA}}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return talkative(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def server(path):
    with Served(path, "--local-nodes", "2", "--name", "small") as server:
        yield server.ready()


def chat(**fields):
    return {"model": "small", "messages": HI, "temperature": 0, "max_tokens": 12, **fields}


def completion(**fields):
    return {"model": "small", "prompt": "hello", "temperature": 0, "max_tokens": 12, **fields}


def choices(server, route, body):
    status, answer = server.post(route, body)
    assert status == 200, answer
    return answer["choices"]


# -- what there is ----------------------------------------------------------------------------------------------------


def test_there_is_one_model_and_its_path_is_a_name_of_it_too(server, path):
    _, models = server.get("/v1/models")
    assert [(each["id"], each["object"]) for each in models["data"]] == [("small", "model")]
    assert server.get("/v1/models/small")[1]["id"] == "small"
    assert server.get(f"/v1/models/{path}")[0] == 200  # with slashes in it
    assert server.post(CHAT, chat(model=str(path)))[0] == 200


@pytest.mark.parametrize("route", [CHAT, COMPLETIONS])
def test_another_model_is_not_found(server, route):
    body = chat(model="gpt-4") if route == CHAT else completion(model="gpt-4")
    status, answer = server.post(route, body)
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (404, "model_not_found", "model")
    assert server.get("/v1/models/gpt-4")[0] == 404


def test_metrics_are_counted_and_pass_promtool(server):
    before = _counted(server, 'actors_tokens_total{model="small"}')
    server.post(COMPLETIONS, completion(max_tokens=5, logit_bias={"1": -100}))
    assert _counted(server, 'actors_tokens_total{model="small"}') == before + 5
    assert _counted(server, 'actors_devices{state="alive"}') == 2
    assert _counted(server, 'actors_requests_total{endpoint="completions",outcome="ok"}') >= 1
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("promtool is not installed")
    text = server.get("/metrics")[1]
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _counted(server, series):
    lines = server.get("/metrics")[1].splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(series + " ")), 0.0)


# -- what it says -----------------------------------------------------------------------------------------------------


def test_it_says_what_the_whole_model_says(server, path):
    tokenizer = load_tokenizer(path)
    tokens = whole_tokens(whole_directory(path), tokenizer.encode("hello"), 12)
    assert 1 not in tokens
    (choice,) = choices(server, COMPLETIONS, completion())
    assert (choice["text"], choice["finish_reason"]) == (tokenizer.decode(tokens), "length")
    (choice,) = choices(server, COMPLETIONS, completion(prompt=tokenizer.encode("hello")))
    assert choice["text"] == tokenizer.decode(tokens)


@pytest.mark.parametrize("route", [CHAT, COMPLETIONS])
def test_a_stream_says_the_same_as_a_whole_answer(server, route):
    body = chat() if route == CHAT else completion()
    whole = server.post(route, body)[1]
    *told, last, done = server.events(route, {**body, "stream_options": {"include_usage": True}})
    assert done == "[DONE]"
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], whole["usage"]["total_tokens"])
    assert all(event["usage"] is None and event["object"] == last["object"] for event in told)
    parts = [event["choices"][0] for event in told]
    assert parts[-1]["finish_reason"] == whole["choices"][0]["finish_reason"] == "length"
    if route == CHAT:
        assert parts[0]["delta"]["role"] == "assistant"
        text = "".join(part["delta"].get("content") or "" for part in parts)
        assert text == whole["choices"][0]["message"]["content"]
    else:
        assert "".join(part["text"] for part in parts) == whole["choices"][0]["text"]


def test_usage_is_told_in_a_stream_only_where_it_is_asked_for(server):
    assert not any("usage" in event for event in server.events(CHAT, chat()) if event != "[DONE]")


def test_a_stop_ends_the_answer_and_is_not_said(server):
    text = choices(server, COMPLETIONS, completion())[0]["text"]
    stop = text[4:6]
    (choice,) = choices(server, COMPLETIONS, completion(stop=["never", stop]))
    assert (choice["text"], choice["finish_reason"]) == (text[: text.index(stop)], "stop")


def test_choices_have_seeds_of_their_own_and_come_again(server):
    body = completion(temperature=1.5, n=3, seed=-7, prompt=["hello", "world"])
    first = choices(server, COMPLETIONS, body)
    assert [each["index"] for each in first] == [0, 1, 2, 3, 4, 5]
    assert len({each["text"] for each in first}) == 6
    assert choices(server, COMPLETIONS, body) == first
    assert choices(server, COMPLETIONS, {**body, "seed": 8}) != first
    parts = [event["choices"][0] for event in server.events(COMPLETIONS, body) if event != "[DONE]"]
    for each in first:
        own = [part for part in parts if part["index"] == each["index"]]
        assert "".join(part["text"] for part in own) == each["text"]
        assert [part["finish_reason"] for part in own if part["finish_reason"]] == ["length"]


def test_the_likelihood_of_tokens_is_told(server):
    (choice,) = choices(server, CHAT, chat(logprobs=True, top_logprobs=3))
    told = choice["logprobs"]["content"]
    assert len(told) == 12
    assert (
        bytes(byte for each in told for byte in each["bytes"]).decode(errors="replace") == choice["message"]["content"]
    )
    for each in told:
        assert each["logprob"] == each["top_logprobs"][0]["logprob"] <= 0  # the likeliest was taken
        assert len(each["top_logprobs"]) == 3
    streamed = [event["choices"][0] for event in server.events(CHAT, chat(logprobs=True)) if event != "[DONE]"]
    again = [each for part in streamed if part["logprobs"] for each in part["logprobs"]["content"]]
    assert [each["token"] for each in again] == [each["token"] for each in told]
    (choice,) = choices(server, COMPLETIONS, completion(logprobs=2))
    assert [len(each) for each in choice["logprobs"].values()] == [12] * 4


def test_a_prompt_is_echoed_and_a_bias_bears(server):
    (choice,) = choices(server, COMPLETIONS, completion(echo=True, max_tokens=3, logit_bias={"42": 100}))
    assert choice["text"] == "hello" + load_tokenizer_word(42) * 3
    (choice,) = choices(server, COMPLETIONS, completion(echo=True, max_tokens=0))
    assert (choice["text"], choice["finish_reason"]) == ("hello", "length")


def load_tokenizer_word(token):
    from test_models_tokenizer import metadata

    return metadata()["tokenizer.ggml.tokens"][token]


# -- forms and tools --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0, 2])
def test_an_answer_keeps_to_a_schema(server, temperature):
    form = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": SCHEMA}}
    body = chat(response_format=form, max_tokens=60, temperature=temperature, n=2)
    for choice in choices(server, CHAT, body):
        assert choice["finish_reason"] == "stop"
        told = json.loads(choice["message"]["content"])
        assert told["city"] in {"Paris", "Rome"}
        assert isinstance(told["big"], bool)


def test_an_answer_is_an_object(server):
    (choice,) = choices(server, CHAT, chat(response_format={"type": "json_object"}, max_tokens=20))
    assert choice["message"]["content"].startswith("{")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_tool_is_called(server, choice):
    body = chat(tools=[TOOL], tool_choice=choice, parallel_tool_calls=False, max_tokens=120)
    (answer,) = choices(server, CHAT, body)
    assert (answer["finish_reason"], answer["message"]["content"]) == ("tool_calls", None)
    (call,) = answer["message"]["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", "weather")
    assert json.loads(call["function"]["arguments"])["city"] in {"Paris", "Rome"}
    parts = [event["choices"][0] for event in server.events(CHAT, body) if event != "[DONE]"]
    (streamed,) = [each for part in parts for each in part["delta"].get("tool_calls", [])]
    assert (streamed["index"], streamed["function"]) == (0, call["function"])
    assert parts[-1]["finish_reason"] == "tool_calls"


def test_what_a_tool_said_goes_on(server):
    called = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [called], "refusal": None},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    assert choices(server, CHAT, chat(messages=messages, tools=[TOOL]))[0]["message"]["role"] == "assistant"


# -- what is refused --------------------------------------------------------------------------------------------------

A_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
IMAGE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]


@pytest.mark.parametrize(
    ("route", "body", "param"),
    [
        (CHAT, b"", None),
        (CHAT, b"{", None),
        (CHAT, b"[]", None),
        (CHAT, b"\xff\xfe", None),
        (CHAT, b"[" * 100_000, None),
        (CHAT, {"messages": HI}, "model"),
        (CHAT, chat(messages=[]), "messages"),
        (CHAT, chat(messages="hi"), "messages"),
        (CHAT, chat(messages=[5]), "messages.0"),
        (CHAT, chat(messages=[{"role": "king", "content": "hi"}]), "messages.0.role"),
        (CHAT, chat(messages=[{"role": "user", "content": None}]), "messages.0.content"),
        (CHAT, chat(messages=[{"role": "user", "content": IMAGE}]), "messages.0.content.0"),
        (CHAT, chat(temperature="hot"), "temperature"),
        (CHAT, chat(temperature=-1), "temperature"),
        (CHAT, chat(temperature=True), "temperature"),
        (CHAT, chat(top_p=2), "top_p"),
        (CHAT, chat(n=0), "n"),
        (CHAT, chat(n=129), "n"),
        (CHAT, chat(max_tokens=0), "max_tokens"),
        (CHAT, chat(max_tokens=1.5), "max_tokens"),
        (CHAT, chat(stop=["a"] * 17), "stop"),
        (CHAT, chat(stop=[""]), "stop.0"),
        (CHAT, chat(logit_bias={"x": 1}), "logit_bias"),
        (CHAT, chat(logit_bias={"99999": 1}), None),
        (CHAT, chat(top_logprobs=2), "top_logprobs"),
        (CHAT, chat(stream_options={"include_usage": True}), "stream_options"),
        (CHAT, chat(temprature=1), "temprature"),
        (CHAT, chat(response_format={"type": "xml"}), "response_format"),
        (CHAT, chat(response_format=A_SCHEMA), "response_format"),
        (CHAT, chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "x"}}), "tool_choice"),
        (CHAT, chat(tool_choice="required"), "tool_choice"),
        (CHAT, chat(tools=[TOOL], response_format={"type": "json_object"}), "response_format"),
        (CHAT, chat(functions=[]), "functions"),
        (CHAT, chat(chat_template_kwargs={"tokenize": False}), "chat_template_kwargs"),
        (COMPLETIONS, completion(prompt=""), "prompt"),
        (COMPLETIONS, completion(prompt=[]), "prompt"),
        (COMPLETIONS, completion(prompt=[99999]), "prompt"),
        (COMPLETIONS, completion(prompt=[-1]), "prompt"),
        (COMPLETIONS, completion(prompt={"a": 1}), "prompt"),
        (COMPLETIONS, completion(best_of=3), "best_of"),
        (COMPLETIONS, completion(suffix="x"), "suffix"),
        (COMPLETIONS, completion(echo=True, logprobs=1), "logprobs"),
    ],
)
def test_nonsense_is_refused_by_name(server, route, body, param):
    status, answer = server.post(route, body)
    assert (status, answer["error"]["type"], answer["error"]["param"]) == (400, "invalid_request_error", param)
    assert answer["error"]["message"]


def test_more_answers_than_are_ever_taken_are_not_asked_for_again(server):
    status, answer = server.post(COMPLETIONS, completion(prompt=["a", "b", "c"], n=100))
    assert (status, answer["error"]["param"]) == (400, "n")
    assert answer["error"]["message"] == "300 answers in one request; 256 are taken at most"
    status, answer = server.post(CHAT, chat(messages=[5]))
    assert answer["error"]["message"] == "messages.0 must be a JSON object"


def test_what_is_too_long_is_refused(server):
    status, answer = server.post(COMPLETIONS, completion(prompt="x" * LONGEST))
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert "room for 512 tokens, but the prompt has 512" in answer["error"]["message"]
    status, answer = server.post(COMPLETIONS, completion(prompt="x" * (3 << 20)))  # not even cut into tokens
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert server.post(CHAT, chat(max_tokens=LONGEST))[1]["error"]["code"] == "context_length_exceeded"
    status, answer = server.post(COMPLETIONS, completion(prompt="x" * (5 << 20)))
    assert (status, answer["error"]["code"]) == (413, "request_too_large")


def test_other_paths_and_methods_are_told_in_the_same_form(server):
    assert server.get("/v1/embeddings")[1]["error"]["message"] == "there is no /v1/embeddings here"
    status, answer = server.get(CHAT)
    assert (status, answer["error"]["type"]) == (405, "invalid_request_error")


def test_web_pages_of_others_get_nothing(server):
    assert server.get("/v1/models", Host="evil.example")[0] == 403
    assert server.post(CHAT, chat(), Sec_Fetch_Site="cross-site")[0] == 403
    for host in ("localhost", "127.0.0.1:1", "[::1]:8080"):
        assert server.get("/v1/models", Host=host)[0] == 200
    with server.asked("GET", "/v1/models", Origin="http://evil.example") as response:
        assert response.headers["Access-Control-Allow-Origin"] is None


# -- clients that come and go -----------------------------------------------------------------------------------------


def endless(**fields):
    """An answer that takes the small model a while."""
    return chat(max_tokens=300, logit_bias={"1": -100}, **fields)


def _running(server):
    return sum(_counted(server, f'actors_model_requests_{state}{{model="small"}}') for state in ("running", "waiting"))


def test_a_client_that_leaves_takes_its_answer_along(server):
    series = 'actors_requests_total{endpoint="chat",outcome="gone"}'
    before = _counted(server, series)
    with server.asked("POST", CHAT, {**endless(), "stream": True}) as response:
        assert next(events(response))["choices"]
    with socket.create_connection(("127.0.0.1", server.port)) as connection:  # and one that waits for a whole answer
        body = json.dumps(endless()).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        eventually(lambda: _running(server))
    eventually(lambda: _counted(server, series) == before + 2)
    eventually(lambda: _running(server) == 0)


def test_many_clients_at_once_get_what_each_gets_alone(server):
    bodies = [completion(prompt=prompt) for prompt in ("one", "three", "seventeen")] * 3
    alone = {body["prompt"]: choices(server, COMPLETIONS, body)[0]["text"] for body in bodies}
    together = [None] * len(bodies)

    def ask(number):
        together[number] = choices(server, COMPLETIONS, bodies[number])[0]["text"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert together == [alone[body["prompt"]] for body in bodies]


def test_half_a_request_and_noise_disturb_nobody(server):
    for noise in (
        b"\x00" * 1000,
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n{",
    ):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(noise)
    assert server.get("/health") == (200, {"status": "ready"})


# -- its life ---------------------------------------------------------------------------------------------------------


def test_beyond_this_machine_a_key_is_needed_and_it_can_be_full_and_stopped(path):
    with Served(path, "--local-nodes", "1", "--name", "small", "--host", "0.0.0.0", "--max-requests", "100") as server:
        key = server.line(r"API key, shown once: (\S+)")
        server.ready()  # asks without a key
        assert len(key) > 30
        for path_ in ("/v1/models", "/metrics"):
            status, answer = server.get(path_)
            assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
        assert server.get("/v1/models", Authorization="Bearer wrong")[0] == 401
        assert server.post(CHAT, chat(), Authorization=f"Basic {key}")[0] == 401
        server.key = key
        assert server.get("/v1/models", Host="a-device.local")[0] == 200
        with server.asked("POST", CHAT, {**endless(n=100), "stream": True}) as response:
            next(events(response))
            with server.asked("POST", CHAT, chat()) as refused:
                answer = json.loads(refused.read())
                assert (refused.status, answer["error"]["code"]) == (429, "queue_full")
                assert refused.headers["Retry-After"] == "2"
        eventually(lambda: server.post(CHAT, chat())[0] == 200)
        _stopped_in_mid_stream(server)


def _stopped_in_mid_stream(server):
    """SIGTERM leaves nobody without a word."""
    with server.asked("POST", CHAT, {**endless(n=100), "stream": True}) as response:
        told = events(response)
        next(told)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert list(told)[-1]["error"]["code"] == "stopping"
    assert server.ends() == 0
    assert time.monotonic() - began < 10


@pytest.mark.slow
def test_a_node_that_dies_is_made_up_for(path):
    with Served(path, "--local-nodes", "3", "--name", "small", "--api-key", "secret") as server:
        assert server.get("/v1/models")[0] == 401  # a key that was given is asked for on loopback, too
        server.key = "secret"
        server.ready()
        _, second, third = _nodes(server)
        whole = choices(server, CHAT, endless())[0]["message"]["content"]
        with server.asked("POST", CHAT, {**endless(), "stream": True}) as response:
            told = events(response)
            text = "".join(next(told)["choices"][0]["delta"].get("content") or "" for _ in range(3))
            third.kill()
            text += "".join(each["choices"][0]["delta"].get("content") or "" for each in told if each != "[DONE]")
        assert text == whole
        second.kill()  # while nobody asks
        eventually(lambda: server.get("/health")[0] == 503, 20)
        server.ready()


def _nodes(server):
    """The processes of its nodes, in the order in which they were started."""
    found = psutil.Process(server.process.pid).children()
    nodes = [each for each in found if "actors.node" in " ".join(each.cmdline())]
    return sorted(nodes, key=lambda each: each.create_time())


@pytest.mark.slow
def test_it_ends_while_it_loads(path):
    with Served(path, "--local-nodes", "2") as server:
        assert server.get("/health") == (503, {"status": "loading"})
        with server.asked("POST", CHAT, chat()) as response:
            assert (response.status, response.headers["Retry-After"]) == (404, None)
        assert server.post(CHAT, chat(model=str(path)))[0] == 503
        assert server.ends(signal.SIGTERM) == 0


@pytest.mark.slow
def test_ctrl_c_is_status_130_and_a_taken_port_status_1(path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(AssertionError, match=r"port \d+: Address already in use(?! \()"):
            Served(path, "--port", port).__exit__(None, None, None)
    with Served(path, "--local-nodes", "1") as server:
        assert server.ends(signal.SIGINT) == 130
