"""Servers that this project can bring along itself for the demo and the tests: PostgreSQL and Asterisk.

Nothing here is used in production, where both are given by their addresses. Every function here blocks
(it runs programs and waits for them): from an event loop call it by `asyncio.to_thread`.
"""
