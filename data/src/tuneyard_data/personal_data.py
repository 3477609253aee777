# SPDX-License-Identifier: Apache-2.0
"""Finds what looks like personal data or a secret, so that people check before a model memorises it.

Hints, not proof: they are counted by kind and place, and what was found is never repeated anywhere.
"""

import re
from collections.abc import Callable, Iterator

_NOT_IN_WORD = r"(?<![\w.+-])"
_EMAIL = re.compile(_NOT_IN_WORD + r"[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,24}\b")
_PHONE = re.compile(
    r"(?<![\w.+/-])(?:\+\d{1,3}[ .-]?(?:\(0\)[ .-]?)?\(?\d{1,4}\)?(?:[ .-]?\d{2,4}){2,4}"
    r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4})(?![\w-]|\.\d)"
)
_CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-]|\.\d)")
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


_ANY_EMAIL = re.compile("@")
_ANY_NUMBER = re.compile(r"\d(?:\D{0,3}\d){5}")
"""Any phone or card number: none has fewer digits, or more than `) (` between two."""
_ANY_SECRET = re.compile(
    "PRIVATE KEY|AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|hf_|sk-|nvapi-|xox|AIza|eyJ"  # each begins a secret
)
_KINDS: tuple[tuple[str, re.Pattern[str], re.Pattern[str], Callable[[str], bool]], ...] = (
    # A text without the first is not searched further: most texts are spared the slow search.
    ("e-mail address", _ANY_EMAIL, _EMAIL, lambda _: True),
    ("card number", _ANY_NUMBER, _CARD, _is_card),
    ("phone number", _ANY_NUMBER, _PHONE, lambda _: True),
    ("key or token", _ANY_SECRET, _SECRET, lambda _: True),
)
KINDS = tuple(kind for kind, *_ in _KINDS)


def hints_in(text: str) -> Iterator[str]:
    """The kind of every hint in `text`, one of KINDS; a number is a card before it is a phone."""
    for kind, needed, pattern, is_meant in _KINDS:
        if not needed.search(text):
            continue
        found = [match for match in pattern.finditer(text) if is_meant(match[0])]
        yield from (kind for _ in found)
        if kind == "card number":
            for match in reversed(found):
                text = text[: match.start()] + text[match.end() :]
