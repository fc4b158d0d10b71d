"""`cti demo`: who calls and in which form, and the whole of it as a newcomer runs it, on whatever PBX can be had."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from crm.sample_data import sample_customers
from cti.ami_protocol import check_action
from cti.demo import DemoFailed, _quoted, free_port
from cti.demo_people import ROBOTS, STAFF, YOU, passwords_in
from cti.demo_traffic import NAMES_THAT_HURT, REGION, Customer, as_delivered, pause, planned
from cti.embedded.asterisk import Installation
from cti.embedded.place import free_ports, lives, remove_folder
from cti.numbers import read_caller

CUSTOMERS = [Customer(phone.e164, one.name) for one in sample_customers() for phone in one.phones]


def test_every_form_of_a_customers_number_leads_back_to_it() -> None:
    chance = random.Random(1)
    for customer in CUSTOMERS:
        for _ in range(6):
            delivered = as_delivered(customer.e164, chance)
            assert read_caller(delivered, REGION).e164 == customer.e164, delivered


def test_the_days_calls_are_of_all_kinds() -> None:
    calls = list(islice(planned(CUSTOMERS, random.Random(2)), 2000))
    known = sum(any(call.number.endswith(one.e164[-7:]) for one in CUSTOMERS) for call in calls)
    assert 0.7 < known / len(calls) < 0.95
    assert 0.03 < sum(call.number == "anonymous" for call in calls) / len(calls) < 0.10
    assert {call.queue for call in calls} == {"sales", "support", "billing", "emergency"}
    assert {name for name in NAMES_THAT_HURT if any(call.name == name for call in calls)} == set(
        NAMES_THAT_HURT
    )


def test_hostile_names_pass_the_link_and_cannot_leave_their_quotes() -> None:
    for name in (*NAMES_THAT_HURT, 'a" <1>\r\nAction: Command', "x" * 5000):
        check_action("Originate", {"CallerID": f'"{_quoted(name)}" <1>'})
        assert '"' not in _quoted(name)


def test_calls_come_at_a_humane_rate_and_slower_when_many_wait() -> None:
    chance = random.Random(3)
    quiet = [pause(chance, 0, second, 3.5) for second in range(2000)]
    crowd = [pause(chance, 12, second, 3.5) for second in range(2000)]
    assert 3.0 < sum(quiet) / len(quiet) < 4.0
    assert sum(crowd) > 2 * sum(quiet)
    assert min(quiet) > 0.5


def test_twelve_agents_have_a_phone_each_and_one_is_whoever_looks() -> None:
    assert len(STAFF) == 12
    assert len({person.phone for person in STAFF}) == 12
    assert [person.login for person in STAFF if person not in ROBOTS] == [YOU]


def test_passwords_are_kept_for_their_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "log-ins.json"
    first = passwords_in(file)
    assert passwords_in(file) == first
    assert file.stat().st_mode & 0o077 == 0
    file.write_text("{broken")
    assert passwords_in(file) != first


def test_a_port_that_is_taken_is_said_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(DemoFailed, match="choose another one with --port"):
            free_port(taken.getsockname()[1])


# ----------------------------------------------------------------------------------------------- the whole of it


OF_ANOTHER_SERVER = {"CTI_CONFIG": "/no/such", "CTI_PBX__OFFICE__SECRET": "x", "CTI_PBX__MAIN__TLS": "true"}
"""Settings of a server in the same shell: none of the demo's business, least of all that server's PBX."""


class Running:
    """A demo in a process of its own; its lines are read as they come."""

    def __init__(self, home: Path, asterisk: Installation | None, *arguments: str) -> None:
        named = {"CTI_ASTERISK": str(asterisk.binary)} if asterisk else {}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cti", "demo", *arguments],
            env={**os.environ, "CTI_HOME": str(home), **named, **OF_ANOTHER_SERVER},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []

    def until(self, wanted: str, seconds: float = 60.0) -> str:
        """The first line that matches."""
        deadline = time.monotonic() + seconds
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if re.search(wanted, line):
                return self.lines[-1]
            assert time.monotonic() < deadline, "\n".join(self.lines)
        raise AssertionError("\n".join(self.lines))

    def end(self, how: signal.Signals = signal.SIGINT) -> int:
        """Asks it to end, and waits."""
        self.process.send_signal(how)
        rest, _ = self.process.communicate(timeout=60)
        self.lines += rest.splitlines()
        return self.process.returncode


Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    folder = Path(tempfile.mkdtemp(prefix="cti-demo-", dir="/tmp"))
    folder.chmod(0o755)  # run as root, the servers are nobody's and must be able to walk there
    running: list[Running] = []

    def begin(*arguments: str, asterisk: Installation | None = None) -> Running:
        running.append(Running(folder, asterisk, *arguments))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        if one.process.stdout is not None:
            one.process.stdout.close()
    remove_folder(folder)


def children_of(pid: int) -> set[int]:
    """The processes that any thread of this one has started."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for file in files for child in file.read_text().split()}


def test_pops_come_without_an_asterisk_and_it_goes_on_after_a_kill(start: Start) -> None:
    (port,) = free_ports(1)
    first = start("--simulator", "--port", str(port))
    assert "not a real Asterisk (you asked for it)" in first.until("simulator")
    first.until("POP for .*class [A-C]", 60)
    assert not any("\x1b" in line for line in first.lines)
    log_ins = next(line for line in first.lines if line.startswith("Log-ins"))
    left = children_of(first.process.pid)
    assert left

    second = start("--simulator")
    assert "is running here already (process" in second.until("running")
    assert second.process.wait(30) == 1

    first.process.kill()
    first.process.wait()
    third = start("--simulator", "--port", str(port), "--headless")
    third.until("Customers of the last time")
    third.until("Ready")
    assert third.until("^Log-ins") == log_ins
    assert not any(lives(pid) for pid in left)
    started = children_of(third.process.pid)
    assert third.end() == 0
    assert not any(lives(pid) for pid in started)


def test_sip_calls_pop_on_a_real_asterisk(start: Start, asterisk_installation: Installation) -> None:
    demo = start("--port", str(free_ports(1)[0]), asterisk=asterisk_installation)
    assert "A real Asterisk" in demo.until("(?i)asterisk .*world")
    demo.until("POP for .*class [A-C]", 60)
    started = children_of(demo.process.pid)
    assert len(started) == 3

    demo.process.kill()
    demo.process.wait()
    demo = start("--simulator", "--fresh", "--headless", "--for", "1", "--port", str(free_ports(1)[0]))
    demo.until("100 invented customers")
    assert not any(lives(pid) for pid in started)
    demo.until("Everything is stopped")


def test_it_ends_in_order_when_its_window_is_closed(
    start: Start, asterisk_installation: Installation
) -> None:
    demo = start("--port", str(free_ports(1)[0]), asterisk=asterisk_installation)
    demo.until("POP for")
    started = children_of(demo.process.pid)
    password = json.loads(next_file(demo).read_text())["lead"]
    assert any(password in line for line in demo.lines)
    assert demo.end(signal.SIGHUP) == 0
    assert not any(lives(pid) for pid in started)
    assert "Everything is stopped" in demo.lines[-1]


def next_file(demo: Running) -> Path:
    """The file with the log-ins, beside the folder with the logs that the demo names."""
    line = next(line for line in demo.lines if "logs in" in line)
    return Path(line.split("logs in ")[1].strip()).resolve().parent / "log-ins.json"
