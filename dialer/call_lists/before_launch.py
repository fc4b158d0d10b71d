"""Before a launch: which contacts of a list can be called and which not, and why, counted by reason, with those of each.

What the list itself knows is counted exactly. What the law says of each contact (do-not-call lists, consent, calling hours,
attempts of the last days) is asked of compliance, for the first contacts in the order in which they would be called.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import asyncpg

from cti.database import patiently
from cti.frozen import Frozen
from cti.users import load_directory
from dialer.call_lists.contacts import ContactView, of_ids
from dialer.call_lists.whose import FOR_NOBODY, callers, settings_of
from dialer.candidate import Candidate, candidate_of
from dialer.compliance import judge
from dialer.law.known import known_for
from dialer.law.profiles import Profile
from dialer.law.why import profile_of
from dialer.lists import ListView, NotPossible, read
from dialer.management.settings import CampaignSettings
from dialer.verdict import Step, Verdict

if TYPE_CHECKING:
    from cti.database import Connection, PoolConnection, Queryable

Judge = Callable[[int, Sequence[Candidate]], Awaitable[Sequence[Verdict]]]
"""What the law says of candidates, in their order, if a campaign (its id) were to call them now."""


def by_law(db: Callable[[], Queryable], profiles: Callable[[], Mapping[str, Profile]]) -> Judge:
    """Compliance as it would decide now, with each campaign's own profile; nobody is claimed by the question."""

    async def verdicts(campaign: int, candidates: Sequence[Candidate]) -> Sequence[Verdict]:
        row = await db().fetchrow("SELECT profile, settings FROM campaigns WHERE id = $1", campaign)
        if row is None:
            return []
        profile = profile_of(profiles(), row["profile"], row["settings"])
        now = datetime.now(UTC)
        known = await known_for(db(), candidates, campaign, now)
        return [judge(profile, one, known[one.contact], now) for one in candidates]

    return verdicts


MOST_ASKED = 20_000
"""Contacts that compliance is asked about, where nothing else is said."""

WITHIN = 120.0
"""Seconds that a statement about a whole list may take; a million contacts take one or two."""

_AT_ONCE = 1000

SAYS = {
    "callable": "can be called",
    "not_asked": "nothing on the list is in the way; the law was not asked about them, only about those before",
    "later": "can be called later: a retry or a promise is due then",
    "no_zone": "nobody knows in which time zone the number rings: not called automatically",
    "in_hand": "is being called",
    "done": "has been reached",
    "attempts_used_up": "all attempts are used up",
    "blocked": "must not be called",
    "skipped": "an agent did not want to call",
}


class LaunchReason(Frozen, frozen=True, kw_only=True):
    """Why so many can or cannot be called. `code`: callable, not_asked, later, no_zone, in_hand, done, attempts_used_up,
    blocked, skipped; `row:...` for rows of files that were not taken (bad_number, duplicate, ...); `law:...` for its rules:
    of those that refuse somebody the first that does not end by itself, so that hours hide no refusal."""

    code: str
    says: str
    count: int


class BeforeLaunch(Frozen, frozen=True, kw_only=True):
    """How a list stands. So many `can` be called now, or `later`; compliance was asked about `asked` contacts, `whole` if
    that is all that could be called: of the others nobody knows (`not_asked`). `hindrances`: what keeps the list itself from
    being called. Of a list that is assigned to some, `callers`: how many of the campaign's agents may call it, at work or
    not."""

    list: int
    at: datetime
    total: int
    can: int
    later: int
    asked: int
    whole: bool
    hindrances: tuple[str, ...]
    callers: int | None
    reasons: tuple[LaunchReason, ...]


_CODE = """CASE WHEN c.state = 'in_hand' THEN 'in_hand' WHEN c.state = 'done' THEN 'done'
    WHEN c.state = 'blocked' THEN 'blocked' WHEN c.state = 'skipped' THEN 'skipped'
    WHEN c.state = 'exhausted' OR c.attempts >= $2 THEN 'attempts_used_up'
    WHEN g.zones = '{}' THEN 'no_zone' WHEN c.not_before > now() THEN 'later' ELSE 'callable' END"""


async def before_launch(
    db: Queryable, id: int, law: Judge | None = None, *, most: int = MOST_ASKED, within: float = WITHIN
) -> BeforeLaunch:
    """How a list stands; raises NoList, and NotPossible for one that cannot be counted `within` so many seconds. Without a
    campaign, or without `law`, the law is not asked."""
    found = await read(db, id)
    mode, settings = await _campaign(db, found)
    limit = found.settings.over(settings).max_attempts
    some: int | None = None
    if found.campaign is not None and not found.settings.assigned.to_all:
        some = callers(found.settings.assigned, mode, settings, (await load_directory(db))[0])
    async with _counting(db, within) as reading:
        rows = await reading.fetch(
            f"""SELECT {_CODE} AS code, CASE WHEN c.state = 'blocked' THEN c.why ELSE '' END AS why, count(*) AS n
                FROM list_contacts c JOIN zone_groups g ON g.id = c.zone_group WHERE c.list_id = $1 GROUP BY 1, 2""",  # noqa: S608
            *(id, limit),
            timeout=within + 5,
        )
        bad_rows = await reading.fetch(
            """SELECT b.code, min(b.says) AS says, count(*) AS n
               FROM list_bad_rows b JOIN list_imports i ON i.id = b.import_id
               WHERE i.list_id = $1 AND i.state <> 'undone' GROUP BY 1""",
            id,
            timeout=within + 5,
        )
    counts = {(row["code"], row["why"]): row["n"] for row in rows}
    reasons = [
        LaunchReason(code=code, says=f"{SAYS[code]}: {why}" if why else SAYS[code], count=n)
        for (code, why), n in counts.items()
    ]
    reasons += [LaunchReason(code=f"row:{row['code']}", says=row["says"], count=row["n"]) for row in bad_rows]
    can, asked = counts.get(("callable", ""), 0), 0
    refused: dict[str, LaunchReason] = {}
    if law is not None and found.campaign is not None:
        asked, refused = await _refusals(db, found, limit, law, most)
    unasked = can - asked if law is not None and found.campaign is not None else 0
    can -= sum(one.count for one in refused.values()) + unasked
    reasons = [one for one in reasons if one.code != "callable"]
    reasons += [
        LaunchReason(code="callable", says=SAYS["callable"], count=can),
        LaunchReason(code="not_asked", says=SAYS["not_asked"], count=unasked),
        *refused.values(),
    ]
    order = ["callable", "not_asked", "later"]
    reasons.sort(key=lambda one: (one.code not in order, -one.count, one.code))
    return BeforeLaunch(
        list=id,
        at=datetime.now(UTC),
        total=found.total,
        can=can,
        later=counts.get(("later", ""), 0),
        asked=asked,
        whole=not unasked,
        hindrances=_hindrances(found, some),
        callers=some,
        reasons=tuple(one for one in reasons if one.count),
    )


@asynccontextmanager
async def _counting(db: Queryable, within: float) -> AsyncIterator[Connection | PoolConnection]:
    try:
        async with patiently(db, within) as reading:
            yield reading
    except (asyncpg.QueryCanceledError, TimeoutError):
        raise NotPossible(
            "too_long",
            f"this list could not be counted in {within:g} seconds: try again when the database has less to do",
        ) from None


def _hindrances(found: ListView, some: int | None) -> tuple[str, ...]:
    told = []
    if not found.active:
        told.append("the list is not active")
    if found.campaign is None:
        told.append("the list belongs to no campaign")
    if some == 0:
        told.append(FOR_NOBODY.format(found.settings.assigned.told()))
    if found.quota_until is not None and found.quota_until > datetime.now(UTC):
        told.append("a quota of the list is reached")
    return tuple(told)


async def _campaign(db: Queryable, found: ListView) -> tuple[str, CampaignSettings]:
    """Mode and settings of the campaign that calls the list; of none: the usual ones."""
    row = await db.fetchrow("SELECT mode, settings FROM campaigns WHERE id = $1", found.campaign)
    return (row["mode"], settings_of(row["settings"])) if row is not None else ("", CampaignSettings())


async def _candidates(db: Queryable, found: ListView, limit: int, after: int, most: int) -> list[Candidate]:
    """The next contacts that could be called but for the law."""
    async with _counting(db, WITHIN) as reading:  # few among many are looked for in the whole list
        rows = await reading.fetch(
            """SELECT c.*, g.country, g.region, g.zones, $5::integer AS list_version
               FROM list_contacts c JOIN zone_groups g ON g.id = c.zone_group
               WHERE c.list_id = $1 AND c.id > $2 AND c.state = 'open' AND c.attempts < $3 AND g.zones <> '{}'
                   AND c.not_before <= now() ORDER BY c.list_id, c.id LIMIT $4""",
            *(found.id, after, limit, most, found.version),
            timeout=WITHIN + 5,
        )
    return [candidate_of(row, row["e164"]) for row in rows]


async def _refusals(
    db: Queryable, found: ListView, limit: int, law: Judge, most: int
) -> tuple[int, dict[str, LaunchReason]]:
    assert found.campaign is not None
    asked, after = 0, 0
    refused: dict[str, LaunchReason] = {}
    while asked < most and (some := await _candidates(db, found, limit, after, min(_AT_ONCE, most - asked))):
        for verdict in await law(found.campaign, some):
            if verdict.allowed:
                continue
            step = _refusal(verdict)
            code = f"law:{step.rule}"
            known = refused.get(code)
            count = known.count + 1 if known else 1
            refused[code] = LaunchReason(code=code, says=known.says if known else step.says, count=count)
        asked, after = asked + len(some), some[-1].contact
    return asked, refused


def _refusal(verdict: Verdict) -> Step:
    """Of what refuses a contact the first step that time does not help with, else the first."""
    refusals = [step for step in verdict.steps if not step.ok]
    return next((step for step in refusals if lasting(step.rule)), refusals[0])


def lasting(rule: str) -> bool:
    """Whether what this rule refuses is not over by itself in hours or days."""
    return rule in ("country", "do_not_call", "consent") or rule.startswith("register_")


async def contacts_of(
    db: Queryable,
    id: int,
    code: str,
    law: Judge | None = None,
    *,
    after: int = 0,
    limit: int = 100,
    most: int = MOST_ASKED,
) -> list[ContactView]:
    """Contacts of a list that a reason holds for, those with an id above `after`; none for `row:...`, whose rows are with
    the import. The law is asked about `most` at once: `not_asked` are those after so many."""
    found = await read(db, id)
    attempts = found.settings.over((await _campaign(db, found))[1]).max_attempts
    asks = law is not None and found.campaign is not None
    if code.startswith("law:") or (code == "callable" and asks):
        ids = await _judged(db, found, attempts, code, law, after, limit, most) if asks and law else []
    elif code in SAYS:
        state, skip = ("callable", most) if code == "not_asked" else (code, 0)
        if code == "not_asked" and not asks:
            return []
        async with _counting(db, WITHIN) as reading:
            rows = await reading.fetch(
                f"""SELECT c.id FROM list_contacts c JOIN zone_groups g ON g.id = c.zone_group
                    WHERE c.list_id = $1 AND c.id > $4 AND {_CODE} = $3 ORDER BY c.list_id, c.id
                    LIMIT $5 OFFSET $6""",  # noqa: S608
                *(id, attempts, state, after, limit, 0 if after else skip),
                timeout=WITHIN + 5,
            )
        ids = [row["id"] for row in rows]
    else:
        ids = []
    return await of_ids(db, ids)


async def _judged(
    db: Queryable, found: ListView, attempts: int, code: str, law: Judge, after: int, limit: int, most: int
) -> list[int]:
    """Those whom the law allows (`callable`), or refuses for this reason."""
    assert found.campaign is not None
    ids: list[int] = []
    asked = 0
    while asked < most and (
        some := await _candidates(db, found, attempts, after, min(_AT_ONCE, most - asked))
    ):
        verdicts = await law(found.campaign, some)
        for one, verdict in zip(some, verdicts, strict=True):
            if code == ("callable" if verdict.allowed else f"law:{_refusal(verdict).rule}"):
                ids.append(one.contact)
        if len(ids) >= limit:
            break
        asked, after = asked + len(some), some[-1].contact
    return ids[:limit]
