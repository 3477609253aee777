# SPDX-License-Identifier: Apache-2.0
"""All WorkflowTemplates that one namespace of jobs gets."""

from tuneyard_workflows.fine_tune import build_fine_tune
from tuneyard_workflows.form import Json, Offer
from tuneyard_workflows.pipeline import build_pipeline
from tuneyard_workflows.stages import build_stages
from tuneyard_workflows.sweep import build_sweep


def build_templates(offer: Offer) -> list[Json]:
    """The WorkflowTemplates of a namespace. The pipeline moves a name, which not every registry lets it."""
    pipeline = [build_pipeline(offer)] if offer.promotes else []
    return [build_fine_tune(offer), build_sweep(offer), *pipeline, *build_stages(offer)]
