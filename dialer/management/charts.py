"""Campaigns' figures as a picture: bars of attempts, with what was answered, reached and abandoned of them; an SVG that
needs nothing from anywhere else. The same rows as in JSON and CSV; of several campaigns those of one key side by side."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from dialer.management.figures import By, CampaignFigures

MOST_BARS = 60
COLOURS = {"attempts": "#c7cdd6", "answered": "#6f8fc9", "connected": "#2f9e6e", "abandoned": "#c0392b"}
LEFT, WIDE, BAR, GAP = 230, 380, 18, 10


def chart(rows: Sequence[CampaignFigures], by: By) -> str:
    """Returns the picture; of many rows the last 60, and how many are left out."""
    several = len({row.campaign for row in rows}) > 1
    shown = sorted(rows, key=lambda row: row.key)[-MOST_BARS:]
    left_out = len(rows) - len(shown)
    most = max((row.sums.attempts for row in shown), default=0) or 1
    parts, y = [_legend()], 62
    for row in shown:
        name = f"{row.name}: {row.title}" if several else row.title
        sums = row.sums
        parts.append(
            f"<g><title>{escape(_told(row))}</title>"
            f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(name[:34])}</text>'
        )
        for what, inset in (("attempts", 0), ("answered", 3), ("connected", 6)):
            wide = getattr(sums, what) / most * WIDE
            parts.append(
                f'<rect x="{LEFT}" y="{y + inset}" width="{wide:.1f}" height="{BAR - 2 * inset}" fill="{COLOURS[what]}"/>'
            )
        lost = sums.abandoned / most * WIDE
        start = LEFT + sums.connected / most * WIDE
        parts.append(
            f'<rect x="{start:.1f}" y="{y + 6}" width="{lost:.1f}" height="{BAR - 12}" fill="{COLOURS["abandoned"]}"/>'
            f'<text x="{LEFT + sums.attempts / most * WIDE + 6:.1f}" y="{y + 13}">{escape(_short(row))}</text></g>'
        )
        y += BAR + GAP
    if left_out:
        told = f"{left_out} rows before these are left out: ask for a shorter time, or for CSV"
        parts.append(f'<text x="{LEFT}" y="{y + 13}">{told}</text>')
        y += BAR + GAP
    if not shown:
        parts.append(f'<text x="{LEFT}" y="{y + 13}">nothing in that time</text>')
        y += BAR + GAP
    title = f"Calls by {by.value}" if by is not By.TOTAL else "Calls"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {y + 10}" role="img" font-family="sans-serif"'
        ' font-size="11">'
        f'<rect width="860" height="{y + 10}" fill="#fff"/><text x="10" y="22" font-size="15">{title}</text>'
        f"{''.join(parts)}</svg>\n"
    )


def _legend() -> str:
    words = {
        "attempts": "calls placed",
        "answered": "answered",
        "connected": "talked with an agent",
        "abandoned": "abandoned",
    }
    return "".join(
        f'<rect x="{10 + n * 150}" y="34" width="12" height="12" fill="{COLOURS[what]}"/>'
        f'<text x="{27 + n * 150}" y="44">{word}</text>'
        for n, (what, word) in enumerate(words.items())
    )


def _short(row: CampaignFigures) -> str:
    rate = "-" if row.answer_rate is None else f"{row.answer_rate:.0%}"
    lost = "-" if row.abandonment is None else f"{row.abandonment:.1%}"
    return f"{row.sums.attempts} calls, {rate} answered, {lost} abandoned"


def _told(row: CampaignFigures) -> str:
    sums = row.sums
    return (
        f"{row.name}, {row.title}: {sums.attempts} calls, {sums.answered} answered, {sums.connected} talked with an agent, "
        f"{sums.abandoned} abandoned, {sums.conversions} converted"
    )
