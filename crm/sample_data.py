"""Invented customers: a hundred for demonstrations, any number for benchmarks. Nobody real is in here.

Telephone numbers are those that regulators keep free for films and books (NANPA 555-01xx; Ofcom's and ACMA's drama
numbers; Bundesnetzagentur, Vfg. 148/2021; Arcep, décision 2018-0881; PTS). Where a country keeps none, they are
neighbours of the example numbers in the number plan's own documentation: never let a dialer loose on them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncpg

    from cti.database import Connection, PoolConnection

SEED = 20_261_121
_LOCK = 0x0C71_0010


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePhone:
    """A phone of a sample customer; `person` is the index of the contact it belongs to."""

    e164: str
    kind: str
    person: int | None = None
    prefix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePerson:
    """Somebody who works at a sample company."""

    name: str
    role: str
    email: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleInteraction:
    """An earlier call; `ago` and the following are seconds."""

    ago: float
    direction: str
    outcome: str
    waited: float
    talked: float
    queue: str
    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleItem:
    """Something open; due in so many days from today (negative: overdue)."""

    kind: str
    reference: str
    subject: str
    status: str
    due_in: int | None
    amount: str | None
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleCustomer:
    """An invented customer with everything that belongs to them."""

    number: str
    name: str
    kind: str
    classification: str
    language: str
    country: str
    timezone: str
    email: str
    street: str
    postcode: str
    city: str
    phones: tuple[SamplePhone, ...]
    people: tuple[SamplePerson, ...]
    interactions: tuple[SampleInteraction, ...]
    items: tuple[SampleItem, ...]
    alerts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Country:
    """How customers of a country are invented. `blocks`: numbers without their last two digits, one block a company;
    `mobiles`: (beginning, first, last, digits)."""

    code: str
    count: int
    language: str
    currency: str
    blocks: tuple[str, ...]
    mobiles: tuple[str, int, int, int]
    places: tuple[tuple[str, str, str], ...]
    first: tuple[str, ...]
    last: tuple[str, ...]
    firms: tuple[str, ...]
    street: str


_US = "America/"
_COUNTRIES = (
    _Country(
        "US", 16, "en", "USD",
        ("+121255501", "+131255501", "+141555501", "+161755501", "+120655501", "+151255501", "+130355501"),
        ("+13055550", 100, 199, 3),
        (("10011", "New York", _US + "New_York"), ("60614", "Chicago", _US + "Chicago"),
         ("94110", "San Francisco", _US + "Los_Angeles"), ("80205", "Denver", _US + "Denver")),
        ("Grace", "Walter", "Denise", "Marcus", "Joyce", "Elliot", "Nadine", "Curtis", "Paula", "Terrence"),
        ("Holloway", "Pruitt", "Castellano", "Whitfield", "Okafor", "Lindgren", "Barrow", "Nguyen", "Delacroix", "Stroud"),
        ("Larkspur Dental Group", "Blue Heron Freight", "Copperfield Hardware", "Sable & Finch Insurance",
         "Prairie Light Energy"),
        "{n} Maple Street",
    ),
    _Country(
        "GB", 14, "en", "GBP",
        (*(f"+442079460{n}" for n in range(1, 8)), "+4416149600", "+4412149600"),
        ("+447700900", 100, 899, 3),
        (("SE1 7TP", "London", "Europe/London"), ("M1 4BT", "Manchester", "Europe/London"),
         ("B2 4QA", "Birmingham", "Europe/London")),
        ("Harriet", "Alastair", "Priya", "Gareth", "Imogen", "Callum", "Yasmin", "Rupert", "Bronwen", "Desmond"),
        ("Ashdown", "Featherstone", "Mistry", "Pritchard", "Oyelaran", "Kettlewell", "Strachan", "Begum", "Hargreave"),
        ("Thistledown Publishing Ltd", "Harbour & Pike Ltd", "Merrow Garden Supplies", "Stonebridge Lettings"),
        "{n} Orchard Road",
    ),
    _Country(
        "DE", 14, "de", "EUR",
        (*(f"+493023125{n}" for n in range(1, 8)), "+4969900091", "+4940669691", "+4922147101", "+4989999981"),
        ("+4917139200", 10, 99, 2),
        (("10437", "Berlin", "Europe/Berlin"), ("20355", "Hamburg", "Europe/Berlin"),
         ("80469", "München", "Europe/Berlin"), ("50674", "Köln", "Europe/Berlin")),
        ("Annegret", "Jürgen", "Katharina", "Holger", "Sabine", "Matthias", "Ayşe", "Detlef", "Friederike", "Uwe"),
        ("Brandstätter", "Köhler", "Wieczorek", "Öztürk", "Lindemann", "Schröter", "Hagedorn", "Niemöller", "Vogt"),
        ("Feinwerk Lindner GmbH", "Nordlicht Spedition KG", "Backhaus Petersen", "Solartechnik Auerbach GmbH"),
        "Lindenstraße {n}",
    ),
    _Country(
        "FR", 10, "fr", "EUR",
        (*(f"+33199{n:04d}" for n in range(10, 14)), "+334657110", "+335364911"),
        ("+33639980", 100, 999, 3),
        (("75011", "Paris", "Europe/Paris"), ("69002", "Lyon", "Europe/Paris"), ("33000", "Bordeaux", "Europe/Paris")),
        ("Mathilde", "Thibault", "Solène", "Karim", "Églantine", "Rémi", "Aïcha", "Gaspard", "Océane"),
        ("Delaunay", "Rouvière", "Benhaddou", "Maréchal", "Le Goff", "Castaing", "Pelletier", "Vasseur"),
        ("Atelier Roussel SARL", "Les Vergers d'Aubrac", "Clinique du Parc Fleuri"),
        "{n} rue des Tilleuls",
    ),
    _Country(
        "AU", 6, "en", "AUD",
        ("+6125550010", "+6135550010", "+6175550010"),
        ("+61491570", 156, 159, 3),
        (("2010", "Sydney", "Australia/Sydney"), ("3065", "Melbourne", "Australia/Melbourne")),
        ("Kirsty", "Bevan", "Leilani", "Darcy", "Noelene"),
        ("Wattleford", "Papadakis", "McGlinchey", "Tran", "Barraclough"),
        ("Banksia Pools Pty Ltd", "Coolabah Fencing"),
        "{n} Jacaranda Avenue",
    ),
    _Country(
        "SE", 4, "sv", "SEK",
        ("+468465004",),
        ("+467017406", 5, 99, 2),
        (("118 26", "Stockholm", "Europe/Stockholm"),),
        ("Ingrid", "Torbjörn", "Saga", "Åke"),
        ("Lindqvist", "Söderberg", "Åkerman", "Hallström"),
        ("Björkviks Båtvarv AB",),
        "Björkgatan {n}",
    ),
    _Country(
        "PL", 8, "pl", "PLN",
        ("+4812345671", "+4812345672", "+4812345673"),
        ("+4851234", 5600, 5699, 4),
        (("31-027", "Kraków", "Europe/Warsaw"), ("00-540", "Warszawa", "Europe/Warsaw")),
        ("Agnieszka", "Zbigniew", "Małgorzata", "Łukasz", "Halina", "Wojciech"),
        ("Wiśniewska", "Kozłowski", "Żurek", "Dąbrowska", "Szymańczyk", "Gołębiowska"),
        ("Piekarnia Złoty Kłos", "Trans-Wisła Sp. z o.o."),
        "ul. Lipowa {n}",
    ),
    _Country(
        "ES", 6, "es", "EUR",
        ("+348101234", "+348101235"),
        ("+34612345", 600, 699, 3),
        (("28012", "Madrid", "Europe/Madrid"), ("41001", "Sevilla", "Europe/Madrid")),
        ("Rocío", "Íñigo", "Montserrat", "Álvaro", "Begoña"),
        ("Echevarría Soler", "Núñez Calvo", "Ibáñez Pardo", "Quintana Reyes"),
        ("Bodegas Peñalarga S.L.", "Cerámicas Triana"),
        "Calle del Olivo {n}",
    ),
    _Country(
        "IT", 6, "it", "EUR",
        ("+3902123456", "+3902123457"),
        ("+39312345", 6700, 6799, 4),
        (("20121", "Milano", "Europe/Rome"), ("00184", "Roma", "Europe/Rome")),
        ("Fiammetta", "Gianluca", "Ornella", "Raffaele", "Nicoletta"),
        ("Bellandi", "Scognamiglio", "De Sanctis", "Fumagalli", "Tartaglione"),
        ("Officine Valtrebbia S.r.l.", "Pasticceria Corsini"),
        "Via dei Glicini {n}",
    ),
    _Country(
        "BR", 6, "pt-BR", "BRL",
        ("+5511234567", "+5511234568"),
        ("+55119612345", 10, 99, 2),
        (("01310-100", "São Paulo", "America/Sao_Paulo"),),
        ("Thaís", "Joaquim", "Luciana", "Éverton", "Conceição"),
        ("Figueiredo", "Magalhães", "dos Anjos", "Sampaio", "Queiroz"),
        ("Padaria Flor do Ipê Ltda", "Transportes Araguari"),
        "Rua das Acácias, {n}",
    ),
    _Country(
        "MX", 4, "es-MX", "MXN",
        ("+5222212345",),
        ("+522221234", 600, 699, 3),
        (("72000", "Puebla", "America/Mexico_City"),),
        ("Guadalupe", "Refugio", "Ximena", "Fermín"),
        ("Zaragoza Luna", "Cervantes Ríos", "Treviño Paz"),
        ("Talavera Hermanos S.A. de C.V.",),
        "Calle Jacarandas {n}",
    ),
    _Country(
        "IN", 3, "en-IN", "INR",
        ("+9174104101",),
        ("+91812345", 6700, 6799, 4),
        (("560038", "Bengaluru", "Asia/Kolkata"),),
        ("Meenakshi", "Arvind", "Farida"),
        ("Subramaniam", "Deshpande", "Chatterjee"),
        ("Indira Textiles Pvt Ltd",),
        "{n} 12th Main Road",
    ),
    _Country(
        "ID", 3, "id", "IDR",
        ("+622183501",),
        ("+62812345", 600, 699, 3),
        (("12190", "Jakarta", "Asia/Jakarta"),),
        ("Ratna", "Bambang", "Siti"),
        ("Wulandari", "Hartono", "Kusumawati"),
        ("CV Melati Jaya",),
        "Jalan Kenanga No. {n}",
    ),
)  # fmt: skip

_ROLES = ("Managing director", "Purchasing", "Accounts payable", "Reception", "IT", "Logistics")
_NOTES = (
    "Asked when the replacement arrives; promised a call back by Thursday.",
    "Wants invoices by e-mail from now on.",
    "Moved house, new address checked.",
    "Was put through twice; apologised. Solved on the line.",
    "Interested in the larger plan, offer sent.",
    "Complained about the waiting time.",
    "Could not find the order confirmation; sent again.",
    "Please call after 4 p.m. only.",
)
_ITEMS = {
    "ticket": (
        "Router drops the connection in the evening",
        "Cannot log in to the portal",
        "Noise on the line",
    ),
    "order": ("Office chairs, 12 pieces", "Service contract renewal", "Spare parts delivery"),
    "callback": ("Call back about the offer", "Call back when the technician has been there"),
    "invoice": ("Invoice for October", "Second reminder", "Invoice disputed: quantity"),
    "complaint": ("Delivery arrived damaged", "Technician did not come"),
}
_ALERTS = (
    ("critical", "Payment stopped: do not take orders before Accounts has agreed."),
    ("warning", "Hard of hearing: speak slowly, offer e-mail."),
    ("warning", "Complaint open for more than two weeks: put through to a team leader."),
    ("info", "Birthday this week."),
    ("info", "Contract ends next month: offer the renewal."),
)


def sample_customers() -> tuple[SampleCustomer, ...]:
    """Returns the hundred invented customers, always the same."""
    customers: list[SampleCustomer] = []
    for country in _COUNTRIES:
        customers += _of_country(country, random.Random(f"{SEED}{country.code}"), 1001 + len(customers))  # noqa: S311
    return tuple(customers)


def _of_country(country: _Country, chance: random.Random, number: int) -> Iterator[SampleCustomer]:
    beginning, first, last, digits = country.mobiles
    mobiles = (f"{beginning}{n:0{digits}d}" for n in chance.sample(range(first, last + 1), last - first + 1))
    names = [f"{given} {family}" for given in country.first for family in country.last]
    chance.shuffle(names)
    homes = country.blocks[len(country.firms) :] or country.blocks[:1]
    for place in range(country.count):
        postcode, city, zone = country.places[place % len(country.places)]
        company = place < len(country.firms)
        people: tuple[SamplePerson, ...] = ()
        if company:
            name, block = country.firms[place], country.blocks[place]
            domain = "".join(c for c in name.lower() if "a" <= c <= "z")[:18] + ".example"
            people = tuple(
                SamplePerson(name=names.pop(), role=role, email=f"{role.split()[0].lower()}@{domain}")
                for role in chance.sample(_ROLES, chance.randint(2, 4))
            )
            phones = [SamplePhone(e164=f"{block}00", kind="switchboard", prefix=block)]
            phones += [
                SamplePhone(e164=f"{block}{11 + n}", kind="work", person=n) for n in range(len(people))
            ]
            email = f"office@{domain}"
        else:
            name = names.pop()
            family = "".join(c for c in name.split()[-1].lower() if c.isascii() and c.isalpha())
            email = f"{family}.{number + place}@mail.example"
            mobile = next(mobiles, None)
            phones = [SamplePhone(e164=mobile, kind="mobile")] if mobile else []
            if not phones or chance.random() < 0.3:
                # the same home line for every third: some numbers have several owners
                line = 20 + (place // 3) * 3
                phones.append(SamplePhone(e164=f"{homes[place % len(homes)]}{line % 100:02d}", kind="home"))
        yield SampleCustomer(
            number=str(10_000 + number + place),
            name=name,
            kind="company" if company else "person",
            classification=chance.choices("ABC", (2, 3, 5))[0],
            language=country.language,
            country=country.code,
            timezone=zone,
            email=email,
            street=country.street.format(n=chance.randint(2, 180)),
            postcode=postcode,
            city=city,
            phones=tuple(phones),
            people=people,
            interactions=tuple(_interaction(chance) for _ in range(chance.randint(0, 6))),
            items=tuple(
                _item(chance, country.currency) for _ in range(chance.choices((0, 1, 2, 3), (4, 4, 2, 1))[0])
            ),
            alerts=(chance.choice(_ALERTS),) if chance.random() < 0.2 else (),
        )


def _interaction(chance: random.Random) -> SampleInteraction:
    outcome = chance.choices(("answered", "abandoned", "unanswered"), (8, 1, 1))[0]
    answered = outcome == "answered"
    return SampleInteraction(
        ago=chance.uniform(0.2, 180) * 86_400,
        direction="inbound" if chance.random() < 0.75 else "outbound",
        outcome=outcome,
        waited=round(chance.expovariate(1 / 25), 1),
        talked=round(chance.uniform(40, 700), 1) if answered else 0.0,
        queue=chance.choice(("sales", "support")),
        note=chance.choice(_NOTES) if answered and chance.random() < 0.7 else None,
    )


def _item(chance: random.Random, currency: str) -> SampleItem:
    kind = chance.choices(tuple(_ITEMS), (4, 3, 2, 3, 1))[0]
    money = kind in ("order", "invoice")
    return SampleItem(
        kind=kind,
        reference=f"{kind[0].upper()}-{chance.randint(20_000, 99_999)}",
        subject=chance.choice(_ITEMS[kind]),
        status=chance.choice(("open", "in_progress", "waiting")),
        due_in=chance.randint(-20, 30) if chance.random() < 0.8 else None,
        amount=f"{chance.uniform(20, 4000):.2f}" if money else None,
        currency=currency if money else "",
    )


async def insert_samples(
    connection: Connection | PoolConnection,
    *,
    now: datetime,
    pbx: str = "main",
    agents: tuple[str, ...] = ("anna", "ben"),
) -> int:
    """Writes the sample customers with their past up to `now`; returns how many were new. Doing it again adds nothing."""
    added = 0
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        for place, customer in enumerate(sample_customers()):
            own_agent = agents[place % len(agents)] if customer.classification == "A" and agents else ""
            account = await connection.fetchval(
                """INSERT INTO accounts (number, name, kind, class, language, country, timezone, email, street, postcode,
                       city, own_agent) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
                   ON CONFLICT (number) DO NOTHING RETURNING id""",
                customer.number,
                customer.name,
                customer.kind,
                customer.classification,
                customer.language,
                customer.country,
                customer.timezone,
                customer.email,
                customer.street,
                customer.postcode,
                customer.city,
                own_agent,
            )
            if account is not None:
                added += 1
                await _insert_parts(connection, account, customer, now, pbx, agents)
        await connection.execute(
            """UPDATE accounts SET last_contact = newest.ended FROM (
                   SELECT account_id, max(ended) AS ended FROM interactions WHERE outcome = 'answered'
                   GROUP BY account_id) newest
               WHERE accounts.id = newest.account_id AND accounts.last_contact IS NULL"""
        )
    return added


async def _insert_parts(
    connection: Connection | PoolConnection,
    account: int,
    customer: SampleCustomer,
    now: datetime,
    pbx: str,
    agents: tuple[str, ...],
) -> None:
    people = [
        await connection.fetchval(
            """INSERT INTO contacts (account_id, name, role, main, email, language) VALUES ($1, $2, $3, $4, $5, $6)
               RETURNING id""",
            account,
            person.name,
            person.role,
            place == 0,
            person.email,
            customer.language,
        )
        for place, person in enumerate(customer.people)
    ]
    await connection.executemany(
        "INSERT INTO phones (e164, account_id, contact_id, kind, prefix) VALUES ($1, $2, $3, $4, $5)",
        [
            (p.e164, account, None if p.person is None else people[p.person], p.kind, p.prefix)
            for p in customer.phones
        ],
    )
    await connection.executemany(
        """INSERT INTO open_items (account_id, kind, reference, subject, status, due, amount, currency)
           VALUES ($1, $2, $3, $4, $5, $6, $7::text::numeric, $8)""",
        [
            (account, i.kind, i.reference, i.subject, i.status, _day(now, i.due_in), i.amount, i.currency)
            for i in customer.items
        ],
    )
    await connection.executemany(
        "INSERT INTO alerts (account_id, severity, text) VALUES ($1, $2, $3)",
        [(account, severity, text) for severity, text in customer.alerts],
    )
    for place, past in enumerate(customer.interactions):
        started = now - timedelta(seconds=past.ago)
        agent = agents[(account + place) % len(agents)] if agents and past.outcome == "answered" else None
        interaction = await connection.fetchval(
            """INSERT INTO interactions (call, pbx, direction, started, ended, touched, queue, agents, waited, talked,
                   outcome, e164, account_id, identified_how, identified_by)
               VALUES ($1, $2, $3, $4, $5, $5, $6, $7, $8, $9, $10, $11, $12, 'exact', 'lookup') RETURNING id""",
            f"{pbx}:sample-{customer.number}-{place}",
            pbx,
            past.direction,
            started,
            started + timedelta(seconds=past.waited + past.talked),
            f"{pbx}:{past.queue}",
            [agent] if agent else [],
            past.waited,
            past.talked,
            past.outcome,
            customer.phones[0].e164,
            account,
        )
        if past.note:
            await connection.execute(
                "INSERT INTO interaction_notes (interaction_id, author, text, created) VALUES ($1, $2, $3, $4)",
                interaction,
                agent or "import",
                past.note,
                started + timedelta(seconds=past.waited + past.talked),
            )


def _day(now: datetime, due_in: int | None) -> date | None:
    return None if due_in is None else (now + timedelta(days=due_in)).date()


# -------------------------------------------------------------------------------------- for benchmarks


def synthetic_number(place: int) -> str:
    """Returns the E.164 number of synthetic account `place` (0 to 9,999,999)."""
    return f"+44740{place:07d}"


async def load_synthetic(
    connection: asyncpg.Connection[asyncpg.Record], count: int, *, interactions: int = 0, first_id: int = 1
) -> None:
    """Loads `count` accounts with one number each by COPY, and `interactions` earlier calls spread over them.

    For an empty database: ids begin at `first_id`. Ends with ANALYZE, so plans are those of a full table.
    """
    await connection.copy_records_to_table(
        "accounts",
        columns=["id", "number", "name", "kind", "class", "language", "country", "timezone"],
        records=(
            (first_id + n, f"S{n:08d}", f"Customer {n}", "person", "ABC"[n % 3], "en", "GB", "Europe/London")
            for n in range(count)
        ),
    )
    await connection.copy_records_to_table(
        "phones",
        columns=["e164", "account_id", "kind"],
        records=((synthetic_number(n), first_id + n, "mobile") for n in range(count)),
    )
    began = datetime(2026, 1, 1, tzinfo=UTC)
    await connection.copy_records_to_table(
        "interactions",
        columns=[
            "call",
            "pbx",
            "direction",
            "started",
            "ended",
            "touched",
            "outcome",
            "account_id",
            "agents",
        ],
        records=(
            (f"bench:{n}", "bench", "inbound", at, at, at, "answered", first_id + n * 7919 % count, ["a1"])
            for n in range(interactions)
            for at in (began + timedelta(seconds=n),)
        ),
    )
    await connection.execute("SELECT setval(pg_get_serial_sequence('accounts', 'id'), $1)", first_id + count)
    await connection.execute("ANALYZE accounts, phones, interactions")
