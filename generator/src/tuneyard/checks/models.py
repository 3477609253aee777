# SPDX-License-Identifier: Apache-2.0
"""Checks served models against what NIM and vLLM accept."""

from collections.abc import Iterator

from tuneyard_api.customizer_refusals import WAYS
from tuneyard_api.planner import DEFAULT_SERVE_TIMEOUT_SECONDS
from tuneyard_api.problems import InputRefused, LocatedProblem, Path
from tuneyard_api.yaml_io import dump

from tuneyard.catalog.runtimes import build_runtime
from tuneyard.catalog.served_models import serves, takes_adapters
from tuneyard.environment.cluster import PLACEHOLDER_REGISTRY
from tuneyard.environment.models import LoraServing, Pipeline, ServedModel
from tuneyard.environment.presets import engine_of
from tuneyard.environment.reference import path_of
from tuneyard.environment.tuning import CustomizerTarget, Runtime, TuningNamespace
from tuneyard.findings import Finding, Severity, did_you_mean
from tuneyard.stack.model import Json, Stack

Named = ServedModel | Pipeline | Runtime | TuningNamespace | CustomizerTarget

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that `--max-lora-rank` takes (vLLM 0.32.0)."""
_BRANCHES = ("main", "master", "latest", "head", "HEAD")


def names_are_unique(stack: Stack) -> Iterator[Finding]:
    """No name is used twice among models, pipelines, runtimes, namespaces or targets."""
    environment = stack.environment
    tuning = environment.fine_tuning
    lists: tuple[tuple[Path, tuple[Named, ...]], ...] = (
        (("models",), environment.models), (("pipelines",), environment.pipelines),
        (("fineTuning", "runtimes"), tuning.runtimes), (("fineTuning", "namespaces"), tuning.namespaces),
        (("fineTuning", "customizer", "targets"), tuning.customizer.targets),
    )  # fmt: skip
    for path, entries in lists:
        seen: set[str] = set()
        for index, entry in enumerate(entries):
            if entry.name in seen:
                yield Finding(
                    "names-are-unique",
                    "the name is taken",
                    (*path, index, "name"),
                    repr(entry.name),
                    "another name",
                )
            seen.add(entry.name)


def engines_have_their_source(stack: Stack) -> Iterator[Finding]:
    """A NIM has an image, and a vLLM has weights from the hub."""
    for index, model in enumerate(stack.environment.models):
        engine, path = engine_of(stack.environment, model), ("models", index)
        if engine == "nim" and not model.image:
            yield Finding(
                "nim-has-image",
                "NIM needs an image",
                path,
                None,
                "image: {repository: nvcr.io/nim/..., tag: ...}",
            )
        if engine == "vllm" and not model.hugging_face:
            yield Finding(
                "vllm-has-weights",
                "vLLM needs a model of the hub",
                path,
                None,
                "huggingFace: {repo: ..., revision: ...}",
            )


def images_and_revisions_are_fixed(stack: Stack) -> Iterator[Finding]:
    """Images and revisions are fixed: nothing changes by itself."""
    environment = stack.environment
    for index, model in enumerate(environment.models):
        if model.image and model.image.tag == "latest":
            yield Finding(
                "image-is-fixed",
                "`latest` moves without a commit",
                ("models", index, "image", "tag"),
                "'latest'",
                "a version",
            )
        if model.hugging_face and model.hugging_face.revision in _BRANCHES:
            yield Finding(
                "revision-is-fixed",
                "a branch moves without a commit",
                ("models", index, "huggingFace", "revision"),
                repr(model.hugging_face.revision),
                "a commit",
            )
    images: dict[Path, str] = {
        ("registries", "trainerImage"): environment.registries.trainer_image,
        ("registries", "operatorImage"): environment.registries.operator_image,
    }
    images |= {
        ("fineTuning", "runtimes", i, "image"): r.image
        for i, r in enumerate(environment.fine_tuning.runtimes)
        if r.image
    }
    for path, image in images.items():
        name = image.rsplit("/", 1)[-1]
        if ":" not in name or name.endswith(":latest"):
            yield Finding(
                "image-is-fixed",
                "an image needs a fixed tag or digest",
                path,
                repr(image),
                f"{image.removesuffix(':latest')}:<version>",
            )


def images_are_real(stack: Stack) -> Iterator[Finding]:
    """Tuneyard's own images have real names: the default ones are in an example domain, where nothing can be pulled."""
    registries, tuning = stack.environment.registries, stack.environment.fine_tuning
    used = {
        "operatorImage": registries.operator_image if stack.has("finetune") else "",
        "trainerImage": registries.trainer_image if any(not r.image for r in tuning.runtimes) else "",
    }
    missing = [key for key, image in used.items() if image.startswith(f"{PLACEHOLDER_REGISTRY}/")]
    if missing:
        still = "still has its default name" if len(missing) == 1 else "still have their default names"
        yield Finding(
            "image-is-real",
            f"{' and '.join(missing)} {still}, which no registry has",
            ("registries",),
            repr(used[missing[0]]),
            "`make images REGISTRY=<yours>`, and the names that it prints",
            Severity.WARNING,
        )


def options_go_together(stack: Stack) -> Iterator[Finding]:
    """No options are combined that the API or the server refuses."""
    for index, model in enumerate(stack.environment.models):
        path: Path = ("models", index)
        yield from (
            _nim_options(stack, model, path)
            if engine_of(stack.environment, model) == "nim"
            else _vllm_options(stack, model, path)
        )
        if model.autoscaling and model.multi_node:
            yield Finding(
                "scale-not-with-multi-node",
                "a model over several nodes can't be scaled by load",
                (*path, "autoscaling"),
                None,
                "replicas",
            )
        if model.autoscaling and model.autoscaling.min_replicas > model.autoscaling.max_replicas:
            yield Finding(
                "scale-range",
                "is more than maxReplicas",
                (*path, "autoscaling", "minReplicas"),
                str(model.autoscaling.min_replicas),
                str(model.autoscaling.max_replicas),
            )
        if model.autoscaling and "replicas" in model.model_fields_set:
            yield Finding(
                "scale-not-with-replicas",
                "the API refuses replicas beside autoscaling",
                (*path, "replicas"),
                str(model.replicas),
                "leaving it out",
            )


def _nim_options(stack: Stack, model: ServedModel, path: Path) -> Iterator[Finding]:
    if model.profile and model.nim_engine:
        yield Finding(
            "nim-profile-alone",
            "a profile excludes every other choice of the model",
            (*path, "nimEngine"),
            repr(model.nim_engine),
            "leaving it out",
        )
    if model.multi_node and stack.has("dra"):
        yield Finding(
            "multi-node-not-with-dra",
            "several nodes can't be combined with dynamic resource allocation",
            (*path, "multiNode"),
            None,
            "use.gpu: device-plugin",
        )
    if model.multi_node and model.lora:
        yield Finding(
            "multi-node-not-with-lora",
            "several nodes can't be combined with adapters",
            (*path, "lora"),
            None,
            "leaving it out",
        )
    if model.lora and model.lora.source == "folder" and not takes_adapters(stack, model):
        yield Finding(
            "nim-folder-is-filled",
            "nothing in this tree copies adapters into a NIM's folder",
            (*path, "lora", "source"),
            "'folder'",
            "fineTuning.registryS3 and lora.baseModel, source: entity-store (NIM 1.x), or engine: vllm",
            Severity.WARNING,
        )
    if model.lora and model.lora.refresh_seconds >= DEFAULT_SERVE_TIMEOUT_SECONDS:
        yield Finding(
            "nim-looks-in-time",
            f"a job waits {DEFAULT_SERVE_TIMEOUT_SECONDS} s for its adapter, and the next look may come later",
            (*path, "lora", "refreshSeconds"),
            str(model.lora.refresh_seconds),
            f"{DEFAULT_SERVE_TIMEOUT_SECONDS // 2} or fewer, or serve.timeoutSeconds in every job",
            Severity.WARNING,
        )
    if model.lora and model.lora.base_model and model.hugging_face:
        yield Finding(
            "nim-has-one-base",
            "huggingFace says already what jobs call the model",
            (*path, "lora", "baseModel"),
            repr(model.lora.base_model.repo),
            "leaving it out",
        )
    if (
        stack.environment.registries.air_gapped
        and not model.hugging_face
        and not stack.environment.registries.models
    ):
        yield Finding("air-gap-has-models", "NIM's models come from NGC", path, None, "registries.models")
    if stack.environment.registries.air_gapped and model.hugging_face:
        yield Finding(
            "air-gap-has-models",
            "the hub can't be reached",
            (*path, "huggingFace"),
            repr(model.hugging_face.repo),
            "an NGC model by way of registries.models",
        )


def _vllm_options(stack: Stack, model: ServedModel, path: Path) -> Iterator[Finding]:
    registries = stack.environment.registries
    if registries.air_gapped and model.hugging_face and not registries.hugging_face:
        yield Finding(
            "air-gap-has-models",
            "the hub can't be reached, so vLLM does not start and no job can name this model",
            (*path, "huggingFace"),
            repr(model.hugging_face.repo),
            "registries.huggingFace with a mirror of the hub",
        )
    for key, value in (
        ("multiNode", model.multi_node),
        ("autoscaling", model.autoscaling),
        ("profile", model.profile),
        ("nimEngine", model.nim_engine),
        ("lora.baseModel", model.lora and model.lora.base_model),
    ):
        if value is not None:
            yield Finding(
                "vllm-has-option",
                "is rendered for NIM only",
                (*path, *key.split(".")),
                None,
                "engine: nim, or leaving it out",
            )
    if model.lora:
        yield from _vllm_adapters(model.lora, (*path, "lora"))
    if model.lora and model.lora.source == "entity-store":
        yield Finding(
            "vllm-reads-folders-only",
            "vLLM reads adapters from a folder",
            (*path, "lora", "source"),
            "'entity-store'",
            "folder",
        )


def _vllm_adapters(lora: LoraServing, path: Path) -> Iterator[Finding]:
    """Adapter limits are values that vLLM takes; with others its process ends at start (seen with 0.32.0)."""
    if lora.max_rank not in VLLM_RANKS:
        above = [rank for rank in VLLM_RANKS if rank > lora.max_rank]
        yield Finding(
            "vllm-takes-rank",
            f"vLLM takes {', '.join(map(str, VLLM_RANKS))} as the largest rank; adapters may have any rank up to it",
            (*path, "maxRank"),
            str(lora.max_rank),
            str(min(above, default=VLLM_RANKS[-1])),
        )
    if lora.max_cpu_adapters < lora.max_gpu_adapters:
        yield Finding(
            "vllm-keeps-gpu-adapters-on-cpu",
            "vLLM keeps every adapter of the GPU in host memory too",
            (*path, "maxCpuAdapters"),
            str(lora.max_cpu_adapters),
            f"{lora.max_gpu_adapters} or more",
        )


def pipelines_name_models(stack: Stack) -> Iterator[Finding]:
    """A pipeline's models exist, are NIMs, and belong to it alone."""
    models = {model.name: model for model in stack.environment.models}
    owner: dict[str, str] = {}
    for index, pipeline in enumerate(stack.environment.pipelines):
        for place, name in enumerate(pipeline.models):
            path = ("pipelines", index, "models", place)
            if name not in models:
                yield Finding(
                    "pipeline-models-exist", "no such model", path, repr(name), did_you_mean(name, models)
                )
            elif engine_of(stack.environment, models[name]) != "nim":
                yield Finding(
                    "pipeline-models-are-nims",
                    "a pipeline can hold only NIMs",
                    path,
                    repr(name),
                    "engine: nim",
                )
            elif name in owner:
                yield Finding(
                    "pipeline-owns-models",
                    f"belongs to {owner[name]} already",
                    path,
                    repr(name),
                    "one pipeline",
                )
            owner[name] = pipeline.name


def runtimes_name_served_models(stack: Stack) -> Iterator[Finding]:
    """A runtime's served models are models of the environment that take adapters."""
    models = {model.name: model for model in stack.environment.models}
    for index, runtime in enumerate(stack.environment.fine_tuning.runtimes):
        able = {name for name, model in models.items() if serves(stack, runtime, model)}
        for place, name in enumerate(runtime.served_models or ()):
            if name not in able:
                yield Finding(
                    "served-models-take-adapters",
                    "this model takes no adapters of jobs" if name in models else "no such model is served",
                    ("fineTuning", "runtimes", index, "servedModels", place),
                    repr(name),
                    did_you_mean(name, able),
                )


def runtimes_of_the_customizer_have_models(stack: Stack) -> Iterator[Finding]:
    """A runtime that NeMo Customizer trains for has a base model, and methods that it has."""
    tuning = stack.environment.fine_tuning
    for index, runtime in enumerate(tuning.runtimes):
        if runtime.trained_by == "pods":
            continue
        path = ("fineTuning", "runtimes", index)
        if not any(target.hugging_face for target in tuning.customizer.targets):
            yield Finding(
                "customizer-runtime-has-models",
                "no target of fineTuning.customizer has huggingFace, so that no FineTuneJob can name its model",
                (*path, "trainedBy"),
                repr(runtime.trained_by),
                "huggingFace: {repo: ..., revision: ...} in a target",
            )
        for place, method in enumerate(runtime.methods):
            if method not in WAYS:
                yield Finding(
                    "customizer-runtime-has-methods",
                    "NeMo Customizer does not have this method",
                    (*path, "methods", place),
                    repr(method),
                    " or ".join(WAYS),
                )


def runtimes_are_accepted(stack: Stack) -> Iterator[Finding]:
    """Each FineTuneRuntime that has a `spec` laid over it is still one that the operator accepts."""
    for index, runtime in enumerate(stack.environment.fine_tuning.runtimes):
        if runtime.spec:
            for problem in _problems_of(build_runtime(stack, runtime)):
                place = ("fineTuning", "runtimes", index, *path_of(problem.path))
                yield Finding("runtime-is-accepted", problem.message, place)


def _problems_of(runtime: Json) -> tuple[LocatedProblem, ...]:
    from tuneyard_api.validate import load_runtime  # noqa: PLC0415  slow to import, seldom needed

    try:
        load_runtime(dump(runtime))
    except InputRefused as refused:
        return refused.problems
    return ()


CHECKS = (
    names_are_unique, engines_have_their_source, images_and_revisions_are_fixed, images_are_real, options_go_together,
    pipelines_name_models, runtimes_name_served_models, runtimes_of_the_customizer_have_models, runtimes_are_accepted,
)  # fmt: skip
