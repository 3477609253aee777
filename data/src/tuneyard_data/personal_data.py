# SPDX-License-Identifier: Apache-2.0
"""Finds what looks like personal data or a secret, so that people check before a model memorises it.

Hints, not proof: they are counted by kind and place, and what was found is never repeated anywhere.
"""

import re
from collections.abc import Iterator

_NOT_IN_WORD = r"(?<![\w.+-])"
_MAILBOX = re.compile(_NOT_IN_WORD + r"[A-Za-z0-9][\w.+-]{0,63}\Z")
_MAIL_HOST = re.compile(r"(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,24}\b")
_LONGEST_MAILBOX = 64
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


_ANY_NUMBER = re.compile(r"\d(?:\D{0,3}\d){5}")
"""Any phone or card number: none has fewer digits, or more than `) (` between two."""
_SECRETS_BEGIN = (
    "PRIVATE KEY", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "hf_", "sk-", "nvapi-",
    "xox", "AIza", "eyJ",
)  # fmt: skip
KINDS = ("e-mail address", "card number", "phone number", "key or token")


def hints_in(text: str) -> Iterator[str]:
    """The kind of every hint in `text`, one of KINDS; a number is a card before it is a phone."""
    # Each kind is looked for only where a text has what the kind needs: most texts are spared the slow search.
    yield from ("e-mail address" for _ in range(_count_emails(text)))
    if _ANY_NUMBER.search(text):
        cards = [match for match in _CARD.finditer(text) if _is_card(match[0])]
        yield from ("card number" for _ in cards)
        for match in reversed(cards):
            text = text[: match.start()] + text[match.end() :]
        yield from ("phone number" for _ in _PHONE.finditer(text))
    for begin in _SECRETS_BEGIN:
        if begin in text:
            yield from ("key or token" for _ in _SECRET.finditer(text))
            break


def _count_emails(text: str) -> int:
    count, at, done = 0, text.find("@"), 0
    while at >= 0:
        host = _MAIL_HOST.match(text, at + 1)
        if host and _MAILBOX.search(text, max(done, at - _LONGEST_MAILBOX), at):
            count, done = count + 1, host.end()
        at = text.find("@", at + 1)
    return count
