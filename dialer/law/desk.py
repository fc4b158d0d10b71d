"""The law as the loop asks for it: a campaign's settings within its profile's limits, which zone groups are open now, and
the verdict on a batch of contacts. Keeps what is asked for each half second; decides nothing itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from dialer.candidate import Candidate
from dialer.compliance import OpenGroups, ZoneGroup
from dialer.law.abandoned import error_share
from dialer.law.profiles import Profile, tighten
from dialer.management.settings import Campaign, CampaignSettings
from dialer.verdict import Verdict

if TYPE_CHECKING:
    from cti.database import Queryable

GROUPS_KEPT = 10.0
"""Seconds that the zone groups are remembered; new ones come with imports."""

A_DAY = 24.0

Check = Callable[["Queryable", Sequence[Candidate], int, Profile, datetime], Awaitable[Mapping[int, Verdict]]]
"""`dialer.law.known.check_all`."""


class UnknownProfile(ValueError):
    """A campaign names a country profile that there is none of."""


@dataclass(frozen=True, slots=True)
class _Kept:
    version: int
    profile: Profile
    hours: OpenGroups


class LawDesk:
    """The law of all campaigns. `clock`: seconds that never fall."""

    def __init__(
        self, profiles: Callable[[], Mapping[str, Profile]], check: Check, *, clock: Callable[[], float]
    ) -> None:
        self._profiles = profiles
        self._check = check
        self._clock = clock
        self._kept: dict[int, _Kept] = {}
        self._groups: tuple[float, list[ZoneGroup]] | None = None

    def _of(self, campaign: Campaign) -> _Kept:
        kept = self._kept.get(campaign.id)
        if kept is None or kept.version != campaign.version:
            profile = self._profiles().get(campaign.profile)
            if profile is None:
                raise UnknownProfile(f"there is no country profile {campaign.profile!r}")
            profile = tighten(profile, campaign.settings)
            kept = self._kept[campaign.id] = _Kept(campaign.version, profile, OpenGroups(profile))
        return kept

    def within(self, campaign: Campaign) -> CampaignSettings:
        """The settings that the campaign is run by: its own, and the profile's where it has set none or looser ones by
        default. Raises ValueError if they cannot be run by."""
        profile, s = self._of(campaign).profile, campaign.settings
        given = s.model_fields_set
        window = s.abandonment_window_h if "abandonment_window_h" in given else A_DAY
        return s.model_copy(
            update={
                "abandonment_cap": profile.abandonment_cap,
                "abandonment_window_h": min(window, profile.abandonment_window_h),
                "answer_wait_s": profile.answer_wait_s,
                "wait_from": profile.wait_from,
                "min_ring_s": profile.min_ring_s,
                "ring_timeout_s": max(s.ring_timeout_s, profile.min_ring_s),
                "amd": s.amd if "amd" in given else profile.amd_usual,
            }
        )

    def error_share(self, campaign: Campaign) -> float:
        """The share of the machines that are detected for it that are people and count as lost by its law."""
        return error_share(self._of(campaign).profile)

    def legal_window_h(self, campaign: Campaign) -> float:
        """Hours over which its law counts abandoned calls, whatever the campaign has set."""
        kept, law = self._of(campaign).profile, self._profiles().get(campaign.profile)
        return max(kept.abandonment_window_h, law.abandonment_window_h if law is not None else 0.0)

    async def open_groups(self, db: Queryable, campaign: Campaign, now: datetime) -> list[int]:
        """Ids of the zone groups in which the campaign may call now."""
        hours = self._of(campaign).hours.at(await self._all_groups(db), now)
        return [group for group, at in hours.items() if at.open]

    async def _all_groups(self, db: Queryable) -> list[ZoneGroup]:
        if self._groups is None or self._clock() - self._groups[0] >= GROUPS_KEPT:
            rows = await db.fetch("SELECT id, country, region, zones FROM zone_groups")
            self._groups = (
                self._clock(),
                [
                    ZoneGroup(id=r["id"], country=r["country"], region=r["region"], zones=tuple(r["zones"]))
                    for r in rows
                ],
            )
        return self._groups[1]

    async def check_all(
        self, db: Queryable, candidates: Sequence[Candidate], campaign: Campaign, now: datetime
    ) -> Mapping[int, Verdict]:
        """The verdict on each of these contacts."""
        return await self._check(db, candidates, campaign.id, self._of(campaign).profile, now)
