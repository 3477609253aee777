# SPDX-License-Identifier: Apache-2.0
"""`tuneyard data check`: a job's checks of a data set without a job."""

import json
import subprocess
import sys
from html import escape
from pathlib import Path

import pytest
from click.testing import CliRunner
from tuneyard.main import cli
from tuneyard_data.languages import language_of
from tuneyard_data.tokenization import TextTokenizer

MODEL = Path(__file__).parents[2] / "examples" / "models" / "tiny-llama"
GOOD = [
    {"prompt": f"What is the number after {n}?\n", "completion": f"It is the number {n + 1} and that is all."}
    for n in range(12)
]


def write(path: Path, records: list[object]) -> str:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return str(path)


def check(*arguments: str):
    return CliRunner().invoke(cli, ["data", "check", *arguments])


def found(*arguments: str) -> dict:
    return json.loads(check(*arguments, "--format", "json").stdout)


def test_good_data_ends_with_0_and_is_described(tmp_path):
    result = check(write(tmp_path / "a.jsonl", GOOD))
    assert result.exit_code == 0
    assert "12 records of" in result.stdout
    assert "characters" in result.stdout
    assert "12 English" in result.stdout
    assert result.stderr == "no problems, warnings: 0\n"


def test_all_problems_of_all_files_are_said_at_once_with_their_places(tmp_path):
    one = write(tmp_path / "a.jsonl", [*GOOD, {"prompt": "a", "completoin": "b"}])
    other = write(tmp_path / "b.jsonl", [{"prompt": "a", "completion": 7}])
    test = tmp_path / "t.jsonl"
    test.write_text('{"prompt": \n')
    result = check(one, other, "--test", str(test))
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{one}:13:1", f"{other}:1:17", f"{test}:1:12"]
    assert "did you mean `completoin`?" in lines[0]
    assert "(got a number, 7)" in lines[1]
    assert found(one, other, "--test", str(test))["problems"] == lines


def test_copies_in_another_training_file_are_duplicates(tmp_path):
    one, other = write(tmp_path / "a.jsonl", GOOD), write(tmp_path / "b.jsonl", [GOOD[3]])
    duplicates = found(one, other)["report"]["splits"]["training"]["duplicates"]
    assert duplicates["exact"] == 1
    assert duplicates["first"] == [{"place": f"{other}:1:1", "sameAs": f"{one}:4:1"}]


@pytest.mark.parametrize(("leaked", "code"), [(1, 0), (2, 1)])
def test_leaks_are_warned_of_and_refused_when_a_job_refuses_them(tmp_path, leaked, code):
    new = [{"prompt": f"new {n}", "completion": "one"} for n in range(3 - leaked)]
    files = (write(tmp_path / "a.jsonl", GOOD), "--test", write(tmp_path / "t.jsonl", GOOD[:leaked] + new))
    result = check(*files)
    assert result.exit_code == code
    assert f"warning: test: {leaked} of 3 records are in the training data as well" in result.stderr
    assert (f"dataset.test: {leaked} of 3 records" in result.stderr) == bool(code)
    assert check(*files, "--strict").exit_code == 1


def test_hints_at_personal_data_are_placed_and_never_repeated(tmp_path):
    file = write(tmp_path / "a.jsonl", [*GOOD, {"prompt": "who?", "completion": "jane@mail.example.org"}])
    page = tmp_path / "r.html"
    report = found(file, "--model", str(MODEL), "--html", str(page))
    [hint] = report["report"]["hints"]
    assert hint == {"kind": "e-mail address", "count": 1, "first": [f"{file}:13:1"]}
    assert "jane" not in json.dumps(report) + page.read_text()


def test_truncation_is_said_for_several_limits(tmp_path):
    long = {"prompt": "word " * 700, "completion": "end"}
    file = write(tmp_path / "a.jsonl", [*GOOD, long])
    report = found(file, "--model", str(MODEL))["report"]["splits"]["training"]
    longest = report["lengths"]["longest"]
    limits = report["lengths"]["truncation"]
    assert [each["cut"] for each in limits] == [int(each["limit"] < longest) for each in limits]
    assert [each["dropped"] for each in limits] == [int(each["limit"] < longest) for each in limits]
    assert limits[0]["limit"] == 512
    assert limits[0]["cut"] == 1
    assert limits[-1]["cut"] == 0
    short = found(file, "--model", str(MODEL), "--max-sequence-length", "512")["report"]["splits"]["training"]
    assert (short["lengths"]["cut"], short["lengths"]["dropped"]) == (1, 1)


def test_page_shows_token_by_token_what_is_learned(tmp_path):
    page = tmp_path / "r.html"
    record = {"prompt": "Say <b>é€</b>:", "completion": " yes 👍 & no"}
    assert (
        check(write(tmp_path / "a.jsonl", [record]), "--model", str(MODEL), "--html", str(page)).exit_code
        == 0
    )
    text = page.read_text()
    learned = "".join(part.split("</span>")[0] for part in text.split('<span class="token learned">')[2:])
    tokenizer = TextTokenizer(MODEL)
    assert learned == " yes 👍 &amp; no" + escape(tokenizer.decode_all([tokenizer.end_id]))
    assert "<b>" not in text
    assert "src=" not in text
    assert "href=" not in text


@pytest.mark.parametrize(
    "text", ["a plain text", "naïve 👍 and 漢字, twice 👍👍", " begins with a space", "\n\n"]
)
def test_texts_of_tokens_make_the_whole_text(text):
    tokenizer = TextTokenizer(MODEL)
    ids = tokenizer.prompt_ids(text, has_special_tokens=True)
    texts = tokenizer.texts_of(ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == tokenizer.decode_all(ids)


def test_template_makes_records_of_other_columns(tmp_path):
    file = write(tmp_path / "a.jsonl", [{"question": "a?", "answer": "b"}])
    assert check(file).exit_code == 1
    assert check(file, "--prompt", "{{ question }}", "--completion", "{{ answer }}").exit_code == 0
    assert check(file, "--prompt", "{{ question }}").exit_code == 2


def test_chats_need_no_model(tmp_path):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    assert check(write(tmp_path / "a.jsonl", [{"messages": turns}])).exit_code == 0
    wrong = check(write(tmp_path / "b.jsonl", [{"messages": turns[:1]}]))
    assert wrong.exit_code == 1
    assert "the last message must be the assistant's" in wrong.stderr


@pytest.mark.parametrize(
    "arguments",
    [(), ("missing.jsonl",), ("FILE", "--model", "nowhere"), ("FILE", "--max-sequence-length", "0")],
)
def test_bad_use_ends_with_2(tmp_path, arguments):
    file = write(tmp_path / "a.jsonl", GOOD)
    assert check(*(file if each == "FILE" else each for each in arguments)).exit_code == 2


def test_other_endings_and_a_folder_without_tokenizer_are_problems(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n")
    assert check(str(tmp_path / "a.csv")).stderr == (
        f"{tmp_path}/a.csv: files must end in .jsonl, .json, .parquet, .jsonl.gz, .json.gz; try"
        ' pandas.read_csv(FILE).to_json("train.jsonl", orient="records", lines=True)\n'
    )
    result = check(write(tmp_path / "a.jsonl", GOOD), "--model", str(tmp_path))
    assert result.exit_code == 1
    assert "this is no readable tokenizer" in result.stderr


def in_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_without_the_extra_one_line_says_what_to_install(tmp_path):
    file = write(tmp_path / "a.jsonl", GOOD)
    code = "import sys; sys.modules['tuneyard_data'] = None; sys.argv = ['tuneyard', 'data', 'check', %r]"
    ended = in_process(code % file + "; from tuneyard.main import main; main()")
    assert ended.returncode == 2
    assert ended.stderr == "tuneyard data: tuneyard_data is not installed; try the extra tuneyard[data]\n"


def test_a_check_with_a_model_needs_neither_trainer_nor_pytorch_and_says_nothing_else(tmp_path):
    file = write(tmp_path / "a.jsonl", GOOD)
    ended = in_process(
        f"import sys, atexit; sys.argv = ['tuneyard', 'data', 'check', {file!r}, '--model', {str(MODEL)!r}]\n"
        "atexit.register(lambda: print(sys.modules.get('torch'), 'tuneyard_trainer' in sys.modules))\n"
        "from tuneyard.main import main; main()"
    )
    assert ended.stdout.splitlines()[-1] == "None False"
    assert ended.stderr == "no problems, warnings: 0\n"


def test_memory_is_flat(tmp_path):
    """Aimed at: 100 bytes a record. The limit is loose, as allocators round; texts alone would take 10 times as much."""

    def peak(count: int) -> int:
        text = "some words of a record that nobody keeps " * 24
        file = write(tmp_path / "m.jsonl", [{"text": f"{n} {text}"} for n in range(count)])
        ended = in_process(
            f"import resource, sys, atexit; sys.argv = ['tuneyard', 'data', 'check', {file!r}]\n"
            "atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))\n"
            "from tuneyard.main import main; main()"
        )
        return int(ended.stdout.splitlines()[-1]) * (1 if sys.platform == "darwin" else 1024)

    assert peak(12_000) - peak(2_000) < 10_000 * 400


LANGUAGES = {
    "English": "It is the number that you want, and this is all.",
    "German": "Das ist nicht die Antwort, die ich von dir auf diese Frage will.",
    "French": "Ce n'est pas la réponse que vous voulez dans une lettre.",
    "Spanish": "No es la respuesta que se da en los libros para una pregunta.",
    "Cyrillic script": "Это не ответ на вопрос.",
    "Cjk script": "這不是答案。",
    "unknown": "42 = 6 * 7",
}


@pytest.mark.parametrize(("language", "text"), LANGUAGES.items(), ids=LANGUAGES.keys())
def test_language_is_guessed(language, text):
    assert language_of(text) == language
