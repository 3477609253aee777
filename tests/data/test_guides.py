# SPDX-License-Identifier: Apache-2.0
"""The data preparation of examples/guides on small samples of the same form, with the usual dirt, and the jobs beside it."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner
from tuneyard.main import cli
from tuneyard_api.planner import make_plan
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_api.validate import load_job

GUIDES = Path(__file__).parents[2] / "examples/guides"
Json = dict[str, Any]
RUNTIME = FineTuneRuntime.model_validate(
    {
        "metadata": {"name": "hf"},
        "spec": {
            "image": "trainer:1",
            "accelerator": "nvidia",
            "methods": ["lora", "sft"],
            "quantizations": ["nf4", "int8"],
            "defaults": {"registry": {"claimName": "adapters"}},
        },
    }
)


@pytest.fixture(scope="module")
def prepare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare_guides", GUIDES / "prepare.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def law(title: str, body: str, **more: Any) -> Json:
    return {"question_id": 7, "tags": ["contract-law"], "question_title": title, "question_body": body, "answers": [], **more}  # fmt: skip


LONG = "<p>My landlord keeps the deposit, and says that the carpet was worn. May he do that after nine years?</p>"
LAW_DIRT = [
    (law("", LONG), "question_title is empty"),
    (law("Deposit", None), "question_body is empty"),  # type: ignore[arg-type]
    (law("Who pays?", "<p>Who?</p>"), "the question is too short"),
    (law("Who pays?", f"<p>{'word ' * 2000}</p>"), "the question is too long"),
    (law("Is this a contract [closed]", LONG), "the forum closed the question"),
    (law("May he do that", LONG), "the title stands in the question"),
]
DOLLY_DIRT = [
    ({"instruction": " ", "context": "", "response": "x", "category": "open_qa"}, "instruction is empty"),
    ({"instruction": "Why?", "context": "", "response": "", "category": "open_qa"}, "response is empty"),
    ({"instruction": "Why?", "context": "", "category": "open_qa"}, "response is empty"),
]
GUANACO_DIRT = [
    ({"text": "Hello there"}, "no turn at the beginning"),
    ({"text": "Hi ### Human: Hello### Assistant: Hello"}, "no turn at the beginning"),
    ({"text": "### Human: Only a question"}, "the turns do not alternate"),
    ({"text": "### Human: a\n### Human: b\n### Assistant: c"}, "the turns do not alternate"),
    ({"text": "### Human: a\n### Assistant:\n### Human: b\n### Assistant: c"}, "an empty turn"),
    ({"text": 7}, "text is empty"),
]


@pytest.mark.parametrize(
    ("kind", "record", "reason"),
    [
        *(("law-titles", *case) for case in LAW_DIRT),
        *(("dolly", *case) for case in DOLLY_DIRT),
        *(("guanaco", *case) for case in GUANACO_DIRT),
    ],
)
def test_dirt_is_left_out_with_its_reason(prepare: ModuleType, kind: str, record: Json, reason: str) -> None:
    with pytest.raises(prepare.UnusableError) as left_out:
        prepare.KINDS[kind](record)
    assert str(left_out.value) == reason


def test_a_post_becomes_plain_text(prepare: ModuleType) -> None:
    body = "<p>I  sold a car &amp; the buyer says:</p>\n<blockquote><p>it <em>stalls</em></p></blockquote><ul><li>one</li><li>two&nbsp;x</li></ul>"
    made = prepare.law_title(law("Must I take the car back &mdash; after a year?", body))
    assert made == {
        "prompt": "Write a short title for this question to a forum on law.\n\n"
        "I sold a car & the buyer says:\n\nit stalls\n\none\n\ntwo x\n\nTitle:",
        "completion": " Must I take the car back \u2014 after a year?",
    }


def test_marks_of_citations_go_and_other_brackets_stay(prepare: ModuleType) -> None:
    record = {
        "instruction": "What does a[1] mean in C?",
        "context": "Bees fly.[12][3] They sting (rarely)[4].",
        "response": "It is [1, 2] here.[5]",
        "category": "closed_qa",
    }
    asked, answered = prepare.dolly(record)["messages"]
    assert asked["content"] == "Bees fly. They sting (rarely).\n\nWhat does a[1] mean in C?"
    assert answered["content"] == "It is [1, 2] here."
    code = prepare.dolly(
        {"instruction": "First of a list?", "context": "", "response": "Use list[0] for it."}
    )
    assert code["messages"][1]["content"] == "Use list[0] for it."


def test_a_conversation_keeps_its_turns_and_loses_a_question_without_an_answer(prepare: ModuleType) -> None:
    text = "### Human: How do I\n### sort a list?\n### Assistant: With\n\nsorted().\n### Human: And back?\n### Assistant: reverse=True\n### Human: Thanks"
    turns = prepare.guanaco({"text": text})["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant"]
    assert [turn["content"] for turn in turns] == ["How do I\n### sort a list?", "With\n\nsorted().", "And back?", "reverse=True"]  # fmt: skip


def good(kind: str, number: int) -> Json:
    if kind == "law-titles":
        return law(
            f"Who owns tree {number}", f"<p>A tree, number {number}, stands on the border of two gardens.</p>"
        )
    if kind == "dolly":
        return {"instruction": f"Name a use of brick {number}.", "context": "", "response": f"Wall {number}.", "category": "brainstorming"}  # fmt: skip
    return {"text": f"### Human: Tell me of lake {number}.\n### Assistant: Lake {number} is deep."}


@pytest.mark.parametrize("kind", ["law-titles", "dolly", "guanaco"])
@pytest.mark.parametrize("form", ["lines", "array"])
def test_what_is_written_is_read_by_a_job_and_no_question_is_on_two_sides(
    prepare: ModuleType, tmp_path: Path, kind: str, form: str
) -> None:
    dirt = [
        record for record, _ in {"law-titles": LAW_DIRT, "dolly": DOLLY_DIRT, "guanaco": GUANACO_DIRT}[kind]
    ]
    shouted = json.loads(json.dumps(good(kind, 3)).replace("stands", "STANDS").replace("brick", "BRICK").replace("lake", "LAKE"))  # fmt: skip
    records = [*(good(kind, number) for number in range(300)), good(kind, 3), shouted, *dirt]
    source = tmp_path / "raw"
    lines = [json.dumps(record) for record in records]
    text = (
        f"[{', '.join([*lines, '7'])}]"
        if form == "array"
        else "\ufeff" + "\n".join([*lines, "{torn", "", "7"])
    )
    source.write_text(text, encoding="utf-8")
    assert prepare.main([kind, str(source), str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    counts = report["records"]
    assert sum(counts.values()) == 300
    assert 10 <= counts["validation"] <= 60
    assert 3 <= counts["test"] <= 40
    assert report["dropped"]["the same question again"] == 2
    assert report["dropped"]["no JSON object"] == (1 if form == "array" else 2)
    assert sum(report["dropped"].values()) == len(dirt) + 2 + report["dropped"]["no JSON object"]
    files = {name: tmp_path / f"out/{name}.jsonl" for name in counts}
    sides = [{line.partition('"completion"')[0] for line in file.read_text().splitlines()} for file in files.values()]  # fmt: skip
    assert sum(map(len, sides)) == len(set.union(*sides)) == 300
    words = ["data", "check", str(files["train"]), "--validation", str(files["validation"]), "--test", str(files["test"])]  # fmt: skip
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert (prepare.main(["other", "a", "b"]), prepare.main([])) == (2, 2)


@pytest.mark.parametrize("path", sorted(GUIDES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_job_of_a_guide_is_planned(path: Path) -> None:
    job = load_job(path.read_text(encoding="utf-8"), path.name)
    plan = make_plan(job, RUNTIME)
    assert plan.resolved.kind.result == ("model" if job.spec.method == "sft" else "adapter")
    assert path.read_text().startswith("# ")
