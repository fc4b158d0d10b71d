"""Problems: what is told to whoever asked for something that cannot be done, as RFC 9457 has it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

CONTENT_TYPE = "application/problem+json"

STATUS_OF_COMMAND_ERROR = {
    "unknown_op": 404,
    "not_found": 404,
    "bad_args": 422,
    "forbidden": 403,
    "not_your_call": 403,
    "rate_limited": 429,
    "busy": 429,
    "timed_out": 504,
    "internal": 500,
    "restarting": 503,
    "pbx_down": 503,
    "unavailable": 503,
}
"""HTTP's word for a command's error code; every other code is a conflict with the state of things, 409."""


class ProblemDetails(BaseModel):
    """RFC 9457, 3: `code` is for programs and stays the same, `detail` is for people and says what to do."""

    model_config = ConfigDict(title="Problem")

    type: str = "about:blank"
    title: str
    status: int = Field(ge=400, le=599)
    code: str
    detail: str


class Problem(Exception):
    """A request cannot be done. Nothing was changed unless `detail` says so."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The problem as JSON has it."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }

    def response(self) -> web.Response:
        """Returns the problem as a response."""
        return web.Response(
            status=self.status,
            body=msgspec.json.encode(self.body),
            content_type=CONTENT_TYPE,
            headers=self.headers,
        )


def of_command_error(code: str, message: str) -> Problem:
    """Returns a command's error as a problem."""
    status = STATUS_OF_COMMAND_ERROR.get(code, 409)
    return Problem(status, code, message, headers={"Retry-After": "1"} if status in (429, 503) else None)


def of_refusal(error: Exception) -> Problem:
    """Returns what is refused as things are (`cti.refusals.Refused`) as a problem."""
    return Problem(409, getattr(error, "code", "wrong_state"), str(error))
