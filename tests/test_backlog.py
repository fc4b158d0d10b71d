"""Writing in the background: in order, over outages, and past what the database refuses."""

import asyncio

import asyncpg

from cti.backlog import InTurn


class Paper:
    """Where things are written. `away`: how many attempts still fail; `refuses`: what is never taken."""

    def __init__(self, *, away: int = 0, refuses: str = "") -> None:
        self.written: list[str] = []
        self.away = away
        self.refuses = refuses

    async def write(self, thing: str) -> None:
        if self.away:
            self.away -= 1
            raise OSError("the database is away")
        if thing == self.refuses:
            raise asyncpg.DataError("not a thing")
        self.written.append(thing)


async def written(paper: Paper, things: str, *, most: int = 100) -> list[str]:
    turn = InTurn("things", paper.write, most=most)
    for thing in things:
        turn.put(thing)
    writer = asyncio.create_task(turn.run())
    assert await turn.flush(60)
    writer.cancel()
    return paper.written


async def test_things_are_written_in_order() -> None:
    assert await written(Paper(), "abc") == ["a", "b", "c"]


async def test_an_outage_loses_and_doubles_nothing() -> None:
    assert await written(Paper(away=2), "abc") == ["a", "b", "c"]


async def test_what_the_database_refuses_keeps_nothing_else_back() -> None:
    assert await written(Paper(refuses="b"), "abc") == ["a", "c"]


async def test_beyond_its_room_the_oldest_is_lost() -> None:
    assert await written(Paper(), "abcd", most=2) == ["c", "d"]


async def test_a_flush_does_not_wait_for_ever() -> None:
    turn = InTurn("things", Paper(away=1000).write, most=2)
    turn.put("a")
    writer = asyncio.create_task(turn.run())
    assert not await turn.flush(0.05)
    writer.cancel()
