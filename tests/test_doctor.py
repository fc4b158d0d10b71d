"""`cti doctor`: what evidence means, and what it says about real Asterisks, a stranger's port and nobody at all."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cti import users
from cti.database import connection
from cti.doctor import Report, as_json, as_lines, examine, with_people
from cti.doctor_checks import findings, usable
from cti.doctor_dialplan import ROUTING, VERSIONS
from cti.doctor_findings import Evidence, Finding, Level, QueueFound, QueueMember, Recorded, Target
from cti.doctor_link import ACTIONS, CORE_EVENTS, FILTER_LINE, TEST_CALL_EVENTS, passes
from cti.embedded.asterisk import Installation
from cti.embedded.place import free_ports, remove_folder, scratch_folder
from cti.embedded.sample_pbx import CONFIGURATION, SamplePbx
from cti.passwords import Passwords
from cti.people import Agent, QueueAssignment, Team

TARGET = Target(
    name="main",
    host="127.0.0.1",
    port=5038,
    username="cti",
    inbound_contexts=("from-trunk",),
    trunks=("PJSIP/trunk",),
)
ALL_CONTEXTS = {
    "cti-internal": frozenset({"from-agent"}),
    "from-agent": frozenset[str](),
    **{
        name: frozenset[str]()
        for name in (
            *("cti-agent", "cti-transfer", "cti-consult", "cti-return"),
            *("cti-hold", "cti-conference", "cti-queue"),
            *("cti-spy", "cti-take-over", "cti-reach", "cti-line", "cti-consult-queue", "cti-second"),
            *(name for name, _ in ROUTING),
        )
    },
    "from-trunk": frozenset[str](),
}
GOOD = Evidence(
    target=TARGET,
    booted=True,
    ami_version="11.0.0",
    asterisk_version="22.10.1+dfsg",
    actions=frozenset(
        {action for action, *_ in ACTIONS}
        | {"QueueStatus", "ParkedCalls", "ConfbridgeListRooms"}
        | {"MixMonitorMute"}
    ),
    clock_off=0.01,
    stamped=True,
    seen=dict.fromkeys([*TEST_CALL_EVENTS, "UserEvent", "QueueMemberAdded"], 1),
    test_call=True,
    said_user_event=True,
    manager={"read": "system,call,agent,user", "write": "", "writetimeout": "5000"},
    manager_general={"timestampevents": "yes", "channelvars": "CTI_CALL,CTI_DID"},
    contexts=ALL_CONTEXTS,
    queues=(
        QueueFound(
            name="sales",
            members=(QueueMember(interface="PJSIP/1", state_interface="PJSIP/1", status="1"),),
            options={
                "strategy": "rrmemory",
                "ringinuse": "no",
                "autopause": "no",
                "wrapuptime": "0",
                "context": "cti-callback-keys",
            },
        ),
    ),
    devices={"PJSIP/trunk": "NOT_INUSE"},
    versions={context: version for context, _, version in VERSIONS},
    widens=True,
    routing_on="on",
    mailboxes=("100@default",),
)


def found(evidence: Evidence) -> dict[str, Finding]:
    return {finding.id: finding for _, chapter in findings(evidence) for finding in chapter}


def test_a_pbx_with_everything_right_gets_nothing_but_ticks() -> None:
    chapters = findings(GOOD)
    assert {finding.level for _, chapter in chapters for finding in chapter} == {Level.OK}
    assert usable(chapters)


def without(*actions: str) -> Evidence:
    return replace(GOOD, actions=GOOD.actions - set(actions))


def lacking(*contexts: str) -> Evidence:
    kept = {name: inside for name, inside in (GOOD.contexts or {}).items() if name not in contexts}
    return replace(GOOD, contexts=kept)


def silent(*events: str) -> Evidence:
    return replace(GOOD, seen={name: count for name, count in GOOD.seen.items() if name not in events})


def queue_says(**options: str | None) -> Evidence:
    """The queue with other options; with `strategy=None` they cannot be read."""
    (queue,) = GOOD.queues or ()
    said = {name: value for name, value in {**queue.options, **options}.items() if value is not None}
    return replace(GOOD, queues=(replace(queue, options=said if "strategy" in said else {}),))


def recorded(became: Recorded | None) -> Evidence:
    return replace(
        GOOD,
        target=replace(TARGET, recordings="/srv/calls", recordings_seen_at="/mnt/calls"),
        actions=GOOD.actions | {"MixMonitor"},
        recording=became and (became, "/srv/calls/x.wav"),
    )


@pytest.mark.parametrize(
    ("evidence", "id", "level", "line"),
    [
        (lacking("cti-second"), "contexts", Level.WARN, "#include cti/extensions_cti.conf"),
        (
            lacking(*(name for name, _ in ROUTING)),
            "routing",
            Level.WARN,
            "#include cti/extensions_cti_routing.conf",
        ),
        (lacking("cti-callback"), "routing", Level.WARN, "<the file of this server's version>"),
        (replace(GOOD, versions={}), "cti_version", Level.WARN, "<the file of this server's version>"),
        (replace(GOOD, versions={"cti-version": "1"}), "cti_routing_version", Level.WARN, None),
        (replace(GOOD, widens=False), "queue_rules", Level.WARN, "#include cti/queuerules_cti.conf"),
        (replace(GOOD, routing_on=""), "routing_on", Level.OK, None),
        (replace(GOOD, mailboxes=None, no_voicemail=True), "voicemail", Level.OK, None),
        (replace(GOOD, mailboxes=()), "voicemail", Level.WARN, "100 => ,Sales"),
        (replace(GOOD, booted=False), "booted", Level.WRONG, "read=system,call,agent,user"),
        (replace(GOOD, asterisk_version="13.38.3"), "version", Level.WRONG, None),
        (replace(GOOD, asterisk_version="16.28.0"), "version", Level.WARN, None),
        (replace(GOOD, asterisk_version="certified/18.9-cert4"), "version", Level.OK, None),
        (replace(GOOD, asterisk_version="23.0.0"), "version", Level.WARN, None),
        (replace(GOOD, target=replace(TARGET, host="10.0.0.5")), "encryption", Level.WARN, "tlsenable=yes"),
        (replace(GOOD, target=replace(TARGET, host="10.0.0.5", tls=True)), "encryption", Level.OK, None),
        (replace(GOOD, clock_off=-75.0), "clock", Level.WARN, "apt-get install chrony"),
        (without("QueueAdd"), "write_classes", Level.WRONG, "write=call,agent,user,originate,reporting"),
        (without("Originate"), "write_classes", Level.WARN, "write=call,agent,user,originate,reporting"),
        (
            replace(GOOD, actions=GOOD.actions | {"Command"}),
            "least_rights",
            Level.WARN,
            "write=call,agent,user,originate,reporting",
        ),
        (replace(GOOD, secrets_readable=True), "secrets_readable", Level.WARN, "noload => func_config.so"),
        (without("QueueStatus"), "module_app_queue", Level.WRONG, "load => app_queue.so"),
        (without("ParkedCalls"), "module_res_parking", Level.WARN, "load => res_parking.so"),
        (
            replace(GOOD, manager={"read": "call,user", "writetimeout": "5000"}),
            "read_classes",
            Level.WRONG,
            "read=system,call,agent,user",
        ),
        (
            replace(silent("UserEvent"), manager=None),
            "read_classes",
            Level.WRONG,
            "read=system,call,agent,user",
        ),
        (silent("SoftHangupRequest"), "events_needed", Level.WRONG, FILTER_LINE),
        (replace(GOOD, filters=("!Event: Hangup",)), "events_needed", Level.WRONG, FILTER_LINE),
        (replace(GOOD, test_call=False, no_test_call="so"), "events_needed", Level.UNSEEN, None),
        (replace(GOOD, seen={**GOOD.seen, "VarSet": 40}), "events_flood", Level.WARN, FILTER_LINE),
        (
            replace(GOOD, stamped=False, manager_general={"timestampevents": ""}),
            "timestamps",
            Level.WARN,
            "timestampevents=yes",
        ),
        (
            replace(GOOD, manager={"read": "all", "writetimeout": ""}),
            "writetimeout",
            Level.WARN,
            "writetimeout=5000",
        ),
        (
            replace(GOOD, manager_general={"timestampevents": "yes", "channelvars": "MINE"}),
            "channelvars",
            Level.WARN,
            "channelvars=CTI_CALL,CTI_DID,MINE",
        ),
        (
            replace(GOOD, contexts={**ALL_CONTEXTS, "cti-hold": None}),
            "contexts",
            Level.WARN,
            "#include cti/extensions_cti.conf",
        ),
        (
            replace(GOOD, contexts={**ALL_CONTEXTS, "from-agent": None}),
            "cti_internal",
            Level.WARN,
            "include => from-internal",
        ),
        (replace(GOOD, contexts={**ALL_CONTEXTS, "from-trunk": None}), "inbound_contexts", Level.WARN, None),
        (replace(GOOD, devices={"PJSIP/trunk": "INVALID"}), "trunks", Level.WARN, None),
        (replace(GOOD, queues=()), "queues", Level.WARN, "ringinuse=no"),
        (
            replace(GOOD, queues=(replace(GOOD.queues[0], options={"strategy": "ringall"}),)),  # type: ignore[index]
            "queue_ringinuse",
            Level.WARN,
            "ringinuse=no",
        ),
        (queue_says(context=""), "queue_context", Level.WARN, "context=cti-callback-keys"),
        (queue_says(strategy=None), "queue_context", Level.UNSEEN, None),
        (
            replace(queue_says(), contexts={**ALL_CONTEXTS, "cti-callback-keys": None}),
            "queue_context",
            Level.WARN,
            "#include cti/extensions_cti_routing.conf",
        ),
        (without("MixMonitorMute"), "module_app_mixmonitor", Level.WARN, "load => app_mixmonitor.so"),
        (
            replace(GOOD, target=replace(TARGET, recordings="/srv/calls")),
            "recordings",
            Level.WARN,
            "write=call,agent,user,originate,reporting,system",
        ),
        (recorded(None), "recordings", Level.UNSEEN, None),
        (
            replace(GOOD, target=replace(TARGET, people_unread="no database")),
            "people",
            Level.UNSEEN,
            None,
        ),
        (recorded(Recorded.TAKEN), "recordings", Level.UNSEEN, None),
        (recorded(Recorded.WRITTEN), "recordings", Level.OK, None),
        (
            recorded(Recorded.MISSING),
            "recordings",
            Level.WARN,
            "install -d -o asterisk -g asterisk /srv/calls",
        ),
        (
            recorded(Recorded.NO_FOLDER),
            "recordings",
            Level.WARN,
            '[pbx.main]  recordings_seen_at = "</srv/calls, as this machine sees it>"',
        ),
        (recorded(Recorded.REFUSED), "recordings", Level.WARN, None),
    ],
)
def test_each_fault_is_named_with_the_line_that_mends_it(
    evidence: Evidence, id: str, level: Level, line: str | None
) -> None:
    finding = found(evidence)[id]
    assert finding.level is level
    if level in (Level.WARN, Level.WRONG) and line is not None:
        assert finding.fix is not None
        assert line in finding.fix.lines
    assert usable(findings(evidence)) is (level is not Level.WRONG)


def test_members_that_cannot_work_are_named() -> None:
    members = (
        QueueMember(interface="PJSIP/gone", state_interface="PJSIP/gone", status="4"),
        QueueMember(interface="Local/1@agents/n", state_interface="Local/1@agents", status="1"),
    )
    told = found(replace(GOOD, queues=(QueueFound(name="sales", members=members),)))
    assert "PJSIP/gone" in told["members_invalid"].says
    assert "Local/1@agents/n" in told["members_blind"].says


def test_the_filter_that_is_recommended_lets_all_through_that_is_needed() -> None:
    expression = FILTER_LINE.removeprefix("eventfilter=")
    assert [name for name in CORE_EVENTS if not passes((expression,), name)] == []
    assert not passes((expression,), "VarSet")


@pytest.mark.parametrize(
    ("filters", "name", "through"),
    [
        ((), "Hangup", True),
        (("!Event: VarSet",), "Hangup", True),
        (("!Event: VarSet",), "VarSet", False),
        (("Event: Hangup",), "Hangup", True),
        (("Event: Hangup",), "Newchannel", False),
        (("Event: H", "!Event: Hold"), "Hold", False),
        (("[broken",), "Hold", True),
    ],
)
def test_filters_are_read_as_asterisk_reads_them(filters: tuple[str, ...], name: str, through: bool) -> None:
    assert passes(filters, name) is through


def test_needed_events_are_those_that_the_server_reads() -> None:
    from cti.ami_events import PARSERS

    assert {name.decode() for name in PARSERS} - set(CORE_EVENTS) <= {"ParkedCallSwap"}


def test_trouble_with_the_connection_is_all_that_is_said() -> None:
    chapters = findings(replace(GOOD, trouble=("unreachable", "Nothing listens there.")))
    assert [title for title, _ in chapters] == ["Connection"]
    assert not usable(chapters)


def test_what_a_stranger_sends_does_no_harm_to_the_terminal() -> None:
    hostile = "22.1 \x1b[2J\x1b]0;owned\x07"
    chapters = findings(replace(GOOD, asterisk_version=hostile))
    report = Report(TARGET, tuple((title, tuple(chapter)) for title, chapter in chapters))
    assert all("\x1b" not in line.text and "\x07" not in line.text for line in as_lines(report))


# ------------------------------------------------------------------------------------------ real Asterisks


@pytest.fixture(scope="module")
def pbx(asterisk_installation: Installation) -> Iterator[SamplePbx]:
    folder = scratch_folder("cti-pbx-")
    one = SamplePbx(asterisk_installation, folder)
    try:
        yield one.start()
    finally:
        one.stop()
        remove_folder(folder)


def at(pbx: SamplePbx, username: str) -> Target:
    return replace(TARGET, port=pbx.ami_port, username=username)


def levels(report: Report) -> dict[str, Level]:
    return {finding.id: finding.level for _, chapter in report.chapters for finding in chapter}


async def test_the_user_of_our_own_configuration_is_right(pbx: SamplePbx) -> None:
    report = await examine(at(pbx, "cti"), pbx.secret, probe_queue="sales")
    told = levels(report)
    assert {id for id, level in told.items() if level is not Level.OK} == {"writetimeout", "queue_context"}
    assert {told["writetimeout"], told["queue_context"]} == {Level.UNSEEN}
    assert report.usable


def test_the_files_say_the_versions_that_the_server_needs() -> None:
    for context, file, version in VERSIONS:
        written = (CONFIGURATION / "include" / file).read_text()
        assert f"[{context}]" in written
        assert f"exten => s,1,NoOp({version})" in written.partition(f"[{context}]")[2].partition("[cti-")[0]


async def test_what_of_routing_is_missing_is_said(pbx: SamplePbx) -> None:
    """On the real one: the routing include taken out, an older one in, the queue rules gone, no mailbox."""
    told = levels(await examine(at(pbx, "cti"), pbx.secret, test_call=False))
    assert {
        told[id] for id in ("routing", "queue_rules", "cti_version", "cti_routing_version", "voicemail")
    } == {Level.OK}
    etc = pbx.run_dir / "etc"
    files = {
        name: (etc / name).read_text()
        for name in ("extensions.conf", "queuerules.conf", "voicemail.conf", "include/extensions_cti.conf")
    }
    try:
        without = files["extensions.conf"].replace("#include include/extensions_cti_routing.conf\n", "")
        (etc / "extensions.conf").write_text(without)
        (etc / "queuerules.conf").write_text("")
        (etc / "voicemail.conf").write_text("[general]\n[default]\n")
        older = files["include/extensions_cti.conf"].replace(f"NoOp({VERSIONS[0][2]})", "NoOp(1)")
        (etc / "include/extensions_cti.conf").write_text(older)
        for command in ("dialplan reload", "queue reload rules", "voicemail reload"):
            await asyncio.to_thread(pbx.cli, command)
        report = await examine(at(pbx, "cti"), pbx.secret, test_call=False)
        told = levels(report)
        assert {told[id] for id in ("routing", "cti_version", "voicemail")} == {Level.WARN}
        assert report.usable
        text = "\n".join(line.text for line in as_lines(report))
        assert "#include cti/extensions_cti_routing.conf" in text
        assert f"extensions_cti.conf is version 1, this server was made with version {VERSIONS[0][2]}" in text
        (etc / "extensions.conf").write_text(files["extensions.conf"])
        await asyncio.to_thread(pbx.cli, "dialplan reload")
        told = levels(await examine(at(pbx, "cti"), pbx.secret, test_call=False))
        assert (told["routing"], told["queue_rules"]) == (Level.OK, Level.WARN)
    finally:
        for name, text in files.items():
            (etc / name).write_text(text)
        for command in ("dialplan reload", "queue reload rules", "voicemail reload"):
            await asyncio.to_thread(pbx.cli, command)


async def test_what_it_says_to_change_makes_a_spoilt_pbx_right_again(
    pbx: SamplePbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the real one: no timestamps, a filter that drops what is needed and lets floods through; then the very lines that
    it gives, in the sections that it names."""
    file = pbx.run_dir / "etc" / "include" / "manager_cti.conf"
    good = file.read_text()
    text = re.sub(r"(?m)^timestampevents=yes", "timestampevents=no", good)
    text = re.sub(r"(?m)^eventfilter=.*", "eventfilter=!Event: (Hangup|BridgeEnter)", text)

    async def told() -> dict[str, Finding]:
        file.write_text(text)
        await asyncio.to_thread(pbx.cli, "manager reload")
        report = await examine(at(pbx, "cti"), pbx.secret)
        return {finding.id: finding for _, chapter in report.chapters for finding in chapter}

    try:
        with monkeypatch.context() as shorter:
            shorter.setattr("cti.doctor.PATIENCE", 1.0)  # what is filtered never comes
            said = await told()
        wrong = {id: one.level for id, one in said.items() if one.level in (Level.WARN, Level.WRONG)}
        assert wrong == {"timestamps": Level.WARN, "events_needed": Level.WRONG, "events_flood": Level.WARN}
        assert all(event in said["events_needed"].says for event in ("Hangup", "BridgeEnter"))
        for fix in filter(None, (said[id].fix for id in wrong)):
            for line in fix.lines:
                name = line.partition("=")[0]
                text = re.sub(rf"(?m)^{name}=.*\n", "", text)
                text = re.sub(
                    rf"(?m)^\[{fix.section}\].*$", lambda head, line=line: f"{head[0]}\n{line}", text
                )
        assert {one.level for one in (await told()).values()} == {Level.OK, Level.UNSEEN}
    finally:
        file.write_text(good)
        await asyncio.to_thread(pbx.cli, "manager reload")


async def test_it_leaves_nothing_behind(pbx: SamplePbx) -> None:
    await examine(at(pbx, "cti"), pbx.secret, probe_queue="sales")
    deadline = asyncio.get_running_loop().time() + 5
    while "0 active channels" not in await asyncio.to_thread(pbx.cli, "core show channels"):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.1)
    assert "No Members" in await asyncio.to_thread(pbx.cli, "queue show sales")


async def test_all_that_a_weak_user_lacks_is_said_at_once(pbx: SamplePbx) -> None:
    report = await examine(at(pbx, "weak"), "weak-secret")
    told = levels(report)
    assert told["booted"] is Level.WRONG
    assert told["write_classes"] is Level.WRONG
    assert not report.usable
    text = "\n".join(line.text for line in as_lines(report))
    assert "section [weak]" in text
    assert "read=system,call,agent,user" in text
    assert "write=call,agent,user,originate,reporting" in text


async def test_too_much_right_and_floods_are_warned_of_and_a_recording_is_looked_at(pbx: SamplePbx) -> None:
    monitor = pbx.run_dir / "spool" / "monitor"
    report = await examine(replace(at(pbx, "admin"), recordings_seen_at=str(monitor)), pbx.admin_secret)
    told = levels(report)
    assert told["recordings"] is Level.OK, [line.text for line in as_lines(report)]
    assert [file.name for file in monitor.iterdir() if "doctor" in file.name] == []
    assert told["least_rights"] is Level.WARN
    assert told["events_flood"] is Level.WARN
    assert report.usable


async def test_the_files_are_read_where_asterisk_lets_them_be_read(pbx: SamplePbx) -> None:
    await asyncio.to_thread(pbx.cli, "module load func_config.so")
    try:
        report = await examine(at(pbx, "cti"), pbx.secret)
    finally:
        await asyncio.to_thread(pbx.cli, "module unload func_config.so")
    told = levels(report)
    assert told["secrets_readable"] is Level.WARN
    assert {
        told[id] for id in ("writetimeout", "channelvars", "queue_ringinuse", "queue_context", "read_classes")
    } == {Level.OK}


async def test_without_a_test_call_the_filter_is_not_vouched_for(pbx: SamplePbx) -> None:
    """And of people it says which phones and queues are mistyped."""
    of = [
        QueueAssignment(queue="main:sales"),
        QueueAssignment(queue="main:sles"),
        QueueAssignment(queue="b:x"),
    ]
    agents = [
        Agent(login="anna", name="Anna", interfaces={"main": "PJSIP/1001", "b": "PJSIP/5"}, queues=tuple(of)),
        Agent(login="ben", name="Ben", interfaces={"main": "PJSIP/1O02"}),
    ]
    teams = [Team(id="service", name="Service", queues=frozenset({"main:suport"}))]
    right = await examine(with_people(at(pbx, "cti"), agents[:0], []), pbx.secret, test_call=False)
    assert "people" not in levels(right)
    report = await examine(with_people(at(pbx, "cti"), agents, teams), pbx.secret, test_call=False)
    told = {finding.id: finding for _, chapter in report.chapters for finding in chapter}
    assert told["events_needed"].level is Level.UNSEEN
    assert "no queue named sles (anna), suport (team service):" in told["people_queues"].says
    assert "no phone PJSIP/1O02 (ben):" in told["people_phones"].says
    assert report.usable


async def test_a_wrong_password_is_said_with_the_lines_to_look_at(pbx: SamplePbx) -> None:
    report = await examine(at(pbx, "cti"), "wrong")
    assert levels(report) == {"wrong_password": Level.WRONG}
    assert "secret=" in "\n".join(line.text for line in as_lines(report))


async def test_nobody_listening_and_a_port_that_is_not_ami() -> None:
    (port,) = free_ports(1)
    for target, line in (
        (replace(TARGET, port=port), f"    port={port}"),
        (
            replace(TARGET, port=port, tls=True),
            f"    tlsbindaddr=<address that this machine can reach>:{port}",
        ),
        (replace(TARGET, host="nowhere.invalid"), None),
    ):
        report = await examine(target, "x")
        assert levels(report) == {"unreachable": Level.WRONG}
        fixes = [one.text for one in as_lines(report) if one.kind == "fix"]
        assert line in fixes if line else fixes == []

    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(web, "127.0.0.1", port):
        report = await examine(replace(TARGET, port=port), "x")
    assert levels(report) == {"wrong_host": Level.WRONG}
    assert as_json(report)["usable"] is False


def test_the_command_looks_at_the_settings_and_people_of_its_server(pbx: SamplePbx, migrated: str) -> None:
    async def engage() -> None:
        async with connection(migrated, name="test") as db:
            passwords = Passwords()
            await users.create_user(db, passwords, login="anna", name="Anna")
            await users.set_interface(db, "anna", "main", "PJSIP/1001")
            await users.set_queues(db, "anna", [QueueAssignment(queue="main:sales")])
            passwords.close()

    asyncio.run(engage())
    env = {"HOST": pbx.host, "PORT": str(pbx.ami_port), "SECRET": pbx.secret}
    asked = subprocess.run(
        [sys.executable, "-m", "cti", "doctor", "--no-test-call", "--json"],
        env={
            **os.environ,
            "CTI_DATABASE_URL": migrated,
            **{f"CTI_PBX__MAIN__{name}": value for name, value in env.items()},
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    (right,) = [one for one in json.loads(asked.stdout)[0]["findings"] if one["chapter"] == "people"]
    assert (right["level"], "phones (1) and queues (1)" in right["says"]) == ("ok", True)


def test_the_command_answers_scripts_with_json_and_an_exit_code(pbx: SamplePbx) -> None:
    def ask(secret: str) -> subprocess.CompletedProcess[str]:
        where = ["--host", "127.0.0.1", "--port", str(pbx.ami_port), "--inbound-context", "from-trunk"]
        return subprocess.run(
            [sys.executable, "-m", "cti", "doctor", *where, "--json"],
            env={**os.environ, "CTI_AMI_SECRET": secret},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    good, bad = ask(pbx.secret), ask("wrong")
    assert (good.returncode, bad.returncode) == (0, 1)
    assert json.loads(good.stdout)["usable"] is True
    assert json.loads(bad.stdout)["findings"][0]["id"] == "wrong_password"
    assert good.stderr == bad.stderr == ""
