"""Why a number was, or was not, called: its lists, what became of each contact, the verdict, and every attempt."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cti.frozen import Frozen
from cti.people import Agent
from cti.users import load_directory
from dialer.call_lists.whose import FOR_NOBODY, callers, settings_of
from dialer.candidate import candidate_of
from dialer.compliance import judge
from dialer.law.consents import ConsentWord, words_of
from dialer.law.do_not_call import DoNotCallEntry, RegisterEdition, entries_of, registers_with
from dialer.law.evidence import AttemptEvidence, attempts_to
from dialer.law.known import known_for
from dialer.law.profiles import Profile, TooLoose, tighten
from dialer.lists import list_settings
from dialer.management.settings import CampaignSettings
from dialer.verdict import Verdict

if TYPE_CHECKING:
    from cti.database import Queryable

MOST_CONTACTS = 200


class CheckStep(Frozen, frozen=True, gc=False, kw_only=True):
    """One rule that was looked at. `says`: in plain words with its numbers; `source`: the law, or who set the limit."""

    rule: str
    ok: bool
    says: str
    source: str


class Judged(Frozen, frozen=True, gc=False, kw_only=True):
    """A verdict. `not_before`: when a refusal may end by itself; null if it does not."""

    allowed: bool
    why_not: str
    not_before: datetime | None
    consent: str
    steps: list[CheckStep]


class ContactWhy(Frozen, frozen=True, gc=False, kw_only=True):
    """A contact with the number. `steps`: what must be so for it to be called at the moment asked for, in order; the first
    that is not ok is why it was not. `primary` false: the number is another one of the contact."""

    contact: int
    list_id: int
    list_name: str
    primary: bool
    campaign: int | None
    campaign_name: str
    state: str
    steps: list[CheckStep]
    verdict: Judged | None


class NumberWhy(Frozen, frozen=True, gc=False, kw_only=True):
    """All there is on a number at a moment. `says`: the answer in one sentence. Attempts: the last 200, newest first."""

    number: str
    at: datetime
    says: str
    contacts: list[ContactWhy]
    do_not_call: list[DoNotCallEntry]
    registers: list[RegisterEdition]
    consents: list[ConsentWord]
    attempts: list[AttemptEvidence]


def judged(verdict: Verdict) -> Judged:
    """Returns a verdict as it is shown."""
    return Judged(
        allowed=verdict.allowed,
        why_not=verdict.why_not,
        not_before=verdict.not_before,
        consent=verdict.consent,
        steps=[
            CheckStep(rule=step.rule, ok=step.ok, says=step.says, source=step.source)
            for step in verdict.steps
        ],
    )


class NoProfile(LookupError):
    """A campaign's profile is not there, or its settings do not fit it; the message says what to do."""


def profile_of(profiles: Mapping[str, Profile], name: str, settings: str) -> Profile:
    """Returns the profile that a campaign works by, from the columns of its row. Raises NoProfile."""
    profile = profiles.get(name)
    if profile is None:
        raise NoProfile(f"there is no profile {name}: choose one of {', '.join(sorted(profiles))}")
    try:
        return tighten(profile, CampaignSettings.model_validate_json(settings))
    except (TooLoose, ValidationError) as error:
        raise NoProfile(f"the campaign's settings do not fit the profile {name}: {error}") from None


async def why(
    db: Queryable,
    e164: str,
    at: datetime,
    now: datetime,
    *,
    profiles: Callable[[], Mapping[str, Profile]],
) -> NumberWhy:
    """Returns all there is on a number, and what was or is to be said of calling it at `at`.

    For a moment in the past: entries, consents and attempts as they were then; lists, campaigns and registers as they are
    now, and the attempts made around then keep what was checked at the time. Raises WrongEntry for what is no E.164.
    """
    entries = await entries_of(db, e164)
    rows = await db.fetch(
        """SELECT k.*, CASE WHEN isfinite(k.not_before) THEN k.not_before END AS waits_until, l.name AS list_name,
                  l.active, l.settings::text AS list_settings, l.quota_until, l.version AS list_version,
                  z.country, z.region, z.zones,
                  c.id AS campaign_id, c.name AS campaign_name, c.state AS campaign_state, c.state_why, c.profile,
                  c.mode AS campaign_mode, c.settings AS campaign_settings
           FROM (SELECT * FROM list_contacts WHERE e164 = $1
                 UNION
                 SELECT * FROM list_contacts WHERE other_numbers @> ARRAY[$1::text] AND other_numbers <> '{}') k
           JOIN call_lists l ON l.id = k.list_id
           JOIN zone_groups z ON z.id = k.zone_group
           LEFT JOIN campaigns c ON c.id = l.campaign_id
           ORDER BY k.id LIMIT $2""",
        e164,
        MOST_CONTACTS,
    )
    past = at < now
    for_some = any(not list_settings(row["list_settings"]).assigned.to_all for row in rows)
    agents = (await load_directory(db))[0] if for_some else []
    contacts = [await _contact(db, row, e164, at, past, profiles(), agents) for row in rows]
    attempts = await attempts_to(db, e164)
    persons = {row["person"] for row in rows if row["person"]}
    words = {word.id: word for word in await words_of(db, number=e164)}
    for person in sorted(persons)[:20]:
        words |= {word.id: word for word in await words_of(db, person=person)}
    return NumberWhy(
        number=e164,
        at=at,
        says=_says(contacts, attempts, at, now),
        contacts=contacts,
        do_not_call=entries,
        registers=await registers_with(db, e164),
        consents=sorted(words.values(), key=lambda word: (word.at, word.id), reverse=True),
        attempts=attempts,
    )


async def _contact(
    db: Queryable,
    row: Any,
    e164: str,
    at: datetime,
    past: bool,
    profiles: Mapping[str, Profile],
    agents: Collection[Agent],
) -> ContactWhy:
    steps: list[CheckStep] = []
    verdict: Judged | None = None

    def step(rule: str, ok: bool, says: str) -> None:
        steps.append(CheckStep(rule=rule, ok=ok, says=says, source="as it is now" if past else ""))

    list_told = f"the list {row['list_name']} is {'' if row['active'] else 'not '}active"
    step("list", row["active"], list_told)
    if row["campaign_id"] is None:
        step("campaign", False, "no campaign calls this list")
    else:
        running = row["campaign_state"] in ("running", "draining")
        because = f": {row['state_why']}" if row["state_why"] else ""
        step("campaign", running, f"the campaign {row['campaign_name']} is {row['campaign_state']}{because}")
    rests = row["quota_until"]
    if rests is not None and rests > at:
        until = "" if rests.year > at.year + 100 else f" until {rests:%Y-%m-%d %H:%M} UTC"
        step("quota", False, f"a quota of the list {row['list_name']} is reached: it is not called{until}")
    own = list_settings(row["list_settings"])
    assigned, most = own.assigned, own.max_attempts
    if row["campaign_id"] is not None:
        settings = settings_of(row["campaign_settings"])
        most = own.over(settings).max_attempts
        some = callers(assigned, row["campaign_mode"], settings, agents)
        if some is not None:
            many = f"the list is assigned to {assigned.told()}: {some} of the campaign's agents"
            step("assigned", some > 0, many if some else FOR_NOBODY.format(assigned.told()))
    state, reason = row["state"], f": {row['why']}" if row["why"] else ""
    step(
        "contact",
        state == "open",
        f"the contact is {state.replace('_', ' ')}{reason}; {row['attempts']} attempts",
    )
    if state == "open" and most is not None and row["attempts"] >= most:
        step(
            "used_up", False, f"all attempts are used up: {row['attempts']} made, {most} by campaign and list"
        )
    if e164 in row["dead_numbers"]:
        told = "nobody can be reached on it (no such number, or a fax): only the contact's other numbers are called"
        step("number", False, told)
    until = row["waits_until"]
    waits = until is not None and until > at
    told = f"not before {until:%Y-%m-%d %H:%M} UTC" if waits else "its time has come"
    step("time", not waits, told)
    if row["campaign_id"] is not None:
        try:
            profile = profile_of(profiles, row["profile"], row["campaign_settings"])
        except NoProfile as error:
            step("profile", False, str(error))
        else:
            one = candidate_of(row, e164)
            known = await known_for(db, [one], row["campaign_id"], at, as_of=past)
            verdict = judged(judge(profile, one, known[one.contact], at))
            steps.extend(verdict.steps)
    return ContactWhy(
        contact=row["id"],
        list_id=row["list_id"],
        list_name=row["list_name"],
        primary=row["e164"] == e164,
        campaign=row["campaign_id"],
        campaign_name=row["campaign_name"] or "",
        state=state,
        steps=steps,
        verdict=verdict,
    )


def _says(contacts: list[ContactWhy], attempts: list[AttemptEvidence], at: datetime, now: datetime) -> str:
    moment = f"{at:%Y-%m-%d %H:%M} UTC"
    near = next((a for a in attempts if a.committed <= at and (a.ended is None or at <= a.ended)), None)
    if near is not None:
        return f"it was being called at {moment}, by the campaign {near.campaign_name}: {near.outcome or 'still under way'}"
    if not contacts:
        return "it is on no list" + (
            f"; it has been called before, {len(attempts)} in all" if attempts else ""
        )
    reasons = []
    for contact in contacts:
        refusal = next((step for step in contact.steps if not step.ok), None)
        if refusal is None:
            verb = "could have been called" if at < now else "may be called"
            return f"it {verb} at {moment}: contact {contact.contact} of the list {contact.list_name} waits for its turn"
        reasons.append(f"list {contact.list_name}: {refusal.says}")
    return f"not called at {moment}: " + "; ".join(dict.fromkeys(reasons))
