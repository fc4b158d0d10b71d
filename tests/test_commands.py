"""Commands: checked, carried out once, in order, within their time, and written down."""

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from cti.commands import Bucket, CommandError, Commands, NoArgs, add_basics
from cti.json_in import has_nul, too_deep
from cti.people import Actor, Role
from tests.web_stage import ANNA, BEN, ROOT


class Hold(BaseModel):
    model_config = ConfigDict(extra="forbid")
    call: str
    seconds: float = 0


class Switch:
    """What the commands of these tests act on."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.audited: list[tuple[str, str, dict[str, Any], str]] = []
        self.gate = asyncio.Event()
        self.now = 1000.0

    async def hold(self, actor: Actor, args: Hold) -> dict[str, str]:
        if args.call == "gated":
            await self.gate.wait()
        if args.call == "not yours":
            raise CommandError("not_your_call", "this call is another agent's")
        if args.call == "broken":
            raise RuntimeError("boom")
        self.done.append((actor.login, args.call))
        return {"held": args.call}

    def audit(self, actor: Actor, op: str, args: Any, told: str) -> None:
        self.audited.append((actor.login, op, dict(args), told))

    def commands(self, **limits: Any) -> Commands:
        """The commands under test; only `call.brief` runs out of time soon."""
        commands = Commands(audit=self.audit, clock=lambda: self.now, **limits)
        commands.add("call.hold", Hold, self.hold, summary="Holds a call.", limit=60)
        commands.add("call.lane", Hold, self.hold, summary="Holds in order.", lane="calls", limit=60)
        commands.add(
            "call.brief", Hold, self.hold, summary="Holds, but not for long.", lane="calls", limit=0.3
        )
        commands.add("call.look", Hold, self.hold, summary="Looks.", changes=False)
        commands.add("queue.close", NoArgs, self.close, summary="Closes.", roles={Role.ADMIN})
        return commands

    async def close(self, actor: Actor, args: NoArgs) -> None:
        self.done.append((actor.login, "close"))


@pytest.fixture
def switch() -> Switch:
    return Switch()


async def refusal(coming: Any) -> CommandError:
    with pytest.raises(CommandError) as caught:
        await coming
    return caught.value


async def test_a_command_is_carried_out_and_written_down(switch: Switch) -> None:
    commands = switch.commands()
    assert await commands.execute(ANNA, "call.hold", {"call": "1"}, id="a") == {"held": "1"}
    assert switch.audited == [("anna", "call.hold", {"call": "1"}, "ok")]
    await commands.execute(ANNA, "call.look", {"call": "1"}, id="b")
    assert len(switch.audited) == 1


@pytest.mark.parametrize(
    ("actor", "op", "args", "code", "says"),
    [
        (ANNA, "call.hodl", {"call": "1"}, "unknown_op", "did you mean call.hold"),
        (ANNA, "x" * 500, {}, "unknown_op", "there is no command"),
        (ANNA, "queue.close", {}, "forbidden", "is for admin; you are agent"),
        (ANNA, "call.hold", {}, "bad_args", "call: missing"),
        (ANNA, "call.hold", {"call": 1}, "bad_args", "call: Input should be a valid string"),
        (
            ANNA,
            "call.hold",
            {"call": "1", "x": 1},
            "bad_args",
            "x: there is no such field; the fields are call",
        ),
        (ANNA, "call.hold", [], "bad_args", "valid dictionary"),
        (ANNA, "call.hold", None, "bad_args", "args of call.hold"),
        (ANNA, "call.hold", {"call": "a\0b"}, "bad_args", "U+0000"),
        (ANNA, "call.hold", {"call": "not yours"}, "not_your_call", "another agent's"),
        (ANNA, "call.hold", {"call": "broken"}, "internal", "log says why"),
        (ANNA, "call.brief", {"call": "gated"}, "timed_out", "no answer to call.brief within 0.3 s"),
    ],
)
async def test_what_cannot_be_done_says_why(
    switch: Switch, actor: Actor, op: str, args: Any, code: str, says: str
) -> None:
    error = await refusal(switch.commands().execute(actor, op, args, id="1"))
    assert error.code == code
    assert says in error.message


async def test_failures_are_written_down_too(switch: Switch) -> None:
    commands = switch.commands()
    for call in ("not yours", "broken"):
        await refusal(commands.execute(ANNA, "call.hold", {"call": call}))
    assert [told for *_, told in switch.audited] == ["not_your_call", "internal"]


async def test_the_same_id_is_carried_out_once_and_answered_again(switch: Switch) -> None:
    commands = switch.commands()
    for _ in range(3):
        assert await commands.execute(ANNA, "call.hold", {"call": "1"}, id="a") == {"held": "1"}
    assert switch.done == [("anna", "1")]
    await commands.execute(BEN, "call.hold", {"call": "1"}, id="a")
    await commands.execute(ANNA, "call.hold", {"call": "1"}, id="b")
    assert len(switch.done) == 3


async def test_an_error_is_answered_again_too(switch: Switch) -> None:
    commands = switch.commands()
    for _ in range(2):
        error = await refusal(commands.execute(ANNA, "call.hold", {"call": "not yours"}, id="a"))
        assert error.code == "not_your_call"
    assert len(switch.audited) == 1


async def test_an_id_still_running_is_joined_also_when_the_first_asker_has_gone(switch: Switch) -> None:
    commands = switch.commands()
    first = asyncio.create_task(commands.execute(ANNA, "call.hold", {"call": "gated"}, id="a"))
    await asyncio.sleep(0)
    first.cancel()
    second = asyncio.create_task(commands.execute(ANNA, "call.hold", {"call": "gated"}, id="a"))
    await asyncio.sleep(0)
    switch.gate.set()
    assert await second == {"held": "gated"}
    assert switch.done == [("anna", "gated")]
    assert first.cancelled()


async def test_an_id_used_for_something_else_is_refused(switch: Switch) -> None:
    commands = switch.commands()
    await commands.execute(ANNA, "call.hold", {"call": "1"}, id="a")
    error = await refusal(commands.execute(ANNA, "call.hold", {"call": "2"}, id="a"))
    assert error.code == "id_reused"
    assert switch.done == [("anna", "1")]


async def test_an_id_is_forgotten_after_a_minute(switch: Switch) -> None:
    commands = switch.commands()
    await commands.execute(ANNA, "call.hold", {"call": "1"}, id="a")
    switch.now += 59
    await commands.execute(ANNA, "call.hold", {"call": "1"}, id="a")
    assert len(switch.done) == 1
    switch.now += 2
    await commands.execute(ANNA, "call.hold", {"call": "1"}, id="a")
    assert len(switch.done) == 2


async def test_what_was_never_begun_may_be_sent_again(switch: Switch) -> None:
    commands = switch.commands(rate=1.0, burst=1.0)
    await commands.execute(ANNA, "call.hold", {"call": "1"}, id="a")
    assert (await refusal(commands.execute(ANNA, "call.hold", {"call": "2"}, id="b"))).code == "rate_limited"
    await commands.execute(BEN, "call.hold", {"call": "2"}, id="b")
    switch.now += 1
    await commands.execute(ANNA, "call.hold", {"call": "2"}, id="b")
    assert switch.done == [("anna", "1"), ("ben", "2"), ("anna", "2")]


async def test_only_so_many_run_at_once(switch: Switch) -> None:
    commands = switch.commands(at_once=2)
    waiting = [
        asyncio.create_task(commands.execute(ANNA, "call.hold", {"call": "gated"}, id=str(n)))
        for n in range(2)
    ]
    await asyncio.sleep(0)
    assert (await refusal(commands.execute(ANNA, "call.hold", {"call": "1"}, id="x"))).code == "busy"
    await commands.execute(BEN, "call.hold", {"call": "1"}, id="x")
    switch.gate.set()
    await asyncio.gather(*waiting)
    await commands.execute(ANNA, "call.hold", {"call": "1"}, id="x")


async def test_commands_in_a_lane_never_overtake_one_another(switch: Switch) -> None:
    commands = switch.commands()
    calls = ["gated", "1", "2", "3"]
    running = [
        asyncio.create_task(commands.execute(ANNA, "call.lane", {"call": call}, id=call)) for call in calls
    ]
    await commands.execute(ANNA, "call.hold", {"call": "free"})
    await commands.execute(BEN, "call.lane", {"call": "ben's"})
    switch.gate.set()
    await asyncio.gather(*running)
    assert [call for login, call in switch.done if login == "anna"] == ["free", *calls]


async def test_a_lane_that_is_stuck_says_that_nothing_was_done(switch: Switch) -> None:
    commands = switch.commands()
    stuck = asyncio.create_task(refusal(commands.execute(ANNA, "call.brief", {"call": "gated"}, id="1")))
    await asyncio.sleep(0)
    behind = [
        asyncio.create_task(commands.execute(ANNA, "call.lane", {"call": str(n)}, id=f"b{n}"))
        for n in range(2)
    ]
    assert (await stuck).code == "timed_out"
    await asyncio.gather(*behind)  # the lane is free again once the stuck one has timed out
    assert [call for _, call in switch.done] == ["0", "1"]


async def test_closing_waits_for_what_runs_and_takes_no_more(switch: Switch) -> None:
    commands = switch.commands()
    running = asyncio.create_task(commands.execute(ANNA, "call.hold", {"call": "gated"}))
    await asyncio.sleep(0)
    closing = asyncio.create_task(commands.close())
    await asyncio.sleep(0)
    assert (await refusal(commands.execute(ANNA, "call.hold", {"call": "1"}))).code == "restarting"
    switch.gate.set()
    assert await running == {"held": "gated"}
    await closing


async def test_a_failing_audit_fails_no_command(switch: Switch) -> None:
    def broken(*_: Any) -> None:
        raise OSError("disk full")

    commands = Commands(audit=broken)
    commands.add("call.hold", Hold, switch.hold, summary="Holds.")
    assert await commands.execute(ANNA, "call.hold", {"call": "1"}) == {"held": "1"}


async def test_the_basics_answer_and_names_are_unique() -> None:
    commands = Commands(audit=lambda *_: None)
    add_basics(commands, seq=lambda: 7, snapshot=lambda actor: {"for": actor.login})
    assert (await commands.execute(ANNA, "ping", {})).seq == 7
    assert await commands.execute(ROOT, "state.get", {}) == {"seq": 7, "data": {"for": "root"}}
    with pytest.raises(ValueError, match="twice"):
        add_basics(commands, seq=lambda: 7, snapshot=lambda _actor: None)
    assert [command.op for command in commands] == ["ping", "state.get"]


def test_a_bucket_lets_through_its_burst_then_its_rate() -> None:
    now = 0.0
    bucket = Bucket(2.0, 3.0, lambda: now)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now = 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]
    now = 100.0
    assert bucket.full


def test_depth_and_nul_are_found_anywhere() -> None:
    value: Any = "leaf"
    for _ in range(32):
        value = {"a": [value]} if not isinstance(value, dict) else {"a": value}
    assert not too_deep({"a": 1})
    assert too_deep([value] * 2)
    assert has_nul({"a": [{"b\0": 1}]})
    assert not has_nul({"a": ["b", 1, None]})
