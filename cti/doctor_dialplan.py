"""What is found about a PBX's dialplan, queues and recordings. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from cti.doctor_findings import (
    RELOAD_DIALPLAN,
    RELOAD_QUEUES,
    WRITE_NEEDED,
    Evidence,
    Finding,
    Fix,
    Level,
    QueueFound,
    Recorded,
    manager_fix,
    ok,
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
    ("cti-version", "extensions_cti.conf", "6"),
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

INCLUDE_ROUTING = Fix(
    "extensions.conf",
    ("#include cti/extensions_cti_routing.conf",),
    freepbx="extensions_custom.conf",
    then=RELOAD_DIALPLAN,
)


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
            INCLUDE_ROUTING,
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
    right = manager_fix(evidence, f"write={','.join((*WRITE_NEEDED, 'system'))}")
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
            INCLUDE_ROUTING,
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
