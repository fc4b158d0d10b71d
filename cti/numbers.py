"""Caller numbers: whatever text a PBX delivers, read as one thing, its E.164 number where there is one.

Pure and bounded: the text is cut before anything looks at it, and nothing here ever raises. Number plans are
Google's (`phonenumbers`); this module only knows how switches, trunks and SIP write numbers down.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from urllib.parse import unquote

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumber, PhoneNumberFormat, ValidationResult

from cti.number_plan import from_home, planned
from cti.plain_text import plain

LONGEST_TEXT = 256
"""Characters of the delivered text that are read; a number that begins later is not found."""

LONGEST_EXTENSION = 6
"""Digits of the longest internal number: such a short number without any prefix is never taken for a subscriber's."""


class Kind(StrEnum):
    """What a delivered number is."""

    IDENTIFIED = "identified"
    WITHHELD = "withheld"
    UNKNOWN = "unknown"
    INTERNAL = "internal"
    ALPHANUMERIC = "alphanumeric"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A number as it was delivered and what it means.

    `e164` is set exactly if `kind` is identified. `valid`: its range is assigned, as far as the number plan says;
    `possible`: at least its length fits the plan. `formatted` is the
    international form for people. `digits` are the ASCII digits seen, with a leading + if there was one.
    `text` is what was received, without control characters. `country` is ISO 3166, "" where the plan names none.
    """

    kind: Kind
    text: str
    digits: str = ""
    e164: str | None = None
    formatted: str | None = None
    country: str = ""
    possible: bool = False
    valid: bool = False

    @property
    def national(self) -> str | None:
        """The number as it is written in its own country; None without `e164`."""
        number = _parse(self.e164, None) if self.e164 else None
        return phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL) if number else None

    @property
    def withheld(self) -> bool:
        """Whether the caller asked not to be known (other than: the network does not know)."""
        return self.kind is Kind.WITHHELD


_WITHHELD = re.compile(
    "anonym|anonym(o?us)|restricted|private|withheld|blocked|suppressed|hidden|p|clir|nocallerid|presentationrestricted"
    "|private(number|caller)|(number|caller|id)withheld|(withheld|blocked|restricted)number|(callerid|caller)blocked"
    "|blockedcaller|unterdrueckt|unterdrückt|masque|masqué|oculto|nascosto|zastrzezony|zastrzeżony"
)
_UNKNOWN = re.compile(
    "unknown|unavailable|outofarea|notavailable|nonumber|nocli|none|null|nil|undefined|na|asterisk|o|s"
    "|unknown(caller|number)|numberunavailable|anonymousunavailable|unbekannt|inconnu|desconocido"
)
"""Words of gateways, carriers and Asterisk itself, letters only; `p` and `o` are North America's caller-id codes."""

_KEYPAD = {"266696687": Kind.WITHHELD, "86282452253": Kind.UNKNOWN}
"""ANONYMOUS and UNAVAILABLE as typed on a telephone's keys: gateways that must send digits send these."""

_ANGLE = re.compile(r"<([^<>]*)>")
_SCHEME = re.compile(
    r"^\s*(sips?|tel|callto|phone|tlf|fon|telefon|telephone|mobile|mob|cell)\s*[:.]\s*(//)?", re.I
)
_CONTEXT = re.compile(r";\s*phone-context\s*=\s*\+?([0-9]{1,7})(?![0-9.a-z-])", re.I)
_EXTENSION = re.compile(
    r"[\s,(]*(?:;ext=|\bext(?:ension)?\b\.?|(?<=[\d\s)])x\.?|#|,+|;)\s*[:.]?\s*[0-9]{0,8}[)\s#]*$", re.I
)
_DIGITS = re.compile(r"\+?[0-9]{1,32}")
_ASTERISK_EMPTY = re.compile(r"^[<\[(\"']*\s*unknown\s*[>\])\"']*$", re.I)


def read_caller(text: str | None, region: str) -> Caller:
    """Reads a caller's (or dialled) number in whatever form it comes; never raises.

    `region` is the ISO 3166 country whose national form numbers without a country code have. An E.164 result, read
    again in any region, is itself. Sources: E.164, RFC 3966 (tel), RFC 3261 19.1.6 (sip), RFC 3323 (anonymous).
    """
    if text is None:
        return Caller(kind=Kind.UNKNOWN, text="")
    return _read(text[:LONGEST_TEXT], region)


@lru_cache(maxsize=16_384)
def _read(received: str, region: str) -> Caller:
    if _DIGITS.fullmatch(received):  # as most trunks deliver it
        return _read_digits(received, "", received, region)
    shown = plain(received, 128)
    if not shown or _ASTERISK_EMPTY.match(shown):
        return Caller(kind=Kind.UNKNOWN, text=shown)
    user, context = _user_part(received)
    word = "".join(character for character in user.casefold() if character.isalpha())
    if not any(character.isdigit() for character in user):
        if _WITHHELD.fullmatch(word):
            return Caller(kind=Kind.WITHHELD, text=shown)
        if not word or _UNKNOWN.fullmatch(word):
            return Caller(kind=Kind.UNKNOWN, text=shown)
        return Caller(kind=Kind.ALPHANUMERIC, text=shown)
    if word:
        return Caller(kind=Kind.ALPHANUMERIC, text=shown, digits=_digits(user)[:64])
    return _read_digits(_digits(user), context, shown, region)


def _user_part(received: str) -> tuple[str, str]:
    """Returns the part of a name-addr, URI or plain text that is the number, and the tel URI's phone-context."""
    text = unquote(received) if "%" in received else received
    text = unicodedata.normalize("NFKC", text)[:LONGEST_TEXT]
    if angles := [inside for inside in _ANGLE.findall(text) if inside.strip()]:
        text = angles[-1]  # the ones before it are of the name
    context = found.group(1) if (found := _CONTEXT.search(text)) else ""
    scheme = _SCHEME.match(text)
    if scheme:
        text = text[scheme.end() :]
    user = text.split("@", 1)[0]
    if "@" in text and not user.strip():
        return "", context
    user = _CONTEXT.sub("", user)
    if re.search(r";\s*[a-z-]+(?:=|;|$)", user, re.I):  # parameters of a tel URI: isub, npdi, rn, ext ...
        user = user.split(";", 1)[0]
    if ":" in user and (scheme or "@" in text):  # user:password of a SIP URI
        user = user.split(":", 1)[0]
    return _EXTENSION.sub("", user), context


def _digits(user: str) -> str:
    """Returns the ASCII digits in `user`, of any script, with a + in front if one stands before the first digit."""
    digits: list[str] = []
    plus = False
    for character in user:
        if character in "+＋﹢⁺" and not digits:
            plus = True
        elif (value := unicodedata.digit(character, None)) is not None:
            digits.append(str(value))
        elif character == "+" and digits and all(digit == "0" for digit in digits):
            digits.clear()  # `00+44...`: the + says it all
            plus = True
    return ("+" if plus else "") + "".join(digits)


def _read_digits(written: str, context: str, shown: str, region: str) -> Caller:
    digits = written.lstrip("+")
    bare = not written.startswith("+")
    if not digits.strip("0") or (len(digits) >= 7 and len(set(digits)) == 1):
        return Caller(
            kind=Kind.UNKNOWN if len(digits) > 1 else Kind.INTERNAL, text=shown, digits=written[:64]
        )
    if kind := _KEYPAD.get(digits.lstrip("0")):
        return Caller(kind=kind, text=shown, digits=written)
    if bare and context and not digits.startswith("0"):
        written, bare = f"+{context}{digits}", False
        digits = written[1:]
    if (bare and len(digits) <= LONGEST_EXTENSION and not digits.startswith("0")) or len(digits) <= 4:
        return Caller(kind=Kind.INTERNAL, text=shown, digits=written)
    if len(digits) <= 32:
        fallback: Caller | None = None
        for candidate, home in _readings(digits, bare, region):
            caller = _interpret(candidate, home, written, shown)
            if caller is None or _KEYPAD.get((caller.e164 or "+").lstrip("+")):
                continue
            if caller.valid or (not bare and candidate == written):
                return caller
            fallback = fallback or caller
        if fallback:
            return fallback
        if bare and len(digits) <= LONGEST_EXTENSION:
            return Caller(kind=Kind.INTERNAL, text=shown, digits=written)
    return Caller(kind=Kind.INVALID, text=shown, digits=written[:64])


def _readings(digits: str, bare: bool, region: str) -> Iterator[tuple[str, str | None]]:
    """Yields what the digits may mean as (text for the parser, region), the likeliest first."""
    code = str(phonenumbers.country_code_for_region(region) or "")
    if not bare:
        if not digits.startswith("0"):
            yield f"+{digits}", None
        if digits.startswith("00"):  # `+0044...`: a trunk put its + before the international prefix
            yield f"+{digits.lstrip('0')}", None
        elif digits.startswith("011"):
            yield f"+{digits[3:]}", None
        elif digits.startswith("0"):  # `+020...`: a + before the national form
            yield digits, region
        yield from _repaired(digits)
        return
    if code and digits.startswith(code) and len(digits) >= 11:  # E.164 whose + was lost, of the own country
        yield f"+{digits}", None
    if digits.startswith("000"):  # an outside-line 0 before the international prefix
        yield f"+{digits.lstrip('0')}", None
    elif digits.startswith("00"):
        yield f"+{digits[2:]}", None
        yield from _repaired(digits[2:])
    yield digits, region
    if digits.startswith("011"):
        yield f"+{digits[3:]}", None
    elif not digits.startswith("0"):
        if len(digits) >= 11:  # E.164 whose + was lost, of another country
            yield f"+{digits}", None
        yield from _repaired(digits)


def _repaired(digits: str) -> Iterator[tuple[str, str | None]]:
    """Yields international readings with one known mistake undone: a country code said twice, Mexico's former mobile 1."""
    for length in (1, 2, 3):
        code, rest = digits[:length], digits[length:]
        if int(code or 0) in phonenumbers.COUNTRY_CODE_TO_REGION_CODE and len(rest) > length + 5:
            for prefix in ("", "00", "0", "011"):
                if rest.startswith(prefix + code):
                    yield f"+{rest[len(prefix) :]}", None
    if digits.startswith("521") and len(digits) == 13:
        yield f"+52{digits[3:]}", None


def _interpret(text: str, region: str | None, written: str, shown: str) -> Caller | None:
    """Returns the identified caller if the text is a possible number whose E.164 form reads back as itself."""
    digits = text[1:] if region is None else from_home(text, region)
    if digits and (plan := planned(digits)) is not None:
        return Caller(
            kind=Kind.IDENTIFIED,
            text=shown,
            digits=written,
            e164=f"+{digits}",
            formatted=plan.formatted,
            country=plan.country,
            possible=True,
            valid=plan.valid,
        )
    return _interpret_slowly(text, region, written, shown)


def _interpret_slowly(text: str, region: str | None, written: str, shown: str) -> Caller | None:
    """`_interpret` for every case, by `phonenumbers` alone."""
    number = _parse(text, region)
    if number is None or not _possible(number):
        return None
    e164 = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    if e164 != text:
        number = _parse(e164, None)
        if number is None or phonenumbers.format_number(number, PhoneNumberFormat.E164) != e164:
            return None
        if not _possible(number):
            return None
    country = phonenumbers.region_code_for_number(number) or ""
    valid = bool(country) and phonenumbers.is_valid_number_for_region(number, country)
    if number.italian_leading_zero and not valid:  # a trunk prefix that no rule of the plan takes away
        return None
    country = country or phonenumbers.region_code_for_country_code(number.country_code or 0)
    return Caller(
        kind=Kind.IDENTIFIED,
        text=shown,
        digits=written,
        e164=e164,
        formatted=phonenumbers.format_number(number, PhoneNumberFormat.INTERNATIONAL),
        country=country if country.isalpha() and len(country) == 2 and country != "ZZ" else "",
        possible=True,
        valid=valid,
    )


def _possible(number: PhoneNumber) -> bool:
    return phonenumbers.is_possible_number_with_reason(number) == ValidationResult.IS_POSSIBLE


def _parse(text: str, region: str | None) -> PhoneNumber | None:
    try:
        return phonenumbers.parse(text, region)
    except NumberParseException:
        return None
