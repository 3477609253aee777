# SPDX-License-Identifier: Apache-2.0
"""Whether a server answers with a version as the evaluation of its job did.

A server that computes in another order or precision may choose another word now and then, so the answers need not be
equal. One that has loaded the adapter wrongly, or other weights, answers something else.
"""

from difflib import SequenceMatcher

from tuneyard_api.registry import Trial

from tuneyard_sync.servers import Server

COMPARED_CHARACTERS = 400
"""How much of each answer is compared: the time grows with its square, and more for text that repeats itself."""


def alike(one: str, other: str) -> float:
    """How alike the beginnings of two texts are, 0 to 1: the share of characters that are in both, in the same order."""
    first, second = (text.strip()[:COMPARED_CHARACTERS] for text in (one, other))
    return SequenceMatcher(None, first, second, autojunk=False).ratio()


def why_unlike(server: Server, name: str, trial: Trial) -> str | None:
    """What is wrong with the answers under a name; None: they are as they should be.

    Raises:
        ServerError: it does not answer.
    """
    similarity = [
        alike(server.answer(name, question, trial.max_new_tokens), question.answer)
        for question in trial.questions
    ]
    mean = sum(similarity) / len(similarity)
    if mean >= trial.min_similarity:
        return None
    return (
        f"the server answers {len(similarity)} held-out questions unlike the evaluation did (similarity {mean:.2f}, at least"
        f" {trial.min_similarity} is wanted: publish.trial of the job)"
    )
