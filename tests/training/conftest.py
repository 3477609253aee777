# SPDX-License-Identifier: Apache-2.0
"""A tiny model, small data sets and stages run as the pods run them, for all tests of the trainer."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tuneyard_api.evaluation_facts import EvaluationFacts, Scores
from tuneyard_api.ledger import PhaseTimes
from tuneyard_api.planner import digest_of
from tuneyard_api.pod_contract import ResolvedJob, Stage, StageResult, TrainFacts
from tuneyard_trainer.pod.results import write_result

SENTENCES = [
    "the cat sat on the mat and looked at the moon",
    "a red fox runs over the green hill every day",
    "rain falls on the quiet town while people sleep",
    "seven ships left the harbour before the storm came",
]


def write_tokenizer(folder: Path, *, chat_template: str | None = None) -> None:
    """A byte-level BPE of a few hundred tokens."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    end = {"__type": "AddedToken", "content": "</s>"}
    # Without a class, transformers builds the tokenizer that the family of the model usually has.
    config: dict[str, Any] = {
        "bos_token": "<s>",
        "eos_token": end,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    if chat_template:
        config["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_model_files(folder: Path, **config: Any) -> None:
    """A Llama of zeros: enough for prepare, and without PyTorch."""
    numpy = pytest.importorskip("numpy")
    safetensors = pytest.importorskip("safetensors.numpy")
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
    content = {"model_type": "llama", "vocab_size": 320, "max_position_embeddings": 256} | sizes | heads
    (folder / "config.json").write_text(json.dumps(content | config))
    square = [f"self_attn.{name}_proj" for name in "qkvo"] + [
        f"mlp.{name}_proj" for name in ("gate", "up", "down")
    ]
    shapes: dict[str, tuple[int, ...]] = {f"layers.0.{name}.weight": (8, 8) for name in square}
    shapes |= {f"layers.0.{name}_layernorm.weight": (8,) for name in ("input", "post_attention")}
    shapes |= {"embed_tokens.weight": (320, 8), "norm.weight": (8,)}
    tensors = {f"model.{name}": numpy.zeros(shape, numpy.float32) for name, shape in shapes.items()}
    tensors["lm_head.weight"] = numpy.zeros((320, 8), numpy.float32)
    safetensors.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(folder)


@pytest.fixture
def model_files(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    write_model_files(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights: hidden size 32, 2 layers, 2 heads."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(2)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    config = transformers.LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.2,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_jsonl(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return path


def capitals(count: int) -> list[dict[str, str]]:
    """Prompts and completions that a tiny model can learn."""
    return [
        {"prompt": f"say number {n} =", "completion": f" {'red' if n % 2 else 'cat'} {n % 7}"}
        for n in range(count)
    ]


@pytest.fixture
def job_of(tmp_path: Path) -> Callable[..., ResolvedJob]:
    """Builds a resolved job; keyword arguments are sections that are merged over the defaults."""

    def build(model: Path, data: Path, /, **changes: Any) -> ResolvedJob:
        content: dict[str, Any] = {
            "name": "demo",
            "namespace": "team",
            "uid": "1",
            "runtime": {
                "name": "hf-cpu",
                "accelerator": "none",
                "precisions": ["fp32"],
                "modelFamilies": [],
                "trustRemoteCode": False,
            },
            "model": {"path": str(model)},
            "dataset": {
                "training": {"path": str(data)},
                "validation": None,
                "validationFraction": 0.25,
                "test": None,
                "format": "auto",
                "template": None,
                "lossOn": "completion",
            },
            "method": "lora",
            "lora": {"rank": 4, "alpha": 8},
            "training": {
                "epochs": None,
                "maxSteps": 4,
                "learningRate": 0.01,
                "schedule": "cosine",
                "warmupSteps": 0,
                "weightDecay": 0.0,
                "maxGradNorm": 1.0,
                "globalBatchSize": 4,
                "microBatchSize": 2,
                "dataParallel": 1,
                "gradientAccumulation": 2,
                "maxSequenceLength": 64,
                "packing": True,
                "precision": "auto",
                "gradientCheckpointing": False,
                "seed": 7,
            },
            "checkpoint": {"everySteps": 2, "keep": 2},
            "evaluation": {"maxPrompts": 4, "maxNewTokens": 6},
            "adapterName": "demo-adapter",
            "registryPath": str(tmp_path / "registry"),
        }
        for key, value in changes.items():
            content[key] = content.get(key, {}) | value if isinstance(value, dict) else value
        return ResolvedJob.model_validate(content)

    return build


@pytest.fixture
def trained(
    tmp_path: Path, model_files: Path, job_of: Callable[..., ResolvedJob], pods: "Pods"
) -> Callable[..., ResolvedJob]:
    """A workspace as prepare really leaves it, and as train would; returns the job."""
    pytest.importorskip("matplotlib")

    def build(
        content: bytes = b"weights", records: list[Any] | None = None, facts: Any = None, **changes: Any
    ) -> ResolvedJob:
        records = records or [{"prompt": f"{n}", "completion": f" {n}"} for n in range(8)]
        job = job_of(model_files, write_jsonl(tmp_path / "train.jsonl", records), **changes)
        assert pods.run("prepare", job)[0] == 0
        adapter = pods.workspace / "adapter"
        adapter.mkdir(exist_ok=True)
        (adapter / "adapter_config.json").write_text("{}")
        (adapter / "adapter_model.safetensors").write_bytes(content)
        (pods.workspace / "metrics.jsonl").write_text(
            '{"step": 1, "loss": 2.5}\n{"step": 1, "validationLoss": 2.0}\n'
        )
        base, tuned = (
            Scores(loss=loss, perplexity=9.0, exact_match=0.5, rouge_l=0.25, prompts=8)
            for loss in (3.5, 1.25)
        )
        said = TrainFacts(
            steps=4,
            epochs=1.0,
            final_loss=2.5,
            trained_tokens=100,
            tokens_per_second=10.0,
            seconds=10.0,
            peak_memory_bytes=1,
            evaluation=EvaluationFacts(base=base, tuned=tuned),
        )
        result = StageResult(
            stage=Stage.TRAIN,
            outcome="Succeeded",
            plan_digest=digest_of(job),
            facts=said.model_copy(update=facts or {}).model_dump(mode="json"),
            times=PhaseTimes(seconds={"loading": 0.2, "training": 9.6, "checkpointing": 1.2}),
        )
        write_result(result, pods.workspace, pods.log)
        return job

    return build


def parent_of(number: int) -> int:
    return int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])


def stage_processes(process: subprocess.Popen[bytes]) -> list[int]:
    """Process ids of a stage, its torchrun and its workers, oldest first; torchrun gives workers sessions of their own."""
    found = [process.pid]
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda folder: int(folder.name)):
        try:
            if parent_of(int(folder.name)) in found:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


class Pods:
    """A workspace in which stages run, in this process or in their own."""

    def __init__(self, folder: Path) -> None:
        self.workspace = folder / "workspace"
        self.workspace.mkdir(parents=True, exist_ok=True)
        self.log = folder / "termination-log"
        self.job_file = folder / "job.json"
        self.started: list[subprocess.Popen[bytes]] = []
        self.stage_processes = stage_processes

    def environ(self, port: str = "") -> dict[str, str]:
        return {
            "TUNEYARD_JOB_FILE": str(self.job_file),
            "TUNEYARD_WORKSPACE": str(self.workspace),
            "TUNEYARD_TERMINATION_LOG": str(self.log),
            "TUNEYARD_PORT": port,
        }

    def give(self, job: ResolvedJob) -> None:
        self.job_file.write_text(job.model_dump_json())

    def run(self, stage: str, job: ResolvedJob) -> tuple[int, StageResult]:
        """Runs the stage in this process."""
        from tuneyard_trainer.pod.environment import PodEnvironment
        from tuneyard_trainer.run_stage import run_stage

        self.give(job)
        code = run_stage(Stage(stage), PodEnvironment.of(self.environ()))
        return code, self.result()

    def start(self, stage: str, port: str = "", **more: str) -> subprocess.Popen[bytes]:
        """Runs the stage in a process of its own, as a pod does; `more` of the environment comes last."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tuneyard_trainer.main", "stage", stage],
            env=os.environ | self.environ(port) | {"OMP_NUM_THREADS": "1"} | more,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """Ends what was started and still runs, with all that it started: a worker that is left trains for ever."""
        for process in self.started:
            for number in reversed(stage_processes(process)) if process.poll() is None else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            process.wait()

    def result(self) -> StageResult:
        content = self.log.read_bytes()
        assert len(content) <= 4096
        return StageResult.model_validate_json(content)


@pytest.fixture
def pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pods]:
    # Stages settle their caches in the environment; the next test wants its own.
    with monkeypatch.context() as patch:
        # Ten seconds of PyTorch for every preparation; test_training_module_tree.py has the real check.
        patch.setattr("tuneyard_trainer.stages.prepare.check_module_tree", lambda *_: [])
        for name in (
            "HF_HOME",
            "MPLCONFIGDIR",
            "TRITON_CACHE_DIR",
            "TORCHINDUCTOR_CACHE_DIR",
            "XDG_CACHE_HOME",
        ):
            patch.setenv(name, "")
        for name, value in (("HF_HUB_OFFLINE", ""), ("OMP_NUM_THREADS", "2"), ("RAYON_NUM_THREADS", "2")):
            patch.setenv(name, value)
        running = Pods(tmp_path)
        yield running
        running.end()


@pytest.fixture
def training_data(tmp_path: Path) -> Callable[[int], Path]:
    return lambda count: write_jsonl(tmp_path / "train.jsonl", capitals(count))


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[[list[Any]], Path]:
    """Writes records to train.jsonl."""
    return lambda records: write_jsonl(tmp_path / "train.jsonl", records)


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
    """Model files whose config.json has these values as well."""

    def write(**config: Any) -> Path:
        write_model_files(tmp_path / "base", **config)
        return tmp_path / "base"

    return write


@pytest.fixture(name="write_tokenizer")
def _write_tokenizer() -> Callable[..., None]:
    """Writes the files of the small tokenizer into a folder."""
    return write_tokenizer
