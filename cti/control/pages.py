"""The page that is an agent's phone comes, and goes: what becomes of its calls, and of the line of who works off-hook."""

from __future__ import annotations

from cti.agents import LINE_RENEWED, PAGE_GONE
from cti.control.control import Control
from cti.control.off_hook import OffHook


class Pages:
    """Told by `cti.browser_phones`. Nothing here raises."""

    def __init__(self, control: Control, off_hook: OffHook) -> None:
        self._control = control
        self._off_hook = off_hook

    async def opened(self, pbx: str, agent: str) -> None:
        """A page is the phone from now on and has no call: what a former one had is brought to it."""
        if self._off_hook.is_open(pbx, agent):  # to a page that knows nothing of it any more
            await self._control.let_wait(pbx, agent, why=LINE_RENEWED)
            await self._off_hook.renew(pbx, agent)
        elif not self._off_hook.keeps(agent):
            await self._control.take_up(pbx, agent)
        elif self._control.awaited(pbx, agent):
            # Asterisk sees by itself that the line is open, and puts the caller through
            self._off_hook.wanted(agent)

    async def left(self, pbx: str, agent: str) -> None:
        """The connection of the page has ended."""
        if await self._control.is_dead(pbx, agent):
            self._off_hook.give_up(pbx, agent)
            await self._control.let_wait(pbx, agent, why=PAGE_GONE)
            await self._off_hook.end(pbx, agent, PAGE_GONE)
