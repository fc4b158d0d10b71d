"""Commands over REST: the same register, checks and answers as on the websocket; the id is the Idempotency-Key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cti.commands import Command, Commands
from cti.openapi import PEOPLE, Route
from cti.problems import Problem
from cti.rest.serving import Asked

STATE_COMMANDS = {
    "logged_on": "agent.log_on",
    "ready": "agent.ready",
    "not_ready": "agent.not_ready",
    "logged_off": "agent.log_off",
}


class StateWanted(BaseModel):
    """The state an agent is to be in. `reason` goes with not_ready."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["logged_on", "ready", "not_ready", "logged_off"]
    reason: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = Field(default=None)


class Done(BaseModel):
    """What a command answered."""

    data: Any


def routes(commands: Commands) -> list[Route]:
    """Returns a route for each command that is registered by now, and the agents' states as a noun."""

    async def unknown(asked: Asked) -> Any:
        return await commands.execute(asked.who, asked.params["op"], {})

    async def put_state(asked: Asked) -> dict[str, Any]:
        wanted: StateWanted = asked.body
        if wanted.reason is not None and wanted.state != "not_ready":
            raise Problem(422, "bad_value", "reason: goes with not_ready only")
        args: dict[str, Any] = {} if wanted.reason is None else {"reason": wanted.reason}
        login = asked.params["login"]
        if login != asked.who.login:
            args["agent"] = login
        return {"data": await commands.execute(asked.who, STATE_COMMANDS[wanted.state], args)}

    made = [
        Route(
            method="POST",
            path=f"/api/v1/commands/{command.op}",
            handler=_runs(commands, command),
            summary=command.summary,
            tag="Commands",
            roles=command.roles,
            body=command.args,
            result=Done,
            idempotent=command.changes,
            errors=frozenset({404, 429, 503, 504}),
        )
        for command in commands
    ]
    made.append(
        Route(
            method="POST",
            path="/api/v1/commands/{op}",
            handler=unknown,
            summary="Any other command: there is none, and the problem says which comes near.",
            tag="Commands",
            result=Done,
        )
    )
    if all(any(command.op == op for command in commands) for op in STATE_COMMANDS.values()):
        made.append(
            Route(
                method="PUT",
                path="/api/v1/agents/{login}/state",
                handler=put_state,
                summary="Puts an agent into a state: yourself, or as a supervisor one of your teams.",
                tag="Agents",
                roles=PEOPLE,
                body=StateWanted,
                result=Done,
                errors=frozenset({409, 429, 503, 504}),
            )
        )
    return made


def _runs(commands: Commands, command: Command) -> Callable[[Asked], Awaitable[Any]]:
    async def run(asked: Asked) -> dict[str, Any]:
        args = asked.body.model_dump(mode="json", exclude_unset=True)
        return {"data": await commands.execute(asked.who, command.op, args, id=asked.key)}

    return run
