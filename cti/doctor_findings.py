"""What an examination of a PBX sees, and what it finds: shapes only.

A finding's level: `ok`; `warn` (it works, something is worse than it need be); `wrong` (the server cannot do its work);
`unseen` (cannot be told from here).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

READ_NEEDED = ("system", "call", "agent", "user")
WRITE_NEEDED = ("call", "agent", "user", "originate", "reporting")

MANAGER = "manager.conf"
MANAGER_FREEPBX = "manager_custom.conf"
RELOAD_MANAGER = "asterisk -rx 'manager reload'"
RELOAD_DIALPLAN = "asterisk -rx 'dialplan reload'"
RELOAD_QUEUES = "asterisk -rx 'queue reload all'"


class Level(StrEnum):
    """How grave a finding is."""

    OK = "ok"
    WARN = "warn"
    WRONG = "wrong"
    UNSEEN = "unseen"


@dataclass(frozen=True, slots=True)
class Fix:
    """What to change: the lines to have in a section of a file of Asterisk, and what makes Asterisk read it.

    `freepbx`: the file that FreePBX leaves to its owner. `section` is empty where the lines are not of one section.
    """

    file: str
    lines: tuple[str, ...]
    section: str = ""
    freepbx: str = ""
    then: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. `id` names the check, for scripts; `says` is for people."""

    id: str
    level: Level
    says: str
    fix: Fix | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The PBX to examine. `recordings`: the folder there for recordings begun by command, empty for Asterisk's own;
    `recordings_seen_at`: the same folder as this machine sees it, if it does; `tls_ca`: file with the authority that its
    certificate is trusted by, empty for the machine's own. `phones`: of this server's people, each with its login; `queues`:
    named for them or their teams, each with who is the first; `people_unread`: why these cannot be told."""

    name: str
    host: str
    port: int
    username: str
    tls: bool = False
    tls_ca: str = ""
    inbound_contexts: tuple[str, ...] = ()
    trunks: tuple[str, ...] = ()
    recordings: str = ""
    recordings_seen_at: str = ""
    phones: dict[str, str] = field(default_factory=dict)
    queues: dict[str, str] = field(default_factory=dict)
    people_unread: str = ""

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueMember:
    """A member of a queue as Asterisk lists it. `status`: Asterisk's device state number."""

    interface: str
    state_interface: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFound:
    """A queue as Asterisk lists it; `options`: what its section says, empty where that cannot be read."""

    name: str
    members: tuple[QueueMember, ...]
    options: Mapping[str, str] = field(default_factory=dict)


class Recorded(StrEnum):
    """What became of a recording that was asked for."""

    WRITTEN = "written"
    MISSING = "missing"
    NO_FOLDER = "no_folder"
    TAKEN = "taken"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that an examination has seen. None means: could not be asked. `versions`: of our files, by the context that says
    it; `asks`: inbound contexts that ask where a call goes; `widens`: the queue rules are there; `routing_on`: its variable
    CTI_ROUTING; `recording`: what became of one of the test call, and its file, or why it was refused; `phones`: states of
    this server's people's."""

    target: Target
    trouble: tuple[str, str] | None = None
    booted: bool = False
    ami_version: str = ""
    asterisk_version: str = ""
    actions: frozenset[str] = frozenset()
    clock_off: float | None = None
    stamped: bool | None = None
    seen: Mapping[str, int] = field(default_factory=dict)
    test_call: bool = False
    no_test_call: str = ""
    said_user_event: bool = False
    probed_queue: str | None = None
    manager: Mapping[str, str] | None = None
    manager_general: Mapping[str, str] | None = None
    filters: tuple[str, ...] = ()
    secrets_readable: bool = False
    contexts: Mapping[str, frozenset[str] | None] | None = None
    queues: tuple[QueueFound, ...] | None = None
    devices: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    asks: frozenset[str] = frozenset()
    widens: bool | None = None
    routing_on: str | None = None
    mailboxes: tuple[str, ...] | None = None
    no_voicemail: bool = False
    recording: tuple[Recorded, str] | None = None
    phones: Mapping[str, str] = field(default_factory=dict)


Check = Callable[[Evidence], Iterable[Finding]]


def ok(id: str, says: str) -> Finding:
    return Finding(id, Level.OK, says)


def manager_fix(evidence: Evidence, *lines: str, section: str = "") -> Fix:
    return Fix(MANAGER, lines, section or evidence.target.username, MANAGER_FREEPBX, RELOAD_MANAGER)
