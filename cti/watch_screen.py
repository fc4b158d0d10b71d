"""What `cti watch` shows: a picture of now, drawn into so many columns and rows. Pure; every text from outside is cleaned.

Most urgent first everywhere, so that what does not fit is what matters least; how much is left out is said.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rich.cells import cell_len
from rich.text import Text

from cti.client import Frame, Picture
from cti.terminal_text import fit, padded, plain

WIDE = 132
"""Columns from which on calls and pops stand beside queues and agents."""

SMALLEST = (40, 8)

STATES: dict[str, tuple[str, str, int]] = {
    "unknown": ("unknown", "bold red", 0),
    "reserved": ("ringing", "bold yellow", 1),
    "busy": ("talking", "cyan", 2),
    "wrap_up": ("wrap-up", "magenta", 3),
    "not_ready": ("not ready", "yellow", 4),
    "ready": ("ready", "green", 5),
    "logged_off": ("logged off", "dim", 6),
}
"""Agent state → word, style, place in the list."""

POP_STATES: dict[str, tuple[str, str, int]] = {
    "offered": ("rings", "bold yellow", 0),
    "talking": ("talks", "cyan", 1),
    "ended": ("over", "dim", 2),
}

WORK_STATES: dict[str, tuple[str, str, int]] = {
    "offered": ("asks", "bold yellow", 0),
    "accepted": ("is done", "cyan", 1),
    "waiting": ("waits", "", 2),
}

CAMPAIGN_STATES: dict[str, tuple[str, int]] = {
    "running": ("green", 0),
    "draining": ("yellow", 1),
    "paused": ("yellow", 2),
}
"""Those that are shown; drafts and stopped ones are for `cti campaigns`."""

LINK_STYLES = {
    "up": "green",
    "late": "bold yellow",
    "connecting": "yellow",
    "down": "bold red",
    "stopped": "bold red",
}
MOST_WORDS = 4
"""Lines for what may be said of a call."""

SEVERITIES = {"critical": "bold red", "warning": "yellow", "info": ""}
URGENT_WAIT = 60.0
LONG_WAIT = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Who looks, and how the line to the server is. `now`: the server's time. `away`: seconds without a connection."""

    now: datetime
    name: str = ""
    role: str = ""
    url: str = ""
    connected: bool = True
    away: float = 0.0
    ever: bool = True


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. `grow`: its share of spare width. `from_width`: shown in tables at least this wide."""

    head: str
    width: int
    grow: int = 0
    right: bool = False
    from_width: int = 0


Cell = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table; `rows` are whole, most urgent first. `least`: rows it gets before others get more. `details`: one more
    line for each row, shown where there is room for all.
    """

    title: str
    columns: tuple[Column, ...]
    rows: Sequence[Sequence[Cell]]
    empty: str
    least: int = 2
    details: Sequence[Cell] = ()


def clock(seconds: float) -> str:
    """Seconds as m:ss, or h:mm:ss from an hour on; never negative."""
    whole = max(0, int(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def age(since: str | None, now: datetime) -> float:
    """Seconds from a time as the wire has it until now; 0 when there is none."""
    if not since:
        return 0.0
    try:
        return max(0.0, (now - datetime.fromisoformat(since)).total_seconds())
    except ValueError:
        return 0.0


def screen(picture: Picture, seat: Seat, width: int, height: int, top: Sequence[Text] = ()) -> Text:
    """Draws the picture into exactly `height` lines of at most `width` cells, under the lines `top`."""
    if width < SMALLEST[0] or height < SMALLEST[1]:
        return Text(fit(f"window too small: {SMALLEST[0]}x{SMALLEST[1]} at least", max(1, width)))
    # without a connection times stand still with everything else
    then = seat.now if seat.connected else seat.now - timedelta(seconds=seat.away)
    head = [*(_cut(line.copy(), width) for line in top), *header(picture, seat, width)]
    room = height - len(head)
    mine = [_pop_card(picture, then, width)] if seat.role == "agent" else []
    card = mine[0][: max(3, room // 2)] if mine else []
    room -= len(card)
    people, queues = agents_table(picture, then), queues_table(picture, then)
    pops, calls = pops_table(picture, then), calls_table(picture, then)
    work = [work_table(picture, then)] if picture.work else []
    dialed = campaigns_table(picture, then)
    campaigns = [dialed] if dialed.rows else []
    if seat.role == "agent":
        body = stack([calls, *work, queues, people], width, room)
    elif width >= WIDE:
        left = max(72, (width - 3) * 11 // 20)
        right = width - 3 - left
        body = beside(
            stack([pops, calls, *work], left, room), stack([*campaigns, queues, people], right, room), left
        )
    else:
        body = stack([pops, *campaigns, queues, calls, *work, people], width, room)
    lines = [*head, *card, *body][:height]
    lines += [Text()] * (height - len(lines))
    if not seat.connected:
        for line in lines[len(head) :]:
            line.stylize("dim")
    return Text("\n", no_wrap=True, end="").join(lines)


def header(picture: Picture, seat: Seat, width: int) -> list[Text]:
    """One line on who looks and how the PBXs are; a second one where something is wrong."""
    line = Text(no_wrap=True)
    line.append(" cti ", "reverse bold")
    if seat.name:
        line.append(f" {plain(seat.name, 40)}")
    if seat.role:
        line.append(f" ({plain(seat.role, 20)})", "dim")
    troubles: list[Text] = []
    for pbx in sorted(picture.pbxs.values(), key=lambda one: str(one["id"])):
        phase = "late" if pbx["phase"] == "up" and pbx["code"] == "late" else str(pbx["phase"])
        style = LINK_STYLES.get(phase, "")
        line.append(f"  {plain(pbx['id'], 32)} ", "bold")
        line.append(f"● {plain(phase, 12)}", style)
        if phase != "up" and pbx["why"]:
            why = f" {plain(pbx['id'], 32)} {plain(phase, 12)} {clock(age(pbx['since'], seat.now))}: {plain(pbx['why'])}"
            troubles.append(Text(fit(why, width), "red", no_wrap=True))
    if picture.database is not None and not picture.database["up"]:
        away = f" database away {clock(age(picture.database['since'], seat.now))}: {plain(picture.database['why'])}"
        troubles.append(Text(fit(away, width), "red", no_wrap=True))
    time = seat.now.astimezone().strftime("%H:%M:%S")
    gap = width - cell_len(line.plain) - len(time)
    if gap > 0:
        line.append(" " * gap + time, "dim")
    if not seat.connected:
        state = f"NOT CONNECTED for {clock(seat.away)}" if seat.ever else f"connecting, {clock(seat.away)}"
        what = "trying again; below is what was last known" if seat.ever else "no answer yet"
        banner = f" {state} to {plain(seat.url, 60)} - {what} "
        troubles.insert(0, Text(padded(banner, width), "bold white on red", no_wrap=True))
    return [_cut(line, width), *troubles[:3], *attention(picture, seat.now, width)]


def attention(picture: Picture, now: datetime, width: int) -> list[Text]:
    """A line for each alarm and each request for help, those that nobody sees to first; three at most."""
    found: list[tuple[bool, str, str]] = []
    for alarm in picture.alarms.values():
        by = alarm["acknowledged_by"]
        about = next((str(alarm[name]) for name in ("agent", "queue", "team", "pbx") if alarm[name]), "")
        said = f" ALARM {clock(age(alarm['since'], now))} {plain(alarm['name'], 60)}: {plain(about, 60)}"
        found.append((by is not None, "bold red", said + (f", seen to by {plain(by, 40)}" if by else "")))
    for request in picture.help.values():
        by, who = request["taken_by"], agent_name(picture, request["agent"])
        said = f" HELP {clock(age(request['since'], now))} {plain(who, 40)}: {plain(request['text'] or '-', 200)}"
        found.append((by is not None, "bold yellow", said + (f", {plain(by, 40)} sees to it" if by else "")))
    found.sort(key=lambda one: one[0])
    return [Text(fit(said, width), "dim" if seen else style, no_wrap=True) for seen, style, said in found[:3]]


# --------------------------------------------------------------------------------------------------- tables


def queues_table(picture: Picture, now: datetime) -> Table:
    """Queues: the longest wait first."""
    found = []
    several = len({queue["pbx"] for queue in picture.queues.values()}) > 1
    for queue in picture.queues.values():
        waits = [age(caller["since"], now) for caller in queue["waiting"]]
        longest = max(waits, default=0.0)
        members = queue["members"]
        paused = sum(bool(member["paused"]) for member in members)
        free = sum(not member["paused"] and member["status"] == "not_in_use" for member in members)
        busy = sum(not member["paused"] and member["status"] in BUSY_PHONES for member in members)
        style = _wait_style(longest) if waits else ""
        row = [
            (plain(queue["id"] if several else queue["name"], 80), "bold" if waits else ""),
            (str(len(waits)) if waits else "-", style),
            (clock(longest) if waits else "-", style),
            (str(free), "green" if free else ("bold red" if waits and not busy else "dim")),
            (str(busy), "cyan" if busy else "dim"),
            (str(paused), "yellow" if paused else "dim"),
        ]
        found.append((-longest if waits else 1.0, str(queue["name"]), row))
    found.sort(key=lambda one: one[:2])
    columns = (
        Column("", 12, grow=1),
        Column("waiting", 7, right=True),
        Column("longest", 7, right=True),
        Column("free", 4, right=True),
        Column("busy", 4, right=True),
        Column("paused", 6, right=True),
    )
    return Table("QUEUES", columns, [row for *_, row in found], "no queue that you may see")


BUSY_PHONES = frozenset({"in_use", "busy", "ringing", "ring_in_use", "on_hold"})


def agents_table(picture: Picture, now: datetime) -> Table:
    """Agents: who may need help first, the logged off last."""
    found = []
    for agent in picture.agents.values():
        word, style, place = STATES.get(str(agent["state"]), (plain(agent["state"], 12), "", 0))
        since = age(agent["since"], now)
        call = picture.calls.get(agent["call"] or "")
        talk = ""
        if call is not None and agent["state"] == "busy":
            talk = clock(age(call["answered"] or agent["since"], now))
        detail, detail_style = plain(agent["reason"], 60), ""
        limit = picture.reasons.get(agent["reason"] or "", {}).get("limit")
        if agent["state"] == "not_ready" and limit is not None:
            over = since - limit * 60
            detail += f", {clock(over)} over" if over > 0 else f", {clock(-over)} left"
            detail_style = "red" if over > 0 else ""
        if agent["state"] == "wrap_up" and agent["until"]:
            detail = f"{clock(_left(agent['until'], now))} left"
        if call is not None:
            detail = caller(picture, call)[0]
        if agent["pending"]:
            detail = f"{detail}, then {plain(agent['pending'], 30)}".lstrip(", ")
        besides = picture.blending.get(agent["agent"], {}).get("may")
        if agent["state"] == "ready" and besides and not detail:
            detail, detail_style = f"also {', '.join(kind_of_work(kind) for kind in besides)}", "dim"
        if not agent["reachable"] and agent["state"] not in ("logged_off", "unknown"):
            detail, detail_style = f"phone not reachable {detail}".strip(), "red"
        off = agent["state"] == "logged_off"
        row = [
            (plain(agent["name"], 80) or plain(agent["agent"], 80), "dim" if off else ""),
            (plain(agent["team"], 40), "dim"),
            (word, style),
            ("" if off else clock(since), style),
            (talk, "cyan"),
            (detail, detail_style or ("dim" if off else "")),
        ]
        found.append((place, -since, str(agent["agent"]), row))
    found.sort(key=lambda one: one[:3])
    columns = (
        Column("", 12, grow=2),
        Column("team", 8, from_width=78),
        Column("state", 10),
        Column("since", 7, right=True),
        Column("talk", 7, right=True),
        Column("with, or why", 10, grow=3),
    )
    return Table("AGENTS", columns, [row for *_, row in found], "no agent that you may see")


def calls_table(picture: Picture, now: datetime) -> Table:
    """Calls: those who wait, the longest first; then what rings; then talks, the longest first."""
    found = []
    for call in picture.calls.values():
        state, style, rank, since = _call_state(call, now)
        name, name_style = caller(picture, call)
        agents = [part["agent"] for part in call["connections"] if part["agent"]]
        who = ", ".join(plain(agent_name(picture, login), 40) for login in dict.fromkeys(agents))
        row = [
            (state, style),
            (name, name_style),
            (number_of(picture, call), ""),
            (where_of(call), ""),
            (who or "-", "" if who else "dim"),
            (clock(since), style),
            (clock(age(call["started"], now)), "dim"),
        ]
        found.append((rank, -since, str(call["id"]), row))
    found.sort(key=lambda one: one[:3])
    columns = (
        Column("", 8),
        Column("caller", 12, grow=3),
        Column("number", 17),
        Column("queue", 9, from_width=64),
        Column("agent", 10, grow=2),
        Column("since", 7, right=True),
        Column("whole", 7, right=True, from_width=96),
    )
    return Table("CALLS", columns, [row for *_, row in found], "no call")


def kind_of_work(kind: object) -> str:
    """`call_back` as people say it."""
    return plain(kind, 20).replace("_", " ")


def work_table(picture: Picture, now: datetime) -> Table:
    """What is to be done besides calls: what somebody is asked to do first, then what is due first."""
    found = []
    for item in picture.work.values():
        word, style, place = WORK_STATES.get(str(item["state"]), (plain(item["state"], 8), "", 3))
        left = (datetime.fromisoformat(item["due"]) - now).total_seconds() if item["due"] else None
        due = "" if left is None else f"in {clock(left)}" if left > 0 else f"{clock(-left)} late"
        row = [
            (word, style),
            (kind_of_work(item["kind"]), ""),
            (plain(item["title"], 80), ""),
            (plain(agent_name(picture, item["agent"]), 40) if item["agent"] else "", ""),
            (due, "red" if left is not None and left <= 0 else ""),
            (clock(age(item["since"], now)), style),
        ]
        found.append((place, str(item["due"] or "later"), str(item["id"]), row))
    found.sort(key=lambda one: one[:3])
    columns = (
        Column("", 8),
        Column("kind", 9),
        Column("what", 14, grow=3),
        Column("agent", 9, grow=1),
        Column("due", 11, right=True, from_width=70),
        Column("since", 7, right=True),
    )
    return Table("OTHER WORK", columns, [row for *_, row in found], "none")


def campaigns_table(picture: Picture, now: datetime) -> Table:
    """What is dialed: how many agents talk, how many calls are under way, what was reached and lost today, and the pace."""
    found = []
    for campaign in picture.campaigns.values():
        if campaign["state"] not in CAMPAIGN_STATES:
            continue
        style, place = CAMPAIGN_STATES[campaign["state"]]
        goes = picture.campaigns_now.get(campaign["id"])
        figures = ["", "", "", ""]
        if goes is not None:
            today = goes["today"]
            figures = [
                f"{goes['agents'].get('busy', 0)}/{sum(goes['agents'].values())}",
                str(goes["lines"]),
                f"{today['connected']:,}/{today['attempts']:,}",
                f"{goes['lost']:g}, {goes['may_be_lost']} left",
            ]
        over = goes is not None and goes["may_be_lost"] <= 0
        row = [
            (plain(campaign["state"], 10), style),
            (plain(campaign["name"], 80), "bold"),
            (figures[0], "cyan"),
            (figures[1], ""),
            (figures[2], ""),
            (figures[3], "bold red" if over else ""),
            (clock(age(campaign["since"], now)), ""),
        ]
        found.append((place, -int(campaign["priority"]), str(campaign["name"]), row))
    found.sort(key=lambda one: one[:3])
    columns = (
        Column("", 8),
        Column("campaign", 10, grow=2),
        Column("talk", 5, right=True),
        Column("lines", 5, right=True),
        Column("reached", 9, right=True, from_width=60),
        Column("lost", 9, right=True),
        Column("since", 7, right=True, from_width=70),
    )
    return Table("CAMPAIGNS", columns, [row for *_, row in found], "none")


def pops_table(picture: Picture, now: datetime) -> Table:
    """Screen pops: those that ring first, the newest at the top."""
    found = []
    for pop in picture.pops.values():
        word, style, place = POP_STATES.get(str(pop["state"]), (plain(pop["state"], 8), "", 0))
        likeliest = (pop["candidates"] or [None])[0]
        name, name_style = pop_name(pop)
        more = len(pop["candidates"]) - 1
        if more > 0:
            name = f"{name} (+{more} others)" if more > 1 else f"{name} (+1 other)"
        account = likeliest["account"] if likeliest else {}
        items = likeliest["open_items"] if likeliest else []
        waited = age(pop["started"], now) if pop["waiting_since"] else float(pop["waited"])
        row = [
            (word, style),
            (plain(agent_name(picture, pop["agent"]), 40), "bold" if pop["state"] == "offered" else ""),
            (name, name_style or ("bold" if pop["state"] == "offered" else "")),
            (plain(account.get("classification", ""), 10), "bold" if account else ""),
            (number_in(pop) or "-", ""),
            (where_of(pop), ""),
            (f"{len(items)}" if items else "-", "yellow" if items else "dim"),
            (clock(waited), _wait_style(waited)),
        ]
        found.append((place, -_seconds(pop["shown"]), str(pop["id"]), row, _pop_detail(pop)))
    found.sort(key=lambda one: one[:3])
    columns = (
        Column("", 5),
        Column("agent", 9, grow=1),
        Column("customer", 14, grow=3),
        Column("class", 5),
        Column("number", 17),
        Column("queue", 8, from_width=70),
        Column("open", 4, right=True),
        Column("wait", 5, right=True),
    )
    rows, details = [one[3] for one in found], [one[4] for one in found]
    return Table("SCREEN POPS", columns, rows, "none at the moment", least=3, details=details)


def _pop_detail(pop: Frame) -> Cell:
    """What an agent reads next in a pop: the gravest alert, what is open, who speaks, the last note."""
    if not pop["candidates"]:
        return "", ""
    likeliest = pop["candidates"][0]
    alerts = sorted(likeliest["alerts"], key=lambda alert: list(SEVERITIES).index(alert["severity"]))
    parts = [f"! {plain(alert['text'], 80)}" for alert in alerts[:1]]
    parts += [f"open: {plain(item['subject'], 60)}" for item in likeliest["open_items"][:1]]
    if likeliest["contact"]:
        parts.append(plain(likeliest["contact"]["name"], 60))
    parts += [f"last: {plain(talk['note'], 80)}" for talk in likeliest["interactions"][:1] if talk["note"]]
    style = SEVERITIES[alerts[0]["severity"]] if alerts else ""
    return " · ".join(parts) or plain(likeliest["account"]["city"], 60), style or "dim"


def _pop_card(picture: Picture, now: datetime, width: int) -> list[Text]:
    """The agent's own pop in full: who rings, since when, what is open, what was last said."""
    mine = [pop for pop in picture.pops.values() if pop["agent"] == picture.me]
    me = picture.agents.get(picture.me)
    word, style, _ = STATES.get(str(me["state"]) if me else "", ("", "", 0))
    title = Text(no_wrap=True)
    title.append("YOU ", "bold")
    if me:
        title.append(word, style)
        title.append(f" {clock(age(me['since'], now))}", style)
        if me["reason"]:
            title.append(f"  {plain(me['reason'], 60)}")
        if me["state"] == "wrap_up" and me["until"]:
            title.append(f"  {clock(_left(me['until'], now))} left")
        if me["pending"]:
            title.append(f"  then {plain(me['pending'], 40)}", "dim")
    if not mine:
        return [_cut(title, width), Text("no call for you at the moment", "dim"), Text()]
    mine.sort(key=lambda pop: (POP_STATES.get(str(pop["state"]), ("", "", 9))[2], -_seconds(pop["shown"])))
    pop = mine[0]
    likeliest = (pop["candidates"] or [None])[0]
    name, name_style = pop_name(pop)
    state, state_style, _ = POP_STATES.get(str(pop["state"]), ("", "", 0))
    waited = age(pop["started"], now) if pop["waiting_since"] else float(pop["waited"])
    dialed = is_dialed(pop)
    who = Text(no_wrap=True)
    who.append(f"▌ {state.upper()}  ", state_style)
    who.append(name, f"bold {name_style}".strip())
    if likeliest:
        account = likeliest["account"]
        told = [
            f"class {plain(account['classification'], 10)}",
            plain(account["city"], 40),
            plain(account["number"], 24),
        ]
        who.append("  " + " · ".join(part for part in told if part))
    lines = [_cut(title, width), _cut(who, width)]
    if me and me["state"] == "wrap_up" and pop["state"] == "ended":
        lines += _how_it_ended(picture.wrap_up_of(pop), width, owed=me["pending"] == "disposition")
    facts = [
        number_in(pop),
        f"queue {where_of(pop)}" if pop["queue"] else "",
        f"campaign {where_of(pop)}" if dialed else "",
        f"list {plain(pop['data'].get('list'), 40)}" if dialed else "",
        f"waited {clock(waited)}" if not dialed else "",
        f"dialled {plain(pop['dnis'], 30)}" if pop["dnis"] and not dialed else "",
        f"from {plain(agent_name(picture, pop['transferred_by'] or pop['consulted_by']), 40)}"
        if pop["transferred_by"] or pop["consulted_by"]
        else "",
    ]
    lines.append(_cut(Text("▌ " + " · ".join(part for part in facts if part)), width))
    if dialed and pop["data"].get("script"):
        say = textwrap.wrap(
            plain(pop["data"]["script"], 512), max(20, width - 4), max_lines=4, placeholder=" ..."
        )
        lines += [_cut(Text(f"▌ {line}", "bold"), width) for line in say]
    if likeliest:
        lines += [
            _cut(Text(f"▌ {plain(alert['text'], 200)}", SEVERITIES.get(alert["severity"], "")), width)
            for alert in likeliest["alerts"][:2]
        ]
        if likeliest["contact"]:
            contact = likeliest["contact"]
            lines.append(
                _cut(Text(f"▌ speaks: {plain(contact['name'], 60)}, {plain(contact['role'], 60)}"), width)
            )
        for item in likeliest["open_items"][:3]:
            due = f", due {plain(item['due'], 12)}" if item["due"] else ""
            text = f"▌ open: {plain(item['kind'], 20)} {plain(item['reference'], 30)} {plain(item['subject'], 80)}{due}"
            lines.append(_cut(Text(text, "yellow"), width))
        for talk in likeliest["interactions"][:2]:
            note = plain(talk["note"], 200) or plain(talk["outcome"], 40)
            lines.append(_cut(Text(f"▌ {str(talk['started'])[:10]}: {note}", "dim"), width))
    for other in pop["candidates"][1:3]:
        lines.append(_cut(Text(f"▌ or: {plain(other['account']['name'], 80)}", "dim"), width))
    shown = OF_A_CONTACT if dialed else frozenset()
    collected = [
        pair for pair in pop["data"].items() if not pair[0].startswith("CTI_") and pair[0] not in shown
    ]
    for key, value in collected[:2]:
        lines.append(_cut(Text(f"▌ {plain(key, 40)}: {plain(value, 80)}", "dim"), width))
    return [*lines, Text()]


def _how_it_ended(rule: Frame | None, width: int, *, owed: bool) -> list[Text]:
    """What the agent may say of the call, each with its code; whether they must."""
    if rule is None or not (rule["dispositions"] or rule["mandatory"] or owed):
        return []
    must = owed or rule["mandatory"]
    words = [f"{plain(one['label'], 40)} [{plain(one['code'], 40)}]" for one in rule["dispositions"]]
    said = " · ".join(words) or "in any words"
    text = f"how did it end{', must be said' if must else ''}: {said}"
    rows = textwrap.wrap(text, max(20, width - 4), max_lines=MOST_WORDS, placeholder=" ...")
    return [_cut(Text(f"▌ {row}", "bold yellow" if must else "yellow"), width) for row in rows]


# ---------------------------------------------------------------------------------------------- who and what


def pop_name(pop: Frame) -> tuple[str, str]:
    """The customer of a pop as text and style: the likeliest account, the contact of a list, or why there is none."""
    if pop["candidates"]:
        return plain(pop["candidates"][0]["account"]["name"], 80), ""
    if is_dialed(pop) and pop["data"].get("name"):
        return plain(pop["data"]["name"], 80), ""
    if pop["withheld"]:
        return "number withheld", "italic"
    if pop["lookup"] == "pending":
        return plain(pop["name"], 80) or "looking up ...", "dim"
    said = plain(pop["name"], 80)
    if pop["lookup"] == "unavailable":
        return f"no customer data {said}".strip(), "red"
    return (f"unknown, says {said}" if said else "unknown caller"), "italic"


def caller(picture: Picture, call: Frame) -> tuple[str, str]:
    """Who calls, as text and style: the customer of the pop, else the name that the switch has."""
    for pop in picture.pops.values():
        if pop["call"] == call["id"]:
            return pop_name(pop)
    if call["direction"] == "internal":
        names = [plain(part["name"] or part["agent"] or part["device"], 30) for part in call["connections"]]
        return " - ".join(names[:2]) or "internal", "dim"
    if is_dialed(call):
        return plain(call["data"].get("name"), 80) or "contact", ""
    return plain(call["ani_name"], 80) or ("unknown caller" if call["ani"] else "number withheld"), "italic"


OF_A_CONTACT = frozenset(
    {"campaign", "campaign_id", "list", "contact", "attempt", "name", "language", "script", "account_id"}
)
"""What the data of a campaign's call says of its contact; beside it are the list's own columns."""


def is_dialed(of: Frame) -> bool:
    """Whether a call, or a pop's call, is a campaign's."""
    return "attempt" in of["data"] and "campaign" in of["data"]


def where_of(of: Frame) -> str:
    """The queue of a call or pop without its PBX, or the campaign that called."""
    queue = str(of["queue"] or "")
    if not queue and is_dialed(of):
        return plain(of["data"]["campaign"], 40)
    return plain(queue.partition(":")[2] or queue, 40)


def number_of(picture: Picture, call: Frame) -> str:
    """The caller's number, as the pop formats it if there is one."""
    for pop in picture.pops.values():
        if pop["call"] == call["id"]:
            return number_in(pop) or "-"
    other = call["dnis"] if call["direction"] == "outbound" else call["ani"]
    return plain(other, 24) or "-"


def number_in(pop: Frame) -> str:
    """The number of a pop as people write it; "" when it is withheld."""
    return "" if pop["withheld"] else plain(pop["formatted"] or pop["number"], 24)


def _call_state(call: Frame, now: datetime) -> tuple[str, str, int, float]:
    """A call's state in a word, its style, its place in the list, seconds in it."""
    parts = call["connections"]
    with_agent = [part for part in parts if part["agent"]]
    if call["parked_at"]:
        return "parked", "yellow", 1, max((age(part["since"], now) for part in parts), default=0.0)
    ringing = [part for part in parts if part["state"] == "alerting"]
    if call["queued_since"] and not call["answered"]:
        waited = age(call["queued_since"], now)
        return ("rings" if ringing else "waits"), _wait_style(waited) or "yellow", 0, waited
    if any(part["state"] == "hold" for part in parts):
        return (
            "on hold",
            "magenta",
            2,
            max(age(part["since"], now) for part in parts if part["state"] == "hold"),
        )
    if call["answered"]:
        word = "meeting" if call["conference"] else "talks"
        return word, "cyan", 4, age(call["answered"], now)
    if ringing:
        return "rings", "bold yellow", 1, max(age(part["since"], now) for part in ringing)
    return ("dials" if with_agent else "arrives"), "", 3, age(call["started"], now)


def agent_name(picture: Picture, login: str | None) -> str:
    """An agent by name; by login where the picture has none of theirs."""
    agent = picture.agents.get(login or "")
    return str(agent["name"] or login) if agent else str(login or "")


def _wait_style(seconds: float) -> str:
    return "bold red" if seconds >= URGENT_WAIT else "yellow" if seconds >= LONG_WAIT else ""


def _left(until: str, now: datetime) -> float:
    try:
        return max(0.0, (datetime.fromisoformat(until) - now).total_seconds())
    except ValueError:
        return 0.0


def _seconds(moment: str) -> float:
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return 0.0


# -------------------------------------------------------------------------------------------------- drawing


def stack(tables: Sequence[Table], width: int, height: int) -> list[Text]:
    """The tables one under the other in exactly `height` lines; each gets its title, and rows as far as they go round."""
    shown = list(tables)
    while len(shown) > 1 and height < sum(1 + min(one.least, max(1, len(one.rows))) for one in shown):
        shown.pop()  # the last matters least
    shares = share(
        height - len(shown),
        [max(1, len(one.rows)) for one in shown],
        [min(one.least, max(1, len(one.rows))) for one in shown],
    )
    spare = height - len(shown) - sum(shares)
    lines: list[Text] = []
    for table, rows in zip(shown, shares, strict=True):
        detailed = bool(table.details) and rows >= len(table.rows) and spare >= len(table.rows)
        spare -= len(table.rows) if detailed else 0
        lines += draw(table, width, rows, detailed=detailed)
    lines = lines[:height]
    return lines + [Text(no_wrap=True) for _ in range(height - len(lines))]


def share(room: int, wants: Sequence[int], least: Sequence[int]) -> list[int]:
    """Divides rows: each its least, then one each in turn until all wants or all the room is spent."""
    given = [min(want, few) for want, few in zip(wants, least, strict=True)]
    left = room - sum(given)
    while left > 0 and any(have < want for have, want in zip(given, wants, strict=True)):
        for place, want in enumerate(wants):
            if left > 0 and given[place] < want:
                given[place] += 1
                left -= 1
    return given


def draw(table: Table, width: int, rows: int, *, detailed: bool = False) -> list[Text]:
    """A title line with the columns' heads, then `rows` rows; the title says how many more there are."""
    columns = [column for column in table.columns if column.from_width <= width]
    kept = [place for place, column in enumerate(table.columns) if column.from_width <= width]
    widths = _widths(columns, width)
    count, more = len(table.rows), len(table.rows) - rows
    title = f"{table.title} {count}" if count else table.title
    if more > 0:
        title += f" (+{more} more)"
    heads = [_Head(column.head, column.right) for column in columns]
    lines = [_title(title, heads, widths, width)]
    if not count:
        return [*lines, Text(f"  {table.empty}", "dim", no_wrap=True)]
    for at, row in enumerate(table.rows[:rows]):
        line = Text(no_wrap=True)
        for number, (place, column, cells) in enumerate(zip(kept, columns, widths, strict=True)):
            text, style = row[place]
            if number:
                line.append(" ")
            line.append(padded(text, cells, right=column.right), style or None)
        lines.append(_cut(line, width))
        if detailed:
            text, style = table.details[at]
            lines.append(_cut(Text(f"      {text}", style, no_wrap=True), width))
    return lines


@dataclass(frozen=True, slots=True)
class _Head:
    text: str
    right: bool


def _title(title: str, heads: Sequence[_Head], widths: Sequence[int], width: int) -> Text:
    """The title over the first columns, and the heads of the others where they are not under it."""
    cells = [" "] * width
    at = 0
    for head, wide in zip(heads, widths, strict=True):
        text = head.text[:wide]
        start = at + wide - len(text) if head.right else at
        if start > len(title) + 1:
            for place, character in enumerate(text):
                if start + place < width:
                    cells[start + place] = character
        at += wide + 1
    line = Text(no_wrap=True)
    shown = fit(title, width)
    line.append(shown, "bold")
    line.append("".join(cells[len(shown) :]), "dim")
    line.stylize("underline")
    return line


def _widths(columns: Sequence[Column], width: int) -> list[int]:
    """Widths that fill the line: the columns' own, and spare cells by their shares; too many are taken from the widest."""
    widths = [column.width for column in columns]
    spare = width - sum(widths) - (len(columns) - 1)
    growing = [place for place, column in enumerate(columns) if column.grow]
    parts = sum(columns[place].grow for place in growing)
    if spare > 0 and parts:
        for place in growing:
            widths[place] += spare * columns[place].grow // parts
        widths[growing[0]] += width - sum(widths) - (len(columns) - 1)
    while spare < 0 and max(widths) > 3:
        widths[widths.index(max(widths))] -= 1
        spare += 1
    return widths


def beside(left: Sequence[Text], right: Sequence[Text], width: int) -> list[Text]:
    """Two columns of lines side by side with a bar between; the left one is `width` wide."""
    lines = []
    for one, other in zip(left, right, strict=True):
        line = one.copy()
        line.pad_right(width - cell_len(line.plain))
        line.append(" │ ", "dim")
        line.append_text(other)
        lines.append(line)
    return lines


def _cut(line: Text, width: int) -> Text:
    if cell_len(line.plain) > width:
        line.truncate(width, overflow="ellipsis")
    return line
