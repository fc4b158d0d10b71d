"""The decision, by itself: hours, conditions, what wins over what, and that there always is one."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.answer import ANYONE, variables
from routing.decide import AgentNow, CallFacts, Customer, Decision, Floor, decide, how_exact
from routing.document import WIDEN_STEPS, RulesDoc, WrongRules, read_document, rule_set
from routing.hours import DAYS, easter_sunday, next_opening, opening
from routing.rules import RuleSet
from tests.conftest import SCENARIOS

MONDAY_NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
WEEK = {"days": ["mon", "tue", "wed", "thu", "fri"], "from": "09:00", "to": "17:30"}


def made(**document: Any) -> RuleSet:
    """A rule set from a document as people write it."""
    return rule_set(
        read_document({"entries": [{"id": "main", "numbers": ["5550100"], "queue": "sales"}], **document}), 1
    )


def customer(**known: Any) -> Customer:
    """A customer of class B who speaks English, but for what is said."""
    return Customer(
        **{
            "account": 7,
            "classification": "B",
            "language": "en",
            "country": "GB",
            "status": "active",
            **known,
        }
    )


def decided(
    rules: RuleSet,
    dialed: str = "5550100",
    who: Customer | None = None,
    at: datetime = MONDAY_NOON,
    floor: Floor | None = None,
    **call: Any,
) -> Decision:
    return decide(rules, CallFacts(dialed=dialed, **call), who, at, floor or Floor())


def why(decision: Decision, what: str, id: str) -> str:
    """What the explanation says of a rule, a queue, an agent."""
    return next(step.why for step in decision.explanation if (step.what, step.id) == (what, id))


# ------------------------------------------------------------------------------------------ hours


BERLIN = {"office": {"zone": "Europe/Berlin", "hours": [WEEK]}}
OPEN = [
    # UTC, open, of the office in Berlin 09:00-17:30
    ("2026-11-23T07:59:59", False),
    ("2026-11-23T08:00:00", True),
    ("2026-11-23T16:29:59", True),
    ("2026-11-23T16:30:00", False),
    ("2026-11-21T10:00:00", False),  # Saturday
    ("2026-03-27T08:00:00", True),  # Friday before the clocks go forward: UTC+1
    ("2026-03-30T07:00:00", True),  # Monday after: UTC+2
    ("2026-03-30T06:59:00", False),
    ("2026-10-23T07:00:00", True),  # Friday before the clocks go back: UTC+2
    ("2026-10-26T07:00:00", False),  # Monday after: UTC+1
    ("2026-10-26T08:00:00", True),
]


@pytest.mark.parametrize(("moment", "is_open"), OPEN)
def test_hours_follow_the_clock_of_their_zone(moment: str, is_open: bool) -> None:
    calendar = made(calendars=BERLIN).calendars["office"]
    assert opening(calendar, datetime.fromisoformat(moment).replace(tzinfo=UTC)).open is is_open


NIGHT = {"night": {"zone": "Europe/Berlin", "hours": [{"days": ["sat"], "from": "22:00", "to": "04:00"}]}}
NIGHTS = [
    # around the night of 2026-03-29 (02:00 becomes 03:00) and of 2026-10-25 (03:00 becomes 02:00 again)
    ("2026-03-28T20:59:00", False),
    ("2026-03-28T21:00:00", True),
    ("2026-03-29T00:59:00", True),  # 01:59
    ("2026-03-29T01:00:00", True),  # 03:00
    ("2026-03-29T01:59:00", True),  # 03:59
    ("2026-03-29T02:00:00", False),  # 04:00: the night was an hour shorter
    ("2026-10-24T20:00:00", True),
    ("2026-10-25T00:30:00", True),  # 02:30, the first time
    ("2026-10-25T01:30:00", True),  # 02:30, the second time
    ("2026-10-25T02:59:00", True),
    ("2026-10-25T03:00:00", False),
]


@pytest.mark.parametrize(("moment", "is_open"), NIGHTS)
def test_a_night_in_which_the_clocks_change_is_as_long_as_the_clock_says(moment: str, is_open: bool) -> None:
    calendar = made(calendars=NIGHT).calendars["night"]
    assert opening(calendar, datetime.fromisoformat(moment).replace(tzinfo=UTC)).open is is_open


def test_hours_that_begin_when_there_is_no_such_time_begin_when_the_clock_goes_on() -> None:
    calendar = made(
        calendars={
            "early": {"zone": "Europe/Berlin", "hours": [{"days": ["sun"], "from": "02:30", "to": "05:00"}]}
        }
    ).calendars["early"]
    before = datetime(2026, 3, 29, 0, 0, tzinfo=UTC)
    opens = next_opening(calendar, before)
    assert opens is not None
    assert opens.astimezone(UTC) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)  # 03:30 by the clock
    assert opening(calendar, datetime(2026, 3, 29, 1, 30, tzinfo=UTC)).open


def test_midnight_is_written_as_the_end_of_a_day() -> None:
    rules = made(
        calendars={
            "all": {"zone": "UTC", "hours": [{"days": list(DAYS), "from": "00:00", "to": "24:00"}]},
            "same": {"zone": "UTC", "hours": [{"days": list(DAYS), "from": "00:00", "to": "00:00"}]},
            "late": {"zone": "UTC", "hours": [{"days": ["mon"], "from": "20:00", "to": "24:00"}]},
        }
    )
    for minute in range(0, 7 * 1440, 37):
        at = MONDAY_NOON + timedelta(minutes=minute)
        assert opening(rules.calendars["all"], at).open
        assert opening(rules.calendars["same"], at).open
        assert opening(rules.calendars["late"], at).open is (at.weekday() == 0 and at.hour >= 20)


HOLIDAYS = {
    "holidays": {
        "DE": [
            {"on": "12-25", "name": "Christmas"},
            {"on": "easter-2", "name": "Good Friday"},
            {"on": "easter+1", "name": "Easter Monday"},
            {"on": "2026-11-24", "name": "works outing"},
        ]
    },
    "calendars": {
        "office": {
            "zone": "Europe/Berlin",
            "hours": [WEEK],
            "holidays": "DE",
            "days": [
                {"date": "2026-12-25", "name": "emergency service", "hours": [["10:00", "12:00"]]},
                {"date": "2026-11-28", "name": "open Saturday", "hours": [["10:00", "14:00"]]},
            ],
        }
    },
}


@pytest.mark.parametrize(
    ("moment", "is_open", "because"),
    [
        ("2026-04-03T10:00", False, "Good Friday"),
        ("2026-04-06T10:00", False, "Easter Monday"),
        ("2026-04-07T10:00", True, "tue"),
        ("2025-04-18T10:00", False, "Good Friday"),
        ("2025-12-25T10:00", False, "Christmas"),
        ("2026-12-25T10:00", True, "emergency service"),
        ("2026-12-25T13:00", False, "emergency service"),
        ("2026-11-24T12:00", False, "works outing"),
        ("2026-11-28T12:00", True, "open Saturday"),
    ],
)
def test_special_days_go_before_holidays_and_these_before_the_week(
    moment: str, is_open: bool, because: str
) -> None:
    calendar = made(**HOLIDAYS).calendars["office"]
    state = opening(calendar, datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo("Europe/Berlin")))
    assert (state.open, because in state.why) == (is_open, True), state.why


@pytest.mark.parametrize(
    ("year", "sunday"),
    [
        (1961, "04-02"),
        (2000, "04-23"),
        (2008, "03-23"),
        (2011, "04-24"),
        (2024, "03-31"),
        (2026, "04-05"),
        (2038, "04-25"),
    ],
)
def test_easter(year: int, sunday: str) -> None:
    assert easter_sunday(year) == date.fromisoformat(f"{year}-{sunday}")


def test_a_closed_calendar_says_when_it_opens() -> None:
    calendar = made(**HOLIDAYS).calendars["office"]
    state = opening(calendar, datetime(2026, 11, 23, 20, 0, tzinfo=UTC))
    assert state.opens == datetime(2026, 11, 25, 9, 0, tzinfo=ZoneInfo("Europe/Berlin"))  # the 24th is off
    never = made(calendars={"never": {"zone": "UTC"}}).calendars["never"]
    assert opening(never, MONDAY_NOON).opens is None


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.sampled_from(
        ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"]
    ),
    st.integers(0, 1439),
    st.integers(1, 1440),
)
@settings(max_examples=60)
def test_at_the_next_opening_it_is_open_and_before_it_is_not(
    at: datetime, zone: str, start: int, end: int
) -> None:
    hours = {
        "days": ["mon", "wed", "sun"],
        "from": f"{start // 60:02}:{start % 60:02}",
        "to": f"{end // 60:02}:{end % 60:02}",
    }
    calendar = made(calendars={"c": {"zone": zone, "hours": [hours]}}).calendars["c"]
    state = opening(calendar, at)
    opens = next_opening(calendar, at)
    assert opens is not None
    assert opens > at
    # A span that the clocks leave out altogether opens at no moment at all.
    if opens.astimezone(ZoneInfo(zone)).minute == start % 60 and opens.hour == start // 60:
        assert opening(calendar, opens).open
    if not state.open:
        assert state.opens == opens


# ------------------------------------------------------------------------------------------ the number dialed


@pytest.mark.parametrize(
    ("pattern", "dialed", "fits"),
    [
        ("5550100", "5550100", True),
        ("5550100", "55501001", False),
        ("44207946*", "442079460100", True),
        ("44207946*", "44207946", True),
        ("44207946*", "4420794", False),
    ],
)
def test_numbers_fit_in_whole_or_by_their_beginning(pattern: str, dialed: str, fits: bool) -> None:
    assert bool(how_exact(pattern, dialed)) is fits


def test_the_most_exact_number_names_the_entry() -> None:
    rules = made(
        entries=[
            {"id": "all", "numbers": ["+44*"], "queue": "sales"},
            {"id": "london", "numbers": ["+44 20 7946 *"], "queue": "support"},
            {"id": "one", "numbers": ["+442079460100"], "queue": "billing"},
            {"id": "north", "numbers": ["+442079460199"], "queue": "emergency", "pbxs": ["north"]},
        ]
    )
    for dialed, entry in (
        ("+441632960000", "all"),
        ("442079460200", "london"),
        ("+442079460100", "one"),
        ("+442079460199", "london"),
    ):
        assert decided(rules, dialed).entry == entry
    assert decided(rules, "+442079460199", pbx="north").entry == "north"
    nowhere = decided(rules, "+4930")
    assert (nowhere.action, nowhere.entry) == ("default", "")
    assert "no entry" in nowhere.explanation[0].why


# ------------------------------------------------------------------------------------------ conditions

CONDITIONS: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    # what, when, call and customer, whether it matches
    ("nothing asked", {}, {}, True),
    ("entry", {"entry": ["main"]}, {}, True),
    ("other entry", {"entry": ["other"]}, {}, False),
    ("dialed", {"dialed": ["5550*"]}, {}, True),
    ("not dialed", {"dialed": ["5551*"]}, {}, False),
    ("open", {"open": "office"}, {}, True),
    ("closed", {"closed": "office"}, {}, False),
    ("time", {"time": [{"from": "11:00", "to": "12:01", "zone": "UTC"}]}, {}, True),
    ("time over", {"time": [{"from": "11:00", "to": "12:00", "zone": "UTC"}]}, {}, False),
    ("one of two times", {"time": [{"from": "01:00", "to": "02:00", "zone": "UTC"},
                                   {"days": ["mon"], "from": "00:00", "to": "24:00", "zone": "UTC"}]}, {}, True),
    ("overnight", {"time": [{"days": ["sun"], "from": "22:00", "to": "13:00", "zone": "UTC"}]}, {}, True),
    ("other day", {"time": [{"days": ["tue"], "from": "00:00", "to": "24:00", "zone": "UTC"}]}, {}, False),
    ("withheld", {"withheld": True}, {"withheld": True}, True),
    ("not withheld", {"withheld": True}, {}, False),
    ("caller's country", {"caller_country": ["DE", "AT"]}, {"country": "AT"}, True),
    ("other country", {"caller_country": ["DE", "AT"]}, {"country": "CH"}, False),
    ("known", {"customer": {"known": True}}, {"who": customer()}, True),
    ("unknown", {"customer": {"known": True}}, {}, False),
    ("stranger", {"customer": {"known": False}}, {}, True),
    ("no stranger", {"customer": {"known": False}}, {"who": customer()}, False),
    ("class", {"customer": {"class": ["A", "B"]}}, {"who": customer()}, True),
    ("other class", {"customer": {"class": ["A"]}}, {"who": customer()}, False),
    ("class of a stranger", {"customer": {"class": ["A"]}}, {}, False),
    ("language", {"customer": {"language": ["de"]}}, {"who": customer(language="de-AT")}, True),
    ("other language", {"customer": {"language": ["de"]}}, {"who": customer()}, False),
    ("country", {"customer": {"country": ["GB"]}}, {"who": customer()}, True),
    ("status", {"customer": {"status": ["blocked"]}}, {"who": customer()}, False),
    ("complaint", {"customer": {"has_open": ["complaint", "ticket"]}},
     {"who": customer(open_items=frozenset({"ticket", "order"}))}, True),
    ("no complaint", {"customer": {"has_open": ["complaint"]}}, {"who": customer(open_items=frozenset({"order"}))}, False),
    ("unpaid", {"customer": {"unpaid_invoice": True}}, {"who": customer(open_items=frozenset({"invoice"}))}, True),
    ("paid", {"customer": {"unpaid_invoice": False}}, {"who": customer()}, True),
    ("overdue", {"customer": {"overdue_invoice": True}}, {"who": customer(open_items=frozenset({"invoice"}))}, False),
    ("both", {"customer": {"class": ["B"], "unpaid_invoice": True}}, {"who": customer()}, False),
    ("many wait", {"waiting": {"queue": "sales", "more_than": 2}}, {"floor": Floor(waiting=lambda q: 3)}, True),
    ("few wait", {"waiting": {"queue": "sales", "more_than": 3}}, {"floor": Floor(waiting=lambda q: 3)}, False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("when", "given", "matches"), [c[1:] for c in CONDITIONS], ids=[c[0] for c in CONDITIONS]
)
def test_conditions(when: dict[str, Any], given: dict[str, Any], matches: bool) -> None:
    rules = made(
        entries=[
            {"id": "main", "numbers": ["5550100"], "queue": "sales"},
            {"id": "other", "numbers": ["1"], "queue": "sales"},
        ],
        calendars=BERLIN,
        rules=[{"id": "r", "when": when, "then": {"queue": "support"}}],
    )
    decision = decided(rules, **given)
    assert (decision.queue, decision.rules) == (("support", ("r",)) if matches else ("sales", ()))
    assert why(decision, "rule", "r")


# ------------------------------------------------------------------------------------------ what wins


def test_the_first_rule_that_sets_something_has_set_it() -> None:
    rules = made(
        rules=[
            {"id": "off", "enabled": False, "then": {"queue": "emergency"}},
            {"id": "a", "then": {"priority": 3}},
            {"id": "b", "then": {"priority": 9, "queue": "support", "language": "de"}},
            {"id": "c", "when": {"withheld": True}, "then": {"queue": "billing"}, "last": True},
            {"id": "d", "then": {"seconds": 44}, "last": True},
            {"id": "e", "then": {"announce": {"sounds": ["hello"]}}},
        ]
    )
    decision = decided(rules)
    assert (decision.queue, decision.priority, decision.language, decision.seconds, decision.sounds) == (
        "support", 3, "de", 44, (),
    )  # fmt: skip
    assert decision.rules == ("a", "b", "d")
    assert why(decision, "rule", "off") == "switched off"
    assert why(decision, "rule", "b") == "sets queue, language"
    assert not [step for step in decision.explanation if step.id == "e"]


def test_a_closed_entry_goes_to_its_target_unless_a_rule_takes_the_call_at_any_hour() -> None:
    rules = made(
        entries=[
            {
                "id": "main",
                "numbers": ["5550100"],
                "queue": "sales",
                "calendar": "office",
                "closed": {"place": "voicemail", "sounds": ["hours"]},
            }
        ],
        calendars=BERLIN,
        rules=[{"id": "vip", "when": {"customer": {"class": ["A"]}}, "then": {"open_always": True}}],
    )
    night = MONDAY_NOON.replace(hour=23)
    shut = decided(rules, at=night)
    assert (shut.action, shut.place, shut.sounds, shut.closed) == ("place", "voicemail", ("hours",), True)
    assert "opens Tue 2026-11-24 09:00 CET" in why(shut, "hours", "office")
    assert decided(rules).action == "queue"
    vip = decided(rules, at=night, who=customer(classification="A"))
    assert (vip.action, vip.queue, vip.closed) == ("queue", "sales", False)


def test_a_full_queue_sends_on_and_a_circle_of_full_ones_ends() -> None:
    full = {"limit": 2}
    rules = made(
        queues={
            "sales": {**full, "full": {"queue": "support", "sounds": ["sorry"]}},
            "support": {**full, "full": {"queue": "billing"}},
            "billing": {**full, "full": {"queue": "sales"}},
        }
    )
    some = {"sales": 2, "support": 2, "billing": 1}
    decision = decided(rules, floor=Floor(waiting=lambda q: some[q]))
    assert (decision.action, decision.queue) == ("queue", "billing")
    circle = decided(rules, floor=Floor(waiting=lambda q: 9))
    assert (circle.action, circle.queue) == ("queue", "billing")
    assert "taken all the same" in circle.explanation[-1].why
    first = decided(rules, floor=Floor(waiting=lambda q: 1 if q != "sales" else 2))
    assert (first.queue, first.sounds) == ("support", ("sorry",))


def test_a_queue_that_the_pbx_does_not_have_is_not_gone_to() -> None:
    rules = made(
        rules=[{"id": "r", "when": {"withheld": True}, "then": {"queue": "gone"}}],
        queues={"sales": {"timed_out": {"queue": "gone"}}},
    )
    floor = Floor(exists=lambda queue: queue != "gone")
    lost = decided(rules, floor=floor, withheld=True)
    assert lost.action == "default"
    assert "no queue gone" in lost.explanation[-1].why
    assert decided(rules, floor=floor).overflow is None


def test_place_and_wait_are_told_when_asked_for_and_known() -> None:
    rules = made(queues={"sales": {"announce": {"place": True, "wait": True}}})
    told = decided(rules, floor=Floor(waiting=lambda q: 4, wait=lambda q: 200.0))
    assert (told.place_in_queue, told.wait_minutes) == (5, 3)
    assert decided(rules).wait_minutes is None
    assert decided(made()).place_in_queue is None


PREFER = {
    "direct_queue": "direct",
    "rules": [
        {"id": "p", "then": {"prefer": [{"agent": "own"}, {"agent": "last", "seconds": 5, "within_days": 7}]}}
    ],
}
AGENTS = {
    "ready": AgentNow(ready=True, number=4),
    "busy": AgentNow(ready=False, busy=True, number=5, why="busy"),
    "nameless": AgentNow(ready=True, number=None),
}


@pytest.mark.parametrize(
    ("own", "last", "preferred"),
    [
        ("ready", "busy", ("ready", 4, 15)),
        ("busy", "ready", ("ready", 4, 5)),
        ("busy", "busy", None),
        (None, "ready", ("ready", 4, 5)),
        ("nobody", "ready", ("ready", 4, 5)),
        ("nameless", "busy", None),
        (None, None, None),
    ],
)
def test_own_and_last_agent(
    own: str | None, last: str | None, preferred: tuple[str, int, int] | None
) -> None:
    days_ago = timedelta(days=6)
    known = customer(own_agent=own, last_agents=((last, MONDAY_NOON - days_ago),) if last else ())
    floor = Floor(agent=lambda login, direct: AGENTS.get(login))
    found = decided(made(**PREFER), who=known, floor=floor).preferred
    assert (found and (found.agent, found.number, found.seconds)) == preferred


def test_who_talked_to_them_too_long_ago_is_no_last_agent() -> None:
    known = customer(last_agents=(("ready", MONDAY_NOON - timedelta(days=8)),))
    floor = Floor(agent=lambda login, direct: AGENTS.get(login))
    decision = decided(made(**PREFER), who=known, floor=floor)
    assert decision.preferred is None
    assert why(decision, "agent", "last") == "the customer has no last agent"


def test_a_busy_agent_is_waited_for_only_when_the_rule_says_so() -> None:
    rules = made(
        direct_queue="direct",
        rules=[{"id": "p", "then": {"prefer": [{"agent": "own", "if_busy": True, "seconds": 60}]}}],
    )
    floor = Floor(agent=lambda login, direct: AGENTS.get(login))
    found = decided(rules, who=customer(own_agent="busy"), floor=floor).preferred
    assert found is not None
    assert (found.agent, found.seconds) == ("busy", 60)


@pytest.mark.parametrize(
    ("e164", "who", "called"),
    [
        ("+442079460001", None, True),  # from a country that is called back
        ("+4930231250001", None, False),
        ("+4930231250001", customer(), True),  # a customer
        ("+449098790001", None, False),  # premium rate, whoever it is
        ("+449098790001", customer(), False),
        ("", customer(), False),
    ],
)
def test_only_customers_and_near_countries_are_called_back(
    e164: str, who: Customer | None, called: bool
) -> None:
    rules = made(rules=[{"id": "back", "then": {"callback": {"within": 600, "countries": ["GB"]}}}])
    country = "GB" if e164.startswith("+44") else "DE" if e164 else ""
    decision = decided(rules, who=who, e164=e164, country=country)
    assert (decision.callback, decision.action) == (e164 if called else "", "queue")
    assert variables(decision, "1")[0][1].endswith(f",{e164},600," if called else ",,,")


# ------------------------------------------------------------------------------------------ always a decision

TEXT = st.text(max_size=40)
QUEUES = st.sampled_from(["sales", "support", "billing"])
TARGETS = st.one_of(
    st.fixed_dictionaries({"queue": QUEUES}),
    st.fixed_dictionaries({"place": st.just("voicemail")}),
    st.fixed_dictionaries({"sounds": st.just(["vm-goodbye"])}),
)
CLOCKS = st.integers(0, 1439).map(lambda m: f"{m // 60:02}:{m % 60:02}")
THEN = st.fixed_dictionaries(
    {"priority": st.integers(0, 1000)},
    optional={
        "queue": QUEUES,
        "open_always": st.booleans(),
        "callback": st.just({"countries": ["GB"]}),
        "levels": st.fixed_dictionaries(
            {"best": st.just(0), "worst": st.integers(0, 5), "widen_every": st.sampled_from(WIDEN_STEPS)}
        ),
        "prefer": st.just([{"agent": "own"}, {"agent": "last"}]),
        "announce": st.just({"place": True, "wait": True, "sounds": ["hello"]}),
    },
)
WHEN = st.fixed_dictionaries(
    {},
    optional={
        "open": st.just("office"),
        "closed": st.just("office"),
        "withheld": st.booleans(),
        "caller_country": st.just(["DE"]),
        "time": st.lists(
            st.fixed_dictionaries({"from": CLOCKS, "to": CLOCKS, "zone": st.sampled_from(["UTC", "Europe/London"])}),
            min_size=1, max_size=2,
        ),
        "customer": st.fixed_dictionaries({}, optional={"known": st.booleans(), "class": st.just(["A"]), "overdue_invoice": st.booleans()}),  # noqa: E501
        "waiting": st.fixed_dictionaries({"queue": QUEUES, "more_than": st.integers(0, 5)}),
    },
)  # fmt: skip
DOCUMENTS = st.fixed_dictionaries(
    {
        "entries": st.just(
            [
                {"id": "main", "numbers": ["5550100"], "queue": "sales", "calendar": "office", "closed": {"queue": "support"}},  # noqa: E501
                {"id": "rest", "numbers": ["5*"], "queue": "billing"},
            ]
        ),
        "calendars": st.just(HOLIDAYS["calendars"]),
        "holidays": st.just(HOLIDAYS["holidays"]),
        "queues": st.dictionaries(
            st.just("sales"), st.fixed_dictionaries({"limit": st.integers(0, 3), "full": TARGETS, "timed_out": TARGETS})
        ).filter(lambda q: all(t.get("queue") != "sales" for one in q.values() for t in (one["full"], one["timed_out"]))),
        "rules": st.lists(st.tuples(WHEN, THEN), max_size=6).map(
            lambda pairs: [{"id": f"r{n}", "when": w, "then": t} for n, (w, t) in enumerate(pairs)]
        ),
        "direct_queue": st.just("direct"),
    }
)  # fmt: skip
CUSTOMERS = st.none() | st.builds(
    Customer,
    account=st.integers(),
    classification=TEXT,
    language=TEXT,
    country=TEXT,
    status=TEXT,
    open_items=st.frozensets(TEXT, max_size=3),
    overdue_invoice=st.booleans(),
    own_agent=st.none() | TEXT,
    last_agents=st.lists(
        st.tuples(TEXT, st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))),  # noqa: DTZ001
        max_size=3,
    ).map(tuple),
)


@given(
    DOCUMENTS,
    CUSTOMERS,
    st.one_of(st.just("5550100"), TEXT),
    TEXT,
    st.datetimes(datetime(1971, 1, 1), datetime(2999, 1, 1), timezones=st.timezones()),  # noqa: DTZ001
    st.integers(0, 6),
    st.sampled_from([None, *AGENTS.values()]),
)
@settings(max_examples=60)
def test_there_always_is_a_decision_that_the_dialplan_can_take(
    document: dict[str, Any],
    who: Customer | None,
    dialed: str,
    ani: str,
    at: datetime,
    wait: int,
    agent: AgentNow | None,
) -> None:
    rules = rule_set(read_document(document), 3)
    floor = Floor(waiting=lambda q: wait, wait=lambda q: wait * 61.0, agent=lambda login, direct: agent)
    decision = decide(rules, CallFacts(dialed=dialed, ani=ani, e164=ani), who, at, floor)
    assert decision == decide(rules, CallFacts(dialed=dialed, ani=ani, e164=ani), who, at, floor)
    assert decision.action in ("queue", "place", "sounds", "default")
    assert decision.explanation
    told = variables(decision, "1")
    assert told[-1][0] == "CTI_ROUTE_1"
    assert all(len(f"Value: {value}") < 1000 and value.isascii() and "\n" not in value for _, value in told)
    if decision.action == "queue":
        assert told[-1][1].split(",")[:2] == ["queue", decision.queue]
        assert 0 <= decision.priority <= 1000


def test_the_answer_as_the_dialplan_reads_it() -> None:
    rules = made(
        rules=[
            {
                "id": "r",
                "then": {
                    "priority": 5,
                    "language": "de",
                    "levels": {"best": 1, "worst": 2, "widen_every": 30},
                    "announce": {"sounds": ["hello", "queue-thankyou"], "place": True},
                },
            }
        ],
        queues={"sales": {"seconds": 45, "timed_out": {"place": "voicemail", "sounds": ["sorry"]}}},
    )
    assert variables(decided(rules), "12") == (
        ("CTI_ROUTE_12B", ",,,hello&queue-thankyou,1,,de,main+r,,,"),
        ("CTI_ROUTE_12C", "place,voicemail,60,sorry"),
        ("CTI_ROUTE_12", "queue,sales,5,1,2,30,45"),
    )
    plain = variables(decided(made()), "1")
    assert plain[-1] == ("CTI_ROUTE_1", f"queue,sales,0,0,{ANYONE},,60")
    assert variables(decided(made(), "1"), "1") == (("CTI_ROUTE_1", "default"),)
    with pytest.raises(ValueError, match="cannot be told"):
        variables(Decision(action="queue", queue="a,b"), "1")


# ------------------------------------------------------------------------------------------ documents

ENTRY = {"id": "main", "numbers": ["5550100"], "queue": "sales"}
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("unknown field", {"rule": []}, "rule: Extra inputs are not permitted"),
    (
        "no zone",
        {"calendars": {"c": {"zone": "Mars/Base"}}},
        "calendars.c.zone: Mars/Base is not a time zone",
    ),
    (
        "no time",
        {"calendars": {"c": {"zone": "UTC", "hours": [{**WEEK, "to": "24:01"}]}}},
        "24:01 is not a time of day",
    ),
    ("no day", {"holidays": {"DE": [{"on": "02-30", "name": "x"}]}}, "02-30 is not a date"),
    (
        "calendar missing",
        {"entries": [{**ENTRY, "calendar": "c", "closed": {"sounds": ["a"]}}]},
        "there is no calendar c",
    ),
    ("half closed", {"entries": [{**ENTRY, "closed": {"sounds": ["a"]}}]}, "calendar and closed go together"),
    (
        "number twice",
        {"entries": [ENTRY, {**ENTRY, "id": "b", "numbers": ["555 0100"]}]},
        "belongs to entry main already",
    ),
    ("id twice", {"entries": [ENTRY, ENTRY]}, "entries.1: main is there already"),
    (
        "holidays missing",
        {"calendars": {"c": {"zone": "UTC", "holidays": "DE"}}},
        "no list of holidays for DE",
    ),
    (
        "entry missing",
        {"rules": [{"id": "r", "when": {"entry": ["x"]}, "then": {"priority": 1}}]},
        "there is no entry x",
    ),
    ("nothing set", {"rules": [{"id": "r", "then": {}}]}, "rules.0.then: set something"),
    ("injection", {"rules": [{"id": "r", "then": {"queue": "sales,r"}}]}, "rules.0.then.queue"),
    (
        "injection by sound",
        {"rules": [{"id": "r", "then": {"announce": {"sounds": ["a&${SHELL(x)}"]}}}]},
        "announce.sounds.0",
    ),
    (
        "two ways",
        {"rules": [{"id": "r", "then": {"target": {"queue": "sales", "place": "goodbye"}}}]},
        "not several",
    ),
    (
        "levels",
        {"rules": [{"id": "r", "then": {"levels": {"best": 2, "worst": 1}}}]},
        "worst must not be less than best",
    ),
    (
        "widen",
        {"rules": [{"id": "r", "then": {"levels": {"widen_every": 7}}}]},
        "widen_every must be one of 5, 10",
    ),
    (
        "no direct queue",
        {"rules": [{"id": "r", "then": {"prefer": [{"agent": "own"}]}}]},
        "name a direct_queue",
    ),
    ("into itself", {"queues": {"sales": {"full": {"queue": "sales"}}}}, "cannot overflow into itself"),
]


@pytest.mark.parametrize(("document", "says"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_wrong_rules_are_refused_with_the_place_and_the_reason(document: dict[str, Any], says: str) -> None:
    with pytest.raises(WrongRules) as told:
        made(**document)
    assert says in str(told.value)


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(WrongRules) as told:
        made(entries=[ENTRY, ENTRY], queues={"sales": {"full": {"queue": "sales"}}})
    assert len(told.value.complaints) == 2


def test_what_is_written_is_what_is_read_again() -> None:
    doc = read_document({"entries": [ENTRY], **HOLIDAYS, "rules": [{"id": "r", "then": {"priority": 1}}]})
    again = doc.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    assert read_document(again) == doc
    assert rule_set(read_document(again), 1) == rule_set(doc, 1)
    assert RulesDoc() == read_document({})


def test_every_step_of_widening_has_its_rule_on_the_pbx() -> None:
    there = (SCENARIOS.parent.parent / "asterisk-config/include/queuerules_cti.conf").read_text()
    assert all(f"[cti-widen-{step}]" in there for step in WIDEN_STEPS)
