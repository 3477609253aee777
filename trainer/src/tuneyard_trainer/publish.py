# SPDX-License-Identifier: Apache-2.0
"""The stage `publish`: the adapter appears in the registry, whole and once.

`<registry>/<adapter>/` holds what PEFT, NIM and vLLM read, adapter_config.json and adapter_model.safetensors, and
beside them, as in any adapter from a hub, README.md and its picture. A name that is taken by another digest is
never overwritten.
"""

import errno
import hashlib
import shutil
from pathlib import Path

from tuneyard_api.pod_contract import FailureClass, PublishFacts, Stage

from tuneyard_trainer import durable
from tuneyard_trainer.card import PICTURE, draw_loss_curve, render_card
from tuneyard_trainer.failures import StageFailure, bad_input
from tuneyard_trainer.layout import ADAPTER, ADAPTER_FILES, METRICS
from tuneyard_trainer.results import earlier_success
from tuneyard_trainer.stages import StageContext


def publish(context: StageContext) -> PublishFacts:
    """Runs the stage; published before with the same digest counts as done.

    Raises:
        StageFailure: AdapterConflict, if the name is taken by another adapter; BadInput, if nothing is trained.
    """
    context.board.update(phase="publishing")
    trained = earlier_success(context.workspace, Stage.TRAIN, context.plan_digest)
    source = context.workspace / ADAPTER
    if trained is None or not all((source / name).is_file() for name in ADAPTER_FILES):
        raise bad_input(f"{source}: there is no finished adapter of this plan; run stage train first")
    digest = adapter_digest(source)
    target = Path(context.job.registry_path) / context.job.adapter_name
    if not _is_published(target, digest):
        try:
            with durable.folder_being_written(target) as folder:
                for name in ADAPTER_FILES:
                    shutil.copyfile(source / name, folder / name)
                has_picture = draw_loss_curve(context.workspace / METRICS, folder / PICTURE)
                card = render_card(context, trained, digest, has_picture=has_picture)
                (folder / "README.md").write_text(card, encoding="utf-8")
        except OSError as error:
            # Another publisher was quicker: then it must have been the same adapter.
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST} or not _is_published(target, digest):
                raise
    return PublishFacts(
        adapter_name=context.job.adapter_name,
        digest=digest,
        path=str(target),
        size_bytes=sum((target / name).stat().st_size for name in ADAPTER_FILES),
    )


def adapter_digest(folder: Path) -> str:
    """`sha256:` over name, length and content of each of the adapter's files, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(ADAPTER_FILES):
        digest.update(f"{name}\0{(folder / name).stat().st_size}\0".encode())
        with (folder / name).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _is_published(target: Path, digest: str) -> bool:
    """Whether `target` is this very adapter; False if nothing is there.

    Raises:
        StageFailure: AdapterConflict, if something else is there.
    """
    if not target.exists():
        return False
    whole = all((target / name).is_file() for name in ADAPTER_FILES)
    found = adapter_digest(target) if whole else "no whole adapter"
    if found == digest:
        return True
    raise StageFailure(
        FailureClass.ADAPTER_CONFLICT,
        f"{target}: the name is taken by another adapter (got {digest}, there is {found}); try another"
        " publish.adapterName, or remove the old adapter if nothing serves it",
    )
