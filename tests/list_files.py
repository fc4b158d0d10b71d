"""Call-list files brought into a database as the server and the command line do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dialer import lists
from dialer.call_lists import imports
from dialer.call_lists.imports import ImportView
from dialer.call_lists.rows import ImportSettings
from dialer.call_lists.sheets import Sniffer
from dialer.lists import NewList

if TYPE_CHECKING:
    from cti.database import Queryable


async def upload(db: Queryable, content: bytes, *, part: int = 1 << 20, file: str = "list.csv") -> ImportView:
    """The file, ready to be imported."""
    id = await imports.begin(db, file, "sue")
    sniffer = Sniffer()
    for n, place in enumerate(range(0, len(content), part)):
        sniffer.feed(content[place : place + part])
        await imports.add_part(db, id, n, content[place : place + part])
    return await imports.uploaded(db, id, sniffer.format, sniffer.size)


async def started(
    db: Queryable,
    content: bytes,
    name: str = "spring",
    *,
    country: str = "GB",
    part: int = 1 << 20,
    **settings: object,
) -> ImportView:
    """An import of the file into the list of this name, started, with what its columns probably mean."""
    view = await upload(db, content, part=part)
    _, guessed = imports.guess_settings(await imports.sample(db, view), country)
    assert guessed is not None
    there = await lists.all_lists(db, name=name, counts=False)
    id = (there[0] if there else await lists.create(db, NewList(name=name), "sue")).id
    wanted = ImportSettings.model_validate(guessed.model_dump() | settings)
    return await imports.start(db, view.id, id, wanted)


async def customers(db: Queryable, *people: tuple[str, str | None]) -> None:
    """Customers of these names, numbered S0, S1 and so on, each with one phone or none."""
    for n, (name, e164) in enumerate(people):
        await db.execute(
            "INSERT INTO accounts (id, number, name, country, class) VALUES ($1, $2, $3, 'GB', 'A')",
            *(n + 1, f"S{n}", name),
        )
        if e164 is not None:
            await db.execute("INSERT INTO phones (e164, account_id) VALUES ($1, $2)", e164, n + 1)


async def consent(db: Queryable, person: str, *, given: bool, purpose: str) -> None:
    """A word of theirs on calls for a purpose."""
    await db.execute(
        """INSERT INTO consents (person, channel, purpose, given, source, at, noted_by)
           VALUES ($1, 'call', $2, $3, 'web form', now() - interval '1 day', 'sue')""",
        *(person, purpose, given),
    )


def gb(n: int) -> str:
    """The n-th number."""
    return f"+447911{n:06d}"


def sheet(first: int, last: int) -> bytes:
    """A list of so many people with different numbers."""
    return b"name,phone,city\n" + b"".join(f"P{n},{gb(n)},Leeds\n".encode() for n in range(first, last))
