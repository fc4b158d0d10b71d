"""The people of the demo: twelve agents in two teams, of whom eleven work by themselves and one is whoever is looking;
with a real Asterisk one more, whose phone is the browser, and ten who work off-hook for the campaign.

Robots use what everybody uses: REST to log in, `cti.v1` to hear of calls and to say ready, break, note and done.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from cti import users
from cti.alarm_watch import add_rule
from cti.alarms import Kind, Rule
from cti.client import Client, CommandFailed, Refused
from cti.demo_routing import DIRECT
from cti.passwords import Passwords
from cti.people import QueueAssignment, Role
from cti.phone_passwords import set_phone_password
from cti.tokens import signing_key
from cti.watch import Login, LogInFailed, websocket_url

if TYPE_CHECKING:
    from cti.database import Connection

PBX = "main"
YOU, LEAD, ADMIN, BROWSER = "you", "lead", "admin", "browser"
TEAMS = {
    "sales": ("Sales", ("sales", "billing")),
    "service": ("Service", ("support", "emergency")),
    "outbound": ("Outbound", ()),
}
OUTBOUND = "outbound"
LEAD_PHONE = "1160"

NOTES = (
    "Asked when the delivery comes; told them Thursday.",
    "Wants an offer for twice the quantity.",
    "Invoice explained, nothing to change.",
    "Address corrected.",
    "Calls back with the serial number.",
    "Complaint passed on to the team lead.",
    "Only wanted to say thank you.",
)
DISPOSITIONS = ("Solved", "Order placed", "Call back", "Passed on", "Information given")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who works in the demo; `phone` is the desk phone's extension."""

    login: str
    name: str
    team: str
    phone: str
    queues: tuple[tuple[str, int], ...]


def _staff() -> tuple[Person, ...]:
    names = (
        ("anna", "Anna Berg", "sales"),
        ("ben", "Ben Okafor", "sales"),
        ("carla", "Carla Ruiz", "sales"),
        ("dmitri", "Dmitri Hale", "sales"),
        ("elif", "Elif Aydın", "sales"),
        ("farah", "Farah Noor", "sales"),
        ("goran", "Goran Kos", "service"),
        ("hanna", "Hanna Łysek", "service"),
        ("ines", "Inês Prado", "service"),
        ("jonas", "Jonas Öberg", "service"),
        ("keiko", "Keiko Mori", "service"),
        (YOU, "You", "service"),
    )
    people = []
    for number, (login, name, team) in enumerate(names):
        own = TEAMS[team][1]
        queues = [(queue, 0) for queue in own]
        if number % 3 == 0:  # some help out in the other team's main queue
            queues.append(("support" if team == "sales" else "sales", 5))
        queues.append((DIRECT, number + 1))  # a penalty of their own there: so that one agent can be called
        people.append(Person(login, name, team, str(1101 + number), tuple(queues)))
    return tuple(people)


def _dialers() -> tuple[Person, ...]:
    names = (
        *(
            "Lara Costa",
            "Milan Horvat",
            "Nadia Saleh",
            "Otto Lind",
            "Petra Vogel",
            "Quentin Roux",
            "Rosa Bianchi",
        ),
        *("Samir Haddad", "Tessa Vos", "Umut Kaya"),
    )
    return tuple(
        Person(name.split()[0].lower(), name, OUTBOUND, str(1150 + number), ())
        for number, name in enumerate(names)
    )


STAFF = _staff()
DIALERS = _dialers()
"""They work off-hook for the campaign, with a real Asterisk only."""

IN_BROWSER = Person(BROWSER, "You, in the browser", "service", "1004", (("support", 0), (DIRECT, 13)))
ROBOTS = tuple(person for person in STAFF if person.login != YOU)


_LOG_INS = {LEAD, ADMIN, BROWSER, *(person.login for person in (*STAFF, *DIALERS))}


def passwords_in(file: Path) -> dict[str, str]:
    """The demo's passwords by login, made at the first start and kept in a file that only its owner can read."""
    with contextlib.suppress(OSError, ValueError):
        kept = json.loads(file.read_text())
        if isinstance(kept, dict) and set(kept) >= _LOG_INS:
            return {str(login): str(password) for login, password in kept.items()}
    made = {login: secrets.token_urlsafe(9) for login in sorted(_LOG_INS)}
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text(json.dumps(made, indent=1))
    return made


async def move_in(db: Connection, passwords: Mapping[str, str]) -> None:
    """Puts the demo's people into the tables; doing it again changes nothing but passwords that no longer fit."""
    hashing = Passwords()
    try:
        for team, (name, queues) in TEAMS.items():
            await users.put_team(db, team, name)
            await users.set_team_queues(db, team, [f"{PBX}:{queue}" for queue in (*queues, DIRECT)])
        await _settle(db, hashing, passwords, LEAD, "Team lead", Role.SUPERVISOR)
        await users.set_supervised(db, LEAD, list(TEAMS))
        await _settle(db, hashing, passwords, ADMIN, "Administrator", Role.ADMIN)
        for person in (*STAFF, *DIALERS):
            await _engage(db, hashing, passwords, person)
        for person in DIALERS:
            await users.set_off_hook(db, person.login, True)
    finally:
        hashing.close()


async def give_lead_a_phone(db: Connection) -> None:
    """Gives the team lead a phone, which answers by itself: whom they listen to it hears."""
    await users.set_interface(db, LEAD, PBX, f"PJSIP/{LEAD_PHONE}")


async def move_in_with_browser(
    db: Connection, passwords: Mapping[str, str], phone_password: str | None
) -> None:
    """Puts whoever takes calls in the browser into the tables, or shuts them out where no PBX has such a phone (None)."""
    if phone_password is None:
        with contextlib.suppress(users.NotThere):
            await users.set_disabled(db, BROWSER, True)
        return
    hashing = Passwords()
    try:
        await _engage(db, hashing, passwords, IN_BROWSER)
    finally:
        hashing.close()
    await users.set_disabled(db, BROWSER, False)
    await set_phone_password(db, await signing_key(db), BROWSER, PBX, phone_password)


async def _engage(db: Connection, hashing: Passwords, passwords: Mapping[str, str], person: Person) -> None:
    await _settle(db, hashing, passwords, person.login, person.name, Role.AGENT)
    await users.set_team(db, person.login, person.team)
    await users.set_interface(db, person.login, PBX, f"PJSIP/{person.phone}")
    queues = [QueueAssignment(queue=f"{PBX}:{queue}", penalty=penalty) for queue, penalty in person.queues]
    await users.set_queues(db, person.login, queues)


async def _settle(
    db: Connection, hashing: Passwords, passwords: Mapping[str, str], login: str, name: str, role: Role
) -> None:
    if await users.get_user(db, login) is None:
        await users.create_user(db, hashing, login=login, name=name, role=role, password=passwords[login])
        return
    stored = await db.fetchval("SELECT password_hash FROM users WHERE login = $1", login)
    if not await hashing.verify(stored, passwords[login]):  # the file with the passwords was lost
        await users.set_password(db, hashing, login, passwords[login])


ALARMS = (
    Rule(id=0, version=0, name="Fewer than two are ready in service", kind=Kind.READY_AGENTS,
         team="service", threshold=2, raise_after=3, clear_after=3),
    Rule(id=0, version=0, name="Somebody waits in sales for more than 10 s", kind=Kind.LONGEST_WAIT,
         queue=f"{PBX}:sales", threshold=10, clear_after=3),
    Rule(id=0, version=0, name="Two or more wait in support", kind=Kind.CALLERS_WAITING,
         queue=f"{PBX}:support", threshold=1, raise_after=2, clear_after=3),
    Rule(id=0, version=0, name="A break in sales lasts longer than 30 s", kind=Kind.NOT_READY,
         team="sales", threshold=30, clear_after=0),
    Rule(id=0, version=0, name="The PBX is out of reach", kind=Kind.PBX_DOWN, threshold=5),
)  # fmt: skip
"""The demo's alarms: with its traffic and its robots' breaks one of them comes up within a minute or two."""


async def write_alarms(db: Connection) -> None:
    """Makes these the rules for alarms, unless there have been some: what somebody has changed in the demo stays."""
    if await db.fetchval("SELECT last_value = 1 AND NOT is_called FROM alarm_rules_id_seq"):
        for rule in ALARMS:
            await add_rule(db, rule, "demo")


class Robot:
    """An agent who works by themselves: takes calls, writes a note after most, has a break now and then."""

    def __init__(
        self,
        client: Client,
        *,
        chance: random.Random,
        reasons: Iterable[str],
        wrap_seconds: tuple[float, float] = (3.0, 10.0),
        between_breaks: tuple[float, float] = (100.0, 400.0),
        break_seconds: tuple[float, float] = (20.0, 60.0),
    ) -> None:
        self._client = client
        self._chance = chance
        self._reasons = tuple(reasons)
        self._wrap_seconds = wrap_seconds
        self._between_breaks = between_breaks
        self._break_seconds = break_seconds
        self._doing: set[asyncio.Task[None]] = set()
        self._on_duty = False

    async def run(self) -> None:
        """Works until cancelled, over restarts of the server. Ends quietly when the server shuts this user out."""
        try:
            async for frame in self._client.follow():
                self._hear(frame)
        except (Refused, LogInFailed):
            pass
        finally:
            for task in self._doing:
                task.cancel()

    def _hear(self, frame: Mapping[str, Any]) -> None:
        if frame["type"] == "welcome" and not self._on_duty:
            self._on_duty = True
            self._do(self._begin())
            self._do(self._have_breaks())
        elif frame["type"] == "agent.state_changed":
            data = frame["data"]
            if data["agent"] != self._client.picture.me:
                return
            if data["new"] == "wrap_up":
                self._do(self._finish())
            elif data["old"] == "busy" and data["new"] == "ready":  # a call from no queue: no wrap-up follows
                self._do(self._write())

    def _do(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._doing.add(task)
        task.add_done_callback(self._doing.discard)

    async def _ask(self, op: str, **args: Any) -> None:
        with contextlib.suppress(CommandFailed, TimeoutError):
            await self._client.ask(op, **args)

    def _some(self, span: tuple[float, float]) -> float:
        return self._chance.uniform(*span)

    async def _begin(self) -> None:
        await asyncio.sleep(self._some((0.0, 2.0)))
        await self._ask("agent.log_on", ready=True)
        await self._ask("agent.ready")

    async def _finish(self) -> None:
        await asyncio.sleep(self._some(self._wrap_seconds))
        await self._write()
        await self._ask("agent.finish_wrap_up")

    async def _write(self) -> None:
        me = self._client.picture.me
        over = [
            pop
            for pop in self._client.picture.pops.values()
            if pop["agent"] == me and pop["state"] == "ended"
        ]
        if over and self._chance.random() < 0.8:
            call = over[-1]["call"]
            await self._ask("call.note", call=call, text=self._chance.choice(NOTES))
            await self._ask("call.dispose", call=call, disposition=self._chance.choice(DISPOSITIONS))

    async def _have_breaks(self) -> None:
        while True:
            await asyncio.sleep(self._some(self._between_breaks))
            await self._ask("agent.not_ready", reason=self._chance.choice(self._reasons))
            await asyncio.sleep(self._some(self._break_seconds))
            await self._ask("agent.ready")


async def employ(
    url: str,
    passwords: Mapping[str, str],
    reasons: Iterable[str],
    chance: random.Random,
    *,
    dialing: bool,
) -> None:
    """Lets all robots work at a server until cancelled; those of the campaign if there is one."""
    reasons = tuple(reasons)
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as together:
        for person in (*ROBOTS, *(DIALERS if dialing else ())):
            session = Login(http, url, person.login, passwords[person.login])
            client = Client(websocket_url(url), session.token, name="demo robot")
            slow = {"between_breaks": (900.0, 1800.0)} if person in DIALERS else {}
            robot = Robot(client, chance=random.Random(chance.random()), reasons=reasons, **slow)  # noqa: S311
            together.create_task(robot.run())
