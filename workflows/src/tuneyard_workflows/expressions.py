# SPDX-License-Identifier: Apache-2.0
"""Expressions of Argo Workflows (https://expr-lang.org) that put what people type into a manifest as one value of JSON."""

NUMBER = "^[0-9]*[.]?[0-9]+([eE][-+]?[0-9]+)?$"
CLAIM = "{pvc: {claimName: split(v[4:], '/')[0], path: join(split(v[4:], '/')[1:], '/')} }"
MODEL = (
    f"v startsWith 'pvc:' ? {CLAIM} : "
    "{huggingFace: {repo: split(v, '@')[0], revision: split(v + '@main', '@')[1]} }"
)
DATA = (
    f"v startsWith 'pvc:' ? {CLAIM} : v startsWith 'https://' ? "
    "{http: {url: split(v, '#')[0], sha256: join(split(v, '#')[1:], '#')} } : "
    "{huggingFace: {repo: join(split(v, '/')[:2], '/'), path: join(split(v, '/')[2:], '/')} }"
)


def as_json(expression: str) -> str:
    """The expression's value as JSON. A tag inside of a value would be looked at again later, so its braces are escaped."""
    return f"replace(toJson({expression}), '{{' + '{{', '{{\\\\u007b')"


def tag(name: str, expression: str) -> str:
    """A tag that becomes the expression's value; in the expression the input of this name is called `v`."""
    return f"{{{{=let v = inputs.parameters.{name}; {expression}}}}}"


def text(name: str) -> str:
    """The input as a string of JSON."""
    return tag(name, as_json("v"))


def number(name: str) -> str:
    """The input as a number as it was typed; anything else becomes text, which the API server refuses."""
    return tag(name, f"v matches '{NUMBER}' ? v : {as_json('v')}")


def duration(name: str) -> str:
    """A length of time as Argo takes it: Go has no unit for days, which people want."""
    return tag(name, "v matches '^[0-9]+d$' ? string(int(v[:len(v) - 1]) * 24) + 'h' : v")


def claim_of(name: str) -> str:
    """The name of the claim in an input `pvc:<claim>/<path>`; of anything else, what no claim can be called."""
    return tag(name, "v startsWith 'pvc:' ? split(v[4:], '/')[0] : 'not pvc:<claim>/<path>: ' + v")


def path_of(name: str) -> str:
    """The path in an input `pvc:<claim>/<path>`."""
    return tag(name, "join(split(v, '/')[1:], '/')")
