# SPDX-License-Identifier: Apache-2.0
"""Training that is stopped, killed and spread over processes: the losses stay what they would have been."""

import json
import os
import random
import shutil
import signal
import time

import pytest
from tuneyard_api.pod_contract import EXIT_CODES, GRACE_SECONDS, FailureClass, Stage, StageResult, TrainFacts

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from tuneyard_local.network import pick_ports  # noqa: E402
from tuneyard_trainer.workspace.metrics import read_metrics  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

# Rank 3 is cut unevenly over two processes; dropout shows whether random numbers go on.
LORA = {"rank": 3, "alpha": 8, "dropout": 0.2}
STEPS = 5


def losses(pods):
    return [line["loss"] for line in read_metrics(pods.workspace / "metrics.jsonl") if "loss" in line]


@pytest.fixture
def plan_of(tiny_llama, training_data, job_of):
    def build(processes, method="lora", **changes):
        training = {
            # An odd number of micro batches in the last step: one process has none.
            "maxSteps": None,
            "epochs": 2.0,
            "packing": False,
            "dataParallel": processes,
            "gradientAccumulation": 2 // processes,
        } | changes.pop("training", {})
        return job_of(
            tiny_llama,
            training_data(12),
            method=method,
            lora=LORA,
            training=training,
            gpusPerNode=processes,
            checkpoint={"everySteps": 2, "keep": 9},
            **changes,
        )

    return build


def run(pods, plan):
    """Prepares and trains; the facts."""
    assert pods.run("prepare", plan)[0] == 0
    if plan.gpus_per_node == 1:
        code, _ = pods.run("train", plan)
    else:
        code = pods.start("train").wait(240)
    assert code == 0, pods.result().failure
    return TrainFacts.model_validate(pods.result().facts)


def rewind(pods, step):
    """Behaves as if the node were lost just after the checkpoint of `step`."""
    (pods.workspace / "results/train.json").unlink()
    for folder in (pods.workspace / "checkpoints").glob("step-*"):
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder)


@pytest.fixture
def alone(plan_of, tmp_path, pods):
    """Trains in one process, in a workspace of its own, and returns it."""

    def build(method):
        (tmp_path / "alone").mkdir()
        workspace = type(pods)(tmp_path / "alone")
        run(workspace, plan_of(1, method))
        assert len(losses(workspace)) == STEPS
        return workspace

    return build


def test_two_processes_train_as_one_and_continue_as_two_or_as_one(plan_of, alone, pods):
    whole = losses(alone("lora"))
    facts = run(pods, plan_of(2))
    assert (facts.processes, facts.resumed_from_step, facts.warnings) == (2, 0, ())
    assert losses(pods) == pytest.approx(whole, abs=1e-4)
    samples = (pods.workspace / "evaluation/samples.jsonl").read_text()

    rewind(pods, 2)
    facts = run(pods, plan_of(2))
    assert (facts.processes, facts.resumed_from_step) == (2, 2)
    assert losses(pods) == pytest.approx(whole, abs=1e-4)

    rewind(pods, 4)
    shutil.rmtree(pods.workspace / "checkpoints/step-000000002")
    facts = run(pods, plan_of(1))
    assert (facts.processes, facts.resumed_from_step) == (1, 4)
    assert losses(pods) == pytest.approx(whole, abs=1e-4)
    assert (pods.workspace / "evaluation/samples.jsonl").read_text() == samples


def test_two_processes_continue_with_all_weights_where_one_stopped(plan_of, alone):
    workspace = alone("sft")
    whole, model = losses(workspace), (workspace.workspace / "model/model.safetensors")
    weights = load_file(model)
    rewind(workspace, 2)
    facts = run(workspace, plan_of(2, "sft"))
    assert (facts.processes, facts.resumed_from_step) == (2, 2)
    assert losses(workspace) == pytest.approx(whole, abs=1e-4)
    again = load_file(model)
    assert again.keys() == weights.keys()
    assert all(torch.allclose(again[name], weights[name], atol=1e-4) for name in weights)


@pytest.mark.long
@pytest.mark.parametrize("method", ["dpo", "nf4", "ia3", "dora"])
def test_two_processes_train_every_adapter_as_one_does(plan_of, tmp_path, pods, method):
    """DPO switches the adapter off and on between two passes, and DoRA reads the weights of a layer.

    A base model in fewer bits is whole in each process.
    """
    data = tmp_path / "pairs.jsonl"
    records = [{"prompt": f"say {n} =", "chosen": " red", "rejected": f" cat {n}"} for n in range(12)]
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    changes = {
        "dpo": {"dpo": {}, "dataset": {"format": "preference", "training": {"path": str(data)}}},
        "nf4": {"quantization": "nf4"},
        "ia3": {},
        "dora": {"lora": LORA | {"dropout": 0.0, "dora": True}},
    }[method]
    name = "lora" if method in ("dora", "nf4") else method

    def plan(processes):
        made = plan_of(processes, name)
        laid_over = made.model_dump(mode="json", by_alias=True)
        for key, part in changes.items():
            laid_over[key] = (laid_over[key] or {}) | part if isinstance(part, dict) else part
        return type(made).model_validate(laid_over)

    (tmp_path / "alone").mkdir()
    alone = type(pods)(tmp_path / "alone")
    one, two = run(alone, plan(1)), run(pods, plan(2))
    assert two.processes == 2
    assert losses(pods) == pytest.approx(losses(alone), abs=1e-4)
    assert losses(alone)[0] > losses(alone)[-1]
    assert two.evaluation.tuned.loss == pytest.approx(one.evaluation.tuned.loss, abs=1e-4)
    if method == "dpo":
        assert two.evaluation.preferences.tuned_margin == pytest.approx(
            one.evaluation.preferences.tuned_margin, abs=1e-3
        )
        return
    written = "adapter/adapter_model.safetensors" if method == "nf4" else "model/model.safetensors"
    models = [load_file(each.workspace / written) for each in (alone, pods)]
    assert all(torch.allclose(models[0][key], models[1][key], atol=1e-4) for key in models[0])


def start_nodes(pods):
    """The stage as two pods run it: all that they share is the workspace and the address of the first."""
    ports = pick_ports(["first"], random.SystemRandom())
    rendezvous = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(ports["first"])}
    logs = [pods.log.with_name(f"termination-log-{rank}") for rank in (0, 1)]
    return [
        (pods.start("train", PET_NODE_RANK=str(rank), TUNEYARD_TERMINATION_LOG=str(log), **rendezvous), log)
        for rank, log in enumerate(logs)
    ]


def test_a_lost_node_is_an_interruption_and_two_nodes_train_as_one_with_one_result(plan_of, alone, pods):
    whole = losses(alone("lora"))
    plan = plan_of(2).model_copy(update={"nodes": 2, "gpus_per_node": 1})
    endless = plan.training.model_copy(update={"epochs": None, "max_steps": 100_000})
    assert pods.run("prepare", plan.model_copy(update={"training": endless}))[0] == 0
    (first, log), (second, _) = start_nodes(pods)
    wait_for_steps(pods, first)
    for number in pods.stage_processes(second):
        os.kill(number, signal.SIGKILL)
    assert first.wait(180) == EXIT_CODES[FailureClass.INTERRUPTED]
    failure = StageResult.model_validate_json(log.read_bytes()).failure
    assert "another process of the training is gone" in failure.message

    assert pods.run("prepare", plan)[0] == 0
    nodes = start_nodes(pods)
    assert [process.wait(240) for process, _ in nodes] == [0, 0]
    assert losses(pods) == pytest.approx(whole, abs=1e-4)
    said = [StageResult.model_validate_json(log.read_bytes()) for _, log in nodes]
    kept = StageResult.model_validate_json((pods.workspace / "results/train.json").read_bytes())
    # Each node tells its own times.
    assert [each.model_copy(update={"times": kept.times}) for each in said] == [kept, kept]
    assert kept.facts["processes"] == 2


def start_endless(pods, plan_of, processes, **environ):
    """A training without an end, as soon as it has done two steps."""
    plan = plan_of(processes, training={"epochs": None, "maxSteps": 100_000})
    plan = plan.model_copy(update={"checkpoint": plan.checkpoint.model_copy(update={"every_steps": 50_000})})
    assert pods.run("prepare", plan)[0] == 0
    process = pods.start("train", **environ)
    wait_for_steps(pods, process)
    return process


def wait_for_steps(pods, process):
    end = time.monotonic() + 240
    while len(losses(pods)) < 2:
        assert process.poll() is None, pods.result()
        assert time.monotonic() < end, "no step within four minutes"
        time.sleep(0.1)


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_writes_a_checkpoint_and_leaves(plan_of, pods, processes):
    process = start_endless(pods, plan_of, processes)
    process.send_signal(signal.SIGTERM)
    # Not later, or the kubelet would kill it.
    assert process.wait(GRACE_SECONDS[Stage.TRAIN]) == EXIT_CODES[FailureClass.INTERRUPTED]
    failure = pods.result().failure
    assert failure.failure_class is FailureClass.INTERRUPTED
    assert "continues from the checkpoint of step" in failure.message
    [checkpoint] = (pods.workspace / "checkpoints").glob("step-*")
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    assert len(manifest["digests"]) == 2 * processes
    assert manifest["step"] == len(losses(pods))


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2])
def test_a_checkpoint_that_takes_35_seconds_is_kept_after_sigterm(plan_of, pods, processes, tmp_path):
    """PyTorch's torchrun by itself kills its workers after 30 s."""
    (tmp_path / "sitecustomize.py").write_text(
        "import time\n"
        "import safetensors.torch as real\n"
        "write = real.save_file\n"
        "def save_file(*arguments, **named):\n"
        "    time.sleep(17.5)\n"
        "    write(*arguments, **named)\n"
        "real.save_file = save_file\n"
    )
    process = start_endless(pods, plan_of, processes, PYTHONPATH=str(tmp_path))
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(GRACE_SECONDS[Stage.TRAIN]) == EXIT_CODES[FailureClass.INTERRUPTED]
    assert time.monotonic() - began > 35
    assert "continues from the checkpoint of step" in pods.result().failure.message
    [checkpoint] = (pods.workspace / "checkpoints").glob("step-*")
    assert len(json.loads((checkpoint / "manifest.json").read_text())["digests"]) == 2 * processes


@pytest.mark.long
def test_a_killed_process_is_an_interruption_and_no_bug(plan_of, pods):
    process = start_endless(pods, plan_of, 2)
    os.kill(pods.stage_processes(process)[-1], signal.SIGKILL)
    assert process.wait(180) == EXIT_CODES[FailureClass.INTERRUPTED]
    assert "another process of the training is gone" in pods.result().failure.message
