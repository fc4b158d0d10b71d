"""REST routes of routing: the rules as one document with its versions, and what would happen to a call.

Changing the rules is for administrators, reading and trying for supervisors too. Numbers that are tried go in the body.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from cti import audit
from cti.openapi import ADMINS, SUPERVISORS, Route
from cti.problems import Problem
from cti.rest.pages import Page, Paging, decode, encode
from cti.rest.serving import Asked, Reply, Translate
from routing import store
from routing.decide import CallFacts, Decision, Floor, decide
from routing.document import RulesDoc, WrongRules, read_document, rule_set
from routing.questions import CallerFacts
from routing.rules import RuleSet
from routing.store import ChangedMeanwhile, UnknownVersion, Version

if TYPE_CHECKING:
    from cti.database import Pool, PoolConnection

Number = Annotated[str, Field(max_length=64)]
Note = Annotated[str, Field(max_length=500)]


class RulesRead(BaseModel):
    """A version of the rules. Version 0: there have never been any."""

    about: Version
    rules: RulesDoc


class RulesPut(BaseModel):
    """New rules, whole, and a note on what was changed for whoever reads the versions."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    rules: RulesDoc
    note: Note = ""


class RestoreAsked(BaseModel):
    """A note on why."""

    model_config = ConfigDict(extra="forbid")

    note: Note = ""


class WhatIf(BaseModel):
    """A call that might come: `from` a number to the number dialed, at a time (now if null), on a PBX (the first if
    null), by the active rules or by these. Queues and agents are taken as they are at this moment."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, populate_by_name=True)

    from_: Number = Field(alias="from", default="")
    to: Annotated[str, Field(min_length=1, max_length=64)]
    at: AwareDatetime | None = None
    pbx: Annotated[str, Field(max_length=32)] | None = None
    rules: RulesDoc | None = None


class WhatThen(BaseModel):
    """What would happen. `decision.explanation` says step by step why."""

    at: datetime
    pbx: str
    customer: int | None
    why_unknown: str
    took_ms: float
    decision: Decision


class OneVersion(BaseModel):
    """The version that the address names."""

    version: int = Field(ge=1, lt=1 << 31)


def routes(
    *,
    pool: Callable[[], Pool],
    rules: Callable[[], RuleSet],
    caller_facts: Callable[[str, str], Awaitable[CallerFacts]],
    floor: Callable[[str], Floor],
    pbxs: Callable[[], list[str]],
    changed: Callable[[], Awaitable[None]],
    mailboxes: Callable[[RulesDoc], Awaitable[None]],
) -> list[Route]:
    """Returns the routes. `changed` makes what was written the active rules, before the answer; `mailboxes` complains of
    those that the PBXs do not have."""

    async def read_active(asked: Asked) -> Reply:
        about, written = await store.active(pool())
        return Reply(value=RulesRead(about=about, rules=read_document(written)), version=about.version)

    async def put(asked: Asked) -> Reply:
        new: RulesPut = asked.body
        rule_set(new.rules, 1)  # complains before anything is changed
        await mailboxes(new.rules)
        return await _write(asked, new.rules, new.note, "routing.rules_changed", {})

    async def check(asked: Asked) -> None:
        rule_set(asked.body.rules, 1)
        await mailboxes(asked.body.rules)

    async def restore(asked: Asked) -> Reply:
        _, written = await store.read(pool(), asked.params.version)
        doc = read_document(written)
        rule_set(doc, 1)
        await mailboxes(doc)
        note = asked.body.note or f"version {asked.params.version} again"
        return await _write(asked, doc, note, "routing.rules_restored", {"of": asked.params.version})

    async def version_list(asked: Asked) -> dict[str, Any]:
        wanted: Paging = asked.query
        before = decode(wanted.cursor, int) if wanted.cursor else None
        if before is not None and not 0 < before < 1 << 31:
            raise Problem(422, "bad_cursor", "this cursor is not one of ours: begin again without one")
        found = await store.versions(pool(), before=before, limit=wanted.limit + 1)
        part = found[: wanted.limit]
        return {"items": part, "next": encode(part[-1].version) if len(found) > len(part) else None}

    async def version_read(asked: Asked) -> RulesRead:
        about, written = await store.read(pool(), asked.params.version)
        return RulesRead(about=about, rules=read_document(written))

    async def what_if(asked: Asked) -> WhatThen:
        wanted: WhatIf = asked.body
        pbx = wanted.pbx or pbxs()[0]
        if pbx not in pbxs():
            raise Problem(
                422, "bad_value", f"pbx: there is no PBX of this name; there are {', '.join(pbxs())}"
            )
        at = wanted.at or datetime.now(UTC)
        if not 1970 <= at.year <= 9000:
            raise Problem(422, "bad_value", "at: say a year from 1970 to 9000")
        taken = rules() if wanted.rules is None else rule_set(wanted.rules, 0)
        began = time.perf_counter()
        about = await caller_facts(wanted.from_, pbx)
        call = CallFacts(
            dialed=wanted.to,
            ani=wanted.from_,
            e164=about.e164,
            pbx=pbx,
            country=about.country,
            withheld=about.withheld,
        )
        decision = decide(taken, call, about.customer, at, floor(pbx))
        return WhatThen(
            at=at,
            pbx=pbx,
            customer=about.customer.account if about.customer else None,
            why_unknown=about.why,
            took_ms=round((time.perf_counter() - began) * 1000, 3),
            decision=decision,
        )

    async def _write(asked: Asked, doc: RulesDoc, note: str, action: str, detail: dict[str, Any]) -> Reply:
        match = asked.match or ""
        if not match.isdecimal() or len(match) > 9:
            raise ChangedMeanwhile
        written = doc.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        async with _trailed(asked, action, detail) as connection:
            about = await store.add(connection, written, after=int(match), by=asked.who.login, note=note)
            detail["version"] = about.version
        await changed()
        return Reply(value=RulesRead(about=about, rules=doc), version=about.version)

    @asynccontextmanager
    async def _trailed(asked: Asked, action: str, detail: dict[str, Any]) -> AsyncIterator[PoolConnection]:
        async with pool().acquire(timeout=5) as connection, connection.transaction():
            yield connection
            await audit.record(connection, asked.who, action, "routing", detail, asked.request.remote)

    base, tag, away = "/api/v1/routing", "Routing", frozenset({503})

    def route(
        method: str, path: str, handler: Callable[[Asked], Awaitable[Any]], summary: str, **more: Any
    ) -> Route:
        more = {"errors": away, "roles": SUPERVISORS, **more}
        return Route(method=method, path=base + path, handler=handler, summary=summary, tag=tag, **more)

    return [
        route("GET", "/rules", read_active, "The active rules.", result=RulesRead),
        route(
            "PUT",
            "/rules",
            put,
            "New rules: checked as a whole, then active at once.",
            body=RulesPut,
            result=RulesRead,
            roles=ADMINS,
            versioned=True,
        ),
        route(
            "POST",
            "/check",
            check,
            "Whether rules could become active; nothing is changed.",
            body=RulesPut,
            status=204,
        ),
        route(
            "GET",
            "/versions",
            version_list,
            "All versions, the newest first.",
            query=Paging,
            result=Page[Version],
        ),
        route(
            "GET", "/versions/{version}", version_read, "One version.", params=OneVersion, result=RulesRead
        ),
        route(
            "POST",
            "/versions/{version}/restore",
            restore,
            "Makes a former version the active one again.",
            params=OneVersion,
            body=RestoreAsked,
            result=RulesRead,
            roles=ADMINS,
            versioned=True,
        ),
        route(
            "POST",
            "/what-if",
            what_if,
            "What would happen to a call, and why.",
            body=WhatIf,
            result=WhatThen,
        ),
    ]


TRANSLATE: dict[type[Exception], Translate] = {
    WrongRules: lambda error: Problem(422, "wrong_rules", str(error)),
    ChangedMeanwhile: lambda _error: Problem(
        412, "changed_meanwhile", "somebody else has changed the rules: read them again"
    ),
    UnknownVersion: lambda _error: Problem(404, "not_found", "there is no such version of the rules"),
}
"""What routing's own refusals are called over REST; for `application(translate=...)`."""
