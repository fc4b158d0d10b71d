"""What is found about this server's people: whether the PBX has the phones and queues named for them. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from cti.doctor_findings import Evidence, Finding, Fix, Level, ok

SHOWN = 6
"""Names of phones or queues that a finding tells."""


def people(evidence: Evidence) -> Iterator[Finding]:
    """Phones and queues that were mistyped: their agents are ready and get no calls, without a word."""
    target = evidence.target
    if target.people_unread:
        yield Finding(
            "people", Level.UNSEEN, f"This server's people could not be read: {target.people_unread}"
        )
        return
    known = {queue.name for queue in evidence.queues or ()}
    strange = [] if evidence.queues is None else [name for name in sorted(target.queues) if name not in known]
    dead = sorted(phone for phone, state in evidence.phones.items() if state.upper() == "INVALID")
    if strange:
        yield Finding(
            "people_queues",
            Level.WARN,
            f"Asterisk has no queue named {_told(strange, target.queues)}: who works in it gets no calls of it.",
            Fix("on this server", (f"cti users change <login> --queue {target.name}:<a queue of that PBX>",)),
        )
    if dead:
        yield Finding(
            "people_phones",
            Level.WARN,
            f"Asterisk knows no phone {_told(dead, target.phones)}: it cannot be called.",
            Fix("on this server", (f"cti users change <login> --phone {target.name}=PJSIP/<an endpoint>",)),
        )
    if not strange and not dead and (target.queues or evidence.phones):
        yield ok(
            "people",
            f"The phones ({len(evidence.phones)}) and queues ({len(target.queues)}) of this server's people are there.",
        )


def _told(names: list[str], whose: dict[str, str]) -> str:
    shown = ", ".join(f"{name} ({whose[name]})" for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
