# SPDX-License-Identifier: Apache-2.0
"""FineTuneJobs in git: an Application, and its project, for each namespace with a folder of jobs.

A job is work, not part of the platform, so its Application differs from all others: it follows its folder by itself,
as nothing waits for it; it never deletes a job, which would take the outcome with it; and its health is its own, so
that a failed training does not make the platform look ill.
"""

from tuneyard_api.names import GROUP, JOB_KIND, LABEL_MANAGED_BY

from tuneyard.environment.model import Environment
from tuneyard.environment.tuning import TuningNamespace
from tuneyard.render.applications import WAVE, build_follower, project_name
from tuneyard.stack.model import Json

DEFAULTS_IN_LISTS = {
    "group": GROUP,
    "kind": JOB_KIND,
    "jqPathExpressions": [".spec.scheduling.tolerations[]?.operator"],
}
"""Fields inside of lists that the API server fills in. Argo CD compares a list as a whole (structured merge), so that a
job without them would be OutOfSync for ever. Its server-side diff knows them, but one job that the API server refuses
then stops the comparison of them all."""
IGNORE_HEALTH = "argocd.argoproj.io/ignore-healthcheck"


def build_jobs(environment: Environment, namespace: TuningNamespace, wave: int) -> dict[str, Json]:
    """The project and the Application of a namespace's jobs, by the names of their files; `wave` is the last one.

    Whoever commits to the folder can create FineTuneJobs in this namespace, and nothing else.
    """
    name = f"jobs-{namespace.name}"
    project = f"{project_name(environment)}-{name}"
    destination = {"server": environment.cluster.server, "namespace": namespace.name}
    application = build_follower(
        environment,
        name,
        wave,
        project=project,
        source={"path": namespace.jobs_folder, "directory": {"recurse": True}},
        destination=destination,
        prune=False,
    )
    application["metadata"]["annotations"][IGNORE_HEALTH] = "true"
    application["spec"]["ignoreDifferences"] = [dict(DEFAULTS_IN_LISTS)]
    return {f"{name}-project": _project(environment, project, destination, wave - 1), name: application}


def _project(environment: Environment, name: str, destination: Json, wave: int) -> Json:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AppProject",
        "metadata": {
            "name": name,
            "namespace": environment.argocd.namespace,
            "labels": {LABEL_MANAGED_BY: "tuneyard"},
            "annotations": {WAVE: str(wave)},
        },
        "spec": {
            "description": f"FineTuneJobs of {destination['namespace']} in git",
            "sourceRepos": [environment.argocd.repo_url],
            "destinations": [destination],
            "namespaceResourceWhitelist": [{"group": GROUP, "kind": JOB_KIND}],
        },
    }
