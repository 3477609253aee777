# SPDX-License-Identifier: Apache-2.0
"""Every measured figure that README and docs/how-to/benchmarks.md show is the one in the committed results."""

import json
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
README = " ".join((REPOSITORY / "README.md").read_text(encoding="utf-8").split())
BENCHMARKS = (REPOSITORY / "docs/how-to/benchmarks.md").read_text(encoding="utf-8")


def results(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((REPOSITORY / "bench/results" / name).read_text(encoding="utf-8"))
    return found


def run_of(gpus: int, method: str) -> dict[str, Any]:
    runs = results(f"trainer-nvidia-h200-x{gpus}.json")["runs"]
    return next(run for run in runs if (run["gpus"], run["method"]) == (gpus, method))


def speed(gpus: int, method: str) -> str:
    return f"{run_of(gpus, method)['tokensPerSecondMedian']:,.0f}"


def test_the_soak_is_what_the_readme_says() -> None:
    soak = results("soak.json")
    killed = soak["killed"]
    assert (
        f"{soak['kills']} processes were killed at random while {soak['setting']['jobs']} jobs trained on two nodes, "
        f"among them {killed['trainer']} trainers, {killed['operator']} operators and {killed['apiserver']} API "
        f"servers: {soak['succeeded']} jobs succeeded, {soak['lost']} were lost, {soak['doubled']} Jobs were made twice."
    ) in README
    assert (
        f"{soak['setting']['jobs']} jobs on real nodes, {soak['kills']} random kills | {soak['succeeded']} succeeded; "
        f"{soak['lost']} lost, {soak['doubled']} doubled, {soak['overlapping']} overlapping, {soak['orphaned']} orphaned |"
    ) in README


def test_the_evaluation_is_what_the_readme_says() -> None:
    found = json.loads((REPOSITORY / "examples/smollm2/evaluation.json").read_text(encoding="utf-8"))
    base, tuned = (found["rougeL"][model] for model in ("base", "tuned"))
    assert found["job"] == "examples/smollm2-lora.yaml"
    assert (
        f"ROUGE-L of the job above rises from {base:.3f} to {tuned:.3f}, and the endpoint gives the same "
        f"{found['endpoint']['identicalAnswersTuned']} answers as the evaluation."
    ) in README
    assert (
        found["endpoint"]["identicalAnswersBase"]
        == found["endpoint"]["identicalAnswersTuned"]
        == found["prompts"]
    )


def test_the_operator_s_throughput_is_what_the_readme_says() -> None:
    operator = results("operator.json")
    share, start, requests, memory = (aim["measured"] for aim in operator["aims"])
    assert (
        f"{operator['jobs']} FineTuneJobs applied at once, {operator['machine']['cores']} cores | "
        f"{operator['medians']['operator']['jobsPerSecond']} jobs/s, {share:.0%} of the rate of the same chain as plain "
        f"Jobs; {start} times their median time to the first pod; {requests} API requests a job more; {memory:.0f} MiB at "
        f"most; {sum(aim['met'] for aim in operator['aims'])} of 4 aims met |"
    ).replace("%", " %") in README


def test_the_speed_of_preparing_data_is_what_the_pages_say() -> None:
    data = results("data.json")
    ours, trl = (data["rows"][f"{name}-{data['records']}"] for name in ("tuneyard", "trl"))
    speeds = f"{ours['recordsPerSecond']:,} records/s beside {trl['recordsPerSecond']:,} of trl"
    memory = f"{ours['peakMemoryMiB']:,} MiB beside {trl['peakMemoryMiB']:,}"
    assert f"{data['records']:,} chats of 1 KB prepared with all checks, " in README
    assert f"{speeds}; {memory} |" in README
    page = " ".join(BENCHMARKS.split())
    assert f"{data['records']:,} records on two quiet cores" in page
    assert f"{speeds}, which is {data['throughputOfTrl']} times as many, and {memory}, " in page
    assert f"which is {data['memoryOfTrl']} of it" in page


def test_the_generator_s_speed_is_what_the_readme_says() -> None:
    generator = results("generator.json")
    first, figures = generator["render"]["first"]["1000"], generator["figures"]
    assert (
        f"{generator['render']['of']:,} environments of 20 components, {generator['machine']['cores']} cores | "
        f"{first['wall_s']:.1f} s for the first render, {figures['one_changed_of_1000_s']:.2f} s after one of them "
        f"changed; {figures['times_less_cpu_than_helm']:.0f} times less CPU than 20 runs of `helm template` each |"
    ) in README


def test_the_trainer_s_speed_is_what_the_readme_says() -> None:
    assert f"| {speed(1, 'lora')} tokens/s on one H200, {speed(2, 'lora')} on two |" in README
    assert f"| {speed(1, 'sft')} tokens/s on one H200, {speed(2, 'sft')} on two |" in README


def side_by_side(what: str) -> dict[str, Any]:
    rows: dict[str, Any] = results(f"side-by-side-{what}.json")["rows"]
    return rows


def test_lora_beside_others_is_what_the_readme_says() -> None:
    rows = side_by_side("1b-lora-1b-sft-8b-lora-nvidia-h200") | side_by_side(
        "8b-lora-8b-lora-fp8-nvidia-h200"
    )
    ours, fp8, peft, liger = (
        f"{rows[name]['tokensPerSecond']:,.0f}"
        for name in (
            "tuneyard-8b-lora-long-2",
            "tuneyard-8b-lora-long-2-fp8",
            "peft-8b-lora-long-1",
            "liger-8b-lora-long-2",
        )
    )
    said = f"| {ours} tokens/s on one H200, {fp8} with a base in FP8, {peft} with transformers and PEFT, {liger} with Liger |"
    assert said in README


NAMES = {
    "tuneyard": "Tuneyard",
    "before": "Tuneyard before",
    "peft": "transformers + PEFT",
    "liger": "transformers + PEFT + Liger",
}


@pytest.mark.parametrize(
    "what",
    [
        *(f"{kind}-nvidia-h100-80gb-hbm3" for kind in ("8b-lora", "1b-lora", "1b-sft")),
        *(f"{kind}-nvidia-h200" for kind in ("8b-lora", "8b-lora-fp8", "1b-lora-1b-sft")),
        *(f"{kind}-nvidia-h200" for kind in ("8b-lora-8b-lora-fp8", "1b-lora-1b-sft-8b-lora")),
        *(f"{kind}-nvidia-h200-x2" for kind in ("1b-lora-1b-sft", "1b-sft", "8b-lora-8b-lora-fp8")),
        "1b-lora-1b-sft-8b-lora-8b-lora-fp8-nvidia-h200-x2",
    ],
)
def test_the_table_of_programs_side_by_side_is_what_was_measured(what: str) -> None:
    for name, row in side_by_side(what).items():
        stack, _, _, data, micro, *options = name.split("-")
        program = (
            NAMES[stack] + (", FP8" if "fp8" in options else "") + (", 2 GPUs" if "x2" in options else "")
        )
        line = next(
            line
            for line in BENCHMARKS.splitlines()
            if f"| {program} | {row['tokensPerSecond']:,.0f} | {row['peakMemoryGiB']:.1f} |" in line
        )
        assert f"{data} records, micro batch {micro} |" in line


def test_the_table_of_memory_is_what_was_measured() -> None:
    _, _, table = BENCHMARKS.partition("### Memory of a training")
    lines = [line for line in table.splitlines() if line.startswith("| ") and line.count(" | ") == 4][2:]
    cases = results("memory-nvidia-h200.json")["cases"].values()
    measured = {
        f"{case['path']} | {case['tokens_per_second']:,.0f} | {case['peak_allocated_bytes'] / 2**30:.1f} | "
        f"{case['peak_reserved_bytes'] / 2**30:.1f} |"
        for case in cases
    }
    assert len(lines) > len(cases) // 3
    assert {line.split(" | ", 1)[1] for line in lines} <= measured


COLUMNS = [(1, "lora"), (2, "lora"), (1, "sft"), (2, "sft")]


@pytest.mark.parametrize(
    ("row", "figures"),
    [
        ("tokens/s, median", [speed(*column) for column in COLUMNS]),
        (
            "most memory of one GPU, GiB",
            [f"{run_of(*column)['peakMemoryGiBPerGpu']:.1f}" for column in COLUMNS],
        ),
        ("loss of step 40", [f"{run_of(*column)['losses'][39]:.4f}" for column in COLUMNS]),
    ],
)
def test_the_table_of_trainings_is_what_was_measured(row: str, figures: list[str]) -> None:
    assert f"| {row} | {' | '.join(figures)} |" in BENCHMARKS


def test_the_table_of_quantized_bases_is_what_was_measured() -> None:
    runs = results("quantized-nvidia-h100-80gb-hbm3-x1.json")["quantized"]
    large, small = ([run for run in runs if run["model"] == model] for model in ("random", "tiny-llama"))
    rows = (
        (
            "tokens/s, median, 1.1 billion parameters",
            [f"{run['tokensPerSecondMedian']:,.0f}" for run in large],
        ),
        ("most memory, GiB", [f"{run['peakMemoryGiBPerGpu']:.1f}" for run in large]),
        (
            "held-out loss of the small trained model, before -> after 20 steps",
            [f"{run['heldOutLoss']['base']:.4f} -> {run['heldOutLoss']['tuned']:.4f}" for run in small],
        ),
    )
    for row, figures in rows:
        assert f"| {row} | {' | '.join(figures)} |" in BENCHMARKS
