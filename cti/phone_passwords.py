"""The SIP passwords of phones in the browser: sealed in the database, handed to nobody but the agent whose phone it is.

A copy of the database alone does not open them where CTI_SECRET_KEY is set, as the key is made from that. Another key
means that they have to be set again.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cti.passwords import BadInput
from cti.users import NotThere

if TYPE_CHECKING:
    from cti.database import Pool, Queryable

SHORTEST = 12
_NONCE = 12
_TECHNOLOGY = "PJSIP/"


class Unreadable(Exception):
    """A password was sealed with another key; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhonePassword:
    """What a page needs to be an agent's phone on a PBX. Never to be logged, published or kept elsewhere."""

    pbx: str
    user: str
    password: str

    def __repr__(self) -> str:
        return f"PhonePassword({self.pbx}, {self.user})"


async def set_phone_password(
    db: Queryable, key: bytes, login: str, pbx: str, password: str | None = None
) -> tuple[str, str]:
    """Makes the agent's phone on this PBX one in the browser, with this or a new password; returns SIP user and password.

    Raises BadInput, NotThere (the agent has no phone on that PBX).
    """
    interface = await db.fetchval(
        "SELECT interface FROM agent_interfaces WHERE login = $1 AND pbx = $2", login, pbx
    )
    if interface is None:
        raise NotThere(f"{login} has no phone on {pbx}: cti users change {login} --phone {pbx}=PJSIP/1001")
    if not interface.startswith(_TECHNOLOGY) or "@" in interface:
        raise BadInput(
            "interface", f"{interface} cannot be a phone in the browser: it has to be PJSIP/<name>."
        )
    password = secrets.token_urlsafe(24) if password is None else password
    if not SHORTEST <= len(password) <= 128 or not password.isascii() or not password.isprintable():
        raise BadInput("password", f"A phone's password has {SHORTEST} to 128 visible ASCII characters.")
    await db.execute(
        """INSERT INTO browser_phones (login, pbx, interface, password) VALUES ($1, $2, $3, $4)
           ON CONFLICT (login, pbx) DO UPDATE SET interface = excluded.interface, password = excluded.password""",
        login,
        pbx,
        interface,
        _seal(key, password, f"{login} {pbx} {interface}"),
    )
    return interface.removeprefix(_TECHNOLOGY), password


async def remove_phone_password(db: Queryable, login: str, pbx: str) -> bool:
    """Makes the agent's phone on this PBX an ordinary one; False if it was."""
    return bool(
        await db.fetchval(
            "DELETE FROM browser_phones WHERE login = $1 AND pbx = $2 RETURNING true", login, pbx
        )
    )


async def phone_passwords(db: Pool | Queryable, key: bytes, login: str) -> list[PhonePassword]:
    """The agent's phones in the browser. Raises Unreadable."""
    rows = await db.fetch(
        """SELECT b.pbx, b.interface, b.password FROM browser_phones b
           JOIN agent_interfaces i USING (login, pbx, interface) WHERE b.login = $1 ORDER BY b.pbx""",
        login,
    )
    return [
        PhonePassword(
            pbx=row["pbx"],
            user=row["interface"].removeprefix(_TECHNOLOGY),
            password=_open(key, row["password"], f"{login} {row['pbx']} {row['interface']}"),
        )
        for row in rows
    ]


def _cipher(key: bytes) -> AESGCM:
    return AESGCM(hashlib.sha256(b"passwords of phones in the browser\0" + key).digest())


def _seal(key: bytes, password: str, about: str) -> bytes:
    nonce = secrets.token_bytes(_NONCE)
    return nonce + _cipher(key).encrypt(nonce, password.encode(), about.encode())


def _open(key: bytes, sealed: bytes, about: str) -> str:
    try:
        return _cipher(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], about.encode()).decode()
    except InvalidTag:
        raise Unreadable(
            "the password of this phone was sealed with another CTI_SECRET_KEY: "
            "an administrator sets it again with `cti users browser-phone`"
        ) from None
