"""What each recorded call must tell, fact by fact, and with which numbers. A story's lines are `line()` of recorded.py,
each led by a letter that stands for its call in order of appearance; changes of data are tested apart.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from datetime import datetime
from functools import cache
from string import ascii_uppercase
from typing import TypeVar

import pytest

from cti.ami_events import (
    BridgeEntered,
    BridgeLeft,
    ChannelAppeared,
    ChannelGone,
    ChannelState,
    ChannelStateChanged,
    DialBegun,
    fields_of,
)
from cti.facts import (
    CallCleared,
    CallDataChanged,
    CallDelivered,
    CallDiverted,
    CallerChanged,
    CallEstablished,
    CallFact,
    CallFailed,
    CallHeld,
    CallMerged,
    CallOffered,
    CallOriginated,
    CallQueued,
    CallRetrieved,
    CallTransferred,
    ConnectionCleared,
    ConnectionState,
    Direction,
    Fact,
)
from cti.legs import TRANSITIONS, Call, IllegalTransition
from tests.recorded import line, messages, model, records, told
from tests.test_calls_properties import KNOWN, LOCALS, WHOLE

T = TypeVar("T", bound=Fact)


@cache
def facts(name: str, *, locals_too: bool = False) -> tuple[Fact, ...]:
    return tuple(told(name, agents={**KNOWN, **LOCALS} if locals_too else KNOWN))


def of(name: str, kind: type[T], *, locals_too: bool = False) -> list[T]:
    return [fact for fact in facts(name, locals_too=locals_too) if isinstance(fact, kind)]


def story(found: tuple[Fact, ...]) -> list[str]:
    letters: dict[str, str] = {}
    lines = []
    for fact in found:
        assert isinstance(fact, CallFact)
        letter = letters.setdefault(fact.call, ascii_uppercase[len(letters)])
        if not isinstance(fact, (CallDataChanged, CallerChanged)):
            lines.append(f"{letter} {line(fact)}")
    return lines


def lines_of(text: str) -> list[str]:
    return [stripped for each in text.strip().splitlines() if (stripped := each.strip())]


STORIES = {
    "02_inbound_answered_agent_hangup": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A connection_cleared agent1101=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
    "03_inbound_answered_caller_hangup": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A connection_cleared agent1101=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
    "04_caller_abandons": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A connection_cleared PJSIP/trunk=null reason=abandoned
        A cleared queue=main:sales outcome=abandoned
    """,
    "05_ringnoanswer": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent2101=initiated queue=main:sales
        A delivered agent2101=alerting queue=main:sales
        A diverted agent2101=null queue=main:sales reason=no_answer
        A offered agent3101=initiated queue=main:sales
        A diverted agent3101=null queue=main:sales reason=busy
        A offered agent2101=initiated queue=main:sales
        A delivered agent2101=alerting queue=main:sales
        A diverted agent2101=null queue=main:sales reason=no_answer
        A offered agent2101=initiated queue=main:sales
        A delivered agent2101=alerting queue=main:sales
        A diverted agent2101=null queue=main:sales reason=no_answer
        A offered agent3101=initiated queue=main:sales
        A diverted agent3101=null queue=main:sales reason=busy
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A connection_cleared agent1101=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
    "07_inbound_pjsip_agent": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered carol=initiated queue=main:sales
        A delivered carol=alerting queue=main:sales
        A established carol=connected queue=main:sales
        A connection_cleared PJSIP/trunk=null reason=normal
        A connection_cleared carol=null reason=normal
        A cleared queue=main:sales outcome=answered
        B originated PJSIP/trunk=initiated
        B queued PJSIP/trunk=queued queue=main:sales
        B offered carol=initiated queue=main:sales
        B delivered carol=alerting queue=main:sales
        B diverted carol=null queue=main:sales reason=busy
        B offered carol=initiated queue=main:sales
        B diverted carol=null queue=main:sales reason=caller_gone
        B connection_cleared PJSIP/trunk=null reason=abandoned
        B cleared queue=main:sales outcome=abandoned
    """,
    "08_blind_transfer_action": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A transferred agent1101=connected kind=blind target=1202
        A connection_cleared agent1101=null reason=transferred
        A offered agent1202=initiated
        A delivered agent1202=alerting
        A established agent1202=connected
        A transferred PJSIP/trunk=connected kind=blind target=9
        A connection_cleared agent1202=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=transferred
        A cleared queue=main:sales outcome=answered
    """,
    "09_blind_transfer_redirect": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A offered agent1202=initiated
        A connection_cleared agent1101=null reason=normal
        A delivered agent1202=alerting
        A transferred agent1101=null kind=by_server
        A established agent1202=connected
        A connection_cleared agent1202=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:sales outcome=answered
        B originated PJSIP/trunk=initiated
        B queued PJSIP/trunk=queued queue=main:sales
        B offered agent1101=initiated queue=main:sales
        B delivered agent1101=alerting queue=main:sales
        B established agent1101=connected queue=main:sales
        B connection_cleared agent1101=null reason=normal
        B connection_cleared PJSIP/trunk=null reason=normal
        B cleared queue=main:sales outcome=answered
        C originated PJSIP/trunk=initiated
        C queued PJSIP/trunk=queued queue=main:sales
        C offered agent1101=initiated queue=main:sales
        C delivered agent1101=alerting queue=main:sales
        C diverted agent1101=null queue=main:sales reason=caller_gone
        C diverted PJSIP/trunk=initiated queue=main:sales reason=timed_out
        C connection_cleared PJSIP/trunk=null reason=normal
        C cleared queue=main:sales outcome=unanswered
    """,
    "10_atxfer_action": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A held agent1101=hold by=phone
        A offered agent1202=initiated
        A held PJSIP/trunk=hold by=server
        A delivered agent1202=alerting
        A established agent1202=connected
        A retrieved agent1101=connected by=phone
        A retrieved PJSIP/trunk=connected by=server
        A transferred agent1101=connected kind=attended
        A connection_cleared agent1101=null reason=transferred
        A connection_cleared agent1202=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
    "11_atxfer_cancel": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A held agent1101=hold by=phone
        A offered agent1202=initiated
        A delivered agent1202=alerting
        A held PJSIP/trunk=hold by=server
        A established agent1202=connected
        A retrieved agent1101=connected by=phone
        A retrieved PJSIP/trunk=connected by=server
        A connection_cleared agent1202=null reason=normal
        A held agent1101=hold by=phone
        A held PJSIP/trunk=hold by=server
        A offered agent2202=initiated
        A delivered agent2202=alerting
        A diverted agent2202=null reason=no_answer
        A retrieved PJSIP/trunk=connected by=server
        A retrieved agent1101=connected by=phone
        A connection_cleared agent1101=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
    "12_consult_transfer_by_hand": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A offered agent1202=initiated
        A delivered agent1202=alerting
        A held PJSIP/trunk=hold by=server
        A held agent1101=hold by=server
        A established agent1202=connected
        A retrieved agent1101=connected by=server
        A retrieved PJSIP/trunk=connected by=server
        A transferred agent1101=null kind=by_server
        A connection_cleared agent1101=null reason=transferred
        A connection_cleared agent1202=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
    "13_hold_by_redirect": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A held PJSIP/trunk=hold by=server
        A held agent1101=hold by=server
        A retrieved PJSIP/trunk=connected by=server
        A retrieved agent1101=connected by=server
        A connection_cleared agent1101=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
    "14_hold_by_redirect_one_leg": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A connection_cleared agent1101=null reason=normal
        A held PJSIP/trunk=hold by=server
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
    "15_hold_by_phone": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A held PJSIP/trunk=hold by=phone
        A retrieved PJSIP/trunk=connected by=phone
        A connection_cleared agent1101=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
    "17_answer_by_ami": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered carol=initiated queue=main:sales
        A delivered carol=alerting queue=main:sales
        A connection_cleared PJSIP/trunk=null reason=abandoned
        A diverted carol=null queue=main:sales reason=no_answer
        A cleared queue=main:sales outcome=abandoned
        B originated Local/3009000@sim-customer=initiated
        B delivered Local/3009000@sim-customer=alerting
        B established Local/3009000@sim-customer=connected
        B connection_cleared Local/3009000@sim-customer=null reason=normal
        B cleared outcome=answered
        C originated carol=initiated
        C delivered carol=alerting
        C established carol=connected
    """,
    "18_conference_three": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A conferenced PJSIP/trunk=connected room=8001 parties=2
        A conferenced agent1101=connected room=8001 parties=2
        B originated Local/1001060@sim-customer=initiated
        B delivered Local/1001060@sim-customer=alerting
        B established Local/1001060@sim-customer=connected
        B conferenced Local/1001060@sim-customer=connected room=8001 parties=3
        A muted PJSIP/trunk=connected
        A muted PJSIP/trunk=connected
        A connection_cleared agent1101=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:sales outcome=answered
        B connection_cleared Local/1001060@sim-customer=null reason=normal
        B cleared outcome=answered
    """,
    "21_predictive": """
        A originated Local/1001012@sim-customer=initiated
        A delivered Local/1001012@sim-customer=alerting
        A established Local/1001012@sim-customer=connected
        A queued Local/1001012@sim-customer=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A connection_cleared Local/1001012@sim-customer=null reason=normal
        A connection_cleared agent1101=null reason=normal
        A cleared queue=main:sales outcome=answered
        B originated Local/4001008@sim-customer=initiated
        B delivered Local/4001008@sim-customer=alerting
        B established Local/4001008@sim-customer=connected
        B connection_cleared Local/4001008@sim-customer=null reason=normal
        B cleared outcome=answered
        C originated Local/8001009@sim-customer=initiated
        C delivered Local/8001009@sim-customer=alerting
        C established Local/8001009@sim-customer=connected
        C connection_cleared Local/8001009@sim-customer=null reason=normal
        C cleared outcome=answered
        D originated Local/1001005@sim-customer=initiated
        D delivered Local/1001005@sim-customer=alerting
        D established Local/1001005@sim-customer=connected
        D queued Local/1001005@sim-customer=queued queue=main:sales
        D connection_cleared Local/1001005@sim-customer=null reason=abandoned
        D cleared queue=main:sales outcome=abandoned
        E originated Local/1001040@sim-customer=initiated
        E delivered Local/1001040@sim-customer=alerting
        E established Local/1001040@sim-customer=connected
        E queued Local/1001040@sim-customer=queued queue=main:sales
        E diverted Local/1001040@sim-customer=connected queue=main:sales reason=timed_out
        E connection_cleared Local/1001040@sim-customer=null reason=normal
        E cleared queue=main:sales outcome=unanswered
    """,
    "23_parking": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A parked PJSIP/trunk=hold slot=701
        B originated agent1102=initiated
        B delivered agent1102=alerting
        B established agent1102=connected
        A unparked PJSIP/trunk=hold reason=retrieved slot=701
        A merged agent1102=connected
        B cleared outcome=merged
        A retrieved PJSIP/trunk=connected by=server
        A transferred agent1101=null kind=by_server
        A connection_cleared agent1101=null reason=transferred
        A connection_cleared agent1102=null reason=normal
        A parked PJSIP/trunk=hold slot=702
        A unparked PJSIP/trunk=hold reason=timed_out slot=702
        A queued PJSIP/trunk=queued queue=main:support
        A offered agent1009=initiated queue=main:support
        A delivered agent1009=alerting queue=main:support
        A established agent1009=connected queue=main:support
        A connection_cleared PJSIP/trunk=null reason=normal
        A connection_cleared agent1009=null reason=normal
        A cleared queue=main:support outcome=answered
        C originated PJSIP/trunk=initiated
        C queued PJSIP/trunk=queued queue=main:sales
        C offered agent1101=initiated queue=main:sales
        C delivered agent1101=alerting queue=main:sales
        C established agent1101=connected queue=main:sales
        C parked PJSIP/trunk=hold slot=703
        C connection_cleared agent1101=null reason=normal
        C unparked PJSIP/trunk=hold reason=given_up slot=703
        C connection_cleared PJSIP/trunk=null reason=normal
        C cleared queue=main:sales outcome=answered
    """,
    "37_pjsip_agent_hangs_up": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered carol=initiated queue=main:sales
        A delivered carol=alerting queue=main:sales
        A established carol=connected queue=main:sales
        A connection_cleared carol=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
    "38_pjsip_no_answer": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered carol=initiated queue=main:sales
        A delivered carol=alerting queue=main:sales
        A diverted carol=null queue=main:sales reason=no_answer
        A connection_cleared PJSIP/trunk=null reason=abandoned
        A cleared queue=main:sales outcome=abandoned
    """,
    "39_click_to_dial_trunk": """
        A originated carol=initiated
        A delivered carol=alerting
        A established carol=connected
        A offered PJSIP/trunk=initiated
        A delivered PJSIP/trunk=alerting
        A established PJSIP/trunk=connected
        A connection_cleared PJSIP/trunk=null reason=normal
        A connection_cleared carol=null reason=normal
        A cleared outcome=answered
        B originated carol=initiated
        B delivered carol=alerting
        B established carol=connected
        B offered PJSIP/trunk=initiated
        B delivered PJSIP/trunk=alerting
        B failed PJSIP/trunk=null reason=busy
        B connection_cleared carol=null reason=normal
        B cleared outcome=unanswered
    """,
    "40_ring_all": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:emergency
        A offered agent1101=initiated queue=main:emergency
        A offered agent1103=initiated queue=main:emergency
        A offered agent1102=initiated queue=main:emergency
        A delivered agent1101=alerting queue=main:emergency
        A delivered agent1103=alerting queue=main:emergency
        A delivered agent1102=alerting queue=main:emergency
        A diverted agent1103=null queue=main:emergency reason=answered_elsewhere
        A diverted agent1101=null queue=main:emergency reason=answered_elsewhere
        A established agent1102=connected queue=main:emergency
        A connection_cleared agent1102=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:emergency outcome=answered
    """,
    "41_overflow_told": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A diverted agent1101=null queue=main:sales reason=no_answer
        A diverted PJSIP/trunk=initiated queue=main:sales reason=timed_out
        A queued PJSIP/trunk=queued queue=main:support
        A diverted PJSIP/trunk=initiated queue=main:support reason=timed_out
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:support outcome=unanswered
    """,
    "42_overflow_untold": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A diverted PJSIP/trunk=initiated queue=main:sales reason=overflowed
        A queued PJSIP/trunk=queued queue=main:support
        A offered agent1102=initiated queue=main:support
        A delivered agent1102=alerting queue=main:support
        A established agent1102=connected queue=main:support
        A connection_cleared agent1102=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:support outcome=answered
    """,
    "43_leave_when_empty": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:staffed
        A offered agent1101=initiated queue=main:staffed
        A delivered agent1101=alerting queue=main:staffed
        A diverted agent1101=null queue=main:staffed reason=no_answer
        A diverted PJSIP/trunk=initiated queue=main:staffed reason=left
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:staffed outcome=unanswered
        B originated PJSIP/trunk=initiated
        B connection_cleared PJSIP/trunk=null reason=normal
        B cleared outcome=unanswered
    """,
    "44_attended_transfer_by_phone": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A held agent1101=hold by=phone
        B originated agent1101=initiated
        B offered agent1102=initiated
        B delivered agent1102=alerting
        B established agent1102=connected
        A retrieved agent1101=connected by=phone
        A merged agent1102=connected
        A transferred agent1101=connected kind=attended
        A connection_cleared agent1101=null reason=transferred
        B connection_cleared agent1101=null reason=transferred
        B cleared outcome=merged
        A connection_cleared PJSIP/trunk=null reason=normal
        A connection_cleared agent1102=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
    "45_blind_transfer_by_phone": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A transferred agent1101=connected kind=blind target=1102
        A connection_cleared agent1101=null reason=transferred
        A offered agent1102=initiated
        A delivered agent1102=alerting
        A established agent1102=connected
        A connection_cleared PJSIP/trunk=null reason=normal
        A connection_cleared agent1102=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
    "46_blonde_transfer_by_phone": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A held agent1101=hold by=phone
        B originated agent1101=initiated
        B offered agent1102=initiated
        B delivered agent1102=alerting
        A retrieved agent1101=connected by=phone
        A transferred agent1101=connected kind=attended
        A merged agent1102=alerting
        B connection_cleared agent1101=null reason=transferred
        B cleared outcome=merged
        A connection_cleared agent1101=null reason=transferred
        A established agent1102=connected
        A connection_cleared agent1102=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
    "47_agent_to_agent": """
        A originated agent1101=initiated
        A offered agent1102=initiated
        A delivered agent1102=alerting
        A established agent1102=connected
        A connection_cleared agent1101=null reason=normal
        A connection_cleared agent1102=null reason=normal
        A cleared outcome=answered
        B originated agent1101=initiated
        B offered agent1103=initiated
        B delivered agent1103=alerting
        B diverted agent1103=null reason=busy
        B connection_cleared agent1101=null reason=normal
        B cleared outcome=unanswered
        C originated agent1101=initiated
        C offered agent1104=initiated
        C delivered agent1104=alerting
        C connection_cleared agent1101=null reason=normal
        C diverted agent1104=null reason=caller_gone
        C cleared outcome=unanswered
    """,
    "48_agent_to_trunk": """
        A originated agent1101=initiated
        A offered PJSIP/trunk=initiated
        A delivered PJSIP/trunk=alerting
        A established PJSIP/trunk=connected
        A connection_cleared PJSIP/trunk=null reason=normal
        A connection_cleared agent1101=null reason=normal
        A cleared outcome=answered
        B originated agent1101=initiated
        B offered PJSIP/trunk=initiated
        B delivered PJSIP/trunk=alerting
        B failed PJSIP/trunk=null reason=busy
        B connection_cleared agent1101=null reason=normal
        B cleared outcome=unanswered
        C originated agent1101=initiated
        C offered PJSIP/trunk=initiated
        C failed PJSIP/trunk=null reason=unreachable
        C connection_cleared agent1101=null reason=normal
        C cleared outcome=failed
        D originated agent1101=initiated
        D offered PJSIP/trunk=initiated
        D connection_cleared agent1101=null reason=normal
        D failed PJSIP/trunk=null reason=congestion
        D cleared outcome=failed
        E originated agent1101=initiated
        E offered PJSIP/trunk=initiated
        E delivered PJSIP/trunk=alerting
        E failed PJSIP/trunk=null reason=caller_gone
        E connection_cleared agent1101=null reason=normal
        E cleared outcome=unanswered
    """,
    "49_agent_behind_local": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1104=initiated queue=main:sales
        A delivered agent1104=alerting queue=main:sales
        A diverted agent1104=null queue=main:sales reason=no_answer
        A offered agent1104=initiated queue=main:sales
        A delivered agent1104=alerting queue=main:sales
        A established agent1104=connected queue=main:sales
        A held agent1104=hold by=phone
        A retrieved agent1104=connected by=phone
        A connection_cleared agent1104=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
    "50_two_phones_of_one_agent": """
        A originated PJSIP/trunk=initiated
        A offered agent1150=initiated
        A offered agent1150=initiated
        A delivered agent1150=alerting
        A delivered agent1150=alerting
        A diverted agent1150=null reason=answered_elsewhere
        A established agent1150=connected
        A connection_cleared PJSIP/trunk=null reason=normal
        A connection_cleared agent1150=null reason=normal
        A cleared outcome=answered
        B originated PJSIP/trunk=initiated
        B queued PJSIP/trunk=queued queue=main:sales
        B offered agent1150=initiated queue=main:sales
        B offered agent1150=initiated queue=main:sales
        B delivered agent1150=alerting queue=main:sales
        B delivered agent1150=alerting queue=main:sales
        B diverted agent1150=null queue=main:sales reason=answered_elsewhere
        B established agent1150=connected queue=main:sales
        B connection_cleared agent1150=null reason=normal
        B connection_cleared PJSIP/trunk=null reason=normal
        B cleared queue=main:sales outcome=answered
    """,
    "51_straight_to_an_agent": """
        A originated PJSIP/trunk=initiated
        A offered agent1101=initiated
        A delivered agent1101=alerting
        A established agent1101=connected
        A connection_cleared agent1101=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared outcome=answered
    """,
    "52_forwarded_on_no_answer": """
        A originated PJSIP/trunk=initiated
        A offered agent1101=initiated
        A delivered agent1101=alerting
        A diverted agent1101=null reason=no_answer
        A offered agent1102=initiated
        A delivered agent1102=alerting
        A established agent1102=connected
        A connection_cleared agent1102=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared outcome=answered
    """,
    "53_caller_gives_up_ringing": """
        A originated PJSIP/trunk=initiated
        A offered agent1101=initiated
        A delivered agent1101=alerting
        A diverted agent1101=null reason=caller_gone
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared outcome=unanswered
        B originated PJSIP/trunk=initiated
        B offered agent1101=initiated
        B offered agent1102=initiated
        B delivered agent1101=alerting
        B delivered agent1102=alerting
        B diverted agent1101=null reason=caller_gone
        B diverted agent1102=null reason=caller_gone
        B connection_cleared PJSIP/trunk=null reason=normal
        B cleared outcome=unanswered
        C originated PJSIP/trunk=initiated
        C queued PJSIP/trunk=queued queue=main:sales
        C offered agent1101=initiated queue=main:sales
        C delivered agent1101=alerting queue=main:sales
        C diverted agent1101=null queue=main:sales reason=caller_gone
        C connection_cleared PJSIP/trunk=null reason=abandoned
        C cleared queue=main:sales outcome=abandoned
    """,
    "54_menu": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:billing
        A offered agent1101=initiated queue=main:billing
        A delivered agent1101=alerting queue=main:billing
        A established agent1101=connected queue=main:billing
        A connection_cleared PJSIP/trunk=null reason=normal
        A connection_cleared agent1101=null reason=normal
        A cleared queue=main:billing outcome=answered
    """,
    "55_bridged_by_the_server": """
        A originated agent1101=initiated
        A delivered agent1101=alerting
        A established agent1101=connected
        B originated PJSIP/trunk=initiated
        B merged agent1101=connected
        A cleared outcome=merged
        B established agent1101=connected
        B connection_cleared PJSIP/trunk=null reason=normal
        B connection_cleared agent1101=null reason=normal
        B cleared outcome=answered
        C originated agent1101=initiated
        C established agent1101=connected
        D originated PJSIP/trunk=initiated
        D queued PJSIP/trunk=queued queue=main:sales
        D merged agent1101=connected
        C cleared outcome=merged
        D established agent1101=connected queue=main:sales
        D connection_cleared PJSIP/trunk=null reason=normal
        D connection_cleared agent1101=null reason=normal
        D cleared queue=main:sales outcome=answered
    """,
    "56_consultation_given_up": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A held agent1101=hold by=phone
        B originated agent1101=initiated
        B offered agent1102=initiated
        B delivered agent1102=alerting
        B established agent1102=connected
        B connection_cleared agent1101=null reason=normal
        B connection_cleared agent1102=null reason=normal
        B cleared outcome=answered
        A retrieved agent1101=connected by=phone
        A connection_cleared agent1101=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
    "57_ringing_queue": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A connection_cleared agent1101=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
    "58_consulted_outside": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A held agent1101=hold by=phone
        B originated agent1101=initiated
        B offered PJSIP/trunk=initiated
        B delivered PJSIP/trunk=alerting
        B established PJSIP/trunk=connected
        A retrieved agent1101=connected by=phone
        A merged PJSIP/trunk=connected
        A transferred agent1101=connected kind=attended
        A connection_cleared agent1101=null reason=transferred
        B connection_cleared agent1101=null reason=transferred
        B cleared outcome=merged
        A connection_cleared PJSIP/trunk=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
    "59_local_taken_out": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1104=initiated queue=main:sales
        A delivered agent1104=alerting queue=main:sales
        A established agent1104=connected queue=main:sales
        A connection_cleared PJSIP/trunk=null reason=normal
        A connection_cleared agent1104=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
    "60_click_to_dial": """
        A originated agent1101=initiated
        A delivered agent1101=alerting
        A established agent1101=connected
        A offered PJSIP/trunk=initiated
        A delivered PJSIP/trunk=alerting
        A established PJSIP/trunk=connected
        A connection_cleared PJSIP/trunk=null reason=normal
        A connection_cleared agent1101=null reason=normal
        A cleared outcome=answered
    """,
    "61_conference_dialled_into": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1101=initiated queue=main:sales
        A delivered agent1101=alerting queue=main:sales
        A established agent1101=connected queue=main:sales
        A conferenced PJSIP/trunk=connected room=8001 parties=1
        A conferenced agent1101=connected room=8001 parties=2
        B originated agent1102=initiated
        B established agent1102=connected
        B conferenced agent1102=connected room=8001 parties=3
        A connection_cleared PJSIP/trunk=null reason=normal
        B connection_cleared agent1102=null reason=normal
        B cleared outcome=answered
        A connection_cleared agent1101=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
}

STORIES_OF_AGENTS_BEHIND_LOCAL_CHANNELS = {
    "49_agent_behind_local": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1104=initiated queue=main:sales
        A delivered agent1104=alerting queue=main:sales
        A diverted agent1104=null queue=main:sales reason=no_answer
        A offered agent1104=initiated queue=main:sales
        A delivered agent1104=alerting queue=main:sales
        A established agent1104=connected queue=main:sales
        A held agent1104=hold by=phone
        A retrieved agent1104=connected by=phone
        A connection_cleared agent1104=null reason=normal
        A connection_cleared PJSIP/trunk=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
    "50_two_phones_of_one_agent": """
        A originated PJSIP/trunk=initiated
        A offered agent1150=initiated
        A offered agent1150=initiated
        A delivered agent1150=alerting
        A delivered agent1150=alerting
        A diverted agent1150=null reason=answered_elsewhere
        A established agent1150=connected
        A connection_cleared PJSIP/trunk=null reason=normal
        A connection_cleared agent1150=null reason=normal
        A cleared outcome=answered
        B originated PJSIP/trunk=initiated
        B queued PJSIP/trunk=queued queue=main:sales
        B offered agent1150=initiated queue=main:sales
        B delivered agent1150=alerting queue=main:sales
        B established agent1150=connected queue=main:sales
        B connection_cleared agent1150=null reason=normal
        B connection_cleared PJSIP/trunk=null reason=normal
        B cleared queue=main:sales outcome=answered
    """,
    "59_local_taken_out": """
        A originated PJSIP/trunk=initiated
        A queued PJSIP/trunk=queued queue=main:sales
        A offered agent1104=initiated queue=main:sales
        A delivered agent1104=alerting queue=main:sales
        A established agent1104=connected queue=main:sales
        A connection_cleared PJSIP/trunk=null reason=normal
        A connection_cleared agent1104=null reason=normal
        A cleared queue=main:sales outcome=answered
    """,
}

ENDS = {
    "02_inbound_answered_agent_hangup": [
        ("answered", 4.86, 1.0, 3.01, 0.0, 16, "main:sales", ("agent1101",)),
    ],
    "03_inbound_answered_caller_hangup": [
        ("answered", 5.03, 1.01, 3.51, 0.0, 16, "main:sales", ("agent1101",)),
    ],
    "04_caller_abandons": [
        ("abandoned", 4.02, 3.51, 0.0, 0.0, 0, "main:sales", ()),
    ],
    "05_ringnoanswer": [
        ("answered", 25.02, 22.02, 2.49, 0.0, 16, "main:sales", ("agent2101", "agent3101", "agent1101")),
    ],
    "07_inbound_pjsip_agent": [
        ("answered", 6.01, 2.02, 3.49, 0.0, 16, "main:sales", ("carol",)),
        ("abandoned", 3.01, 2.51, 0.0, 0.0, 17, "main:sales", ("carol",)),
    ],
    "08_blind_transfer_action": [
        ("answered", 6.54, 1.0, 4.01, 0.0, 16, "main:sales", ("agent1101", "agent1202")),
    ],
    "09_blind_transfer_redirect": [
        ("answered", 6.53, 1.01, 4.01, 0.0, 16, "main:sales", ("agent1101", "agent1202")),
        ("answered", 2.52, 1.0, 1.01, 0.0, 16, "main:sales", ("agent1101",)),
        ("unanswered", 0.51, 0.0, 0.0, 0.0, 0, "main:sales", ("agent1101",)),
    ],
    "10_atxfer_action": [
        ("answered", 8.04, 1.02, 4.01, 3.01, 16, "main:sales", ("agent1101", "agent1202")),
    ],
    "11_atxfer_cancel": [
        ("answered", 16.86, 1.01, 8.84, 7.31, 16, "main:sales", ("agent1101", "agent1202", "agent2202")),
    ],
    "12_consult_transfer_by_hand": [
        ("answered", 8.62, 1.0, 5.1, 3.09, 16, "main:sales", ("agent1101", "agent1202")),
    ],
    "13_hold_by_redirect": [
        ("answered", 6.52, 1.0, 3.01, 2.0, 16, "main:sales", ("agent1101",)),
    ],
    "15_hold_by_phone": [
        ("answered", 6.54, 1.0, 3.01, 2.02, 16, "main:sales", ("agent1101",)),
    ],
    "18_conference_three": [
        ("answered", 6.53, 1.01, 5.02, 0.0, 16, "main:sales", ("agent1101",)),
        ("answered", 5.01, 0.0, 3.01, 0.0, 16, None, ()),
    ],
    "21_predictive": [
        ("answered", 7.0, 1.0, 3.03, 0.0, 16, "main:sales", ("agent1101",)),
        ("answered", 3.74, 0.0, 0.0, 0.0, 16, None, ()),
        ("answered", 3.99, 0.0, 0.0, 0.0, 16, None, ()),
        ("abandoned", 8.83, 7.83, 0.0, 0.0, 16, "main:sales", ()),
        ("unanswered", 21.02, 20.02, 0.0, 0.0, 16, "main:sales", ()),
    ],
    "23_parking": [
        ("merged", 1.0, 0.0, 0.0, 0.0, 0, None, ("agent1102",)),
        ("answered", 13.56, 2.01, 6.01, 5.03, 16, "main:support", ("agent1101", "agent1102", "agent1009")),
        ("answered", 3.52, 1.01, 1.01, 1.01, 16, "main:sales", ("agent1101",)),
    ],
    "40_ring_all": [
        ("answered", 4.39, 1.52, 2.36, 0.0, 16, "main:emergency", ("agent1101", "agent1103", "agent1102")),
    ],
    "41_overflow_told": [
        ("unanswered", 9.53, 8.02, 0.0, 0.0, 16, "main:support", ("agent1101",)),
    ],
    "42_overflow_untold": [
        ("answered", 9.04, 6.52, 2.01, 0.0, 16, "main:support", ("agent1102",)),
    ],
    "43_leave_when_empty": [
        ("unanswered", 7.51, 6.01, 0.0, 0.0, 16, "main:staffed", ("agent1101",)),
        ("unanswered", 1.51, 0.0, 0.0, 0.0, 16, None, ()),
    ],
    "44_attended_transfer_by_phone": [
        ("merged", 2.85, 0.0, 2.34, 0.0, 16, None, ("agent1101", "agent1102")),
        ("answered", 8.87, 0.51, 4.35, 4.35, 16, "main:sales", ("agent1101", "agent1102")),
    ],
    "45_blind_transfer_by_phone": [
        ("answered", 5.55, 0.52, 4.01, 0.0, 16, "main:sales", ("agent1101", "agent1102")),
    ],
    "46_blonde_transfer_by_phone": [
        ("merged", 1.02, 0.0, 0.0, 0.0, 16, None, ("agent1101", "agent1102")),
        ("answered", 10.54, 0.51, 4.52, 2.02, 16, "main:sales", ("agent1101", "agent1102")),
    ],
    "47_agent_to_agent": [
        ("answered", 2.52, 0.0, 2.0, 0.0, 16, None, ("agent1101", "agent1102")),
        ("unanswered", 0.31, 0.0, 0.0, 0.0, 17, None, ("agent1101", "agent1103")),
        ("unanswered", 2.02, 0.0, 0.0, 0.0, 127, None, ("agent1101", "agent1104")),
    ],
    "49_agent_behind_local": [
        ("answered", 14.37, 8.02, 3.51, 2.34, 16, "main:sales", ("agent1104",)),
    ],
    "51_straight_to_an_agent": [
        ("answered", 2.52, 0.0, 2.01, 0.0, 16, None, ("agent1101",)),
    ],
    "52_forwarded_on_no_answer": [
        ("answered", 5.52, 0.0, 2.0, 0.0, 16, None, ("agent1101", "agent1102")),
    ],
    "53_caller_gives_up_ringing": [
        ("unanswered", 1.51, 0.0, 0.0, 0.0, 127, None, ("agent1101",)),
        ("unanswered", 1.52, 0.0, 0.0, 0.0, 127, None, ("agent1101", "agent1102")),
        ("abandoned", 2.02, 1.51, 0.0, 0.0, 0, "main:sales", ("agent1101",)),
    ],
    "56_consultation_given_up": [
        ("answered", 2.02, 0.0, 1.51, 0.0, 16, None, ("agent1101", "agent1102")),
        ("answered", 7.56, 0.51, 3.02, 3.52, 16, "main:sales", ("agent1101",)),
    ],
    "58_consulted_outside": [
        ("merged", 2.54, 0.0, 1.52, 0.0, 16, None, ("agent1101",)),
        ("answered", 8.09, 0.51, 3.54, 3.55, 16, "main:sales", ("agent1101",)),
    ],
    "61_conference_dialled_into": [
        ("answered", 3.84, 0.0, 3.34, 0.0, 16, None, ("agent1102",)),
        ("answered", 8.37, 0.51, 6.85, 0.0, 16, "main:sales", ("agent1101",)),
    ],
}
"""By trace, of each call: outcome, then seconds: duration, waited, talked, held; cause, queue, agents."""


@pytest.mark.parametrize("name", STORIES)
def test_story(name: str) -> None:
    assert story(facts(name)) == lines_of(STORIES[name])


@pytest.mark.parametrize("name", STORIES_OF_AGENTS_BEHIND_LOCAL_CHANNELS)
def test_story_of_an_agent_whose_phone_is_behind_a_local_channel(name: str) -> None:
    """The Local channel and the phone behind it are one agent, told once: who is rung, who holds, who talks."""
    assert story(facts(name, locals_too=True)) == lines_of(STORIES_OF_AGENTS_BEHIND_LOCAL_CHANNELS[name])


@pytest.mark.parametrize(
    "name", ["24_mixmonitor", "16_mute_audio", "31_event_mask", "32_variables", "33_dtmf"]
)
def test_what_is_no_call_control_tells_an_ordinary_call(name: str) -> None:
    """Recording, muting, digits, variables; an agent that plays music is not on hold."""
    kinds = [type(fact) for fact in facts(name) if not isinstance(fact, CallDataChanged)]
    ordinary = [CallOriginated, CallQueued, CallOffered, CallDelivered, CallEstablished]
    assert kinds == [*ordinary, ConnectionCleared, ConnectionCleared, CallCleared]


@pytest.mark.parametrize("name", WHOLE)
def test_nothing_is_left(name: str) -> None:
    calls = model(KNOWN)
    for record in records(name):
        calls.apply(record)
    assert not any(calls.sizes().values())
    assert len(calls) == 0


# ------------------------------------------------------------------------------------------------ numbers


def alive() -> int:
    return sum(type(thing) is Call for thing in gc.get_objects())


@pytest.mark.parametrize("name", WHOLE)
def test_what_has_ended_is_gone_without_the_garbage_collector(name: str) -> None:
    """At hundreds of calls a second what only it can find is a pause for everybody, and memory that creeps up."""
    gc.collect()
    gc.disable()
    try:
        before = alive()
        calls = model()
        for record in records(name):
            calls.apply(record)
        assert alive() - before == len(calls)
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ENDS)
def test_numbers_at_the_end(name: str) -> None:
    found = [
        (
            fact.outcome,
            round(fact.duration, 2),
            round(fact.waited, 2),
            round(fact.talked, 2),
            round(fact.held, 2),
            fact.cause,
            fact.queue,
            fact.agents,
        )
        for fact in of(name, CallCleared)
    ]
    assert found == ENDS[name]


def talk_by_hand(name: str) -> dict[str, float]:
    """Seconds each channel was in a bridge with another while neither held, from the raw events alone."""
    members: dict[str, set[str]] = defaultdict(set)
    where: dict[str, str] = {}
    holding: set[str] = set()
    talked: dict[str, float] = defaultdict(float)
    last = 0.0
    for raw in messages(name):
        f = fields_of(raw) if raw.startswith(b"Event: ") else {}
        if "Timestamp" not in f or "ActionID" in f:
            continue
        now = float(f["Timestamp"])
        for channel, bridge in where.items():
            others = members[bridge] - {channel}
            if channel not in holding and any(other not in holding for other in others):
                talked[channel] += now - last
        last = now
        match f["Event"]:
            case "BridgeEnter":
                where[f["Uniqueid"]] = f["BridgeUniqueid"]
                members[f["BridgeUniqueid"]].add(f["Uniqueid"])
            case "BridgeLeave":
                members[f["BridgeUniqueid"]].discard(f["Uniqueid"])
                if where.get(f["Uniqueid"]) == f["BridgeUniqueid"]:
                    del where[f["Uniqueid"]]
            case "Hold":
                holding.add(f["Uniqueid"])
            case "Unhold":
                holding.discard(f["Uniqueid"])
    return talked


BY_HAND = [
    name
    for name in WHOLE
    if name[:2] in {"02", "03", "05", "07", "08", "09", "12", "13", "14", "15", "16", "18"}
]
BY_HAND += [
    name
    for name in WHOLE
    if name[:2] in {"37", "40", "44", "45", "46", "47", "48", "51", "52", "56", "58", "61"}
]


@pytest.mark.parametrize("name", BY_HAND)
def test_talk_time_is_what_the_bridges_say(name: str) -> None:
    by_hand = talk_by_hand(name)
    for fact in of(name, ConnectionCleared):
        assert fact.talked == pytest.approx(by_hand[fact.connection.id.removeprefix("main:")], abs=0.02), fact


@pytest.mark.parametrize("name", WHOLE)
def test_times_are_asterisks_and_in_order(name: str) -> None:
    times = [record.at for record in records(name) if record.at]
    found = [fact.at for fact in facts(name)]
    assert found == sorted(found)
    assert all(at.tzinfo is not None and times[0] <= at.timestamp() <= times[-1] for at in found)


def test_ids_directions_numbers() -> None:
    (begin,) = of("02", CallOriginated)
    assert begin.call == begin.view.id == "main:1795288748.10"
    assert begin.connection.id == "main:1795288748.10"
    assert (begin.view.pbx, begin.view.direction) == ("main", Direction.INBOUND)
    assert (begin.view.ani, begin.view.ani_name, begin.view.dnis) == (
        "15551234567",
        "Ada Lovelace",
        "5550100",
    )
    (offered,) = of("02", CallOffered)
    assert (offered.connection.id, offered.connection.device) == (
        "main:1795288749.11",
        "Local/1101@sim-agent",
    )
    assert (offered.agent, offered.queue) == ("agent1101", "main:sales")
    (established,) = of("02", CallEstablished)
    assert established.waited == pytest.approx(1.0, abs=0.05)
    assert established.rang == pytest.approx(1.0, abs=0.05)
    assert established.view.answered == established.at
    assert [c.state for c in established.view.connections] == [ConnectionState.CONNECTED] * 2


@pytest.mark.parametrize(
    ("name", "directions"),
    [
        ("02", [Direction.INBOUND]),
        ("47", [Direction.INTERNAL] * 3),
        ("48", [Direction.OUTBOUND] * 5),
        ("51", [Direction.INBOUND]),
        ("44", [Direction.INBOUND, Direction.INTERNAL]),
        ("58", [Direction.INBOUND, Direction.OUTBOUND]),
        ("60", [Direction.OUTBOUND]),
    ],
)
def test_directions(name: str, directions: list[Direction]) -> None:
    last: dict[str, Direction] = {}
    for fact in facts(name):
        view = getattr(fact, "view", None)
        if view is not None:
            last[view.id] = view.direction
    assert list(last.values()) == directions


def test_the_number_called_outside() -> None:
    """As the agent dialed it, prefix and all, when the phone dialed; as sent to the carrier when the server did."""
    dialled = [fact.view for fact in of("48", CallOffered)]
    assert dialled[0].dnis == "915550001"
    assert dialled[0].connections[1].number == "15550001"
    (click,) = of("60", CallOffered)
    assert (click.view.dnis, click.connection.number) == ("15550001", "15550001")
    assert [
        fact.view.dnis for fact in of("20", CallEstablished) if fact.connection.device == "PJSIP/trunk"
    ] == ["15550001"]


def test_the_wait_is_that_of_the_queue_that_answered() -> None:
    (established,) = of("42", CallEstablished)
    assert established.queue == "main:support"
    assert established.waited == pytest.approx(2.5, abs=0.05)
    (end,) = of("42", CallCleared)
    assert end.waited == pytest.approx(6.5, abs=0.05), "both waits"


def test_overflow_into_a_second_queue() -> None:
    told_ = [(fact.reason, fact.queue) for fact in of("41", CallDiverted) if fact.agent is None]
    assert told_ == [("timed_out", "main:sales"), ("timed_out", "main:support")]
    untold = [(fact.reason, fact.queue) for fact in of("42", CallDiverted) if fact.agent is None]
    assert untold == [("overflowed", "main:sales")], "all that is known is that another queue has them"


def test_why_attempts_failed() -> None:
    outcomes = [(fact.reason, fact.cause) for fact in of("20", CallFailed)]
    assert outcomes == [
        ("busy", 0),
        ("busy", 17),
        ("unreachable", 1),
        ("congestion", 34),
        ("no_answer", 19),
        ("no_answer", 18),
        ("rejected", 21),
        ("rejected", 21),
        ("no_answer", 19),
    ]
    by_reason = [
        (fact.reason, end.outcome)
        for fact, end in zip(of("48", CallFailed), of("48", CallCleared)[1:], strict=True)
    ]
    assert by_reason == [
        ("busy", "unanswered"),
        ("unreachable", "failed"),
        ("congestion", "failed"),
        ("caller_gone", "unanswered"),
    ]


def test_a_transfer_says_who_and_how() -> None:
    (blind,) = of("45", CallTransferred)
    assert (blind.kind, blind.target, blind.by and blind.by.agent) == ("blind", "1102", "agent1101")
    (attended,) = of("44", CallTransferred)
    assert (attended.kind, attended.by and attended.by.agent) == ("attended", "agent1101")
    assert {c.agent for c in attended.view.connections} == {None, "agent1101", "agent1102"}
    assert [fact.reason for fact in of("44", ConnectionCleared)][:2] == ["transferred", "transferred"]


@pytest.mark.parametrize("gone_first", [True, False])
def test_taken_over_by_a_supervisor(gone_first: bool) -> None:
    """Asterisk may tell of the agent's end before, or after, the two others are together; it is one transfer."""
    calls = model({"PJSIP/1101": "anna", "PJSIP/1102": "sara"})
    up, down = ChannelState.UP, ChannelState.DOWN
    talk = [
        ChannelAppeared(1.0, "1.0", "1.0", "PJSIP/trunk-1", down, "15551", None, "5550100", "from-trunk", {}),
        ChannelAppeared(2.0, "1.1", "1.0", "PJSIP/1101-2", down, "1101", None, "", "from-agent", {}),
        DialBegun(2.0, "1.0", "1.1"),
        ChannelStateChanged(2.5, "1.0", "1.0", up),
        ChannelStateChanged(3.0, "1.1", "1.0", up),
        BridgeEntered(3.0, "1.1", "1.0", "b", "simple_bridge"),
        BridgeEntered(3.0, "1.0", "1.0", "b", "simple_bridge"),
    ]
    ends = [BridgeLeft(4.0, "1.1", "1.0", "b"), ChannelGone(4.0, "1.1", "1.0", 16)]
    together = [
        BridgeEntered(5.0, "s.1", "s.1", "c", "simple_bridge"),
        BridgeLeft(5.0, "1.0", "1.0", "b"),
        BridgeEntered(5.0, "1.0", "1.0", "c", "simple_bridge"),
    ]
    for record in talk:
        calls.apply(record)
    calls.expect("main:1.0", "s.1", "PJSIP/1102-3")
    order = [*ends, *together] if gone_first else [*together, *ends]
    found = [fact for record in order for fact in calls.apply(record)]
    (moved,) = [fact for fact in found if isinstance(fact, CallTransferred)]
    assert moved.by is not None
    assert (moved.by.agent, moved.kind) == ("anna", "by_server")
    assert [fact.agent for fact in found if isinstance(fact, CallEstablished)] == ["sara"]


def test_a_consultation_knows_what_it_is_about() -> None:
    first, second = of("44", CallOriginated)
    assert (first.view.consult_of, second.view.consult_of) == (None, first.call)
    (merged,) = of("44", CallMerged)
    assert (merged.call, merged.merged, merged.connection.agent) == (first.call, second.call, "agent1102")
    ends = {fact.call: fact for fact in of("44", CallCleared)}
    assert ends[second.call].outcome == "merged"
    assert ends[second.call].merged_into == first.call


def test_a_blonde_transfer_takes_the_ringing_target_along() -> None:
    """Joined before the target has answered: it goes on ringing, for the customer's call."""
    (merged,) = of("46", CallMerged)
    assert (merged.connection.agent, merged.connection.state) == ("agent1102", ConnectionState.ALERTING)
    (through,) = [fact for fact in of("46", CallEstablished) if fact.agent == "agent1102"]
    assert through.call == merged.call
    assert {c.agent for c in through.view.connections} == {None, "agent1102"}


def test_holds() -> None:
    """By the phone, also where it is behind a Local channel; by the server both sides are on hold."""
    for name, locals_too in (("44", False), ("49", False), ("49", True), ("56", False)):
        (held,) = of(name, CallHeld, locals_too=locals_too)
        assert held.by == "phone"
        assert held.agent in {"agent1101", "agent1104"}
    (retrieved,) = of("49", CallRetrieved)
    assert retrieved.held == pytest.approx(2.34, abs=0.02)
    assert {(fact.agent, fact.by) for fact in of("13", CallHeld)} == {
        ("agent1101", "server"),
        (None, "server"),
    }


def test_an_agent_who_waits_off_hook() -> None:
    """Asterisk gives the customer the older Linkedid of the agent's waiting leg. The customer's call goes on all the same,
    keeps who called and where they waited, and ends when they leave, while the agent waits on in a call of their own."""
    first, one, returned, two = of("55", CallOriginated)
    assert (first.call, one.view.direction) == ("main:off-hook", Direction.INBOUND)
    assert [(fact.call, fact.connection.agent, fact.merged) for fact in of("55", CallMerged)] == [
        (one.call, "agent1101", first.call),
        (two.call, "agent1101", returned.call),
    ]
    ends = {fact.call: fact for fact in of("55", CallCleared)}
    assert [ends[call].outcome for call in (one.call, two.call)] == ["answered", "answered"]
    assert ends[two.call].queue == "main:sales"
    assert ends[two.call].waited == pytest.approx(1.5, abs=0.05)
    assert all(ends[call].talked == pytest.approx(2.01, abs=0.02) for call in (one.call, two.call))
    assert len({fact.call for fact in of("55", CallOriginated)}) == 4
    (answered,) = [fact for fact in of("55", CallEstablished) if fact.queue]
    assert (answered.agent, answered.call, answered.rang) == ("agent1101", two.call, None)


def test_data_from_the_menu_and_from_channel_variables() -> None:
    ivr, pbx = of("54", CallDataChanged)
    assert (ivr.by, ivr.changed) == ("ivr", {"CustomerNumber": "4711", "Menu": "billing"})
    assert (pbx.by, pbx.changed["CTI_DID"]) == ("pbx", "5550500")
    (offered,) = of("54", CallOffered)
    assert offered.view.data == {**ivr.changed, **pbx.changed}, "known before the phone rings"


def test_a_conference_room_is_shared_by_calls() -> None:
    views = {}
    for fact in facts("61"):
        view = getattr(fact, "view", None)
        if view is not None:
            views[view.id] = view
    assert [view.conference for view in views.values()] == ["8001", "8001"]


# ------------------------------------------------------------------------------------------------ asked and told to


def test_set_data() -> None:
    calls = model(KNOWN)
    for record in records("25"):
        calls.apply(record)
    call = calls.views()[0].id
    (changed,) = calls.set_data(call, {"account": "17", "note": "vip"}, by="agent1101", at=1.0)
    assert isinstance(changed, CallDataChanged)
    assert (changed.changed, changed.by) == ({"account": "17", "note": "vip"}, "agent1101")
    assert calls.set_data(call, {"account": "17"}, by="agent1101", at=2.0) == [], "no change, no fact"
    assert calls.set_data(call, {"note": ""}, by="agent1101", at=3.0)
    view = calls.view(call)
    assert view is not None
    assert view.data["account"] == "17"
    assert "note" not in view.data
    assert calls.set_data("main:none", {"a": "b"}, by="x", at=4.0) == []


def test_what_is_asked_of_a_call() -> None:
    calls = model({**KNOWN, **LOCALS})
    for record in records("49"):
        if type(record).__name__ == "PhoneHeld":
            break
        calls.apply(record)
    (view,) = calls.views()
    assert calls.view(view.id) == view
    assert calls.agents_in(view.id) == ("agent1104",)
    assert calls.queue_of(view.id) == "main:sales"
    assert calls.channels_of(view.id, "agent1104") == ["1795295621.58"]
    assert (calls.view("main:none"), calls.agents_in("main:none"), calls.channels_of("main:none", "x")) == (
        None,
        (),
        [],
    )


def test_channel_of_a_connection_whose_local_channel_was_taken_out() -> None:
    calls = model({**KNOWN, **LOCALS})
    for record in records("59"):
        if type(record).__name__ == "HangupRequested" and len(calls.views()[0].connections) == 2:
            seen = calls.channels_of(calls.views()[0].id, "agent1104")
        calls.apply(record)
    assert seen == ["1795296418.3"], "the phone's own channel: the Local one is gone"


def test_unknown_channels_are_counted() -> None:
    calls = model()
    assert calls.apply(ChannelStateChanged(1.0, "9.9", "9.9", ChannelState.UP)) == []
    assert calls.unknown == 1


@pytest.mark.parametrize("state", list(ConnectionState))
def test_every_state_says_where_it_may_go(state: ConnectionState) -> None:
    assert TRANSITIONS[state] <= set(ConnectionState)
    if state is not ConnectionState.NULL:
        assert ConnectionState.NULL in TRANSITIONS[state], "every connection can end"
        assert state not in TRANSITIONS[state]


def test_an_illegal_move_changes_nothing() -> None:
    calls = model()
    for record in records("04"):
        calls.apply(record)
        if calls.views():
            break
    (leg,) = calls._legs.values()
    before = calls.views()
    leg.state = ConnectionState.FAIL
    with pytest.raises(IllegalTransition, match="fail → connected"):
        calls._enter(leg, ConnectionState.CONNECTED, 1.0)
    leg.state = before[0].connections[0].state
    assert calls.views() == before


def test_moments_are_aware() -> None:
    assert all(isinstance(fact.at, datetime) and fact.at.utcoffset() is not None for fact in facts("02"))
