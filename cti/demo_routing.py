"""The demo's routing rules: a few of each kind, so that there is something to look at and to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cti.demo_traffic import NUMBERS_DIALLED
from routing.document import read_document, rule_set
from routing.store import ChangedMeanwhile, add, newest_version

if TYPE_CHECKING:
    from cti.database import Connection

DIRECT = "direct"
"""The queue in which each agent has a penalty of their own (asterisk-config/pbx/queues.conf)."""

RULES: dict[str, Any] = {
    "direct_queue": DIRECT,
    "entries": [
        {"id": queue, "numbers": list(numbers), "queue": queue} for queue, numbers in NUMBERS_DIALLED.items()
    ],
    "calendars": {
        "office": {
            "zone": "Europe/London",
            "hours": [{"days": ["mon", "tue", "wed", "thu", "fri"], "from": "08:00", "to": "18:00"}],
            "holidays": "GB",
        }
    },
    "holidays": {
        "GB": [
            {"on": "01-01", "name": "New Year's Day"},
            {"on": "easter-2", "name": "Good Friday"},
            {"on": "easter+1", "name": "Easter Monday"},
            {"on": "12-25", "name": "Christmas Day"},
            {"on": "12-26", "name": "Boxing Day"},
        ]
    },
    "queues": {
        "sales": {
            "seconds": 45,
            "limit": 20,
            "full": {"queue": "support", "seconds": 45},
            "timed_out": {"queue": "support", "seconds": 30},
            "ageing": {"every": 20, "by": 1, "most": 4},
        },
        "support": {"seconds": 60, "timed_out": {"voicemail": "200@default"}},
    },
    "escalations": [
        {
            "id": "sales-up",
            "queues": ["sales", "billing"],
            "to": "support",
            "priority": 8,
            "otherwise": "sales",
        },
        {"id": "support-up", "queues": ["support"], "to": "emergency", "priority": 5},
    ],
    "blending": [
        {
            "id": "quiet",
            "queues": ["sales", "billing", "support"],
            "kinds": ["callback", "email"],
            "free_agents": 3,
            "quiet_for": 10,
            "interrupted_by_calls": ["email"],
        }
    ],
    "rules": [
        {
            "id": "complaint",
            "name": "An open complaint goes to support, first to whoever knows it",
            "when": {"customer": {"has_open": ["complaint"]}, "entry": ["sales", "support", "billing"]},
            "then": {"queue": "support", "priority": 10, "prefer": [{"agent": "last", "seconds": 10}]},
        },
        {
            "id": "own-agent",
            "name": "Class A talks to their own agent, or whoever they talked to last",
            "when": {"customer": {"class": ["A"]}},
            "then": {
                "priority": 5,
                "prefer": [{"agent": "own", "seconds": 10}, {"agent": "last", "seconds": 10}],
            },
        },
        {
            "id": "owes",
            "name": "Who owes us money for long talks to billing",
            "when": {"customer": {"overdue_invoice": True}, "entry": ["sales"]},
            "then": {"queue": "billing"},
        },
        {
            "id": "night",
            "name": "Outside office hours support takes the calls for billing, too",
            "when": {"closed": "office", "entry": ["billing"]},
            "then": {"queue": "support"},
        },
    ],
}


async def write_rules(db: Connection) -> None:
    """Makes these the rules, unless there are some: what somebody has changed in the demo stays."""
    rule_set(read_document(RULES), 1)
    if await newest_version(db) == 0:
        try:
            await add(db, RULES, after=0, by="demo", note="the demo's own")
        except ChangedMeanwhile:
            return
