"""All routes of REST, each with the parts that answer."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import crm.call_back_rest
import crm.rest
import crm.target_group_rest
import routing.rest
import routing.work_rest
from cti import gauges, metrics
from cti.audience import subscriptions
from cti.callers_for_routing import caller_facts
from cti.openapi import Route
from cti.rest import admin, health, phone, sessions, state
from cti.rest import alarms as rest_alarms
from cti.rest import commands as rest_commands
from cti.rest import figures as rest_figures
from cti.rest.serving import Translate
from cti.wiring.gauges import all_gauges
from dialer import dialing
from routing.mailboxes import Mailboxes

if TYPE_CHECKING:
    from cti.server import Server


PERSON_WAITS = 2.0
"""Seconds that a look-up may take which a person has asked for."""

TRANSLATE: dict[type[Exception], Translate] = {
    **crm.rest.TRANSLATE,
    **routing.rest.TRANSLATE,
    **routing.work_rest.TRANSLATE,
    **dialing.TRANSLATE,
    **crm.target_group_rest.TRANSLATE,
    **admin.TRANSLATE,
    **rest_figures.TRANSLATE,
    **phone.TRANSLATE,
}
"""How errors of all parts are told over REST."""


def routes(server: Server) -> list[Route]:
    """All routes but the websocket and the documents."""
    s = server.settings
    return [
        *sessions.routes(
            log_in=server.access.log_in,
            refresh=server.access.refresh,
            log_out=server.access.log_out,
            secure=s.public_url.startswith("https://"),
            allowed_origins=server.origins,
        ),
        *state.routes(
            snapshot=server.snapshots,
            seq=lambda: server.bus.seq,
            subscriptions=lambda actor: subscriptions(actor, server.directory),
            facts_of=server.journal.facts_of,
            since=lambda after, limit, types: server.journal.since(after, limit=limit, types=types),
        ),
        *rest_commands.routes(server.commands),
        *rest_figures.routes(server.desk),
        *rest_alarms.routes(
            pool=lambda: server.database.pool,
            directory=server.directory,
            pbxs=server.switches,
            raised=server.raised_for,
            changed=server.alarm_watch.refresh,
        ),
        *crm.rest.routes(
            pool=lambda: server.database.pool,
            find=functools.partial(server.lookup.find, limit=PERSON_WAITS),
            add_note=lambda actor, text, about: server.interactions.add_note(actor, text, interaction=about),
            edit_note=lambda actor, note, text, version: server.interactions.edit_note(
                actor, note, text, version=version
            ),
            audit=server.trail.note,
        ),
        *crm.call_back_rest.routes(
            pool=lambda: server.database.pool,
            views=server.call_backs.views,
            subscriptions=lambda actor: subscriptions(actor, server.directory),
            directory=server.directory,
        ),
        *routing.rest.routes(
            pool=lambda: server.database.pool,
            rules=lambda: server.book.active,
            caller_facts=caller_facts(server.lookup, server.region_of, limit=PERSON_WAITS),
            floor=server.floors,
            pbxs=lambda: sorted(server.switches),
            changed=server.book.refresh,
            mailboxes=Mailboxes({name: link.query for name, link in server.links.items()}).check,
        ),
        *routing.work_rest.routes(
            desk=server.work,
            directory=server.directory,
            knows_queue=server.knows_queue,
            audit=server.trail.note,
        ),
        *server.dialing.routes(),
        *crm.target_group_rest.routes(pool=lambda: server.database.pool),
        *phone.routes(
            pbxs=s.pbx,
            passwords=server.phone_passwords,
            given=server.phone_password_given,
        ),
        *admin.routes(
            pool=lambda: server.database.pool,
            passwords=server.access.passwords,
            directory=server.directory,
            changed=server.people_changed,
            end_sessions=server.access.tokens.revoke_all,
        ),
        *health.routes(
            checks=gauges.checks(server.switches, server.database, server.journal),
            registry=metrics.registry(all_gauges(server)),
        ),
    ]
