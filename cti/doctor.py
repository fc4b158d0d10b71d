"""`cti doctor`: looks at a PBX over AMI and says what is right and what to change in which file.

It reads, and makes one call inside Asterisk that rings nobody (two ends of a Local channel in [cti-hold] and
[cti-conference], gone after a second) to hear which events come through. It changes nothing that outlasts it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cti.ami import AmiLink, LinkPhase, LinkStatus
from cti.doctor_checks import findings, usable
from cti.doctor_dialplan import CONTEXTS, ROUTING, VERSIONS
from cti.doctor_findings import Evidence, Finding, Fix, Level, QueueFound, QueueMember, Recorded, Target
from cti.doctor_line import Line, Refused, SessionLost
from cti.doctor_link import TEST_CALL_EVENTS
from cti.people import Agent, Team
from cti.settings import PbxSettings, tls_context
from cti.terminal_text import plain

FILTERS_MOST = 64
QUEUES_READ_MOST = 50
PHONES_ASKED_MOST = 1000
PATIENCE = 5.0
"""Seconds that events of our own making may take: a busy Asterisk must not be blamed for a filter."""

LOOK_AGAIN = 0.1
"""Seconds between two looks for a recording's file."""

_UNDER_TROUBLE = ("missing_right",)
"""Codes of `cti.ami` with which an examination can still go on."""


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one examination: findings by chapter, in the order of reading."""

    target: Target
    chapters: tuple[tuple[str, tuple[Finding, ...]], ...]

    @property
    def usable(self) -> bool:
        """Whether the server can do its work with this PBX."""
        return usable((title, list(found)) for title, found in self.chapters)

    def count(self, level: Level) -> int:
        """How many findings have this level."""
        return sum(finding.level is level for _, found in self.chapters for finding in found)


def target_of(name: str, pbx: PbxSettings) -> Target:
    """The target that a PBX of the settings is."""
    return Target(
        name=name,
        host=pbx.host,
        port=pbx.port,
        username=pbx.username,
        tls=pbx.tls,
        tls_ca=pbx.tls_ca,
        inbound_contexts=pbx.inbound_contexts,
        trunks=pbx.trunks,
        recordings=pbx.recordings,
        recordings_seen_at=pbx.recordings_seen_at,
    )


def with_people(target: Target, agents: Iterable[Agent], teams: Iterable[Team]) -> Target:
    """The target with the phones and queues on it that are named for people of this server."""
    phones: dict[str, str] = {}
    queues: dict[str, str] = {}
    for agent in agents:
        if phone := agent.interfaces.get(target.name):
            phones[phone] = agent.login
        for assignment in agent.queues:
            pbx, _, name = assignment.queue.partition(":")
            if pbx == target.name:
                queues.setdefault(name, agent.login)
    for team in teams:
        for queue in sorted(team.queues):
            pbx, _, name = queue.partition(":")
            if pbx == target.name:
                queues.setdefault(name, f"team {team.id}")
    return replace(target, phones=phones, queues=queues)


async def examine(
    target: Target, secret: str, *, test_call: bool = True, probe_queue: str | None = None
) -> Report:
    """Examines a PBX; never raises for what is wrong with it. Takes a second, up to fifteen where events are
    missing or nothing answers.

    `probe_queue` names a queue to which a paused member is added for a moment, to hear events of agents.
    """
    status = await _first_status(target, secret)
    evidence = Evidence(target=target)
    if status.phase is not LinkPhase.UP and status.code not in _UNDER_TROUBLE:
        evidence = replace(evidence, trouble=(status.code or "unreachable", status.why))
        return _report(evidence)
    try:
        tls = tls_context(target.tls_ca) if target.tls else None
        async with await Line.open(target.host, target.port, target.username, secret, tls=tls) as line:
            evidence = await _gather(
                line, replace(evidence, booted=status.phase is LinkPhase.UP), test_call, probe_queue
            )
    except (OSError, Refused, SessionLost) as error:
        evidence = replace(
            evidence, trouble=("closed", f"{target.place} broke off the examination: {error or 'no reason'}.")
        )
    return _report(evidence)


def _report(evidence: Evidence) -> Report:
    chapters = findings(evidence)
    return Report(evidence.target, tuple((title, tuple(found)) for title, found in chapters))


async def _first_status(target: Target, secret: str) -> LinkStatus:
    """How the server's own link fares with this PBX: its first status after `connecting`."""
    told: asyncio.Future[LinkStatus] = asyncio.get_running_loop().create_future()

    def on_status(status: LinkStatus) -> None:
        if status.phase is not LinkPhase.CONNECTING and not told.done():
            told.set_result(status)

    link = AmiLink(
        pbx=target.name,
        host=target.host,
        port=target.port,
        username=target.username,
        secret=secret,
        tls=target.tls and tls_context(target.tls_ca),
        parsers={},
        on_records=lambda _records: None,
        on_status=on_status,
        boot_timeout=2.0,
    )
    running = asyncio.create_task(link.run())
    try:
        return await told
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


# -------------------------------------------------------------------------------------------------- gathering


async def _gather(line: Line, evidence: Evidence, test_call: bool, probe_queue: str | None) -> Evidence:
    target = evidence.target
    commands = frozenset(await line.ask("ListCommands", patience=10.0)) - {"Response", "ActionID", "Message"}
    core = await _maybe(line, "CoreSettings")
    evidence = replace(
        evidence,
        actions=commands,
        ami_version=line.version,
        asterisk_version=(core or {}).get("AsteriskVersion", ""),
        clock_off=await _clock_off(line),
    )
    evidence = await _files(line, evidence)
    contexts = await _contexts(line, target.inbound_contexts) if "ShowDialPlan" in commands else None
    if contexts is not None:
        evidence = await _routing(line, evidence, contexts)
    evidence = replace(
        evidence,
        contexts=contexts,
        queues=await _queues(line, evidence) if "QueueStatus" in commands else None,
        devices=await _devices(line, target.trunks) if "Getvar" in commands else {},
        phones=await _devices(line, sorted(target.phones)[:PHONES_ASKED_MOST])
        if "Getvar" in commands
        else {},
    )
    return await _listen(line, evidence, test_call, probe_queue)


async def _maybe(line: Line, action: str, headers: Mapping[str, str] | None = None) -> dict[str, str] | None:
    try:
        return await line.ask(action, headers)
    except Refused:
        return None


async def _clock_off(line: Line) -> float | None:
    """Seconds by which Asterisk's clock is ahead of ours, from the quickest of three pings."""
    best: tuple[float, float] | None = None
    for _ in range(3):
        before = time.time()
        said = (await line.ask("Ping")).get("Timestamp", "")
        after = time.time()
        try:
            theirs = float(said)
        except ValueError:
            return None
        if best is None or after - before < best[0]:
            best = (after - before, theirs - (before + after) / 2)
    return best[1] if best else None


async def _value(line: Line, expression: str) -> str:
    answer = await _maybe(line, "Getvar", {"Variable": expression})
    return (answer or {}).get("Value", "").strip()


async def _files(line: Line, evidence: Evidence) -> Evidence:
    """What the configuration files say, where the module func_config lets it be read; never a secret."""
    if "Getvar" not in evidence.actions:
        return evidence
    if not await _value(line, "AST_CONFIG(manager.conf,general,enabled)"):
        return evidence
    user = evidence.target.username
    if not _safe(user):
        return evidence
    manager = {
        name: await _value(line, f"AST_CONFIG(manager.conf,{user},{name})")
        for name in ("read", "write", "writetimeout")
    }
    general = {
        name: await _value(line, f"AST_CONFIG(manager.conf,general,{name})")
        for name in ("timestampevents", "channelvars")
    }
    filters: list[str] = []
    while len(filters) < FILTERS_MOST:
        said = await _value(line, f"AST_CONFIG(manager.conf,{user},eventfilter,{len(filters)})")
        if not said:
            break
        filters.append(said)
    return replace(
        evidence,
        manager=manager if manager["read"] else None,
        manager_general=general,
        filters=tuple(filters),
        secrets_readable=True,
    )


def _safe(name: str) -> bool:
    """Whether a name may stand inside a function call of Asterisk's."""
    return bool(name) and all(c.isalnum() or c in "-_." for c in name)


async def _contexts(line: Line, inbound: Iterable[str]) -> dict[str, frozenset[str] | None]:
    """Contexts by name with what they include; None where there is no such context."""
    found: dict[str, frozenset[str] | None] = {}
    for name in dict.fromkeys([*(name for name, _ in (*CONTEXTS, *ROUTING)), *inbound]):
        found[name] = await _context(line, name)
    for name in tuple(found.get("cti-internal") or ()):
        found.setdefault(name, await _context(line, name))
    if all(found[name] is None for name in inbound):
        for name in (
            "from-trunk",
            "from-pstn",
            "from-external",
            "from-did-direct",
            "from-sip-external",
            "default",
        ):
            found.setdefault(name, await _context(line, name))
    return found


async def _routing(line: Line, evidence: Evidence, contexts: Mapping[str, frozenset[str] | None]) -> Evidence:
    """What routing, second level and voicemail need of the PBX."""
    versions = {context: await _version(line, context) for context, _, _ in VERSIONS}
    widens = None
    if "QueueRule" in evidence.actions:
        answer = await _maybe(line, "QueueRule", {"Rule": "cti-widen-15"})
        widens = answer is not None and "Rule" in answer
    mailboxes: tuple[str, ...] | None = None
    if "VoicemailUsersList" in evidence.actions:
        try:
            rows = await line.rows("VoicemailUsersList")
            mailboxes = tuple(f"{row.get('VoiceMailbox', '')}@{row.get('VMContext', '')}" for row in rows)
        except Refused as error:
            mailboxes = () if "no voicemail users" in str(error).lower() else None
    inbound = [name for name in evidence.target.inbound_contexts if contexts.get(name) is not None]
    return replace(
        evidence,
        versions=versions,
        asks=frozenset([name for name in inbound if await _asks(line, name)]),
        widens=widens,
        routing_on=await _value(line, "CTI_ROUTING") if "Getvar" in evidence.actions else None,
        mailboxes=mailboxes,
        no_voicemail=bool(evidence.actions) and "VoicemailUsersList" not in evidence.actions,
    )


async def _version(line: Line, context: str) -> str:
    try:
        rows = await line.rows("ShowDialPlan", {"Context": context})
    except Refused:
        return ""
    return next((row["AppData"].strip() for row in rows if row.get("AppData")), "")


async def _asks(line: Line, context: str) -> bool:
    try:
        rows = await line.rows("ShowDialPlan", {"Context": context})
    except Refused:
        return False
    return any("cti-route" in row.get("AppData", "") for row in rows)


async def _context(line: Line, name: str) -> frozenset[str] | None:
    try:
        rows = await line.rows("ShowDialPlan", {"Context": name})
    except Refused:
        return None
    return frozenset(row["IncludeContext"] for row in rows if row.get("IncludeContext"))


async def _queues(line: Line, evidence: Evidence) -> tuple[QueueFound, ...]:
    members: dict[str, list[QueueMember]] = {}
    for row in await line.rows("QueueStatus"):
        name = row.get("Queue", "")
        if row.get("Event") == "QueueParams":
            members.setdefault(name, [])
        elif row.get("Event") == "QueueMember":
            members.setdefault(name, []).append(
                QueueMember(
                    interface=row.get("Location", ""),
                    state_interface=row.get("StateInterface", ""),
                    status=row.get("Status", ""),
                )
            )
    members.pop("default", None)
    found: list[QueueFound] = []
    for name, those in sorted(members.items()):
        options: dict[str, str] = {}
        if evidence.secrets_readable and _safe(name) and len(found) < QUEUES_READ_MOST:
            options = {
                option: await _value(line, f"AST_CONFIG(queues.conf,{name},{option})")
                for option in ("strategy", "ringinuse", "autopause", "wrapuptime", "context")
            }
        found.append(
            QueueFound(name=name, members=tuple(those), options=options if options.get("strategy") else {})
        )
    return tuple(found)


async def _devices(line: Line, names: Iterable[str]) -> dict[str, str]:
    return {
        name: await _value(line, f"DEVICE_STATE({name})") for name in names if _safe(name.replace("/", "", 1))
    }


async def _listen(line: Line, evidence: Evidence, test_call: bool, probe_queue: str | None) -> Evidence:
    """Causes events and notes which arrive."""
    said = "UserEvent" in evidence.actions
    if said:
        await _maybe(line, "UserEvent", {"UserEvent": "CtiDoctor"})
    if probe_queue is not None and "QueueAdd" in evidence.actions:
        member = {"Queue": probe_queue, "Interface": "Local/silent@cti-hold/n"}
        added = await _maybe(
            line, "QueueAdd", {**member, "Paused": "true", "Reason": "cti doctor", "MemberName": "cti doctor"}
        )
        if added is None:
            probe_queue = None
        else:
            await _maybe(line, "QueueRemove", member)
            await line.until(lambda: bool(line.seen.get("QueueMemberRemoved")), PATIENCE)
    else:
        probe_queue = None
    why_not = _why_no_test_call(evidence, test_call)
    recording = None
    if not why_not:
        why_not, recording = await _call_oneself(line, evidence)
    if said:
        await line.until(lambda: bool(line.seen.get("UserEvent")), PATIENCE / 2)
    return replace(
        evidence,
        seen=dict(line.seen),
        stamped=line.stamped,
        test_call=not why_not,
        no_test_call=why_not,
        said_user_event=said,
        probed_queue=probe_queue,
        recording=recording,
    )


def _why_no_test_call(evidence: Evidence, wanted: bool) -> str:
    if not wanted:
        return "you asked for no test call"
    if "Originate" not in evidence.actions:
        return "it takes the write class `originate`"
    contexts = evidence.contexts or {}
    if any(contexts.get(name) is None for name in ("cti-hold", "cti-conference")):
        return "it takes the contexts [cti-hold] and [cti-conference], see Dialplan"
    return ""


async def _call_oneself(line: Line, evidence: Evidence) -> tuple[str, tuple[Recorded, str] | None]:
    """A call from [cti-hold] to [cti-conference] inside Asterisk; returns why it could not be made, or "", and what became
    of its recording if the user may record."""
    id = f"cti-doctor-{secrets.token_hex(4)}"
    try:
        await line.ask(
            "Originate",
            {
                "Channel": "Local/music@cti-hold/n",
                "ChannelId": id,
                "OtherChannelId": f"{id}-2",
                "Context": "cti-conference",
                "Exten": f"99{secrets.randbelow(10**8):08d}",
                "Priority": "1",
                "Timeout": "3000",
                "CallerID": "cti doctor <0>",
                "Async": "true",
            },
        )
    except Refused as error:
        return f"Asterisk refuses it ({error})", None
    begun = ("ConfbridgeJoin", "MusicOnHoldStart", "BridgeEnter", "OriginateResponse")
    await line.until(lambda: all(line.seen[name] for name in begun), PATIENCE)
    recording = await _record(line, id, evidence.target) if "MixMonitor" in evidence.actions else None
    await _maybe(line, "Hangup", {"Channel": id, "Cause": "16"})
    await line.until(
        lambda: line.seen["Hangup"] >= 2 and all(line.seen[name] for name in TEST_CALL_EVENTS), PATIENCE
    )
    return "", recording


async def _record(line: Line, channel: str, target: Target) -> tuple[Recorded, str]:
    """Records the test call as `recording.start` does, for Asterisk to delete with the call's end."""
    name = f"{channel}.wav"
    file = f"{target.recordings.rstrip('/')}/{name}" if target.recordings else name
    try:
        await line.ask("MixMonitor", {"Channel": channel, "File": file, "Options": "d"})
    except Refused as error:
        return Recorded.REFUSED, str(error)
    if not target.recordings_seen_at:
        return Recorded.TAKEN, file
    folder = Path(target.recordings_seen_at)
    if not await asyncio.to_thread(os.access, folder, os.R_OK | os.X_OK):
        return Recorded.NO_FOLDER, file
    for _ in range(int(PATIENCE / LOOK_AGAIN)):
        if await asyncio.to_thread((folder / name).is_file):
            return Recorded.WRITTEN, file
        await asyncio.sleep(LOOK_AGAIN)
    return Recorded.MISSING, file


# -------------------------------------------------------------------------------------------------- rendering

MARKS = {Level.OK: "✓", Level.WARN: "!", Level.WRONG: "✗", Level.UNSEEN: "?"}


def as_json(report: Report) -> dict[str, Any]:
    """The report for scripts."""
    return {
        "pbx": report.target.name,
        "host": report.target.host,
        "port": report.target.port,
        "username": report.target.username,
        "usable": report.usable,
        "findings": [
            {"chapter": title.lower(), **asdict(finding)}
            for title, found in report.chapters
            for finding in found
        ],
    }


@dataclass(frozen=True, slots=True)
class Said:
    """One line of a report for people; `level` says how it is coloured, `kind`: title, finding, fix, verdict."""

    text: str
    kind: str
    level: Level = Level.OK


def as_lines(report: Report) -> Iterator[Said]:
    """The report for people, line by line, harmless to a terminal."""
    target = report.target
    yield Said(plain(f"{target.name}: Asterisk at {target.place}, user {target.username}"), "title")
    for title, found in report.chapters:
        yield Said("", "gap")
        yield Said(title, "chapter")
        for finding in found:
            yield Said(f"{MARKS[finding.level]} {plain(finding.says)}", "finding", finding.level)
            if finding.fix is not None:
                for text in fix_lines(finding.fix):
                    yield Said(plain(text, spaces=True), "fix", finding.level)
    yield Said("", "gap")
    yield Said(_verdict(report), "verdict", Level.WRONG if not report.usable else _worst(report))


def _worst(report: Report) -> Level:
    return Level.WARN if report.count(Level.WARN) else Level.OK


def _verdict(report: Report) -> str:
    wrong, warn = report.count(Level.WRONG), report.count(Level.WARN)
    better = f"{warn} thing{'s' if warn != 1 else ''} could be better"
    if wrong:
        return f"Not usable yet: {wrong} thing{'s' if wrong != 1 else ''} to change (✗)" + (
            f", {better} (!)." if warn else "."
        )
    return f"Usable; {better} (!)." if warn else "Usable: everything is as it should be."


def fix_lines(fix: Fix) -> Iterator[str]:
    """A fix as text: the file, the lines, the command."""
    where = f"/etc/asterisk/{fix.file}" if fix.file.endswith(".conf") else fix.file
    freepbx = f" (FreePBX: {fix.freepbx})" if fix.freepbx else ""
    yield f"{where}{freepbx}" + (f", section [{fix.section}]:" if fix.section else ":")
    for line in fix.lines:
        yield f"    {line}"
    if fix.then:
        yield f"then: {fix.then}"
