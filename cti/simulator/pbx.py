"""A small PBX without telephones: queues, members and calls, and what Asterisk would say about them. No I/O.

Time is driven from outside: `advance` does all that is due. What is said is gathered as bytes, for a client who hears all
(`full`) and for one with the rights and filter of asterisk-config/include/manager_cti.conf (`lean`), until `take`.
"""

from __future__ import annotations

import heapq
import itertools
import random
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from cti.simulator import scripts
from cti.simulator.messages import Step, Values, message, template
from cti.simulator.plan import Caller, Plan, Span

NOT_IN_USE, IN_USE, INVALID, UNAVAILABLE, RINGING = 1, 2, 4, 5, 6
DEVICE_STATES = {NOT_IN_USE: "NOT_INUSE", IN_USE: "INUSE", RINGING: "RINGING", UNAVAILABLE: "UNAVAILABLE"}


class Refused(Exception):
    """The PBX does not do this; the message is Asterisk's."""


@dataclass(slots=True, eq=False)
class Phone:
    """An agent's phone. `call` is the one it rings for or talks on."""

    interface: str
    extension: str
    name: str
    status: int = NOT_IN_USE
    members: dict[str, Member] = field(default_factory=dict)
    call: Call | None = None


@dataclass(slots=True, eq=False)
class Member:
    """A phone in a queue; `phone` is None for an interface that this PBX does not have."""

    queue: Queue
    interface: str
    name: str
    state_interface: str
    phone: Phone | None
    penalty: int = 0
    paused: bool = False
    reason: str = ""
    dynamic: bool = True
    taken: int = 0
    last_call: int = 0
    last_pause: int = 0
    since: int = 0
    in_call: bool = False

    @property
    def status(self) -> int:
        """Asterisk's number for the phone's state."""
        return self.phone.status if self.phone is not None else INVALID


@dataclass(slots=True, eq=False)
class Queue:
    """A queue. `free` holds the members who can be called, who has been so for longest first; `unserved` the callers for
    whom nothing rings; `waiting` all callers."""

    name: str
    members: dict[str, Member] = field(default_factory=dict)
    free: dict[str, Member] = field(default_factory=dict)
    waiting: dict[int, Call] = field(default_factory=dict)
    unserved: deque[Call] = field(default_factory=deque)
    available: bool = False
    completed: int = 0
    abandoned: int = 0
    waited: float = 0.0
    talked: float = 0.0


@dataclass(slots=True, eq=False)
class Call:
    """A call. `turn` counts its stages: what was planned for an earlier one is void. `values` fill its messages in."""

    number: int
    values: Values
    queue: Queue | None
    started: float
    stage: str = "arriving"
    turn: int = 0
    joined: float = 0.0
    gives_up: float = 0.0
    rang: float = 0.0
    answered: float = 0.0
    position: int = 1
    member: Member | None = None
    phone: Phone | None = None
    leg_started: float = 0.0


def _escaped(text: str) -> bytes:
    """As Asterisk writes names in events."""
    return text.replace("\\", "\\\\").replace("'", "\\'").replace('"', '\\"').encode()


def _clean(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


_DEVICE_EVENT = template(
    message(
        [
            ("Event", "DeviceStateChange"),
            ("Privilege", "call,all"),
            ("Timestamp", "{t}"),
            ("Device", "{device}"),
            ("State", "{state}"),
        ]
    )
)


class Pbx:
    """The PBX. `clock` gives Unix seconds."""

    def __init__(self, plan: Plan, *, clock: Callable[[], float]) -> None:
        self.plan = plan
        self._clock = clock
        self._random = random.Random(plan.seed)  # noqa: S311  # it plays people, it keeps no secret
        self._full: list[bytes] = []
        self._lean: list[bytes] = []
        self.hears_full = self.hears_lean = False
        self.events = self.lean_events = self.offers = self.arrived = self.turned_away = 0
        self.ended = 0
        # Goes on over a restart: Asterisk counts from nought again, but in another second, and the uniqueid has both.
        self._numbers = itertools.count()
        self.queues = {name: Queue(name) for name in dict.fromkeys(plan.queues.values())}
        names = itertools.chain(plan.agent_names, itertools.repeat(""))
        extensions = (str(plan.first_extension + n) for n in range(plan.agents))
        self.phones = {
            f"PJSIP/{extension}": Phone(f"PJSIP/{extension}", extension, name or f"Agent {extension}")
            for extension, name in zip(extensions, names, strict=False)
        }
        self._begin()

    def _begin(self) -> None:
        """As after a start: no calls, static members only."""
        self.started = self._clock()
        self.calls: dict[int, Call] = {}
        self._due: list[tuple[float, int, Call, int, Callable[[Call], None]]] = []
        self._order = itertools.count()
        self._trunk_calls = 0
        self._known_pauses: set[str] = set()
        self._next_arrival = self.started
        for phone in self.phones.values():
            phone.status, phone.call = NOT_IN_USE, None
            phone.members.clear()
        for queue in self.queues.values():
            queue.members.clear()
            queue.free.clear()
            queue.waiting.clear()
            queue.unserved.clear()
            queue.available = False
        if self.plan.static_members:
            queues = list(self.queues.values())
            for n, phone in enumerate(self.phones.values()):
                self._join_member(queues[n % len(queues)], phone.interface, phone.name, dynamic=False)
        self._full.clear()
        self._lean.clear()
        if self.plan.calls_per_second:
            self._next_arrival += self._random.expovariate(self.plan.calls_per_second)

    def restart(self) -> None:
        """All calls are gone without a word, and so are members that were added over AMI."""
        self.ended += len(self.calls)
        self._begin()

    # ------------------------------------------------------------------------------------------ time

    def advance(self) -> None:
        """Does all that is due."""
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            _, _, call, turn, do = heapq.heappop(self._due)
            if call.turn == turn:
                do(call)
        plan = self.plan
        if plan.calls_per_second <= 0:
            return
        while self._next_arrival <= now and (plan.last_call is None or self.arrived < plan.last_call):
            self._next_arrival += self._random.expovariate(plan.calls_per_second)
            if len(self.calls) >= plan.most_calls:
                self.turned_away += 1
                continue
            self.arrive(
                self._random.choice(plan.callers),
                self._random.choice(tuple(plan.queues)),
            )

    def set_pace(self, calls_per_second: float) -> None:
        """So many new inbound calls a second from now on."""
        self.plan = replace(self.plan, calls_per_second=max(0.0, calls_per_second))
        self._next_arrival = self._clock()

    def take(self) -> tuple[bytes, bytes]:
        """What was said since the last time: (full, lean)."""
        full, lean = b"".join(self._full), b"".join(self._lean)
        self._full.clear()
        self._lean.clear()
        return full, lean

    def _later(self, call: Call, seconds: float, do: Callable[[Call], None]) -> None:
        heapq.heappush(self._due, (self._clock() + seconds, next(self._order), call, call.turn, do))

    def _between(self, span: Span) -> float:
        return self._random.uniform(*span)

    # ------------------------------------------------------------------------------------------ saying

    def _now(self) -> bytes:
        return b"%.6f" % self._clock()

    def _say(self, step: Step, call: Call) -> None:
        values = call.values
        values[b"t"] = self._now()
        if self.hears_full:
            self._full.append(step.full % values)
        if self.hears_lean:
            self._lean.append(step.lean % values)
        self.events += step.events
        self.lean_events += step.lean_events

    def say(self, raw: bytes) -> None:
        """Adds one event that both kinds of clients hear."""
        self._full.append(raw)
        self._lean.append(raw)
        self.events += 1
        self.lean_events += 1

    def _say_device(self, device: str, state: str) -> None:
        self.say(_DEVICE_EVENT % {b"t": self._now(), b"device": device.encode(), b"state": state.encode()})

    def _say_member(self, event: str, member: Member) -> None:
        rows = "".join([f"{name}: {value}\r\n" for name, value in member_headers(member).items()])
        now = self._clock()
        self.say(f"Event: {event}\r\nPrivilege: agent,all\r\nTimestamp: {now:.6f}\r\n{rows}\r\n".encode())

    # ------------------------------------------------------------------------------------------ members

    def _join_member(
        self, queue: Queue, interface: str, name: str, *, state_interface: str = "", dynamic: bool = True
    ) -> Member:
        phone = self.phones.get(interface)
        member = Member(
            queue,
            interface,
            name or interface,
            state_interface or interface,
            phone,
            dynamic=dynamic,
            since=int(self._clock()),
        )
        queue.members[interface] = member
        if phone is not None:
            phone.members[queue.name] = member
        self._reckon(member)
        return member

    def _reckon(self, member: Member) -> None:
        """Puts a member among those who can be called, or takes them out."""
        queue = member.queue
        can = member.status == NOT_IN_USE and not member.paused and member.interface in queue.members
        if can and member.interface not in queue.free:
            queue.free[member.interface] = member
        elif not can:
            queue.free.pop(member.interface, None)

    def _say_available(self, queue: Queue) -> None:
        available = bool(queue.free)
        if available != queue.available:
            queue.available = available
            self._say_device(f"Queue:{queue.name}_avail", "NOT_INUSE" if available else "INUSE")

    def _queue(self, name: str, refusal: str) -> Queue:
        try:
            return self.queues[name]
        except KeyError:
            raise Refused(refusal) from None

    def add_member(
        self,
        queue_name: str,
        interface: str,
        name: str,
        *,
        state_interface: str = "",
        penalty: int = 0,
        paused: bool = False,
        reason: str = "",
    ) -> None:
        """QueueAdd."""
        queue = self._queue(queue_name, "Unable to add interface to queue: No such queue")
        if interface in queue.members:
            raise Refused("Unable to add interface: Already there")
        member = self._join_member(queue, interface, name, state_interface=state_interface)
        member.penalty, member.paused, member.reason = penalty, paused, reason if paused else ""
        self._reckon(member)
        if interface not in self._known_pauses or paused:
            self._known_pauses.add(interface)
            self._say_pause(member)
        self._say_member("QueueMemberAdded", member)
        self._say_available(queue)
        self._serve(queue)

    def remove_member(self, queue_name: str, interface: str) -> None:
        """QueueRemove. A call that the member has goes on."""
        queue = self._queue(queue_name, "Unable to remove interface from queue: No such queue")
        member = queue.members.pop(interface, None)
        if member is None:
            raise Refused("Unable to remove interface: Not there")
        if member.phone is not None:
            member.phone.members.pop(queue.name, None)
        queue.free.pop(interface, None)
        self._say_member("QueueMemberRemoved", member)
        self._say_available(queue)

    def pause_member(self, queue_name: str, interface: str, paused: bool, reason: str) -> None:
        """QueuePause; without a queue in all of them."""
        members = [
            queue.members[interface]
            for queue in self.queues.values()
            if interface in queue.members and queue_name in ("", queue.name)
        ]
        if not members:
            raise Refused("Interface not found")
        for member in members:
            changed = member.paused != paused
            member.paused, member.reason = paused, reason
            member.last_pause = int(self._clock()) if paused else member.last_pause
            self._reckon(member)
            if changed:
                self._say_pause(member)
                self._say_available(member.queue)
            self._say_member("QueueMemberPause", member)
            self._serve(member.queue)

    def _say_pause(self, member: Member) -> None:
        state = "INUSE" if member.paused else "NOT_INUSE"
        self._say_device(f"Queue:{member.queue.name}_pause_{member.interface}", state)

    def set_penalty(self, queue_name: str, interface: str, penalty: int) -> None:
        """QueuePenalty; without a queue in all of them."""
        found = False
        for queue in self.queues.values():
            if queue_name in ("", queue.name) and interface in queue.members:
                queue.members[interface].penalty = penalty
                self._say_member("QueueMemberPenalty", queue.members[interface])
                found = True
        if not found:
            raise Refused("Invalid interface, queuename or penalty")

    def _set_phone(self, phone: Phone, status: int, call: Call | None) -> None:
        """The phone rings, talks or is free again: told of every queue it is a member of."""
        phone.status, phone.call = status, call
        for member in phone.members.values():
            self._reckon(member)
            self._say_member("QueueMemberStatus", member)
            self._say_available(member.queue)
        self._say_device(phone.interface, DEVICE_STATES[status])

    def _released(self, phone: Phone) -> None:
        for member in tuple(phone.members.values()):
            self._serve(member.queue)

    # ------------------------------------------------------------------------------------------ inbound calls

    def arrive(self, caller: Caller, did: str) -> Call:
        """A customer calls one of the numbers in the plan."""
        now = self._clock()
        self.arrived += 1
        number = next(self._numbers)
        queue = self.queues[self.plan.queues[did]]
        values = {
            b"call": b"%d.%d" % (now, number),
            b"caller": b"PJSIP/trunk-%08x" % number,
            b"sip_call": b"%08x-1@127.0.0.2" % number,
            b"ani": _clean(caller.number).encode(),
            b"ani_name": _escaped(_clean(caller.name)),
            b"did": did.encode(),
            b"queue": queue.name.encode(),
            b"line": b"<unknown>",
            b"line_name": b"<unknown>",
        }
        call = Call(number, values, queue, now)
        self.calls[number] = call
        self._say(scripts.ARRIVE, call)
        self._use_trunk(1)
        self._later(call, self.plan.greeting, self._join)
        return call

    def _use_trunk(self, change: int) -> None:
        before, self._trunk_calls = self._trunk_calls, self._trunk_calls + change
        if not before or not self._trunk_calls:
            self._say_device("PJSIP/trunk", "INUSE" if self._trunk_calls else "NOT_INUSE")

    def _join(self, call: Call) -> None:
        queue = _queue_of(call)
        call.stage, call.joined = "waiting", self._clock()
        call.gives_up = call.joined + self._between(self.plan.patience)
        call.turn += 1
        queue.waiting[call.number] = call
        if len(queue.waiting) == 1:
            self._say_device(f"Queue:{queue.name}", "RINGING")
        call.position = len(queue.waiting)
        call.values[b"position"] = call.values[b"count"] = b"%d" % call.position
        self._say(scripts.JOIN, call)
        queue.unserved.append(call)
        self._wait(call)
        self._serve(queue)

    def _wait(self, call: Call) -> None:
        """The caller's patience runs on."""
        self._later(call, max(call.gives_up - self._clock(), 0.0), self._abandon)

    def _serve(self, queue: Queue) -> None:
        """Calls as many free members as there are callers for whom nothing rings."""
        while queue.unserved and queue.free:
            call = queue.unserved.popleft()
            if call.stage == "waiting" and call.number in self.calls:
                self._offer(call, next(iter(queue.free.values())))

    def _offer(self, call: Call, member: Member) -> None:
        phone = member.phone
        if phone is None:
            return
        now = self._clock()
        call.turn += 1
        call.stage, call.member, call.phone, call.leg_started = "ringing", member, phone, now
        self.offers += 1
        leg = next(self._numbers)
        call.values.update(
            {
                b"agent": b"%b-%08x" % (phone.interface.encode(), leg),
                b"leg": b"%d.%d" % (now, leg),
                b"extension": phone.extension.encode(),
                b"agent_name": _escaped(phone.name),
                b"interface": member.interface.encode(),
                b"member": member.name.encode(),
            }
        )
        self._say(scripts.OFFER, call)
        call.rang = now
        self._say(scripts.RING, call)
        self._set_phone(phone, RINGING, call)
        call.values[b"line"], call.values[b"line_name"] = phone.extension.encode(), _escaped(phone.name)
        plan, chance = self.plan, self._random.random()
        if chance < plan.refused:
            self._later(call, 0.01, self._refuse)
        elif chance < plan.refused + plan.no_answer:
            self._later(call, plan.ring_limit, self._not_answered)
        else:
            self._later(call, self._between(plan.ring), self._answer)
        self._wait(call)

    def _reckon_queue(self, call: Call) -> None:
        queue, values = _queue_of(call), call.values
        values[b"waiting"] = b"%d" % len(queue.waiting)
        values[b"completed"] = b"%d" % queue.completed
        values[b"abandoned"] = b"%d" % queue.abandoned
        values[b"mean_wait"] = b"%d" % (queue.waited / max(1, queue.completed))
        values[b"mean_talk"] = b"%d" % (queue.talked / max(1, queue.completed))

    def _leave_queue(self, call: Call) -> None:
        """Off the list; `place` says where they stood and `count` who is left."""
        queue, values = _queue_of(call), call.values
        place = 1
        for number in queue.waiting:
            if number == call.number:
                break
            place += 1
        del queue.waiting[call.number]
        waited = self._clock() - call.joined
        values[b"place"], values[b"count"] = b"%d" % place, b"%d" % len(queue.waiting)
        values[b"waited"], values[b"waited_ms"] = b"%d" % waited, b"%d" % (int(waited) * 1000)
        if not queue.waiting:
            self._say_device(f"Queue:{queue.name}", "NOT_INUSE")

    def _answer(self, call: Call) -> None:
        member, phone, values, now = call.member, call.phone, call.values, self._clock()
        if member is None or phone is None:
            return
        call.turn += 1
        call.stage, call.answered = "talking", now
        self._reckon_queue(call)
        self._leave_queue(call)
        values[b"rang"] = b"%d" % (now - call.rang)
        values[b"bridge"] = str(uuid.UUID(int=self._random.getrandbits(128), version=4)).encode()
        values[b"calls_taken"], values[b"last_call"] = b"%d" % member.taken, b"%d" % member.last_call
        values[b"penalty"], values[b"dynamic"] = b"%d" % member.penalty, b"%d" % member.dynamic
        member.in_call = True
        self._say(scripts.ANSWER, call)
        self._set_phone(phone, IN_USE, call)
        ends = self._agent_hangs_up if self._random.random() < self.plan.agent_ends else self._caller_hangs_up
        self._later(call, self._between(self.plan.talk), ends)

    def _caller_hangs_up(self, call: Call) -> None:
        self._complete(call, scripts.CALLER_HANGS_UP)

    def _agent_hangs_up(self, call: Call) -> None:
        self._complete(call, scripts.AGENT_HANGS_UP)

    def _complete(self, call: Call, how: Step) -> None:
        queue, member, now = _queue_of(call), call.member, self._clock()
        queue.completed += 1
        queue.waited += call.answered - call.joined
        queue.talked += now - call.answered
        if member is not None:
            member.taken += 1
            member.last_call = int(now)
            member.in_call = False
        self._reckon_queue(call)
        self._end(call, how)

    def _not_answered(self, call: Call) -> None:
        call.values[b"rang_ms"] = b"%d" % (int(self._clock() - call.rang) * 1000)
        self._taken_off(call, scripts.NO_ANSWER)

    def _refuse(self, call: Call) -> None:
        self._taken_off(call, scripts.REFUSED)

    def _taken_off(self, call: Call, how: Step) -> None:
        """The phone is no longer called; the queue tries again, with whoever is free then."""
        phone = call.phone
        call.turn += 1
        call.stage, call.member, call.phone = "waiting", None, None
        self._say(how, call)
        if phone is not None:
            self._set_phone(phone, NOT_IN_USE, None)
        self._wait(call)
        self._later(call, self.plan.retry, self._try_again)
        if phone is not None:
            self._released(phone)

    def _try_again(self, call: Call) -> None:
        queue = _queue_of(call)
        queue.unserved.appendleft(call)
        self._serve(queue)

    def _abandon(self, call: Call) -> None:
        queue = _queue_of(call)
        ringing = call.stage == "ringing"
        if not ringing and call in queue.unserved:
            queue.unserved.remove(call)
        self._reckon_queue(call)
        self._leave_queue(call)
        queue.abandoned += 1
        self._end(call, scripts.ABANDON_RINGING if ringing else scripts.ABANDON)

    def _end(self, call: Call, how: Step) -> None:
        values, now = call.values, self._clock()
        lasted, talked = now - call.started, now - call.answered if call.answered else 0.0
        for name, seconds in ((b"lasted", lasted), (b"talked", talked)):
            values[name], values[name + b"_ms"] = b"%d" % seconds, b"%d" % (seconds * 1000)
        values[b"started_at"] = (
            datetime.fromtimestamp(call.started, UTC).strftime("%Y-%m-%d %H:%M:%S").encode()
        )
        values[b"ended_at"] = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S").encode()
        call.turn += 1
        phone, call.stage = call.phone, "over"
        del self.calls[call.number]
        self.ended += 1
        self._say(how, call)
        if phone is not None and phone.call is call:
            self._set_phone(phone, NOT_IN_USE, None)
        if call.queue is not None or b"customer" in values:
            self._use_trunk(-1)
        if phone is not None:
            self._released(phone)

    # ------------------------------------------------------------------------------------------ calls made over AMI

    def originate(
        self,
        interface: str,
        exten: str,
        *,
        channel_id: str,
        tag: str,
        number_name: str,
        answered: Callable[[str], None],
    ) -> None:
        """Rings an agent's phone, then a customer's. `answered` is called with the phone's channel, "" when it fails."""
        phone = self.phones.get(interface)
        taken = any(call.values[b"call"] == channel_id.encode() for call in self.calls.values())
        if phone is None or phone.status != NOT_IN_USE or not exten or taken:
            answered("")
            return
        now, number = self._clock(), next(self._numbers)
        values = {
            b"call": channel_id.encode() or b"%d.%d" % (now, number),
            b"agent": b"%b-%08x" % (interface.encode(), number),
            b"extension": phone.extension.encode(),
            b"agent_name": _escaped(phone.name),
            b"exten": exten.encode(),
            b"number": exten.removeprefix("9").encode(),
            b"number_name": _escaped(number_name or "<unknown>"),
            b"tag": _escaped(tag),
        }
        call = Call(number, values, None, now, stage="lifting", phone=phone)
        self.calls[number] = call
        self._say(scripts.PHONE_RINGS, call)
        self._set_phone(phone, RINGING, call)

        def lift(call: Call) -> None:
            call.turn += 1
            self._say(scripts.PHONE_UP, call)
            answered(values[b"agent"].decode())
            self._dial(call)

        self._later(call, self._between(self.plan.ring), lift)

    def _dial(self, call: Call) -> None:
        now, leg = self._clock(), next(self._numbers)
        call.stage, call.leg_started = "dialling", now
        call.values[b"customer"], call.values[b"leg"] = b"PJSIP/trunk-%08x" % leg, b"%d.%d" % (now, leg)
        self._say(scripts.PHONE_DIALS, call)
        if call.phone is not None:
            self._set_phone(call.phone, IN_USE, call)
        self._use_trunk(1)
        busy = self._random.random() < self.plan.customer_busy
        self._later(
            call, self._between(self.plan.ring), self._customer_busy if busy else self._customer_answers
        )

    def _customer_busy(self, call: Call) -> None:
        self._end(call, scripts.CUSTOMER_BUSY)

    def _customer_answers(self, call: Call) -> None:
        call.turn += 1
        call.stage, call.answered = "talking", self._clock()
        call.values[b"bridge"] = str(uuid.UUID(int=self._random.getrandbits(128), version=4)).encode()
        self._say(scripts.CUSTOMER_ANSWERS, call)
        self._later(call, self._between(self.plan.talk), self._dialled_call_ends)

    def _dialled_call_ends(self, call: Call) -> None:
        self._end(call, scripts.DIALLED_CALL_ENDS)

    def hang_up(self, channel: str) -> None:
        """Ends the call of a channel, given by name or uniqueid, in the way that its stage allows."""
        wanted = channel.encode()
        call = next((c for c in self.calls.values() if wanted in _channels(c)), None)
        if call is None:
            raise Refused("No such channel")
        agents = call.phone is not None and wanted in (call.values.get(b"agent"), call.values.get(b"leg"))
        if call.queue is None:
            ways = {"lifting": scripts.PHONE_NOT_ANSWERED, "dialling": scripts.CUSTOMER_BUSY}
            self._end(call, ways.get(call.stage, scripts.DIALLED_CALL_ENDS))
        elif call.stage == "talking":
            self._complete(call, scripts.AGENT_HANGS_UP if agents else scripts.CALLER_HANGS_UP)
        elif call.stage == "ringing" and agents:
            self._refuse(call)
        else:
            if call.stage == "arriving":
                self._join(call)
            self._abandon(call)


def _queue_of(call: Call) -> Queue:
    if call.queue is None:
        raise RuntimeError("not a call to a queue")
    return call.queue


def _channels(call: Call) -> tuple[bytes | None, ...]:
    values = call.values
    mine = (values.get(b"call"), values.get(b"caller") or values.get(b"agent"))
    if call.phone is None:
        return mine
    return (*mine, values.get(b"leg"), values.get(b"agent"), values.get(b"customer"))


def member_headers(member: Member) -> dict[str, str]:
    """A member as Asterisk describes them, in its order."""
    return {
        "Queue": member.queue.name,
        "MemberName": member.name,
        "Interface": member.interface,
        "StateInterface": member.state_interface,
        "Membership": "dynamic" if member.dynamic else "static",
        "Penalty": str(member.penalty),
        "CallsTaken": str(member.taken),
        "LastCall": str(member.last_call),
        "LastPause": str(member.last_pause),
        "LoginTime": str(member.since),
        "InCall": str(int(member.in_call)),
        "Status": str(member.status),
        "Paused": str(int(member.paused)),
        "PausedReason": member.reason,
        "Ringinuse": "0",
        "Wrapuptime": "0",
    }
