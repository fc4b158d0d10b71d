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
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from uuid import uuid4

import msgspec

from dialer.call_lists.zones import Places
from dialer.calling.for_whom import Reach
from dialer.calling.outcomes import number_of_turn
from dialer.calling.standing import (
    BEING_CALLED,
    NO_CONTACT,
    QUOTA_REACHED,
    NotClaimed,
    waits,
    why_not_open,
)
from dialer.candidate import Candidate, candidate_of
from dialer.lists import Assigned, assigned_of
from dialer.management.settings import Campaign
from dialer.verdict import Verdict

if TYPE_CHECKING:
    from cti.database import Pool, PoolConnection, Queryable

BATCH_LEAST = 20
"""Contacts looked at together at least, so that many refusals do not take many transactions."""

BATCHES = 6
"""Batches of one claim at most: the next claim goes on where this one ended."""

SPARE = 4
"""Contacts looked at more than there are free agents for, of a list that is called one for one."""

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


class Room(Protocol):
    """How many more contacts of these lists may be claimed; lists without limit are left out (`Quotas.room`)."""

    def __call__(self, db: Queryable, lists: Collection[int], now: datetime) -> Awaitable[dict[int, int]]: ...


async def _without_quotas(_db: Queryable, _lists: Collection[int], _now: datetime) -> dict[int, int]:
    return {}


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
    assigned: Assigned = field(default_factory=Assigned)


class Cell(NamedTuple):
    """A list of a campaign: whom it is assigned to, as it is kept and as it is read, and the priorities of its contacts."""

    kept: str | None
    assigned: Assigned
    priorities: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a claim brought. `refused`: reason → how many contacts were put back or blocked for it. `empty`: there is nobody
    left who could be called now; `passed_over`: there is, but on lists whose agents are not free. `held`: the lease is
    another's: nothing was done."""

    attempts: tuple[Claimed, ...] = ()
    refused: Mapping[str, int] = field(default_factory=dict)
    empty: bool = False
    passed_over: bool = False
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
        room: Room | None = None,
    ) -> None:
        """`clock`: seconds that never fall; `room`: what lists have left of their quotas."""
        places = Places()
        self._zones_of = lambda e164: places.of(e164).zones
        self._pool = pool
        self._check_all = check_all
        self._open_groups = open_groups
        self._clock = clock
        self._new_id = new_id
        self._room = room or _without_quotas
        self._cells: dict[int, tuple[float, dict[int, Cell]]] = {}

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

    async def claim(
        self,
        campaign: Campaign,
        lease: Lease,
        most: int,
        *,
        now: datetime,
        pbx: str,
        reach: Reach | None = None,
    ) -> Claim:
        """Claims up to `most` contacts; their attempts are committed when it returns. `reach`: how many of which lists, by
        whom they are assigned to; None: whomever."""
        attempts: list[Claimed] = []
        refused: dict[str, int] = {}
        for _ in range(BATCHES):
            batch = await self._batch(campaign, lease, most - len(attempts), now, pbx, refused, reach)
            if batch is None:
                return NOT_HELD if not attempts else Claim(attempts=tuple(attempts), refused=refused)
            attempts += batch.attempts
            if not batch.looked_at:
                nobody = not attempts
                return Claim(
                    attempts=tuple(attempts),
                    refused=refused,
                    empty=nobody and not batch.passed_over,
                    passed_over=nobody and batch.passed_over,
                )
            if len(attempts) >= most:
                break
        return Claim(attempts=tuple(attempts), refused=refused)

    async def _batch(
        self,
        campaign: Campaign,
        lease: Lease,
        most: int,
        now: datetime,
        pbx: str,
        refused: dict[str, int],
        reach: Reach | None,
    ) -> _Batch | None:
        """One transaction; None if the lease is another's."""
        async with self._pool().acquire() as db, db.transaction():
            if not await _holds(db, lease):
                return None
            groups = await self._open_groups(db, campaign, now)
            if not groups:
                return _Batch()
            cells = await self._lists(db, campaign.id)
            room = await self._room(db, list(cells), now)
            cells = {id: cell for id, cell in cells.items() if room.get(id) != 0}
            rows, passed = await self._take(db, cells, groups, most, now, reach)
            if not rows:
                return _Batch(passed_over=await _anybody(db, passed, groups, now))
            if used_up := [row["id"] for row in rows if row["attempts"] >= _most(row, campaign)]:
                await db.execute(USED_UP, used_up)
                rows = [row for row in rows if row["attempts"] < _most(row, campaign)]
                refused[NO_MORE] = refused.get(NO_MORE, 0) + len(used_up)
                if not rows:
                    return _Batch(looked_at=len(used_up))
            found = [_candidate(row, self._zones_of) for row in rows]
            verdicts = await self._check_all(db, found, campaign, now)
            allowed: dict[int, Candidate] = {}
            refusals: list[tuple[int, Verdict]] = []
            for candidate in found:
                verdict = verdicts.get(candidate.contact)
                if verdict is not None and verdict.allowed:
                    assigned, left = cells[candidate.list].assigned, room.get(candidate.list, most)
                    if len(allowed) < most and left > 0 and (reach is None or reach.take(assigned)):
                        allowed[candidate.contact] = candidate
                        room[candidate.list] = left - 1
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
                    assigned=cells[candidate.list].assigned,
                )
                for row in rows
                if (contact := row["id"]) in allowed and (candidate := allowed[contact])
            ]
            written = await _write(db, campaign, lease.owner, pbx, claimed, now)
            return _Batch(attempts=written, looked_at=len(rows))

    async def _take(
        self,
        db: PoolConnection,
        cells: Mapping[int, Cell],
        groups: Collection[int],
        most: int,
        now: datetime,
        reach: Reach | None,
    ) -> tuple[list[Any], dict[int, Cell]]:
        """The best contacts, locked: lists by priority, in them contacts by priority, then who has waited longest; a few
        more than are wanted, since some will be refused: who is not needed stays as they are. Zone groups take turns by
        chance, so that none waits for another to be through. Second: the lists for which nobody is free."""
        order = list(groups)
        rows: list[Any] = []
        passed: dict[int, Cell] = {}
        useful = 0
        for list_id, cell in cells.items():
            room = reach.room(cell.assigned, most) if reach is not None else None
            if room == 0:
                passed[list_id] = cell
                continue
            here = max(most - useful, BATCH_LEAST - len(rows))
            if room is not None:
                here = min(here, room + SPARE)
            found: list[Any] = []
            for priority in cell.priorities:
                random.shuffle(order)
                found += await db.fetch(TAKE, list_id, priority, order, now, here - len(found), cell.kept)
                if len(found) >= here:
                    break
            rows += found
            useful += len(found) if room is None else min(len(found), room)
            if useful >= most and len(rows) >= BATCH_LEAST:
                break
        return rows, passed

    async def _lists(self, db: PoolConnection, campaign: int) -> dict[int, Cell]:
        """The campaign's active lists by priority, each with the priorities that its open contacts have."""
        if (fresh := self._fresh(campaign)) is not None:
            return fresh
        cells: dict[int, Cell] = {}
        for row in await db.fetch(PRIORITIES, campaign):
            kept = row["assigned"]
            cell = cells.setdefault(row["list_id"], Cell(kept, assigned_of(kept), []))
            cell.priorities.append(row["priority"])
        self._cells[campaign] = self._clock(), cells
        return cells

    def _fresh(self, campaign: int) -> dict[int, Cell] | None:
        """What was looked at not long ago."""
        known = self._cells.get(campaign)
        return known[1] if known is not None and self._clock() - known[0] < CELLS_KEPT else None

    async def look(self, campaign: int) -> bool:
        """Looks at the campaign's lists if that is some seconds ago; whether they are assigned to others than before."""
        if self._fresh(campaign) is not None:
            return False
        before = self.assigned(campaign)
        async with self._pool().acquire() as db:
            await self._lists(db, campaign)
        return self.assigned(campaign) != before

    def assigned(self, campaign: int) -> list[Assigned] | None:
        """Whom the lists are assigned to that have open contacts, as of the last look; None if there was none."""
        known = self._cells.get(campaign)
        return [cell.assigned for cell in known[1].values()] if known is not None else None

    async def pick(
        self, campaign: Campaign, lease: Lease, contact: int, *, now: datetime, pbx: str, reach: Reach
    ) -> Claimed | NotClaimed:
        """Claims this contact of the campaign's lists; its attempt is committed when it returns. Whoever else has it, or is
        picking it at this moment, it is claimed once."""
        async with self._pool().acquire() as db, db.transaction():
            if not await _holds(db, lease):
                return NotClaimed("not_here", "another server sees to this campaign: try again")
            row = await db.fetchrow(TAKE_ONE, contact, campaign.id)
            if row is None:
                return why_not_open(await db.fetchrow(STANDS, contact, campaign.id))
            assigned = assigned_of(row["assigned"])
            if not reach.take(assigned):
                return NO_CONTACT
            if (resting := waits(row, now)) is not None:
                return NotClaimed("not_yet", resting)
            if (await self._room(db, [row["list_id"]], now)).get(row["list_id"]) == 0:
                return NotClaimed("not_yet", QUOTA_REACHED)
            if row["attempts"] >= _most(row, campaign):
                return NotClaimed("not_open", f"this contact cannot be called: {NO_MORE}")
            candidate = self.next_number(row)
            verdict = (await self._check_all(db, [candidate], campaign, now))[contact]
            if not verdict.allowed:
                if any(step.rule == "under_way" for step in verdict.steps if not step.ok):
                    return BEING_CALLED
                await _put_away(db, [(contact, verdict)], now)
                return NotClaimed("not_allowed", verdict.why_not)
            one = Claimed(
                id=self._new_id(),
                candidate=candidate,
                verdict=verdict,
                number_of=candidate.attempts + 1,
                script=row["script"],
                list_name=row["list_name"],
                assigned=assigned,
            )
            return one if await _write(db, campaign, lease.owner, pbx, [one], now) else BEING_CALLED

    def next_number(self, row: Any) -> Candidate:
        """A contact's row with the number of it that is dialed next."""
        return _candidate(row, self._zones_of)

    async def anybody(self, campaign: Campaign, now: datetime) -> bool:
        """Whether there is a contact who might be called now; the law has not been asked but for the hours."""
        async with self._pool().acquire() as db:
            groups = await self._open_groups(db, campaign, now)
            self.forget(campaign.id)
            return await _anybody(db, await self._lists(db, campaign.id), groups, now)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """Attempts written, how many contacts were looked at, and whether some were not because nobody is free for them."""

    attempts: Sequence[Claimed] = ()
    looked_at: int = 0
    passed_over: bool = False


COLUMNS = """c.id, c.list_id, l.version AS list_version, l.name AS list_name, l.script, c.e164, c.other_numbers,
           (l.settings ->> 'max_attempts')::integer AS most,
           c.dead_numbers, c.turn, c.zone_group, c.name, c.person, c.language, c.account_id, c.attempts, c.data,
           z.country, z.region, z.zones"""

TAKE = f"""
    SELECT {COLUMNS}
      FROM unnest($3::integer[]) WITH ORDINALITY AS g (id, place)
     CROSS JOIN LATERAL (
           SELECT * FROM list_contacts o
            WHERE o.list_id = $1 AND o.zone_group = g.id AND o.state = 'open' AND o.priority = $2
              AND o.not_before <= $4
            ORDER BY o.not_before, o.id
            LIMIT $5
              FOR UPDATE SKIP LOCKED) c
      JOIN call_lists l ON l.id = c.list_id AND l.active AND (l.settings -> 'assigned')::text IS NOT DISTINCT FROM $6
      JOIN zone_groups z ON z.id = c.zone_group
     LIMIT $5
"""  # noqa: S608
"""Stops at the last row that is wanted, so no more are locked; one range of the index for each zone group. Nothing of a list
that is assigned to others than was thought ($6): it is looked at again in a moment."""

NO_MORE = "all attempts are used up"
USED_UP = "UPDATE list_contacts SET state = 'exhausted', why = 'no more attempts by now' WHERE id = ANY($1)"
"""Contacts who have had as many attempts as there are, since campaign or list have been given fewer."""


def _most(row: Any, campaign: Campaign) -> int:
    """How many attempts a contact may have: by its list, and by the campaign."""
    return min(row["most"] or campaign.settings.max_attempts, campaign.settings.max_attempts)


TAKE_ONE = f"""
    SELECT {COLUMNS}, c.why, nullif(c.not_before, '-infinity') AS not_before, l.quota_until,
           (l.settings -> 'assigned')::text AS assigned
      FROM list_contacts c JOIN call_lists l ON l.id = c.list_id AND l.active JOIN zone_groups z ON z.id = c.zone_group
     WHERE c.id = $1 AND l.campaign_id = $2 AND c.state = 'open'
       FOR UPDATE OF c SKIP LOCKED
"""  # noqa: S608

STANDS = """
    SELECT c.state, c.why FROM list_contacts c JOIN call_lists l ON l.id = c.list_id AND l.active
     WHERE c.id = $1 AND l.campaign_id = $2
"""

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
    SELECT DISTINCT c.list_id, c.list_priority, c.priority, (l.settings -> 'assigned')::text AS assigned
      FROM cells c JOIN call_lists l ON l.id = c.list_id WHERE c.priority IS NOT NULL
     ORDER BY c.list_priority DESC, c.list_id, c.priority DESC
"""
"""Leaps from priority to priority in the index: reads as many entries as there are different ones."""


async def _holds(db: PoolConnection, lease: Lease) -> bool:
    """Whether the lease still holds; shared, so that nobody takes it over before this transaction has ended."""
    return bool(
        await db.fetchval(
            """
            SELECT true FROM campaign_leases
             WHERE campaign_id = $1 AND owner = $2 AND token = $3 AND until > now() FOR SHARE
            """,
            lease.campaign,
            lease.owner,
            lease.token,
        )
    )


async def _anybody(
    db: PoolConnection, lists: Mapping[int, Cell], groups: Collection[int], now: datetime
) -> bool:
    """Whether there is an open contact on these lists whose time has come."""
    for list_id, cell in lists.items():
        for priority in cell.priorities:
            if await db.fetchval(ANYBODY, list_id, priority, list(groups), now):
                return True
    return False


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
