"""A campaign in a terminal: how it goes now, as a screen or a line for each look, and figures as a table."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Protocol

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cti.terminal_text import columns, plain
from cti.watch import LogInFailed
from dialer.law.abandoned import lost_share
from dialer.management.settings import USUALLY

Frame = dict[str, Any]
STAGES = ("committed", "dialed", "ringing", "answered", "connected")


class Asks(Protocol):
    """Of a server, as much as is needed here (`dialer.management.client.Campaigns`)."""

    async def find(self, which: str) -> Frame:
        """A campaign by name or id."""

    async def ask(self, method: str, path: str) -> Any:
        """One request."""


async def follow(server: Any, which: str, *, every: float, seconds: float | None, as_json: bool) -> None:
    """Shows how a campaign goes, again and again, until the time is over or the task is cancelled. While the server is away
    it says so and waits."""
    view = await server.find(which)
    until = None if seconds is None else monotonic() + seconds
    out = Console(highlight=False)
    path = f"/campaigns/{view['id']}/now"
    first = await server.ask("GET", path)
    if as_json or not out.is_terminal:
        now = first
        while True:
            told = msgspec.json.encode(now).decode() if as_json else line(view["name"], now)
            sys.stdout.write(told + "\n")
            sys.stdout.flush()
            if until is not None and monotonic() + every > until:
                return
            await asyncio.sleep(every)
            now = await _patiently(server, path, every, lambda why: sys.stderr.write(f"{why}\n"))
    labels = {one["code"]: one["label"] for one in view["wrap_up"]["dispositions"]}
    with Live(screen(view["name"], first, labels), console=out, auto_refresh=False) as live:
        while until is None or monotonic() + every <= until:
            await asyncio.sleep(every)
            now = await _patiently(
                server, path, every, lambda why: live.update(Text(why, "bold white on red"), refresh=True)
            )
            live.update(screen(view["name"], now, labels), refresh=True)


async def _patiently(server: Any, path: str, every: float, tell: Callable[[str], object]) -> Frame:
    while True:
        try:
            return dict(await server.ask("GET", path))
        except LogInFailed as away:
            if away.wrong:
                raise
            tell(f"{away} It is asked again.")
            await asyncio.sleep(every)


def line(name: str, now: Frame) -> str:
    """One look in one line."""
    agents, calls = _counted(now["agents"]), _counted(now["calls"])
    return (
        f"{now['at'][11:19]} {plain(name, 60)} {now['state']}: agents {agents or 'none'}; calls {calls or 'none'}; "
        f"today {told(now['today'])}; {plain(now['budget'])}; {plain(now['why'])}"
    )


def screen(name: str, now: Frame, labels: Mapping[str, str]) -> Group:
    """One look as a screen. `labels`: what dispositions are called."""
    contacts = now["contacts"]
    total = sum(count for state, count in contacts.items() if state != "untried")
    left, untried = contacts.get("open", 0) + contacts.get("in_hand", 0), contacts.get("untried", 0)
    through = f"{1 - left / total:.0%} through, {1 - untried / total:.0%} called" if total else "no contacts"
    colour = {"running": "green", "draining": "yellow", "paused": "yellow"}.get(now["state"], "dim")
    rows = [
        ("agents", _counted(now["agents"]) or "nobody is logged on"),
        ("calls", "  ".join(f"{stage} {now['calls'].get(stage, 0)}" for stage in STAGES)),
        ("lines", f"{now['lines']} taken" + (f"; {_words(now['trunks'])}" if now["trunks"] else "")),
        ("30 minutes", told(now["last_half_hour"])),
        ("today", told(now["today"])),
        ("said", said(now["dispositions"], now["converted"], labels) or "no disposition yet"),
        ("budget", plain(now["budget"])),
        ("pace", f"{now['pace']} calls asked for in a minute; {plain(now['why'])}"),
        ("list", f"{through}; {_counted(contacts)}" if total else through),
    ]
    head = Text.assemble((plain(name, 60), "bold"), "  ", (now["state"], colour), f"  {now['at'][11:19]} UTC")
    body = Table.grid(padding=(0, 1))
    for title, text in rows:
        body.add_row(Text(title, "dim"), Text(text))
    return Group(head, body)


def told(sums: Frame) -> str:
    """Sums in words."""
    over = max(sums["attempts"] - sums["in_flight"], sums["answered"])
    rate = f"{sums['answered'] / over:.0%} answered" if over else "none over yet"
    share = lost_share(sums["live"], sums["abandoned"], sums["amd_errors"])
    lost = "nobody" if share is None else f"{share:.1%}"
    parts = [f"{sums['late']} of them late"] * (sums["late"] > 0)
    parts += [f"{sums['amd_errors']:g} more taken for machines"] * (sums["amd_errors"] > 0)
    return (
        f"{sums['attempts']} calls, {rate}, {sums['connected']} talked, {sums['abandoned']} abandoned"
        f" ({', '.join([f'{lost} of those who answered', *parts])}), {sums['conversions']} converted"
    )


def said(dispositions: Mapping[str, int], converted: Mapping[str, int], labels: Mapping[str, str]) -> str:
    """What agents said of calls, those that count as a success first."""
    order = sorted(dispositions, key=lambda code: (code not in converted, -dispositions[code], code))
    words = [f"{dispositions[code]} {plain(labels.get(code, code), 64)}" for code in order]
    won = sum(code in converted for code in order)
    parts = [f"converted {', '.join(words[:won])}"] * (won > 0) + [", ".join(words[won:])] * (
        won < len(words)
    )
    return "; ".join(parts)


def wrap_up_told(rule: Frame) -> list[str]:
    """What follows a talk, in a line."""
    parts = [f"{rule['seconds']:g} s" if rule["seconds"] else "none"]
    if rule["extension"] is not None:
        parts.append(
            f"an agent may add {rule['extension']:g} s" if rule["extension"] else "not made longer by agents"
        )
    parts.append("ends only with a disposition" if rule["mandatory"] else "a disposition may be given")
    parts.append(f"then {'ready' if rule['then_ready'] else 'not ready'}")
    return [f"wrap-up: {', '.join(parts)}"]


def dispositions_told(found: Frame) -> list[str]:
    """With which dispositions a campaign's calls end, and what becomes of the contact."""
    own, company = found["settings"]["dispositions"], found["settings"]["company"]
    if not own:
        words = ", ".join(
            f"{one['code']} ({one['label']})" for one in found["view"]["wrap_up"]["dispositions"]
        )
        return [f"dispositions: {words or 'any text'}, as for the calls of its queue"]
    rows = [["disposition", "label", "category", "the contact"]]
    for one in own:
        then, minutes = USUALLY[one["category"]]
        match one["then"] or then:
            case "again":
                does = f"called again after {_span(one['again_after_minutes'] or minutes)}"
            case "do_not_call":
                where = one["do_not_call"] or ("company" if company else "everywhere")
                does = f"not called any more: {where}" + (f" ({company})" if where == "company" else "")
            case _:
                does = "done"
        rows.append([one["code"], one["label"], one["category"].replace("_", " "), does])
    return columns(rows)


def _span(minutes: int) -> str:
    for unit, size in (("days", 1440), ("hours", 60)):
        if minutes % size == 0:
            return f"{minutes // size} {unit if minutes != size else unit[:-1]}"
    return f"{minutes} minutes"


COUNTS = {"outcomes": "outcomes", "said": "dispositions"}
"""What a table may count in columns of its own → the field of the figures."""


def table(rows: Sequence[Frame], by: str = "total", counts: str = "") -> list[str]:
    """Figures in columns; with `counts`, how often each outcome was (`outcomes`), or each disposition (`said`)."""
    if not rows:
        return []
    if counts:
        return _counts(rows, by, COUNTS[counts])
    head = [
        "campaign",
        "" if by == "total" else by,
        "calls",
        "answered",
        "talked",
        "abandoned",
        "late",
        "nobody",
    ]
    shown = [[*head, "of live", "converted", "of talked", "talk s", "wait s"]]
    for row in rows:
        sums = row["sums"]
        shown.append(
            [
                *(row["name"], row["title"], str(sums["attempts"]), _share(row["answer_rate"])),
                *(str(sums[name]) for name in ("connected", "abandoned", "late", "nobody")),
                *(_share(row["abandonment"], 1), str(sums["conversions"]), _share(row["conversion"])),
                *("-" if row[name] is None else f"{row[name]:.1f}" for name in ("mean_talk", "mean_wait")),
            ]
        )
    told = [
        f"{plain(row['name'], 60)}: {words}"
        for row in rows
        if by == "total" and (words := said(row["dispositions"], row["converted"], row["labels"]))
    ]
    return [*columns(shown, numbers_from=2), *told]


def _counts(rows: Sequence[Frame], by: str, field: str) -> list[str]:
    often: dict[str, int] = {}
    labels: dict[str, str] = {}
    for row in rows:
        labels |= row["labels"] if field == "dispositions" else {}
        for name, count in row[field].items():
            often[name] = often.get(name, 0) + count
    names = sorted(often, key=lambda name: (-often[name], name))
    shown = [["campaign", "" if by == "total" else by, "calls", *(labels.get(name, name) for name in names)]]
    shown += [
        [
            *(row["name"], row["title"], str(row["sums"]["attempts"])),
            *(str(row[field].get(name, 0)) for name in names),
        ]
        for row in rows
    ]
    return columns(shown, numbers_from=2)


def detection_told(found: Frame) -> list[str]:
    """How detection of answering machines did."""
    if not found["looked_at"]:
        return [
            f"{plain(found['name'], 60)}: of {found['answered']} answered calls detection decided on none."
        ]
    rows = [["verdict", "cause", "calls", "share", "half within s", "95 % within s"]]
    rows += [
        [
            *(one["verdict"], plain(one["cause"], 40) or "-", str(one["calls"]), _share(one["share"], 1)),
            *("-" if one[name] is None else f"{one[name]:.1f}" for name in ("p50_s", "p95_s")),
        ]
        for one in found["verdicts"]
    ]
    took = "" if found["p50_s"] is None else f", half of them within {found['p50_s']:.1f} s"
    return [
        f"{plain(found['name'], 60)}: detection decided on {found['looked_at']} of {found['answered']} answered calls{took}",
        *columns(rows),
        f"of those taken for people {found['talked']} talked, {found['hung_up']} hung up before an agent was due",
        f"messages for machines: {_counted(found['messages']) or 'none'}",
    ]


def _share(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}%}"


def _counted(counts: Frame) -> str:
    return ", ".join(
        f"{count} {plain(name, 40).replace('_', ' ')}" for name, count in counts.items() if count
    )


def _words(told: Frame) -> str:
    return ", ".join(f"{plain(name, 40)} {plain(says, 80)}" for name, says in told.items())
