"""Whom a call is or was with, for who promises to call back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from crm.call_back_commands import Customer
from crm.views import PopView

if TYPE_CHECKING:
    from cti.database import Queryable


async def customer_of(db: Queryable, call: str, region: str, pops: Iterable[PopView]) -> Customer:
    """As it is on one of the screens, else as the record of the call has it."""
    for pop in pops:
        account = pop.candidates[0].account if len(pop.candidates) == 1 else None
        return Customer(
            number=pop.e164,
            name=(account.name if account else pop.name) or "",
            account=account.id if account else None,
            zone=account.timezone if account else "",
            region=region,
        )
    row = await db.fetchrow(
        """SELECT i.e164, i.account_id, a.name, a.timezone FROM interactions i
           LEFT JOIN accounts a ON a.id = i.account_id WHERE i.call = $1""",
        call,
    )
    return Customer(
        number=row["e164"] if row else None,
        name=(row["name"] if row else None) or "",
        account=row["account_id"] if row else None,
        zone=(row["timezone"] if row else None) or "",
        region=region,
    )
