"""A server's campaigns over REST, for the command line: finds one by its name or id, shows, changes and plans it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cti.rest_client import RefusedByServer

if TYPE_CHECKING:
    from cti.rest_client import Server


class Campaigns:
    """The campaigns of a server that may be seen. `ask` asks the server itself."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.ask = server.ask

    async def all(self) -> list[dict[str, Any]]:
        """All campaigns that may be seen."""
        return await self._server.all("/campaigns")

    async def find(self, which: str) -> dict[str, Any]:
        """A campaign by its name, or its id. Raises RefusedByServer."""
        everyone = await self.all()
        named = [one for one in everyone if one["name"] == which]
        for one in named or [one for one in everyone if str(one["id"]) == which]:
            return one
        near = [one["name"] for one in everyone if which.lower() in one["name"].lower()]
        hint = f"; did you mean {', '.join(near[:5])}?" if near else "; cti campaigns list shows them"
        raise RefusedByServer(404, f"there is no campaign {which}{hint}")

    async def one(self, which: str) -> dict[str, Any]:
        """A campaign as a whole."""
        found = await self.find(which)
        return dict(await self.ask("GET", f"/campaigns/{found['id']}"))

    async def change(self, which: str, method: str, path: str, body: Any) -> Any:
        """Changes the version that there is now."""
        found = await self.find(which)
        return await self.ask(method, f"/campaigns/{found['id']}{path}", body, version=found["version"])

    async def edit(
        self, which: str, edit: Callable[[dict[str, Any]], dict[str, Any] | None]
    ) -> dict[str, Any]:
        """Changes the settings that `edit` makes of the campaign as it is, if it makes any; gives back how it is then."""
        found = await self.one(which)
        settings = edit(found)
        if settings is None:
            return found
        path, version = f"/campaigns/{found['view']['id']}", found["view"]["version"]
        return dict(await self.ask("PATCH", path, {"settings": settings}, version=version))

    async def plan(self, which: str, body: Any, tell: Callable[[str], object]) -> dict[str, Any]:
        """A dry run to its end; ended at the server if this is. `tell` is told what it does; "" at the end."""
        id = (await self.find(which))["id"]
        found = await self.ask("POST", f"/campaigns/{id}/plans", body)
        try:
            while found["state"] == "running":
                tell(str(found["doing"]))
                await asyncio.sleep(0.3)
                found = await self.ask("GET", f"/campaigns/{id}/plans/{found['id']}")
        except asyncio.CancelledError:
            await self.ask("DELETE", f"/campaigns/{id}/plans/{found['id']}")
            raise
        finally:
            tell("")
        return dict(found)
