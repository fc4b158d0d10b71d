"""All commands, each with the parts that carry it out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from crm.call_back_commands import add_call_back_commands
from crm.commands import add_crm_commands
from cti.agent_commands import add_agent_commands
from cti.call_commands import add_call_commands
from cti.commands import add_basics
from cti.figures.commands import add_figures_commands
from cti.line_commands import add_line_commands
from cti.message_commands import add_message_commands
from cti.protocol import StateNow
from cti.supervisor_commands import add_alarm_commands, add_supervisor_commands
from dialer.law.commands import add_law_commands
from routing.work_commands import add_work_commands

if TYPE_CHECKING:
    from cti.server import Server


def add_commands(server: Server) -> None:
    """Adds every command that websocket and REST know."""
    add_basics(server.commands, seq=lambda: server.bus.seq, snapshot=server.snapshots, shape=StateNow)
    add_agent_commands(
        server.commands,
        agents=server.agents,
        directory=server.directory,
        publish=server.bus.publish,
        wants_line=server.off_hook.wanted,
    )
    add_line_commands(
        server.commands,
        off_hook=server.off_hook,
        agents=server.agents,
        directory=server.directory,
        choose=server.choose_off_hook,
    )
    add_call_commands(
        server.commands,
        control=server.control,
        directory=server.directory,
        agents_in=server.agents_in,
        works_on=server.whose_call.works_on,
        set_data=server.set_data,
        written=server.written,
    )
    add_supervisor_commands(server.commands, supervising=server.supervising, directory=server.directory)
    add_alarm_commands(
        server.commands,
        alarms=server.alarms,
        sees=lambda actor, view: view in server.raised_for(actor),
        publish=server.bus.publish,
    )
    add_message_commands(
        server.commands,
        messages=server.messages,
        help_requests=server.help_requests,
        directory=server.directory,
        agents_in=server.agents_in,
        logged_on=lambda login: server.agents.session(login, datetime.now(UTC)).logged_on,
        publish=server.bus.publish,
    )
    add_crm_commands(
        server.commands,
        pops=server.pops,
        interactions=server.interactions,
        works_on=server.whose_call.works_on,
        publish=server.bus.publish,
        choice=server.agents.dispositions,
        of_campaign=server.dialing.dispositions,
        follows=server.dialing.disposed,
        disposed=server.disposed,
    )
    add_call_back_commands(
        server.commands,
        call_backs=server.call_backs,
        directory=server.directory,
        works_on=server.whose_call.works_on,
        customer_of=server.customer_of,
        dial=server.dial_customer,
        mark=server.calls_back,
    )
    add_law_commands(
        server.commands,
        pool=lambda: server.database.pool,
        works_on=server.whose_call.works_on,
        customer_of=server.customer_of,
    )
    add_figures_commands(server.commands, server.desk)
    add_work_commands(server.commands, desk=server.work, directory=server.directory)
    server.dialing.add_commands(server.commands)
