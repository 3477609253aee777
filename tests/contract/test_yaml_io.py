# SPDX-License-Identifier: Apache-2.0
"""The one YAML reader and writer: what they read, refuse and write, and that every reader agrees."""

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tuneyard_api import yaml_io
from tuneyard_api.problems import InputRefused, Position
from tuneyard_api.yaml_io import Document, dump, dump_all, load, load_all

NASTY = [
    *(
        "no",
        "No",
        "NO",
        "yes",
        "on",
        "off",
        "y",
        "n",
        "Y",
        "N",
        "true",
        "True",
        "null",
        "~",
        "",
        " ",
        "a ",
        " a",
    ),
    *(
        "1",
        "+1",
        "-1",
        "0x1F",
        "0o17",
        "017",
        "0b11",
        "1_000",
        "1e3",
        "1E+3",
        "2e-4",
        ".5",
        "5.",
        "1.",
        "+.5",
        "-",
    ),
    *(
        "12:30",
        "12:30:45",
        "190:20:30.15",
        "2026-11-21",
        "2001-12-14t21:59:43.10-05:00",
        "2001-12-14 21:59:43 Z",
    ),
    *(
        ".inf",
        "-.INF",
        "+.Inf",
        ".nan",
        ".NaN",
        "inf",
        "nan",
        "<<",
        "=",
        "---",
        "...",
        "--- a",
        "... a",
        "- a",
        "? a",
    ),
    *(
        ": a",
        "a: b",
        "a:",
        "a #b",
        "#a",
        "a#b",
        "a:b",
        "*a",
        "&a",
        "!a",
        "!!str a",
        "|",
        ">",
        "%a",
        "@a",
        "`a`",
    ),
    *(
        '"',
        "'",
        '"a"',
        "'a'",
        "\\",
        "a\\nb",
        "{a",
        "[a",
        "]",
        "}",
        ",a",
        "a, b",
        "{{ x }}",
        "\t",
        "a\tb",
        "\ta",
    ),
    *(
        "\n",
        "a\n",
        "a\nb",
        "a\nb\n",
        "a\nb\n\n",
        "\na",
        " a\nb",
        "a\n b\n",
        "a\n  \nb",
        "a\n\n\nb",
        "a\r\nb",
        "a\n\tb",
    ),
    *(
        "a\n# b",
        "é",
        "😀",
        "\x85",
        "\u2028",
        "\ufeff",
        "\x7f",
        "\x00",
        "\x1b[0m",
        "a\u00a0b",
        "e5",
        "0.05Gi",
        "4Gi",
    ),
    *("10.0.0.1", "https://a:1/b", "x" * 2000),
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(NASTY)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from(NASTY), inner, max_size=4)
    ),
    max_leaves=20,
)


def refusals(text: str) -> list[str]:
    with pytest.raises(InputRefused) as refused:
        load_all(text, "f.yaml")
    return [str(problem) for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4), ("1e3", 1000.0), ("-.5", -0.5), ("5.", 5.0), ("0o17", 15), ("0x1F", 31), ("+3", 3), ("0", 0),
        ("-0", 0), ("09", 9), ("no", "no"), ("on", "on"), ("y", "y"), ("Yes", "Yes"), ("off", "off"), ("12:30:45", "12:30:45"),
        ("2026-11-21", "2026-11-21"), ("1_000", "1_000"), ("0b11", "0b11"), ("=", "="), ("true", True),
        ("FALSE", False), ("tRUE", "tRUE"), ("~", None), ("Null", None), (".inf", math.inf),
        ("-.Inf", -math.inf), ("+.INF", math.inf), ("inf", "inf"), ('"no"', "no"), ("'1'", "1"), ("!!str 1", "1"),
        ("! 1", "1"), ("!!int '3'", 3), ("!!float 3", 3.0), ("!!bool 'true'", True), ("!!null ''", None),
        ("|\n  1\n", "1\n"), ("[1, {a: no}]", [1, {"a": "no"}]), ("!!map {a: !!seq [1]}", {"a": [1]}),
    ],
)  # fmt: skip
def test_scalars_are_read_by_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    read = load(text).value
    assert read == value
    assert type(read) is type(value)


def test_not_a_number_is_read() -> None:
    assert math.isnan(load(".NaN").value)


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("a: 1\nb: 2\na: 3\n", ["f.yaml:3:1 a: duplicate key, first on line 1; try removing one of them"]),
        ("'': 1\n'': 2", ['f.yaml:2:1 [""]: duplicate key, first on line 1; try removing one of them']),
        ("a: {b: 1, b: 1}", ["f.yaml:1:11 a.b: duplicate key, first on line 1; try removing one of them"]),
        ("1: a", ["f.yaml:1:1: keys are strings (got 1); try quotes"]),
        ("a:\n  ~: b", ["f.yaml:2:3 a: keys are strings (got ~); try quotes"]),
        ("? [a]\n: b", ["f.yaml:1:3: keys are strings (got a list, a mapping or an alias); try quotes"]),
        ("x: &a {b: 1}\ny:\n  <<: *a", ["f.yaml:3:3 y: merge keys are not YAML 1.2 (got <<); try writing the keys out"]),
        ("a: !foo b", ["f.yaml:1:4 a: unknown tag (got !foo); try the value without a tag"]),
        ("a: !foo [b]", ["f.yaml:1:4 a: unknown tag (got !foo); try the value without a tag"]),
        (
            "a: !!timestamp 2026-11-21",
            ["f.yaml:1:4 a: unknown tag (got tag:yaml.org,2002:timestamp); try the value without a tag"],
        ),
        ("a: !!int x", ["f.yaml:1:4 a: not of tag !!int (got x); try the value without a tag"]),
        ("a: *b", ["f.yaml:1:4 a: alias without an anchor before it (got *b); try writing the value out"]),
        ("a: &a [*a]", ["f.yaml:1:8 a[0]: alias without an anchor before it (got *a); try writing the value out"]),
        ("[" * 2_000_000, ["f.yaml:1:101 [0][0][0][0]: nested deeper than 100 levels; try a simpler file"]),
        ("a: " + "9" * 5000, ["f.yaml:1:4 a: a number of 5000 digits is too long; try quotes"]),
        ("a: b\nc: \x00d", ["f.yaml:2:4: not text: a character that YAML does not allow"]),
    ],
)  # fmt: skip
def test_what_other_readers_pass_over_is_refused(text: str, messages: list[str]) -> None:
    assert refusals(text) == messages


def test_what_kubectl_misreads_is_kept_with_its_place() -> None:
    document = load("a: 017\nb: [x, {on: 09}]\nc: [no, 'no']\nd: |-\n  no\n", "f.yaml")
    assert document.value == {"a": 17, "b": ["x", {"on": 9}], "c": ["no", "no"], "d": "no"}
    assert [str(problem) for problem in document.misread] == [
        'f.yaml:1:4 a: kubectl, Helm and Argo CD read 15 here (got 017); try 15, 17, or "017" in quotes',
        'f.yaml:2:9 b[1].on: kubectl, Helm and Argo CD read true here (got on); try "on" in quotes',
        'f.yaml:3:5 c[0]: kubectl, Helm and Argo CD read false here (got no); try false, or "no" in quotes',
    ]


def test_numbers_are_kept_as_they_are_written() -> None:
    document = load("a: 1.30\nb: [0x1F, '1', true, x]\nc:")
    assert document.written == {("a",): "1.30", ("b", 0): "0x1F", ("b", 2): "true"}
    assert document.in_quotes(("a",)) == '"1.30" in quotes'
    assert document.in_quotes(("b", 1)) is None


def test_a_syntax_error_comes_with_the_problems_before_it() -> None:
    duplicate, syntax = refusals("a: 1\na: 2\nb: c: d\n")
    assert duplicate.startswith("f.yaml:2:1 a: duplicate key")
    assert syntax.startswith("f.yaml:3:5: not YAML: ")


def test_an_anchor_bomb_is_refused_before_it_explodes() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    assert refusals(bomb) == [
        "f.yaml:5:10 a4[0]: aliases stand for more than 10000 values; try a simpler file"
    ]


def test_an_alias_is_a_value_of_its_own() -> None:
    value = load("a: &a {b: [1]}\nc: *a").value
    value["c"]["b"].append(2)
    assert value == {"a": {"b": [1]}, "c": {"b": [1, 2]}}


def test_every_path_has_its_position() -> None:
    document = load("a:\n  - b: 1\n    é😀: [x,  y]\n", "f.yaml")
    assert document.position(("a",)) == Position(1, 1)
    assert document.position(("a", 0)) == Position(2, 5)
    assert document.position(("a", 0, "b")) == Position(2, 5)
    assert document.position(("a", 0, "é😀")) == Position(3, 5)
    assert document.position(("a", 0, "é😀", 1)) == Position(3, 14)
    assert document.position(("a", 0, "absent", 7)) == Position(2, 5)
    assert str(document.problem(("a", 0, "é😀"), "odd")) == 'f.yaml:3:5 a[0]["é😀"]: odd'


def test_several_documents_are_read_in_order() -> None:
    assert [document.value for document in load_all("a: 1\n---\n- b\n---\n")] == [{"a": 1}, ["b"], None]
    assert load_all("# nothing\n") == ()
    with pytest.raises(InputRefused, match=r"f\.yaml:3:1: one document is wanted \(got 2\)"):
        load("a\n---\nb", "f.yaml")
    with pytest.raises(InputRefused, match=r"one document is wanted \(got 0\)"):
        load("")


def test_a_byte_order_mark_is_not_part_of_the_first_key() -> None:
    assert load("\ufeffa: 1") == Document({"a": 1}, "<text>", {(): Position(1, 1), ("a",): Position(1, 1)})


@settings(deadline=None)
@given(VALUES)
def test_what_is_written_is_read_back_by_us_and_by_yaml_1_1(value: object) -> None:
    text = dump(value)
    assert load(text).value == value
    assert yaml.safe_load(text) == value
    assert text.endswith("\n")
    assert "\r" not in text


@pytest.mark.parametrize("text", NASTY)
def test_a_nasty_string_survives_as_value_as_key_and_in_a_list(text: str) -> None:
    value = {text: text, "list": [text, {text: [text]}], "nested": {"in": text}}
    written = dump(value)
    assert load(written).value == value
    assert yaml.safe_load(written) == value


def test_the_pure_python_reader_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_io, "_Loader", yaml.SafeLoader)
    value = {text: [text] for text in NASTY}
    assert load(dump(value)).value == value
    assert refusals("a: 1\na: 2") == [
        "f.yaml:2:1 a: duplicate key, first on line 1; try removing one of them"
    ]
    assert refusals("a: \x00") == ["f.yaml:1:4: not text: a character that YAML does not allow"]


def test_the_writer_s_form() -> None:
    job = {
        "spec": {
            "on": "no",
            "list": [{"a": 1, "b": [[1, 2], []]}, "4Gi"],
            "script": "set -e\necho\n",
            "rate": 1e-5,
        },
        "status": {},
        "metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x"}},
        "kind": "K",
        "apiVersion": "v1",
    }
    assert dump(job, header="Generated.\n\nDo not edit.") == (
        "# Generated.\n#\n# Do not edit.\napiVersion: v1\nkind: K\nmetadata:\n  name: a\n  labels:\n"
        '    app.kubernetes.io/name: x\nspec:\n  "on": "no"\n  list:\n  - a: 1\n    b:\n    - - 1\n      - 2\n'
        "    - []\n  - 4Gi\n  script: |\n    set -e\n    echo\n  rate: 1.0e-05\nstatus: {}\n"
    )  # fmt: skip
    assert dump_all([{"a": 1}, {"b": 2}], header="h") == "# h\na: 1\n---\nb: 2\n"


@pytest.mark.parametrize("value", [{1: 2}, b"x", {"a": {1, 2}}, object()])
def test_what_json_does_not_have_is_not_written(value: object) -> None:
    with pytest.raises(TypeError):
        dump(value)


@pytest.mark.parametrize("path", sorted(Path("api/src").glob("**/*.py")), ids=lambda path: path.name)
def test_source_text_survives_as_a_block(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert load(dump({"data": {"file": text}})).value == {"data": {"file": text}}
