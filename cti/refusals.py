"""What is refused: the exception that every part of the server derives its own from."""

from __future__ import annotations


class Refused(Exception):
    """It cannot be done as things are, and nothing was: `code` for programs, a sentence that says what to do for people."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code
