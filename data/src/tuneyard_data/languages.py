# SPDX-License-Identifier: Apache-2.0
"""Guesses the language of a text by its script and, in Latin script, by its commonest words.

A guess for people: it shows a data set that holds other languages than was thought. It knows few languages.
"""

import re
import unicodedata
from collections import Counter
from functools import cache

UNKNOWN = "unknown"
_LOOKED_AT = 200
"""Characters of a text that are looked at."""
_LEAST_WORDS = 2
_WORDS = {
    "English": "the and of to is in that it for you with are this was not as be have on",
    "German": "der die das und ist nicht ein eine ich sie zu den mit auf für von es dem wie auch",
    "French": "le la les des et est une du que dans pour pas qui sur vous au ce il avec je",
    "Spanish": "el los las una es que en por con para del se como su más pero y lo al está",
    "Italian": "il di che è un una per non sono della del con gli si nel più come questo ma anche",
    "Portuguese": "o os uma que não em para com do da dos por mais como é ao são você se um",
    "Dutch": "het een van en is dat niet op te zijn voor met die aan er maar ook je wordt bij",
}
_LANGUAGES_OF: dict[str, list[str]] = {}
for _language, _words in _WORDS.items():
    for _word in _words.split():
        _LANGUAGES_OF.setdefault(_word, []).append(_language)
_LATIN_WORD = re.compile(r"[^\W\d_]+")
_LETTERS = "".join(chr(code).lower() if chr(code).isalpha() else " " for code in range(128))
"""What each character of ASCII becomes: a small letter, or the space between two words."""


def language_of(text: str) -> str:
    """`English`, or `Cyrillic script` for other scripts than Latin, or UNKNOWN."""
    part = text[:_LOOKED_AT]
    if part.isascii():
        # The same words, in half of the time.
        words = part.translate(_LETTERS).split()
    else:
        scripts = Counter(_script_of(character) for character in part if character.isalpha())
        if scripts and (script := scripts.most_common(1)[0][0]) != "Latin":
            return f"{script} script"
        words = _LATIN_WORD.findall(part.lower())
    known = [word for word in words if word in _LANGUAGES_OF]
    if len(known) < _LEAST_WORDS:
        return UNKNOWN
    found = [language for word in known for language in _LANGUAGES_OF[word]]
    counts = {language: found.count(language) for language in found}
    most = max(counts.values())
    first, *others = [language for language, count in counts.items() if count == most]
    return first if most >= _LEAST_WORDS and not others else UNKNOWN


@cache
def _script_of(character: str) -> str:
    """Unicode begins the name of a letter with its script."""
    return unicodedata.name(character, "unknown").split()[0].title()
