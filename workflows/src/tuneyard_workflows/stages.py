# SPDX-License-Identifier: Apache-2.0
"""The stages around a training, each a WorkflowTemplate that can be submitted alone: curate, evaluate, approve, promote, infer."""

from collections.abc import Sequence

from tuneyard_api.base import RELATIVE_PATH

from tuneyard_workflows.expressions import claim_of, duration, path_of
from tuneyard_workflows.form import Field, Json, Offer, build_template
from tuneyard_workflows.pods import build_pod

CURATE, EVALUATE, APPROVE, PROMOTE, INFER = "curate", "evaluate", "approve", "promote", "infer"
RAW, KEPT, TEST, REGISTRY = "/raw", "/kept", "/test", "/registry"
CURATED = ("trainingData", "testData", "kept", "dropped", "digest", "report")
EVALUATED = ("metrics", "rougeL", "exactMatch")
PROMOTED = ("modelName", "digest")
INFERRED = ("answer",)
APPROVED, REFUSED = "yes", "no"
_CLAIM = "^pvc:[a-z0-9][a-z0-9.-]*/"

CURATE_FIELDS = (
    Field("rawData", "Raw records, a file or a folder of files: pvc:<claim>/<path>", pattern=f"{_CLAIM}.+$"),
    Field("keepIn", "Folder for curated records; each workflow has its own in it: pvc:<claim>/<path>", pattern=f"{_CLAIM}{RELATIVE_PATH[1:-1]}/?$"),
    Field("minCharacters", "Shortest answer that is kept, in characters", "1"),
    Field("maxCharacters", "Longest record that is kept, in characters", "100000"),
    Field("languages", "Languages that are kept, such as English,German; empty: all. It is a guess: what is not known stays", ""),
    Field("nearDuplicates", "What happens to records that differ from another one in spelling only", "drop", ("drop", "keep")),
    Field("personalData", "What happens to records that look as if they hold personal data or a key", "drop", ("drop", "keep")),
    Field("maxDropped", "Share of records, 0 to 1, that may be dropped; with more the stage fails", "0.5"),
    Field("testShare", "Share of records, 0 to 0.5, that is held out to compare base and tuned model", "0.05"),
)  # fmt: skip
EVALUATE_FIELDS = (
    Field("endpoint", "Base URL of an OpenAI-compatible server, without /v1"),
    Field("modelName", "Name of the model or adapter at that server"),
    Field("evaluationData", "Records with prompts: pvc:<claim>/<path>"),
    Field("maxPrompts", "Number of records that are asked, the first ones", "64"),
    Field("maxNewTokens", "Longest answer in tokens", "64"),
    Field("minRougeL", "Least mean ROUGE-L, 0 to 1, with which the stage succeeds", "0"),
)
PATIENCE = Field(
    "patience",
    "How long to wait for an answer, such as 30m, 12h or 3d; no answer is a no",
    "3d",
    pattern="^([0-9]+([.][0-9]+)?(ms|s|m|h))+$|^[0-9]+d?$",
)
APPROVE_FIELDS = (Field("what", "What is to be approved, for the person who decides"), PATIENCE)
REPLACE = Field("replace", "Whether the name may stand for another version now", "no", ("yes", "no"))
PROMOTE_FIELDS = (
    Field("candidate", "Name of the published adapter or model"),
    Field("name", "Name that is to stand for the same version"),
    REPLACE,
)
INFER_FIELDS = (
    Field("endpoint", "Base URL of an OpenAI-compatible server, without /v1"),
    Field("modelName", "Name of the model or adapter at that server"),
    Field("prompt", "Text that the model continues", "def read_lines(path):"),
    Field("maxNewTokens", "Longest answer in tokens", "64"),
    Field("patience", "How long to wait until the server knows the name, in seconds", "600"),
)


def build_stages(offer: Offer) -> list[Json]:
    """The WorkflowTemplates of all stages."""
    built = [
        _stage(offer, CURATE, "Clean raw records and hold some out", CURATE_FIELDS, _curate(offer)),
        _stage(offer, EVALUATE, "Measure the answers of a served model", EVALUATE_FIELDS, _evaluate(offer)),
        _stage(offer, APPROVE, "Wait until a person says yes or no", APPROVE_FIELDS, _approve()),
        _stage(offer, INFER, "Ask a served model", INFER_FIELDS, _infer(offer)),
    ]
    if offer.promotes and offer.registry_claim is not None:
        promote = _promote(offer, offer.registry_claim)
        built.append(_stage(offer, PROMOTE, "Give an adapter another name", PROMOTE_FIELDS, promote))
    return built


def _stage(offer: Offer, name: str, summary: str, fields: Sequence[Field], template: Json) -> Json:
    return build_template(offer, name, summary, fields, [template])


def _option(option: str, name: str) -> str:
    return f"--{option}={{{{inputs.parameters.{name}}}}}"


def _curate(offer: Offer) -> Json:
    words = [
        "curate",
        f"--source={RAW}/{path_of('rawData')}",
        f"--folder={KEPT}/{path_of('keepIn')}/{{{{workflow.name}}}}",
        "--place={{inputs.parameters.keepIn}}/{{workflow.name}}",
        _option("min-characters", "minCharacters"),
        _option("max-characters", "maxCharacters"),
        _option("languages", "languages"),
        _option("near-duplicates", "nearDuplicates"),
        _option("personal-data", "personalData"),
        _option("max-dropped", "maxDropped"),
        _option("test-share", "testShare"),
    ]
    claims = {RAW: (claim_of("rawData"), True), KEPT: (claim_of("keepIn"), False)}
    return build_pod(offer, CURATE, CURATE_FIELDS, words, CURATED, claims=claims)


def _evaluate(offer: Offer) -> Json:
    words = [
        "evaluate-endpoint",
        _option("endpoint", "endpoint"),
        _option("model", "modelName"),
        f"--source={TEST}/{path_of('evaluationData')}",
        _option("max-prompts", "maxPrompts"),
        _option("max-new-tokens", "maxNewTokens"),
        _option("min-rouge-l", "minRougeL"),
    ]
    claims = {TEST: (claim_of("evaluationData"), True)}
    return build_pod(offer, EVALUATE, EVALUATE_FIELDS, words, EVALUATED, claims=claims)


def _approve() -> Json:
    """A person resumes it with `approved`; whoever only resumes it, and time, say no."""
    answer = {"name": "approved", "valueFrom": {"supplied": {}, "default": REFUSED}}
    return {
        "name": APPROVE,
        "inputs": {
            "parameters": [
                *({"name": field.name} for field in APPROVE_FIELDS),
                {"name": "approved", "default": REFUSED, "enum": [REFUSED, APPROVED]},
            ]
        },
        "suspend": {"duration": duration("patience")},
        "outputs": {"parameters": [answer]},
    }


def _promote(offer: Offer, claim: str) -> Json:
    words = [
        "promote",
        f"--registry={REGISTRY}",
        _option("candidate", "candidate"),
        _option("name", "name"),
        _option("replace", "replace"),
    ]
    return build_pod(offer, PROMOTE, PROMOTE_FIELDS, words, PROMOTED, claims={REGISTRY: (claim, False)})


def _infer(offer: Offer) -> Json:
    words = [
        "ask",
        _option("endpoint", "endpoint"),
        _option("model", "modelName"),
        _option("prompt", "prompt"),
        _option("max-new-tokens", "maxNewTokens"),
        _option("patience", "patience"),
    ]
    return build_pod(offer, INFER, INFER_FIELDS, words, INFERRED, claims={})
