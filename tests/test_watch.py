"""`cti watch`: what the screen shows at any size and with any text, and how it lives through breaks of the line."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from crm.facts import PopShown
from crm.views import AccountCard, AlertCard, Candidate, OpenItemCard, PopView
from cti.campaigns import CampaignNow, CampaignView
from cti.client import Client, Picture, Refused
from cti.facts import AgentState, CallView, ConnectionState, ConnectionView, Direction
from cti.hub import pack
from cti.other_work import BlendingView, WorkView
from cti.reasons import Reason
from cti.terminal_text import columns, fit, plain
from cti.views import AgentView, DatabaseView, MemberView, PbxView, QueueView, Snapshot, WaitingView
from cti.watch import Login, LogInFailed, Watch, websocket_url
from cti.watch_lines import SENTENCES, UNTOLD, summary, told
from cti.watch_screen import Seat, clock, screen, share
from cti.wrap_up import Disposition, WrapUp
from tests.web_stage import Stage, all_know, eventually

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SEAT = Seat(now=NOW, name="Sue Parr", role="supervisor", url="http://127.0.0.1:8600")
HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202eevil\r\n<b>[red]x[/red]"


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def agent(login: str, state: AgentState = AgentState.READY, since: float = 5, **more: Any) -> AgentView:
    given: dict[str, Any] = {
        "name": login.title(), "team": "sales", "reason": None, "by": login, "why": "", "pending": None,
        "until": None, "call": None, "device": "PJSIP/1", "reachable": True, "queues": ("main:sales",),
    }  # fmt: skip
    return AgentView(agent=login, state=state, since=ago(since), **(given | more))


def call(id: str, *, waiting: float | None = None, talking: float | None = None, **more: Any) -> CallView:
    began = ago((waiting or talking or 0) + 1)
    caller = ConnectionView(
        id=f"{id}.1", device="PJSIP/trunk", state=ConnectionState.CONNECTED, since=began, number="+15550100"
    )
    given: dict[str, Any] = {
        "pbx": "main", "direction": Direction.INBOUND, "ani": "+15550100", "ani_name": "Ada", "dnis": "5550100",
        "started": began, "queue": "main:sales", "queued_since": None if waiting is None else ago(waiting),
        "answered": None if talking is None else ago(talking), "connections": (caller,),
    }  # fmt: skip
    return CallView(id=id, **(given | more))


def queue(name: str, *waits: float, members: int = 1) -> QueueView:
    return QueueView(
        id=f"main:{name}",
        pbx="main",
        name=name,
        waiting=tuple(
            WaitingView(call=f"main:{name}{n}", position=n + 1, since=ago(wait))
            for n, wait in enumerate(waits)
        ),
        members=tuple(
            MemberView(
                interface=f"PJSIP/{n}",
                name="",
                agent=None,
                penalty=0,
                paused=False,
                pause_reason=None,
                status="in_use",
            )
            for n in range(members)
        ),
    )


def pop(
    agent: str, customer: str = "Ada Ltd", state: str = "offered", shown: float = 1, **more: Any
) -> PopView:
    account = AccountCard(
        id=1, number="C-1", name=customer, kind="company", classification="A", status="active", language="en",
        country="GB", timezone="Europe/London", email="", city="London", last_contact=None,
    )  # fmt: skip
    item = OpenItemCard(
        id=1,
        kind="ticket",
        reference="T-1",
        subject="Broken chair",
        status="open",
        due=None,
        amount=None,
        currency="",
    )
    candidate = Candidate(
        how="exact",
        account=account,
        open_items=(item,),
        alerts=(AlertCard(severity="critical", text="No credit"),),
    )
    given: dict[str, Any] = {
        "id": f"pop-{agent}", "call": f"main:{agent}", "pbx": "main", "direction": Direction.INBOUND,
        "number": "+442079460123", "kind": "identified", "withheld": False, "e164": "+442079460123",
        "formatted": "+44 20 7946 0123", "country": "GB", "name": None, "dnis": "5550100", "queue": "main:sales",
        "started": ago(30), "waiting_since": None, "waited": 12.0, "shown": ago(shown), "ended": None,
        "lookup": "complete", "how": "exact", "candidates": (candidate,), "chosen_by": None, "consulted_by": None,
        "transferred_by": None, "url": None,
    }  # fmt: skip
    return PopView(agent=agent, state=state, **(given | more))


def picture(
    calls: tuple[CallView, ...] = (),
    agents: tuple[AgentView, ...] = (),
    queues: tuple[QueueView, ...] = (),
    pops: tuple[PopView, ...] = (),
    phase: str = "up",
    why: str = "",
    database: DatabaseView | None = None,
    work: tuple[WorkView, ...] = (),
    blending: tuple[BlendingView, ...] = (),
    reasons: tuple[Reason, ...] = (),
    wrap_up: tuple[WrapUp, ...] = (),
) -> Picture:
    pbx = PbxView(id="main", phase=phase, code="", why=why, since=ago(7))
    snapshot = Snapshot(
        at=NOW,
        calls=calls,
        agents=agents,
        queues=queues,
        pbxs=(pbx,),
        pops=pops,
        database=database,
        work=work,
        blending=blending,
        reasons=reasons,
        wrap_up=wrap_up,
    )
    made = Picture(me="sue")
    made.show(msgspec.json.decode(pack(snapshot)))
    return made


def drawn(what: Picture, width: int = 80, height: int = 24, seat: Seat = SEAT) -> list[str]:
    return screen(what, seat, width, height).plain.split("\n")


BUSY_HOUR = picture(
    calls=tuple(call(f"main:w{n}", waiting=n) for n in range(30))
    + tuple(call(f"main:t{n}", talking=n) for n in range(60)),
    agents=tuple(agent(f"agent{n:03}", AgentState.BUSY, since=n) for n in range(120)),
    queues=tuple(queue(f"queue{n}", *range(n)) for n in range(12)),
    pops=tuple(pop(f"agent{n:03}", state="talking", shown=n) for n in range(40)),
)


@pytest.mark.parametrize("size", [(80, 24), (140, 40), (40, 8), (200, 60), (81, 9), (79, 23), (10, 3)])
@pytest.mark.parametrize("what", [picture(), BUSY_HOUR])
@pytest.mark.parametrize("role", ["supervisor", "agent"])
def test_the_screen_is_never_larger_than_the_window(what: Picture, size: tuple[int, int], role: str) -> None:
    lines = drawn(what, *size, seat=Seat(now=NOW, role=role, name="Sue", connected=False, url="http://x"))
    assert len(lines) == size[1] or size[0] < 40
    assert max(map(cell_len, lines)) <= size[0]


def test_what_is_most_urgent_stands_first_and_what_is_left_out_is_counted() -> None:
    lines = drawn(BUSY_HOUR)
    calls = next(n for n, line in enumerate(lines) if line.startswith("CALLS"))
    assert "CALLS 90 (+8" in lines[calls]
    assert "0:29" in lines[calls + 1]
    queues = next(n for n, line in enumerate(lines) if line.startswith("QUEUES"))
    assert lines[queues + 1].startswith("queue11")
    assert any(line.startswith("AGENTS 120 (+1") for line in lines)


def test_every_part_is_seen_at_80_by_24() -> None:
    what = picture(
        calls=(call("main:1", waiting=75), call("main:ben", talking=20)),
        agents=(
            agent("anna", AgentState.NOT_READY, since=300, reason="Lunch"),
            agent("ben", AgentState.BUSY, since=22, call="main:ben"),
            agent("carl", AgentState.WRAP_UP, since=4, until=NOW + timedelta(seconds=11)),
            agent("dora", AgentState.LOGGED_OFF),
        ),
        queues=(queue("sales", 75), queue("support")),
        pops=(pop("ben"),),
    )
    text = "\n".join(drawn(what))
    for shown in (
        "main ● up", "rings Ben", "Ada Ltd", "+44 20 7946 0123", "0:12", "sales", "1:15", "Lunch", "5:00", "0:20",
        "0:11 left", "logged off",
    ):  # fmt: skip
        assert shown in text


def test_who_is_beyond_a_reasons_limit_stands_out() -> None:
    what = picture(
        agents=(
            agent("anna", AgentState.NOT_READY, since=1890, reason="Lunch"),
            agent("ben", AgentState.NOT_READY, since=60, reason="Lunch"),
            agent("carl", AgentState.NOT_READY, since=7200, reason="Training"),
        ),
        reasons=(Reason(name="Lunch", limit=30), Reason(name="Training")),
    )
    assert [line[line.index("Lunch") :].strip() for line in drawn(what) if "Lunch" in line] == [
        "Lunch, 1:30 over",
        "Lunch, 29:00 left",
    ]


def test_a_campaigns_call_shows_the_contact_and_what_to_say() -> None:
    data = {
        "campaign": "Spring offer", "list": "Fair", "attempt": "at-1", "contact": "7", "name": "Bea Cole",
        "script": "Good day, may I tell you about our spring offer?", "tariff": "Gold",
    }  # fmt: skip
    dialed = pop("ben", candidates=(), data=data, queue=None, direction=Direction.OUTBOUND, how="unknown")
    what = picture(calls=(call("main:ben", talking=3, data=data, queue=None),), pops=(dialed,))
    (row,) = [line for line in drawn(what, 120, 30) if line.startswith("rings")]
    assert "Bea Cole" in row
    assert "Spring" in row
    what.me = "ben"
    card = "\n".join(drawn(what, 120, 30, seat=Seat(now=NOW, name="Ben", role="agent", url="http://x")))
    for shown in ("Bea Cole", "campaign Spring offer", "list Fair", "may I tell you about", "tariff: Gold"):
        assert shown in card
    shown = told(
        {"type": "pop.shown", "data": {"agent": "ben", "view": next(iter(what.pops.values()))}}, what
    )
    assert "Bea Cole" in shown
    assert "campaign Spring offer" in shown


def test_an_agent_who_wraps_up_sees_what_may_be_said_of_the_call() -> None:
    def card(pending: str | None = None, *, state: str = "ended", **more: Any) -> str:
        me = agent("ben", AgentState.WRAP_UP, pending=pending)
        rules = (
            WrapUp(mandatory=False),
            WrapUp(queue="main:sales", dispositions=(Disposition(code="solved", label="\x1bSolved"),)),
        )
        made = picture(agents=(me,), pops=(pop("ben", state=state, **more),), wrap_up=rules)
        made.campaigns[3] = msgspec.to_builtins({"id": 3, "state": "draft", "wrap_up": OF_CAMPAIGN})
        made.me = "ben"
        lines = drawn(made, 80, 40, seat=Seat(now=NOW, name="Ben", role="agent"))
        return "\n".join(lines[: next(n for n, line in enumerate(lines) if line.startswith("CALLS"))])

    assert "how did it end: Solved [solved]" in card()
    assert "how did it end, must be said: Solved [solved]" in card("disposition")
    assert "how did it end" not in card(state="talking")
    assert "how did it end" not in card(queue="main:support")
    assert "must be said: in any words" in card("disposition", queue="main:support")
    dialed = card(queue=None, data={"campaign": "Spring", "campaign_id": "3", "attempt": "a1"})
    assert "how did it end, must be said: Sale [sale] · Call again [later] · " in dialed
    assert dialed.count("\n▌ ") < 12
    assert " ..." in dialed
    assert "campaign_id" not in dialed


OF_CAMPAIGN = WrapUp(
    mandatory=True,
    dispositions=(
        Disposition(code="sale", label="Sale", category="conversion"),
        Disposition(code="later", label="Call again", category="call_back"),
        *(Disposition(code=f"word{n}", label=f"One of many words {n}") for n in range(30)),
    ),
)


def job(id: str, **given: Any) -> WorkView:
    return WorkView(
        id=id,
        created=ago(100),
        since=ago(60),
        data={},
        **{"kind": "call_back", "skill": "main:sales", "title": "Ada Ltd", "source": "crm", "ref": "7"}
        | given,
    )


def test_other_work_is_seen_once_there_is_some() -> None:
    """What somebody is asked to do first, then by when it is due; the agents, what they may do besides calls."""
    assert not any(line.startswith("OTHER WORK") for line in drawn(picture()))
    lines = drawn(
        picture(
            agents=(agent("anna"), agent("ben", AgentState.NOT_READY, reason="Lunch")),
            work=(
                job("a", title="Later", due=NOW + timedelta(minutes=30)),
                job("b", title="Overdue", due=ago(90)),
                job("c", title="Asked", state="offered", agent="anna"),
                job("d", title="Whenever"),
            ),
            blending=tuple(
                BlendingView(agent=login, may=("call_back", "email"), why="few calls", since=ago(5))
                for login in ("anna", "ben")
            ),
        )
    )
    at = next(n for n, line in enumerate(lines) if line.startswith("OTHER WORK 4"))
    for line, wanted in zip(
        lines[at + 1 :], (("asks", "Anna"), ("1:30 late",), ("in 30:00",), ("Whenever",)), strict=False
    ):
        assert all(word in line for word in wanted), line
    (anna,) = [line for line in lines if line.startswith("Anna ")]
    (ben,) = [line for line in lines if line.startswith("Ben ")]
    assert "also call back, email" in anna
    assert "Lunch" in ben
    assert "also" not in ben


def test_times_tick_with_the_servers_clock() -> None:
    what = picture(calls=(call("main:1", waiting=58),), queues=(queue("sales", 58),))
    later = Seat(now=NOW + timedelta(seconds=3), role="supervisor")
    assert "0:58" in "\n".join(drawn(what))
    assert "1:01" in "\n".join(drawn(what, seat=later))
    assert (clock(59.9), clock(3600), clock(-5)) == ("0:59", "1:00:00", "0:00")


def test_without_a_connection_it_is_said_and_times_stand_still() -> None:
    what = picture(calls=(call("main:1", waiting=58),))
    gone = Seat(now=NOW + timedelta(seconds=100), url="http://x", connected=False, away=100.0)
    text = drawn(what, seat=gone)
    assert "NOT CONNECTED for 1:40" in text[1]
    assert "0:58" in "\n".join(text)


def test_a_database_that_is_away_is_said() -> None:
    away = DatabaseView(up=False, why="the database does not answer: notes have to wait", since=ago(65))
    lines = drawn(picture(database=away))
    assert lines[1].strip() == "database away 1:05: the database does not answer: notes have to wait"
    assert "database" not in "".join(drawn(picture(database=DatabaseView(up=True, why="", since=ago(65)))))


def test_a_pbx_that_is_down_is_said_with_the_reason() -> None:
    lines = drawn(picture(phase="down", why="Nothing listens at main: start Asterisk."))
    assert "main ● down" in lines[0]
    assert "main down 0:07: Nothing listens" in lines[1]


def test_alarms_and_requests_for_help_stand_above_everything() -> None:
    what = picture(agents=(agent("anna"),))
    at = ago(65).isoformat()
    about = {"rule": 1, "queue": "main:sales", "team": None, "agent": None, "pbx": None}
    raised = {"name": "Sales\x1b[2J waits", "kind": "longest_wait", "value": 40.0, "threshold": 30.0}
    asked = {"help": "h1", "agent": "anna", "call": None, "text": "A discount?"}
    what.fold({"type": "alarm.raised", "at": at, "data": {"alarm": "a1", **about, **raised}})
    what.fold({"type": "help.requested", "at": at, "data": asked})
    what.fold({"type": "alarm.acknowledged", "at": at, "data": {"alarm": "a1", "by": "sue", **about}})
    lines = drawn(what)
    assert "HELP 1:05" in lines[1]
    assert lines[1].endswith(": A discount?")
    assert "ALARM 1:05 Sales" in lines[2]
    assert lines[2].endswith("main:sales, seen to by sue")
    assert "\x1b" not in lines[2]
    what.fold(
        {
            "type": "help.closed",
            "at": at,
            "data": {"help": "h1", "agent": "anna", "by": "sue", "reason": "closed"},
        }
    )
    what.fold(
        {"type": "alarm.cleared", "at": at, "data": {"alarm": "a1", "reason": "over", "lasted": 9.0, **about}}
    )
    assert not any("ALARM" in line or "HELP" in line for line in drawn(what))


def test_an_agent_sees_the_customer_in_full() -> None:
    what = picture(agents=(agent("anna", AgentState.RESERVED),), pops=(pop("anna"), pop("ben", "Secret Ltd")))
    what.me = "anna"
    text = "\n".join(drawn(what, seat=Seat(now=NOW, role="agent")))
    for shown in ("YOU ringing", "RINGS  Ada Ltd", "class A", "No credit", "Broken chair", "waited 0:12"):
        assert shown in text
    assert "Secret" not in text


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"candidates": (), "withheld": True, "number": "anonymous", "formatted": None}, "number withheld"),
        ({"candidates": (), "lookup": "pending"}, "looking up"),
        ({"candidates": (), "name": "Bob"}, "unknown, says Bob"),
        ({"candidates": (), "lookup": "unavailable"}, "no customer data"),
    ],
)
def test_a_pop_without_a_customer_says_why(changed: dict[str, Any], shown: str) -> None:
    assert shown in "\n".join(drawn(picture(pops=(pop("ben", **changed),))))


@given(text=st.text(max_size=60), width=st.integers(40, 180), height=st.integers(8, 50))
@settings(max_examples=60)
def test_any_text_from_outside_stays_text(text: str, width: int, height: int) -> None:
    hostile = HOSTILE + text
    what = picture(
        calls=(call("main:1", waiting=1, ani_name=hostile, ani=hostile, data={hostile: hostile}),),
        agents=(agent("a", AgentState.NOT_READY, name=hostile, reason=hostile, team=hostile),),
        queues=(queue(hostile, 3),),
        pops=(
            pop("a", hostile, data={hostile: hostile}),
            pop("b", candidates=(), name=hostile, formatted=hostile),
        ),
        phase="down",
        why=hostile,
    )
    what.me = "a"
    what.work = {"w": msgspec.to_builtins(job("w", title=hostile, kind=hostile, agent=hostile))}
    for role in ("agent", "admin"):
        lines = screen(
            what, Seat(now=NOW, name=hostile, role=role, url=hostile, connected=False), width, height
        )
        assert all(character.isprintable() or character == "\n" for character in lines.plain)
        assert all(cell_len(line) <= width for line in lines.plain.split("\n"))


@given(st.text(max_size=50), st.integers(0, 20))
def test_text_is_cut_to_cells_not_to_characters(text: str, width: int) -> None:
    assert cell_len(fit(plain(text), width)) <= width


def test_rows_are_shared_out_fairly() -> None:
    assert share(10, [50, 2, 50], [2, 2, 2]) == [4, 2, 4]
    assert share(100, [3, 2], [2, 2]) == [3, 2]
    assert columns([("a", "bb"), ("ccc", "\x1bd")]) == ["a    bb", "ccc  d"]


# ---------------------------------------------------------------------------------------------- as lines


def test_facts_are_told_in_words() -> None:
    what = picture(calls=(call("main:1", waiting=1),), agents=(agent("ben"),))
    shown = PopShown(at=NOW, agent="ben", call="main:ben", pop="p", view=pop("ben"))
    line = told({"type": shown.TYPE, "data": msgspec.json.decode(pack(shown))}, what)
    assert line == "POP for Ben: Ada Ltd, class A, 1 open, +44 20 7946 0123, queue sales, waited 0:12"
    assert (
        told({"type": "new.thing", "data": {"call": "main:1", "x": HOSTILE}}, what)
        == "new.thing: call main:1"
    )
    assert "\x1b" not in told(
        {"type": "pbx.status_changed", "data": {"pbx": HOSTILE, "phase": "x", "why": ""}}, what
    )
    assert summary(what) == "now: 1 call, 0 waiting in 0 queues, 1 agent, 0 pops, PBX main up"


def sample(kind: Any) -> Any:
    """Any value of a type, as JSON has it."""
    match kind:
        case msgspec.inspect.StructType(fields=fields):
            return {field.encode_name: sample(field.type) for field in fields}
        case msgspec.inspect.UnionType(types=types):
            return sample(types[0])
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return {sample(key): sample(value)}
        case msgspec.inspect.EnumType(cls=cls):
            return next(iter(cls)).value
        case msgspec.inspect.LiteralType(values=values):
            return values[0]
        case msgspec.inspect.DateTimeType():
            return NOW.isoformat()
        case msgspec.inspect.BoolType():
            return True
        case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
            return 7
        case msgspec.inspect.StrType() | msgspec.inspect.AnyType():
            return "word"
        case msgspec.inspect.NoneType():
            return None
        case msgspec.inspect.VarTupleType(item_type=item) | msgspec.inspect.ListType(item_type=item):
            return [sample(item)]
        case _:
            return [sample(item) for item in getattr(kind, "item_types", ())]


def test_every_fact_has_words_or_is_left_out_on_purpose() -> None:
    import cti.server  # noqa: F401  # knows all parts, and so the facts of all
    from cti.asyncapi import fact_classes

    kinds = {kind.TYPE: kind for kind in fact_classes()}
    assert set(SENTENCES) | UNTOLD == set(kinds)
    assert not set(SENTENCES) & UNTOLD
    for name, say in SENTENCES.items():
        assert say(sample(msgspec.inspect.type_info(kinds[name])), picture()), name


def test_what_is_dialed_is_seen_while_it_runs() -> None:
    what = picture(agents=(agent("anna"),))
    for id, state in enumerate(("draft", "running", "paused")):
        view = sample(msgspec.inspect.type_info(CampaignView))
        what.campaigns[id] = view | {"id": id, "name": f"Spring {state}", "state": state}
    goes = sample(msgspec.inspect.type_info(CampaignNow)) | {"agents": {"busy": 6, "ready": 4}, "lines": 9}
    what.campaigns_now[1] = goes | {"lost": 2, "may_be_lost": 0}
    lines = drawn(what)
    at = next(n for n, line in enumerate(lines) if line.startswith("CAMPAIGNS 2"))
    assert "Spring running" in lines[at + 1]
    assert "6/10" in lines[at + 1]
    assert "2, 0 left" in lines[at + 1]
    assert "Spring paused" in lines[at + 2]
    assert not any("Spring draft" in line for line in lines)


async def look(stage: Stage, **how: Any) -> tuple[Watch, Client, io.StringIO, asyncio.Task[None]]:
    """A watch at the stage, as root, writing into text."""
    sink = io.StringIO()

    async def token() -> str:
        return "root-token"

    client = Client(websocket_url(stage.url), token, heartbeat=0.5)
    watch = Watch(client, url=stage.url, out=Console(file=sink, width=80, height=24), **how)
    task = asyncio.create_task(watch.run())
    await eventually(lambda: client.connected)
    return watch, client, sink, task


async def test_lines_go_on_after_a_break_and_nothing_is_told_twice() -> None:
    stage = Stage()
    async with stage.serve():
        _, client, sink, task = await look(stage)
        await eventually(lambda: client.snapshots)
        stage.bus.publish([all_know("first")])
        await eventually(lambda: "first" in sink.getvalue())
        stage.hub.close("root")
        stage.bus.publish([all_know("second")])
        await eventually(lambda: "second" in sink.getvalue(), 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    lines = sink.getvalue().splitlines()
    assert "connected to http" in lines[0]
    assert "now: 0 calls" in lines[1]
    assert sum("first" in line for line in lines) == sum("second" in line for line in lines) == 1
    assert any("connected again" in line and line.endswith("nothing was missed") for line in lines)


async def test_json_lines_are_the_facts_as_they_were_sent() -> None:
    stage = Stage()
    async with stage.serve():
        _, client, sink, task = await look(stage, as_json=True)
        await eventually(lambda: client.snapshots)
        stage.bus.publish([all_know("once")])
        await eventually(sink.getvalue)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [msgspec.json.decode(line)["data"]["why"] for line in sink.getvalue().splitlines()] == ["once"]


async def test_a_user_who_is_shut_out_is_told_so() -> None:
    stage = Stage()
    async with stage.serve():

        async def token() -> str:
            return "no-such-token"

        watch = Watch(Client(websocket_url(stage.url), token), url=stage.url, out=Console(file=io.StringIO()))
        with pytest.raises(Refused):
            await watch.run(10)


async def test_nobody_there_is_one_sentence() -> None:
    import aiohttp

    async with aiohttp.ClientSession() as http:
        with pytest.raises(LogInFailed, match="nothing listens there"):
            await Login(http, "http://127.0.0.1:9", "sue", "x").begin()


async def test_a_server_that_is_something_else_is_said_so() -> None:
    import aiohttp

    stage = Stage()
    async with stage.serve(), aiohttp.ClientSession() as http:
        with pytest.raises(LogInFailed, match="not a CTI server"):
            await Login(http, stage.url, "sue", "x").begin()
