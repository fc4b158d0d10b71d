"""The address of another CRM's page for a call, made from a template. A value can fill a gap, never change the place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import Formatter
from urllib.parse import quote, unquote, urlsplit

NAMES = frozenset(
    {"e164", "account_number", "account_id", "call", "queue", "dnis", "ani", "name", "agent", "direction"}
)
"""What a template may name in braces."""

_DOTS = re.compile(r"\.+")


class WrongTemplate(ValueError):
    """The template for pop addresses cannot be used; the message says why."""


class PopUrl:
    """A template such as `https://crm.example/find?phone={e164}`; an empty template makes no addresses."""

    def __init__(self, template: str) -> None:
        """Raises WrongTemplate unless it is http(s) with a fixed host and names only what there is."""
        self._parts: list[tuple[str, str | None]] = []
        if not template:
            return
        try:
            parts = list(Formatter().parse(template))
            shape = urlsplit(template)
        except ValueError as error:
            raise WrongTemplate(f"pop_url cannot be read: {error}") from None
        if shape.scheme not in ("http", "https") or not shape.hostname:
            raise WrongTemplate("pop_url must begin with http:// or https:// and a host")
        if "{" in shape.netloc or "}" in shape.netloc or "@" in shape.netloc:
            raise WrongTemplate("pop_url must not have a gap, a user name or a password in its host")
        for literal, name, spec, conversion in parts:
            if name is not None and (name not in NAMES or spec or conversion):
                raise WrongTemplate(f"pop_url names {{{name}}}; it may name {', '.join(sorted(NAMES))}")
            self._parts.append((literal, name))
        self._origin = (shape.scheme, shape.netloc)
        self._depth = urlsplit(self._fill(dict.fromkeys(NAMES, "x"))).path.count("/")

    def fill(self, values: Mapping[str, str | None]) -> str | None:
        """Returns the address, every value URL-encoded; None without a template, or if a value would change the path."""
        if not self._parts:
            return None
        url = self._fill(values)
        made = urlsplit(url)
        if (made.scheme, made.netloc) != self._origin or made.path.count("/") != self._depth:
            return None
        # `.` and `..` climb in a path even percent-encoded (WHATWG URL), so no segment may become one
        if any(_DOTS.fullmatch(unquote(segment)) for segment in made.path.split("/")):
            return None
        return url

    def _fill(self, values: Mapping[str, str | None]) -> str:
        return "".join(
            literal + (quote(values.get(name) or "", safe="", errors="replace") if name else "")
            for literal, name in self._parts
        )
