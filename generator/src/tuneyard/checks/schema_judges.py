# SPDX-License-Identifier: Apache-2.0
"""Validates a value by a CRD's schema as the API server does, and by a chart's values.schema.json as Helm does.

Both are programs in Go and differ from Python's JSON Schema, and from each other, in patterns (RE2: `$` is the end of the
text, `\\d` an ASCII digit, a lookahead no pattern at all), formats and multiples of fractions. Read in the sources of
kube-apiserver 1.36.3 (kube-openapi's validation) and Helm 3.22.0 (santhosh-tekuri/jsonschema 6.0.3).
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from fractions import Fraction
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import re2  # type: ignore[import-untyped]
from jsonschema import Draft202012Validator, ValidationError, validators  # type: ignore[import-untyped]

Json = Any
_BYTE = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$"
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HEX = "[0-9A-Fa-f]"
_UUID = [f"{_HEX}{{{length}}}" for length in (8, 4, 4, 4, 12)]
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:"
_OFFSET = r"(?:[zZ]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_EPSILON = 1e-9
"""Relative error that the API server forgives in a multiple."""


@cache
def compiled(pattern: str) -> Any:
    """The pattern compiled by RE2, or None if RE2 can't compile it."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error:
        return None


def _like(pattern: str) -> Callable[[str], bool]:
    return lambda text: compiled(pattern).search(text) is not None


def _read_by(read: Callable[[str], Any]) -> Callable[[str], bool]:
    def is_read(text: str) -> bool:
        try:
            return read(text) is not False
        except ValueError:
            return False

    return is_read


def _date(text: str) -> bool:
    return bool(re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text)) and date.fromisoformat(text) is not None


def _date_time(clock: str) -> Callable[[str], bool]:
    return _read_by(lambda text: _like(rf"^.{{10}}[tT]{clock}$")(text) and _date(text[:10]))


def _url(text: str) -> bool:
    port = urlsplit(text).port
    escapes = re.fullmatch(r"(?:[^%\x00-\x20\x7f]|%[0-9A-Fa-f]{2})+", text)
    return bool(escapes) and (port is None or port >= 0)


def _ipv6(text: str) -> bool:
    return "%" not in text and ipaddress.IPv6Address(text) is not None


_HELM_HOSTNAME = rf"^{_LABEL}(?:\.{_LABEL})*\.?$"
HELM_FORMATS: Mapping[str, Callable[[str], bool]] = {
    "date": _read_by(_date),
    "date-time": _date_time(rf"{_CLOCK}(?:[0-5][0-9]|60)(?:\.[0-9]+)?{_OFFSET}"),
    "duration": _like(
        r"^P(?:[0-9]+W|(?:[0-9]+Y)?(?:[0-9]+M)?(?:[0-9]+D)?(?:T(?:[0-9]+H)?(?:[0-9]+M)?(?:[0-9]+S)?)?)$"
    ),
    "email": _like(
        rf"^(?:[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~-]+)*)@{_HELM_HOSTNAME[1:]}"
    ),
    "hostname": _like(_HELM_HOSTNAME),
    "ipv4": _read_by(ipaddress.IPv4Address),
    "ipv6": _read_by(_ipv6),
    "regex": lambda text: compiled(text) is not None,
    "semver": _like(
        r"^(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*)){2}(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?$"
    ),
    "uri": _read_by(lambda text: _url(text) and bool(urlsplit(text).scheme)),
    "uuid": _like(f"^{'-'.join(_UUID)}$"),
}
"""Formats that Helm asserts, in schemas of draft 7 and older only. Formats that are not here are not judged."""
API_SERVER_FORMATS: Mapping[str, Callable[[str], bool]] = {
    "byte": _like(_BYTE),
    "cidr": _read_by(lambda text: "/" in text and ipaddress.ip_interface(text)),
    "date": _read_by(_date),
    "datetime": _date_time(rf"{_CLOCK}[0-5][0-9](?:.[0-9]+)?(?:[zZ]|[+-][0-9]{{2}}:[0-9]{{2}})"),
    "duration": _like(
        r"^[+-]?0$|^[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+$"
        r"|(?i)[0-9]+\s*(?:ns|us|µs|ms|[smhdw]\b|nano|micro|milli|sec|min|hr\b|hour|day|wk\b|week)"
    ),
    "email": _like(r"^(?:[^<>@]*<)?[^\s<>@,;:\\\"]+@[^\s<>@,;:\\\"]+>?$"),
    "hexcolor": _like(rf"^#?(?:{_HEX}{{3}}|{_HEX}{{6}})$"),
    "hostname": _like(
        r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]"
        r"{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$"
    ),
    "ipv4": _like(r"^(?:0*(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(?:\.|$)){4}$"),
    "ipv6": _read_by(_ipv6),
    "mac": _like(rf"^{_HEX}{{2}}(?:(?::{_HEX}{{2}}){{5}}|(?:-{_HEX}{{2}}){{5}})$"),
    "uri": _read_by(lambda text: _url(text) and (text.startswith("/") or bool(urlsplit(text).scheme))),
    "uuid": _like(f"^{'-?'.join(_UUID)}$"),
}
"""Formats that every supported API server asserts, without hyphens. Formats that are not here are not judged."""


def _pattern(validator: Any, pattern: str, value: Json, _: Json) -> Iterator[Any]:
    if validator.is_type(value, "string"):
        expression = compiled(pattern)
        if expression is None:
            yield ValidationError(f"{pattern!r} is no pattern in Go")
        elif not expression.search(value):
            yield ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Json, value: Json, _: Json) -> Iterator[Any]:
    if validator.is_type(value, "object"):
        for pattern, schema in patterns.items():
            expression = compiled(pattern)
            for key, child in value.items():
                if expression is not None and expression.search(key):
                    yield from validator.descend(child, schema, path=key, schema_path=pattern)


def _additional_properties(validator: Any, rest: Json, value: Json, schema: Json) -> Iterator[Any]:
    if not validator.is_type(value, "object"):
        return
    patterns = [expression for text in schema.get("patternProperties", {}) if (expression := compiled(text))]
    named = schema.get("properties", {})
    for key, child in value.items():
        if key in named or any(expression.search(key) for expression in patterns):
            continue
        if rest is False:
            yield ValidationError(f"there is no field {key!r}")
        elif validator.is_type(rest, "object"):
            yield from validator.descend(child, rest, path=key)


def _format_by(formats: Mapping[str, Callable[[str], bool]]) -> Callable[..., Iterator[Any]]:
    def judge(validator: Any, name: str, value: Json, _: Json) -> Iterator[Any]:
        holds = formats.get(name)
        if holds and validator.is_type(value, "string") and not holds(value):
            yield ValidationError(f"{value!r} is no {name}")

    return judge


def _exact_multiple(validator: Any, factor: Any, value: Json, _: Json) -> Iterator[Any]:
    """Whether the value is a multiple by Helm's rule, which uses decimals."""
    if validator.is_type(value, "number") and Fraction(str(value)) % Fraction(str(factor)):
        yield ValidationError(f"{value!r} is not a multiple of {factor}")


def _rounded_multiple(validator: Any, factor: Any, value: Json, _: Json) -> Iterator[Any]:
    """Whether the value is a multiple to the API server: it divides and allows rounding, but not for integers."""
    if not validator.is_type(value, "number"):
        return
    quotient = Fraction(value, int(factor) or 1) if isinstance(value, int) else value / factor
    if (isinstance(value, int) and factor < 1) or abs(quotient - round(quotient)) > _EPSILON * abs(quotient):
        yield ValidationError(f"{value!r} is not a multiple of {factor}")


def _whole_bound(keyword: str) -> Callable[..., Iterator[Any]]:
    """The bound as the API server uses it for integers: its whole part."""
    usual = Draft202012Validator.VALIDATORS[keyword]

    def judge(validator: Any, bound: Any, value: Json, schema: Json) -> Iterator[Any]:
        whole = isinstance(value, int)
        yield from usual(validator, int(bound) if whole else bound, value, schema) or ()

    return judge


_GO = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
}
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_API_SERVER = validators.extend(
    Draft202012Validator,
    {
        **_GO,
        "multipleOf": _rounded_multiple,
        "format": lambda v, name, *rest: _format_by(API_SERVER_FORMATS)(v, name.replace("-", ""), *rest),
        **{keyword: _whole_bound(keyword) for keyword in _BOUNDS},
    },
)


def api_server_errors(schema: Json, value: Json) -> Iterator[Any]:
    """The errors of an API server; `schema` is a CRD's after `custom_kinds.strict`, `value` is as it is stored."""
    yield from _API_SERVER(schema).iter_errors(value)


def helm_errors(schema: Json, value: Json) -> Iterator[Any]:
    """The errors that Helm reports for a chart's values.

    Raises:
        referencing.exceptions.Unresolvable: the schema points to the network.
    """
    if broken := next(_broken_patterns(schema), None):
        yield ValidationError(f"{broken!r} is no pattern in Go, so Helm refuses all values")
        return
    draft = validators.validator_for(schema, default=Draft202012Validator)
    keywords = {**_GO, "multipleOf": _exact_multiple}
    if "/draft-0" in draft.META_SCHEMA["$schema"]:
        keywords["format"] = _format_by(HELM_FORMATS)
    yield from validators.extend(draft, keywords)(schema).iter_errors(value)


def _broken_patterns(schema: Json) -> Iterator[str]:
    """Patterns at places where a schema may have one; what is under `default`, `enum`, `const` or `examples` is data."""
    if isinstance(schema, list):
        for item in schema:
            yield from _broken_patterns(item)
    elif isinstance(schema, dict):
        texts = [schema["pattern"]] if isinstance(schema.get("pattern"), str) else []
        if isinstance(schema.get("patternProperties"), dict):
            texts += schema["patternProperties"]
        yield from (text for text in texts if compiled(text) is None)
        for key, child in schema.items():
            if key not in ("default", "enum", "const", "examples"):
                yield from _broken_patterns(child)
