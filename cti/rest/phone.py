"""The phone in the browser: the page itself, and how it becomes the phone of whoever has logged in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import BaseModel, ConfigDict, StringConstraints

from cti.openapi import PEOPLE, Route
from cti.people import Actor
from cti.phone_passwords import PhonePassword, Unreadable
from cti.problems import Problem
from cti.rest.serving import Asked, Translate
from cti.settings import PbxSettings

PAGE = Path(__file__).parent.parent / "phone_page"
"""Where `make setup` puts the page."""

FILES = {
    "index.html": "text/html",
    "phone.js": "text/javascript",
    "phone.css": "text/css",
}
NOT_BUILT = "the phone page was not built: install Node.js and npm (Debian: apt-get install nodejs npm), then make setup"


def page_is_there() -> bool:
    """Whether the page was built."""
    return (PAGE / "index.html").is_file()


class IceServerGiven(BaseModel):
    """A STUN or TURN server, as RTCPeerConnection takes it."""

    urls: str
    username: str
    credential: str


class PhoneGiven(BaseModel):
    """How to be the agent's phone on one PBX: SIP (RFC 7118) to `url`, registered as `uri`."""

    pbx: str
    url: str
    uri: str
    username: str
    password: str
    display_name: str
    ice_servers: list[IceServerGiven]


class PhonesGiven(BaseModel):
    """The agent's phones in the browser. For this session alone: not to be kept."""

    phones: list[PhoneGiven]


class FileAsked(BaseModel):
    """A file of the page."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(pattern=r"^[a-z]+\.[a-z]+$", max_length=40)]


def routes(
    *,
    pbxs: Mapping[str, PbxSettings],
    passwords: Callable[[str], Awaitable[Sequence[PhonePassword]]],
    given: Callable[[Actor, Sequence[str]], Awaitable[None]],
    page: Path = PAGE,
) -> list[Route]:
    """Returns the routes. `given(actor, pbxs)` writes down that passwords were handed out, before they are."""
    policy = content_policy(pbx.phone_url for pbx in pbxs.values())

    async def phones(asked: Asked) -> PhonesGiven:
        who = asked.who
        if who.via != "password":
            raise Problem(
                403, "forbidden", "a phone's password is given to whoever has logged in with their own"
            )
        found = [one for one in await passwords(who.login) if one.pbx in pbxs and pbxs[one.pbx].phone_url]
        if not found:
            raise Problem(
                404, "no_browser_phone", "you have no phone in the browser: an administrator gives you one"
            )
        await given(who, [one.pbx for one in found])
        return PhonesGiven(phones=[_phone(one, pbxs[one.pbx], who.name) for one in found])

    def hand_out(name: str) -> web.Response:
        try:
            body = (page / name).read_bytes()
        except OSError:
            raise Problem(404, "page_not_built", NOT_BUILT) from None
        headers = {"Content-Security-Policy": policy, "Permissions-Policy": "microphone=(self)"}
        return web.Response(body=body, content_type=FILES[name], charset="utf-8", headers=headers)

    async def index(_asked: Asked) -> web.Response:
        return hand_out("index.html")

    async def file(asked: Asked) -> web.Response:
        name = asked.params.name
        if name not in FILES:
            raise Problem(404, "no_such_address", "there is nothing at this address")
        return hand_out(name)

    return [
        Route(
            method="GET",
            path="/api/v1/me/phone",
            handler=phones,
            summary="How to be your own phone in the browser: SIP over websocket, with its password. Written to the audit.",
            tag="Me",
            result=PhonesGiven,
            roles=PEOPLE,
            errors=frozenset({404, 409, 503}),
        ),
        Route(
            method="GET",
            path="/phone",
            handler=index,
            summary="The phone in the browser, for people.",
            tag="Documents",
            roles=None,
            raw="text/html",
            errors=frozenset({404}),
        ),
        Route(
            method="GET",
            path="/phone/{name}",
            handler=file,
            summary="What that page is made of.",
            tag="Documents",
            roles=None,
            params=FileAsked,
            raw="text/javascript",
            errors=frozenset({404}),
        ),
    ]


TRANSLATE: Mapping[type[Exception], Translate] = {
    Unreadable: lambda error: Problem(409, "password_unreadable", str(error)),
}


def content_policy(phone_urls: Any) -> str:
    """What the page may load and connect to: this server, and the PBXs' websockets."""
    hosts = sorted(
        {f"{parts.scheme}://{parts.netloc}" for url in phone_urls if (parts := urlsplit(url)).netloc}
    )
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            "media-src 'self' blob: mediastream:",
            f"connect-src 'self' {' '.join(hosts)}".strip(),
            "form-action 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        )
    )


def _phone(one: PhonePassword, pbx: PbxSettings, name: str) -> PhoneGiven:
    domain = pbx.phone_domain or urlsplit(pbx.phone_url).hostname or "localhost"
    return PhoneGiven(
        pbx=one.pbx,
        url=pbx.phone_url,
        uri=f"sip:{one.user}@{domain}",
        username=one.user,
        password=one.password,
        display_name=name,
        ice_servers=[
            IceServerGiven(
                urls=server.urls, username=server.username, credential=server.credential.get_secret_value()
            )
            for server in pbx.ice_servers
        ],
    )
