# SPDX-License-Identifier: Apache-2.0
"""The report as one page of HTML that needs no other file: for people who want to see which tokens are learned."""

from collections.abc import Sequence
from html import escape

from tuneyard_data.loaded import Loaded
from tuneyard_data.report import DataReport, text_of
from tuneyard_data.shown_tokens import ShownTokens, shown_tokens
from tuneyard_data.tokenization import TextTokenizer

_MAX_TOKENS = 1000
"""Tokens of a record that are shown."""
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2024 }
pre { background: #f4f5f6; padding: 1rem; overflow-x: auto }
.record { border: 1px solid #d0d5da; padding: 0.75rem; overflow-wrap: anywhere }
.token { white-space: pre-wrap; border-right: 1px solid #c0c5ca }
.learned { background: #b7e4c7; font-weight: 600 }
.warning { color: #8a3b00 }
"""


def html_of(
    report: DataReport, warnings: Sequence[str], splits: dict[str, Loaded], tokenizer: TextTokenizer | None
) -> bytes:
    """The page in UTF-8: warnings, the first records without a hint at personal data token by token, the report."""
    parts = ["<h1>Data set</h1>"]
    parts += [f'<p class="warning">{escape(warning)}</p>' for warning in warnings]
    if tokenizer is not None:
        parts.append(
            '<h2>What is learned</h2><p>Each box is a token. <span class="token learned">Coloured</span> tokens count in'
            " the loss. A line break inside a token is shown as \u21b5.</p>"
        )
        for name, split in splits.items():
            for place, record in split.shown:
                shown = shown_tokens(str(place), record, tokenizer, most=_MAX_TOKENS)
                parts.append(f"<h3>{escape(name)}: {escape(shown.place)}</h3>{_tokens(shown)}")
    # The shown record is above, token by token.
    text = text_of(report.model_copy(update={"shown": None}))
    parts.append(f"<h2>Lengths, repetitions, hints</h2><pre>{escape(text)}</pre>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Data set</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    ).encode()


def _tokens(shown: ShownTokens) -> str:
    spans = [
        f'<span class="{"token learned" if is_learned else "token"}">{escape(text)}</span>'
        for text, is_learned in shown.boxes()
    ]
    before = f"{shown.before} tokens before \u2026 " if shown.before else ""
    rest = f" \u2026 and {shown.behind} more tokens" if shown.behind else ""
    return f'<div class="record">{before}{"".join(spans)}{rest}</div>'
