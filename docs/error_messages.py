"""Every error message of the code, read from the code itself; the page ``errors`` of the site is made of them."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
FOLDERS = ("actors", "discovery")
GAP = "…"
"""In a text, for what is only known when it is raised."""
OTHERS_WORDS = {"CancelledError", "AssertionError"}  # Python's own signals, not messages

AREAS = (
    ("Models and the server", ("actors/models/",)),
    ("Groups and collectives", ("actors/collective/", "actors/group.py", "actors/elastic.py", "actors/communicator.py")),
    ("Devices: discovery, pairing, trust", (
        "discovery/", "actors/pairing/", "actors/trust/", "actors/certificate.py", "actors/device.py", "actors/identity.py",
        "actors/doctor/", "actors/reach.py", "actors/signed.py",
    )),
    ("Commands and the dashboard", ("actors/cli/", "actors/dashboard/", "actors/observer.py", "actors/demo/",
                                    "actors/bench/", "actors/launch/", "actors/record.py", "actors/notebook/")),
    ("Between processes", ("actors/transport/", "actors/_", "actors/codec.py", "actors/messages.py")),
    ("Utilities and tests of your own", ("actors/util/", "actors/testing/", "actors/simulation.py", "actors/supervision.py")),
    ("Programs, actors and calls", ("actors/",)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Message:
    """One error message.

    Attributes:
        kind: name of the exception's class.
        text: with a gap for each part that is only known when it is raised.
        file: where it is, from the root.
        line: likewise.
    """

    kind: str
    text: str
    file: str
    line: int

    @property
    def parts(self) -> list[str]:
        """What of the text is always the same."""
        return [part for part in (part.strip() for part in self.text.split(GAP)) if part]

    @property
    def area(self) -> str:
        """The heading it is found under."""
        return next(title for title, places in AREAS if self.file.startswith(places))


def messages() -> list[Message]:
    """Returns every message that the code raises, by file and line.

    Left out are errors that only hand on another's words.
    """
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "_wire" not in path.parts:
                found += list(_of_file(path))
    return found


def _of_file(path: Path) -> Iterator[Message]:
    tree = ast.parse(path.read_text("utf-8"))
    named = {
        node.targets[0].id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (kind := _kind(node)):
            arguments = node.args[1:2] if kind == "ApiError" else node.args[:1]
            for argument in arguments:
                text = _text(argument, named)
                if any(character.isalpha() for character in text):
                    yield Message(kind, text, str(path.relative_to(ROOT)), node.lineno)


def _kind(node: ast.Call) -> str:
    """The class of an exception that is made; empty where none is."""
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    is_error = name[:1].isupper() and name.endswith(("Error", "Exception", "BadParameter", "Exceeded"))
    return name if is_error and name not in OTHERS_WORDS else ""


def _text(node: ast.expr, named: dict[str, ast.expr], depth: int = 0) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        text = "".join(_text(part, named, depth) or GAP for part in node.values)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        text = _text(node.left, named, depth) + _text(node.right, named, depth)
    elif isinstance(node, ast.IfExp):
        text = _text(node.body, named, depth)
    elif isinstance(node, ast.Name) and node.id in named and depth == 0:
        text = _text(named[node.id], named, 1)
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.JoinedStr | ast.Constant):
        text = GAP + _text(node.args[0], named, depth) + GAP
    else:
        text = GAP
    while GAP * 2 in text:
        text = text.replace(GAP * 2, GAP)
    return text


# -- the page -----------------------------------------------------------------------------------------------------

ADVICE = {
    "ActorAlreadyExistsError": "`actors.get_actor(name)`, `get_if_exists=True`, or another name",
    "ActorCycleError": "make one of the methods `async`, or do not wait there",
    "ActorDiedError": "the text ends with why; `max_restarts=` makes such an actor anew",
    "ActorUnavailableError": "call again, or `max_task_retries=` where running twice does no harm",
    "ActorsError": "the text names what stood in the way: mend that, and try again",
    "ApiError": "the client is told, with a status: below 500 the request is to be changed, from 500 on sent again",
    "ArgumentError": "correct the argument that is named",
    "AttributeError": "correct the name; most such texts list those there are",
    "AuthenticationError": "pair the devices: `actors invite` on one, `actors join CODE` on the other; `actors doctor` tells who trusts whom",
    "BadParameter": "correct the argument of the command; `--help` has an example",
    "ClickException": "correct what the command was given; `--help` has an example",
    "ClusterTimeoutError": "`actors doctor`; or give `timeout=` more seconds on a slow device",
    "CodeError": "type the code again, as the other device shows it",
    "CollectiveError": "all ranks are told the same: make the calls alike or, after a death, `rebuild()` the group",
    "DiscoveryError": "`actors doctor` says what keeps multicast from working; `init('HOST:PORT')` needs none",
    "EOFError": "the other end has closed the connection: try again",
    "GetTimeoutError": "wait longer, or `actors.cancel(ref)`: the call goes on",
    "GoneError": "the other end has left for good; what was on its way there has failed with its reason",
    "IndexError": "take one of those that the text says there are",
    "LinkLostError": "nothing: the connection is taken up again; if it cannot be, the call fails with its own error",
    "LookupError": "`actors list actors` shows the names there are",
    "MalformedMessageError": "something else than this package talks to the socket, or another version: `actors doctor`",
    "MemberLostError": "`rebuild()` the group on those that are left",
    "MemoryError": "free memory in the process named, give it more, or send the value in parts",
    "ModelError": "the text names the file, the layer or the device: fetch the file again, or use what it names instead",
    "ModuleNotFoundError": "install the package on the node that is named, or `runtime_env=`",
    "MuteError": "the other device does not answer in this protocol: `actors doctor`",
    "NoActorError": "`actors list actors` shows the names there are",
    "NoClusterError": "`actors.init()` in a program, `actors start` on a device",
    "NoThreadError": "end what the user or container runs beside, or raise its limit of processes",
    "NodeDiedError": "`max_restarts=-1` makes the actor anew elsewhere",
    "NotImplementedError": "leave the option out: nothing here can honour it",
    "NotPairedError": "`actors invite` on one device, `actors join CODE` on the other",
    "NotPublicError": "mark the method with `@actors.method(public=True)`",
    "OSError": "the system says why: a port, a file, a right",
    "ObjectLostError": "make the value in a process that lives, such as the driver, by `actors.put`",
    "PairingError": "`actors invite` again, and `actors join` with the new code",
    "PendingCallsLimitExceeded": "`get` or `await` some before making more; `max_pending_calls=` is the bound",
    "PlacementError": "the text says what each node lacks; ask for less, or add a node",
    "ProtocolError": "the other end runs another version, or is no node: `actors doctor`",
    "RecordError": "name a file that an actor with `record=True` has written",
    "RuntimeEnvError": "the text ends with what pip or the system said: correct `runtime_env=`",
    "RuntimeError": "the call is made in the wrong place or order, which the text names",
    "SerializationError": "`actors.util.inspect_serializability(value)` finds the part that cannot travel",
    "SilentRankError": "that rank is behind or stuck: `actors stack` shows where",
    "SimulationError": "the seed that is named runs it again",
    "TaskCancelledError": "somebody cancelled it",
    "TaskError": "the method raised: read the remote traceback at its end",
    "TimeoutError": "give it longer, or see by `actors stack` what it waits for",
    "TypeError": "give a value of the kind that is named",
    "UnreachableError": "is the other device on, on this network, and its port open? `actors doctor HOST:PORT`",
    "UsageError": "correct the words of the command; `--help` has an example",
    "ValueError": "give a value within the bounds that are named",
    "VersionMismatchError": "bring both devices to one version of what is named",
    "WrongCodeError": "type the code again, as the other device shows it",
}
"""What to do, by kind; a row of the page on troubleshooting goes before, and what stands in `NEARER`."""

_DAMAGED = "what the other device or the file holds is not what this package writes: `actors leave`, and pair again"
NEARER = (
    ("ModelError", r"cannot be cut|never called|Llama family|cannot make out|must stay together",
     "leave `strategy=` at `'auto'`; a model that cannot be cut at all runs on one node: `nodes=[…]`"),
    ("ModelError", r"not supported|no architecture|not known here|can be read|variant of the arch",
     "take the model's Hugging Face directory, or another quantisation of it"),
    ("ModelError", r"chat template refuses", "send the messages as this model's template wants them, mostly user and assistant by turns"),
    ("ModelError", r"cannot be kept|no place to keep", "make room there, or give another folder by `ACTORS_HOME`"),
    ("ModelError", r"was closed|of another line", "make or load it again"),
    ("ModelError", r"is there any more|can give them out", "bring one of the devices back that had it, or load it again"),
    ("CollectiveError", r"another thread of this rank", "call from one thread of a rank at a time, or under another tag or group"),
    ("CollectiveError", r"without data", "something else than this package sends to the rank's port"),
    ("CollectiveError", r"was closed here", "make a new group: this one was destroyed or has ended"),
    ("CollectiveError", r"another engine", "make groups of actors of one engine"),
    ("CollectiveError", r"on Ray, collectives", "call collectives in methods, once all are made"),
    ("AuthenticationError", r"statements? about trust|in another's name|holds more than|^it is |no private key", _DAMAGED),
    ("AuthenticationError", r"another certificate|not its own|shows the certificate|lacks this device", _DAMAGED),
    ("AuthenticationError", r"another version|cannot be used", "`actors invite --bundle FILE` again, by this version of the package"),
    ("AuthenticationError", r"others can read", "delete that file"),
    ("AuthenticationError", r"belongs to that cluster already", "nothing: it is a member"),
    ("AuthenticationError", r"own device", "ask a node of the same device"),
    ("LookupError", r"kept here", "nothing: the node asks whoever keeps it since"),
    ("LookupError", r"^… means", "give more of its id, as `actors list actors` shows it"),
    ("LookupError", r"kept nothing", "what is older than the node's memory of lines is gone"),
)  # fmt: skip
"""What to do, by kind and words, where the kind alone says too little."""

_ROW = re.compile(r"^\| (.+?) \|(?: .+? \|)? (.*?) \|$", re.MULTILINE)
_SAYS = re.compile(
    r"[:;,.] (?:or |and |then )?(?:add|ask|await|call|choose|convert|correct|fetch|give|install|keep|leave it|look|make|"
    r"load|mark|name|pass|pick|put|read|remove|rename|replace|report|restore|run|say|send|set|start|take|try|use|wait)\b|`actors ",
    re.IGNORECASE,
)
"""In texts that say themselves what to do."""
_QUOTE = re.compile(r"`([^`]+)`")


def advised() -> list[tuple[str, str]]:
    """Returns what the page on troubleshooting quotes, without the exception's name, and what it says to do."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    return [
        (re.sub(r"^\w+Error: ", "", quote).strip(f"{GAP} "), do)
        for says, do in _ROW.findall(text)
        for quote in _QUOTE.findall(says)
    ]


def quotes(quote: str, message: Message) -> bool:
    """Whether words that a page quotes are of a message; a number or name may stand for what varies in it."""
    found = _quoted(quote)
    return found is not None and bool(found[0].search(message.text) or _said(message.text).search(found[1]))


@cache
def _quoted(quote: str) -> tuple[re.Pattern[str], str] | None:
    """What finds the words of a quote, and the quote; None where they are too few to be of one message alone."""
    quote = re.sub(r"\d+(\.\d+)?( [KMGT]iB)?", GAP, quote)
    if not any(len(piece.split()) > 2 for piece in quote.split(GAP)):
        return None
    return re.compile(".*".join(re.escape(piece.strip()) for piece in quote.split(GAP) if piece.strip())), quote


@cache
def _said(text: str) -> re.Pattern[str]:
    return re.compile(".+".join(re.escape(part) for part in text.split(GAP)))


def page() -> str:
    """Returns the page, as Markdown."""
    rows, found = advised(), messages()
    lines = [
        "# Every error message",
        "",
        f"All {len({(m.kind, m.text) for m in found})} texts that this version raises, read from its code; {GAP} stands for what is only known then.",
        "Look for a few words of yours with the browser's search. [Troubleshooting](troubleshooting.md) tells more of the common ones.",
        "",
    ]
    for area, _ in AREAS:
        lines += [f"## {area}", "", "| it says | what to do |", "|---|---|"]
        mine = sorted({(m.text, m.kind): m for m in found if m.area == area}.items())
        for _, message in mine:
            own = [do for quote, do in rows if do and quotes(quote, message)]
            advice = own[0] if own else "as it says" if _SAYS.search(message.text) else _kinds_advice(message)
            lines.append(f"| {_code(f'{message.kind}: {message.text}')} | {advice} |")
        lines.append("")
    return "\n".join(lines)


def _kinds_advice(message: Message) -> str:
    nearer = (do for kind, words, do in NEARER if kind == message.kind and re.search(words, message.text))
    return next(nearer, ADVICE[message.kind])


def _code(text: str) -> str:
    text = " ".join(text.split()).replace("|", r"\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"
