# SPDX-License-Identifier: Apache-2.0
"""The rules of FineTuneJob and FineTuneRuntime that no schema keyword expresses, as CEL and in Python side by side.

CEL sees the object after defaulting, so fields with a default need no `has()`.
"""

import re
from collections.abc import Callable, Collection
from typing import Any

from tuneyard_api.base import DNS_LABEL, DNS_SUBDOMAIN, Rule
from tuneyard_api.methods import LORA_METHODS
from tuneyard_api.names import MAX_JOB_NAME
from tuneyard_api.quantities import quantity_value

_IMAGE = r"^[^@:]+(:[0-9]+/[^@:]+)?(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|(:[A-Za-z0-9_.-]{1,128})?@sha256:[0-9a-f]{64})$"
_LABEL_NAME = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = f"^({DNS_SUBDOMAIN[1:-1]}/)?{_LABEL_NAME}$"
_RESOURCE = f"^{DNS_SUBDOMAIN[1:-1]}/{_LABEL_NAME}$"
_MAX_DOMAIN = 253
MAX_LABEL = 63


def rule(cel: str, holds: Callable[[Any], bool], message: str, field: str = "") -> Rule:
    """A rule whose message quotes string fields as `{metadata.name}`, and a string itself as `{self}`."""
    named = re.sub(r"\{(?!self\})([\w.]+)\}", r"{self.\1}", message)
    cel_message = re.sub(r"\{([\w.]+)\}", r"' + \1 + '", f"'{named}'")
    quoted = re.sub(r"\{self\.([\w.]+)\}", lambda found: f"{{self.{attribute_of(found[1])}}}", named)
    sentence = message.partition(" (got")[0]
    return Rule(
        cel, cel_message, lambda self: None if holds(self) else quoted.format(self=self), sentence, field
    )


def attribute_of(name: str) -> str:
    """The attribute of a field."""
    return re.sub("(?=[A-Z])", "_", name).lower()


def _exclusive(first: str, second: str, field: str = "") -> Rule:
    """A rule that at most one of two fields is given."""
    return rule(
        f"!has(self.{first}) || !has(self.{second})",
        lambda self: (
            getattr(self, attribute_of(first)) is None or getattr(self, attribute_of(second)) is None
        ),
        f"{first} and {second} exclude each other (got both); try one",
        field,
    )


def batch_refusal(batch: int, micro: int | None, gpus: int) -> str | None:
    """What is wrong with `batch` sequences a step on `gpus` GPUs, `micro` at a time, or None.

    Global batch = micro batch x data parallel size x accumulation, all whole numbers.
    """
    unit = (micro or 1) * gpus
    if batch % unit == 0:
        return None
    factors = f"{gpus} {'GPU' if gpus == 1 else 'GPUs'} x accumulation"
    if micro is not None:
        factors = f"microBatchSize {micro} x {factors}"
    below = batch // unit * unit
    fitting = f"{below} or {below + unit}" if below else f"{unit}"
    return f"globalBatchSize {batch} is not {factors}; try {fitting}"


_BATCH, _MICRO = "self.training.globalBatchSize", "self.training.microBatchSize"
_GPUS = "(self.parallelism.nodes * self.parallelism.gpusPerNode)"
_UNIT = f"((has({_MICRO}) ? {_MICRO} : 1) * {_GPUS})"

MANAGED_BY_STAYS = Rule(
    # A transition rule: it is asked at updates alone, of which a file on a laptop knows nothing.
    cel="has(self.managedBy) == has(oldSelf.managedBy) && (!has(self.managedBy) || self.managedBy == oldSelf.managedBy)",
    cel_message="'managedBy may not be changed; try a new job'",
    broken=lambda _: None,
    sentence="managedBy may not be changed",
    field="managedBy",
)
BATCH_DIVIDES = Rule(
    cel=f"{_BATCH} % {_UNIT} == 0",
    # format(), as the API server's estimate knows no bound for what string() + string() may cost.
    cel_message=(
        "'globalBatchSize %d is not %s%d %s x accumulation; try %s%d'.format(["
        f"{_BATCH}, has({_MICRO}) ? 'microBatchSize %d x '.format([{_MICRO}]) : '',"
        f" {_GPUS}, {_GPUS} == 1 ? 'GPU' : 'GPUs',"
        f" {_BATCH} < {_UNIT} ? '' : '%d or '.format([{_BATCH} / {_UNIT} * {_UNIT}]),"
        f" ({_BATCH} / {_UNIT} + 1) * {_UNIT}])"
    ),
    broken=lambda spec: batch_refusal(
        spec.training.global_batch_size,
        spec.training.micro_batch_size,
        spec.parallelism.nodes * spec.parallelism.gpus_per_node,
    ),
    sentence="globalBatchSize is microBatchSize x GPUs x accumulation, all whole numbers",
    field="training.globalBatchSize",
)


def _options_of(name: str, *methods: str) -> Rule:
    """The options `name` go with these methods alone."""
    attribute = attribute_of(name)
    is_one = len(methods) == 1
    is_method = f"self.method == '{methods[0]}'" if is_one else f"self.method in {list(methods)}"
    return rule(
        f"!has(self.{name}) || {is_method}",
        lambda spec: getattr(spec, attribute) is None or spec.method in methods,
        f"the options of {name} go with {'method' if is_one else 'methods'} {' and '.join(methods)} (got method {{method}});"
        " try leaving them out",
        field=name,
    )


OPTIONS_OF_METHOD = _options_of("lora", *LORA_METHODS)
DPO_OPTIONS = _options_of("dpo", "dpo")
P_TUNING_OPTIONS = _options_of("pTuning", "pTuning")
DPO_COMPARES_ANSWERS = rule(
    "self.method != 'dpo' || (self.dataset.format in ['auto', 'preference'] && !has(self.dataset.template)"
    " && self.dataset.lossOn == 'completion')",
    lambda spec: (
        spec.method != "dpo"
        or (
            spec.dataset.format in {"auto", "preference"}
            and spec.dataset.template is None
            and spec.dataset.loss_on == "completion"
        )
    ),
    "method dpo compares the answers in the columns chosen and rejected (got format {dataset.format}, lossOn"
    " {dataset.lossOn} or a template); try leaving format, lossOn and template out",
    field="dataset",
)
PREFERENCES_ARE_FOR_DPO = rule(
    "self.dataset.format != 'preference' || self.method == 'dpo'",
    lambda spec: spec.dataset.format != "preference" or spec.method == "dpo",
    "pairs of answers are learned by method dpo (got method {method}); try dpo, or another format",
    field="dataset.format",
)


def _sources(*names: str) -> tuple[Rule, Rule]:
    """The two rules of an object with exactly one of several sources: at least one, and at most one."""
    attributes = [attribute_of(name) for name in names]
    given = " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in names)
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    none, more = ("neither", "both") if len(names) == 2 else ("none", "several")  # noqa: PLR2004

    def count(source: Any) -> int:
        return sum(getattr(source, name) is not None for name in attributes)

    return (
        rule(
            f"{given} > 0",
            lambda source: count(source) > 0,
            f"one of {listed} is wanted (got {none}); try {names[0]}",
        ),
        rule(
            f"{given} < 2",
            lambda source: count(source) < 2,  # noqa: PLR2004
            f"only one of {listed} is wanted (got {more}); try removing {'one' if more == 'both' else 'all but one'}",
        ),
    )


NO_MODEL, TWO_MODELS = _sources("huggingFace", "pvc")
NO_DATA, TWO_DATA = _sources("huggingFace", "pvc", "s3", "http", "dataStore")
NO_ADAPTER, TWO_ADAPTERS = _sources("published", "pvc")
QUANTIZED_IS_FROZEN = rule(
    f"!has(self.model.quantization) || self.method in {list(LORA_METHODS)}",
    lambda spec: spec.model.quantization is None or spec.method in LORA_METHODS,
    "a base model in fewer bits stays as it is, so the method is lora or dpo (got {method}); try lora, or leave it out",
    field="model.quantization",
)
_NOT_DORA = "!has(self.lora) || !self.lora.dora"


def _has_dora(spec: Any) -> bool:
    return spec.lora is not None and bool(spec.lora.dora)


QUANTIZED_HAS_NO_DORA = rule(
    f"!has(self.model.quantization) || {_NOT_DORA}",
    lambda spec: spec.model.quantization is None or not _has_dora(spec),
    "lora.dora publishes a merged model, which needs a base model that is not quantized (got {model.quantization}); try"
    " leaving it out, or lora.dora: false",
    field="model.quantization",
)
ADAPTER_HAS_NO_DORA = rule(
    f"!has(self.model.adapter) || {_NOT_DORA}",
    lambda spec: spec.model.adapter is None or not _has_dora(spec),
    "an adapter that is continued is a LoRA without magnitudes (got lora.dora true); try lora.dora: false, or leave"
    " model.adapter out",
    field="model.adapter",
)
_NOT_FP8 = "!has(self.model.quantization) || self.model.quantization != 'fp8'"
FP8_IS_BF16 = rule(
    f"{_NOT_FP8} || self.training.precision != 'fp32'",
    lambda spec: spec.model.quantization != "fp8" or spec.training.precision != "fp32",
    "model.quantization fp8 rounds what is in bfloat16 (got {training.precision}); try bf16, or another quantization",
    field="training.precision",
)
FP8_IS_LORA = rule(
    f"{_NOT_FP8} || self.method == 'lora'",
    lambda spec: spec.model.quantization != "fp8" or spec.method == "lora",
    "model.quantization fp8 goes with method lora (got {method}); try nf4, or leaving it out",
    field="model.quantization",
)
FP8_HAS_NO_DROPOUT = rule(
    f"{_NOT_FP8} || !has(self.lora) || self.lora.dropout == 0.0",
    lambda spec: spec.model.quantization != "fp8" or spec.lora is None or spec.lora.dropout == 0,
    "model.quantization fp8 has no dropout in adapters (got {model.quantization} with some); try 0, or nf4",
    field="lora.dropout",
)
ADAPTER_IS_LORA = rule(
    "!has(self.model.adapter) || self.method == 'lora'",
    lambda spec: spec.model.adapter is None or spec.method == "lora",
    "an adapter is trained on by method lora (got {method}); try lora, or leave it out",
    field="model.adapter",
)
ONE_VALIDATION = _exclusive("validation", "validationFraction", field="validationFraction")
SOMETHING_TO_COMPARE_ON = rule(
    "!has(self.validationFraction) || self.validationFraction > 0.0 || has(self.validation) || has(self.test)",
    lambda dataset: (
        dataset.validation_fraction != 0 or dataset.validation is not None or dataset.test is not None
    ),
    "some records are needed to compare base and tuned model on (got 0 and no test split); try 0.05",
    field="validationFraction",
)
ONE_LENGTH = _exclusive("epochs", "maxSteps", field="maxSteps")
ONE_SERVER = rule(
    "(has(self.model) ? 1 : 0) + (has(self.endpoint) ? 1 : 0) + (self.disabled ? 1 : 0) < 2",
    lambda serve: (serve.model is not None) + (serve.endpoint is not None) + serve.disabled < 2,  # noqa: PLR2004
    "model, endpoint and disabled exclude each other (got several); try one",
)
TOLERATION_KEY = rule(
    "has(self.key) || self.operator == 'Exists'",
    lambda toleration: toleration.key is not None or toleration.operator == "Exists",
    "a toleration without key has operator Exists (got {operator}); try a key, or Exists",
)
TOLERATION_VALUE = rule(
    "!has(self.value) || self.operator == 'Equal'",
    lambda toleration: toleration.value is None or toleration.operator == "Equal",
    "operator Exists has no value (got {value}); try Equal, or leave value out",
    field="value",
)
JOB_NAME_LENGTH = rule(
    f"size(self.metadata.name) <= {MAX_JOB_NAME}",
    lambda job: len(job.metadata.name) <= MAX_JOB_NAME,
    f"the name of a job has at most {MAX_JOB_NAME} characters (got {{metadata.name}});"
    " try a shorter one, as names of pods are made of it",
    field="metadata.name",
)
JOB_NAME_LABEL = rule(
    f"self.metadata.name.matches('{DNS_LABEL}')",
    lambda job: re.fullmatch(DNS_LABEL, job.metadata.name) is not None,
    "the name of a job is lower case letters, digits and inner dashes (got {metadata.name});"
    " try dashes, as names of pods are made of it",
    field="metadata.name",
)
SERVICE_NAME = rule(
    "self.spec.parallelism.nodes == 1 || !self.metadata.name.matches('^[0-9]')",
    lambda job: job.spec.parallelism.nodes == 1 or not job.metadata.name[:1].isdigit(),
    "the name of a job on several nodes begins with a letter (got {metadata.name}); try a letter in front, as a"
    " Service is named after it",
    field="metadata.name",
)
RUNTIME_NAME = rule(
    f"self.metadata.name.matches('{DNS_LABEL}') && size(self.metadata.name) <= {MAX_LABEL}",
    lambda runtime: (
        re.fullmatch(DNS_LABEL, runtime.metadata.name) is not None and len(runtime.metadata.name) <= MAX_LABEL
    ),
    f"the name of a runtime is lower case letters, digits and inner dashes, at most {MAX_LABEL} (got {{metadata.name}});"
    " try dashes, as in `runtime.name` of a job",
    field="metadata.name",
)


def backoff_refusal(first: int, longest: int) -> str | None:
    """What is wrong with waits between attempts that begin at `first` seconds and end at `longest`, or None."""
    if longest >= first:
        return None
    return f"maxBackoffSeconds is at least backoffSeconds (got {longest} and {first}); try {first}"


BACKOFF_HAS_ROOM = Rule(
    # At spec, not at retry: a default of an object is checked before the defaults of its fields are there.
    cel="self.retry.maxBackoffSeconds >= self.retry.backoffSeconds",
    cel_message=(
        "'maxBackoffSeconds is at least backoffSeconds (got %d and %d); try %d'.format(["
        "self.retry.maxBackoffSeconds, self.retry.backoffSeconds, self.retry.backoffSeconds])"
    ),
    broken=lambda spec: backoff_refusal(spec.retry.backoff_seconds, spec.retry.max_backoff_seconds),
    sentence="maxBackoffSeconds is at least backoffSeconds",
    field="retry.maxBackoffSeconds",
)
ONE_WAY_TO_ASK_FOR_GPUS = _exclusive("acceleratorResource", "deviceClassName", field="deviceClassName")
CPU_LIMIT_IS_ENOUGH = rule(
    "!has(self.cpuLimit) || quantity(self.cpuLimit).compareTo(quantity(self.cpu)) >= 0",
    lambda stage: stage.cpu_limit is None or quantity_value(stage.cpu_limit) >= quantity_value(stage.cpu),
    "cpuLimit is at least cpu (got {cpuLimit} and {cpu}); try a higher cpuLimit, or a lower cpu",
    field="cpuLimit",
)


def cores_refusal(cores: float, limit: float) -> str | None:
    """What is wrong with a container that asks for `cores` and may use `limit`, or None."""
    if limit >= cores:
        return None
    return f"cpuLimitCores is at least cpuCores (got {limit:g} and {cores:g}); try {cores:g}"


CORES_WITHIN_LIMIT = Rule(
    cel="!has(self.cpuLimitCores) || !has(self.cpuCores) || self.cpuLimitCores >= self.cpuCores",
    cel_message=(
        "'cpuLimitCores is at least cpuCores (got %s and %s); try %s'.format(["
        "self.cpuLimitCores, self.cpuCores, self.cpuCores])"
    ),
    broken=lambda wishes: (
        None
        if wishes.cpu_limit_cores is None or wishes.cpu_cores is None
        else cores_refusal(wishes.cpu_cores, wishes.cpu_limit_cores)
    ),
    sentence="cpuLimitCores is at least cpuCores",
    field="cpuLimitCores",
)
FIXED_IMAGE = rule(
    f"self.image.matches('{_IMAGE}') && !self.image.endsWith(':latest')",
    lambda runtime: re.fullmatch(_IMAGE, runtime.image) is not None and not runtime.image.endswith(":latest"),
    "an image has a fixed tag or a digest (got {image}); try one with :<tag> or @sha256:<digest>",
    field="image",
)


def _is_key(key: str) -> str:
    return f"{key}.matches(r'{_LABEL_KEY}') && {key}.indexOf('/') <= {_MAX_DOMAIN}"


def is_label_key(key: str) -> bool:
    """Whether Kubernetes takes `key` as the key of a label, a taint or a toleration."""
    return re.fullmatch(_LABEL_KEY, key) is not None and key.find("/") <= _MAX_DOMAIN


_KEY = "a key has 1 to 63 letters, digits and inner dashes, dots and underscores, after a domain and a slash or alone"
_KEY_HINT = "try one such as nvidia.com/gpu"
TAINT_KEY = rule(_is_key("self"), is_label_key, f"{_KEY} (got {{self}}); {_KEY_HINT}")


def _keys(as_label: Callable[[str], str]) -> Rule:
    def broken(mapping: dict[str, str]) -> str | None:
        wrong = (key for key in mapping if not is_label_key(as_label(key)))
        return next((f"{_KEY} (got {key}); {_KEY_HINT}" for key in wrong), None)

    return Rule(
        cel=f"self.all(key, {_is_key('key')})",
        cel_message=f"'{_KEY} (got ' + self.filter(key, !({_is_key('key')}))[0] + '); {_KEY_HINT}'",
        broken=broken,
        sentence=_KEY,
    )


LABEL_KEYS = _keys(str)
ANNOTATION_KEYS = _keys(str.lower)
"""Kubernetes takes upper case in the domain of an annotation; never part of a CRD."""
MOUNTS_APART = rule(
    "self.all(mount, self.exists_one(other, other.mountPath == mount.mountPath))",
    lambda mounts: len({mount.mount_path for mount in mounts}) == len(mounts),
    "each claim has a mountPath of its own (got one twice); try another path",
)


def apart_from(places: Collection[str]) -> Rule:
    """The rule that a path is none of `places`, which every pod has already."""
    return rule(
        f"!(self in {sorted(places)})",
        lambda path: path not in places,
        "a path of the pod contract is taken (got {self}); try another one, such as /opt/environment",
    )


EXTENDED_RESOURCE = rule(
    f"self.matches(r'{_RESOURCE}') && !self.startsWith('requests.')",
    lambda name: re.fullmatch(_RESOURCE, name) is not None and not name.startswith("requests."),
    "an extended resource is a domain, a slash and a name (got {self}); try nvidia.com/gpu",
)
