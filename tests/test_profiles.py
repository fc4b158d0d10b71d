"""Country profiles: every number with its source, tightened by campaigns and never loosened."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialer.law.profiles import (
    DAYS,
    SHIPPED,
    MachineMessage,
    Profile,
    TooLoose,
    WrongProfile,
    before_start,
    load,
    rules_told,
    spans_of,
    tighten,
)
from dialer.management.settings import CampaignSettings

PROFILES = load()
NAMES = sorted(PROFILES)


def test_the_countries_that_were_asked_for_are_there() -> None:
    assert NAMES == ["DE", "FR", "GB", "ID", "PL", "US", "default"]


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_has_words_a_source_and_a_date(name: str) -> None:
    told = list(rules_told(PROFILES[name]))
    assert len(told) == 16
    for section, says, rule in told:
        assert says, section
        assert rule.source, section
        assert date(2003, 1, 1) < rule.as_of <= PROFILES[name].revised, section
        assert rule.checked or "confirm with your counsel" in rule.cited


def test_no_law_of_which_only_others_were_read_counts_as_checked() -> None:
    assert not [name for name in NAMES if any(rule.checked for rule in PROFILES[name].rules.values())]


def test_the_numbers_of_the_law() -> None:
    us, gb, fr = PROFILES["US"], PROFILES["GB"], PROFILES["FR"]
    assert (us.abandonment_cap, us.abandonment_window_h, us.answer_wait_s, us.min_ring_s) == (
        0.03,
        720,
        2,
        15,
    )
    assert (us.scrub_days, us.registers, us.keep_days) == (31, ("us-national",), 1826)
    assert set(us.week) == {((480, 1260),)}
    assert [name for name, one in PROFILES.items() if one.wait_from_greeting] == ["US"]
    assert (gb.rest_after_abandoned_h, gb.rest_after_machine_h, gb.amd_usual, gb.amd_errors_count) == (
        72,
        24,
        False,
        True,
    )
    assert fr.week[0] == ((600, 780), (840, 1200))
    assert (fr.week[5], fr.week[6], fr.closed_on_holidays) == ((), (), True)
    assert (fr.consent_needed, fr.per_person.days_30) == (True, 4)
    assert PROFILES["DE"].week[6] == ()
    assert PROFILES["DE"].per_number.day == 3
    assert PROFILES["PL"].consent_needed
    assert PROFILES["ID"].week[5] == ((480, 1080),)
    assert PROFILES["default"].consent_needed
    assert all(one.recorded_needs_consent and one.recorded_opt_out for one in PROFILES.values())


def test_a_folder_of_ones_own_adds_and_outranks(tmp_path: Path) -> None:
    text = (SHIPPED / "US.toml").read_text()
    (tmp_path / "florida.toml").write_text(
        text.replace('name = "US"', 'name = "US-FL"').replace("21:00", "20:00")
    )
    without = text[: text.index("[recorded]")] + text[text.index("[do_not_call]") :]
    (tmp_path / "us.toml").write_text(without.replace("cap = 0.03", "cap = 0.02"))
    found = load(tmp_path)
    assert found["US"].needs_consent("agentless")
    assert "as strict as can be" in found["US"].source("recorded")
    assert found["US-FL"].week[0] == ((480, 1200),)
    assert found["US"].abandonment_cap == 0.02
    assert found["GB"] == PROFILES["GB"]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("cap = 0.03", "cap = 3", "abandonment.cap"),
        ("seconds = 15", "seconds = -1", "min_ring.seconds"),
        ('["08:00-21:00"]', '["21:00-08:00"]', "write it like 09:00-12:30"),
        ('["08:00-21:00"]', '["08:00-12:00", "11:00-14:00"]', "write them as one"),
        ("checked = false", "checkd = false", "calling_hours"),
        ("[records]", "[record]", "records"),
        ("revised = ", "revised: ", "us.toml"),
    ],
)
def test_a_wrong_file_says_where(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    text = (SHIPPED / "US.toml").read_text()
    assert old in text
    (tmp_path / "us.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(WrongProfile, match=r"us\.toml") as caught:
        load(tmp_path)
    assert complaint in str(caught.value)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(WrongProfile, match="no folder"):
        load(tmp_path / "nowhere")


# ------------------------------------------------------------------------------------------------ tightening


@pytest.mark.parametrize("name", NAMES)
def test_settings_that_say_nothing_change_nothing(name: str) -> None:
    assert tighten(PROFILES[name], CampaignSettings()) == PROFILES[name]


def test_what_a_campaign_sets_is_marked_as_its_own() -> None:
    tight = tighten(PROFILES["GB"], CampaignSettings(hours={"mon": ("09:00-12:00",)}, attempts_per_week=2))
    assert tight.week[0] == ((540, 720),)
    assert tight.week[1:] == ((),) * 6
    assert (tight.per_number.day, tight.per_number.week, tight.per_person.week) == (3, 2, 2)
    assert tight.rules["calling_hours"].by == "campaign"
    assert tight.source("calling_hours").startswith("set by the campaign; no statute")
    assert tight.rules["abandonment"].by == "law"


def test_every_limit_that_is_too_loose_is_named_with_what_is_allowed() -> None:
    wrong = CampaignSettings(
        hours={"mon": ("07:00-12:00",), "sun": ("10:00-12:00",)},
        abandonment_cap=0.05,
        min_ring_s=10,
        answer_wait_s=3,
        wait_from="greeting",
        attempts_per_day=5,
        attempts_per_30_days=9,
    )
    with pytest.raises(TooLoose) as caught:
        tighten(PROFILES["FR"], wrong)
    for part in (
        "hours.mon: 07:00-12:00 is too much: profile FR allows 10:00-13:00 and 14:00-20:00",
        "hours.sun: 10:00-12:00 is too much: profile FR allows never",
        "abandonment_cap: 0.05: profile FR allows at most 0.03",
        "min_ring_s: 10: profile FR allows at least 15",
        "answer_wait_s: 3: profile FR allows at most 2",
        "wait_from: greeting: profile FR allows only answer",
        "attempts_per_30_days: 9: profile FR allows at most 4 (Code de la consommation",
    ):
        assert part in str(caught.value)
    assert "attempts_per_day" not in str(caught.value)  # France limits 30 days, not the day


def test_a_window_must_fill_the_legal_one() -> None:
    us = PROFILES["US"]
    assert tighten(us, CampaignSettings(abandonment_window_h=24)).abandonment_window_h == 24
    assert tighten(us, CampaignSettings(abandonment_window_h=720)) == us
    for wrong in (700.0, 25.0):
        with pytest.raises(TooLoose, match="720 or a whole part of it"):
            tighten(us, CampaignSettings(abandonment_window_h=wrong))
    with pytest.raises(TooLoose, match="24 or a whole part"):
        tighten(PROFILES["GB"], CampaignSettings(abandonment_window_h=48))


def test_a_default_that_is_looser_than_the_profile_is_no_wish() -> None:
    everything = CampaignSettings.model_validate(CampaignSettings().model_dump(mode="json"))
    assert tighten(PROFILES["default"], everything).abandonment_cap == 0.01


def test_holidays_may_be_left_out_by_a_campaign() -> None:
    assert tighten(PROFILES["GB"], CampaignSettings(not_on_holidays=True)).closed_on_holidays
    assert tighten(PROFILES["FR"], CampaignSettings()).closed_on_holidays


def test_machines_are_left_messages_only_where_the_profile_says_so() -> None:
    offer = CampaignSettings(machine_message="offer")
    assert {name: PROFILES[name].machine_message for name in ("US", "GB", "FR", "default")} == {
        **dict.fromkeys(("US", "GB"), "consented"),
        **dict.fromkeys(("FR", "default"), "never"),
    }
    assert tighten(PROFILES["US"], offer) == PROFILES["US"]
    with pytest.raises(
        TooLoose, match=r"machine_message_to: all: profile US allows only consented \(prerecorded"
    ):
        tighten(PROFILES["US"], CampaignSettings(machine_message="offer", machine_message_to="all"))
    with pytest.raises(TooLoose, match="machine_message: profile DE allows none"):
        tighten(PROFILES["DE"], offer)
    anybody = replace(PROFILES["US"], machine_message="always")
    assert tighten(anybody, offer).machine_message == "consented"
    assert tighten(anybody, CampaignSettings(machine_message="offer", machine_message_to="all")) == anybody


def test_who_dials_by_itself_needs_the_message() -> None:
    assert "message: name the sound" in before_start(PROFILES["GB"], "predictive", CampaignSettings())[0]
    assert before_start(PROFILES["GB"], "preview", CampaignSettings()) == []
    assert before_start(PROFILES["GB"], "power", CampaignSettings(message="custom/sorry")) == []
    alone = CampaignSettings(message="custom/offer")
    assert before_start(PROFILES["US"], "agentless", alone) == []
    (lacking,) = before_start(PROFILES["US"], "agentless", alone.model_copy(update={"opt_out_key": ""}))
    assert lacking.startswith("opt_out_key: ")
    assert "16 CFR 310.4(b)(1)(v)" in lacking


minutes = st.integers(0, 96).map(lambda n: n * 15)


@st.composite
def hours(draw: st.DrawFn) -> tuple[str, ...]:
    edges = sorted(draw(st.lists(minutes, min_size=0, max_size=6, unique=True)))
    pairs = [(edges[i], edges[i + 1]) for i in range(0, len(edges) - 1, 2)]
    return tuple(f"{a // 60:02}:{a % 60:02}-{b // 60:02}:{b % 60:02}" for a, b in pairs)


wishes = st.fixed_dictionaries(
    {},
    optional={
        "hours": st.none() | st.dictionaries(st.sampled_from(DAYS), hours(), max_size=7),
        "abandonment_cap": st.sampled_from([0.001, 0.01, 0.02, 0.03, 0.031, 0.1]),
        "abandonment_window_h": st.sampled_from([0.5, 1, 5, 12, 24, 48, 360, 720]),
        "answer_wait_s": st.sampled_from([0.5, 1.9, 2.0, 2.1, 10]),
        "wait_from": st.sampled_from(["answer", "greeting"]),
        "min_ring_s": st.sampled_from([1, 14.9, 15, 16, 20]),
        "attempts_per_day": st.none() | st.integers(1, 6),
        "attempts_per_week": st.none() | st.integers(1, 10),
        "attempts_per_30_days": st.none() | st.integers(1, 20),
        "not_on_holidays": st.booleans(),
        "consent_only": st.booleans(),
        "rest_after_abandoned_h": st.none() | st.sampled_from([0, 24, 72, 100]),
        "rest_after_machine_h": st.none() | st.sampled_from([0, 24, 48]),
        "amd": st.booleans(),
        "machine_message": st.none() | st.just("offer"),
        "machine_message_to": st.sampled_from(["consented", "all"]),
    },
)


@settings(max_examples=150)
@given(name=st.sampled_from(NAMES), wish=wishes, minute=st.integers(0, 1439), day=st.integers(0, 6))
def test_tightening_never_loosens(name: str, wish: dict[str, object], minute: int, day: int) -> None:
    profile = PROFILES[name]
    try:
        tight = tighten(profile, CampaignSettings.model_validate(wish))
    except TooLoose:
        return
    assert no_looser(tight, profile, day, minute)
    assert tighten(tight, CampaignSettings()) == tight  # again changes nothing


WHOSE_MACHINES = get_args(MachineMessage)


def no_looser(tight: Profile, profile: Profile, day: int, minute: int) -> bool:
    """Whether all that `tight` allows, `profile` allows."""
    allows = [any(a <= minute < b for a, b in p.week[day]) for p in (tight, profile)]
    for mine, law in ((tight.per_number, profile.per_number), (tight.per_person, profile.per_person)):
        theirs = {name: most for name, _, most in mine.windows()}
        for window, _, most in law.windows():
            if window not in theirs or theirs[window] > most:
                return False
    return (
        allows[0] <= allows[1]
        and tight.closed_on_holidays >= profile.closed_on_holidays
        and tight.abandonment_cap <= profile.abandonment_cap
        and (profile.abandonment_window_h / tight.abandonment_window_h) % 1 == 0
        and tight.answer_wait_s <= profile.answer_wait_s
        and tight.wait_from_greeting <= profile.wait_from_greeting
        and tight.min_ring_s >= profile.min_ring_s
        and WHOSE_MACHINES.index(tight.machine_message) <= WHOSE_MACHINES.index(profile.machine_message)
        and tight.consent_needed >= profile.consent_needed
        and tight.recorded_needs_consent >= profile.recorded_needs_consent
        and tight.recorded_opt_out >= profile.recorded_opt_out
        and tight.rest_after_abandoned_h >= profile.rest_after_abandoned_h
        and tight.rest_after_machine_h >= profile.rest_after_machine_h
        and tight.message_required >= profile.message_required
        and tight.scrub_days <= profile.scrub_days
        and set(tight.registers) >= set(profile.registers)
        and tight.keep_days >= profile.keep_days
        and tight.countries == profile.countries
    )


def test_spans_are_put_in_order() -> None:
    assert spans_of(("14:00-24:00", "00:00-09:30")) == ((0, 570), (840, 1440))
    for wrong in ("9:00-10:00", "24:00-24:00", "10:00-10:00", "23:00-24:01", "08:00-25:00", "nonsense"):
        with pytest.raises(ValueError, match="no span of a day"):
            spans_of((wrong,))
