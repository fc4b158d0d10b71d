"""What must be on record before a campaign can call anybody by its profile: editions of registers, and consents at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING

from dialer.law.profiles import Profile

if TYPE_CHECKING:
    from cti.database import Queryable

SOON = timedelta(days=3)
"""So long before an edition becomes too old it is said."""


async def lacking(
    db: Queryable, profile: Profile, mode: str, purpose: str, today: date
) -> list[tuple[str, str]]:
    """Returns what is not on record, or soon not any more: a code and what to do, each."""
    rows = await db.fetch("SELECT register, edition FROM do_not_call_editions WHERE state = 'active'")
    told = list(_registers(profile, {row["register"]: row["edition"] for row in rows}, today))
    if not profile.needs_consent(mode):
        return told
    channel, what = ("recorded", "recorded calls") if mode == "agentless" else ("call", "calls")
    there = await db.fetchval(
        """SELECT EXISTS (SELECT FROM consents WHERE given AND channel = $1 AND law_name(purpose) = law_name($2))""",
        channel,
        purpose,
    )
    if not there:
        says = (
            f"only who has consented is called, and no consent to {what} for {purpose} is on record: bring them "
            "(cti dialer consent import FILE), or set `purpose` to what they were given for"
        )
        told.append(("no_consents", says))
    return told


def _registers(profile: Profile, editions: Mapping[str, date], today: date) -> Iterator[tuple[str, str]]:
    but = ", but for who has consented" if profile.consent_overrides else ""
    for register in profile.registers:
        load = f"cti dialer register load FILE --register {register} …"
        edition = editions.get(register)
        if edition is None:
            yield (
                "no_register",
                f"no edition of the register {register} is loaded, so nobody is called{but}: {load}",
            )
        elif today > (last := edition + timedelta(days=profile.scrub_days)):
            yield (
                "old_register",
                f"the register {register} of {edition} is older than the {profile.scrub_days} days allowed, so nobody is"
                f" called{but}; load a newer one: {load}",
            )
        elif today + SOON > last:
            yield (
                "old_register",
                f"after {last} nobody is called{but}: the register {register} is too old then; load a newer one: {load}",
            )
