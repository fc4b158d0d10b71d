"""Whether sounds exist at a PBX: asked by a call inside Asterisk that nobody hears ([cti-sound] of asterisk-config), since
what may ask for files may do far more. A sound that is there begins to be played and is broken off."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog

from cti.ami import AmiError
from cti.ami_events import DialerTold, Record
from cti.legs import SOUNDS
from dialer.calling.switchboard import PbxPort

log = structlog.get_logger(__name__)

PATIENCE = 3.0
"""Seconds for the PBX's answer."""

KEPT = 10.0
"""Seconds that an answer is remembered."""

FAR = "-2"
"""The far end of the call, which looks for the sound."""


class Sounds:
    """What the PBXs say of their sounds. `clock`: seconds that never fall."""

    def __init__(self, pbxs: Mapping[str, PbxPort], *, clock: Callable[[], float]) -> None:
        self._pbxs = pbxs
        self._clock = clock
        self._asked: dict[str, asyncio.Future[bool]] = {}
        self._known: dict[tuple[str, str], tuple[float, bool]] = {}

    async def missing(self, pbx: str, names: Iterable[str]) -> tuple[str, ...]:
        """Which of these sounds the PBX says it has not; none while it cannot be asked."""
        wanted = sorted(set(names))
        there = await asyncio.gather(*(self._is_there(pbx, name) for name in wanted))
        return tuple(name for name, is_there in zip(wanted, there, strict=True) if is_there is False)

    async def _is_there(self, pbx: str, name: str) -> bool | None:
        port, now = self._pbxs.get(pbx), self._clock()
        if port is None or not port.up():
            return None
        self._known = {key: told for key, told in self._known.items() if now - told[0] < KEPT}
        if (told := self._known.get((pbx, name))) is not None:
            return told[1]
        id = f"{SOUNDS}{secrets.token_hex(8)}"
        answer = self._asked[id + FAR] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(PATIENCE):
                await port.originate(_call(id, name))
                found: bool = await answer
        except (AmiError, TimeoutError) as error:
            log.info("whether a sound is there is not known", pbx=pbx, sound=name, error=type(error).__name__)
            return None
        finally:
            del self._asked[id + FAR]
        self._known[pbx, name] = now, found
        return found

    def hear_record(self, record: Record) -> None:
        """Takes what the dialplan answers."""
        if isinstance(record, DialerTold) and record.what == "sound":
            answer = self._asked.get(record.uniqueid)
            if answer is not None and not answer.done():
                answer.set_result(record.value == "SUCCESS")


def _call(id: str, name: str) -> dict[str, Any]:
    return {
        "Channel": "Local/s@cti-sound/n",
        "ChannelId": id,
        "OtherChannelId": id + FAR,
        "Context": "cti-sound",
        "Exten": "s",
        "Priority": "1",
        "Timeout": "2000",
        "Variable": [f"__CTI_SOUND={name}"],
    }
