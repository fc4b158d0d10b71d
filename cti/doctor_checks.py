"""What an examination of a PBX means: evidence in, findings out, each with what to change in which file. No I/O.

Every check is a function of the evidence alone; `CHECKS` is their order on the page. A finding's level: `ok`; `warn`
(it works, something is worse than it need be); `wrong` (the server cannot do its work); `unseen` (cannot be told from
here).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

OLDEST, NEWEST = 18, 22
STILL_SPEAKS = 16
"""The oldest major version whose events were recorded; below it names and headers differ."""

CLOCK_TOLERANCE = 2.0

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
    `recordings_seen_at`: the same folder as this machine sees it, if it does."""

    name: str
    host: str
    port: int
    username: str
    tls: bool = False
    inbound_contexts: tuple[str, ...] = ()
    trunks: tuple[str, ...] = ()
    recordings: str = ""
    recordings_seen_at: str = ""

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
    CTI_ROUTING; `recording`: what became of one of the test call, and its file, or why it was refused."""

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


Check = Callable[[Evidence], Iterable[Finding]]


def ok(id: str, says: str) -> Finding:
    return Finding(id, Level.OK, says)


def findings(evidence: Evidence) -> list[tuple[str, list[Finding]]]:
    """Returns the findings by chapter; after trouble with the connection only that chapter."""
    if evidence.trouble is not None:
        return [("Connection", list(connection(evidence)))]
    return [
        (title, found)
        for title, checks in CHECKS
        if (found := [finding for check in checks for finding in check(evidence)])
    ]


def usable(chapters: Iterable[tuple[str, list[Finding]]]) -> bool:
    """Whether nothing found stops the server from doing its work."""
    return all(finding.level is not Level.WRONG for _, found in chapters for finding in found)


def _manager_fix(evidence: Evidence, *lines: str, section: str = "") -> Fix:
    return Fix(MANAGER, lines, section or evidence.target.username, MANAGER_FREEPBX, RELOAD_MANAGER)


# ------------------------------------------------------------------------------------------------ connection


def connection(evidence: Evidence) -> Iterator[Finding]:
    """Reached, logged in, ready."""
    target = evidence.target
    if evidence.trouble is not None:
        code, why = evidence.trouble
        fix = None
        if code == "wrong_password":
            lines = (
                "secret=<the secret you gave>",
                "deny=0.0.0.0/0.0.0.0",
                "permit=<address of this machine>/255.255.255.255",
            )
            fix = _manager_fix(evidence, *lines)
        elif code == "unreachable":
            lines = ("enabled=yes", "bindaddr=<address that this machine can reach>", f"port={target.port}")
            fix = _manager_fix(evidence, *lines, section="general")
        yield Finding(code, Level.WRONG, why, fix)
        return
    yield ok("reachable", f"{target.place} is an Asterisk Manager Interface, version {evidence.ami_version}.")
    yield ok("login", f"The user {target.username} may log in.")
    if evidence.booted:
        yield ok("booted", "Asterisk says that it is fully booted.")
        return
    yield Finding(
        "booted",
        Level.WRONG,
        "FullyBooted never comes: the user may not read `system`, or a filter drops it. Nothing can begin before it.",
        _manager_fix(evidence, f"read={','.join(READ_NEEDED)}"),
    )


def version(evidence: Evidence) -> Iterator[Finding]:
    """Asterisk 18 to 22."""
    found = re.search(r"(?:certified[/-])?(\d+)\.\d+", evidence.asterisk_version)
    if found is None:
        yield Finding(
            "version", Level.UNSEEN, "The version cannot be asked for without the write class `reporting`."
        )
        return
    number, shown = int(found.group(1)), evidence.asterisk_version.split("+")[0]
    if OLDEST <= number <= NEWEST:
        yield ok("version", f"Asterisk {shown} is supported.")
    elif number < STILL_SPEAKS:
        yield Finding(
            "version",
            Level.WRONG,
            f"Asterisk {shown} is too old: update to {OLDEST} or newer ({NEWEST} is best).",
        )
    else:
        state = "no longer supported by anybody" if number < OLDEST else "newer than what was tried"
        yield Finding(
            "version", Level.WARN, f"Asterisk {shown} is {state}; {OLDEST} to {NEWEST} are supported here."
        )


def encryption(evidence: Evidence) -> Iterator[Finding]:
    """Nothing of it in the clear over a network."""
    target = evidence.target
    if target.tls:
        yield ok("encryption", "The connection is encrypted.")
    elif target.host in ("localhost", "::1") or target.host.startswith("127."):
        yield ok("encryption", "The connection stays on this machine.")
    else:
        yield Finding(
            "encryption",
            Level.WARN,
            f"Callers' numbers and names go to {target.host} unencrypted (the secret does not). Use TLS or a tunnel.",
            _manager_fix(
                evidence,
                "tlsenable=yes",
                "tlsbindaddr=0.0.0.0:5039",
                "tlscertfile=/etc/asterisk/keys/manager.pem",
                section="general",
            ),
        )


def clock(evidence: Evidence) -> Iterator[Finding]:
    """The two clocks agree."""
    off = evidence.clock_off
    if off is None:
        yield Finding("clock", Level.UNSEEN, "Asterisk does not tell its time.")
    elif abs(off) <= CLOCK_TOLERANCE:
        yield ok("clock", f"Its clock agrees with this machine's (within {max(abs(off), 0.01):.2f} s).")
    else:
        side = "ahead of" if off > 0 else "behind"
        yield Finding(
            "clock",
            Level.WARN,
            f"Its clock is {abs(off):.1f} s {side} this machine's: waiting times on screens will be wrong by that.",
            Fix("on both machines", ("apt-get install chrony",), then="chronyc tracking"),
        )


# ---------------------------------------------------------------------------------------------------- rights

ACTIONS: tuple[tuple[str, str, str, bool], ...] = (
    ("CoreSettings", "reporting", "telling the version", True),
    ("CoreShowChannels", "reporting", "finding the calls again after a break", True),
    ("QueueAdd", "agent", "logging agents on to queues", True),
    ("QueuePause", "agent", "ready and not ready", True),
    ("QueuePenalty", "agent", "an agent's order in a queue", True),
    ("QueueRemove", "agent", "logging agents off", True),
    ("Hangup", "call", "hanging up", True),
    ("Redirect", "call", "transfers and hold", True),
    ("Bridge", "call", "getting a held call back", True),
    ("BlindTransfer", "call", "blind transfers", True),
    ("Setvar", "call", "data that follows the call", True),
    ("Getvar", "call", "data that the dialplan collected", True),
    ("Originate", "originate", "click to dial and consult calls", False),
    ("ShowDialPlan", "reporting", "checking a target before a transfer", False),
    ("UserEvent", "user", "telling other AMI clients", False),
)
"""Action, write class, what for, whether the server cannot do its work without it."""

MODULES: tuple[tuple[str, str, str, str], ...] = (
    ("QueueStatus", "", "app_queue", "queues"),
    ("ParkedCalls", "call", "res_parking", "parking"),
    ("ConfbridgeListRooms", "reporting", "app_confbridge", "conferences"),
    ("MixMonitorMute", "call", "app_mixmonitor", "recording"),
)
"""Action that only this module brings, the write class that shows it, the module, what for."""


def rights(evidence: Evidence) -> Iterator[Finding]:
    """The classes needed, and no more."""
    have = evidence.actions
    missing: dict[str, list[str]] = {}
    grave = False
    for action, needs, purpose, needed in ACTIONS:
        if action not in have:
            missing.setdefault(needs, []).append(purpose)
            grave = grave or needed
    if missing:
        classes = ", ".join(f"`{name}` ({'; '.join(for_what)})" for name, for_what in missing.items())
        yield Finding(
            "write_classes",
            Level.WRONG if grave else Level.WARN,
            f"The user may not do what is needed. Missing in write=: {classes}.",
            _manager_fix(evidence, f"write={','.join(WRITE_NEEDED)}"),
        )
    else:
        yield ok("write_classes", f"The user may do what is needed ({len(ACTIONS)} actions).")
    too_much = {
        "Command": "`command` (any command of Asterisk's console)",
        "UpdateConfig": "`config` (rewrite its configuration)",
        "DBPut": "`system` (run programs on that machine by Originate)",
    }
    excess = [what for action, what in too_much.items() if action in have]
    if excess:
        yield Finding(
            "least_rights",
            Level.WARN,
            f"The user may do more than is needed: {', '.join(excess)}. Whoever gets this password owns the PBX."
            " (`system` is worth it only for answering desk phones and recording from the screen.)",
            _manager_fix(evidence, f"write={','.join(WRITE_NEEDED)}"),
        )
    else:
        yield ok("least_rights", "The user may do no more than is needed.")
    if evidence.secrets_readable:
        yield Finding(
            "secrets_readable",
            Level.WARN,
            "The module func_config lets every AMI user with `call` or `reporting` read every secret in the"
            " configuration files (Getvar of AST_CONFIG). Unless your dialplan uses AST_CONFIG, do without it.",
            Fix("modules.conf", ("noload => func_config.so",), "modules", then="restart Asterisk"),
        )


def modules(evidence: Evidence) -> Iterator[Finding]:
    """The modules whose actions are used."""
    for action, needs, module, purpose in MODULES:
        if action in evidence.actions:
            yield ok(f"module_{module}", f"{module} is loaded ({purpose}).")
        elif needs and not _may(evidence, needs):
            yield Finding(
                f"module_{module}",
                Level.UNSEEN,
                f"Without the write class `{needs}` {module} cannot be seen.",
            )
        else:
            yield Finding(
                f"module_{module}",
                Level.WRONG if module == "app_queue" else Level.WARN,
                f"{module} is not loaded: no {purpose}.",
                Fix(
                    "modules.conf",
                    (f"load => {module}.so",),
                    "modules",
                    then=f"asterisk -rx 'module load {module}.so'",
                ),
            )


def _may(evidence: Evidence, write_class: str) -> bool:
    return any(action in evidence.actions for action, needs, *_ in ACTIONS if needs == write_class)


# ---------------------------------------------------------------------------------------------------- events

CORE_EVENTS = (
    "Newchannel",
    "Newstate",
    "Hangup",
    "HangupRequest",
    "SoftHangupRequest",
    "NewCallerid",
    "LocalBridge",
    "DialBegin",
    "DialState",
    "DialEnd",
    "BridgeEnter",
    "BridgeLeave",
    "BridgeDestroy",
    "Hold",
    "Unhold",
    "MusicOnHoldStart",
    "MusicOnHoldStop",
    "QueueCallerJoin",
    "QueueCallerLeave",
    "QueueCallerAbandon",
    "AgentCalled",
    "AgentConnect",
    "AgentRingNoAnswer",
    "QueueMemberAdded",
    "QueueMemberStatus",
    "QueueMemberPause",
    "QueueMemberPenalty",
    "QueueMemberRemoved",
    "BlindTransfer",
    "AttendedTransfer",
    "ParkedCall",
    "UnParkedCall",
    "ParkedCallTimeOut",
    "ParkedCallGiveUp",
    "ConfbridgeJoin",
    "ConfbridgeLeave",
    "ConfbridgeMute",
    "ConfbridgeUnmute",
    "UserEvent",
    "MessageWaiting",
    "OriginateResponse",
    "DeviceStateChange",
    "Rename",
    "Reload",
    "ChanSpyStart",
    "FullyBooted",
)
"""Events that a filter must let through."""

TEST_CALL_EVENTS = (
    "Newchannel",
    "Newstate",
    "LocalBridge",
    "DialBegin",
    "DialEnd",
    "BridgeEnter",
    "BridgeLeave",
    "BridgeDestroy",
    "MusicOnHoldStart",
    "MusicOnHoldStop",
    "ConfbridgeJoin",
    "ConfbridgeLeave",
    "HangupRequest",
    "SoftHangupRequest",
    "Hangup",
    "OriginateResponse",
    "DeviceStateChange",
)
"""What the doctor's own test call must make heard."""

QUEUE_PROBE_EVENTS = ("QueueMemberAdded", "QueueMemberRemoved")

FLOODS = ("VarSet", "Newexten", "TestEvent", "RTCPSent", "RTCPReceived", "NewConnectedLine", "NewAccountCode")
"""Events of which there are many and nobody here reads one."""

FILTER_LINE = (
    "eventfilter=!^Event: (VarSet|Newexten|RTCP|TestEvent|NewConnectedLine|NewAccountCode|ChallengeSent"
    "|SuccessfulAuth|RequestBadFormat|ChannelTalking|DTMF)"
)


def read_classes(evidence: Evidence) -> Iterator[Finding]:
    """The classes of events, from the file where it can be read, else from what was heard."""
    if evidence.manager is not None and evidence.manager.get("read"):
        read = {word.strip().lower() for word in evidence.manager["read"].split(",")}
        missing = [] if "all" in read else [name for name in READ_NEEDED if name not in read]
        if missing:
            yield Finding(
                "read_classes",
                Level.WRONG,
                f"The user may not hear what is needed. Missing in read=: {', '.join(missing)}.",
                _manager_fix(evidence, f"read={','.join(READ_NEEDED)}"),
            )
        else:
            yield ok("read_classes", "The user may hear what is needed.")
        return
    silent: list[str] = []
    if evidence.test_call and not evidence.seen.get("Newchannel"):
        silent.append("call")
    if evidence.said_user_event and not evidence.seen.get("UserEvent"):
        silent.append("user")
    if evidence.probed_queue and not any(evidence.seen.get(name) for name in QUEUE_PROBE_EVENTS):
        silent.append("agent")
    if silent:
        yield Finding(
            "read_classes",
            Level.WRONG,
            f"Events of these classes do not arrive: {', '.join(silent)}. They are missing in read= or filtered out.",
            _manager_fix(evidence, f"read={','.join(READ_NEEDED)}"),
        )
        return
    proven = [
        name
        for name, heard in (
            ("system", evidence.booted),
            ("call", evidence.seen.get("Newchannel")),
            ("user", evidence.seen.get("UserEvent")),
            ("agent", any(name.startswith(("Queue", "Agent")) for name in evidence.seen)),
        )
        if heard
    ]
    unproven = [name for name in READ_NEEDED if name not in proven]
    if proven:
        yield ok("read_classes", f"Events of these classes arrive: {', '.join(proven)}.")
    if unproven:
        hint = " (--probe-queue NAME would show `agent`)" if unproven == ["agent"] else ""
        yield Finding(
            "read_classes_unproven",
            Level.UNSEEN,
            f"Not proven, as no such event came meanwhile: {', '.join(unproven)}{hint}. See that read= has them.",
        )


def event_filter(evidence: Evidence) -> Iterator[Finding]:
    """What must come through does, what nobody reads does not."""
    dropped = [name for name in CORE_EVENTS if not passes(evidence.filters, name)]
    if evidence.test_call and evidence.seen.get("Newchannel"):
        dropped += [name for name in TEST_CALL_EVENTS if not evidence.seen.get(name) and name not in dropped]
    if dropped:
        yield Finding(
            "events_needed",
            Level.WRONG,
            f"A filter drops events that are needed: {', '.join(dropped)}. Take them out of eventfilter, or use:",
            _manager_fix(evidence, FILTER_LINE),
        )
    elif evidence.test_call:
        yield ok(
            "events_needed", "A test call inside Asterisk (it rang nobody) was heard from beginning to end."
        )
    else:
        yield Finding(
            "events_needed",
            Level.UNSEEN,
            f"Which events a filter drops was not tried: {evidence.no_test_call}.",
        )
    floods = [name for name in FLOODS if evidence.seen.get(name)]
    if floods:
        total = sum(evidence.seen.values())
        useless = sum(evidence.seen[name] for name in floods)
        yield Finding(
            "events_flood",
            Level.WARN,
            f"{useless} of the {total} events heard meanwhile are of use to nobody here ({', '.join(floods)}):"
            " with a filter Asterisk writes a quarter.",
            _manager_fix(evidence, FILTER_LINE),
        )
    elif evidence.test_call:
        yield ok("events_flood", "Events that nobody here reads (VarSet, Newexten, ...) are kept away.")


def passes(filters: Iterable[str], name: str) -> bool:
    """Tells whether Asterisk's `eventfilter` expressions let an event pass, judged by its first line.

    Source: manager.conf: only `!` lines: all but those; only plain ones: those alone; both: those, less the `!` ones.
    """
    text = f"Event: {name}\r\n"
    wanted: list[bool] = []
    for expression in filters:
        excludes = expression.startswith("!")
        try:
            hit = re.search(expression.removeprefix("!"), text, re.MULTILINE) is not None
        except re.error:
            continue
        if excludes and hit:
            return False
        if not excludes:
            wanted.append(hit)
    return any(wanted) if wanted else True


def timestamps(evidence: Evidence) -> Iterator[Finding]:
    """Events carry Asterisk's own time."""
    said = (evidence.manager_general or {}).get("timestampevents", "").lower()
    if evidence.stamped or said in ("yes", "true", "on", "1"):
        yield ok("timestamps", "Events carry the time at which they happened.")
    elif evidence.stamped is False or said:
        yield Finding(
            "timestamps",
            Level.WARN,
            "Events do not say when they happened: on a slow link talk and waiting times become wrong.",
            _manager_fix(evidence, "timestampevents=yes", section="general"),
        )
    else:
        yield Finding(
            "timestamps", Level.UNSEEN, "No event came, so whether they carry their time was not seen."
        )


def write_timeout(evidence: Evidence) -> Iterator[Finding]:
    """Asterisk bears with a moment's delay."""
    fix = _manager_fix(evidence, "writetimeout=5000")
    if evidence.manager is None:
        yield Finding(
            "writetimeout",
            Level.UNSEEN,
            "writetimeout cannot be read from here; its default of 100 ms drops a client in a busy second. See that it is:",
            fix,
        )
        return
    said = evidence.manager.get("writetimeout", "")
    milliseconds = int(said) if said.isdigit() else 100
    if milliseconds >= 1000:
        yield ok("writetimeout", f"Asterisk waits {milliseconds} ms for a busy client.")
    else:
        yield Finding(
            "writetimeout",
            Level.WARN,
            f"Asterisk drops this client if it cannot be written to for {milliseconds} ms: too little in a busy second.",
            fix,
        )


def channel_variables(evidence: Evidence) -> Iterator[Finding]:
    """CTI_DID and CTI_CALL ride on the channel's events."""
    if evidence.manager_general is None:
        return
    said = {
        name.strip() for name in evidence.manager_general.get("channelvars", "").split(",") if name.strip()
    }
    if {"CTI_CALL", "CTI_DID"} <= said:
        yield ok("channelvars", "Channels' events carry CTI_CALL and CTI_DID.")
    else:
        wanted = ",".join(sorted(said | {"CTI_CALL", "CTI_DID"}))
        yield Finding(
            "channelvars",
            Level.WARN,
            "Channels' events do not carry CTI_CALL and CTI_DID: the number dialed is then taken from the dialplan's"
            " first step.",
            _manager_fix(evidence, f"channelvars={wanted}", section="general"),
        )


# -------------------------------------------------------------------------------------------------- dialplan

CONTEXTS: tuple[tuple[str, str], ...] = (
    ("cti-internal", "targets of transfers"),
    ("cti-agent", "click to dial"),
    ("cti-transfer", "transfers"),
    ("cti-consult", "consultations"),
    ("cti-consult-queue", "queues asked about a caller"),
    ("cti-second", "escalations"),
    ("cti-return", "callers who come back"),
    ("cti-hold", "hold from the screen"),
    ("cti-conference", "conferences"),
    ("cti-queue", "transfers to queues"),
    ("cti-reach", "targets, on their open line if they have one"),
    ("cti-line", "agents who work off-hook"),
    ("cti-spy", "supervisors who listen"),
    ("cti-take-over", "supervisors who take a call over"),
)
"""Contexts of asterisk-config/include/extensions_cti.conf that must be there, and what for."""


def contexts(evidence: Evidence) -> Iterator[Finding]:
    """The project's own places in the dialplan, and those where calls come in."""
    found = evidence.contexts
    if found is None:
        yield Finding(
            "contexts", Level.UNSEEN, "The dialplan cannot be seen without the write class `reporting`."
        )
        return
    missing = [(name, purpose) for name, purpose in CONTEXTS if found.get(name) is None]
    if missing:
        yield Finding(
            "contexts",
            Level.WARN,
            "The dialplan lacks "
            + ", ".join(f"[{name}] ({purpose})" for name, purpose in missing)
            + ". Copy asterisk-config/include/extensions_cti.conf to /etc/asterisk/cti/ and add:",
            Fix(
                "extensions.conf",
                ("#include cti/extensions_cti.conf",),
                freepbx="extensions_custom.conf",
                then=RELOAD_DIALPLAN,
            ),
        )
    else:
        yield ok("contexts", "The dialplan has the cti-... contexts.")
        inside = found.get("cti-internal") or frozenset()
        lost = sorted(name for name in inside if name in found and found[name] is None)
        if not inside or lost:
            which = f"includes [{lost[0]}], which does not exist" if lost else "includes nothing"
            yield Finding(
                "cti_internal",
                Level.WARN,
                f"[cti-internal] {which}: nobody can be called or transferred to. Name the context your phones dial in.",
                Fix(
                    "extensions_cti.conf",
                    ("include => from-internal",),
                    "cti-internal",
                    then=RELOAD_DIALPLAN,
                ),
            )
    wanted = evidence.target.inbound_contexts
    there = [name for name in wanted if found.get(name) is not None]
    if there:
        yield ok("inbound_contexts", f"Calls from outside arrive in [{'], ['.join(there)}].")
    elif wanted:
        candidates = sorted(
            name for name, inside in found.items() if inside is not None and name.startswith("from-")
        )
        known = f" It has [{'], ['.join(candidates[:6])}]." if candidates else ""
        yield Finding(
            "inbound_contexts",
            Level.WARN,
            f"None of the contexts in which calls from outside are expected exists ([{'], ['.join(wanted)}])."
            f"{known} Calls from outside may be taken for internal ones; say where they arrive:",
            Fix(
                "this server's settings",
                (f'[pbx.{evidence.target.name}]  inbound_contexts = ["<context of your trunk>"]',),
            ),
        )


VERSIONS: tuple[tuple[str, str, str], ...] = (
    ("cti-version", "extensions_cti.conf", "5"),
    ("cti-routing-version", "extensions_cti_routing.conf", "2"),
)
"""Context that says the version of a file of asterisk-config/include, the file, and the version that this server needs."""

ROUTING: tuple[tuple[str, str], ...] = (
    ("cti-route", "the question at the entry"),
    ("cti-routed", "what the rules say, carried out"),
    ("cti-callback-keys", "callers who ask to be called back"),
    ("cti-callback", "places kept for them"),
    ("cti-callback-out", "calling them"),
    ("cti-places", "places of your own"),
)
"""Contexts of asterisk-config/include/extensions_cti_routing.conf, and what for."""


def versions(evidence: Evidence) -> Iterator[Finding]:
    """Our files are those that this server was made with."""
    found = evidence.contexts
    if found is None or found.get("cti-internal") is None:
        return
    for context, file, wanted in VERSIONS:
        if context == "cti-routing-version" and found.get("cti-route") is None:
            continue
        said = evidence.versions.get(context, "")
        if said == wanted:
            yield ok(context.replace("-", "_"), f"{file} is version {wanted}, as this server needs it.")
            continue
        yield Finding(
            context.replace("-", "_"),
            Level.WARN,
            f"{file} is {'version ' + said if said else 'of an earlier version'}, this server was made with version"
            f" {wanted}: what is newer does not work. Copy asterisk-config/include/{file} of this server to"
            " /etc/asterisk/cti/ again, fill in the places between at-signs, and:",
            Fix(f"cti/{file}", ("<the file of this server's version>",), then=RELOAD_DIALPLAN),
        )


def routing(evidence: Evidence) -> Iterator[Finding]:
    """The dialplan can ask the server where a call goes. Optional as a whole, not in parts."""
    found = evidence.contexts
    if found is None:
        return
    missing = [(name, purpose) for name, purpose in ROUTING if found.get(name) is None]
    if len(missing) == len(ROUTING):
        yield Finding(
            "routing",
            Level.WARN,
            "The dialplan cannot ask this server where a call goes: routing rules have no effect. If you want them, copy"
            " asterisk-config/include/extensions_cti_routing.conf to /etc/asterisk/cti/ and add:",
            Fix(
                "extensions.conf",
                ("#include cti/extensions_cti_routing.conf",),
                freepbx="extensions_custom.conf",
                then=RELOAD_DIALPLAN,
            ),
        )
        return
    if missing:
        yield Finding(
            "routing",
            Level.WARN,
            "Of routing the dialplan lacks "
            + ", ".join(f"[{name}] ({what})" for name, what in missing)
            + ": copy"
            " asterisk-config/include/extensions_cti_routing.conf again.",
            Fix(
                "cti/extensions_cti_routing.conf",
                ("<the file of this server's version>",),
                then=RELOAD_DIALPLAN,
            ),
        )
    else:
        yield ok("routing", "The dialplan has what routing needs.")
    if evidence.widens is False:
        yield Finding(
            "queue_rules",
            Level.WARN,
            "The queue rules cti-widen-... are not there: levels of skill do not widen while a caller waits. Copy"
            " asterisk-config/include/queuerules_cti.conf to /etc/asterisk/cti/ and add:",
            Fix(
                "queuerules.conf",
                ("#include cti/queuerules_cti.conf",),
                then="asterisk -rx 'queue reload rules'",
            ),
        )
    elif evidence.widens:
        yield ok("queue_rules", "The queue rules by which levels of skill widen are there.")
    if evidence.routing_on == "on":
        if evidence.asks:
            yield ok(
                "routing_on",
                f"Calls in [{'], ['.join(sorted(evidence.asks))}] are asked about (CTI_ROUTING=on).",
            )
        else:
            yield ok(
                "routing_on",
                "A server with rules is connected (CTI_ROUTING=on): calls that ask are answered.",
            )
    elif evidence.routing_on is not None:
        yield ok(
            "routing_on",
            "CTI_ROUTING is not on: no server is connected, or it has no rules with an entry. Calls go their default way.",
        )


def voicemail(evidence: Evidence) -> Iterator[Finding]:
    """Whether rules may send callers to a mailbox."""
    if evidence.no_voicemail:
        yield ok(
            "voicemail",
            "app_voicemail is not loaded: rules cannot send callers to a mailbox, and do not need to.",
        )
    elif evidence.mailboxes:
        names = ", ".join(evidence.mailboxes[:4]) + (", ..." if len(evidence.mailboxes) > 4 else "")
        yield ok("voicemail", f"Rules may send callers to {len(evidence.mailboxes)} mailboxes ({names}).")
    elif evidence.mailboxes is not None:
        yield Finding(
            "voicemail",
            Level.WARN,
            "app_voicemail is loaded but has no mailbox: rules cannot send callers to one.",
            Fix("voicemail.conf", ("100 => ,Sales",), "default", then="asterisk -rx 'voicemail reload'"),
        )


def trunks(evidence: Evidence) -> Iterator[Finding]:
    """The trunks named in the settings exist."""
    unknown = [
        name for name, state in evidence.devices.items() if state.upper() in ("INVALID", "UNKNOWN", "")
    ]
    known = [name for name in evidence.devices if name not in unknown]
    if known:
        yield ok("trunks", f"Trunks known to Asterisk: {', '.join(known)}.")
    if unknown:
        yield Finding(
            "trunks",
            Level.WARN,
            f"Asterisk knows no trunk named {', '.join(unknown)}: calls over it may be taken for internal ones."
            " Name your trunks as Asterisk does (asterisk -rx 'pjsip show endpoints'):",
            Fix(
                "this server's settings",
                (f'[pbx.{evidence.target.name}]  trunks = ["PJSIP/<your trunk>"]',),
            ),
        )


# ------------------------------------------------------------------------------------------------ recordings


def recordings(evidence: Evidence) -> Iterator[Finding]:
    """Recordings begun by command can be begun, and are written."""
    target = evidence.target
    if "MixMonitorMute" not in evidence.actions:
        return  # the module is not there, or the class `call`: said elsewhere
    right = _manager_fix(evidence, f"write={','.join((*WRITE_NEEDED, 'system'))}")
    if "MixMonitor" not in evidence.actions:
        told = (
            "Nobody can begin a recording from the screen (`recording.start` answers no_right): it takes the write class"
            " `system`, with which whoever has this password can run programs on the PBX."
        )
        if target.recordings or target.recordings_seen_at:
            yield Finding("recordings", Level.WARN, f"A folder for recordings is set, but: {told}", right)
        else:
            yield ok("recordings", told)
        return
    if evidence.recording is None:
        yield Finding(
            "recordings",
            Level.UNSEEN,
            "Without the test call nothing was recorded: whether it works was not seen.",
        )
        return
    became, file = evidence.recording
    folder = target.recordings or "<astspooldir of asterisk.conf>/monitor"
    seen_at = f'[pbx.{target.name}]  recordings_seen_at = "<{folder}, as this machine sees it>"'
    match became:
        case Recorded.WRITTEN:
            yield ok("recordings", f"A recording of the test call was written ({file}, deleted again).")
        case Recorded.MISSING:
            yield Finding(
                "recordings",
                Level.WARN,
                f"Asterisk took the order to record to {file}, but nothing came to {target.recordings_seen_at}: every"
                " recording will fail (recording_failed). On the PBX, the folder must be there and Asterisk's; if it is, it"
                " is not the folder that this machine sees, or format_wav.so is not loaded (modules.conf):",
                Fix("on the PBX", (f"install -d -o asterisk -g asterisk {folder}",), then="cti doctor"),
            )
        case Recorded.NO_FOLDER:
            yield Finding(
                "recordings",
                Level.WARN,
                f"There is no folder {target.recordings_seen_at} on this machine, or it cannot be read: every recording"
                " will be taken for failed. Mount the PBX's folder there, or say where it is, or leave it out:",
                Fix("this server's settings", (seen_at,)),
            )
        case Recorded.TAKEN:
            yield Finding(
                "recordings",
                Level.UNSEEN,
                f"Asterisk takes the order to record to {file}. It says so for a file that it cannot write, too: where this"
                " machine sees that folder, let it look at each recording:",
                Fix("this server's settings", (seen_at,)),
            )
        case Recorded.REFUSED:
            yield Finding("recordings", Level.WARN, f"Asterisk refuses to record: {file}.")


# ---------------------------------------------------------------------------------------------------- queues

KEYS = "cti-callback-keys"


def queue_keys(evidence: Evidence) -> Iterator[Finding]:
    """Callers who wait can press 1 to be called back: queues name the context for it, and it is there."""
    found = evidence.queues
    if not found:
        return
    there = (evidence.contexts or {}).get(KEYS) is not None
    readable = [queue for queue in found if queue.options]
    fix = Fix(
        "queues.conf",
        (f"context={KEYS}",),
        next((queue.name for queue in readable if not queue.options.get("context")), found[0].name),
        f"queues_custom.conf, or [{KEYS}] as the queue's break-out menu",
        RELOAD_QUEUES,
    )
    if not readable:
        if there:
            yield Finding(
                "queue_context",
                Level.UNSEEN,
                "What queues.conf says cannot be read from here (without func_config, which is safer). Where a rule offers"
                " to be called back to those who wait, see that the queue has:",
                fix,
            )
        return
    keyed = [queue.name for queue in readable if queue.options.get("context") == KEYS]
    if keyed and not there and evidence.contexts is not None:
        yield Finding(
            "queue_context",
            Level.WARN,
            f"In {', '.join(keyed[:6])}: a key pressed while waiting leads to [{KEYS}], which the dialplan lacks. Copy"
            " asterisk-config/include/extensions_cti_routing.conf to /etc/asterisk/cti/ and add:",
            Fix(
                "extensions.conf",
                ("#include cti/extensions_cti_routing.conf",),
                freepbx="extensions_custom.conf",
                then=RELOAD_DIALPLAN,
            ),
        )
        return
    if keyed:
        others = [queue.name for queue in readable if queue.name not in keyed]
        but = f"; not in {', '.join(others[:6])}" if others else ""
        yield ok(
            "queue_context", f"Callers who wait in {', '.join(keyed[:6])} can press 1 to be called back{but}."
        )
    elif there:
        yield Finding(
            "queue_context",
            Level.WARN,
            "In no queue can callers who wait press 1 to be called back: a rule that offers it has no effect. If yours do,"
            " add to the queue:",
            fix,
        )


def queues(evidence: Evidence) -> Iterator[Finding]:
    """There are queues, and they are set so that agents' states stay true."""
    found = evidence.queues
    if found is None:
        return
    if not found:
        yield Finding(
            "queues",
            Level.WARN,
            "Asterisk has no queue: calls can be shown but not given to agents.",
            Fix(
                "queues.conf",
                ("[sales]", "strategy=rrmemory", "timeout=15", "ringinuse=no"),
                then=RELOAD_QUEUES,
            ),
        )
        return
    members = sum(len(queue.members) for queue in found)
    names = ", ".join(queue.name for queue in found[:8]) + (", ..." if len(found) > 8 else "")
    yield ok(
        "queues", f"{len(found)} queues ({names}) with {members} members; agents are added when they log on."
    )
    yield from _option(
        found,
        "ringinuse",
        lambda said: said in ("no", "false", "off", "0"),
        "a second call rings a phone that talks",
        "ringinuse=no",
    )
    yield from _option(
        found,
        "autopause",
        lambda said: said in ("", "no", "false", "off", "0"),
        "Asterisk pauses members by itself, and agents are blamed for a state they did not choose",
        "autopause=no",
    )
    yield from _option(
        found,
        "wrapuptime",
        lambda said: not said.isdigit() or int(said) <= 5,
        "Asterisk holds calls back after a talk and so does this server's wrap-up: the longer one counts",
        "wrapuptime=0",
    )
    odd = sorted({member.interface for queue in found for member in queue.members if member.status == "4"})
    if odd:
        yield Finding(
            "members_invalid",
            Level.WARN,
            f"Queue members whose phone Asterisk does not know (they are never called): {', '.join(odd[:6])}.",
            Fix("queues.conf", ("member => PJSIP/<an endpoint that exists>",), then=RELOAD_QUEUES),
        )
    blind = sorted(
        {
            member.interface
            for queue in found
            for member in queue.members
            if member.interface.startswith("Local/")
            and member.state_interface.split("/n")[0] == member.interface.split("/n")[0]
        }
    )
    if blind:
        yield Finding(
            "members_blind",
            Level.WARN,
            f"Members that are Local channels without a state interface ({', '.join(blind[:4])}): Asterisk does not"
            " know whether they talk.",
            Fix(
                "queues.conf",
                ("member => Local/<n>@<context>/n,<penalty>,<name>,PJSIP/<the phone>",),
                then=RELOAD_QUEUES,
            ),
        )


def _option(
    found: Iterable[QueueFound], name: str, good: Callable[[str], bool], harm: str, line: str
) -> Iterator[Finding]:
    """A finding about one option of all queues whose options could be read."""
    readable = [queue for queue in found if queue.options]
    bad = [queue.name for queue in readable if not good(queue.options.get(name, "").lower())]
    if bad:
        yield Finding(
            f"queue_{name}",
            Level.WARN,
            f"In {', '.join(bad[:6])}: {harm}.",
            Fix(
                "queues.conf",
                (line,),
                bad[0],
                "the queue's page, or queues_custom.conf",
                RELOAD_QUEUES,
            ),
        )
    elif readable:
        yield ok(f"queue_{name}", f"{name} is as it should be in all queues.")


CHECKS: tuple[tuple[str, tuple[Check, ...]], ...] = (
    ("Connection", (connection, version, encryption, clock)),
    ("Rights", (rights, modules)),
    ("Events", (read_classes, event_filter, timestamps, write_timeout, channel_variables)),
    ("Dialplan", (contexts, versions, trunks)),
    ("Routing", (routing, voicemail)),
    ("Queues", (queues, queue_keys)),
    ("Recordings", (recordings,)),
)
