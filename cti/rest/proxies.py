"""Whose request it is where proxies stand between: the address that limits and audit go by."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp import web

Address = IPv4Address | IPv6Address


class Proxies:
    """Proxies of the house, of which each adds to X-Forwarded-For who came to it. Of anybody else it is not believed."""

    def __init__(self, trusted: Collection[IPv4Network | IPv6Network] = ()) -> None:
        self._trusted = tuple(trusted)

    def seen_through(self, request: web.Request) -> web.Request:
        """Returns the request with the client's own address as its `remote`: the last one that is no proxy of ours."""
        if not self._trusted or not self._is_ours(_read(request.remote or "")):
            return request
        told = ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")
        client: Address | None = None
        for text in reversed(told):
            address = _read(text)
            if address is None:
                break
            client = address
            if not self._is_ours(address):
                break
        return request if client is None else request.clone(remote=str(client))

    def _is_ours(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


def _read(text: str) -> Address | None:
    """Reads `10.0.0.1`, `10.0.0.1:4711`, `::1`, `[::1]:4711`; an IPv4 address within IPv6 is that IPv4 address."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
