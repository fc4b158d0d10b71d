"""Target groups of the customers' side as call lists take them: the one place that knows both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from crm import target_groups
from dialer.call_lists.target_group import GroupSize, NoGroup, TargetRow

if TYPE_CHECKING:
    from cti.database import Queryable


class CustomersForLists:
    """A `dialer.call_lists.target_group.TargetGroups` on the customers' tables. Consent is not the customers' side's to
    know: it is asked for when a call is decided on."""

    def __init__(self, pool: Callable[[], Queryable]) -> None:
        self._pool = pool

    async def _read(self, group: int) -> target_groups.TargetGroupView:
        try:
            return await target_groups.read(self._pool(), group)
        except target_groups.NoGroup:
            raise NoGroup("there is no such target group") from None

    async def name(self, group: int) -> str:
        """What the group is called; raises NoGroup."""
        return (await self._read(group)).name

    async def size(self, group: int) -> GroupSize:
        """How many are in it now; raises NoGroup."""
        found = await target_groups.count(self._pool(), (await self._read(group)).conditions)
        return GroupSize(customers=found.customers, with_phone=found.with_phone, numbers=found.numbers)

    async def rows(self, group: int) -> AsyncIterator[list[TargetRow]]:
        """The customers of a group at this moment, in batches."""
        found = await self._read(group)
        async for some in target_groups.members(self._pool, found.conditions):
            yield [
                TargetRow(
                    account=one.account,
                    number=one.number,
                    name=one.name,
                    phones=one.phones,
                    country=one.country,
                    zone=one.zone,
                    language=one.language,
                    data=one.data,
                )
                for one in some
            ]
