# SPDX-License-Identifier: Apache-2.0
"""The order as a picture: text, Mermaid or SVG, with the reason of every edge. Pure."""

from collections import defaultdict
from xml.sax.saxutils import escape

from tuneyard.stack.model import Stack
from tuneyard.stack.order import waves
from tuneyard.stack.resolve import edges

LAST = "the root models is the platform's last wave, so that no model holds up a fix of the platform"
"""Reason why served models come after the whole platform, whatever their needs are."""
_BOX_WIDTH, _BOX_HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 190, 34, 24, 70, 20


def _levels(stack: Stack) -> dict[int, list[str]]:
    """Wave -> components. Providers outside the tree are in the first wave that needs them."""
    levels: dict[int, list[str]] = defaultdict(list)
    for name, wave in waves(stack).items():
        levels[wave].append(name)
    return {wave: sorted(levels[wave]) for wave in sorted(levels)}


def as_text(stack: Stack) -> str:
    """One line for each component under its wave, then one for each of its needs."""
    links = edges(stack)
    lines = []
    for wave, names in _levels(stack).items():
        lines.append(f"wave {wave}")
        for name in names:
            component = stack.component(name)
            note = "" if component and component.is_rendered() else " (not rendered)"
            root = " [models]" if component and component.root == "models" else ""
            lines.append(f"  {name}{root}{note}: {stack.reasons[name]}")
            lines.extend(
                f"    {'after' if edge.soft else 'needs'} {edge.provider}: {edge.capability}, {edge.because}"
                for edge in links
                if edge.component == name
            )
            if root:
                lines.append(f"    after the platform: {LAST}")
    return "\n".join(lines) + "\n"


def as_mermaid(stack: Stack) -> str:
    """A flowchart; waves are subgraphs, soft needs dotted."""
    lines = ["flowchart TB"]
    for wave, names in _levels(stack).items():
        lines.append(f"  subgraph wave{wave} [wave {wave}]")
        lines += [f"    {_identifier(name)}[{name}]" for name in names]
        lines.append("  end")
    for edge in edges(stack):
        arrow = "-.->" if edge.soft else "-->"
        label = edge.because.replace('"', "'")
        lines.append(
            f'  {_identifier(edge.provider)} {arrow}|"{edge.capability}: {label}"| {_identifier(edge.component)}'
        )
    models = [component.name for component in stack.components if component.root == "models"]
    lines += [f'  platform([all of the platform]) -.->|"{LAST}"| {_identifier(name)}' for name in models]
    return "\n".join(lines) + "\n"


def _identifier(name: str) -> str:
    return name.replace("-", "_")


def as_svg(stack: Stack) -> str:
    """Boxes in rows of waves and a line for each need; the reason is each line's tooltip."""
    levels = _levels(stack)
    places: dict[str, tuple[int, int]] = {}
    for row, names in enumerate(levels.values()):
        for column, name in enumerate(names):
            places[name] = (
                _MARGIN + 60 + column * (_BOX_WIDTH + _GAP_X),
                _MARGIN + row * (_BOX_HEIGHT + _GAP_Y),
            )
    width = max(x for x, _ in places.values()) + _BOX_WIDTH + _MARGIN
    height = max(y for _, y in places.values()) + _BOX_HEIGHT + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for edge in edges(stack):
        (x1, y1), (x2, y2) = places[edge.provider], places[edge.component]
        start, end = (x1 + _BOX_WIDTH // 2, y1 + _BOX_HEIGHT), (x2 + _BOX_WIDTH // 2, y2)
        middle = (start[1] + end[1]) // 2
        dash = ' stroke-dasharray="4 3"' if edge.soft else ""
        title = escape(
            f"{edge.component} {'after' if edge.soft else 'needs'} {edge.provider}: {edge.capability}, {edge.because}"
        )
        parts.append(
            f'<path d="M{start[0]},{start[1]} C{start[0]},{middle} {end[0]},{middle} {end[0]},{end[1]}" fill="none" '
            f'stroke="#8899aa"{dash}><title>{title}</title></path>'
        )
    for row, wave in enumerate(levels):
        parts.append(
            f'<text x="{_MARGIN}" y="{_MARGIN + row * (_BOX_HEIGHT + _GAP_Y) + 22}" fill="#667788">{wave}</text>'
        )
    for name, (x, y) in places.items():
        component = stack.component(name)
        rendered = component is not None and component.is_rendered()
        fill = (
            "#f4f4f4"
            if not rendered
            else "#e8f2e4"
            if component and component.root == "models"
            else "#e4ecf7"
        )
        summary = escape(component.summary if component else "")
        if component and component.root == "models":
            summary += escape(f"; after the platform: {LAST}")
        parts.append(
            f'<g><title>{summary}</title><rect x="{x}" y="{y}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="5" '
            f'fill="{fill}" stroke="#667788"/><text x="{x + _BOX_WIDTH // 2}" y="{y + 22}" text-anchor="middle">{escape(name)}</text></g>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


STYLES = {"text": as_text, "mermaid": as_mermaid, "svg": as_svg}
