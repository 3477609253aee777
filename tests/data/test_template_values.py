# SPDX-License-Identifier: Apache-2.0
"""Values of records in a job's template: never in the spelling of Python."""

import pytest
from tuneyard_api.job_inputs import Template
from tuneyard_data.records import Place, Record, RecordProblem
from tuneyard_data.templates import renderer_of

VALUES = {
    "nothing": None,
    "yes": True,
    "no": False,
    "items": ["a", None, True],
    "object": {"k": None},
    "one": 1,
    "word": "<b>",
    "blank": float("nan"),
    "raw": b"q",
    "pairs": [("k", None)],
}
TEXTS = {
    "a null": ("{{ nothing }}", ""),
    "a blank cell of pandas": ("{{ blank }}{{ 'N' if blank is none else 'S' }}", "N"),
    "a blank cell as JSON": ("{{ [blank] | tojson }}", "[null]"),
    "a null in an expression": ("{{ 'x' ~ nothing }}", "x"),
    "a null through a filter": ("{{ nothing | trim }}", ""),
    "a null by a default": ("{{ nothing | default('d', true) }}", "d"),
    "a test for none": ("{{ 'N' if nothing is none else 'S' }}", "N"),
    "a comparison with none": ("{{ 'N' if nothing == none else 'S' }}", "N"),
    "a null that is asked for": ("{% if nothing %}x{% endif %}", ""),
    "a boolean": ("{{ yes }} {{ no }}", "true false"),
    "a boolean in an expression": ("{{ yes ~ '' }} {{ no | string }}", "true false"),
    "a boolean of the template": ("{{ one == 1 }}", "true"),
    "tests of booleans": ("{{ 'y' if yes is true and no is false and one is not boolean }}", "y"),
    "a list by a filter": ("{{ items | first }} {{ items | length }}", "a 3"),
    "a loop": ("{% for item in items %}[{{ item }}]{% endfor %}", "[a][][true]"),
    "a list as JSON": ("{{ items | tojson }}", '["a", null, true]'),
    "an object as JSON": ("{{ object | tojson }}", '{"k": null}'),
    "text as JSON": ("{{ word | tojson }}", '"<b>"'),
    "a key": ("{{ object.k }}", ""),
    "a number": ("{{ one }} {{ one + 0.5 }}", "1 1.5"),
}


def rendered(source):
    render = renderer_of(
        "auto", Template(prompt="p", completion="c" + source), None, Record(Place("t", 1), VALUES)
    )
    return render(Record(Place("t.jsonl", 1), VALUES)).reference.removeprefix("c")


@pytest.mark.parametrize(("source", "text"), TEXTS.values(), ids=TEXTS.keys())
def test_values_are_written_as_people_mean_them(source, text):
    assert rendered(source) == text


@pytest.mark.parametrize(
    "source",
    [
        *("{{ items }}", "{{ items ~ '' }}", "{{ object }}", "{{ object | trim }}"),
        *("{{ pairs[0] }}", "{{ raw }}", "{{ raw ~ '' }}"),
    ],
)
def test_a_list_an_object_and_bytes_are_no_text(source):
    with pytest.raises(
        RecordProblem, match=r"dataset\.template\.completion: (an? (list|object) is|bytes are) no text; try"
    ):
        rendered(source)


def test_a_null_completion_is_a_problem_of_its_record():
    render = renderer_of(
        "auto", Template(prompt="p", completion=" {{ nothing }}"), None, Record(Place("t", 1), VALUES)
    )
    with pytest.raises(RecordProblem, match="renders to nothing but white space"):
        render(Record(Place("t.jsonl", 1), VALUES))
