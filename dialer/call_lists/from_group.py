"""Call lists from target groups of customers: what a group would give, and the import that makes contacts of it.

Consent is on record with the law's side, by number and customer number. Where a campaign is named (or the list has one), it
is asked for, for that campaign's purpose, when the contacts are made: who has withdrawn it, or has not given it though the
profile demands it, becomes no contact but a row that was not taken, with the reason; when consents have come in, the same
group is imported again. Before each call the law is asked anew in any case.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from cti.frozen import Frozen
from dialer.call_lists import imports
from dialer.call_lists.before_launch import SAYS, lasting
from dialer.call_lists.rows import Bad, ConsentFor, Contact, Country, ImportSettings, RowReader
from dialer.call_lists.sheets import Line
from dialer.call_lists.target_group import COLUMNS, TargetGroups, cells_of, rows_of_group
from dialer.candidate import Candidate
from dialer.compliance import Known, judge
from dialer.law.known import known_for
from dialer.law.profiles import Profile
from dialer.law.why import NoProfile, profile_of
from dialer.lists import STRICT, Name, NotPossible
from dialer.management.settings import CampaignSettings
from dialer.verdict import Step

if TYPE_CHECKING:
    from cti.database import Queryable

Id = Annotated[int, Field(ge=1, lt=1 << 63)]
Profiles = Callable[[], Mapping[str, Profile]]

MOST_ASKED = 20_000
"""Customers of a group whose numbers are looked at for a preview."""


class GroupAsked(BaseModel):
    """A target group of customers, for a list that is there or a new one. `campaign`: whose purpose and profile say which
    consent is needed; where left out, that of the list. `country`: of numbers without a country code."""

    model_config = STRICT

    group: Id
    list: Id | None = None
    campaign: Id | None = None
    country: Country
    duplicates: Literal["list", "active", "all", "keep"] = "list"


class FromGroup(GroupAsked):
    """A target group to be imported, into an existing list or a new one of this name, which is then the campaign's."""

    name: Name | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> FromGroup:
        if (self.list is None) == (self.name is None):
            raise ValueError("say list, or name")
        return self


class GroupReason(Frozen, frozen=True, kw_only=True):
    """Why so many would not be called now. `code`: `row:...` as of rows that are not taken, `duplicate`, `no_zone`,
    `law:...`."""

    code: str
    says: str
    count: int


class GroupPreview(Frozen, frozen=True, kw_only=True):
    """What a target group would give at this moment. `customers` are in it, `with_phone` of them have a number, `numbers` in
    all. The first `asked` were looked at (`whole`: that is everybody), by the number that would be called first.

    Of a campaign (its `purpose`; `needed`: whether its profile demands consent): how many have `consented`, have `withdrawn`
    consent, have said `nothing`; how many are on a do-not-call list or register (`do_not_call`). `twice`: the number of
    another customer before them; `there`: on a list already, as `duplicates` has it. One may be counted in several of these;
    `reasons` tell the first thing in the way of each, and `usable` are those in whose way there is nothing but the hour.
    """

    group: int
    name: str
    at: datetime
    customers: int
    with_phone: int
    numbers: int
    asked: int
    whole: bool
    campaign: int | None
    purpose: str
    needed: bool | None
    consented: int
    withdrawn: int
    nothing: int
    do_not_call: int
    twice: int
    there: int
    usable: int
    reasons: tuple[GroupReason, ...]


class _Law(Frozen, frozen=True, kw_only=True):
    """A campaign as far as it decides on consent."""

    campaign: int
    purpose: str
    profile: Profile
    needed: bool


async def campaign_of(db: Queryable, wanted: GroupAsked) -> int | None:
    """The campaign whose consent is asked for; raises NotPossible where list and campaign do not go together."""
    theirs = await db.fetchval("SELECT campaign_id FROM call_lists WHERE id = $1", wanted.list)
    if wanted.campaign is None:
        return int(theirs) if theirs is not None else None
    if not await db.fetchval("SELECT EXISTS (SELECT FROM campaigns WHERE id = $1)", wanted.campaign):
        raise NotPossible("no_campaign", "there is no such campaign")
    if theirs not in (None, wanted.campaign):
        raise NotPossible(
            "other_campaign",
            f"another campaign ({theirs}) calls this list: leave the campaign out, or take a new list",
        )
    return wanted.campaign


async def _law(db: Queryable, campaign: int | None, profiles: Profiles) -> _Law | None:
    if campaign is None:
        return None
    row = await db.fetchrow("SELECT mode, profile, settings FROM campaigns WHERE id = $1", campaign)
    if row is None:
        raise NotPossible("no_campaign", "there is no such campaign")
    try:
        profile = profile_of(profiles(), row["profile"], row["settings"])
    except NoProfile as error:
        raise NotPossible("no_profile", str(error)) from None
    settings = CampaignSettings.model_validate_json(row["settings"])
    return _Law(
        campaign=campaign,
        purpose=settings.purpose or "marketing",
        profile=profile,
        needed=profile.needs_consent(row["mode"]),
    )


# ------------------------------------------------------------------------------------------------ made a list


async def upload(
    db: Queryable, groups: TargetGroups, wanted: GroupAsked, profiles: Profiles, by: str
) -> tuple[int, ImportSettings, int | None]:
    """Brings the group's customers in as a file; the import's id, how it is to be started, and the campaign whose consent is
    asked for. Raises NoGroup, NotPossible; nothing is left then."""
    law = await _law(db, await campaign_of(db, wanted), profiles)
    settings = _settings(wanted, law)
    rows, _, name = await rows_of_group(groups, wanted.group)
    id = await imports.begin(db, f"target group {name}", by)
    size = part = 0
    try:
        async for content in rows:
            await imports.add_part(db, id, part, content)
            size, part = size + len(content), part + 1
        await imports.uploaded(db, id, imports.OURS, size)
    except BaseException:
        await imports.forget(db, id)
        raise
    return id, settings, law.campaign if law is not None else None


def _settings(wanted: GroupAsked, law: _Law | None) -> ImportSettings:
    consent = ConsentFor(campaign=law.campaign, needed=law.needed) if law is not None else None
    return ImportSettings(
        columns=list(COLUMNS),
        country=wanted.country,
        duplicates=wanted.duplicates,
        header=True,
        consent=consent,
    )


# ------------------------------------------------------------------------------------------------ before that


class _Sum:
    """What has been counted so far."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.reasons: dict[str, GroupReason] = {}
        self.seen: set[str] = set()

    def against(self, code: str, says: str) -> None:
        known = self.reasons.get(code)
        self.reasons[code] = (
            GroupReason(code=code, says=says, count=1)
            if known is None
            else GroupReason(code=code, says=known.says, count=known.count + 1)
        )


async def preview(
    db: Queryable, groups: TargetGroups, wanted: GroupAsked, profiles: Profiles, *, most: int = MOST_ASKED
) -> GroupPreview:
    """What the group would give now; raises NoGroup, NotPossible. Nothing is written."""
    law = await _law(db, await campaign_of(db, wanted), profiles)
    name, size = await groups.name(wanted.group), await groups.size(wanted.group)
    reader = RowReader(_settings(wanted, law))
    told, asked, now = _Sum(), 0, datetime.now(UTC)
    async for rows in groups.rows(wanted.group):
        some = rows[: most - asked]
        lines = [Line(asked + n, cells_of(row)) for n, row in enumerate(some, 1)]
        asked += len(some)
        found = await asyncio.to_thread(lambda part: [reader.read(line) for line in part], lines)
        for bad in found:
            if isinstance(bad, Bad):
                told.against(
                    f"row:{bad.code}", bad.says if bad.code == "no_number" else "its number is no number"
                )
        await _judge(db, [one for one in found if isinstance(one, Contact)], wanted, law, told, now)
        if asked >= most:
            break
    counts = told.counts
    return GroupPreview(
        group=wanted.group,
        name=name,
        at=now,
        customers=size.customers,
        with_phone=size.with_phone,
        numbers=size.numbers,
        asked=asked,
        whole=asked >= size.customers,
        campaign=law.campaign if law is not None else None,
        purpose=law.purpose if law is not None else "",
        needed=law.needed if law is not None else None,
        **{
            name: counts[name]
            for name in ("consented", "withdrawn", "nothing", "do_not_call", "twice", "there", "usable")
        },
        reasons=tuple(sorted(told.reasons.values(), key=lambda one: (-one.count, one.code))),
    )


async def _judge(
    db: Queryable,
    contacts: Sequence[Contact],
    wanted: GroupAsked,
    law: _Law | None,
    told: _Sum,
    now: datetime,
) -> None:
    """Counts a batch: duplicates, consent and do-not-call lists are asked for by two queries."""
    there = await imports.numbers_there(db, contacts, wanted.list, wanted.duplicates)
    candidates = [imports.candidate_from(contact) for contact in contacts]
    known: Mapping[int, Known] = {}
    if law is not None:
        known = await known_for(db, candidates, law.campaign, now)
    # Thousands of verdicts: beside whatever else the server does.
    await asyncio.to_thread(_count, contacts, candidates, known, there, wanted, law, told, now)


def _count(
    contacts: Sequence[Contact],
    candidates: Sequence[Candidate],
    known: Mapping[int, Known],
    there: Collection[str],
    wanted: GroupAsked,
    law: _Law | None,
    told: _Sum,
    now: datetime,
) -> None:
    for contact, candidate in zip(contacts, candidates, strict=True):
        twice = wanted.duplicates != "keep" and contact.e164 in told.seen
        told.seen.add(contact.e164)
        told.counts["twice"] += twice
        told.counts["there"] += contact.e164 in there
        refusal: Step | None = None
        no_zone = False
        if law is not None:
            about = known[candidate.contact]
            said = "nothing" if about.consent is None else "consented" if about.consent.given else "withdrawn"
            told.counts[said] += 1
            told.counts["do_not_call"] += bool(about.listed)
            no_zone = not contact.group.zones and about.mode != "manual"
            # The hour, and what attempts of these days allow, are another matter: they pass.
            verdict = judge(law.profile, candidate, replace(about, under_way=False), now)
            refusal = next((step for step in verdict.steps if not step.ok and lasting(step.rule)), None)
        if twice:
            told.against("duplicate", "the same number as another customer's before")
        elif contact.e164 in there:
            told.against("duplicate", "the number is on a list already")
        elif refusal is not None:
            told.against(f"law:{refusal.rule}", refusal.says)
        elif no_zone:
            told.against("no_zone", SAYS["no_zone"])
        else:
            told.counts["usable"] += 1
