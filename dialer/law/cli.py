"""`cti dialer`: the law on the command line: profiles, do-not-call, registers, consents, evidence, why a number was called
or not. Over REST, but for the files of registers, which the server's operator loads into the database itself. Imports its
parts when they are used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from cti.console import WRONG_USE, Json, database_url, fail, show_json
from cti.remote import HERE, Url, Who, read_as, run, saved
from dialer.call_lists.terminal import find_campaign, find_list, say

if TYPE_CHECKING:
    from datetime import datetime

    from cti.rest_client import Server


def _group(help: str) -> typer.Typer:
    return typer.Typer(help=help, no_args_is_help=True, rich_markup_mode=None)


dialer = _group("The dialer's law: profiles, do-not-call, consents, evidence; docs/dialing-law.md.")
do_not_call = _group("Our own do-not-call list.")
register = _group(
    "National do-not-call registers; `load` works on the database, on the server's own machine."
)
consent = _group("Consent to be called.")
dialer.add_typer(do_not_call, name="do-not-call")
dialer.add_typer(register, name="register")
dialer.add_typer(consent, name="consent")

Number = Annotated[str, typer.Argument(help="The number: +442079460151, or national with --region.")]
Region = Annotated[str, typer.Option(help="Country of national numbers: two letters, like GB.")]
Campaign = Annotated[str, typer.Argument(help="The campaign: its name or number.")]


@dialer.command()
def profiles(
    name: Annotated[str | None, typer.Argument(help="Only this one.")] = None,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Show the country profiles: each rule with its source and date."""
    from dialer.law.rest import ProfileView

    found = run(url, login, lambda server: server.ask("GET", "/dialer/profiles"))["items"]
    names = [one["name"] for one in found]
    if name is not None and name not in names:
        fail(f"there is no profile {name}, only {', '.join(names)}.", WRONG_USE)
    shown = [one for one in found if name in (None, one["name"])]
    if json:
        show_json(shown)
        return
    views = [read_as(ProfileView, one) for one in shown]
    for view in views:
        say(f"{view.name}: {view.title} (revised {view.revised})")
        for rule in view.rules:
            say(f"  {rule.rule.replace('_', ' ')}: {rule.says}")
            confirm = f"; {rule.confirm}" if rule.confirm else ""
            say(f"      {rule.source} (as of {rule.as_of}{confirm})")
        for note in view.notes:
            say(f"  Note: {note}")


@dialer.command()
def why(
    number: Number,
    at: Annotated[
        str | None, typer.Option(help="The moment asked about: 2026-11-22T10:00; now if left out.")
    ] = None,
    region: Region = "",
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Show why a number was, is or is not called, step by step."""
    from dialer.law.evidence import wait_told
    from dialer.law.why import NumberWhy

    body = {**_number(number, region), "at": _moment(at, "--at")}
    found = run(url, login, lambda server: server.ask("POST", "/dialer/why", body))
    if json:
        show_json(found)
        return
    told = read_as(NumberWhy, found)
    say(f"{told.number}: {told.says}")
    for contact in told.contacts:
        say(f"\nContact {contact.contact} of the list {contact.list_name}")
        for step in contact.steps:
            say(f"  {'ok ' if step.ok else 'NO '} {step.rule.replace('_', ' ')}: {step.says}")
            if not step.ok and step.source:
                say(f"        {step.source}")
    for entry in told.do_not_call:
        ended = f", removed {entry.removed:%Y-%m-%d} by {entry.removed_by}" if entry.removed else ""
        say(f"\nDo not call, {entry.scope}: since {entry.added:%Y-%m-%d} by {entry.added_by}{ended}")
    for edition in told.registers:
        say(f"\nOn the register {edition.register}, edition of {edition.edition}")
    for word in told.consents:
        verb = "given" if word.given else "withdrawn"
        say(
            f"\nConsent to {word.channel} for {word.purpose or 'anything'} {verb} {word.at:%Y-%m-%d}: {word.source}"
        )
    if told.attempts:
        say("\nAttempts, the newest first:")
    for one in told.attempts:
        ring = f", rang {one.ring_s:g} s" if one.ring_s is not None else ""
        wait = f", {told_of_wait}" if (told_of_wait := wait_told(one)) else ""
        outcome = one.outcome or "under way"
        say(f"  {one.committed:%Y-%m-%d %H:%M:%S} UTC  {one.campaign_name}: {outcome}{ring}{wait}")
        for check in one.checks:
            say(f"      {'ok ' if check.get('ok') else 'NO '} {check.get('says', '')}")


@dialer.command()
def abandonment(campaign: Campaign, url: Url = HERE, login: Who = None, json: Json = False) -> None:
    """Show how many calls a campaign has lost in the legal window, and how many more it may."""

    async def work(server: Server) -> Any:
        return await server.ask("GET", f"/campaigns/{await find_campaign(server, campaign)}/abandonment")

    told = run(url, login, work)
    if json:
        show_json(told)
    else:
        say(told["says"])


@dialer.command()
def recheck(campaign: Campaign, url: Url = HERE, login: Who = None) -> None:
    """Open the contacts of a campaign that were blocked, after its profile or settings changed.

    Each is judged anew when its turn comes.
    """
    from cti.rest_client import LONG

    async def work(server: Server) -> Any:
        path = f"/campaigns/{await find_campaign(server, campaign)}/recheck"
        return await server.ask("POST", path, patience=LONG)

    say(f"{run(url, login, work)['contacts']:,} contacts are open again.")


@dialer.command()
def evidence(
    campaign: Campaign,
    since: Annotated[
        str | None, typer.Option("--from", help="A day or moment: 2026-11-22, 2026-11-22T10:00.")
    ] = None,
    before: Annotated[str | None, typer.Option("--to", help="Before this day or moment.")] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Lines of JSON instead of CSV.")] = False,
    out: Annotated[Path | None, typer.Option(help="A file; standard output if left out.")] = None,
    url: Url = HERE,
    login: Who = None,
) -> None:
    """Write every attempt of a campaign: times, waits, message, list version, consent, checks."""
    given = {"since": _moment(since, "--from"), "before": _moment(before, "--to")}
    query = {name: moment.isoformat() for name, moment in given.items() if moment is not None}

    async def work(server: Server) -> None:
        id = await find_campaign(server, campaign)
        await saved(server, f"/campaigns/{id}/evidence.{'jsonl' if jsonl else 'csv'}", query, out)

    run(url, login, work)


# ------------------------------------------------------------------------------------------------ do-not-call


Company = Annotated[str, typer.Option(help="Only for this company.")]
InCampaign = Annotated[str, typer.Option(help="Only in this campaign, by its name or number.")]
Reason = Annotated[str, typer.Option(help="Why.")]
Until = Annotated[str | None, typer.Option(help="Up to this day or moment; for ever if left out.")]


@do_not_call.command("add")
def add_entry(
    number: Number,
    region: Region = "",
    company: Company = "",
    campaign: InCampaign = "",
    reason: Reason = "",
    until: Until = None,
    url: Url = HERE,
    login: Who = None,
) -> None:
    """Put a number on our own list; no campaign calls it from then on."""
    expires = _until(until)

    async def work(server: Server) -> Any:
        where = await _where(server, company, campaign)
        body = {**_number(number, region), **where, "reason": reason, "expires": expires}
        return await server.ask("POST", "/dialer/do-not-call", body)

    say(f"Entry {run(url, login, work)['id']}: it is not called from now on.")


@do_not_call.command("import")
def import_entries(
    file: Annotated[Path, typer.Argument(help="A number a line, or CSV.")],
    country: Annotated[str, typer.Option(help="Country of numbers without a country code: two letters.")],
    column: Annotated[
        int, typer.Option(min=0, help="Which column holds the number, from 1; found if left out.")
    ] = 0,
    company: Company = "",
    campaign: InCampaign = "",
    reason: Reason = "",
    until: Until = None,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Put the numbers of a file on our own list; the same again is kept once."""
    from datetime import datetime

    from dialer.law.do_not_call_files import Taken

    how = {"country": country.upper(), "column": column, "reason": reason, "expires": _until(until)}

    async def work(server: Server) -> Any:
        given = {**how, **await _where(server, company, campaign)}
        query = {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name, value in given.items()
            if value not in ("", None)
        }
        return await server.send("/dialer/do-not-call/import", opened, query=query)

    with _opened(file) as opened:
        found = run(url, login, work)
    if json:
        show_json(found)
        return
    told = read_as(Taken, found)
    say(f"{told.new:,} numbers are not called from now on, {told.known:,} were listed before.")
    if told.refused:
        say(f"{told.refused:,} lines hold no number: {'; '.join(told.samples[:5])}")


@do_not_call.command("remove")
def remove_entry(
    entry: Annotated[int, typer.Argument(min=1, help="The entry's number, as `find` shows it.")],
    why: Annotated[str, typer.Option(help="Why it is taken back.")],
    url: Url = HERE,
    login: Who = None,
) -> None:
    """Take an entry back; it stays on record."""
    run(url, login, lambda server: server.ask("POST", f"/dialer/do-not-call/{entry}/remove", {"why": why}))
    say(f"Entry {entry} holds no longer.")


@do_not_call.command("find")
def find_entries(
    number: Number, region: Region = "", url: Url = HERE, login: Who = None, json: Json = False
) -> None:
    """Show where a number is listed."""
    from dialer.law.rest import NumberOnLists

    body = _number(number, region)
    told = run(url, login, lambda server: server.ask("POST", "/dialer/do-not-call/find", body))
    if json:
        show_json(told)
        return
    found = read_as(NumberOnLists, told)
    for entry in found.entries:
        ended = f", removed by {entry.removed_by}: {entry.removed_why}" if entry.removed else ""
        until = f" until {entry.expires:%Y-%m-%d}" if entry.expires else ""
        of = entry.company or (f"campaign {entry.campaign}" if entry.campaign else "everywhere")
        say(f"{entry.id}: {of}, since {entry.added:%Y-%m-%d}{until} by {entry.added_by}{ended}")
    for edition in found.registers:
        say(f"register {edition.register}, edition of {edition.edition}")
    if not found.entries and not found.registers:
        say("It is on no list.")


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
    """Load an edition of a national register; it replaces the former one in one moment.

    For the server's operator, on the server's own machine: it works on the database (CTI_DATABASE_URL).
    """
    import asyncio
    from datetime import UTC, date, datetime

    from cti import audit, logs
    from cti.database import connection
    from cti.people import Actor, Role
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

    operator = Actor(login="cti", name="cti", role=Role.ADMIN, via="system")

    async def work(progress: Callable[[int], None]) -> Any:
        with file.open("rb") as lines:
            told, read = await load_edition(
                url, lines, register=name, country=country.upper(), edition=day, by=operator.login, column=column,
                smaller=smaller, progress=progress,
            )  # fmt: skip
        async with connection(url, name="cti dialer") as db:
            detail = {"register": name, "edition": day, "numbers": told.numbers}
            await audit.record(db, operator, "register.loaded", name, detail)
        return told, read

    try:
        with _progress(size, f"Loading {name}") as progress:
            told, read = asyncio.run(work(progress))
    except WrongRegister as error:
        fail(f"{error}.", WRONG_USE)
    say(f"{told.register}: {told.numbers:,} numbers of {told.edition} are in force.")
    if read.refused:
        say(f"{read.refused:,} of {read.lines:,} lines hold no number: {'; '.join(read.samples[:5])}")


@register.command("list")
def list_registers(url: Url = HERE, login: Who = None, json: Json = False) -> None:
    """Show the editions that were loaded."""
    from dialer.law.do_not_call import RegisterEdition

    found = run(url, login, lambda server: server.ask("GET", "/dialer/registers"))["items"]
    if json:
        show_json(found)
        return
    for one in (read_as(RegisterEdition, each) for each in found):
        counts = f"{one.numbers:,} numbers, loaded {one.loaded:%Y-%m-%d}"
        say(f"{one.register}  {one.edition}  {one.state}  {counts}")
    if not found:
        say("None was loaded.")


# ------------------------------------------------------------------------------------------------ consents


@consent.command("import")
def import_consents(
    file: Annotated[
        Path, typer.Argument(help="CSV: number, person, channel, purpose, given, source, evidence, at.")
    ],
    region: Region = "",
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Keep the consents of a file, whatever its encoding; the same again is kept once."""
    query = {"region": region.upper()} if region else {}
    with _opened(file) as opened:
        told = run(url, login, lambda server: server.send("/dialer/consents/import", opened, query=query))
    _show_taken_over(told, "line", json=json)


@consent.command("from-list")
def take_over_consents(
    name: Annotated[str, typer.Argument(metavar="LIST", help="The list: its name or number.")],
    source: Annotated[str, typer.Option(help="How the consents were given: a form, a contract.")],
    purpose: Annotated[str, typer.Option(help="What for; as the campaign's purpose.")] = "marketing",
    column: Annotated[str, typer.Option(help="The custom field with a day, or yes and no.")] = "consent",
    at: Annotated[str | None, typer.Option(help="When those who say only yes or no said so.")] = None,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Keep the consents that came with a call list."""
    from cti.rest_client import LONG

    body = {"source": source, "purpose": purpose, "column": column, "at": _moment(at, "--at")}

    async def work(server: Server) -> Any:
        id = (await find_list(server, name))["id"]
        return await server.ask("POST", f"/lists/{id}/consents", body, patience=LONG)

    _show_taken_over(run(url, login, work), "contact", json=json)


def _show_taken_over(told: Any, row_is: str, *, json: bool) -> None:
    if json:
        show_json(told)
        return
    say(f"{told['kept']:,} kept, {told['known']:,} on record before, {told['not_kept']:,} refused.")
    for row in told["refused"][:20]:
        say(f"  {row_is} {row[row_is]}: {row['why']}")


@consent.command("find")
def find_consents(
    number: Annotated[str, typer.Argument(help="The number.")] = "",
    person: Annotated[str, typer.Option(help="The person, as lists name them.")] = "",
    region: Region = "",
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Show what was said of consent by a number or a person."""
    from dialer.law.consents import ConsentWord

    if not number and not person:
        fail("say whose: a number or --person.", WRONG_USE)
    body = {**(_number(number, region) if number else {}), "person": person}
    found = run(url, login, lambda server: server.ask("POST", "/dialer/consents/find", body))["items"]
    if json:
        show_json(found)
        return
    for word in (read_as(ConsentWord, one) for one in found):
        verb = "given" if word.given else "withdrawn"
        say(f"{word.at:%Y-%m-%d %H:%M} {word.channel}, {word.purpose or 'anything'}: {verb} ({word.source})")
    if not found:
        say("Nothing is on record.")


# ------------------------------------------------------------------------------------------------ what all share


def _number(written: str, region: str) -> dict[str, Any]:
    """A number as REST asks for it."""
    return {"number": written} | ({"region": region.upper()} if region else {})


async def _where(server: Server, company: str, campaign: str) -> dict[str, Any]:
    """Where a number is not called."""
    if company and campaign:
        fail("say --company or --campaign, not both.", WRONG_USE)
    if campaign:
        return {"scope": "campaign", "campaign": await find_campaign(server, campaign)}
    return {"scope": "company", "company": company} if company else {"scope": "everywhere"}


def _moment(written: str | None, option: str) -> datetime | None:
    from datetime import UTC, datetime

    if written is None:
        return None
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        fail(f"{option}: a day or moment, like 2026-11-22 or 2026-11-22T10:00+01:00.", WRONG_USE)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _opened(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}.", WRONG_USE)


def _until(written: str | None) -> datetime | None:
    from datetime import UTC, datetime

    moment = _moment(written, "--until")
    if moment is not None and moment <= datetime.now(UTC):
        fail("--until: this is past.", WRONG_USE)
    return moment


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
