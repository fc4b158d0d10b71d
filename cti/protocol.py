"""The frames of `cti.v1`, as pydantic models: what is sent is described from what stands here. No I/O.

JSON text frames over a websocket with the subprotocol `cti.v1`. The server's facts are `cti.facts`; everything
else that crosses the wire is here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cti.people import Role
from cti.views import Snapshot

SUBPROTOCOL = "cti.v1"
LARGEST_FRAME = 64 * 1024

Id = Annotated[str, StringConstraints(min_length=1, max_length=64)]


@dataclass(frozen=True, slots=True)
class CloseCode:
    """Why the server closes a websocket, and whether a client should come back by itself."""

    code: int
    name: str
    meaning: str
    come_back: bool


BAD_FRAME = CloseCode(4400, "bad frame", "what you sent is not cti.v1, or too much of it", False)
NOT_AUTHENTICATED = CloseCode(
    4401, "not authenticated", "no valid token, or it has expired: get a new one", False
)
FORBIDDEN = CloseCode(4403, "forbidden", "this user may not be here", False)
TOO_SLOW = CloseCode(4408, "too slow", "the client does not read fast enough: connect again and resume", True)
REPLACED = CloseCode(4409, "replaced", "a newer client of the same agent is the phone now", False)
RESTARTING = CloseCode(1012, "restarting", "the server restarts: connect again and resume", True)

CLOSE_CODES = {
    code.code: code for code in (BAD_FRAME, NOT_AUTHENTICATED, FORBIDDEN, TOO_SLOW, REPLACED, RESTARTING)
}


class Frame(BaseModel):
    """A frame: no field may be there that is not described."""

    model_config = ConfigDict(extra="forbid")


class Resume(Frame):
    """Where the client's last stream ended: the welcome's epoch, and the highest seq seen."""

    epoch: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    seq: int = Field(ge=0, lt=1 << 63)


class Hello(Frame):
    """The client's first frame. The token may come in the `Authorization` header or the session cookie instead."""

    op: Literal["hello"] = "hello"
    id: Id
    token: Annotated[str, StringConstraints(max_length=4096)] | None = None
    resume: Resume | None = None
    phone: bool = Field(
        default=False,
        description="this client wants to be the agent's phone; the one that asked before is closed with 4409",
    )
    client: Annotated[str, StringConstraints(max_length=100)] | None = Field(
        default=None, description="name and version of the client's software, for whoever operates the server"
    )


class CommandFrame(Frame):
    """A command. The same id sent again within a minute is answered again and not carried out again."""

    op: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    id: Id
    args: dict[str, Any] = Field(default_factory=dict)


class WhoAmI(Frame):
    """Who is logged in."""

    login: str
    name: str
    role: Role
    teams: list[str]


class ServerInfo(Frame):
    """The server's version and its clock, to count times from."""

    version: str
    time: datetime


class Welcome(Frame):
    """The answer to hello. `seq` is the server's newest fact; keep `epoch`. It comes again, followed by a snapshot, when
    what you may see has changed."""

    type: Literal["welcome"] = "welcome"
    epoch: str
    seq: int
    resumed: bool = Field(
        description="true: the facts you missed follow, and no snapshot; false: a snapshot follows"
    )
    agent: WhoAmI
    heartbeat: float = Field(
        description="seconds; a client silent for twice as long, not even answering pings, is dropped"
    )
    phone: bool
    tabs: int
    server: ServerInfo


class SnapshotFrame(Frame):
    """All that you may see now. It replaces whatever the client holds; facts with a higher seq change it."""

    type: Literal["snapshot"] = "snapshot"
    seq: int
    data: Snapshot


class StateNow(Frame):
    """The answer to `state.get`: what a snapshot frame holds, asked for."""

    seq: int
    data: Snapshot


class Fault(Frame):
    """What went wrong: `code` for programs, `message` for people, with what to do."""

    code: str
    message: str


class Result(Frame):
    """The answer to the command with this id."""

    type: Literal["result"] = "result"
    id: str
    ok: bool
    data: Any = None
    error: Fault | None = None


class ErrorFrame(Frame):
    """A frame from the client could not be understood as a command; the connection stays open."""

    type: Literal["error"] = "error"
    error: Fault


class SeatData(Frame):
    """Whether this client is the agent's phone, and how many clients the agent has open."""

    phone: bool
    tabs: int


class Seat(Frame):
    """The agent's clients came, went, or another became the phone. Exactly one of them is the phone."""

    type: Literal["seat"] = "seat"
    data: SeatData


class PhoneStateArgs(Frame):
    """The arguments of `phone.state`: how the phone in this client is. Only from the client that is the phone."""

    registered: list[Annotated[str, StringConstraints(min_length=1, max_length=32)]] = Field(
        max_length=32, description="the PBXs with which it is registered"
    )
    in_call: bool = Field(description="whether it has calls, ringing ones too")
    problem: Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")] | None = Field(
        default=None,
        description="why it cannot take calls, such as no_permission, no_microphone, pbx_unreachable",
    )


class PhoneDoneArgs(Frame):
    """The arguments of `phone.done`: what became of an order. `code` only if it could not be carried out."""

    order: Id
    code: Literal["no_such_call", "no_microphone", "failed"] | None = None


class PhoneOrderData(Frame):
    """What the phone is to do with which of its calls: the one of this connection; where the PBX does not tell the phone
    which that is, its only one that fits."""

    order: str
    do: Literal["answer", "mute", "unmute", "retrieve"]
    call: str
    connection: str
    until: datetime = Field(
        description="not to be done after this: whoever asked has been told that it was not"
    )


class PhoneOrder(Frame):
    """An order to the phone in this client: carry it out, then say `phone.done`."""

    type: Literal["phone"] = "phone"
    data: PhoneOrderData


class TokenExpiringData(Frame):
    """When the token ends."""

    at: datetime


class TokenExpiring(Frame):
    """Send `auth.renew` with a fresh token before this time, or the connection is closed with 4401."""

    type: Literal["token_expiring"] = "token_expiring"
    data: TokenExpiringData


class Goodbye(Frame):
    """The server closes the connection after this frame. `come_back`: connect again by yourself and resume."""

    type: Literal["goodbye"] = "goodbye"
    code: int
    reason: str
    come_back: bool


class RenewArgs(Frame):
    """The arguments of `auth.renew`: a fresh token of the same user."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=4096)]


FROM_CLIENT: tuple[type[Frame], ...] = (Hello, CommandFrame)
FROM_SERVER: tuple[type[Frame], ...] = (
    Welcome,
    SnapshotFrame,
    Result,
    ErrorFrame,
    Seat,
    PhoneOrder,
    TokenExpiring,
    Goodbye,
)
ABOUT_THE_CONNECTION: tuple[tuple[str, type[Frame], str], ...] = (
    ("auth.renew", RenewArgs, "Takes a fresh token of the same user."),
    ("phone.state", PhoneStateArgs, "Says how the phone in this client is, whenever that changes."),
    ("phone.done", PhoneDoneArgs, "Says what became of an order to the phone."),
)
"""Commands that mean this very connection: on the websocket only, their arguments, and what they do."""
