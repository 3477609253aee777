# SPDX-License-Identifier: Apache-2.0
"""The command `tuneyard-trainer`: one stage as a pod runs it, or all of them on this machine."""

import os
import sys
from pathlib import Path

import click
from tuneyard_api.pod_contract import Stage

from tuneyard_trainer.pod.environment import PodEnvironment


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tuneyard-trainer")
def main() -> None:
    """Run the stages of a FineTuneJob, in a pod or without a cluster."""


@main.command()
@click.argument("stage", type=click.Choice([stage.value for stage in Stage]))
def stage(stage: str) -> None:
    """Run one stage, as a pod does.

    The TUNEYARD_* variables of the pod contract give the paths.
    """
    from tuneyard_trainer.run_stage import run_stage  # noqa: PLC0415  only what is run is imported

    if stage == Stage.PREPARE:
        from tuneyard_data.pretrained import hide_pytorch  # noqa: PLC0415  only what is run is imported

        # Where PyTorch is found, transformers imports it to read a tokenizer: 6 s and 600 MB more (5.23).
        hide_pytorch()
    sys.exit(run_stage(Stage(stage), PodEnvironment.of(os.environ)))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--uid", required=True, help="uid of the FineTuneJob; what other jobs published is kept.")
def unpublish(folder: Path, uid: str) -> None:
    """Remove an adapter that one job published.

    FOLDER is <registry>/<adapter name>.
    """
    from tuneyard_trainer.stages.unpublish import run_unpublish  # noqa: PLC0415

    sys.exit(run_unpublish(folder, uid, PodEnvironment.of(os.environ).termination_log))


@main.command()
@click.argument("place")
@click.argument("name")
@click.argument("digest")
def pack(place: str, name: str, digest: str) -> None:
    """Write a version of a registry in S3 to standard output, as tar.

    PLACE is an S3Prefix as JSON; the credentials are those of the environment.
    """
    from tuneyard_api.places import S3Prefix  # noqa: PLC0415  only what is run is imported

    from tuneyard_trainer.pod.failures import StageFailure  # noqa: PLC0415
    from tuneyard_trainer.registry.bucket import BucketRegistry  # noqa: PLC0415

    try:
        registry = BucketRegistry.of(S3Prefix.model_validate_json(place), os.environ, Path())
        registry.pack(name, digest, sys.stdout.buffer)
    except StageFailure as failure:
        raise click.ClickException(str(failure)) from None


@main.command()
@click.argument("job_file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--workspace",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to work in [./<job>-workspace].",
)
@click.option(
    "--registry",
    type=click.Path(file_okay=False, path_type=Path),
    help="Adapter registry [<workspace>/registry].",
)
@click.option(
    "--runtime",
    "runtime_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="FineTuneRuntime file [a built-in runtime for CPU].",
)
@click.option(
    "--claim",
    "claims",
    multiple=True,
    metavar="NAME=FOLDER",
    help="Folder to use as a PersistentVolumeClaim; repeatable.",
)
def run(
    job_file: Path,
    workspace: Path | None,
    registry: Path | None,
    runtime_file: Path | None,
    claims: tuple[str, ...],
) -> None:
    """Run all stages of a job on this machine.

    JOB_FILE is a FineTuneJob. A cluster is not needed.
    """
    from tuneyard_trainer.local_run import run_locally  # noqa: PLC0415

    sys.exit(run_locally(job_file, workspace, registry, runtime_file, claims))


if __name__ == "__main__":
    main()
