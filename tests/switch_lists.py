"""What Asterisk would list at a moment of a trace: channels, callers waiting, parked calls. Follows the raw events with no
idea of calls, so the call model can be compared with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cti.ami_events import ChannelRow, ChannelState, ParkedRow, WaitingRow, fields_of

APPLICATION_OF_DIALLED = {"Queue": "AppQueue", "Dial": "AppDial"}


@dataclass(slots=True)
class _Channel:
    linkedid: str
    name: str
    state: ChannelState
    number: str
    caller_name: str
    exten: str
    context: str
    made: float
    application: str = ""
    data: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    bridge: str | None = None
    queue: str | None = None
    joined: float = 0.0
    parked: tuple[str, str] | None = None


@dataclass(slots=True)
class Switch:
    """The channels of an Asterisk, from its events."""

    channels: dict[str, _Channel] = field(default_factory=dict)
    now: float = 0.0

    def hear(self, raw: bytes) -> None:
        if not raw.startswith(b"Event: "):
            return
        f = fields_of(raw)
        if "ActionID" in f and f["Event"] not in {"OriginateResponse"}:  # a row of a list
            return
        self.now = float(f.get("Timestamp", self.now))
        if f["Event"] == "Newchannel":
            self.channels[f["Uniqueid"]] = _Channel(
                f["Linkedid"],
                f["Channel"],
                ChannelState(f["ChannelStateDesc"]),
                f["CallerIDNum"],
                f["CallerIDName"],
                f["Exten"],
                f["Context"],
                self.now,
            )
        self._about(raw, f, f.get("ParkeeUniqueid") or f.get("Uniqueid"))
        if f["Event"] == "DialBegin" and (dialled := self.channels.get(f["DestUniqueid"])) is not None:
            dialler = self.channels.get(f.get("Uniqueid", ""))
            running = dialler.application if dialler else ""
            dialled.application = APPLICATION_OF_DIALLED.get(running, "AppDial" if dialler else "AppDial2")

    def _about(self, raw: bytes, f: dict[str, str], uniqueid: str | None) -> None:
        channel = self.channels.get(uniqueid or "")
        if channel is None:
            return
        channel.linkedid = f.get("ParkeeLinkedid") or f.get("Linkedid") or channel.linkedid
        channel.variables |= variables_of(raw)
        match f["Event"]:
            case "Hangup":
                del self.channels[f["Uniqueid"]]
            case "Newstate":
                channel.state = ChannelState(f["ChannelStateDesc"])
            case "Newexten":
                channel.application, channel.data = f.get("Application", ""), f.get("AppData", "")
            case "NewCallerid":
                channel.number, channel.caller_name = f["CallerIDNum"], f["CallerIDName"]
            case "BridgeEnter":
                channel.bridge = f["BridgeUniqueid"]
                channel.queue = None
            case "BridgeLeave" if channel.bridge == f["BridgeUniqueid"]:
                channel.bridge = None
            case "QueueCallerJoin":
                channel.queue, channel.joined = f["Queue"], self.now
            case "QueueCallerLeave" | "QueueCallerAbandon":
                channel.queue = None
            case "ParkedCall":
                channel.parked = f["Parkinglot"], f["ParkingSpace"]
            case "UnParkedCall" | "ParkedCallTimeOut" | "ParkedCallGiveUp":
                channel.parked = None

    def lists(self) -> tuple[list[ChannelRow], list[WaitingRow], list[ParkedRow], float]:
        """CoreShowChannels, QueueStatus, ParkedCalls, and the time."""
        rows = [
            ChannelRow(
                uniqueid,
                c.linkedid,
                c.name,
                c.state,
                _text(c.number),
                _text(c.caller_name),
                c.exten,
                c.context,
                c.application,
                c.bridge,
                int(self.now - c.made),
                dict(c.variables),
                c.data,
            )
            for uniqueid, c in self.channels.items()
        ]
        waiting = [
            WaitingRow(c.queue, uniqueid, 1, int(self.now - c.joined))
            for uniqueid, c in self.channels.items()
            if c.queue is not None
        ]
        parked = [
            ParkedRow(uniqueid, *c.parked) for uniqueid, c in self.channels.items() if c.parked is not None
        ]
        return rows, waiting, parked, self.now


_VARIABLE = re.compile(r"\r\nChanVariable: ([^=\r]+)=([^\r]+)")


def variables_of(raw: bytes) -> dict[str, str]:
    return dict(_VARIABLE.findall(raw.decode("utf-8", "replace")))


def _text(value: str) -> str | None:
    return None if value in {"", "<unknown>"} else value
