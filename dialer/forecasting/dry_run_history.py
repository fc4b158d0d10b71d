"""What a dry run rests on: how the contacts of a campaign's lists have answered so far, how long agents talked and wrote
up."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from math import sqrt
from typing import TYPE_CHECKING

from cti.wrap_up import WrapUp
from dialer.attempts import Outcome
from dialer.forecasting.question import History

if TYPE_CHECKING:
    from cti.database import Queryable

MOST_TOLD = 10
"""Sums of attempts tell the first to the ninth to a contact, and the tenth and later together."""

REACHED = frozenset({"", Outcome.CONNECTED, Outcome.ANSWERED, Outcome.ABANDONED, Outcome.AGENT_ERROR})
"""Outcomes of attempts that reached somebody, and of those that are not over."""

LOOKS_BACK = timedelta(days=90)

USUAL_WRAP = 20.0
"""Seconds of wrap-up that agents take where nothing else is known and the rule leaves them the time."""

INSTANT = 0.1
"""Seconds between two talks without wrap-up."""


async def history_of(
    db: Queryable, campaign: int, queue: str, zone: str, now: datetime, *, rule: WrapUp, own_rule: bool
) -> History:
    """The last 90 days: of all campaigns that called the lists this campaign has now, and of its own. Talk and wrap-up by
    its queue's agents where no calls of its own tell; wrap-up by its rule, if that is its own and not the queue's."""
    lists = [
        row["id"] for row in await db.fetch("SELECT id FROM call_lists WHERE campaign_id = $1", campaign)
    ]
    campaigns = [
        campaign,
        *(
            row["campaign_id"]
            for row in await db.fetch(
                """SELECT DISTINCT campaign_id FROM campaign_sums
                    WHERE list_id = ANY ($1::bigint[]) AND campaign_id <> $2""",
                *(lists, campaign),
            )
        ),
    ]
    rows = await db.fetch(
        """SELECT to_char(s.slot AT TIME ZONE $5, 'HH24')::integer AS hour, s.number_of, s.outcome, s.disposition,
                  sum(s.attempts) FILTER (WHERE s.outcome <> '')::bigint AS tried, sum(s.answered)::bigint AS answered,
                  sum(s.live)::bigint AS live, sum(s.talks)::bigint AS connected, sum(s.attempts)::bigint AS attempts,
                  sum(s.answer_ms) AS answer_ms,
                  sum(s.talk_ms) AS talk_ms, sum(s.talk_squares) AS squares
             FROM campaign_read($1, $2, $3) s
            WHERE s.campaign_id = $4 OR s.list_id = ANY ($6::bigint[])
            GROUP BY 1, 2, 3, 4""",
        *(campaigns, now - LOOKS_BACK, now + timedelta(days=1), campaign, zone, lists),
    )
    tried, answered = [0] * 24, [0] * 24
    tried_of, answered_of = [0] * MOST_TOLD, [0] * MOST_TOLD
    unreached: Counter[str] = Counter()
    said: Counter[str] = Counter()
    live = connected = answer_ms = talk_ms = 0
    squares = 0.0
    for row in rows:
        tried[row["hour"]] += row["tried"] or 0
        answered[row["hour"]] += row["answered"]
        which = min(max(row["number_of"], 1), MOST_TOLD) - 1
        tried_of[which] += row["tried"] or 0
        answered_of[which] += row["answered"]
        if row["outcome"] not in REACHED:
            unreached[row["outcome"]] += row["tried"]
        if row["disposition"]:
            said[row["disposition"]] += row["attempts"]
        live, connected = live + row["live"], connected + row["connected"]
        answer_ms, talk_ms = answer_ms + row["answer_ms"], talk_ms + row["talk_ms"]
        squares += row["squares"]
    picked_up = sum(answered)
    talk, spread = 90.0, 0.9
    if connected:
        talk = max(1.0, talk_ms / 1000 / connected)
        spread = sqrt(max(squares / connected - talk * talk, 0.0)) / talk if connected > 20 else 0.9
    wrap = await db.fetchrow(
        """SELECT coalesce(sum(handled), 0)::bigint AS handled, coalesce(sum(wrap_up), 0)::bigint AS wrap_up,
                  coalesce(sum(talk), 0)::bigint AS talk
             FROM figures_queues WHERE queue = $1 AND slot >= $2""",
        *(queue, now - LOOKS_BACK),
    )
    assert wrap is not None
    handled = wrap["handled"]
    if not connected and handled:
        connected, talk = min(handled, 200), max(1.0, wrap["talk"] / 1e6 / handled)
    usual = USUAL_WRAP if rule.mandatory else min(USUAL_WRAP, max(rule.seconds, INSTANT))
    wrap_of = 0 if own_rule else handled
    return History(
        tried=tuple(tried),
        answered=tuple(answered),
        live=live,
        to_answer=max(0.5, answer_ms / 1000 / picked_up) if picked_up else 9.0,
        to_answer_of=picked_up,
        talk=talk,
        talk_spread=spread,
        talk_of=connected,
        wrap=max(INSTANT, wrap["wrap_up"] / 1e6 / wrap_of) if wrap_of else usual,
        wrap_of=wrap_of,
        usual_wrap=usual,
        unreached=tuple(sorted(unreached.items())),
        tried_of=tuple(tried_of),
        answered_of=tuple(answered_of),
        said=tuple(sorted(said.items())),
    )
