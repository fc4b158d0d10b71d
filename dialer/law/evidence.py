"""Evidence: every attempt of a campaign as an authority may want to see it, streamed as CSV or JSON lines."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import asyncpg
import msgspec

from cti.frozen import Frozen
from dialer.call_lists.sheets import safe

if TYPE_CHECKING:
    from cti.database import Queryable

Form = Literal["csv", "jsonl"]
PORTION = 1_000


class AttemptEvidence(Frozen, frozen=True, gc=False, kw_only=True):
    """One attempt. `ring_s`: how long it rang; `to_agent_s`: how long the person waited for the agent; null where it did
    not come to it. `wait_s`: how long they might, and `wait_from` when both count: `answer`, or `greeting`, its end.

    `checks`: each rule that was looked at before it was placed, what it said, and its source. `list_version`: the list as it
    was; `consent`: the one relied upon. `cause`: ITU-T Q.850, as the switch gave it. `counts_as`: how the law counts its
    answer: in_time, early (gone before the wait was over), late and nobody (abandoned calls), machine; null: no answer.
    `amd`: what detection said, `amd_s` seconds after the answer, and its `amd_cause`; `detail`: what became of the message
    for a machine.
    """

    attempt: str
    campaign: int
    campaign_name: str
    list_id: int | None
    list_version: int
    contact: int | None
    person: str
    number: str
    number_of: int
    mode: str
    profile: str
    caller_id: str
    pbx: str
    trunk: str
    committed: datetime
    dialed: datetime | None
    ringing: datetime | None
    answered: datetime | None
    connected: datetime | None
    ended: datetime | None
    ring_s: float | None
    to_agent_s: float | None
    wait_s: float | None
    wait_from: str | None
    agent: str | None
    queue: str | None
    outcome: str | None
    counts_as: str | None
    cause: int | None
    amd: str | None
    amd_cause: str | None
    amd_s: float | None
    detail: str
    message_played: datetime | None
    opted_out: bool
    disposition: str | None
    consent: str
    why: str
    checks: list[dict[str, Any]]


async def attempts_of(
    db: Queryable, campaign_id: int, *, since: datetime | None = None, before: datetime | None = None
) -> AsyncIterator[list[AttemptEvidence]]:
    """Yields a campaign's attempts in the order in which they were made, some at a time; nothing is held meanwhile."""
    after, last = since or datetime(1970, 1, 1, tzinfo=UTC), ""
    while True:
        rows = await db.fetch(
            """SELECT a.*, c.name AS campaign_name FROM attempts a JOIN campaigns c ON c.id = a.campaign_id
               WHERE a.campaign_id = $1 AND a.committed >= $2 AND (a.committed, a.id) > ($2, $3)
                 AND ($4::timestamptz IS NULL OR a.committed < $4)
               ORDER BY a.committed, a.id LIMIT $5""",
            campaign_id,
            after,
            last,
            before,
            PORTION,
        )
        if rows:
            yield [evidence_of(row) for row in rows]
        if len(rows) < PORTION:
            return
        after, last = rows[-1]["committed"], rows[-1]["id"]


async def attempts_to(db: Queryable, e164: str, *, limit: int = 200) -> list[AttemptEvidence]:
    """Returns attempts to a number, the newest first."""
    rows = await db.fetch(
        """SELECT a.*, c.name AS campaign_name FROM attempts a JOIN campaigns c ON c.id = a.campaign_id
           WHERE a.e164 = $1 ORDER BY a.committed DESC LIMIT $2""",
        e164,
        limit,
    )
    return [evidence_of(row) for row in rows]


def evidence_of(row: asyncpg.Record) -> AttemptEvidence:
    """Returns a row of `attempts` (with its campaign's name) as evidence."""
    rang = row["answered"] or row["ended"] if row["ringing"] is not None else None
    seconds = row["waited"]
    if seconds is None and row["answered"] is not None and row["connected"] is not None:
        seconds = (row["connected"] - row["answered"]).total_seconds()
    return AttemptEvidence(
        attempt=row["id"],
        campaign=row["campaign_id"],
        campaign_name=row["campaign_name"],
        list_id=row["list_id"],
        list_version=row["list_version"],
        contact=row["contact_id"],
        person=row["person"],
        number=row["e164"],
        number_of=row["number_of"],
        mode=row["mode"],
        profile=row["profile"],
        caller_id=row["caller_id"],
        pbx=row["pbx"],
        trunk=row["trunk"],
        committed=row["committed"],
        dialed=row["dialed"],
        ringing=row["ringing"],
        answered=row["answered"],
        connected=row["connected"],
        ended=row["ended"],
        ring_s=round((rang - row["ringing"]).total_seconds(), 3) if rang is not None else None,
        to_agent_s=round(seconds, 3) if seconds is not None and row["connected"] is not None else None,
        wait_s=round(row["wait_s"], 3) if row["wait_s"] is not None else None,
        wait_from=row["wait_from"],
        agent=row["agent"],
        queue=row["queue"],
        outcome=row["outcome"],
        counts_as=row["counts_as"],
        cause=row["cause"],
        amd=row["amd"],
        amd_cause=row["amd_cause"],
        amd_s=round(row["amd_s"], 3) if row["amd_s"] is not None else None,
        detail=row["detail"],
        message_played=row["message_played"],
        opted_out=row["opted_out"],
        disposition=row["disposition"],
        consent=row["consent"],
        why=row["why"],
        checks=_checks(row["checks"]),
    )


def wait_told(one: AttemptEvidence) -> str:
    """Returns how long who answered has waited for an agent and from when that was counted; "" where nobody answered, or
    nobody was to wait."""
    if one.wait_s is None or one.counts_as not in ("in_time", "late", "nobody"):
        return ""
    since = f"{'the end of the greeting' if one.wait_from == 'greeting' else 'the answer'} (at most {one.wait_s:g} s)"
    if one.to_agent_s is not None:
        return f"an agent {one.to_agent_s:g} s after {since}"
    return f"no agent in time, counted from {since}" if one.counts_as == "nobody" else ""


def _checks(written: str) -> list[dict[str, Any]]:
    found = msgspec.json.decode(written)
    return [check for check in found if isinstance(check, dict)] if isinstance(found, list) else []


def written(portion: list[AttemptEvidence], form: Form) -> bytes:
    """Returns attempts as lines of JSON, or of CSV without a heading."""
    if form == "jsonl":
        return b"".join(msgspec.json.encode(one) + b"\n" for one in portion)
    out = io.StringIO()
    write = csv.writer(out)
    for one in portion:
        write.writerow(_cell(getattr(one, name)) for name in AttemptEvidence.__struct_fields__)
    return out.getvalue().encode()


def heading(form: Form) -> bytes:
    """Returns the first line: the names of the columns of a CSV file, nothing for JSON lines."""
    return b"" if form == "jsonl" else (",".join(AttemptEvidence.__struct_fields__) + "\r\n").encode()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        value = msgspec.json.encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bool):
        return str(value).lower()
    return safe(value) if isinstance(value, str) else value
