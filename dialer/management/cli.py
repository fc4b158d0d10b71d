"""`cti campaigns`: campaigns on the command line, over REST as anybody else's program would do it. Imports its parts when
they are used."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cti.console import FAILED, WRONG_USE, Json, fail, show_json
from cti.remote import HERE, Url, Who
from cti.remote import run as at_server

if TYPE_CHECKING:
    from dialer.management.client import Campaigns

campaigns = typer.Typer(
    help="Campaigns: make them, start and end them, watch them, plan them; docs/dialer.md is the way through.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Which = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="Its name or its id.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A setting: --set queue=main:sales --set max_lines=50; values may be JSON. May be repeated.",
    ),
]
Why = Annotated[str, typer.Option("--why", help="Why, for whoever reads the trail.")]
Csv = Annotated[bool, typer.Option("--csv", help="Answer as CSV, for spreadsheets.")]


def run(url: str, login: str | None, work: Callable[[Campaigns], Awaitable[Any]]) -> Any:
    """Does something with the server's campaigns; what it refuses ends the command with its sentence."""
    from dialer.management.client import Campaigns

    return at_server(url, login, lambda server: work(Campaigns(server)))


# ------------------------------------------------------------------------------------------------ seeing them


@campaigns.command("list")
def list_all(url: Url = HERE, login: Who = None, json: Json = False) -> None:
    """List the campaigns, how they stand, and what comes next by schedule."""
    from cti.terminal_text import columns

    found = run(url, login, lambda server: server.all())
    if json:
        show_json(found)
        return
    if not found:
        sys.stdout.write(
            "There are no campaigns yet: cti campaigns create NAME --mode predictive --profile US …\n"
        )
        return
    rows = [["id", "name", "state", "mode", "profile", "queue", "priority", "next"]]
    rows += [
        [
            *(str(one["id"]), one["name"], one["state"], one["mode"], one["profile"]),
            *(one["queue"] or one["team"] or "-", str(one["priority"])),
            _next(one) or "-",
        ]
        for one in found
    ]
    _lines(columns(rows))


@campaigns.command()
def show(campaign: Which, url: Url = HERE, login: Who = None, json: Json = False) -> None:
    """Show a campaign: its settings, its schedule, how it stands."""
    import msgspec

    found = run(url, login, lambda server: server.one(campaign))
    if json:
        show_json(found)
        return
    from dialer.management.screen import dispositions_told, wrap_up_told

    view, said = found["view"], found["settings"]["dispositions"]
    own = [one["code"] for one in said if one["category"] == "conversion"]
    since = view["since"][:19].replace("T", " ")
    lines = [
        f"{view['name']} ({view['id']}): {view['state']} since {since} UTC, {view['why'] or 'never started'}",
        f"mode {view['mode']}, profile {view['profile']}, priority {view['priority']}, version {view['version']}",
        f"schedule: {found['schedule_told']}",
        f"success: {', '.join(found['conversions']) or 'no disposition'}"
        + ("" if not own else f", and those of the category conversion: {', '.join(own)}"),
        *(
            f"{name} = {value if isinstance(value, str) else msgspec.json.encode(value).decode()}"
            for name, value in sorted(found["settings"].items())
            if value not in (None, "", [], {}) and name not in ("wrap_up", "dispositions")
        ),
        *wrap_up_told(view["wrap_up"]),
        *dispositions_told(found),
    ]
    _lines(lines)


# ------------------------------------------------------------------------------------------------ making and changing them


@campaigns.command()
def create(
    name: Annotated[str, typer.Argument(help="Its name.")],
    mode: Annotated[
        str,
        typer.Option(help="manual, preview, progressive, power, predictive, predictive-strict or agentless."),
    ],
    profile: Annotated[str, typer.Option(help="The country profile whose law is kept: US, GB, FR …")],
    settings: Set = None,
    priority: Annotated[
        int, typer.Option(min=0, max=100, help="Higher ones get agents and lines first.")
    ] = 0,
    success: Annotated[
        list[str] | None, typer.Option(help="A disposition that counts as a success; may be repeated.")
    ] = None,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Make a campaign, a draft.

    Example: cti campaigns create Spring --mode predictive --profile US --set queue=main:sales --set message=who-called
    """
    body = {
        "name": name,
        "mode": mode,
        "profile": profile,
        "priority": priority,
        "settings": {name: value for name, value in _settings(settings).items() if value is not None},
        "conversions": success or [],
    }
    made = run(url, login, lambda server: server.ask("POST", "/campaigns", body))
    _done(
        made,
        json,
        f"Made {name} ({made['view']['id']}), a draft. Give it a list, then: cti campaigns start {name}",
    )


@campaigns.command("set")
def change(
    campaign: Which,
    settings: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE...", help="name, mode, profile, priority or a setting.")
    ],
    success: Annotated[
        list[str] | None, typer.Option(help="Dispositions that count as a success, in place of those before.")
    ] = None,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Change a campaign. What runs goes on by it.

    Example: cti campaigns set Spring max_lines=40 ring_timeout_s=20 priority=10
    """
    given = _settings(settings)
    body: dict[str, Any] = {}
    for name in ("name", "mode", "profile", "priority"):
        if name in given:
            body[name] = given.pop(name)
    if given:
        body["settings"] = given
    if success is not None:
        body["conversions"] = success
    changed = run(url, login, lambda server: server.change(campaign, "PATCH", "", body))
    _done(changed, json, f"Changed {changed['view']['name']}, version {changed['view']['version']}.")


@campaigns.command()
def remove(campaign: Which, url: Url = HERE, login: Who = None) -> None:
    """Remove a campaign that has called nobody."""
    run(url, login, lambda server: server.change(campaign, "DELETE", "", None))
    _lines([f"Removed {campaign}."])


# ------------------------------------------------------------------------------------------------ what follows a talk


@campaigns.command("wrap-up")
def wrap_up(
    campaign: Which,
    seconds: Annotated[float | None, typer.Option(help="How long it lasts; 0 for none.")] = None,
    extension: Annotated[
        float | None, typer.Option(help="Seconds that an agent may add to one in all.")
    ] = None,
    mandatory: Annotated[
        bool | None,
        typer.Option("--mandatory/--voluntary", help="Whether it ends only with a disposition."),
    ] = None,
    after: Annotated[str | None, typer.Option(help="How the agent is after it: ready or not_ready.")] = None,
    as_queue: Annotated[bool, typer.Option("--as-queue", help="All as for its queue's calls again.")] = False,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Say what follows the campaign's talks; without options, show it. What is not said is as for its queue's calls."""
    from dialer.management.screen import wrap_up_told

    given = {"seconds": seconds, "extension": extension, "mandatory": mandatory, "after": after}
    given = {name: value for name, value in given.items() if value is not None}

    def edit(found: Any) -> dict[str, Any] | None:
        own = {} if as_queue else {k: v for k, v in found["settings"]["wrap_up"].items() if v is not None}
        return {"wrap_up": (own | given) or None} if given or as_queue else None

    told = run(url, login, lambda server: server.edit(campaign, edit))
    if json:
        show_json(told)
    else:
        _lines(wrap_up_told(told["view"]["wrap_up"]))


@campaigns.command()
def dispositions(campaign: Which, url: Url = HERE, login: Who = None, json: Json = False) -> None:
    """Show with which dispositions the campaign's calls end, and what becomes of the contact."""
    from dialer.management.screen import dispositions_told

    found = run(url, login, lambda server: server.one(campaign))
    if json:
        show_json(found["settings"]["dispositions"])
    else:
        _lines(dispositions_told(found))


@campaigns.command()
def disposition(
    campaign: Which,
    code: Annotated[str, typer.Argument(help="Its code: letters, digits, _ . - and spaces.")],
    label: Annotated[str | None, typer.Option(help="What agents read; the code if left out.")] = None,
    category: Annotated[
        str | None,
        typer.Option(help="conversion, contact, no_contact, do_not_call, call_back or finished."),
    ] = None,
    then: Annotated[
        str | None,
        typer.Option(help="The contact: finish, again or do_not_call; by category if left out."),
    ] = None,
    after: Annotated[int | None, typer.Option(help="Minutes until it is called again.")] = None,
    where: Annotated[
        str | None, typer.Option(help="Where it is not called: everywhere, company or campaign.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Agents cannot choose it any more.")] = False,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Add a disposition to the campaign, change one or remove it. Holds from the next call that is disposed.

    Example: cti campaigns disposition Spring later --label "Wants another call" --category call_back --after 240
    """
    from dialer.management.screen import dispositions_told

    words = {"label": label, "category": category, "then": then, "do_not_call": where}
    given: dict[str, Any] = {name: value for name, value in words.items() if value is not None}
    given |= {"again_after_minutes": after} if after is not None else {}

    def edit(found: Any) -> dict[str, Any]:
        known = {one["code"]: one for one in found["settings"]["dispositions"]}
        if remove and code not in known:
            fail(f"there is no disposition {code}: {', '.join(known) or 'the campaign has none'}.")
        if not remove and code not in known and "category" not in given:
            fail(f"{code} is new: say its --category.", WRONG_USE)
        if remove:
            del known[code]
        else:
            # Another category has its own ways: of the old one's nothing is kept.
            old = (
                known.get(code, {"code": code, "label": code}) if "category" not in given else {"code": code}
            )
            known[code] = {"label": known.get(code, {}).get("label", code), **old, **given}
        return {"dispositions": list(known.values()) or None}

    told = run(url, login, lambda server: server.edit(campaign, edit))
    if json:
        show_json(told)
    else:
        _lines(dispositions_told(told))


# ------------------------------------------------------------------------------------------------ starting and ending them


def _step(campaign: str, step: str, why: str, url: str, login: str | None, json: bool) -> None:
    async def do(server: Campaigns) -> Any:
        id = (await server.find(campaign))["id"]
        done = await server.ask("POST", f"/campaigns/{id}/{step}", {"why": why})
        before = await server.ask("GET", f"/campaigns/{id}/obstacles") if step == "start" else {}
        return done, before.get("warnings", [])

    told, warnings = run(url, login, do)
    _done(told, json, f"{told['view']['name']} is {told['view']['state']}.")
    for one in warnings if not json else ():
        _lines([f"Mind: {one['says']}"])


@campaigns.command()
def start(campaign: Which, why: Why = "", url: Url = HERE, login: Who = None, json: Json = False) -> None:
    """Start a campaign, or go on with it. Says all that is in the way."""
    _step(campaign, "start", why, url, login, json)


@campaigns.command()
def pause(campaign: Which, why: Why = "", url: Url = HERE, login: Who = None, json: Json = False) -> None:
    """Place no new calls; those under way go on."""
    _step(campaign, "pause", why, url, login, json)


@campaigns.command()
def drain(campaign: Which, why: Why = "", url: Url = HERE, login: Who = None, json: Json = False) -> None:
    """Place no new calls, and stop when the last one is over."""
    _step(campaign, "drain", why, url, login, json)


@campaigns.command()
def stop(campaign: Which, why: Why = "", url: Url = HERE, login: Who = None, json: Json = False) -> None:
    """End a campaign: no new calls, and those that ring are given up."""
    _step(campaign, "stop", why, url, login, json)


@campaigns.command()
def schedule(
    campaign: Which,
    hours: Annotated[
        list[str] | None, typer.Option(help="09:00-12:30, when it runs by itself; may be repeated.")
    ] = None,
    days: Annotated[str, typer.Option(help="mon,tue,wed,thu,fri,sat,sun")] = "mon,tue,wed,thu,fri",
    zone: Annotated[str | None, typer.Option(help="Time zone: Europe/London.")] = None,
    first: Annotated[str | None, typer.Option("--from", help="Not before this day: 2026-11-23.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Not after this day; it drains then.")] = None,
    at_end: Annotated[str, typer.Option(help="pause, drain or stop at the end of the hours.")] = "pause",
    off: Annotated[bool, typer.Option("--off", help="No schedule any more.")] = False,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Say when the server starts and ends the campaign by itself; without hours, show it."""
    if off:
        told = run(url, login, lambda server: server.change(campaign, "DELETE", "/schedule", None))
    elif not hours:
        told = run(url, login, lambda server: server.one(campaign))
    else:
        if zone is None:
            fail("say in which time zone: --zone Europe/London.", WRONG_USE)
        body = {
            "zone": zone,
            "days": days.split(","),
            "hours": hours,
            "first": first,
            "last": last,
            "at_end": at_end,
        }
        told = run(url, login, lambda server: server.change(campaign, "PUT", "/schedule", body))
    coming = told["view"]
    then = f"; next: {_next(coming, zone)}" if coming["next_step"] else ""
    _done(told, json, f"Schedule of {coming['name']}: {told['schedule_told']}{then}")


# ------------------------------------------------------------------------------------------------ how they go


@campaigns.command()
def why(campaign: Which, url: Url = HERE, login: Who = None, json: Json = False) -> None:
    """Say why a campaign dials as it does, or what keeps it from starting."""

    async def ask(server: Campaigns) -> dict[str, Any]:
        id = (await server.find(campaign))["id"]
        now = await server.ask("GET", f"/campaigns/{id}/now")
        found = await server.ask("GET", f"/campaigns/{id}/obstacles")
        return {
            "state": now["state"],
            "why": now["why"],
            "budget": now["budget"],
            "obstacles": found["items"],
            "warnings": found["warnings"],
        }

    told = run(url, login, ask)
    if json:
        show_json(told)
        return
    lines = [f"{told['state']}: {told['why'] or 'never started'}", told["budget"]]
    if told["obstacles"]:
        lines += ["What keeps it from starting:", *(f"  - {one['says']}" for one in told["obstacles"])]
    elif told["state"] not in ("running", "draining"):
        lines.append("Nothing keeps it from starting.")
    lines += [f"Mind: {one['says']}" for one in told["warnings"]]
    _lines(lines)


@campaigns.command()
def watch(
    campaign: Which,
    every: Annotated[float, typer.Option(min=0.5, help="Seconds between two looks.")] = 2.0,
    seconds: Annotated[
        float | None, typer.Option("--for", min=0.1, help="End after so many seconds.")
    ] = None,
    url: Url = HERE,
    login: Who = None,
    json: Annotated[bool, typer.Option("--json", help="Each look as one line of JSON.")] = False,
) -> None:
    """Watch how a campaign goes: agents, lines, calls, answers, abandonment against its budget, pace, list.

    End with Ctrl-C.
    """
    import asyncio
    import contextlib

    from dialer.management.screen import follow

    with contextlib.suppress(asyncio.CancelledError):
        run(url, login, lambda server: follow(server, campaign, every=every, seconds=seconds, as_json=json))


@campaigns.command()
def report(
    campaign: Annotated[
        list[str] | None, typer.Argument(metavar="[CAMPAIGN]...", help="Names or ids; all if left out.")
    ] = None,
    by: Annotated[
        str,
        typer.Option(help="total, hour, day, clock, attempt, list, agent, outcome, disposition or category."),
    ] = "total",
    first: Annotated[
        str, typer.Option("--from", help="A day or moment: 2026-10-25, 2026-10-25T09:15.")
    ] = "today",
    last: Annotated[str | None, typer.Option("--to", help="A day, to its end, or a moment.")] = None,
    tz: Annotated[str | None, typer.Option("--tz", help="Time zone; the call centre's if left out.")] = None,
    chart: Annotated[Path | None, typer.Option(help="Write a chart (SVG) to this file.")] = None,
    count: Annotated[
        str,
        typer.Option(
            help="In place of the sums, how often each of these was: outcomes, or said (dispositions)."
        ),
    ] = "",
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
    csv: Csv = False,
) -> None:
    """Show what campaigns came to, beside one another.

    Example: cti campaigns report Spring Autumn --by hour --count outcomes
    """
    from dialer.management.screen import COUNTS, table

    if count and count not in COUNTS:
        fail(f"--count is one of: {', '.join(COUNTS)}.", WRONG_USE)
    form = "csv" if csv else "svg" if chart is not None else "json"

    async def ask(server: Campaigns) -> Any:
        query = (
            {"by": by, "from": first, "format": form}
            | ({"to": last} if last else {})
            | ({"tz": tz} if tz else {})
        )
        if campaign:
            query["campaign"] = ",".join([str((await server.find(one))["id"]) for one in campaign])
        return await server.ask("GET", "/campaign_figures", query=query)

    told = run(url, login, ask)
    if chart is not None:
        chart.write_text(told, encoding="utf-8")
        _lines([f"Wrote {chart}."])
    elif csv:
        sys.stdout.write(told)
    elif json:
        show_json(told)
    else:
        _lines(table(told["items"], by, count) or ["Nothing in that time."])


@campaigns.command()
def detection(
    campaign: Which,
    first: Annotated[
        str, typer.Option("--from", help="A day or moment: 2026-10-25, 2026-10-25T09:15.")
    ] = "today",
    last: Annotated[str | None, typer.Option("--to", help="A day, to its end, or a moment.")] = None,
    tz: Annotated[str | None, typer.Option("--tz", help="Time zone; the call centre's if left out.")] = None,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Show how the detection of answering machines does, and what became of the messages left on them."""

    async def ask(server: Campaigns) -> Any:
        id = (await server.find(campaign))["id"]
        query = {"from": first} | ({"to": last} if last else {}) | ({"tz": tz} if tz else {})
        return await server.ask("GET", f"/campaigns/{id}/detection", query=query)

    told = run(url, login, ask)
    if json:
        show_json(told)
    else:
        from dialer.management.screen import detection_told

        _lines(detection_told(told))


@campaigns.command()
def plan(
    campaign: Which,
    finish_by: Annotated[
        str | None, typer.Option("--by", help="When it is to be through: 2026-11-27T17:00+01:00.")
    ] = None,
    abandonment: Annotated[float | None, typer.Option(help="Percent abandoned at most: 2.5.")] = None,
    agents: Annotated[int | None, typer.Option(min=1, help="In place of all agents it has.")] = None,
    hours: Annotated[
        list[str] | None,
        typer.Option(help="09:00-17:00, when they work (Monday to Friday); may be repeated."),
    ] = None,
    ring: Annotated[float | None, typer.Option(help="Seconds to ring.")] = None,
    seconds: Annotated[float, typer.Option("--for", min=1, max=120, help="Seconds that it may take.")] = 30.0,
    changes: Annotated[
        bool, typer.Option(help="Also what more agents or another ring time would change.")
    ] = True,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Dry run: what would come of it, from the list's own history, and what a change would make of it.

    Exit code 1: the goal would not be met.
    """
    body: dict[str, Any] = {
        "seconds": seconds,
        "finish_by": finish_by,
        "agents": agents,
        "ring_timeout_s": ring,
        "variants": changes,
    }
    if abandonment is not None:
        body["abandonment"] = abandonment / 100
    if hours:
        if agents is None:
            fail("with --hours say how many: --agents.", WRONG_USE)
        body["rota"] = [{"hours": span, "agents": agents} for span in hours]
    body = {name: value for name, value in body.items() if value is not None}
    found = run(url, login, lambda server: server.plan(campaign, body, _goes_on()))
    if found["state"] != "done":
        fail(found["why"] or found["state"])
    answer = found["answer"]
    if json:
        show_json(found)
    else:
        _lines([*answer["says"], "", "From:", *(f"  {line}" for line in answer["basis"])])
        if not answer["complete"]:
            _lines(["  there was no time for all of it: say --for 60"])
    if answer["holds"] is False:
        raise typer.Exit(FAILED)


# ------------------------------------------------------------------------------------------------ in and out


def _settings(given: list[str] | None) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            fail(f"{text!r}: write it as NAME=VALUE.", WRONG_USE)
        try:
            found[name] = None if value == "" else msgspec.json.decode(value)
        except msgspec.DecodeError:
            found[name] = value
        if name == "name":
            found[name] = value
    return found


def _goes_on() -> Callable[[str], None]:
    """Says on a terminal what is being done, and for how many seconds; "" takes it away."""
    began, shown = monotonic(), sys.stderr.isatty()

    def tell(doing: str) -> None:
        what = {"counting": "counting the contacts", "reckoning": "playing the pace"}.get(doing, doing)
        if shown:
            sys.stderr.write(f"\r\x1b[K{what} ... {monotonic() - began:.0f} s" if doing else "\r\x1b[K")
            sys.stderr.flush()

    return tell


def _next(campaign: dict[str, Any], zone: str | None = None) -> str:
    """What its schedule does next, and when in this zone, or the terminal's; "" if nothing."""
    from datetime import datetime
    from zoneinfo import ZoneInfo

    if not campaign["next_step"]:
        return ""
    at = datetime.fromisoformat(campaign["next_at"]).astimezone(ZoneInfo(zone) if zone else None)
    return f"{campaign['next_step']} {at:%a %d %b %H:%M} {'' if zone else at.tzname()}".rstrip()


def _done(told: Any, json: bool, says: str) -> None:
    if json:
        show_json(told)
    else:
        _lines([says])


def _lines(lines: list[str]) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
