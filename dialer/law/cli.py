"""`cti dialer`: the law on the command line: profiles, do-not-call, registers, consents, evidence, why a number was called
or not. Imports its parts when they are used."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cti.console import FAILED, WRONG_USE, Json, database_url, fail, settings, show_json

if TYPE_CHECKING:
    from datetime import datetime

    from cti.database import Connection
    from dialer.law.profiles import Profile

T = TypeVar("T")


def _group(help: str) -> typer.Typer:
    return typer.Typer(help=help, no_args_is_help=True, rich_markup_mode=None)


dialer = _group("The dialer's law: profiles, do-not-call, consents, evidence; docs/dialing-law.md.")
do_not_call = _group("Our own do-not-call list.")
register = _group("National do-not-call registers.")
consent = _group("Consent to be called.")
dialer.add_typer(do_not_call, name="do-not-call")
dialer.add_typer(register, name="register")
dialer.add_typer(consent, name="consent")

Number = Annotated[str, typer.Argument(help="The number: +442079460151, or national with --region.")]
Region = Annotated[str, typer.Option(help="Country of national numbers: two letters, like GB.")]
Campaign = Annotated[str, typer.Argument(help="The campaign: its name or number.")]


@dialer.command()
def profiles(
    name: Annotated[str | None, typer.Argument(help="Only this one.")] = None, json: Json = False
) -> None:
    """Show the country profiles: each rule with its source and date."""
    from dialer.law.rest import profile_view

    found = _profiles()
    if name is not None and name not in found:
        fail(f"there is no profile {name}, only {', '.join(sorted(found))}.", WRONG_USE)
    views = [profile_view(found[key]) for key in ([name] if name else sorted(found))]
    if json:
        show_json(views)
        return
    for view in views:
        _print(f"{view.name}: {view.title} (revised {view.revised})")
        for rule in view.rules:
            _print(f"  {rule.rule.replace('_', ' ')}: {rule.says}")
            confirm = f"; {rule.confirm}" if rule.confirm else ""
            _print(f"      {rule.source} (as of {rule.as_of}{confirm})")
        for note in view.notes:
            _print(f"  Note: {note}")


@dialer.command()
def why(
    number: Number,
    at: Annotated[
        str | None, typer.Option(help="The moment asked about: 2026-11-22T10:00; now if left out.")
    ] = None,
    region: Region = "",
    json: Json = False,
) -> None:
    """Show why a number was, is or is not called, step by step."""
    from datetime import UTC, datetime

    from dialer.law.evidence import wait_told
    from dialer.law.why import why as ask

    e164, now = _number(number, region), datetime.now(UTC)
    moment = _moment(at, "--at") or now
    told = _run(lambda db: ask(db, e164, moment, now, profiles=_profiles))
    if json:
        show_json(told)
        return
    _print(f"{told.number}: {told.says}")
    for contact in told.contacts:
        _print(f"\nContact {contact.contact} of the list {contact.list_name}")
        for step in contact.steps:
            _print(f"  {'ok ' if step.ok else 'NO '} {step.rule.replace('_', ' ')}: {step.says}")
            if not step.ok and step.source:
                _print(f"        {step.source}")
    for entry in told.do_not_call:
        ended = f", removed {entry.removed:%Y-%m-%d} by {entry.removed_by}" if entry.removed else ""
        _print(f"\nDo not call, {entry.scope}: since {entry.added:%Y-%m-%d} by {entry.added_by}{ended}")
    for edition in told.registers:
        _print(f"\nOn the register {edition.register}, edition of {edition.edition}")
    for word in told.consents:
        verb = "given" if word.given else "withdrawn"
        _print(
            f"\nConsent to {word.channel} for {word.purpose or 'anything'} {verb} {word.at:%Y-%m-%d}: {word.source}"
        )
    if told.attempts:
        _print("\nAttempts, the newest first:")
    for one in told.attempts:
        ring = f", rang {one.ring_s:g} s" if one.ring_s is not None else ""
        wait = f", {told_of_wait}" if (told_of_wait := wait_told(one)) else ""
        outcome = one.outcome or "under way"
        _print(f"  {one.committed:%Y-%m-%d %H:%M:%S} UTC  {one.campaign_name}: {outcome}{ring}{wait}")
        for check in one.checks:
            _print(f"      {'ok ' if check.get('ok') else 'NO '} {check.get('says', '')}")


@dialer.command()
def abandonment(campaign: Campaign, json: Json = False) -> None:
    """Show how many calls a campaign has lost in the legal window, and how many more it may."""
    from datetime import UTC, datetime

    from dialer.law.ledger import abandonment as ask
    from dialer.law.why import NoProfile, profile_of

    async def work(db: Connection) -> Any:
        row = await _campaign(db, campaign)
        try:
            profile = profile_of(_profiles(), row["profile"], row["settings"])
        except NoProfile as error:
            fail(f"{error}.")
        return await ask(db, row["id"], profile, datetime.now(UTC))

    told = _run(work)
    if json:
        show_json(told)
    else:
        _print(told.says)


@dialer.command()
def recheck(campaign: Campaign) -> None:
    """Open the contacts of a campaign that were blocked, after its profile or settings changed.

    Each is judged anew when its turn comes.
    """
    from cti import audit
    from dialer.law.reopening import reopen

    async def work(db: Connection) -> int:
        row = await _campaign(db, campaign)
        opened = await reopen(db, campaign=row["id"])
        await audit.record(
            db, _us(), "campaign.rechecked", "dialer", {"campaign": row["id"], "contacts": opened}
        )
        return opened

    _print(f"{_run(work):,} contacts are open again.")


@dialer.command()
def evidence(
    campaign: Campaign,
    since: Annotated[
        str | None, typer.Option("--from", help="A day or moment: 2026-11-22, 2026-11-22T10:00.")
    ] = None,
    before: Annotated[str | None, typer.Option("--to", help="Before this day or moment.")] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Lines of JSON instead of CSV.")] = False,
    out: Annotated[Path | None, typer.Option(help="A file; standard output if left out.")] = None,
) -> None:
    """Write every attempt of a campaign: times, waits, message, list version, consent, checks."""
    from cti import audit
    from dialer.law.evidence import attempts_of, heading, written

    form: Any = "jsonl" if jsonl else "csv"
    first, last = _moment(since, "--from"), _moment(before, "--to")

    async def work(db: Connection) -> None:
        row = await _campaign(db, campaign)
        detail = {"since": first, "before": last, "form": form}
        await audit.record(db, _us(), "evidence.exported", str(row["id"]), detail)
        target = out.open("wb") if out is not None else sys.stdout.buffer
        try:
            target.write(heading(form))
            async for portion in attempts_of(db, row["id"], since=first, before=last):
                target.write(written(portion, form))
            target.flush()
        finally:
            if out is not None:
                target.close()

    _run(work)


# ------------------------------------------------------------------------------------------------ do-not-call


@do_not_call.command("add")
def add_entry(
    number: Number,
    region: Region = "",
    company: Annotated[str, typer.Option(help="Only for this company.")] = "",
    campaign: Annotated[int | None, typer.Option(help="Only in this campaign.")] = None,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    until: Annotated[str | None, typer.Option(help="Up to this day or moment; for ever if left out.")] = None,
) -> None:
    """Put a number on our own list; no campaign calls it from then on."""
    from cti import audit
    from dialer.law.do_not_call import WrongEntry, add

    e164, expires = _number(number, region), _until(until)
    scope = _scope(company, campaign)

    async def work(db: Connection) -> int:
        try:
            async with db.transaction():
                entry = await add(
                    db, number=e164, scope=scope, company=company, campaign=campaign, reason=reason[:300],
                    expires=expires, by=_us().login,
                )  # fmt: skip
                await audit.record(
                    db, _us(), "do_not_call.added", "dialer", {"entry": entry.id, "scope": scope}
                )
        except WrongEntry as error:
            fail(f"{error}.", WRONG_USE)
        return entry.id

    _print(f"Entry {_run(work)}: it is not called from now on.")


@do_not_call.command("import")
def import_entries(
    file: Annotated[Path, typer.Argument(help="A number a line, or CSV.")],
    country: Annotated[str, typer.Option(help="Country of numbers without a country code: two letters.")],
    column: Annotated[
        int, typer.Option(min=0, help="Which column holds the number, from 1; found if left out.")
    ] = 0,
    company: Annotated[str, typer.Option(help="Only for this company.")] = "",
    campaign: Annotated[int | None, typer.Option(help="Only in this campaign.")] = None,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    until: Annotated[str | None, typer.Option(help="Up to this day or moment; for ever if left out.")] = None,
    json: Json = False,
) -> None:
    """Put the numbers of a file on our own list; the same again is kept once."""
    from cti import audit
    from dialer.law.do_not_call import WrongEntry
    from dialer.law.do_not_call_files import take_in
    from dialer.law.registers import PORTION, WrongRegister

    expires = _until(until)
    scope = _scope(company, campaign)

    async def work(db: Connection) -> Any:
        try:
            with file.open("rb") as lines:

                async def parts() -> AsyncIterator[bytes]:
                    while part := lines.read(PORTION):
                        yield part

                told = await take_in(
                    db, parts(), country=country, scope=scope, company=company, campaign=campaign, column=column,
                    reason=reason[:300], expires=expires, by=_us().login,
                )  # fmt: skip
        except (WrongEntry, WrongRegister) as error:
            fail(f"{error}.", WRONG_USE)
        except OSError as error:
            fail(f"{file} cannot be read: {error.strerror}.", WRONG_USE)
        detail = {"scope": scope, "company": company, "campaign": campaign, "new": told.new}
        await audit.record(db, _us(), "do_not_call.imported", "dialer", detail)
        return told

    told = _run(work)
    if json:
        show_json(told)
        return
    _print(f"{told.new:,} numbers are not called from now on, {told.known:,} were listed before.")
    if told.refused:
        _print(f"{told.refused:,} lines hold no number: {'; '.join(told.samples[:5])}")


@do_not_call.command("remove")
def remove_entry(
    entry: Annotated[int, typer.Argument(help="The entry's number, as `find` shows it.")],
    why: Annotated[str, typer.Option(help="Why it is taken back.")],
) -> None:
    """Take an entry back; it stays on record."""
    from cti import audit
    from dialer.law.do_not_call import NoSuchEntry, remove

    async def work(db: Connection) -> None:
        try:
            async with db.transaction():
                await remove(db, entry, by=_us().login, why=why[:300])
                await audit.record(
                    db, _us(), "do_not_call.removed", "dialer", {"entry": entry, "why": why[:300]}
                )
        except NoSuchEntry as error:
            fail(f"{error}.")

    _run(work)
    _print(f"Entry {entry} holds no longer.")


@do_not_call.command("find")
def find_entries(number: Number, region: Region = "", json: Json = False) -> None:
    """Show where a number is listed."""
    from dialer.law.do_not_call import entries_of, registers_with

    e164 = _number(number, region)

    async def work(db: Connection) -> dict[str, Any]:
        return {"entries": await entries_of(db, e164), "registers": await registers_with(db, e164)}

    found = _run(work)
    if json:
        show_json(found)
        return
    for entry in found["entries"]:
        ended = f", removed by {entry.removed_by}: {entry.removed_why}" if entry.removed else ""
        until = f" until {entry.expires:%Y-%m-%d}" if entry.expires else ""
        of = entry.company or (f"campaign {entry.campaign}" if entry.campaign else "everywhere")
        _print(f"{entry.id}: {of}, since {entry.added:%Y-%m-%d}{until} by {entry.added_by}{ended}")
    for edition in found["registers"]:
        _print(f"register {edition.register}, edition of {edition.edition}")
    if not found["entries"] and not found["registers"]:
        _print("It is on no list.")


# ------------------------------------------------------------------------------------------------ registers


@register.command("load")
def load_register(
    file: Annotated[
        Path, typer.Argument(help="The file as the register delivers it: a number a line, or CSV.")
    ],
    name: Annotated[str, typer.Option("--register", help="Which register: us-national, gb-tps.")],
    country: Annotated[str, typer.Option(help="Its country: two letters, like US.")],
    edition: Annotated[str, typer.Option(help="The date of this edition: 2026-11-22.")],
    column: Annotated[
        int, typer.Option(min=0, help="Which column holds the number, from 1; found if left out.")
    ] = 0,
    smaller: Annotated[
        bool, typer.Option("--smaller", help="It really holds far fewer numbers than the one in force.")
    ] = False,
) -> None:
    """Load an edition of a national register; it replaces the former one in one moment."""
    import asyncio
    from datetime import UTC, date, datetime

    from cti import audit, logs
    from cti.database import connection
    from dialer.law.registers import WrongRegister, load_edition

    logs.none()
    try:
        day = date.fromisoformat(edition)
    except ValueError:
        fail("--edition: a date like 2026-11-22.", WRONG_USE)
    if day > datetime.now(UTC).date():
        fail("--edition: this day is still to come.", WRONG_USE)
    try:
        size, url = file.stat().st_size, database_url()
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}.", WRONG_USE)

    async def work(progress: Callable[[int], None]) -> Any:
        with file.open("rb") as lines:
            told, read = await load_edition(
                url, lines, register=name, country=country.upper(), edition=day, by=_us().login, column=column,
                smaller=smaller, progress=progress,
            )  # fmt: skip
        async with connection(url, name="cti dialer") as db:
            detail = {"register": name, "edition": day, "numbers": told.numbers}
            await audit.record(db, _us(), "register.loaded", name, detail)
        return told, read

    try:
        with _progress(size, f"Loading {name}") as progress:
            told, read = asyncio.run(work(progress))
    except WrongRegister as error:
        fail(f"{error}.", WRONG_USE)
    _print(f"{told.register}: {told.numbers:,} numbers of {told.edition} are in force.")
    if read.refused:
        _print(f"{read.refused:,} of {read.lines:,} lines hold no number: {'; '.join(read.samples[:5])}")


@register.command("list")
def list_registers(json: Json = False) -> None:
    """Show the editions that were loaded."""
    from dialer.law.do_not_call import editions

    found = _run(editions)
    if json:
        show_json(found)
    for one in found if not json else ():
        _print(
            f"{one.register}  {one.edition}  {one.state}  {one.numbers:,} numbers, loaded {one.loaded:%Y-%m-%d}"
        )
    if not found and not json:
        _print("None was loaded.")


# ------------------------------------------------------------------------------------------------ consents


@consent.command("import")
def import_consents(
    file: Annotated[
        Path, typer.Argument(help="CSV: number, person, channel, purpose, given, source, evidence, at.")
    ],
    region: Region = "",
    json: Json = False,
) -> None:
    """Keep the consents of a file; the same again is kept once."""
    from cti import audit
    from dialer.law.consent_files import import_file
    from dialer.law.consents import WrongConsent

    async def work(db: Connection) -> Any:
        with file.open(encoding=_encoding(file), errors="replace", newline="") as rows:
            try:
                told = await import_file(db, rows, region=region.upper(), by=_us().login)
            except WrongConsent as error:
                fail(f"{error}.", WRONG_USE)
        await audit.record(db, _us(), "consent.imported", "dialer", {"kept": told.kept, "known": told.known})
        return told

    _show_taken_over(_run(work), "line", json=json)


@consent.command("from-list")
def take_over_consents(
    list_id: Annotated[int, typer.Argument(metavar="LIST", help="The list's number.")],
    source: Annotated[str, typer.Option(help="How the consents were given: a form, a contract.")],
    purpose: Annotated[str, typer.Option(help="What for; as the campaign's purpose.")] = "marketing",
    column: Annotated[str, typer.Option(help="The custom field with a day, or yes and no.")] = "consent",
    at: Annotated[str | None, typer.Option(help="When those who say only yes or no said so.")] = None,
    json: Json = False,
) -> None:
    """Keep the consents that came with a call list."""
    from cti import audit
    from dialer.law.consent_lists import NoSuchList, take_over
    from dialer.law.consents import WrongConsent

    moment = _moment(at, "--at")

    async def work(db: Connection) -> Any:
        try:
            told = await take_over(
                db, list_id, source=source, purpose=purpose, column=column, at=moment, by=_us().login
            )
        except (WrongConsent, NoSuchList) as error:
            fail(f"{error}.", WRONG_USE)
        detail = {"list": list_id, "kept": told.kept, "known": told.known, "source": source}
        await audit.record(db, _us(), "consent.imported", "dialer", detail)
        return told

    _show_taken_over(_run(work), "contact", json=json)


def _show_taken_over(told: Any, row_is: str, *, json: bool) -> None:
    if json:
        show_json(told)
        return
    _print(f"{told.kept:,} kept, {told.known:,} on record before, {told.not_kept:,} refused.")
    for row in told.refused[:20]:
        _print(f"  {row_is} {row.line}: {row.why}")


@consent.command("find")
def find_consents(
    number: Annotated[str, typer.Argument(help="The number.")] = "",
    person: Annotated[str, typer.Option(help="The person, as lists name them.")] = "",
    region: Region = "",
    json: Json = False,
) -> None:
    """Show what was said of consent by a number or a person."""
    from dialer.law.consents import words_of

    if not number and not person:
        fail("say whose: a number or --person.", WRONG_USE)
    e164 = _number(number, region) if number else ""
    found = _run(lambda db: words_of(db, number=e164, person=person))
    if json:
        show_json(found)
        return
    for word in found:
        verb = "given" if word.given else "withdrawn"
        _print(
            f"{word.at:%Y-%m-%d %H:%M} {word.channel}, {word.purpose or 'anything'}: {verb} ({word.source})"
        )
    if not found:
        _print("Nothing is on record.")


# ------------------------------------------------------------------------------------------------ what all share


def _run(work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
    import asyncio

    from cti import logs
    from cti.database import connection

    logs.none()

    async def within() -> T:
        async with connection(database_url(), name="cti dialer", jit="off") as db:
            return await work(db)

    return asyncio.run(within())


def _profiles() -> dict[str, Profile]:
    from dialer.law.profiles import WrongProfile, load

    folder = settings().dialer.profiles
    try:
        return load(*([Path(folder)] if folder else []))
    except WrongProfile as error:
        fail(f"{error}.", WRONG_USE)


def _number(written: str, region: str) -> str:
    from dialer.law.do_not_call import WrongEntry
    from dialer.law.rest import number_of

    try:
        return number_of(written, region.upper())
    except WrongEntry as error:
        fail(f"{error}.", WRONG_USE)


def _moment(written: str | None, option: str) -> datetime | None:
    from datetime import UTC, datetime

    if written is None:
        return None
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        fail(f"{option}: a day or moment, like 2026-11-22 or 2026-11-22T10:00+01:00.", WRONG_USE)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _encoding(file: Path) -> str:
    """How a file of text is written, as imports of lists find it out."""
    from dialer.call_lists.sheets import PART, NotASheet, Sniffer

    sniffer = Sniffer()
    try:
        with file.open("rb") as opened:
            while part := opened.read(PART):
                sniffer.feed(part)
        return sniffer.as_text()
    except NotASheet as error:
        fail(f"{file.name}: {error}.", WRONG_USE)
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}.", WRONG_USE)


def _until(written: str | None) -> datetime | None:
    from datetime import UTC, datetime

    moment = _moment(written, "--until")
    if moment is not None and moment <= datetime.now(UTC):
        fail("--until: this is past.", WRONG_USE)
    return moment


def _scope(company: str, campaign: int | None) -> Any:
    if company and campaign is not None:
        fail("say --company or --campaign, not both.", WRONG_USE)
    return "campaign" if campaign is not None else "company" if company else "everywhere"


async def _campaign(db: Connection, named: str) -> Any:
    row = await db.fetchrow(
        "SELECT id, name, profile, settings FROM campaigns WHERE name = $1 OR id::text = $1 ORDER BY name = $1 DESC",
        named,
    )
    if row is None:
        fail(f"there is no campaign {named}.", FAILED)
    return row


def _us() -> Any:
    from cti.people import Actor, Role

    return Actor(login="cti", name="cti", role=Role.ADMIN, via="system")


def _progress(size: int, what: str) -> Any:
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    @contextmanager
    def shown() -> Any:
        columns = (TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(what, total=size)
            yield lambda done: progress.update(task, completed=done)

    return shown()


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
