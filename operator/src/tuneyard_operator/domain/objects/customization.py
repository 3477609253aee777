# SPDX-License-Identifier: Apache-2.0
"""The customization job of an attempt, for NeMo microservices of generation v1.

Every name follows from the FineTuneJob, or from the content, so that what was made before a crash is found again.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tuneyard_api import names
from tuneyard_api.customizer import Customizer, CustomizerModel
from tuneyard_api.customizer_refusals import WAYS

from tuneyard_operator.domain.customizations import Entity, Order
from tuneyard_operator.domain.frozen import Frozen
from tuneyard_operator.domain.objects.metadata import Owner

_OPTIMIZERS = {"cosine": "adamw_with_cosine_annealing", "constant": "adamw_with_flat_lr"}
_PRECISIONS = {"bf16": "bf16-mixed", "fp32": "fp32"}
_DIGITS = 12


def output_model(owner: Owner, frozen: Frozen, attempt: int) -> str:
    """`namespace/name@version` of the model that an attempt leaves; no other attempt or FineTuneJob has the same."""
    version = names.customization_name(owner.name, owner.uid, attempt).removeprefix(f"{owner.name}-")
    return f"{owner.namespace}/{frozen.plan.resolved.adapter_name}@{version}"


def build_order(owner: Owner, frozen: Frozen, attempt: int, micro_batch: int | None = None) -> Order:
    """The customization of an attempt (from 1); `micro_batch` replaces the planned one."""
    service, model = _service(frozen)
    resolved, dataset = frozen.plan.resolved, names.dataset_name(owner.name, owner.uid)
    files = f"hf://datasets/{resolved.uploads_to}"
    fields = {"tuneyard.io/uid": owner.uid, "tuneyard.io/plan-digest": frozen.plan.digest}
    config = _config(frozen, model, micro_batch)
    config_name = f"tuneyard-{_digest(config)}"
    name = names.customization_name(owner.name, owner.uid, attempt)
    space = {"namespace": owner.namespace}
    needs = (
        Entity(
            "Entity Store", service.entity_store, "/v1/namespaces", owner.namespace, {"id": owner.namespace}
        ),
        Entity(
            "Entity Store",
            service.entity_store,
            "/v1/datasets",
            f"{owner.namespace}/{dataset}",
            {**space, "name": dataset, "files_url": files, "custom_fields": fields},
        ),
        _target(service, model),
        Entity(
            "Customizer",
            service.endpoint,
            "/v1/customization/configs",
            f"{owner.namespace}/{config_name}",
            {**space, "name": config_name, **config},
        ),
    )
    body = {
        **space,
        "name": name,
        "config": f"{owner.namespace}/{config_name}",
        "dataset": {**space, "name": dataset, "files_url": files},
        "hyperparameters": hyperparameters(frozen),
        "output_model": output_model(owner, frozen, attempt),
        "custom_fields": fields,
    }
    return Order(service.endpoint, name, needs, body)


def hyperparameters(frozen: Frozen) -> dict[str, Any]:
    """The optimisation in the service's words; what it has no words for was refused with the plan."""
    job = frozen.plan.resolved
    training = job.training
    training_type, finetuning_type = WAYS[job.method]
    wanted: dict[str, Any] = {
        "training_type": training_type,
        "finetuning_type": finetuning_type,
        "batch_size": training.global_batch_size,
        "learning_rate": training.learning_rate,
        "optimizer": _OPTIMIZERS[training.schedule],
        "warmup_steps": training.warmup_steps,
        "weight_decay": training.weight_decay,
        "seed": training.seed,
        "sequence_packing_enabled": training.packing and job.method != "dpo",
    }
    if training.max_steps is not None:
        wanted["max_steps"] = training.max_steps
    else:
        wanted["epochs"] = int(training.epochs or 1)
    if finetuning_type == "lora":
        lora = job.lora
        wanted["lora"] = {"adapter_dim": lora.rank, "alpha": lora.alpha, "adapter_dropout": lora.dropout}
    if job.dpo is not None:
        wanted["dpo"] = {"ref_policy_kl_penalty": job.dpo.beta, "max_grad_norm": training.max_grad_norm}
    return wanted


def _config(frozen: Frozen, model: CustomizerModel, micro_batch: int | None) -> dict[str, Any]:
    """Model, length and GPUs, without a name; prompt and completion stand as the prepare pod has written them."""
    job = frozen.plan.resolved
    training_type, finetuning_type = WAYS[job.method]
    option = {
        "training_type": training_type,
        "finetuning_type": finetuning_type,
        "num_gpus": job.gpus_per_node,
        "num_nodes": job.nodes,
        "micro_batch_size": micro_batch or job.training.micro_batch_size,
    }
    config: dict[str, Any] = {
        "target": model.target,
        "max_seq_length": job.training.max_sequence_length,
        "prompt_template": "{prompt}{completion}",
        "training_options": [option],
    }
    precision = _PRECISIONS.get(job.training.precision)
    return {**config, "training_precision": precision} if precision else config


def _target(service: Customizer, model: CustomizerModel) -> Entity:
    namespace, _, name = model.target.partition("/")
    body: dict[str, Any] | None = None
    if model.create is not None:
        new = model.create
        body = {"namespace": namespace, "name": name, "enabled": True, "model_uri": new.model_uri}
        body |= {"num_parameters": new.parameters, "precision": new.precision or "bf16-mixed"}
    return Entity("Customizer", service.endpoint, "/v1/customization/targets", model.target, body)


def _service(frozen: Frozen) -> tuple[Customizer, CustomizerModel]:
    service = frozen.runtime.customizer
    model = service.model_of(frozen.plan.model) if service is not None else None
    if service is None or model is None:
        raise AssertionError("a plan without a service or its model is not accepted")
    return service, model


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:_DIGITS]
