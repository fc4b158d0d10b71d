"""Compliance: every rule at the last moment, in words; never outside hours anywhere a number may lie, whatever clocks do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dialer.candidate import Candidate
from dialer.compliance import ConsentState, Known, Listed, OpenGroups, ZoneGroup, judge, open_groups
from dialer.law.calling_hours import UnknownZone, holidays_of, hours_at, open_times, opens_next
from dialer.law.profiles import Attempts, Profile, load, spans_of, tighten
from dialer.management.settings import CampaignSettings
from dialer.verdict import Verdict

PROFILES = load()
US, GB, FR, DE = (PROFILES[name] for name in ("US", "GB", "FR", "DE"))
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)  # a Tuesday
FRESH = {"gb-tps": date(2026, 11, 10), "us-national": date(2026, 11, 10)}


def candidate(**given: Any) -> Candidate:
    return Candidate(
        **{
            "contact": 1,
            "list": 1,
            "list_version": 1,
            "e164": "+442079460151",
            "zone_group": 1,
            "country": "GB",
            "region": "",
            "zones": ("Europe/London",),
            **given,
        }
    )


def known(**given: Any) -> Known:
    return Known(**{"editions": FRESH, **given})


def refused_by(verdict: Verdict) -> list[str]:
    return [step.rule for step in verdict.steps if not step.ok]


# ------------------------------------------------------------------------------------------------ rules


def test_a_call_that_nothing_forbids() -> None:
    verdict = judge(GB, candidate(person="c-7"), known(), NOON)
    assert verdict.allowed
    assert (verdict.why_not, verdict.not_before, verdict.consent) == ("", None, "")
    assert [step.rule for step in verdict.steps] == [
        "country",
        "calling_hours",
        "do_not_call",
        "register_gb-tps",
        "consent",
        "attempts_per_number",
        "attempts_per_person",
        "rest_after_abandoned",
        "rest_after_machine",
    ]
    assert all(step.says and step.source for step in verdict.steps)
    assert verdict.steps[3].says == "not on the register gb-tps, edition of 2026-11-10, 14 days old"
    assert "confirm with your counsel" in verdict.steps[7].source


@pytest.mark.parametrize(
    ("profile", "given", "about", "rule", "says", "not_before"),
    [
        (GB, {"country": "DE", "zones": ("Europe/Berlin",)}, {}, "country", "the number lies in DE", None),
        (GB, {"country": ""}, {}, "country", "an unknown country", None),
        (GB, {"zones": ()}, {}, "calling_hours", "not called automatically", None),
        (GB, {"zones": ("Mars/Base",)}, {}, "calling_hours", "no time zone 'Mars/Base'", None),
        (
            US,
            {"country": "US", "zones": ("America/New_York",)},
            {},
            "calling_hours",
            "it is Tue 07:00 in America/New_York, calls there: 08:00-21:00 on this day; again Tue 24 Nov 08:00 there",
            NOON + timedelta(hours=1),
        ),
        (
            US,
            {"country": "US", "zones": ("America/New_York", "Pacific/Honolulu")},
            {},
            "calling_hours",
            "it is Tue 07:00 in America/New_York",
            datetime(2026, 11, 24, 18, tzinfo=UTC),  # 8 in Hawaii
        ),
        (GB, {}, {"listed": (Listed(list="everywhere", since=date(2026, 1, 2), reason="asked in a call"),)},
         "do_not_call", "on the do-not-call list since 2026-01-02 (asked in a call)", None),
        (GB, {}, {"listed": (Listed(list="campaign", since=date(2026, 1, 2), until=NOON + timedelta(days=3)),)},
         "do_not_call", "on the campaign's do-not-call list since 2026-01-02 until 2026-11-27", NOON + timedelta(days=3)),
        (GB, {}, {"listed": (Listed(list="gb-tps", since=date(2026, 11, 10)),)},
         "register_gb-tps", "on the register gb-tps, edition of 2026-11-10", None),
        (GB, {}, {"editions": {}}, "register_gb-tps", "no edition of the register gb-tps is loaded",
         NOON + timedelta(minutes=15)),
        (GB, {}, {"editions": {"gb-tps": date(2026, 10, 26)}}, "register_gb-tps",
         "29 days old: older than the 28 days allowed", NOON + timedelta(minutes=15)),
        (GB, {}, {"listed": (Listed(list="us-state", since=date(2026, 11, 1)),)}, "register_us-state", "us-state", None),
        (GB, {}, {"consent": ConsentState(id=4, given=False, purpose="", at=NOON, source="letter")},
         "consent", "consent to calls for any purpose withdrawn on 2026-11-24", None),
        (GB, {}, {"attempts_of_number": tuple(NOON - timedelta(hours=h) for h in (1, 5, 20))},
         "attempts_per_number", "3 attempts to this number in 24 hours, 3 are allowed; again from 2026-11-24 16:00 UTC",
         NOON + timedelta(hours=4)),
        (GB, {"person": "c-7"}, {"attempts_of_person": tuple(NOON - timedelta(hours=h) for h in (1, 5, 15, 20))},
         "attempts_per_person", "4 attempts to this person in 24 hours",
         datetime(2026, 11, 25, 8, tzinfo=UTC)),  # the third newest leaves at 21:00, when it is too late
        (GB, {}, {"last_abandoned": NOON - timedelta(hours=70)}, "rest_after_abandoned", "72 hours of rest",
         NOON + timedelta(hours=2)),
        (GB, {}, {"last_machine": NOON - timedelta(hours=23)}, "rest_after_machine", "24 hours of rest",
         NOON + timedelta(hours=1)),
    ],
)  # fmt: skip
def test_each_rule_refuses_in_plain_words(
    profile: Profile,
    given: dict[str, Any],
    about: dict[str, Any],
    rule: str,
    says: str,
    not_before: datetime | None,
) -> None:
    verdict = judge(profile, candidate(**given), known(**about), NOON)
    assert refused_by(verdict) == [rule]
    assert says in verdict.why_not
    assert verdict.not_before == not_before
    assert verdict.forever == (not_before is None)
    assert next(step for step in verdict.steps if not step.ok).source


def test_consent_is_needed_where_the_law_says_so_and_is_cited() -> None:
    at = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
    french = candidate(country="FR", zones=("Europe/Paris",), e164="+33123456789")
    assert refused_by(judge(FR, french, known(), at)) == ["consent"]
    given = ConsentState(
        id=12, given=True, purpose="marketing", at=NOON - timedelta(days=9), source="web form"
    )
    verdict = judge(FR, french, known(consent=given), at)
    assert verdict.allowed
    assert verdict.consent == "no. 12 of 2026-11-15 for marketing: web form"


def test_a_recorded_message_takes_consent_to_that_where_a_live_call_needs_none() -> None:
    assert "consent" not in refused_by(judge(US, candidate(), known(), NOON))
    refused = judge(US, candidate(), known(mode="agentless"), NOON)
    (step,) = [step for step in refused.steps if step.rule == "consent"]
    assert (step.ok, step.says) == (False, "no consent to recorded calls for marketing")
    assert "16 CFR 310.4(b)(1)(v)" in step.source
    to_that = ConsentState(id=7, given=True, purpose="marketing", at=NOON, source="form")
    verdict = judge(US, candidate(), known(recorded=to_that), NOON)
    assert verdict.recorded
    assert [step.says for step in verdict.steps if step.rule == "recorded"] == [
        "consented to recorded messages: no. 7 of 2026-11-24 for marketing: form"
    ]
    assert not judge(US, candidate(), known(consent=to_that), NOON).recorded
    only = tighten(US, CampaignSettings(consent_only=True))
    assert "consent" in refused_by(judge(only, candidate(), known(), NOON))


def test_consent_overrides_a_national_register_but_not_our_own_list() -> None:
    given = ConsentState(id=1, given=True, purpose="marketing", at=NOON, source="contract")
    on_tps = Listed(list="gb-tps", since=date(2026, 11, 10))
    assert judge(GB, candidate(), known(consent=given, listed=(on_tps,), editions={}), NOON).allowed
    asked = Listed(list="company", since=date(2026, 11, 10))
    assert refused_by(judge(GB, candidate(), known(consent=given, listed=(on_tps, asked)), NOON)) == [
        "do_not_call"
    ]


def test_an_agent_who_waits_needs_no_rest_and_dials_unknown_zones_by_hand() -> None:
    rests = {"last_abandoned": NOON - timedelta(hours=1), "last_machine": NOON - timedelta(hours=1)}
    assert judge(GB, candidate(), known(mode="preview", **rests), NOON).allowed
    assert refused_by(judge(GB, candidate(), known(mode="progressive", **rests), NOON)) == [
        "rest_after_abandoned",
        "rest_after_machine",
    ]
    assert judge(GB, candidate(zones=()), known(mode="manual"), NOON).allowed
    assert not judge(GB, candidate(zones=()), known(mode="preview"), NOON).allowed
    waits = known(mode="manual", attempts_of_number=(NOON,) * 3)
    assert judge(GB, candidate(zones=()), waits, NOON).not_before == NOON + timedelta(hours=24)


def test_all_that_refuses_is_told_and_the_last_end_counts() -> None:
    about = known(last_abandoned=NOON - timedelta(hours=1), last_machine=NOON - timedelta(hours=1))
    verdict = judge(GB, candidate(), about, NOON)
    assert len(refused_by(verdict)) == 2
    assert verdict.not_before == NOON + timedelta(hours=71)
    forever = replace(about, listed=(Listed(list="everywhere", since=date(2026, 1, 1)),))
    assert judge(GB, candidate(), forever, NOON).forever


def test_holidays_count_in_the_region_and_in_all_where_it_is_unknown() -> None:
    # Epiphany is a holiday in Bavaria, not in Hamburg.
    at = datetime(2027, 1, 6, 12, tzinfo=UTC)
    consent = ConsentState(id=1, given=True, purpose="marketing", at=NOON, source="contract")

    def verdict(region: str) -> Verdict:
        german = candidate(country="DE", region=region, zones=("Europe/Berlin",))
        return judge(DE, german, known(consent=consent), at)

    assert verdict("HH").allowed
    for region in ("BY", ""):
        assert refused_by(verdict(region)) == ["holidays"]
        assert verdict(region).not_before == datetime(2027, 1, 7, 7, tzinfo=UTC)
    assert "public holiday" in verdict("BY").why_not
    assert holidays_of("ZZ", "", 2026) == {}
    assert holidays_of("FR", "", 2026)[date(2026, 7, 14)]


def test_a_region_by_which_no_holidays_are_told_apart_is_as_good_as_unknown() -> None:
    corpus_christi = date(2026, 6, 4)
    assert [corpus_christi in holidays_of("DE", region, 2026) for region in ("", "BY", "BE", "MUC", "Bayern")] == [
        True, True, False, True, True,
    ]  # fmt: skip
    assert date(2026, 4, 6) in holidays_of("GB", "LND", 2026)  # Easter Monday, not kept in Scotland


def test_an_attempts_limit_counts_each_window() -> None:
    tight = replace(GB, per_number=Attempts(day=2, week=3, days_30=4))
    made = tuple(NOON - timedelta(days=d) for d in (3, 4, 10, 29))
    verdict = judge(tight, candidate(), known(attempts_of_number=made), NOON)
    assert [step.says for step in verdict.steps if step.rule == "attempts_per_number"] == [
        "0 of 2 attempts to this number in 24 hours",
        "2 of 3 attempts to this number in 7 days",
        "4 attempts to this number in 30 days, 4 are allowed; again from 2026-11-25 12:00 UTC",
    ]


# ------------------------------------------------------------------------------------------------ hours and clocks


def always(*hours: str, **given: Any) -> Profile:
    return replace(US, countries=(), week=(spans_of(hours),) * 7, **given)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]


def test_a_day_of_25_hours_and_one_of_23() -> None:
    early, zone = always("00:30-02:30"), ("Europe/London",)
    # 25 October 2026: at 01:00 UTC clocks go from 02:00 back to 01:00; 01:30 comes twice, 02:30 once.
    assert hours_at(early, "GB", "", zone, utc(2026, 10, 24, 23, 29, 59)).again == utc(2026, 10, 24, 23, 30)
    told = hours_at(early, "GB", "", zone, utc(2026, 10, 25, 0, 45))
    assert (told.open, told.until) == (True, utc(2026, 10, 25, 2, 30))  # three hours, not two
    # 29 March 2026: at 01:00 UTC clocks go from 01:00 to 02:00.
    told = hours_at(early, "GB", "", zone, utc(2026, 3, 29, 0, 45))
    assert (told.open, told.until) == (True, utc(2026, 3, 29, 1, 30))
    # Hours that begin in the missing hour begin when it is over; hours all in it never come.
    assert opens_next(always("01:30-04:00"), "GB", "", zone, utc(2026, 3, 29, 0, 0)) == utc(2026, 3, 29, 1, 0)
    missing = always("01:10-01:50")
    assert opens_next(missing, "GB", "", zone, utc(2026, 3, 29, 0, 0)) == utc(2026, 3, 30, 0, 10)
    # Hours that ended before the clocks went back open again with them.
    twice = always("01:00-01:20")
    assert hours_at(twice, "GB", "", zone, utc(2026, 10, 25, 0, 19)).until == utc(2026, 10, 25, 0, 20)
    assert hours_at(twice, "GB", "", zone, utc(2026, 10, 25, 0, 20)).again == utc(2026, 10, 25, 1, 0)


def test_midnight_that_is_left_out() -> None:
    # Beirut, 29 March 2026: 00:00 becomes 01:00.
    told = hours_at(always("00:00-02:00"), "LB", "", ("Asia/Beirut",), utc(2026, 3, 28, 22, 0))
    assert (told.open, told.until) == (True, utc(2026, 3, 28, 23, 0))
    assert hours_at(always("00:00-24:00"), "LB", "", ("Asia/Beirut",), utc(2026, 3, 28, 21, 59)).open


def test_zones_that_never_overlap_have_no_next_opening() -> None:
    apart = ("Pacific/Auckland", "Europe/London")
    assert opens_next(always("10:00-11:00"), "", "", apart, NOON) is None
    assert opens_next(always("08:00-21:00"), "", "", apart, NOON) is not None
    closed = hours_at(always("10:00-11:00"), "", "", apart, NOON)
    assert (closed.open, closed.again) == (False, None)


ZONES = (
    "Europe/London", "Europe/Berlin", "America/New_York", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu",
    "Pacific/Kiritimati", "Pacific/Honolulu", "Asia/Jakarta", "Asia/Jayapura", "America/Sao_Paulo", "Asia/Beirut",
    "Africa/Casablanca", "Antarctica/Troll", "America/Santiago", "UTC",
)  # fmt: skip
CHANGES = (
    utc(2026, 3, 8, 7),
    utc(2026, 3, 29, 1),
    utc(2026, 10, 25, 1),
    utc(2026, 11, 1, 6),
    utc(2026, 4, 5, 3),
    utc(2027, 1, 1),
)
moments = st.one_of(
    st.integers(0, 7 * 365 * 86_400).map(lambda s: utc(2024, 1, 1) + timedelta(seconds=s)),
    st.tuples(st.sampled_from(CHANGES), st.integers(-200_000, 200_000)).map(
        lambda p: p[0] + timedelta(seconds=p[1])
    ),
)
edge = st.integers(0, 96).map(lambda n: n * 15)


def naive(profile: Profile, country: str, region: str, zones: tuple[str, ...], at: datetime) -> bool:
    """Calling hours as anybody would read them off the clocks on the wall."""
    for zone in zones:
        local = at.astimezone(ZoneInfo(zone))
        minute = local.hour * 60 + local.minute
        if not any(a <= minute < b for a, b in profile.week[local.weekday()]):
            return False
        if profile.closed_on_holidays and local.date() in holidays_of(country, region, local.year):
            return False
    return bool(zones)


@settings(max_examples=100)
@given(
    profile=st.sampled_from(sorted(PROFILES.values(), key=lambda p: p.name)),
    zones=st.lists(st.sampled_from(ZONES), max_size=3, unique=True).map(tuple),
    country=st.sampled_from(["", "US", "GB", "FR", "DE", "PL", "ID"]),
    at=moments,
)
def test_no_verdict_allows_a_call_outside_hours_anywhere(
    profile: Profile, zones: tuple[str, ...], country: str, at: datetime
) -> None:
    consent = ConsentState(id=1, given=True, purpose="marketing", at=at, source="contract")
    about = Known(consent=consent, editions=FRESH)
    asked = candidate(country=country, zones=zones)
    verdict = judge(profile, asked, about, at)
    where = country or (profile.countries[0] if profile.countries else "")
    if verdict.allowed:
        assert naive(profile, where, "", zones, at)
    if verdict.not_before is not None:
        assert verdict.not_before > at
        assert judge(profile, asked, about, verdict.not_before).allowed
        assert not naive(profile, where, "", zones, verdict.not_before - timedelta(seconds=1))


@settings(max_examples=100)
@example(edges=[0, 1440], zones=("UTC",), at=utc(2024, 1, 1))
@given(
    edges=st.lists(edge, min_size=2, max_size=4, unique=True).map(sorted),
    zones=st.lists(st.sampled_from(ZONES), min_size=1, max_size=2, unique=True).map(tuple),
    at=moments,
)
def test_hours_are_what_the_clocks_show(edges: list[int], zones: tuple[str, ...], at: datetime) -> None:
    spans = tuple((edges[i], edges[i + 1]) for i in range(0, len(edges) - 1, 2))
    profile = replace(US, week=(spans,) * 7)
    told = hours_at(profile, "", "", zones, at)
    assert told.open == naive(profile, "", "", zones, at)
    times = open_times(profile, "", "", zones, at, 3)
    assert told.open == any(begin <= at < end for begin, end in times)
    assert all(end < begin for (_, end), (begin, _) in pairwise(times))
    if told.until is not None:
        assert naive(profile, "", "", zones, told.until - timedelta(seconds=1))
        assert told.until > at
        begin, end = times[0]
        goes_on = told.until >= at + timedelta(days=1) and naive(profile, "", "", zones, told.until)
        assert begin == at
        assert end == min(told.until, at + timedelta(days=3)) or (goes_on and end > told.until)
    elif told.again is not None and told.again < at + timedelta(days=3):
        assert times[0][0] == told.again
    if told.again is not None:
        assert naive(profile, "", "", zones, told.again)
        assert not naive(profile, "", "", zones, told.again - timedelta(seconds=1))
        middle = at + (told.again - at) / 2
        assert not naive(profile, "", "", zones, middle)


# ------------------------------------------------------------------------------------------------ zone groups


def test_groups_open_and_close_by_the_clock() -> None:
    groups = [
        ZoneGroup(id=1, country="GB", region="", zones=("Europe/London",)),
        ZoneGroup(id=2, country="US", region="NY", zones=("America/New_York",)),
        ZoneGroup(id=3, country="US", region="", zones=()),
        ZoneGroup(id=4, country="US", region="", zones=("Nowhere/Land",)),
    ]
    book = OpenGroups(always("08:00-21:00"))
    told = book.at(groups, NOON)
    assert [told[id].open for id in (1, 2, 3, 4)] == [True, False, False, False]
    assert told[1].until == utc(2026, 11, 24, 21)
    assert told[2].again == utc(2026, 11, 24, 13)
    assert told[3].again is None
    before = book.at(groups, utc(2026, 11, 24, 12, 59, 59))
    assert not before[2].open
    assert book.at(groups, utc(2026, 11, 24, 13))[2].open
    assert not book.at(groups, utc(2026, 11, 24, 21))[1].open
    assert (
        book.at(groups, NOON) == told == open_groups(always("08:00-21:00"), groups, NOON)
    )  # the clock was set back


def test_an_unknown_zone_is_an_error_of_its_own() -> None:
    with pytest.raises(UnknownZone, match="Mars"):
        hours_at(GB, "GB", "", ("Mars/Base",), NOON)
