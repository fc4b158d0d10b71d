"""How the detection of answering machines does: how many answers it looked at, what it said and why, how long it took, and
what became of the messages left on machines. From the attempts, by when calls were placed."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from cti.frozen import Frozen

if TYPE_CHECKING:
    from cti.database import Queryable


class Verdicts(Frozen, frozen=True, gc=False, kw_only=True):
    """Answers on which detection said the same for the same reason. `verdict`: HUMAN, MACHINE, NOTSURE (taken for a person)
    or FAX; `cause` as Asterisk calls it (LONGGREETING, MAXWORDS, INITIALSILENCE, TOOLONG, HUMAN), "" where it says none.
    `share` of 1 of all that were looked at. Seconds from the answer to the decision: half of them were not slower than
    `p50_s`, 95 of 100 not slower than `p95_s`; null where that was not measured."""

    verdict: str
    cause: str
    calls: int
    share: float
    p50_s: float | None
    p95_s: float | None


class Detection(Frozen, frozen=True, gc=False, kw_only=True):
    """Detection in one campaign, of calls placed from `first` to before `last`. `answered`: somebody or something picked up;
    `looked_at`: detection came to an end; `undecided`: nothing was decided: detection was off, or the call ended before.
    `talked`: of those taken for people, how many talked with an agent; `hung_up`: how many were gone before one was due.
    `messages`: what became of the message for machines, by name, how often."""

    campaign: int
    name: str
    first: datetime
    last: datetime
    answered: int
    looked_at: int
    undecided: int
    people: int
    machines: int
    not_sure: int
    faxes: int
    talked: int
    hung_up: int
    p50_s: float | None
    p95_s: float | None
    verdicts: list[Verdicts]
    messages: dict[str, int]


QUERY = """
    SELECT grouping(t.verdict) = 1 AS whole, t.verdict, t.cause, count(*)::integer AS calls,
           percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY t.amd_s) AS seconds,
           count(*) FILTER (WHERE t.outcome IN ('connected', 'agent_error'))::integer AS talked,
           count(*) FILTER (WHERE t.outcome = 'answered')::integer AS hung_up
      FROM (SELECT upper(amd) AS verdict, upper(split_part(coalesce(amd_cause, ''), '-', 1)) AS cause, amd_s, outcome
              FROM attempts
             WHERE campaign_id = $1 AND answered IS NOT NULL AND committed >= $2 AND committed < $3) AS t
     GROUP BY GROUPING SETS ((t.verdict, t.cause), ())
"""

MESSAGES = """
    SELECT detail, count(*)::integer AS calls FROM attempts
     WHERE campaign_id = $1 AND answered IS NOT NULL AND committed >= $2 AND committed < $3 AND detail <> ''
       AND outcome = 'machine'
     GROUP BY detail
"""


async def detection(db: Queryable, campaign: int, name: str, first: datetime, last: datetime) -> Detection:
    """How detection did in a campaign; two questions to the database, however many calls there were."""
    rows = await db.fetch(QUERY, campaign, first, last)
    messages = await db.fetch(MESSAGES, campaign, first, last)
    whole = next(row for row in rows if row["whole"])
    told = [row for row in rows if not row["whole"] and row["verdict"] is not None]
    looked_at = sum(row["calls"] for row in told)
    people = [row for row in told if row["verdict"] not in ("MACHINE", "FAX")]

    def many(verdict: str) -> int:
        return sum(row["calls"] for row in told if row["verdict"] == verdict)

    verdicts = [
        Verdicts(
            verdict=row["verdict"],
            cause=row["cause"],
            calls=row["calls"],
            share=round(row["calls"] / looked_at, 6),
            p50_s=_seconds(row, 0),
            p95_s=_seconds(row, 1),
        )
        for row in sorted(told, key=lambda row: (-row["calls"], row["verdict"], row["cause"]))
    ]
    return Detection(
        campaign=campaign,
        name=name,
        first=first,
        last=last,
        answered=whole["calls"],
        looked_at=looked_at,
        undecided=whole["calls"] - looked_at,
        people=many("HUMAN"),
        machines=many("MACHINE"),
        not_sure=many("NOTSURE"),
        faxes=many("FAX"),
        talked=sum(row["talked"] for row in people),
        hung_up=sum(row["hung_up"] for row in people),
        p50_s=_seconds(whole, 0),
        p95_s=_seconds(whole, 1),
        verdicts=verdicts,
        messages={row["detail"]: row["calls"] for row in sorted(messages, key=lambda row: row["detail"])},
    )


def _seconds(row: Any, which: int) -> float | None:
    seconds = row["seconds"]
    return round(seconds[which], 3) if seconds is not None and seconds[which] is not None else None
