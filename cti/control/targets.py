"""Whether there is anybody where a call is to go: asked before the caller is let go of."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import phonenumbers

from cti.ami import ActionRefused
from cti.control.moves import NotPossible
from cti.people import Directory

INTERNAL = "cti-internal"
"""The dialplan context that holds whatever agents may call (asterisk-config/include/extensions_cti.conf)."""

UNAVAILABLE, BUSY, RINGING = 4, 2, 8
"""Bits of the state of an extension (Asterisk: ExtensionState)."""

_SEPARATORS = str.maketrans("", "", " ()-./\u00a0\u2011")
_DIALABLE = re.compile(r"\+?[0-9*#]{1,32}")
_EXTENSION = re.compile(r"[0-9*#]{1,32}")


@dataclass(frozen=True, slots=True)
class Target:
    """A place in the dialplan that exists. `queue`: the extension is a queue's name."""

    context: str
    exten: str
    queue: bool = False
    outside: bool = False


def outside_digits(exten: str, outside_prefix: str) -> str:
    """A number outside as digits alone, without what dials out: `+33…`, `0033…` and `9 0033…` are the same."""
    if exten.startswith("+"):
        return exten[1:]
    if outside_prefix and not exten.startswith("00"):
        exten = exten.removeprefix(outside_prefix)
    return exten.removeprefix("00").removeprefix("+")


def phone_number(device: str) -> str:
    """The number by which a phone of the house is called: `PJSIP/1101`, `Local/1101@cti-line` → `1101`."""
    return device.partition("/")[2].partition("@")[0].partition("/")[0]


class Targets:
    """Looks for targets on one PBX. Cheap: two actions, some milliseconds."""

    def __init__(
        self,
        pbx: str,
        *,
        send: Callable[[str, Mapping[str, str]], Awaitable[Mapping[str, str]]],
        query: Callable[[str, Mapping[str, str]], Awaitable[Any]],
        knows_queue: Callable[[str], bool],
        directory: Directory,
        region: str,
        outside_prefix: str,
        line_open: Callable[[str], bool] = lambda phone: False,
    ) -> None:
        self._pbx = pbx
        self._send = send
        self._query = query
        self._knows_queue = knows_queue
        self._directory = directory
        self._region = region
        self._prefix = outside_prefix
        self._line_open = line_open

    async def number(self, given: str) -> Target:
        """A number as an agent's phone would dial it; raises NotPossible if nothing answers to it."""
        exten = given.strip().translate(_SEPARATORS)
        if _DIALABLE.fullmatch(exten) is None:
            raise NotPossible("no_such_target", f"{given[:40]!r} is not a number that can be dialed")
        outside = self._plausible(exten)
        try:
            await self._query("ShowDialPlan", {"Context": INTERNAL, "Extension": exten})
        except ActionRefused as error:
            if "permission" in str(error).lower():
                raise
            raise NotPossible(
                "no_such_target", f"nothing on {self._pbx} can be reached by dialing {exten}"
            ) from None
        if not outside:
            await self._reachable(exten)
        return Target(INTERNAL, exten, outside=outside)

    async def agent(self, login: str) -> Target:
        """An agent's own phone; raises NotPossible if it cannot be reached."""
        agent = self._directory.agents.get(login)
        interface = agent.interfaces.get(self._pbx, "") if agent else ""
        exten = phone_number(interface)
        if _EXTENSION.fullmatch(exten) is None:
            raise NotPossible("no_such_target", f"{login} has no phone with a number on {self._pbx}")
        return await self.number(exten)

    def queue(self, queue: str) -> Target:
        """A queue, by its id; raises NotPossible if there is none."""
        if not queue.startswith(f"{self._pbx}:") or not self._knows_queue(queue):
            raise NotPossible("no_such_target", f"there is no queue {queue} on {self._pbx}")
        return Target("cti-queue", queue.partition(":")[2], queue=True)

    async def _reachable(self, exten: str) -> None:
        """What the extension's hint says of its phone; one without a hint is taken as it is. Of a phone whose line is kept
        open: whether a call is on it."""
        if self._line_open(exten):
            variable = f"DEVICE_STATE(Custom:cti-line-{exten})"
            if (await self._send("Getvar", {"Variable": variable})).get("Value") == "INUSE":
                raise NotPossible("target_busy", f"{exten} is busy")
            return
        answer = await self._send("ExtensionState", {"Context": INTERNAL, "Exten": exten})
        state = int(answer.get("Status", "-1"))
        if state == UNAVAILABLE:
            raise NotPossible("target_unreachable", f"the phone of {exten} is not connected")
        if state > 0 and state & BUSY:
            raise NotPossible("target_busy", f"{exten} is busy")

    def _plausible(self, exten: str) -> bool:
        """Whether the number is one outside; raises NotPossible for one that no country has."""
        if exten.startswith("+"):
            number = exten
        elif exten.startswith("00"):
            number = "+" + exten[2:]
        elif self._prefix and exten.startswith(self._prefix):
            number = exten[len(self._prefix) :]
            number = "+" + number[2:] if number.startswith("00") else number
        else:
            return False
        try:
            possible = phonenumbers.is_possible_number(phonenumbers.parse(number, self._region))
            possible = possible or phonenumbers.is_possible_number(
                phonenumbers.parse("+" + number.lstrip("+"), None)
            )
        except phonenumbers.NumberParseException:
            possible = False
        if not possible:
            raise NotPossible("no_such_target", f"{exten} is too short or too long for a number outside")
        return True
