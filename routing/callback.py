"""Which numbers may be called back at all: a caller can claim any number, and calling some of them costs a fortune."""

from __future__ import annotations

import phonenumbers
from phonenumbers import PhoneNumberType

DEAR = frozenset(
    {
        PhoneNumberType.PREMIUM_RATE,
        PhoneNumberType.SHARED_COST,
        PhoneNumberType.PAGER,
        PhoneNumberType.UAN,
        PhoneNumberType.VOICEMAIL,
    }
)
"""Kinds of numbers behind which no customer sits."""


def may_be_called(e164: str) -> bool:
    """Whether a customer may sit behind this number (+44...); False for what is no number."""
    try:
        number = phonenumbers.parse(e164, None)
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_possible_number(number) and phonenumbers.number_type(number) not in DEAR
