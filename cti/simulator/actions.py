"""AMI actions of the simulated PBX, answered as Asterisk 22 answers them. What it cannot do it calls an unknown command."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from cti.simulator.messages import channel_headers, message
from cti.simulator.pbx import IN_USE, NOT_IN_USE, Call, Pbx, Refused, member_headers

Headers = Mapping[str, str]
Row = list[tuple[str, str]]

VERSION = "22.10.1 (AMI simulator)"
"""What CoreSettings says; whoever shows the PBX's version shows that it is none."""

_CALLER_ID = re.compile(r'\s*(?:"?([^"<]*?)"?\s*)?<([^>]*)>')
_TRUE = frozenset({"1", "true", "yes", "y", "t", "on"})


class Actions:
    """Answers the actions of logged-in sessions. Names of actions and headers are taken in any case, as Asterisk does."""

    def __init__(self, pbx: Pbx, *, clock: Callable[[], float]) -> None:
        self._pbx = pbx
        self._clock = clock
        self._handlers: dict[str, tuple[str, Callable[[Headers], bytes]]] = {
            "coresettings": (
                "Show PBX core settings (version etc).  (Priv: system,reporting,all)",
                self._settings,
            ),
            "coreshowchannels": (
                "List currently active channels.  (Priv: system,reporting,all)",
                self._channels,
            ),
            "corestatus": ("Show PBX core status variables.  (Priv: system,reporting,all)", self._status),
            "hangup": ("Hangup channel.  (Priv: system,call,all)", self._hangup),
            "listcommands": ("List available manager commands.  (Priv: <none>)", self._commands),
            "originate": ("Originate a call.  (Priv: originate,all)", self._originate),
            "parkedcalls": ("List parked calls.  (Priv: <none>)", self._parked),
            "ping": ("Keepalive command.  (Priv: <none>)", self._ping),
            "queueadd": ("Add interface to queue.  (Priv: agent,all)", self._queue_add),
            "queuepause": (
                "Makes a queue member temporarily unavailable.  (Priv: agent,all)",
                self._queue_pause,
            ),
            "queuepenalty": ("Set the penalty for a queue member.  (Priv: agent,all)", self._queue_penalty),
            "queueremove": ("Remove interface from queue.  (Priv: agent,all)", self._queue_remove),
            "queuestatus": ("Show queue status.  (Priv: <none>)", self._queue_status),
            "queuesummary": ("Show queue summary.  (Priv: <none>)", self._queue_summary),
            "userevent": ("Send an arbitrary event.  (Priv: user,all)", self._user_event),
        }

    def answer(self, headers: Headers) -> bytes:
        """The whole answer to an action, rows of a list included. `headers` have lower-case names."""
        name = headers.get("action", "")
        handler = self._handlers.get(name.lower())
        if handler is None:
            known = f"Invalid/unknown command: {name}. Use Action: ListCommands to show available commands."
            return respond(headers, "Error", known if name else "Missing action in request")
        try:
            return handler[1](headers)
        except Refused as refusal:
            return respond(headers, "Error", str(refusal))

    # ------------------------------------------------------------------------------------------ about the PBX

    def _ping(self, headers: Headers) -> bytes:
        return respond(headers, "Success", None, [("Ping", "Pong"), ("Timestamp", f"{self._clock():.6f}")])

    def _user_event(self, headers: Headers) -> bytes:
        self._need(headers, "userevent")
        own = [(name.title(), value) for name, value in headers.items() if name not in ("action", "actionid")]
        stamp = f"{self._clock():.6f}"
        first = [("Event", "UserEvent"), ("Privilege", "user,all"), ("Timestamp", stamp)]
        given = [("UserEvent" if name == "Userevent" else name, value) for name, value in own]
        self._pbx.say(message([*first, *given]))
        return respond(headers, "Success", "Event Sent")

    def _settings(self, headers: Headers) -> bytes:
        return respond(
            headers,
            "Success",
            None,
            [
                ("AMIversion", "11.0.0"),
                ("AsteriskVersion", VERSION),
                ("SystemName", ""),
                ("CoreMaxCalls", "0"),
                ("CoreMaxLoadAvg", "0.000000"),
                ("CoreRunUser", ""),
                ("CoreRunGroup", ""),
                ("CoreMaxFilehandles", "65536"),
                ("CoreRealTimeEnabled", "No"),
                ("CoreCDRenabled", "Yes"),
                ("CoreHTTPenabled", "No"),
                ("SoundsSearchCustomDir", "No"),
            ],
        )

    def _status(self, headers: Headers) -> bytes:
        began = datetime.fromtimestamp(self._pbx.started, UTC).astimezone()
        day, hour = began.strftime("%Y-%m-%d"), began.strftime("%H:%M:%S")
        return respond(
            headers,
            "Success",
            None,
            [
                ("CoreStartupDate", day),
                ("CoreStartupTime", hour),
                ("CoreReloadDate", day),
                ("CoreReloadTime", hour),
                ("CoreCurrentCalls", str(len(self._pbx.calls))),
                ("CoreProcessedCalls", str(self._pbx.ended)),
            ],
        )

    def _commands(self, headers: Headers) -> bytes:
        names = {
            "challenge": "Challenge",
            "events": "Events",
            "login": "Login",
            "logoff": "Logoff",
            **{name: _PROPER[name] for name in self._handlers},
        }
        rows = [(proper, self._handlers.get(name, (_SESSION,))[0]) for name, proper in sorted(names.items())]
        return respond(headers, "Success", None, rows)

    def _parked(self, headers: Headers) -> bytes:
        return _list(headers, "Parked calls will follow", "ParkedCallsComplete", [], [("Total", "0")])

    def _channels(self, headers: Headers) -> bytes:
        now = self._clock()
        rows = [row for call in self._pbx.calls.values() for row in channel_rows(call, now)]
        return _list(headers, "Channels will follow", "CoreShowChannelsComplete", rows, action_id_first=True)

    # ------------------------------------------------------------------------------------------ calls

    def _hangup(self, headers: Headers) -> bytes:
        self._pbx.hang_up(headers.get("channel", ""))
        return respond(headers, "Success", "Channel Hungup")

    def _originate(self, headers: Headers) -> bytes:
        channel, exten = headers.get("channel", ""), headers.get("exten", "")
        context = headers.get("context", "")
        if not channel:
            raise Refused("Channel not specified")
        if not exten or not context or not headers.get("priority"):
            raise Refused("Originate with 'Exten' requires 'Context' and 'Priority'")
        if headers.get("async", "").lower() not in _TRUE:
            raise Refused("The simulator originates with Async: true only")
        asked = _CALLER_ID.match(headers.get("callerid", ""))
        number, name = (asked[2], asked[1] or "") if asked else (headers.get("callerid", ""), "")
        variables = dict(part.partition("=")[::2] for part in headers.get("variable", "").split("\n"))
        tag = variables.get("CTI_CALL", "")

        def answered(up: str) -> None:
            row = [
                ("Event", "OriginateResponse"),
                ("Privilege", "call,all"),
                ("Timestamp", f"{self._clock():.6f}"),
                *([("ActionID", headers["actionid"])] if "actionid" in headers else []),
                ("Response", "Success" if up else "Failure"),
                ("Channel", up or channel),
                ("Context", context),
                ("Exten", exten),
                ("Reason", "4" if up else "0"),
                ("Uniqueid", headers.get("channelid", "") or "<null>"),
                ("CallerIDNum", number or "<unknown>"),
                ("CallerIDName", name or "<unknown>"),
            ]
            if up:
                row += [(f"ChanVariable({up})", f"CTI_CALL={tag}"), (f"ChanVariable({up})", "CTI_DID=")]
            self._pbx.say(message(row))

        self._pbx.originate(
            channel,
            exten,
            channel_id=headers.get("channelid", ""),
            tag=tag,
            number_name=name,
            answered=answered,
        )
        return respond(headers, "Success", "Originate successfully queued")

    # ------------------------------------------------------------------------------------------ queues

    def _queue_add(self, headers: Headers) -> bytes:
        self._need(headers, "queue", "interface")
        self._pbx.add_member(
            headers["queue"],
            headers["interface"],
            headers.get("membername", ""),
            state_interface=headers.get("stateinterface", ""),
            penalty=_number(headers.get("penalty", "")),
            paused=headers.get("paused", "").lower() in _TRUE,
            reason=headers.get("reason", ""),
        )
        return respond(headers, "Success", "Added interface to queue")

    def _queue_remove(self, headers: Headers) -> bytes:
        self._need(headers, "queue", "interface")
        self._pbx.remove_member(headers["queue"], headers["interface"])
        return respond(headers, "Success", "Removed interface from queue")

    def _queue_pause(self, headers: Headers) -> bytes:
        self._need(headers, "interface", "paused")
        paused = headers["paused"].lower() in _TRUE
        self._pbx.pause_member(
            headers.get("queue", ""), headers["interface"], paused, headers.get("reason", "")
        )
        return respond(headers, "Success", f"Interface {'' if paused else 'un'}paused successfully")

    def _queue_penalty(self, headers: Headers) -> bytes:
        self._need(headers, "interface", "penalty")
        self._pbx.set_penalty(headers.get("queue", ""), headers["interface"], _number(headers["penalty"]))
        return respond(headers, "Success", "Interface penalty set successfully")

    @staticmethod
    def _need(headers: Headers, *names: str) -> None:
        for name in names:
            if not headers.get(name):
                raise Refused(f"Need '{name.title()}' parameter.")

    def _queue_status(self, headers: Headers) -> bytes:
        now, rows = self._clock(), []
        for queue in self._pbx.queues.values():
            if headers.get("queue", queue.name) != queue.name:
                continue
            rows.append(
                [
                    ("Event", "QueueParams"),
                    ("Queue", queue.name),
                    ("Max", "0"),
                    ("Strategy", "rrmemory"),
                    ("Calls", str(len(queue.waiting))),
                    ("Holdtime", str(int(queue.waited / max(1, queue.completed)))),
                    ("TalkTime", str(int(queue.talked / max(1, queue.completed)))),
                    ("Completed", str(queue.completed)),
                    ("Abandoned", str(queue.abandoned)),
                    ("ServiceLevel", "0"),
                    ("ServicelevelPerf", "0.0"),
                    ("ServicelevelPerf2", "0.0"),
                    ("Weight", "0"),
                ]
            )
            for member in queue.members.values():
                if headers.get("member", member.interface) != member.interface:
                    continue
                fields = member_headers(member)
                rows.append(
                    [("Event", "QueueMember")]
                    + [
                        (_ROW_NAMES.get(name, name), value)
                        for name, value in fields.items()
                        if name != "Ringinuse"
                    ]
                )
            for place, call in enumerate(queue.waiting.values(), start=1):
                values = call.values
                name = values[b"ani_name"].decode()
                rows.append(
                    [
                        ("Event", "QueueEntry"),
                        ("Queue", queue.name),
                        ("Position", str(place)),
                        ("Channel", values[b"caller"].decode()),
                        ("Uniqueid", values[b"call"].decode()),
                        ("CallerIDNum", values[b"ani"].decode()),
                        ("CallerIDName", "unknown" if name == "<unknown>" else name),
                        ("ConnectedLineNum", values[b"line"].decode().strip("<>")),
                        ("ConnectedLineName", values[b"line_name"].decode().strip("<>")),
                        ("Wait", str(int(now - call.joined))),
                        ("Priority", "0"),
                    ]
                )
        return _list(headers, "Queue status will follow", "QueueStatusComplete", rows)

    def _queue_summary(self, headers: Headers) -> bytes:
        now, rows = self._clock(), []
        for queue in self._pbx.queues.values():
            if headers.get("queue", queue.name) != queue.name:
                continue
            longest = max((now - call.joined for call in queue.waiting.values()), default=0.0)
            logged_in = [m for m in queue.members.values() if m.status in (NOT_IN_USE, IN_USE)]
            rows.append(
                [
                    ("Event", "QueueSummary"),
                    ("Queue", queue.name),
                    ("LoggedIn", str(len(logged_in))),
                    ("Available", str(len(queue.free))),
                    ("Callers", str(len(queue.waiting))),
                    ("HoldTime", str(int(queue.waited / max(1, queue.completed)))),
                    ("TalkTime", str(int(queue.talked / max(1, queue.completed)))),
                    ("LongestHoldTime", str(int(longest))),
                ]
            )
        return _list(headers, "Queue summary will follow", "QueueSummaryComplete", rows)


_SESSION = "(Priv: <none>)"
_PROPER = {
    "coresettings": "CoreSettings",
    "coreshowchannels": "CoreShowChannels",
    "corestatus": "CoreStatus",
    "hangup": "Hangup",
    "listcommands": "ListCommands",
    "originate": "Originate",
    "parkedcalls": "ParkedCalls",
    "ping": "Ping",
    "queueadd": "QueueAdd",
    "queuepause": "QueuePause",
    "queuepenalty": "QueuePenalty",
    "queueremove": "QueueRemove",
    "queuestatus": "QueueStatus",
    "queuesummary": "QueueSummary",
    "userevent": "UserEvent",
}
_ROW_NAMES = {"MemberName": "Name", "Interface": "Location"}


def respond(headers: Headers, response: str, text: str | None, more: Row | None = None) -> bytes:
    """A Response, with the action's own id."""
    row = [("Response", response)]
    if "actionid" in headers:
        row.append(("ActionID", headers["actionid"]))
    if text is not None:
        row.append(("Message", text))
    return message([*row, *(more or [])])


def _list(
    headers: Headers,
    text: str,
    complete: str,
    rows: list[Row],
    more: Row | None = None,
    *,
    action_id_first: bool = False,
) -> bytes:
    mine = [("ActionID", headers["actionid"])] if "actionid" in headers else []
    parts = [message([("Response", "Success"), *mine, ("EventList", "start"), ("Message", text)])]
    for row in rows:
        parts.append(message([row[0], *mine, *row[1:]] if action_id_first else [*row, *mine]))
    end = [
        ("Event", complete),
        *mine,
        ("EventList", "Complete"),
        ("ListItems", str(len(rows))),
        *(more or []),
    ]
    parts.append(message(end))
    return b"".join(parts)


def _number(text: str) -> int:
    try:
        return max(0, int(text or 0))
    except ValueError:
        return 0


def channel_rows(call: Call, now: float) -> list[Row]:
    """A call's channels as CoreShowChannels lists them."""
    values = {name.decode(): value.decode() for name, value in call.values.items()}
    talking = call.stage == "talking"
    unknown = "<unknown>"
    ids = {"CTI_CALL": values["call"], "CTI_DID": values.get("did", "")}
    first: dict[str, str] = {"priority": "8", "line": unknown, "line_name": unknown, **ids}
    if call.queue is not None:
        waits = call.stage != "arriving"
        first |= {
            "channel": values["caller"],
            "id": values["call"],
            "num": values["ani"],
            "name": values["ani_name"],
            "context": "from-trunk",
            "exten": values["did"],
            "state": "Up",
            "line": values["line"],
            "line_name": values["line_name"],
        }
        what = ("Queue", f"{values['queue']},tTkKxX,,,60") if waits else ("Answer", "")
    else:
        first |= {
            "channel": values["agent"],
            "id": values["call"],
            "num": values["number"],
            "name": values["number_name"],
            "context": "from-agent",
            "exten": values["exten"],
            "priority": "1",
            "state": "Ringing" if call.stage == "lifting" else "Up",
            "CTI_CALL": values["tag"],
        }
        lifting = call.stage == "lifting"
        what = (
            ("AppDial2", "(Outgoing Line)")
            if lifting
            else ("Dial", f"PJSIP/{values['number']}@trunk,30,tTkKxX")
        )
    rows = [_channel_row(first, values, what, now - call.started, talking)]
    second: dict[str, str] = {"priority": "1", "state": "Up" if talking else "Ringing", **ids}
    if call.queue is not None and call.phone is not None:
        second |= {
            "channel": values["agent"],
            "id": values["leg"],
            "num": values["extension"],
            "name": values["agent_name"],
            "context": "from-agent",
            "exten": values["did"],
            "line": values["ani"],
            "line_name": values["ani_name"],
        }
        rows.append(
            _channel_row(second, values, ("AppQueue", "(Outgoing Line)"), now - call.leg_started, talking)
        )
    elif "customer" in values:
        second |= {
            "channel": values["customer"],
            "id": values["leg"],
            "num": values["exten"],
            "name": values["number_name"],
            "context": "from-trunk",
            "exten": values["exten"],
            "CTI_CALL": "",
            "line": values["number"],
            "line_name": values["number_name"],
        }
        rows.append(
            _channel_row(second, values, ("AppDial", "(Outgoing Line)"), now - call.leg_started, talking)
        )
    return rows


def _channel_row(
    channel: dict[str, str], values: dict[str, str], what: tuple[str, str], age: float, bridged: bool
) -> Row:
    minutes, seconds = divmod(int(age), 60)
    row = [(name, values["call"] if value == "{call}" else value) for name, value in channel_headers(channel)]
    return [
        ("Event", "CoreShowChannel"),
        *row,
        ("Application", what[0]),
        ("ApplicationData", what[1]),
        ("Duration", f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}"),
        ("BridgeId", values["bridge"] if bridged else ""),
    ]
