# SPDX-License-Identifier: Apache-2.0
"""Evaluation: greedy answers that anyone can reproduce, and scores that mean what they say."""

import json
import math
from pathlib import Path

import pytest
from tuneyard_api.pod_contract import EXIT_CODES, FailureClass, TrainFacts

torch = pytest.importorskip("torch")

from support.family_matrix import tiny_model  # noqa: E402
from tuneyard_data.tokenization import TextTokenizer  # noqa: E402
from tuneyard_trainer.evaluation.generate import complete  # noqa: E402
from tuneyard_trainer.evaluation.rouge import rouge_l, words_of  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def base(tiny_llama):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llama).eval(), TextTokenizer(tiny_llama)


def answers(base, prompts, **options):
    model, tokenizer = base
    own = {} if tokenizer is None else {"stop_ids": tokenizer.stop_ids, "decode": tokenizer.decode}
    return complete(model, prompts, device=torch.device("cpu"), **({"max_new_tokens": 12} | own | options))


def prompts_of(tokenizer, *texts):
    return [tokenizer.prompt_ids(text, has_special_tokens=False) for text in texts]


TEXTS = ("the cat", "a red fox runs", "rain", "the dog", "seven ships left the harbour")


def test_answers_equal_those_of_transformers(base):
    model, tokenizer = base
    prompts = prompts_of(tokenizer, *TEXTS)
    theirs = []
    for prompt in prompts:
        ids = model.generate(
            torch.tensor([prompt]),
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=list(tokenizer.stop_ids),
            pad_token_id=1,
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        )[0, len(prompt) :].tolist()
        theirs.append(tokenizer.decode(ids).strip())
    assert answers(base, prompts) == theirs
    assert len(set(theirs)) > 1


def test_a_family_of_which_transformers_makes_no_cache_answers_as_without_one():
    model, prompt = tiny_model("blt"), list(range(2, 14))
    with pytest.raises(AttributeError, match="num_hidden_layers"):
        model(input_ids=torch.tensor([prompt]), use_cache=True)
    theirs = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=5, use_cache=False)
    ids = []
    answers((model, None), [prompt], stop_ids=[1], max_new_tokens=5, decode=lambda new: ids.extend(new) or "")
    assert ids == theirs[0, len(prompt) :].tolist()
    assert len(ids) == 5


def test_answers_do_not_depend_on_their_batch(base):
    prompts = prompts_of(base[1], *TEXTS)
    assert answers(base, prompts) == [answers(base, [prompt])[0] for prompt in prompts]
    assert answers(base, prompts[::-1]) == answers(base, prompts)[::-1]


def test_answer_ends_before_the_stop_token(base):
    tokenizer = base[1]
    prompt = prompts_of(tokenizer, "the cat")
    ids = []
    answers(base, prompt, decode=lambda new: ids.extend(new) or "", stop_ids=[10**6])
    assert len(ids) == 12
    stop = ids[4]
    shorter = []
    answers(base, prompt, decode=lambda new: shorter.extend(new) or "", stop_ids=[stop])
    assert shorter == ids[: ids.index(stop)]


ROUGE = {
    "equal": ("return the length", "return the length", 1.0),
    "nothing in common": ("return the length", "open a file", 0.0),
    "an empty answer": ("return the length", "", 0.0),
    "two of three in order": ("return the length", "return length", 0.8),
    "stems are not joined": ("returns", "return", 0.0),
    "Chinese": ("返回列表的长度", "返回列表的长度", 1.0),
    "half of it in Chinese": ("返回长度", "返回列表", 0.5),
    "Arabic": ("طول القائمة", "طول القائمة", 1.0),
    "Greek, with another accent": ("το μήκος", "το μηκος", 0.5),
    "Hindi": ("सूची की लंबाई", "सूची की लंबाई", 1.0),
    "Thai and English": ("ความยาว of the list", "ความยาว of the list", 1.0),
    "an accent in two characters": ("café", "cafe\u0301", 1.0),
}


@pytest.mark.parametrize(("reference", "answer", "expected"), ROUGE.values(), ids=ROUGE.keys())
def test_rouge_l(reference, answer, expected):
    assert rouge_l(reference, answer) == pytest.approx(expected)


def test_text_of_latin_letters_scores_as_with_the_words_of_rouge_score():
    from rouge_score.tokenize import tokenize

    text = "Return the length of `x_1`, or None -- it's 2.5 times (at most) 10%!\n\tSee foo.bar()"
    assert words_of(text) == tokenize(text, None)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT 0.21, transformers 5
def test_base_and_tuned_are_compared_on_the_test_records(tiny_llama, jsonl, job_of, pods, tmp_path):
    """One fact, learned by heart: the tuned model answers it, the base does not, and the adapter alone is the reason."""
    data = jsonl([{"prompt": f"say number {n} =", "completion": " the cat"} for n in range(40)])
    test = tmp_path / "test.jsonl"
    test.write_text(
        "".join(
            json.dumps({"prompt": f"say number {n} =", "completion": " the cat"}) + "\n" for n in (50, 51)
        )
    )
    job = job_of(
        tiny_llama,
        data,
        dataset={"test": {"path": str(test)}},
        training={"maxSteps": 40, "learningRate": 0.03},
        lora={"rank": 8, "alpha": 16},
    )
    assert pods.run("prepare", job)[0] == 0
    code, result = pods.run("train", job)
    assert code == 0
    facts = TrainFacts.model_validate(result.facts)
    base, tuned = facts.evaluation.base, facts.evaluation.tuned
    assert (tuned.exact_match, tuned.rouge_l, tuned.prompts) == (1.0, 1.0, 2)
    assert base.exact_match == 0.0
    assert tuned.perplexity == pytest.approx(math.exp(tuned.loss))
    samples = [
        json.loads(line) for line in (pods.workspace / "evaluation/samples.jsonl").read_text().splitlines()
    ]
    assert [sample["tuned"] for sample in samples] == ["the cat", "the cat"]
    assert sum(sample["rougeLBase"] for sample in samples) / 2 == pytest.approx(base.rouge_l)
    code, result = pods.run("publish", job)
    assert code == 0, result.failure
    assert_adapter_answers_alike(tiny_llama, Path(result.facts["path"]), samples)


def assert_adapter_answers_alike(base_folder, adapter, samples):
    """A serving program that only has the folder of the registry gives the same answers."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), adapter).eval()
    tokenizer = TextTokenizer(base_folder)
    prompts = prompts_of(tokenizer, *(sample["prompt"] for sample in samples))
    assert answers((model, tokenizer), prompts, max_new_tokens=6) == [sample["tuned"] for sample in samples]
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["target_modules"] == [
        "down_proj",
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ]
    assert (config["r"], config["peft_type"], config["base_model_name_or_path"]) == (8, "LORA", "tiny-llama")


def test_plain_text_is_measured_by_its_loss_alone(tiny_llama, jsonl, job_of, pods):
    job = job_of(tiny_llama, jsonl([{"text": f"the cat sat on {n} mats"} for n in range(12)]))
    assert pods.run("prepare", job)[0] == 0
    facts = TrainFacts.model_validate(pods.run("train", job)[1].facts)
    assert facts.evaluation.tuned.prompts == 0
    assert facts.evaluation.tuned.loss < facts.evaluation.base.loss


def test_training_without_prepared_data_says_so(tiny_llama, jsonl, job_of, pods):
    code, result = pods.run("train", job_of(tiny_llama, jsonl([])))
    assert code == EXIT_CODES[FailureClass.BAD_INPUT]
    assert "nothing is prepared; run stage prepare first" in result.failure.message
