"""Claims: whom to call next. Each contact is claimed once, by however many processes; what may be claimed, the law decides.

A claim is one transaction: the campaign's lease is held, contacts are taken (`FOR UPDATE SKIP LOCKED`: the best of each
list, priority and open zone group, by the index of 0090), compliance looks at all of them at once, an attempt is written
for each that may be called and the contact is `in_hand`; the others are put where they belong, with the reason. When it has
committed, the attempts are the caller's to dial or to `withdraw`.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

import msgspec

from dialer.call_lists.zones import Places
from dialer.calling.outcomes import number_of_turn
from dialer.candidate import Candidate, candidate_of
from dialer.management.settings import Campaign
from dialer.verdict import Verdict

if TYPE_CHECKING:
    from cti.database import Pool, PoolConnection, Queryable

BATCH_LEAST = 20
"""Contacts looked at together at least, so that many refusals do not take many transactions."""

BATCHES = 6
"""Batches of one claim at most: the next claim goes on where this one ended."""

CELLS_KEPT = 5.0
"""Seconds that it is remembered which priorities and zone groups a list has."""

AGAIN = timedelta(minutes=2)
"""After which a contact is looked at again whose number is in a call just now."""


class CheckAll(Protocol):
    """What the law and the settings say of these calls, by contact (`LawDesk.check_all`)."""

    def __call__(
        self, db: Queryable, candidates: Sequence[Candidate], campaign: Campaign, now: datetime
    ) -> Awaitable[Mapping[int, Verdict]]: ...


class OpenGroups(Protocol):
    """Ids of the zone groups in which the campaign may call now (`LawDesk.open_groups`)."""

    def __call__(self, db: Queryable, campaign: Campaign, now: datetime) -> Awaitable[Collection[int]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to pace a campaign, until another holds a higher token."""

    campaign: int
    owner: str
    token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """An attempt that is committed and not dialed yet."""

    id: str
    candidate: Candidate
    verdict: Verdict
    number_of: int
    script: str = ""
    list_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a claim brought. `refused`: reason → how many contacts were put back or blocked for it. `empty`: there is nobody
    left who could be called now. `held`: the lease is another's: nothing was done."""

    attempts: tuple[Claimed, ...] = ()
    refused: Mapping[str, int] = field(default_factory=dict)
    empty: bool = False
    held: bool = True


NOT_HELD = Claim(held=False)


class Claims:
    """Claims contacts for the campaigns of one PBX or several. Any number of processes may use the same database."""

    def __init__(
        self,
        pool: Callable[[], Pool],
        *,
        check_all: CheckAll,
        open_groups: OpenGroups,
        clock: Callable[[], float],
        new_id: Callable[[], str] = lambda: f"at-{uuid4().hex}",
    ) -> None:
        """`clock`: seconds that never fall."""
        places = Places()
        self._zones_of = lambda e164: places.of(e164).zones
        self._pool = pool
        self._check_all = check_all
        self._open_groups = open_groups
        self._clock = clock
        self._new_id = new_id
        self._cells: dict[int, tuple[float, dict[int, list[int]]]] = {}

    # ------------------------------------------------------------------------------------------ the lease

    async def lease(self, campaign: int, owner: str, seconds: float) -> Lease | None:
        """Takes or renews the right to pace a campaign for so many seconds by the database's clock; None while another
        has it."""
        token = await self._pool().fetchval(
            """
            INSERT INTO campaign_leases AS l (campaign_id, owner, until)
            VALUES ($1, $2, now() + make_interval(secs => $3))
            ON CONFLICT (campaign_id) DO UPDATE
               SET owner = excluded.owner, until = excluded.until,
                   token = l.token + CASE WHEN l.owner = excluded.owner THEN 0 ELSE 1 END
             WHERE l.owner = excluded.owner OR l.until < now()
            RETURNING token
            """,
            campaign,
            owner,
            seconds,
        )
        return Lease(campaign=campaign, owner=owner, token=token) if token is not None else None

    async def give_back(self, lease: Lease) -> None:
        """Another may pace the campaign at once."""
        await self._pool().execute(
            "UPDATE campaign_leases SET until = '-infinity' WHERE campaign_id = $1 AND owner = $2 AND token = $3",
            lease.campaign,
            lease.owner,
            lease.token,
        )

    # ------------------------------------------------------------------------------------------ claiming

    async def claim(self, campaign: Campaign, lease: Lease, most: int, *, now: datetime, pbx: str) -> Claim:
        """Claims up to `most` contacts; their attempts are committed when it returns."""
        attempts: list[Claimed] = []
        refused: dict[str, int] = {}
        for _ in range(BATCHES):
            batch = await self._batch(campaign, lease, most - len(attempts), now, pbx, refused)
            if batch is None:
                return NOT_HELD if not attempts else Claim(attempts=tuple(attempts), refused=refused)
            found, taken = batch
            attempts += found
            if not taken:
                return Claim(attempts=tuple(attempts), refused=refused, empty=not attempts)
            if len(attempts) >= most:
                break
        return Claim(attempts=tuple(attempts), refused=refused)

    async def _batch(
        self, campaign: Campaign, lease: Lease, most: int, now: datetime, pbx: str, refused: dict[str, int]
    ) -> tuple[list[Claimed], int] | None:
        """One transaction: attempts written, and how many contacts were looked at; None if the lease is another's."""
        async with self._pool().acquire() as db, db.transaction():
            # Shared, so that nobody takes the lease over before this has committed.
            held = await db.fetchval(
                """
                SELECT true FROM campaign_leases
                 WHERE campaign_id = $1 AND owner = $2 AND token = $3 AND until > now() FOR SHARE
                """,
                lease.campaign,
                lease.owner,
                lease.token,
            )
            if held is None:
                return None
            groups = await self._open_groups(db, campaign, now)
            if not groups:
                return [], 0
            # A few more than are wanted, since some will be refused; who is not needed stays as they are.
            rows = await self._take(db, campaign, groups, max(most, BATCH_LEAST), now)
            if not rows:
                return [], 0
            found = [_candidate(row, self._zones_of) for row in rows]
            verdicts = await self._check_all(db, found, campaign, now)
            allowed: dict[int, Candidate] = {}
            refusals: list[tuple[int, Verdict]] = []
            for candidate in found:
                verdict = verdicts.get(candidate.contact)
                if verdict is not None and verdict.allowed:
                    if len(allowed) < most:
                        allowed[candidate.contact] = candidate
                elif verdict is not None:
                    refusals.append((candidate.contact, verdict))
                    refused[verdict.why_not] = refused.get(verdict.why_not, 0) + 1
            await _put_away(db, refusals, now)
            claimed = [
                Claimed(
                    id=self._new_id(),
                    candidate=candidate,
                    verdict=verdicts[contact],
                    number_of=candidate.attempts + 1,
                    script=row["script"],
                    list_name=row["list_name"],
                )
                for row in rows
                if (contact := row["id"]) in allowed and (candidate := allowed[contact])
            ]
            return await _write(db, campaign, lease.owner, pbx, claimed, now), len(rows)

    async def _take(
        self, db: PoolConnection, campaign: Campaign, groups: Collection[int], most: int, now: datetime
    ) -> list[Any]:
        """The best contacts, locked: lists by priority, in them contacts by priority, then who has waited longest. Zone
        groups take turns by chance, so that none waits for another to be through."""
        cells = await self._priorities(db, campaign.id)
        order = list(groups)
        rows: list[Any] = []
        for list_id, priorities in cells.items():
            for priority in priorities:
                random.shuffle(order)
                rows += await db.fetch(TAKE, list_id, priority, order, now, most - len(rows))
                if len(rows) >= most:
                    return rows
        return rows

    async def _priorities(self, db: PoolConnection, campaign: int) -> dict[int, list[int]]:
        """The campaign's active lists by priority, each with the priorities that its open contacts have."""
        known = self._cells.get(campaign)
        if known is not None and self._clock() - known[0] < CELLS_KEPT:
            return known[1]
        cells: dict[int, list[int]] = {}
        for row in await db.fetch(PRIORITIES, campaign):
            cells.setdefault(row["list_id"], []).append(row["priority"])
        self._cells[campaign] = self._clock(), cells
        return cells

    async def anybody(self, campaign: Campaign, now: datetime) -> bool:
        """Whether there is a contact who might be called now; the law has not been asked but for the hours."""
        async with self._pool().acquire() as db:
            groups = list(await self._open_groups(db, campaign, now))
            self.forget(campaign.id)
            for list_id, priorities in (await self._priorities(db, campaign.id)).items():
                for priority in priorities:
                    if await db.fetchval(ANYBODY, list_id, priority, groups, now):
                        return True
        return False

    def forget(self, campaign: int) -> None:
        """Looks again at which lists and priorities there are."""
        self._cells.pop(campaign, None)

    async def withdraw(self, ids: Sequence[str]) -> None:
        """Takes back attempts that were not dialed: the contacts are as they were before."""
        if not ids:
            return
        async with self._pool().acquire() as db, db.transaction():
            rows = await db.fetch(
                """
                DELETE FROM attempts WHERE id = ANY($1) AND state = 'committed'
                RETURNING contact_id
                """,
                list(ids),
            )
            await db.execute(
                """
                UPDATE list_contacts c
                   SET state = 'open', attempts = c.attempts - 1,
                       last_attempt = (SELECT max(committed) FROM attempts a WHERE a.contact_id = c.id)
                 WHERE id = ANY($1) AND state = 'in_hand'
                """,
                [row["contact_id"] for row in rows],
            )


TAKE = """
    SELECT c.id, c.list_id, l.version AS list_version, l.name AS list_name, l.script, c.e164, c.other_numbers,
           c.dead_numbers, c.turn, c.zone_group, c.name, c.person, c.language, c.account_id, c.attempts, c.data,
           z.country, z.region, z.zones
      FROM unnest($3::integer[]) WITH ORDINALITY AS g (id, place)
     CROSS JOIN LATERAL (
           SELECT * FROM list_contacts o
            WHERE o.list_id = $1 AND o.zone_group = g.id AND o.state = 'open' AND o.priority = $2
              AND o.not_before <= $4
            ORDER BY o.not_before, o.id
            LIMIT $5
              FOR UPDATE SKIP LOCKED) c
      JOIN call_lists l ON l.id = c.list_id AND l.active
      JOIN zone_groups z ON z.id = c.zone_group
     LIMIT $5
"""
"""Stops at the last row that is wanted, so no more are locked; one range of the index for each zone group."""

ANYBODY = """
    SELECT EXISTS (
        SELECT FROM unnest($3::integer[]) AS g (id)
         WHERE EXISTS (SELECT FROM list_contacts o
                        WHERE o.list_id = $1 AND o.zone_group = g.id AND o.state = 'open' AND o.priority = $2
                          AND o.not_before <= $4))
"""

PRIORITIES = """
    WITH RECURSIVE lists AS (
        SELECT id, priority FROM call_lists WHERE campaign_id = $1 AND active
           AND (quota_until IS NULL OR quota_until <= now())
    ), cells AS (
        SELECT l.id AS list_id, l.priority AS list_priority, g.id AS zone_group,
               (SELECT max(c.priority) FROM list_contacts c
                 WHERE c.list_id = l.id AND c.zone_group = g.id AND c.state = 'open') AS priority
          FROM lists l CROSS JOIN zone_groups g
        UNION ALL
        SELECT list_id, list_priority, zone_group,
               (SELECT max(c.priority) FROM list_contacts c
                 WHERE c.list_id = cells.list_id AND c.zone_group = cells.zone_group AND c.state = 'open'
                   AND c.priority < cells.priority)
          FROM cells WHERE priority IS NOT NULL
    )
    SELECT DISTINCT list_id, list_priority, priority FROM cells WHERE priority IS NOT NULL
     ORDER BY list_priority DESC, list_id, priority DESC
"""
"""Leaps from priority to priority in the index: reads as many entries as there are different ones."""


def _candidate(row: Any, zones_of: Callable[[str], tuple[str, ...]]) -> Candidate:
    """The contact with the number that is next. Of another number than its own the zones are both numbers' together."""
    e164 = number_of_turn(row["e164"], row["other_numbers"], row["dead_numbers"], row["turn"])
    candidate = candidate_of(row, e164)
    if e164 == row["e164"]:
        return candidate
    found = zones_of(e164)
    zones = tuple(sorted({*candidate.zones, *found})) if found else ()
    return replace(candidate, zones=zones, region="")


async def _put_away(db: PoolConnection, refusals: Sequence[tuple[int, Verdict]], now: datetime) -> None:
    """Refused contacts: blocked, or open again from when the refusal may end; with the reason."""
    if not refusals:
        return
    await db.execute(
        """
        UPDATE list_contacts c SET state = r.state, why = r.why, not_before = coalesce(r.not_before, c.not_before)
          FROM unnest($1::bigint[], $2::text[], $3::text[], $4::timestamptz[])
               AS r (id, state, why, not_before)
         WHERE c.id = r.id
        """,
        [contact for contact, _ in refusals],
        ["blocked" if verdict.forever else "open" for _, verdict in refusals],
        [verdict.why_not[:200] for _, verdict in refusals],
        [
            max(verdict.not_before, now + timedelta(seconds=1)) if verdict.not_before is not None else None
            for _, verdict in refusals
        ],
    )


async def _write(
    db: PoolConnection, campaign: Campaign, owner: str, pbx: str, claimed: Sequence[Claimed], now: datetime
) -> list[Claimed]:
    """Writes the attempts and takes the contacts in hand. Who has a number that is in a call just now waits."""
    if not claimed:
        return []
    rows = await db.fetch(
        """
        INSERT INTO attempts (id, campaign_id, list_id, contact_id, person, e164, pbx, mode, profile, list_version,
                              consent, checks, owner, number_of, committed)
        SELECT a.id, $2, a.list_id, a.contact_id, a.person, a.e164, $3, $4, $5, a.list_version, a.consent,
               a.checks::jsonb, $6, a.number_of, $7
          FROM unnest($1::text[], $8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::integer[], $13::text[],
                      $14::text[], $15::integer[])
               AS a (id, list_id, contact_id, person, e164, list_version, consent, checks, number_of)
            ON CONFLICT DO NOTHING
        RETURNING id
        """,
        [one.id for one in claimed],
        campaign.id,
        pbx,
        campaign.mode,
        campaign.profile,
        owner,
        now,
        [one.candidate.list for one in claimed],
        [one.candidate.contact for one in claimed],
        [one.candidate.person for one in claimed],
        [one.candidate.e164 for one in claimed],
        [one.candidate.list_version for one in claimed],
        [one.verdict.consent for one in claimed],
        [_steps(one.verdict) for one in claimed],
        [one.number_of for one in claimed],
    )
    written = {row["id"] for row in rows}
    await db.execute(
        """
        UPDATE list_contacts c
           SET state = CASE WHEN t.taken THEN 'in_hand' ELSE 'open' END,
               why = CASE WHEN t.taken THEN '' ELSE 'is in a call just now' END,
               attempts = c.attempts + t.taken::integer,
               last_attempt = CASE WHEN t.taken THEN $3 ELSE c.last_attempt END,
               not_before = CASE WHEN t.taken THEN c.not_before ELSE $4 END
          FROM unnest($1::bigint[], $2::boolean[]) AS t (id, taken)
         WHERE c.id = t.id
        """,
        [one.candidate.contact for one in claimed],
        [one.id in written for one in claimed],
        now,
        now + AGAIN,
    )
    return [one for one in claimed if one.id in written]


def _steps(verdict: Verdict) -> str:
    return msgspec.json.encode(
        [{"rule": s.rule, "ok": s.ok, "says": s.says, "source": s.source} for s in verdict.steps]
    ).decode()
