"""One PBX as call control needs it, what a command answers, and what a refused action means to who asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cti.ami import ActionRefused, AmiError, AmiLink, BadValue, Busy, NotConnected
from cti.calls import Calls
from cti.commands import CommandError
from cti.control.second_level import Staff, staff_of
from cti.control.targets import Targets, outside_digits
from cti.facts import CallView
from cti.people import Directory
from cti.settings import PbxSettings
from cti.switch import Switch


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One PBX as call control needs it. `caller_id`: what number a call to the outside shows, by agent and number.
    `staff`: who is at work in a queue, but for one agent."""

    name: str
    calls: Calls
    send: Callable[[str, Mapping[str, str]], Awaitable[Mapping[str, str]]]
    originate: Callable[[Mapping[str, str]], Awaitable[Mapping[str, str]]]
    query: Callable[[str, Mapping[str, str]], Awaitable[Sequence[bytes]]]
    up: Callable[[], bool]
    targets: Targets
    caller_id: Callable[[str, str], str]
    staff: Callable[[str, str], Staff]
    ring_seconds: int = 30
    auto_answer: bool = False
    recordings: str = ""
    recordings_seen_at: str = ""
    line_music: str = ""


class InBrowser(Protocol):
    """Phones in the browser, as call control needs them (`cti.browser_phones`). What cannot be done is a CommandError."""

    def has(self, agent: str, pbx: str) -> bool:
        """Whether this agent's phone is one."""

    def there(self, agent: str, pbx: str) -> bool:
        """Whether it is there."""

    async def ready(self, agent: str, pbx: str) -> None:
        """Raises unless it is there."""

    async def order(self, agent: str, pbx: str, do: str, *, call: str, connection: str) -> None:
        """Lets it do something with its part of a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAnswer:
    """What became of a call. `view` is None once the agent is no longer in it; `agent` is whose connection was meant;
    `slot` is where a call was parked. `saved` is False while what was typed waits for the database to come back."""

    call: str
    agent: str | None
    view: CallView | None
    slot: str | None = None
    saved: bool = True


def port_of(name: str, switch: Switch, link: AmiLink, directory: Directory, pbx: PbxSettings) -> Port:
    """Returns a PBX as call control needs it, by its settings."""

    def caller_id(agent: str, number: str) -> str:
        team, number = directory.team_of(agent), outside_digits(number, pbx.outside_prefix)
        fits = (r.show for r in pbx.caller_ids if r.team in ("", team) and number.startswith(r.prefix))
        return next(fits, "")

    return Port(
        name=name,
        calls=switch.calls,
        send=link.send,
        originate=link.originate,
        query=link.query,
        up=lambda: switch.synced,
        targets=Targets(
            name,
            send=link.send,
            query=link.query,
            knows_queue=switch.queues.knows,
            line_open=switch.calls.lines.is_open,
            directory=directory,
            region=pbx.region,
            outside_prefix=pbx.outside_prefix,
        ),
        caller_id=caller_id,
        staff=staff_of(switch.queues),
        ring_seconds=pbx.ring_seconds,
        auto_answer=pbx.auto_answer,
        recordings=pbx.recordings,
        recordings_seen_at=pbx.recordings_seen_at,
        line_music=pbx.line_music,
    )


RIGHTS = {
    "PJSIPNotify": "system",
    "MixMonitor": "system",
    "MuteAudio": "system",
    "ConfbridgeStartRecord": "system",
}
"""Action → the right in write= that it needs beyond those of asterisk-config/include/manager_cti.conf."""


ON_A_CALL = frozenset({"Bridge", "BlindTransfer", "Redirect", "Park"})
"""Actions on channels that were there when they were sent: what refuses them is that somebody has hung up or moved."""


def command_error(port: Port, action: str, error: AmiError) -> CommandError:
    """An AMI error in the words of who asked."""
    if isinstance(error, ActionRefused):
        said = str(error).lower()
        if "permission" in said:
            right = RIGHTS.get(action, "call")
            return CommandError(
                "no_right",
                f"{port.name} does not let this server use {action}: add `{right}` to write= in manager.conf",
            )
        if (
            "no such channel" in said
            or "does not exist" in said
            or "not found" in said
            or "channel not" in said
        ):
            return CommandError("caller_gone", "one of the parties has hung up meanwhile")
        if action in ON_A_CALL:
            return CommandError(
                "wrong_state", f"the call has changed at this very moment ({error}): see how it stands now"
            )
        return CommandError("refused", f"{port.name} refused {action}: {error}")
    if isinstance(error, NotConnected | Busy):
        return CommandError("pbx_down", f"{port.name} cannot be reached at the moment: nothing was done")
    if isinstance(error, BadValue):
        return CommandError("bad_args", "a value holds characters that cannot be sent to the PBX")
    return CommandError(
        "not_confirmed", f"{port.name} did not answer {action} in time: the facts tell whether it happened"
    )


def both(one: str, to: tuple[str, str], other: str, there: tuple[str, str]) -> dict[str, str]:
    """The headers of a Redirect that takes two channels apart at the same moment."""
    return {
        "Channel": one,
        "Context": to[0],
        "Exten": to[1],
        "Priority": "1",
        "ExtraChannel": other,
        "ExtraContext": there[0],
        "ExtraExten": there[1],
        "ExtraPriority": "1",
    }
