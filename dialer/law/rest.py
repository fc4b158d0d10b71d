"""REST routes of the dialer's law: profiles, do-not-call, consents, abandonment, evidence, why a number was (not) called.

Numbers never stand in an address (addresses end up in logs): what is asked about goes in a body.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from aiohttp import web
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from cti import audit
from cti.frozen import Frozen
from cti.numbers import read_caller
from cti.openapi import SUPERVISORS, Route
from cti.plain_text import Plain
from cti.problems import Problem
from cti.rest.pages import Page, Paging, decode, encode
from cti.rest.serving import SECURITY_HEADERS, Asked, Translate
from dialer.call_lists.sheets import NotASheet, Sniffer
from dialer.law import consents, do_not_call, evidence
from dialer.law.consent_files import import_file
from dialer.law.consents import Channel, ConsentWord, Word, WrongConsent
from dialer.law.do_not_call import DoNotCallEntry, NoSuchEntry, RegisterEdition, WrongEntry
from dialer.law.do_not_call_files import Taken, take_in
from dialer.law.evidence import Form
from dialer.law.known import NoSuchCampaign
from dialer.law.ledger import Abandonment, abandonment
from dialer.law.profiles import Profile, TooLoose, rules_told, tighten
from dialer.law.registers import WrongRegister
from dialer.law.reopening import reopen
from dialer.law.why import NoProfile, NumberWhy, profile_of, why
from dialer.lists import Theirs
from dialer.management.settings import CampaignSettings

if TYPE_CHECKING:
    from cti.database import Pool, PoolConnection

LARGEST_FILE = 64 << 20
"""Bytes of a file of our own do-not-call list."""

Id = Annotated[int, Field(ge=1, lt=1 << 62)]
Number = Annotated[
    str, Field(min_length=1, max_length=64, description="+442079460151, or as written in `region`")
]
Region = Annotated[str, Field(pattern=r"^[A-Z]{2}$", description="ISO 3166 country of national numbers")]
Short = Annotated[Plain, Field(max_length=300)]


class RuleView(Frozen, frozen=True, gc=False, kw_only=True):
    """One rule of a profile. `says`: in plain words with its numbers. `checked` false: confirm with your counsel. `by`: law,
    or campaign where a campaign has set a tighter one."""

    rule: str
    says: str
    source: str
    as_of: date
    checked: bool
    confirm: str
    by: str


class ProfileView(Frozen, frozen=True, gc=False, kw_only=True):
    """A country profile. `countries`: ISO 3166 codes it is for, empty for any; `revised`: when it was last gone through."""

    name: str
    title: str
    countries: list[str]
    revised: date
    notes: list[str]
    rules: list[RuleView]


def profile_view(profile: Profile) -> ProfileView:
    """Returns a profile as it is shown."""
    return ProfileView(
        name=profile.name,
        title=profile.title,
        countries=list(profile.countries),
        revised=profile.revised,
        notes=list(profile.notes),
        rules=[
            RuleView(
                rule=section,
                says=says,
                source=rule.source,
                as_of=rule.as_of,
                checked=rule.checked,
                confirm="" if rule.checked else "confirm with your counsel",
                by=rule.by,
            )
            for section, says, rule in rules_told(profile)
        ],
    )


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class ProfileNamed(BaseModel):
    """The profile that the address names."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{1,39}$")]


class ProfileTried(_Body):
    """Settings of a campaign that is to work by the profile."""

    settings: CampaignSettings


class EntryNamed(BaseModel):
    """The entry that the address names."""

    id: Id


class CampaignNamed(BaseModel):
    """The campaign that the address names."""

    campaign: Id


class NumberFound(_Body):
    """A number."""

    number: Number
    region: Region | None = None


class NumberListed(NumberFound):
    """A number that is not to be called: everywhere, for one company, or in one campaign. Without an end: for ever."""

    scope: Literal["everywhere", "company", "campaign"] = "everywhere"
    company: Annotated[Plain, Field(max_length=100)] = ""
    campaign: Id | None = None
    reason: Short = ""
    expires: AwareDatetime | None = None


class NumbersListed(BaseModel):
    """How the numbers of a file are listed: everywhere, for one company, or in one campaign; without an end, for ever.
    `country`: of numbers without a country code; `column`: which one of a CSV file holds the number, from 1; 0: found."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    country: Region
    scope: Literal["everywhere", "company", "campaign"] = "everywhere"
    company: Annotated[Plain, Field(max_length=100)] = ""
    campaign: Id | None = None
    reason: Short = ""
    expires: AwareDatetime | None = None
    column: int = Field(default=0, ge=0, le=200)


class Removed(_Body):
    """Why an entry is taken back; it is kept on record."""

    why: Annotated[Plain, Field(min_length=1, max_length=300)]


class NumberOnLists(BaseModel):
    """Where a number is listed: our own entries there ever were, and the registers that hold it now."""

    number: str
    entries: list[DoNotCallEntry]
    registers: list[RegisterEdition]


class ConsentSaid(_Body):
    """Consent given or withdrawn, by a number, a person (all their numbers), or both. `purpose` "" withdraws for all."""

    number: Number | None = None
    region: Region | None = None
    person: Annotated[Plain, Field(max_length=80)] = ""
    channel: Channel = "call"
    purpose: Annotated[Plain, Field(max_length=60)] = "marketing"
    given: bool
    source: Annotated[Plain, Field(min_length=1, max_length=200)]
    evidence: Annotated[Plain, Field(max_length=2000)] = ""
    at: AwareDatetime | None = Field(default=None, description="when it was said; now if left out")


class ConsentsAsked(_Body):
    """Whose consents."""

    number: Number | None = None
    region: Region | None = None
    person: Annotated[Plain, Field(max_length=80)] = ""


class ConsentKept(BaseModel):
    """`kept` false: the same word was on record before."""

    kept: bool


class ConsentsFile(BaseModel):
    """A CSV file of consents: columns number or person, given, source, at; channel, purpose, evidence. `region`: of numbers
    without a country code."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    region: Region | None = None


class ConsentRefused(BaseModel):
    """A line of the file that was not kept, and why."""

    line: int
    why: str


class ConsentsTaken(BaseModel):
    """How many words were new, on record before, or no consent at all; `refused`: the first of those."""

    kept: int
    known: int
    not_kept: int
    refused: list[ConsentRefused]


class Rechecked(BaseModel):
    """How many blocked contacts are open again."""

    contacts: int


class WhyAsked(NumberFound):
    """A number, and the moment that is asked about: now if left out."""

    at: AwareDatetime | None = None


class EvidenceAsked(BaseModel):
    """Attempts of a time, by when they were written; all if left out."""

    model_config = ConfigDict(extra="forbid")

    since: AwareDatetime | None = None
    before: AwareDatetime | None = None


def routes(
    *,
    pool: Callable[[], Pool],
    profiles: Callable[[], Mapping[str, Profile]],
    theirs: Theirs,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[Route]:
    """Returns the routes: for supervisors and administrators; what changes something is audited with it. `theirs`: which
    campaigns somebody oversees; of others they are told nothing."""

    async def profile_list(_asked: Asked) -> Any:
        return {"items": [profile_view(profile) for _, profile in sorted(profiles().items())], "next": None}

    def named(name: str) -> Profile:
        profile = profiles().get(name)
        if profile is None:
            raise Problem(
                404, "not_found", f"there is no profile of this name, only {', '.join(sorted(profiles()))}"
            )
        return profile

    async def profile_read(asked: Asked) -> ProfileView:
        return profile_view(named(asked.params.name))

    async def profile_try(asked: Asked) -> ProfileView:
        return profile_view(tighten(named(asked.params.name), asked.body.settings))

    async def entry_list(asked: Asked) -> dict[str, Any]:
        wanted: Paging = asked.query
        before = decode(wanted.cursor, int) if wanted.cursor else None
        found = await do_not_call.entries(pool(), before=before, limit=wanted.limit + 1)
        part = found[: wanted.limit]
        return {"items": part, "next": encode(part[-1].id) if len(found) > len(part) else None}

    async def entry_add(asked: Asked) -> DoNotCallEntry:
        wanted: NumberListed = asked.body
        number = number_of(wanted.number, wanted.region)
        detail: dict[str, Any] = {
            "scope": wanted.scope,
            "company": wanted.company,
            "campaign": wanted.campaign,
        }
        async with _trailed(asked, "do_not_call.added", detail) as db:
            entry = await do_not_call.add(
                db,
                number=number,
                scope=wanted.scope,
                company=wanted.company,
                campaign=wanted.campaign,
                reason=wanted.reason,
                expires=_sane(wanted.expires, "expires"),
                by=asked.who.login,
            )
            detail["entry"] = entry.id
        return entry

    async def entries_import(asked: Asked) -> Taken:
        wanted: NumbersListed = asked.query
        expires = _sane(wanted.expires, "expires")
        if expires is not None and expires <= now():
            raise WrongEntry("expires: this is past")

        async def parts() -> AsyncIterator[bytes]:
            size = 0
            async for part in asked.request.content.iter_chunked(1 << 18):
                if (size := size + len(part)) > LARGEST_FILE:
                    raise Problem(
                        413, "too_large", f"a file holds at most {LARGEST_FILE >> 20} MiB: split it"
                    )
                yield part

        taken = await take_in(
            pool(),
            parts(),
            country=wanted.country,
            scope=wanted.scope,
            company=wanted.company,
            campaign=wanted.campaign,
            reason=wanted.reason,
            expires=expires,
            column=wanted.column,
            by=asked.who.login,
        )
        detail = {
            "scope": wanted.scope,
            "company": wanted.company,
            "campaign": wanted.campaign,
            "new": taken.new,
        }
        await audit.record(pool(), asked.who, "do_not_call.imported", "dialer", detail, asked.request.remote)
        return taken

    async def entry_remove(asked: Asked) -> DoNotCallEntry:
        detail: dict[str, Any] = {"entry": asked.params.id, "why": asked.body.why}
        async with _trailed(asked, "do_not_call.removed", detail) as db:
            return await do_not_call.remove(db, asked.params.id, by=asked.who.login, why=asked.body.why)

    async def entry_find(asked: Asked) -> NumberOnLists:
        number = number_of(asked.body.number, asked.body.region)
        return NumberOnLists(
            number=number,
            entries=await do_not_call.entries_of(pool(), number),
            registers=await do_not_call.registers_with(pool(), number),
        )

    async def register_list(_asked: Asked) -> Any:
        return {"items": await do_not_call.editions(pool()), "next": None}

    async def consent_add(asked: Asked) -> ConsentKept:
        said: ConsentSaid = asked.body
        word = Word(
            number=number_of(said.number, said.region) if said.number else "",
            person=said.person,
            channel=said.channel,
            purpose=said.purpose,
            given=said.given,
            source=said.source,
            evidence=said.evidence,
            at=_sane(said.at, "at") or now(),
        )
        detail: dict[str, Any] = {"channel": word.channel, "purpose": word.purpose, "given": word.given}
        async with _trailed(asked, "consent.recorded", detail) as db:
            kept = await consents.record(db, [word], by=asked.who.login)
            detail["consents"] = kept
        return ConsentKept(kept=bool(kept))

    async def consents_import(asked: Asked) -> ConsentsTaken:
        wanted: ConsentsFile = asked.query
        sniffer = Sniffer()
        with tempfile.SpooledTemporaryFile(1 << 22) as file:
            async for part in asked.request.content.iter_chunked(1 << 18):
                sniffer.feed(part)
                if sniffer.size > LARGEST_FILE:
                    raise Problem(
                        413, "too_large", f"a file holds at most {LARGEST_FILE >> 20} MiB: split it"
                    )
                await asyncio.to_thread(file.write, part)
            encoding = sniffer.as_text()
            file.seek(0)
            rows = io.TextIOWrapper(file, encoding=encoding, errors="replace", newline="")
            try:
                taken = await import_file(
                    pool(), rows, region=wanted.region or "", by=asked.who.login, most_refused=100
                )
            finally:
                rows.detach()
        detail = {"kept": taken.kept, "known": taken.known}
        await audit.record(pool(), asked.who, "consent.imported", "dialer", detail, asked.request.remote)
        refused = [ConsentRefused(line=row.line, why=row.why) for row in taken.refused]
        return ConsentsTaken(kept=taken.kept, known=taken.known, not_kept=taken.not_kept, refused=refused)

    async def consent_find(asked: Asked) -> Any:
        wanted: ConsentsAsked = asked.body
        if not wanted.number and not wanted.person:
            raise Problem(422, "bad_value", "say whose consents: number or person")
        number = number_of(wanted.number, wanted.region) if wanted.number else ""
        return {"items": await consents.words_of(pool(), number=number, person=wanted.person), "next": None}

    async def asked_why(asked: Asked) -> NumberWhy:
        wanted: WhyAsked = asked.body
        moment = now()
        at = _sane(wanted.at, "at") or moment
        return await why(pool(), number_of(wanted.number, wanted.region), at, moment, profiles=profiles)

    async def stands(asked: Asked) -> Abandonment:
        row = await _campaign(asked)
        profile = profile_of(profiles(), row["profile"], row["settings"])
        return await abandonment(pool(), row["id"], profile, now())

    async def look_again(asked: Asked) -> Rechecked:
        row = await _campaign(asked)
        opened = await reopen(pool(), campaign=row["id"])
        detail = {"campaign": row["id"], "contacts": opened}
        await audit.record(pool(), asked.who, "campaign.rechecked", "dialer", detail, asked.request.remote)
        return Rechecked(contacts=opened)

    async def _campaign(asked: Asked) -> Any:
        id = asked.params.campaign
        row = await pool().fetchrow("SELECT id, name, profile, settings FROM campaigns WHERE id = $1", id)
        if row is None or not await theirs(asked.who, [id]):
            raise NoSuchCampaign("there is no such campaign, or it is not one of yours")
        return row

    def exported(form: Form, kind: str) -> Callable[[Asked], Awaitable[web.StreamResponse]]:
        async def export(asked: Asked) -> web.StreamResponse:
            wanted: EvidenceAsked = asked.query
            since, before = _sane(wanted.since, "since"), _sane(wanted.before, "before")
            campaign = await _campaign(asked)
            detail = {"since": since, "before": before, "form": form}
            await audit.record(
                pool(), asked.who, "evidence.exported", str(campaign["id"]), detail, asked.request.remote
            )
            name = f"evidence-{campaign['id']}.{form}"
            headers = {**SECURITY_HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
            response = web.StreamResponse(headers=headers)
            response.content_type, response.charset = kind, "utf-8"
            await response.prepare(asked.request)
            if asked.request.method != "HEAD":
                await response.write(evidence.heading(form))
                async for portion in evidence.attempts_of(pool(), campaign["id"], since=since, before=before):
                    await response.write(evidence.written(portion, form))
            await response.write_eof()
            return response

        return export

    @asynccontextmanager
    async def _trailed(asked: Asked, action: str, detail: dict[str, Any]) -> AsyncIterator[PoolConnection]:
        async with pool().acquire(timeout=5) as db, db.transaction():
            yield db
            await audit.record(db, asked.who, action, "dialer", detail, asked.request.remote)

    tag, away = "Dialer: the law", frozenset({503})

    def route(
        method: str, path: str, handler: Callable[[Asked], Awaitable[Any]], summary: str, **more: Any
    ) -> Route:
        return Route(
            method=method,
            path=f"/api/v1{path}",
            handler=handler,
            summary=summary,
            tag=tag,
            **{"errors": away, "roles": SUPERVISORS, **more},
        )

    return [
        route(
            "GET",
            "/dialer/profiles",
            profile_list,
            "Country profiles: each rule with its source and date.",
            result=Page[ProfileView],
        ),
        route("GET", "/dialer/profiles/{name}", profile_read, "One profile.", params=ProfileNamed, result=ProfileView),
        route(
            "POST",
            "/dialer/profiles/{name}/try",
            profile_try,
            "What a campaign with these settings would work by; refused where they are looser than the profile.",
            params=ProfileNamed,
            body=ProfileTried,
            result=ProfileView,
        ),
        route(
            "GET",
            "/dialer/do-not-call",
            entry_list,
            "Our own do-not-call entries, the newest first.",
            query=Paging,
            result=Page[DoNotCallEntry],
        ),
        route(
            "POST",
            "/dialer/do-not-call",
            entry_add,
            "Puts a number on our own list: it is not called from the next moment on.",
            body=NumberListed,
            result=DoNotCallEntry,
            status=201,
            idempotent=True,
        ),
        route(
            "POST",
            "/dialer/do-not-call/import",
            entries_import,
            "Puts the numbers of a file on our own list: a number a line, or CSV; the same again is kept once.",
            query=NumbersListed,
            takes="application/octet-stream",
            result=Taken,
        ),
        route(
            "POST",
            "/dialer/do-not-call/find",
            entry_find,
            "Where a number is listed.",
            body=NumberFound,
            result=NumberOnLists,
        ),
        route(
            "POST",
            "/dialer/do-not-call/{id}/remove",
            entry_remove,
            "Takes an entry back; it stays on record.",
            params=EntryNamed,
            body=Removed,
            result=DoNotCallEntry,
        ),
        route(
            "GET",
            "/dialer/registers",
            register_list,
            "Editions of national registers; `cti dialer register load` loads one.",
            result=Page[RegisterEdition],
        ),
        route(
            "POST",
            "/dialer/consents",
            consent_add,
            "Keeps consent given or withdrawn; the last word counts.",
            body=ConsentSaid,
            result=ConsentKept,
            status=201,
            idempotent=True,
        ),
        route(
            "POST",
            "/dialer/consents/import",
            consents_import,
            "Keeps the consents of a CSV file, whatever its encoding; the same again is kept once.",
            query=ConsentsFile,
            takes="application/octet-stream",
            result=ConsentsTaken,
        ),
        route(
            "POST",
            "/dialer/consents/find",
            consent_find,
            "What was said of consent by a number or person, the newest first.",
            body=ConsentsAsked,
            result=Page[ConsentWord],
        ),
        route(
            "POST",
            "/dialer/why",
            asked_why,
            "Why a number was, is or is not called, step by step.",
            body=WhyAsked,
            result=NumberWhy,
        ),
        route(
            "GET",
            "/campaigns/{campaign}/abandonment",
            stands,
            "Abandoned calls over the legal window, and how many more may be lost until when.",
            params=CampaignNamed,
            result=Abandonment,
            errors=frozenset({409, 503}),
        ),
        route(
            "POST",
            "/campaigns/{campaign}/recheck",
            look_again,
            "Opens the contacts that were blocked, after profile or settings changed: each is judged anew in its turn.",
            params=CampaignNamed,
            result=Rechecked,
        ),
        route(
            "GET",
            "/campaigns/{campaign}/evidence.csv",
            exported("csv", "text/csv"),
            "Every attempt, for a spreadsheet: times, waits, message, list version, consent, checks.",
            params=CampaignNamed,
            query=EvidenceAsked,
            raw="text/csv",
        ),
        route(
            "GET",
            "/campaigns/{campaign}/evidence.jsonl",
            exported("jsonl", "application/x-ndjson"),
            "The same as lines of JSON.",
            params=CampaignNamed,
            query=EvidenceAsked,
            raw="application/x-ndjson",
        ),
    ]  # fmt: skip


def number_of(written: str, region: str | None) -> str:
    """Returns a number in E.164. Raises WrongEntry."""
    number = read_caller(written, region or "").e164
    if number is None:
        raise WrongEntry(
            "number: no country has such a number; write it like +442079460151, or say the region"
        )
    return number


def _sane(moment: datetime | None, name: str) -> datetime | None:
    if moment is not None and not 1970 <= moment.year <= 9000:
        raise Problem(422, "bad_value", f"{name}: say a year from 1970 to 9000")
    return moment


TRANSLATE: dict[type[Exception], Translate] = {
    WrongEntry: lambda error: Problem(422, "bad_value", str(error)),
    WrongConsent: lambda error: Problem(422, "bad_value", str(error)),
    TooLoose: lambda error: Problem(422, "too_loose", str(error)),
    NotASheet: lambda error: Problem(422, "not_a_sheet", str(error)),
    WrongRegister: lambda error: Problem(422, "bad_value", str(error)),
    NoSuchEntry: lambda error: Problem(404, "not_found", str(error)),
    NoSuchCampaign: lambda error: Problem(404, "not_found", str(error)),
    NoProfile: lambda error: Problem(409, "wrong_profile", str(error)),
}
"""What the dialer's own refusals are called over REST; for `application(translate=...)`."""
