"""Text that people write to one another."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, StringConstraints


def _plain(text: str) -> str:
    """Text as people write it: no control characters but line breaks and tabs, which could disturb a screen."""
    if any(not character.isprintable() and character not in "\n\t\u200d" for character in text):
        raise ValueError("plain text only: no control characters")
    return text


Plain = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_plain)]
