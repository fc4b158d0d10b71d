"""How many of a campaign's agents may call a list that is assigned to some: for what is said before a launch, and why."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from pydantic import ValidationError

from cti.people import Agent
from dialer.lists import Assigned, whose
from dialer.management.settings import CampaignSettings

FOR_NOBODY = "the list is assigned to nobody who works for the campaign ({})"


def settings_of(kept: str) -> CampaignSettings:
    """A campaign's settings as the database keeps them; the usual ones where they cannot be read any more."""
    try:
        return CampaignSettings.model_validate(msgspec.json.decode(kept))
    except ValidationError:
        return CampaignSettings()


def callers(
    assigned: Assigned, mode: str, settings: CampaignSettings, agents: Collection[Agent]
) -> int | None:
    """How many, at work or not; None where everybody of the campaign may, or no agents talk."""
    if assigned.to_all or mode == "agentless":
        return None
    return len(whose(assigned, settings, agents)[0])
