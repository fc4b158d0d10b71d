"""What every part of call control works with, and how it sends an action: a refusal comes back in the asker's words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from cti.ami import AmiError
from cti.commands import CommandError
from cti.control.ports import InBrowser, Port, command_error
from cti.control.second_level import NoRules, QueueRules
from cti.control.waits import Waits
from cti.facts import Fact


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """The PBXs by name, what is waited for, an agent's interface at a PBX (None: no phone there), where facts go.

    `rules`: what routing says of queues. `set_data(call, values, by)` attaches data to a call. `browser`: the phones that
    are a page in the browser.
    """

    ports: Mapping[str, Port]
    waits: Waits
    phone_of: Callable[[str, str], str | None]
    publish: Callable[[Iterable[Fact]], None]
    rules: QueueRules = field(default_factory=NoRules)
    set_data: Callable[[str, dict[str, str], str], None] = lambda call, values, by: None
    browser: InBrowser | None = None


class Acting:
    """Acts on PBXs. What is done under one lock's key is done one after the other."""

    def __init__(self, means: Means) -> None:
        self._ports = means.ports
        self._waits = means.waits
        self._phone_of = means.phone_of
        self._publish = means.publish
        self._rules = means.rules
        self._set_data = means.set_data
        self._browser = means.browser
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def _lock(self, key: str) -> asyncio.Lock:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

    def _port(self, pbx: str) -> Port:
        port = self._ports.get(pbx)
        if port is None:
            raise CommandError(
                "no_such_pbx", f"there is no PBX {pbx!r}: there are {', '.join(sorted(self._ports))}"
            )
        if not port.up():
            raise CommandError("pbx_down", f"{pbx} cannot be reached at the moment: nothing was done")
        return port

    async def _send(self, port: Port, action: str, **headers: str) -> Mapping[str, str]:
        try:
            return await port.send(action, headers)
        except AmiError as error:
            raise command_error(port, action, error) from None

    async def _originate(self, port: Port, headers: Mapping[str, Any]) -> None:
        try:
            await port.originate(headers)
        except AmiError as error:
            raise command_error(port, "Originate", error) from None
