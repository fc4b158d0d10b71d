"""Recorded AMI traffic for tests: files of tests/traces as raw messages, records and facts.

A trace's blocks are parted by an empty line; `#< seconds` marks a message from Asterisk, `#> seconds` one sent to it,
`#=` a remark. A word after the sign is another session's name. Line ends are LF in the files, CRLF on the wire.
"""

from __future__ import annotations

import re
from pathlib import Path

from cti.ami_events import PARSERS, Record
from cti.calls import Calls
from cti.facts import CallFact, CallTransferred, ConnectionCleared, ConnectionView, Fact

FOLDER = Path(__file__).parent / "traces"


def messages(name: str, session: str = "") -> list[bytes]:
    """The raw messages that Asterisk sent to one session of a trace, without their final blank line."""
    path = next((FOLDER / "22").glob(f"{name}*.txt"))
    found = []
    for block in re.split(rb"\n\n(?=#[<>!=])", path.read_bytes().strip()):
        head, _, body = block.partition(b"\n")
        mark = head.split(b" ")[0]
        if mark == b"#<" + session.encode():
            found.append(body.strip(b"\n").replace(b"\n", b"\r\n"))
    return found


def stream(name: str, session: str = "") -> bytes:
    """The same messages as the bytes that came over the wire."""
    return b"".join(message + b"\r\n\r\n" for message in messages(name, session))


def parse(raw: bytes) -> Record | None:
    """The record of one raw message, as the link would make it."""
    if not raw.startswith(b"Event: "):
        return None
    parser = PARSERS.get(raw[7:].split(b"\r\n", 1)[0])
    record = parser(raw) if parser else None
    return record if isinstance(record, Record) else None


def records(name: str, session: str = "") -> list[Record]:
    """The records of a trace."""
    return [record for raw in messages(name, session) if (record := parse(raw)) is not None]


AGENTS = {
    **{
        f"Local/{n}@sim-agent": f"agent{n}"
        for n in (1009, 1101, 1102, 1202, 1501, 2101, 2202, 3101, 6101, 6501)
    },
    "PJSIP/1003": "carol",
    "PJSIP/1001": "alice",
}


def model(agents: dict[str, str] | None = None) -> Calls:
    """A call model that knows the agents of the recordings."""
    known = AGENTS if agents is None else agents
    return Calls(
        "main",
        agent_at=known.get,
        is_trunk=lambda device: device == "PJSIP/trunk",
        inbound_contexts=("from-trunk",),
    )


def told(name: str, session: str = "", agents: dict[str, str] | None = None) -> list[Fact]:
    """The facts that a trace tells, from an empty model."""
    calls = model(agents)
    facts: list[Fact] = []
    for record in records(name, session):
        facts += calls.apply(record)
    return facts


def party(connection: ConnectionView) -> str:
    """A connection's name in a story: the agent's, or the device's last part."""
    return connection.agent or connection.device


def line(fact: Fact) -> str:
    """One line that tells a fact, without times and ids."""
    parts = [fact.TYPE.removeprefix("call.")]
    for name in ("connection", "by"):
        value = getattr(fact, name, None)
        if isinstance(value, ConnectionView):
            parts.append(f"{party(value)}={value.state}")
        elif name == "by" and value is not None and not isinstance(fact, CallFact):
            parts.append(str(value))
    for name in ("kind", "queue", "reason", "slot", "target", "room", "parties", "outcome", "changed"):
        value = getattr(fact, name, None)
        if name == "queue" and isinstance(fact, ConnectionCleared | CallTransferred):
            continue  # where it was answered from was told with its answer
        if value not in (None, ""):
            parts.append(f"{name}={value}")
    if fact.TYPE in {"call.held", "call.retrieved"}:
        parts.append(f"by={fact.by}")  # type: ignore[attr-defined]
    return " ".join(parts)


def story(name: str, session: str = "", agents: dict[str, str] | None = None) -> list[str]:
    """A trace's facts, one line each."""
    return [line(fact) for fact in told(name, session, agents)]
