"""A client of `cti.v1`: connects, resumes after a break, folds snapshot and facts into a picture of now, sends commands.

What the fold does is the table in docs/protocol.md, no more; this client knows nothing that a stranger's could not.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from cti.protocol import CLOSE_CODES, NOT_AUTHENTICATED, SUBPROTOCOL

Frame = dict[str, Any]
BEAT = "beat"
PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds between attempts to connect, each taken half to whole by chance so that clients do not come all at once."""


class Refused(Exception):
    """The server does not want this client back: `code` is the close code, the message its reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class CommandFailed(Exception):
    """A command was answered with an error; `code` is for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class Picture:
    """What the server has told, by id. `me`: the login; `mine_only`: an agent's client, which forgets calls it has left."""

    me: str = ""
    mine_only: bool = False
    calls: dict[str, Frame] = field(default_factory=dict)
    agents: dict[str, Frame] = field(default_factory=dict)
    queues: dict[str, Frame] = field(default_factory=dict)
    pbxs: dict[str, Frame] = field(default_factory=dict)
    database: Frame | None = None
    pops: dict[str, Frame] = field(default_factory=dict)
    supervisions: dict[str, Frame] = field(default_factory=dict)
    messages: dict[int, Frame] = field(default_factory=dict)
    help: dict[str, Frame] = field(default_factory=dict)
    alarms: dict[str, Frame] = field(default_factory=dict)
    work: dict[str, Frame] = field(default_factory=dict)
    blending: dict[str, Frame] = field(default_factory=dict)
    call_backs: dict[int, Frame] = field(default_factory=dict)
    campaigns: dict[int, Frame] = field(default_factory=dict)
    campaigns_now: dict[int, Frame] = field(default_factory=dict)
    offers: dict[str, Frame] = field(default_factory=dict)
    reasons: dict[str, Frame] = field(default_factory=dict)
    wrap_up: dict[str | None, Frame] = field(default_factory=dict)

    def show(self, data: Frame) -> None:
        """Takes a snapshot over in place of everything."""
        self.calls = {call["id"]: call for call in data["calls"]}
        self.agents = {agent["agent"]: agent for agent in data["agents"]}
        self.queues = {queue["id"]: queue for queue in data["queues"]}
        self.pbxs = {pbx["id"]: pbx for pbx in data["pbxs"]}
        self.database = data.get("database")
        self.pops = {pop["id"]: pop for pop in data["pops"]}
        self.supervisions = {one["supervisor"]: one for one in data.get("supervisions", ())}
        self.messages = {message["id"]: message for message in data.get("messages", ())}
        self.help = {request["id"]: request for request in data.get("help", ())}
        self.alarms = {alarm["id"]: alarm for alarm in data.get("alarms", ())}
        self.work = {item["id"]: item for item in data.get("work", ())}
        self.blending = {one["agent"]: one for one in data.get("blending", ())}
        self.call_backs = {one["id"]: one for one in data.get("call_backs", ())}
        self.campaigns = {one["id"]: one for one in data.get("campaigns", ())}
        self.campaigns_now = {one["campaign"]: one for one in data.get("campaigns_now", ())}
        self.offers = {one["offer"]: one for one in data.get("offers", ())}
        self.reasons = {one["name"]: one for one in data.get("reasons", ())}
        self.wrap_up = {one["queue"]: one for one in data.get("wrap_up", ())}

    def wrap_up_of(self, of: Frame) -> Frame | None:
        """What follows a call, or a pop's call: its campaign's rule, or its queue's, or the general one."""
        id = str(of["data"].get("campaign_id", ""))
        campaign = self.campaigns.get(int(id)) if id.isdecimal() else None
        if campaign is not None:
            rule: Frame = campaign["wrap_up"]
            return rule
        return self.wrap_up.get(of["queue"]) or self.wrap_up.get(None)

    def fold(self, fact: Frame) -> None:
        """Changes the picture by one fact; facts it does not know change nothing."""
        kind, data = fact["type"], fact["data"]
        noun = kind.partition(".")[0]
        if noun == "call":
            self._call(kind, data)
        elif noun == "queue":
            self._queue(kind, data, fact["at"])
            self._queues_of(kind, data)
        elif kind == "agent.state_changed" and data["agent"] in self.agents:
            kept = ("since", "reason", "by", "why", "call", "pending", "until", "device")
            self.agents[data["agent"]] |= {"state": data["new"], **{name: data[name] for name in kept}}
        elif kind == "agent.reachability_changed" and data["agent"] in self.agents:
            self.agents[data["agent"]] |= {"reachable": data["reachable"]}
        elif kind == "agent.line_changed" and data["agent"] in self.agents:
            lines = self.agents[data["agent"]]["lines"]
            others = {pbx: line for pbx, line in lines.items() if pbx != data["pbx"]}
            new = {} if data["line"] == "closed" else {data["pbx"]: data["line"]}
            self.agents[data["agent"]] |= {"lines": others | new}
        elif kind == "agent.off_hook_changed" and data["agent"] in self.agents:
            self.agents[data["agent"]] |= {"off_hook": data["off_hook"]}
        elif kind == "pbx.status_changed":
            told = {name: data[name] for name in ("phase", "code", "why")}
            self.pbxs[data["pbx"]] = {"id": data["pbx"], "since": fact["at"], **told}
        elif kind == "database.status_changed":
            self.database = {"up": data["up"], "why": data["why"], "since": fact["at"]}
        elif kind in ("pop.shown", "pop.updated"):
            self.pops[data["pop"]] = data["view"]
        elif kind == "pop.withdrawn":
            self.pops.pop(data["pop"], None)
        elif noun == "call_back" and "view" in data:
            self.call_backs[data["call_back"]] = data["view"]
        elif noun == "call_back":
            self.call_backs.pop(data["call_back"], None)
        elif noun in ("supervision", "message", "help", "alarm"):
            self._desk(kind, data, fact["at"])
        elif noun == "work":
            self._work(data["view"])
        elif noun == "campaign":
            self._campaign(kind, data)
        elif noun == "offer" and "view" in data:
            self.offers[data["offer"]] = data["view"]
        elif noun == "offer":
            self.offers.pop(data["offer"], None)
        elif kind == "blending.changed":
            self.blending[data["agent"]] = {**data, "since": fact["at"]}
            if data["why"] is None:
                del self.blending[data["agent"]]

    def _campaign(self, kind: str, data: Frame) -> None:
        match kind:
            case "campaign.added" | "campaign.changed" | "campaign.state_changed":
                self.campaigns[data["campaign"]] = data["view"]
            case "campaign.goes":
                self.campaigns_now[data["campaign"]] = data["now"]
            case "campaign.removed":
                self.campaigns.pop(data["campaign"], None)
                self.campaigns_now.pop(data["campaign"], None)

    def _work(self, view: Frame) -> None:
        """Other work: gone when it is over, and from an agent's client when it is not theirs any more."""
        self.work[view["id"]] = view
        if view["state"] in ("done", "cancelled", "failed") or (self.mine_only and view["agent"] != self.me):
            del self.work[view["id"]]

    def _desk(self, kind: str, data: Frame, at: str) -> None:
        """Between supervisors and agents."""
        match kind:
            case "supervision.started" | "supervision.changed":
                self.supervisions[data["supervisor"]] = {"since": at, **data}
            case "supervision.ended":
                self.supervisions.pop(data["supervisor"], None)
            case "message.sent" if self.me in data["agents"]:
                told = {name: data[name] for name in ("sender", "sender_name", "team", "text")}
                self.messages[data["message"]] = {"id": data["message"], "at": at, "agent": self.me, **told}
            case "message.read" if data["agent"] == self.me:
                self.messages.pop(data["message"], None)
            case "help.requested":
                told = {name: data[name] for name in ("agent", "call", "text")}
                self.help[data["help"]] = {
                    "id": data["help"],
                    "since": at,
                    "taken_by": None,
                    "taken": None,
                    **told,
                }
            case "help.accepted" if data["help"] in self.help:
                self.help[data["help"]] |= {"taken_by": data["by"], "taken": at}
            case "help.closed":
                self.help.pop(data["help"], None)
            case "alarm.raised":
                told = {name: data[name] for name in data if name != "alarm"}
                seen = {"acknowledged_by": None, "acknowledged": None}
                self.alarms[data["alarm"]] = {"id": data["alarm"], "since": at, **seen, **told}
            case "alarm.acknowledged" if data["alarm"] in self.alarms:
                self.alarms[data["alarm"]] |= {"acknowledged_by": data["by"], "acknowledged": at}
            case "alarm.cleared":
                self.alarms.pop(data["alarm"], None)

    def _call(self, kind: str, data: Frame) -> None:
        id = data["call"]
        if kind == "call.cleared":
            self.calls.pop(id, None)
            return
        if "view" in data:
            self.calls[id] = data["view"]
        if kind == "call.merged":
            self._left(data["merged"], data["connection"]["id"])
        call = self.calls.get(id)
        if call is None:
            return
        connection = data.get("connection")
        if connection is not None and "view" not in data:
            others = [other for other in call["connections"] if other["id"] != connection["id"]]
            call["connections"] = others if connection["state"] == "null" else [*others, connection]
        if kind == "call.data_changed":
            merged = call["data"] | data["changed"]
            call["data"] = {name: value for name, value in merged.items() if value != ""}
        elif kind == "call.caller_changed":
            call |= {"ani": data["ani"], "ani_name": data["ani_name"]}
        self._keep_if_mine(id)

    def _left(self, id: str, connection: str) -> None:
        call = self.calls.get(id)
        if call is not None:
            call["connections"] = [one for one in call["connections"] if one["id"] != connection]
            self._keep_if_mine(id)

    def _keep_if_mine(self, id: str) -> None:
        parts = self.calls[id]["connections"]
        if self.mine_only and not any(part["agent"] == self.me for part in parts):
            del self.calls[id]

    def _queue(self, kind: str, data: Frame, at: str) -> None:
        if kind == "queue.added":
            self.queues.setdefault(
                data["queue"],
                {"id": data["queue"], "pbx": data["pbx"], "name": data["name"], "waiting": [], "members": []},
            )
        queue = self.queues.get(data["queue"])
        if queue is None:
            return
        waiting = [caller for caller in queue["waiting"] if caller["call"] != data.get("call")]
        members = [member for member in queue["members"] if member["interface"] != data.get("interface")]
        was = next((m for m in queue["members"] if m["interface"] == data.get("interface")), None)
        match kind:
            case "queue.removed":
                del self.queues[data["queue"]]
            case "queue.caller_joined":
                waiting.insert(data["position"] - 1, {"call": data["call"], "position": 0, "since": at})
                queue["waiting"] = _numbered(waiting)
            case "queue.caller_left":
                queue["waiting"] = _numbered(waiting)
            case "queue.member_joined":
                queue["members"] = [*members, {name: data[name] for name in data if name != "queue"}]
            case "queue.member_left":
                queue["members"] = members
            case "queue.member_paused" if was is not None:
                was |= {"paused": data["paused"], "pause_reason": data["reason"]}
            case "queue.member_status_changed" if was is not None:
                was |= {"status": data["status"], "penalty": data["penalty"]}

    def _queues_of(self, kind: str, data: Frame) -> None:
        agent = self.agents.get(data.get("agent") or "")
        if agent is None:
            return
        others = [queue for queue in agent["queues"] if queue != data["queue"]]
        if kind == "queue.member_joined":
            agent["queues"] = sorted([*others, data["queue"]])
        elif kind == "queue.member_left":
            agent["queues"] = others


def _numbered(waiting: list[Frame]) -> list[Frame]:
    return [caller | {"position": place} for place, caller in enumerate(waiting, 1)]


@dataclass(slots=True)
class _Asked:
    frame: Frame
    answer: asyncio.Future[Any]


class Client:
    """One user's connection, kept up. `token` is asked for whenever one is needed: a fresh one, please.

    Iterate over `follow()` for the frames; `picture` has taken each in before it is handed out. Commands that were not
    answered when the line broke are sent again with their ids, so they are carried out once.
    """

    def __init__(
        self,
        url: str,
        token: Callable[[], Awaitable[str]],
        *,
        phone: bool = False,
        name: str = "cti client",
        heartbeat: float = 20.0,
    ) -> None:
        self._url = url
        self._token = token
        self._phone = phone
        self._name = name
        self._heartbeat = heartbeat
        self._asked: dict[str, _Asked] = {}
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._resume: Frame | None = None
        self._epoch = ""
        self._renewal: asyncio.Task[None] | None = None
        self.picture = Picture()
        self.connected = False
        self.resumes = 0
        self.snapshots = 0

    async def ask(self, op: str, *, seconds: float = 15.0, **args: Any) -> Any:
        """Sends a command and returns its data; raises CommandFailed, or TimeoutError after so many seconds.

        Works while `follow()` is being iterated over.
        """
        id = uuid.uuid4().hex
        asked = _Asked({"op": op, "id": id, "args": args}, asyncio.get_running_loop().create_future())
        self._asked[id] = asked
        try:
            async with asyncio.timeout(seconds):
                if self._socket is not None:
                    with suppress(ConnectionError):  # it is sent again on the next connection
                        await self._send(self._socket, asked.frame)
                return await asked.answer
        finally:
            del self._asked[id]

    async def follow(self) -> AsyncIterator[Frame]:
        """Yields every frame after it was taken in, for ever, over breaks; raises Refused when coming back is no use."""
        failures = 0
        async with aiohttp.ClientSession() as http:
            while True:
                close_code, reason = 1006, "no connection"
                try:
                    socket = await http.ws_connect(
                        self._url,
                        protocols=(SUBPROTOCOL,),
                        heartbeat=self._heartbeat,
                        max_msg_size=1 << 28,
                        timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                    )
                except (aiohttp.ClientError, OSError, TimeoutError):
                    pass
                else:
                    beat = asyncio.create_task(self._beat(socket))
                    try:
                        await self._hello(socket)
                        async for frame in self._frames(socket):
                            if frame["type"] == "goodbye":
                                reason = frame["reason"]
                            elif frame["type"] == "welcome":
                                failures = 0
                            yield frame
                        close_code = socket.close_code or 1006
                    finally:
                        beat.cancel()
                        if self._renewal is not None:
                            self._renewal.cancel()
                        await socket.close()
                self.connected, self._socket = False, None
                known = CLOSE_CODES.get(close_code)
                # An expired token is renewed once; a second 4401 in a row means that this user may not come in.
                if (
                    known is not None
                    and not known.come_back
                    and not (known is NOT_AUTHENTICATED and failures == 0)
                ):
                    raise Refused(close_code, reason)
                pause = PAUSES[min(failures, len(PAUSES) - 1)]
                failures += 1
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  no secret hangs on it

    async def _hello(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        hello: Frame = {
            "op": "hello",
            "id": uuid.uuid4().hex,
            "token": await self._token(),
            "client": self._name,
        }
        if self._resume is not None:
            hello["resume"] = self._resume
        if self._phone:
            hello["phone"] = True
        with suppress(ConnectionError):
            await self._send(socket, hello)

    async def _beat(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        with suppress(ConnectionError):
            while True:
                await asyncio.sleep(self._heartbeat)
                await self._send(socket, {"op": "ping", "id": BEAT})

    async def _frames(self, socket: aiohttp.ClientWebSocketResponse) -> AsyncIterator[Frame]:
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            frame: Frame = msgspec.json.decode(message.data)
            await self._take(socket, frame)
            yield frame

    async def _take(self, socket: aiohttp.ClientWebSocketResponse, frame: Frame) -> None:
        kind = frame["type"]
        if kind == "welcome":
            agent = frame["agent"]
            self.picture.me, self.picture.mine_only = agent["login"], agent["role"] == "agent"
            if frame["resumed"]:
                self.resumes += 1
            else:  # until the snapshot is here there is nothing to resume from
                self._resume, self._epoch = None, frame["epoch"]
            self.connected, self._socket = True, socket
            with suppress(ConnectionError):
                for asked in list(self._asked.values()):
                    await self._send(socket, asked.frame)
        elif kind == "snapshot":
            self.snapshots += 1
            self.picture.show(frame["data"])
            self._resume = {"epoch": self._epoch, "seq": frame["seq"]}
        elif kind == "result" and frame["id"] == BEAT:
            # Everything up to this number that is for us has come before the answer.
            if self._resume is not None:
                self._resume["seq"] = max(self._resume["seq"], frame["data"]["seq"])
        elif kind == "result":
            self._answer(frame)
        elif kind == "token_expiring":
            if self._renewal is None or self._renewal.done():
                self._renewal = asyncio.create_task(self._renew(socket))
        elif "seq" in frame and self._resume is not None:
            self.picture.fold(frame)
            self._resume["seq"] = frame["seq"]

    async def _renew(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Beside the facts: a token may take long while the server's database is away, and what happens is shown meanwhile.
        One that is not to be had ends the connection in time, and then it is asked for again."""
        with suppress(Exception):
            args = {"token": await self._token()}
            await self._send(socket, {"op": "auth.renew", "id": uuid.uuid4().hex, "args": args})

    def _answer(self, frame: Frame) -> None:
        asked = self._asked.get(frame["id"])
        if asked is None or asked.answer.done():
            return
        if frame["ok"]:
            asked.answer.set_result(frame["data"])
        else:
            error = frame["error"]
            asked.answer.set_exception(CommandFailed(error["code"], error["message"]))

    @staticmethod
    async def _send(socket: aiohttp.ClientWebSocketResponse, frame: Frame) -> None:
        await socket.send_str(msgspec.json.encode(frame).decode())
