# SPDX-License-Identifier: Apache-2.0
"""Finds what looks like personal data or a secret, so that people check before a model memorises it.

Hints, not proof: they are counted by kind and place, and what was found is never repeated anywhere.
"""

import re
from collections.abc import Iterator
from typing import Any

_NOT_IN_WORD = r"(?<![\w.+-])"
_MAILBOX = re.compile(_NOT_IN_WORD + r"[A-Za-z0-9][\w.+-]{0,63}\Z")
_MAIL_HOST = re.compile(r"(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,24}\b")
_LONGEST_MAILBOX = 64
_PHONE = re.compile(
    r"(?<![\w.+/-])(?:\+\d{1,3}[ .-]?(?:\(0\)[ .-]?)?\(?\d{1,4}\)?(?:[ .-]?\d{2,4}){2,4}"
    r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4})(?![\w-]|\.\d)"
)
# What stands before is looked at behind the first digit: so the search goes from digit to digit.
_CARD = re.compile(r"\d(?<![\w.-]\d)(?:[ -]?\d){12,18}(?![\w-]|\.\d)")
_SECRET = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----"
    r"|(?<![A-Za-z0-9])(?:"
    r"A(?:KIA|SIA)[A-Z0-9]{16}"  # Amazon
    r"|gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{40,}|glpat-[\w-]{20}"
    r"|hf_[A-Za-z0-9]{30,}|sk-[\w-]{20,}|nvapi-[\w-]{40,}|xox[abprs]-[\w-]{10,}|AIza[\w-]{35}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"  # a JSON Web Token
    r")(?![A-Za-z0-9])"
)
_CARD_DIGITS = range(13, 20)


def is_luhn(digits: str) -> bool:
    """Whether a number ends in its own check digit (ISO/IEC 7812-1, Luhn)."""
    doubled = (
        sum(divmod(2 * int(digit), 10)) if place % 2 else int(digit)
        for place, digit in enumerate(reversed(digits))
    )
    return sum(doubled) % 10 == 0


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return len(digits) in _CARD_DIGITS and len(set(digits)) > 1 and is_luhn(digits)


_ANY_NUMBER = re.compile(r"\d(?:\D{0,3}\d){5}")
"""Any phone or card number: none has fewer digits, or more than `) (` between two."""
_NUMBER_IN_ASCII = re.compile(rb"0(?: {0,3}0){5}")
_DIGITS = bytes(ord("0" if chr(byte) in "0123456789" else " ") for byte in range(256))
"""The same where each digit is a 0 and each other character a space, which is found in a fifth of the time."""
_SECRETS_BEGIN = {
    "gh": ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    "_": ("github_pat_", "hf_"),
    "-": ("glpat-", "sk-", "nvapi-"),
    "A": ("AKIA", "ASIA", "AIza", "PRIVATE KEY"),
    "J": ("eyJ",),
    "x": ("xox",),
}
"""A part of each key or token, by what it has in common with some others: most texts lack some of this."""
KINDS = ("e-mail address", "card number", "phone number", "key or token")


def hints_in(text: str) -> Iterator[str]:
    """The kind of every hint in `text`, one of KINDS; a number is a card before it is a phone."""
    # Each kind is looked for only where a text has what the kind needs: most texts are spared the slow search.
    yield from ("e-mail address" for _ in range(_count_emails(text)))
    if (first := _first_digit(text)) is not None:
        cards = [match for match in _CARD.finditer(text, first) if _is_card(match[0])]
        yield from ("card number" for _ in cards)
        for match in reversed(cards):
            text = text[: match.start()] + text[match.end() :]
        yield from ("phone number" for _ in _PHONE.finditer(text, max(0, first - 1)))
    if _may_have_secrets(text):
        yield from ("key or token" for _ in _SECRET.finditer(text))


def _first_digit(text: str) -> int | None:
    """The first digit of any number; a phone number may begin with a sign before it."""
    if text.isascii():
        found: re.Match[Any] | None = _NUMBER_IN_ASCII.search(text.encode().translate(_DIGITS))
    else:
        found = _ANY_NUMBER.search(text)
    return None if found is None else found.start()


def _may_have_secrets(text: str) -> bool:
    for part, begins in _SECRETS_BEGIN.items():
        if part in text and any(begin in text for begin in begins):
            return True
    return False


def _count_emails(text: str) -> int:
    count, at, done = 0, text.find("@"), 0
    while at >= 0:
        host = _MAIL_HOST.match(text, at + 1)
        if host and _MAILBOX.search(text, max(done, at - _LONGEST_MAILBOX), at):
            count, done = count + 1, host.end()
        at = text.find("@", at + 1)
    return count
