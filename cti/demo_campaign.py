"""The demo's campaign: five thousand invented contacts, ten agents off-hook, and a law of the demo's own that lets it dial
at any hour. The customers are played by the other Asterisk; their numbers say how they behave (asterisk-config/world).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cti.demo_people import DIALERS

if TYPE_CHECKING:
    from cti.database import Connection

NAME, LIST, PROFILE = "Spring offer", "Spring fair", "demo"
CONTACTS = 5000
CALLER_ID = "+442079460100"
SETTINGS = """{"team": "outbound", "pbx": "main", "message": "vm-goodbye", "max_lines": 60, "calls_per_second": 4,
 "ring_timeout_s": 20, "few_agents": 3, "wrap_up": {"seconds": 0}, "dispositions": [
  {"code": "Order placed", "label": "Order placed", "category": "conversion"},
  {"code": "Information given", "label": "Information given", "category": "contact"},
  {"code": "Solved", "label": "Is a customer already", "category": "contact"},
  {"code": "Call back", "label": "Wants another call", "category": "call_back", "again_after_minutes": 240},
  {"code": "Passed on", "label": "Somebody else answered", "category": "no_contact"}]}"""
SCRIPT = "Good day, this is the demo. May I tell you about our spring offer?"

KINDS = (("10", 30, (3, 14), (10, 120)), ("30", 48, (0, 99), (0, 999)), ("20", 9, (1, 4), (0, 999)),
         ("40", 4, (3, 9), (10, 30)), ("60", 5, (0, 3), (0, 999)), ("70", 4, (1, 5), (0, 999)))  # fmt: skip
"""Kind of customer, how many of a hundred, seconds until the answer, seconds of talk: human, nobody there, busy, machine,
no such number, rejects."""

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
SOURCE = 'source = "the demo: nobody is called but the other Asterisk"\nas_of = 2026-01-01\nchecked = false\n'


def profile_folder(folder: Path) -> Path:
    """Writes the demo's law, and returns the folder that it is in."""
    folder.mkdir(exist_ok=True)
    parts = {
        "calling_hours": "".join(f'{day} = ["00:00-24:00"]\n' for day in DAYS),
        "holidays": "closed = false\n",
        "abandonment": "cap = 0.03\nwindow_hours = 24\namd_errors_count = false\namd_error_share = 0.0\n",
        "answer_wait": "seconds = 2\n",
        "min_ring": "seconds = 12\n",
        "message": "required = true\n",
        "attempts_per_number": "day = 10\n",
        "attempts_per_person": "",
        "rest_after_abandoned": "hours = 0\n",
        "rest_after_machine": "hours = 0\n",
        "amd": "usual = false\n",
        "machine_message": 'allowed = "always"\n',
        "consent": "needed = false\n",
        "do_not_call": "registers = []\nscrub_days = 31\nconsent_overrides = true\n",
        "records": "keep_days = 30\n",
    }
    head = f'name = "{PROFILE}"\ntitle = "The demo, at any hour"\ncountries = []\nrevised = 2026-01-01\n'
    text = head + "".join(f"\n[{name}]\n{says}{SOURCE}" for name, says in parts.items())
    (folder / f"{PROFILE}.toml").write_text(text, encoding="utf-8")
    return folder


def contacts(chance: random.Random) -> Iterator[tuple[str, str]]:
    """Names and numbers without end, no number twice."""
    seen: set[str] = set()
    kinds, weights = [one[0] for one in KINDS], [one[1] for one in KINDS]
    ranges = {kind: (answer, talk) for kind, _, answer, talk in KINDS}
    first = (
        "Ada",
        "Bram",
        "Cleo",
        "Dina",
        "Egon",
        "Fay",
        "Gil",
        "Hedy",
        "Ivo",
        "June",
        "Kai",
        "Lola",
        "Max",
        "Nora",
    )
    last = (
        "Adler",
        "Brook",
        "Cruz",
        "Dahl",
        "Ende",
        "Frost",
        "Grau",
        "Hill",
        "Ito",
        "Jansen",
        "Kern",
        "Lang",
        "Moss",
    )
    while True:
        (kind,) = chance.choices(kinds, weights)
        answer, talk = ranges[kind]
        number = f"+{kind}{chance.randint(*answer):02}{chance.randint(*talk):03}"
        if number not in seen:
            seen.add(number)
            yield f"{chance.choice(first)} {chance.choice(last)}", number


async def prepare(db: Connection, chance: random.Random) -> bool:
    """Writes list and campaign, unless there was one: what somebody has made of it stays. Whether it is new."""
    if await db.fetchval("SELECT EXISTS (SELECT FROM campaigns)"):
        return False
    async with db.transaction():
        id = await db.fetchval(
            """INSERT INTO campaigns (name, mode, state, state_why, profile, settings, created_by, changed_by)
               VALUES ($1, 'predictive', 'running', 'the demo starts it', $2, $3::jsonb, 'demo', 'demo') RETURNING id""",
            *(NAME, PROFILE, SETTINGS),
        )
        list_id = await db.fetchval(
            """INSERT INTO call_lists (name, campaign_id, script, created_by, changed_by)
               VALUES ($1, $2, $3, 'demo', 'demo') RETURNING id""",
            *(LIST, id, SCRIPT),
        )
        zone = await db.fetchval(
            """INSERT INTO zone_groups (country, zones) VALUES ('GB', '{Europe/London}')
               ON CONFLICT (country, region, zones) DO UPDATE SET country = excluded.country RETURNING id"""
        )
        some = contacts(chance)
        await db.copy_records_to_table(
            "list_contacts",
            columns=("list_id", "name", "e164", "language", "zone_group"),
            records=[(list_id, *next(some), "en", zone) for _ in range(CONTACTS)],
        )
    return True


async def phones_stay(send: Callable[[str, dict[str, str]], Awaitable[object]]) -> None:
    """Lets the phones of those who work off-hook answer at once and keep their line. `send`: to the world's AMI."""
    for person in DIALERS:
        for key, value in (("mode", "answer"), ("delay", "0"), ("talk", "86400")):
            await send("Command", {"Command": f"database put phone {person.phone}/{key} {value}"})
