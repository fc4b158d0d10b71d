"""What routing may know of a caller, asked of the customers' side. Beside `cti.server` the one place that knows both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime

from crm.ani import CallerLookup, LookupUnavailable
from crm.views import Candidate
from cti.numbers import Kind, read_caller
from routing.decide import Customer
from routing.questions import CallerFacts


def caller_facts(
    lookup: CallerLookup, region_of: Callable[[str], str], *, limit: float
) -> Callable[[str, str], Awaitable[CallerFacts]]:
    """Returns what tells of a number that called a PBX what is found within `limit` seconds; never raises for the
    customers' side being away, then `why` says that nothing is known."""

    async def ask(number: str, pbx: str) -> CallerFacts:
        region = region_of(pbx)
        caller = read_caller(number, region)
        about = CallerFacts(
            e164=caller.e164 or "", country=caller.country, withheld=caller.kind is Kind.WITHHELD
        )
        try:
            found = await lookup.find(number, region, limit=limit)
        except LookupUnavailable as error:
            return replace(about, why=str(error))
        if found.settled is None:
            why = "the number belongs to several customers" if found.candidates else "nobody has this number"
            return replace(about, why=why)
        return replace(about, customer=_customer(found.settled))

    return ask


def _customer(settled: Candidate) -> Customer:
    account, today = settled.account, datetime.now(UTC).date()
    return Customer(
        account=account.id,
        classification=account.classification,
        language=account.language,
        country=account.country,
        status=account.status,
        open_items=frozenset(item.kind for item in settled.open_items),
        overdue_invoice=any(
            item.kind == "invoice" and item.due is not None and item.due < today
            for item in settled.open_items
        ),
        own_agent=account.own_agent or None,
        last_agents=tuple(
            (login, contact.started)
            for contact in settled.interactions
            if contact.outcome == "answered"
            for login in contact.agents[-1:]
        ),
    )
