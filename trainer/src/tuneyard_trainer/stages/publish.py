# SPDX-License-Identifier: Apache-2.0
"""The stage `publish` puts the adapter, or the model of a full fine-tuning, into the registry, atomically and once.

`<registry>/<name>/` holds what PEFT, NIM and vLLM read: adapter_config.json and adapter_model.safetensors, or the
files of a model. Beside them, as on a hub, are README.md and its picture, and who published it (`registry.publishers`). A name that is taken by another digest is
never overwritten.
"""

import errno
import shutil
from pathlib import Path

from tuneyard_api import durable
from tuneyard_api.pod_contract import ADAPTER_FILES, FailureClass, PublishFacts, Stage, published_digest

from tuneyard_trainer.pod.context import StageContext
from tuneyard_trainer.pod.failures import StageFailure, bad_input
from tuneyard_trainer.pod.results import earlier_success
from tuneyard_trainer.registry.card import PICTURE, draw_loss_curve, render_card
from tuneyard_trainer.registry.publishers import sign, sign_too
from tuneyard_trainer.workspace.layout import METRICS, is_model_file, tuned_folder


def publish(context: StageContext) -> PublishFacts:
    """Runs the stage; published before with the same digest counts as done.

    Raises:
        StageFailure: AdapterConflict, if the name is taken by another adapter; BadInput, if nothing is trained.
    """
    context.board.update(phase="publishing")
    trained = earlier_success(context.workspace, Stage.TRAIN, context.plan_digest)
    source = tuned_folder(context.workspace, context.job)
    if trained is None or not tuned_files(source):
        raise bad_input(f"{source}: there is nothing finished of this plan; run stage train first")
    digest = tuned_digest(source)
    target = Path(context.job.registry_path) / context.job.adapter_name
    if not _is_published_too(target, digest, context.job.uid):
        try:
            with durable.folder_being_written(target) as folder:
                sign(folder, context.job.uid)
                for name in tuned_files(source):
                    shutil.copyfile(source / name, folder / name)
                has_picture = draw_loss_curve(context.workspace / METRICS, folder / PICTURE)
                card = render_card(context, trained, digest, has_picture=has_picture)
                (folder / "README.md").write_text(card, encoding="utf-8")
        except OSError as error:
            # Another publisher was quicker: then it must have been the same.
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST} or not _is_published_too(
                target, digest, context.job.uid
            ):
                raise
    return PublishFacts(
        adapter_name=context.job.adapter_name,
        digest=digest,
        path=str(target),
        size_bytes=sum((target / name).stat().st_size for name in tuned_files(target)),
    )


def tuned_files(folder: Path) -> list[str]:
    """Names of the files that make up an adapter or a model, sorted; none if it is not whole."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if set(ADAPTER_FILES) <= set(names):
        return sorted(ADAPTER_FILES)
    files = [name for name in names if is_model_file(name)]
    is_whole = "config.json" in files and any(name.endswith(".safetensors") for name in files)
    return files if is_whole else []


def tuned_digest(folder: Path) -> str:
    """The digest of the adapter or model in a folder."""
    return published_digest(folder, tuned_files(folder))


def _is_published_too(target: Path, digest: str, uid: str) -> bool:
    """Whether `target` is this very adapter; then it is this job's as well.

    Raises:
        StageFailure: AdapterConflict, if something else is there.
    """
    try:
        if not _is_published(target, digest):
            return False
        sign_too(target, uid)
    except FileNotFoundError:
        return False  # its other publisher is just taking it back
    return True


def _is_published(target: Path, digest: str) -> bool:
    """Whether `target` is this very adapter; False if nothing is there.

    Raises:
        StageFailure: AdapterConflict, if something else is there.
    """
    if not target.exists():
        return False
    found = tuned_digest(target) if tuned_files(target) else "no whole adapter"
    if found == digest:
        return True
    raise StageFailure(
        FailureClass.ADAPTER_CONFLICT,
        f"{target}: the name is taken by another adapter (got {digest}, there is {found}); try another"
        " publish.adapterName, or remove the old adapter if nothing serves it",
    )
