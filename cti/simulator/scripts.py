"""What Asterisk says at each step of a call, in the notation of `messages`, taken from recordings of Asterisk 22.

Not in them: DeviceStateChange and QueueMemberStatus, which depend on the other calls and are made by the model, and the
RTCP reports, which depend on sound.
"""

from __future__ import annotations

from cti.simulator.messages import Step

_QUEUE_VARIABLES = (
    ("QUEUENAME", "{queue}"),
    ("QUEUEMAX", "0"),
    ("QUEUESTRATEGY", "rrmemory"),
    ("QUEUECALLS", "{waiting}"),
    ("QUEUEHOLDTIME", "{mean_wait}"),
    ("QUEUETALKTIME", "{mean_talk}"),
    ("QUEUECOMPLETED", "{completed}"),
    ("QUEUEABANDONED", "{abandoned}"),
    ("QUEUESRVLEVEL", "0"),
    ("QUEUESRVLEVELPERF", "0.0"),
)
_MEMBER_VARIABLES = (
    ("MEMBERINTERFACE", "{interface}"),
    ("MEMBERNAME", "{member}"),
    ("MEMBERCALLS", "{calls_taken}"),
    ("MEMBERLASTCALL", "{last_call}"),
    ("MEMBERPENALTY", "{penalty}"),
    ("MEMBERDYNAMIC", "{dynamic}"),
    ("MEMBERREALTIME", "0"),
)
_SOUND = {
    "RTPAUDIOQOS": "ssrc=60904061;themssrc=0;lp=0;rxjitter=0.000000;rxcount=0;txjitter=0.000000;txcount=100;rlp=0;"
    "rtt=0.000000;rxmes=0.000000;txmes=87.231481",
    "RTPAUDIOQOSJITTER": ";".join(
        f"{name}jitter=000.000000"
        for name in ("minrx", "maxrx", "avgrx", "stdevrx", "mintx", "maxtx", "avgtx", "stdevtx")
    )
    + ";",
    "RTPAUDIOQOSLOSS": "".join(
        f"  {name}lost=000.000000;"
        for name in ("minrx", "maxrx", "avgrx", "stdevrx", "mintx", "maxtx", "avgtx", "stdevtx")
    ),
    "RTPAUDIOQOSRTT": "".join(f"     {name}rtt=000.000000;" for name in ("min", "max", "avg", "stdev")),
    "RTPAUDIOQOSMES": "".join(
        f"   {name}mes=000.000000;"
        for name in ("minrx", "maxrx", "avgrx", "stdevrx", "mintx", "maxtx", "avgtx", "stdevtx")
    ),
}


def _set(role: str, variables: tuple[tuple[str, str], ...]) -> str:
    return "\n".join(f"VarSet {role} | {name} | {value}" for name, value in variables)


def _queue(role: str) -> str:
    return _set(role, _QUEUE_VARIABLES)


def _sound(role: str, other: str | None = None) -> str:
    lines = []
    for name, value in _SOUND.items():
        lines.append(f"VarSet {role} | {name} | {value}")
        if other:
            lines.append(f"VarSet {other} | {name}BRIDGED | {value}")
    return "\n".join(lines)


def _times(role: str, answered: bool = True) -> str:
    talked = ("{talked}", "{talked_ms}") if answered else ("0", "0")
    dialled = (("DIALEDTIME", "{lasted}"), ("DIALEDTIME_MS", "{lasted_ms}"))
    talk = (("ANSWEREDTIME", talked[0]), ("ANSWEREDTIME_MS", talked[1]))
    return _set(role, (*talk, *dialled) if answered else (*dialled, *talk))


def _bridge(event: str, number: int, role: str = "") -> str:
    who = f" {role}" if role else ""
    return f"{event}{who} | {{bridge}} | basic | simple_bridge | <unknown> | <unknown> | {number} | none"


def _cdr(leg: str, disposition: str) -> str:
    return (
        'Cdr |  | {ani} | {did} | from-trunk | "{ani_name}" <{ani}> | {caller} | ' + leg + " | Queue"
        " | {queue},tTkKxX,,,60 | {started_at} | {started_at} | {ended_at} | {lasted} | {lasted}"
        f" | {disposition} | DOCUMENTATION | {{call}} |  |"
    )


_QUEUED = (
    "= caller state=Up | priority=8 | line={line} | line_name={line_name} | CTI_CALL={call} | CTI_DID={did}"
)
_LEG = "= agent line={ani} | line_name={ani_name} | CTI_CALL={call} | CTI_DID={did} | exten={did}"
_WITH_AGENT = "= caller line={extension} | line_name={agent_name}"

ARRIVE = Step.of(
    """
    Newchannel caller
    VarSet caller | SIPDOMAIN | 127.0.0.1
    Newexten caller | {did} | NoOp | inbound {ani} to {did}
    = caller priority=2
    Newexten caller | {did} | Set | CALLERID(num)={ani}
    = caller priority=3
    Newexten caller | {did} | Set | __CTI_DID={did}
    = caller CTI_DID={did}
    VarSet caller | __CTI_DID | {did}
    = caller priority=4
    Newexten caller | {did} | Set | __CTI_CALL={call}
    = caller CTI_CALL={call}
    VarSet caller | __CTI_CALL | {call}
    = caller priority=5
    Newexten caller | {did} | ExecIf | 1?Set(CTI_SIPCALLID={sip_call})
    VarSet caller | CTI_SIPCALLID | {sip_call}
    = caller priority=6
    Newexten caller | {did} | UserEvent | CtiInbound,DID: {did},ANI: {ani},Name: {ani_name},SipCallId: {sip_call}
    UserEvent caller | CtiInbound | {did} | {ani} | {ani_name} | {sip_call}
    = caller priority=7
    Newexten caller | {did} | Answer |
    = caller state=Up
    Newstate caller
    """
)
"""A customer reaches the switch and is answered."""

JOIN = Step.of(
    f"""
    {_QUEUED}
    Newexten caller | {{did}} | Queue | {{queue}},tTkKxX,,,60
    VarSet caller | ANSWEREDTIME |
    VarSet caller | ANSWEREDTIME_MS |
    VarSet caller | DIALEDTIME |
    VarSet caller | DIALEDTIME_MS |
    VarSet caller | QUEUEWAIT |
    VarSet caller | QUEUEWAIT_MS |
    QueueCallerJoin caller | {{queue}} | {{position}} | {{count}}
    MusicOnHoldStart caller | default
    """
)
"""They wait in a queue."""

OFFER = Step.of(
    f"""
    {_QUEUED}
    Newchannel agent
    = agent line={{ani}} | line_name={{ani_name}} | CTI_CALL={{call}}
    Newexten agent | s | AppQueue | (Outgoing Line)
    NewConnectedLine agent
    VarSet agent | __CTI_CALL | {{call}}
    = agent CTI_DID={{did}}
    VarSet agent | __CTI_DID | {{did}}
    = agent exten={{did}}
    Newexten agent | {{did}} | AppQueue | (Outgoing Line)
    VarSet agent | DIALEDPEERNUMBER | {{extension}}
    AgentCalled caller agent | {{queue}} | {{interface}} | {{member}}
    DialBegin caller agent | {{interface}}
    """
)
"""A member's phone is called."""

RING = Step.of(
    f"""
    {_QUEUED}
    {_LEG}
    = agent state=Ringing
    Newstate agent
    {_WITH_AGENT}
    NewConnectedLine caller
    DialState caller agent | RINGING
    """
)
"""It rings."""

ANSWER = Step.of(
    f"""
    {_QUEUED}
    {_WITH_AGENT}
    {_LEG}
    = agent state=Up
    Newstate agent
    DialEnd caller agent | ANSWER
    MusicOnHoldStop caller
    {_set("caller", _MEMBER_VARIABLES)}
    {_set("agent", _MEMBER_VARIABLES)}
    VarSet caller | QEHOLDTIME | {{waited}}
    VarSet caller | QEORIGINALPOS | {{position}}
    VarSet agent | QEHOLDTIME | {{waited}}
    VarSet agent | QEORIGINALPOS | {{position}}
    {_queue("caller")}
    {_queue("agent")}
    QueueCallerLeave caller | {{queue}} | {{place}} | {{count}}
    VarSet caller | QUEUEPOSITION | {{place}}
    VarSet caller | QUEUEWAIT | {{waited}}
    VarSet caller | QUEUEWAIT_MS | {{waited_ms}}
    AgentConnect caller agent | {{queue}} | {{interface}} | {{member}} | {{waited}} | {{rang}}
    {_bridge("BridgeCreate", 0)}
    {_bridge("BridgeEnter", 1, "agent")}
    {_bridge("BridgeEnter", 2, "caller")}
    VarSet agent | BRIDGEPEER | {{caller}}
    VarSet agent | BRIDGEPVTCALLID | {{sip_call}}
    VarSet caller | BRIDGEPEER | {{agent}}
    VarSet caller | BRIDGEPVTCALLID | {{bridge}}
    """
)
"""The agent answers, both are bridged."""

CALLER_HANGS_UP = Step.of(
    f"""
    {_QUEUED}
    {_WITH_AGENT}
    {_LEG}
    = agent state=Up
    {_sound("caller", "agent")}
    HangupRequest caller
    AgentComplete caller agent | {{queue}} | {{interface}} | {{member}} | {{waited}} | {{talked}} | caller
    VarSet caller | BRIDGEPEER |
    VarSet caller | BRIDGEPVTCALLID |
    VarSet agent | BRIDGEPEER |
    VarSet agent | BRIDGEPVTCALLID |
    {_bridge("BridgeLeave", 1, "caller")}
    {_queue("caller")}
    {_times("caller")}
    {_queue("caller")}
    SoftHangupRequest caller | 16
    {_cdr("{agent}", "ANSWERED")}
    {_bridge("BridgeLeave", 0, "agent")}
    {_bridge("BridgeDestroy", 0)}
    {_sound("agent")}
    Hangup caller | 16 | Normal Clearing
    Hangup agent | 16 | Normal Clearing
    """
)
"""The talk is over, the caller hung up."""

AGENT_HANGS_UP = Step.of(
    f"""
    {_QUEUED}
    {_WITH_AGENT}
    {_LEG}
    = agent state=Up
    {_sound("agent", "caller")}
    HangupRequest agent
    VarSet agent | BRIDGEPEER |
    VarSet agent | BRIDGEPVTCALLID |
    VarSet caller | BRIDGEPEER |
    VarSet caller | BRIDGEPVTCALLID |
    {_bridge("BridgeLeave", 1, "agent")}
    {_bridge("BridgeLeave", 0, "caller")}
    {_queue("caller")}
    {_times("caller")}
    {_queue("caller")}
    SoftHangupRequest caller | 16
    {_bridge("BridgeDestroy", 0)}
    AgentComplete caller agent | {{queue}} | {{interface}} | {{member}} | {{waited}} | {{talked}} | agent
    Hangup agent | 16 | Normal Clearing
    {_sound("caller")}
    Hangup caller | 16 | Normal Clearing
    {_cdr("{agent}", "ANSWERED")}
    """
)
"""The talk is over, the agent hung up."""

NO_ANSWER = Step.of(
    f"""
    {_QUEUED}
    {_WITH_AGENT}
    {_LEG}
    = agent state=Ringing
    AgentRingNoAnswer caller agent | {{queue}} | {{interface}} | {{member}} | {{rang_ms}}
    DialEnd caller agent | NOANSWER
    DialEnd caller agent | CANCEL
    Hangup agent | 0 | Unknown
    """
)
"""The agent let it ring until the queue gave up on them."""

REFUSED = Step.of(
    f"""
    {_QUEUED}
    {_WITH_AGENT}
    {_LEG}
    = agent state=Ringing
    HangupRequest agent | 17 | 486
    DialEnd caller agent | NOANSWER
    AgentRingNoAnswer caller agent | {{queue}} | {{interface}} | {{member}} | 0
    Hangup agent | 17 | User busy | 486
    """
)
"""The agent's phone said that it is busy."""

_GAVE_UP = f"""
    VarSet caller | QUEUEWAIT | {{waited}}
    VarSet caller | QUEUEWAIT_MS | {{waited_ms}}
    {_times("caller", answered=False)}
"""
_GONE = f"""
    VarSet caller | ABANDONED | TRUE
    {_queue("caller")}
    QueueCallerAbandon caller | {{queue}} | {{place}} | {{position}} | {{waited}}
    {_queue("caller")}
    QueueCallerLeave caller | {{queue}} | {{place}} | {{count}}
    VarSet caller | QUEUEPOSITION | {{place}}
    SoftHangupRequest caller | 16
"""

ABANDON = Step.of(
    f"""
    {_QUEUED}
    {_sound("caller")}
    HangupRequest caller
    MusicOnHoldStop caller
    {_GAVE_UP}
    {_GONE}
    {_cdr("", "ANSWERED")}
    Hangup caller | 0 | Unknown
    """
)
"""The caller hangs up while no phone rings."""

ABANDON_RINGING = Step.of(
    f"""
    {_QUEUED}
    {_WITH_AGENT}
    {_LEG}
    = agent state=Ringing
    {_sound("caller")}
    HangupRequest caller
    MusicOnHoldStop caller
    DialEnd caller agent | CANCEL
    DialEnd caller agent | CANCEL
    {_GAVE_UP}
    Hangup agent | 0 | Unknown
    {_GONE}
    {_cdr("{agent}", "NO ANSWER")}
    Hangup caller | 0 | Unknown
    """
)
"""The caller hangs up while a phone rings for them."""

# ------------------------------------------------------------------------------------------------ click to dial

_DIALLING = (
    "= phone num={number} | name={number_name} | line={number} | line_name={number_name} | CTI_CALL={tag}"
)
_DIALLED = (
    "= customer num={exten} | name={number_name} | line={number} | line_name={number_name} | exten={exten}"
)
_BLANKS = (
    *("DIALSTATUS", "DIALEDPEERNUMBER", "DIALEDPEERNAME", "ANSWEREDTIME", "ANSWEREDTIME_MS", "DIALEDTIME"),
    *("DIALEDTIME_MS", "RINGTIME", "RINGTIME_MS", "PROGRESSTIME", "PROGRESSTIME_MS"),
)

PHONE_RINGS = Step.of(
    f"""
    Newchannel phone
    Newexten phone | s | AppDial2 | (Outgoing Line)
    = phone CTI_CALL={{tag}}
    VarSet phone | CTI_CALL | {{tag}}
    = phone num={{number}} | name={{number_name}}
    NewCallerid phone | 0 (Presentation Allowed, Not Screened)
    {_DIALLING}
    NewConnectedLine phone
    DialBegin - phone | {{extension}}
    = phone state=Ringing
    Newstate phone
    DialState - phone | RINGING
    """
)
"""Originate rings the agent's own phone."""

PHONE_UP = Step.of(f"{_DIALLING}\n= phone state=Up\nNewstate phone")
"""The agent lifts it; the OriginateResponse follows."""

PHONE_DIALS = Step.of(
    f"""
    {_DIALLING}
    = phone state=Up
    DialEnd - phone | ANSWER
    = phone exten={{exten}}
    Newexten phone | {{exten}} | Dial | PJSIP/{{number}}@trunk,30,tTkKxX
    """
    + "\n".join(f"VarSet phone | {name} |" for name in _BLANKS)
    + f"""
    Newchannel customer
    VarSet customer | DIALEDPEERNUMBER | {{number}}@trunk
    {_DIALLED}
    Newexten customer | {{exten}} | AppDial | (Outgoing Line)
    NewCallerid customer | 0 (Presentation Allowed, Not Screened)
    NewConnectedLine customer
    DialBegin phone customer | {{number}}@trunk
    = phone line={{exten}}
    NewConnectedLine phone
    = customer state=Ringing
    Newstate customer
    VarSet phone | RINGTIME | 0
    VarSet phone | RINGTIME_MS | 2
    DialState phone customer | RINGING
    """
)
"""The dialplan calls the customer, whose phone rings."""

_TALKING = f"""
    {_DIALLING}
    = phone state=Up | exten={{exten}} | line={{exten}}
    {_DIALLED}
    = customer state=Up
"""

CUSTOMER_ANSWERS = Step.of(
    f"""
    {_TALKING}
    Newstate customer
    VarSet phone | DIALSTATUS | ANSWER
    VarSet phone | DIALEDPEERNAME | {{customer}}
    VarSet phone | DIALEDPEERNUMBER | {{number}}@trunk
    = customer exten=
    DialEnd phone customer | ANSWER
    {_bridge("BridgeCreate", 0)}
    Newexten customer |  | AppDial | (Outgoing Line)
    {_bridge("BridgeEnter", 1, "customer")}
    {_bridge("BridgeEnter", 2, "phone")}
    VarSet customer | BRIDGEPEER | {{agent}}
    VarSet customer | BRIDGEPVTCALLID | {{bridge}}
    VarSet phone | BRIDGEPEER | {{customer}}
    VarSet phone | BRIDGEPVTCALLID | {{bridge}}
    """
)
"""They talk."""

_DIALLED_CDR = (
    'Cdr |  | {number} | {exten} | from-agent | "{number_name}" <{number}> | {agent} | {customer} | Dial'
    " | PJSIP/{number}@trunk,30,tTkKxX | {started_at} | {started_at} | {ended_at} | {lasted} | {lasted}"
    " | %s | DOCUMENTATION | {call} |  |"
)

DIALLED_CALL_ENDS = Step.of(
    f"""
    {_TALKING}
    = customer exten=
    VarSet phone | BRIDGEPEER |
    VarSet phone | BRIDGEPVTCALLID |
    VarSet customer | BRIDGEPEER |
    VarSet customer | BRIDGEPVTCALLID |
    {_bridge("BridgeLeave", 1, "phone")}
    {_bridge("BridgeLeave", 0, "customer")}
    {_sound("customer")}
    {_bridge("BridgeDestroy", 0)}
    {_times("phone")}
    Hangup customer | 16 | Normal Clearing
    VarSet phone | DIALSTATUS | ANSWER
    SoftHangupRequest phone | 16
    {_sound("phone")}
    {_DIALLED_CDR % "ANSWERED"}
    Hangup phone | 16 | Normal Clearing
    """
)
"""The talk is over."""

CUSTOMER_BUSY = Step.of(
    f"""
    {_TALKING}
    = customer state=Ringing
    HangupRequest customer | 17 | 486
    DialEnd phone customer | BUSY
    Hangup customer | 17 | User busy | 486
    VarSet phone | DIALSTATUS | BUSY
    = phone priority=2
    Newexten phone | {{exten}} | Hangup |
    SoftHangupRequest phone | 16
    {_sound("phone")}
    {_DIALLED_CDR % "BUSY"}
    Hangup phone | 17 | User busy | 486
    """
)
"""The carrier says that the customer is busy, or the call is taken back while it rings."""

PHONE_NOT_ANSWERED = Step.of(
    f"""
    {_DIALLING}
    = phone state=Ringing
    Hangup phone | 19 | User alerting, no answer
    """
)
"""The agent did not lift their own phone."""
