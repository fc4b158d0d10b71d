"""What is found about the link to a PBX: the connection, the user's rights, the events that come. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cti.doctor_findings import (
    READ_NEEDED,
    WRITE_NEEDED,
    Evidence,
    Finding,
    Fix,
    Level,
    manager_fix,
    ok,
)

OLDEST, NEWEST = 18, 22
STILL_SPEAKS = 16
"""The oldest major version whose events were recorded; below it names and headers differ."""

CLOCK_TOLERANCE = 2.0

TLS_CERTIFICATE = "tlscertfile=/etc/asterisk/keys/manager.pem"


# ------------------------------------------------------------------------------------------------ connection


def connection(evidence: Evidence) -> Iterator[Finding]:
    """Reached, logged in, ready."""
    target = evidence.target
    if evidence.trouble is not None:
        code, why = evidence.trouble
        fix = None
        lines: tuple[str, ...]
        if code == "wrong_password":
            lines = (
                "secret=<the secret you gave>",
                "deny=0.0.0.0/0.0.0.0",
                "permit=<address of this machine>/255.255.255.255",
            )
            fix = manager_fix(evidence, *lines)
        elif code == "unreachable" and "host name" not in why:
            reachable = "<address that this machine can reach>"
            if target.tls:
                lines = (
                    "enabled=yes",
                    "tlsenable=yes",
                    f"tlsbindaddr={reachable}:{target.port}",
                    TLS_CERTIFICATE,
                )
            else:
                lines = ("enabled=yes", f"bindaddr={reachable}", f"port={target.port}")
            fix = manager_fix(evidence, *lines, section="general")
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
        manager_fix(evidence, f"read={','.join(READ_NEEDED)}"),
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
            manager_fix(
                evidence,
                "tlsenable=yes",
                "tlsbindaddr=0.0.0.0:5039",
                TLS_CERTIFICATE,
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
            manager_fix(evidence, f"write={','.join(WRITE_NEEDED)}"),
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
            manager_fix(evidence, f"write={','.join(WRITE_NEEDED)}"),
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
                manager_fix(evidence, f"read={','.join(READ_NEEDED)}"),
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
            manager_fix(evidence, f"read={','.join(READ_NEEDED)}"),
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
            manager_fix(evidence, FILTER_LINE),
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
            manager_fix(evidence, FILTER_LINE),
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
            manager_fix(evidence, "timestampevents=yes", section="general"),
        )
    else:
        yield Finding(
            "timestamps", Level.UNSEEN, "No event came, so whether they carry their time was not seen."
        )


def write_timeout(evidence: Evidence) -> Iterator[Finding]:
    """Asterisk bears with a moment's delay."""
    fix = manager_fix(evidence, "writetimeout=5000")
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
            manager_fix(evidence, f"channelvars={wanted}", section="general"),
        )
