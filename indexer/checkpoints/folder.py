"""From a folder to the run that it holds: what wrote it is seen from its files."""

from pathlib import Path

from indexer.checkpoints.formats.huggingface import has_weights, read_trainer, trainer_checkpoints
from indexer.checkpoints.formats.lightning import lightning_files, read_lightning
from indexer.checkpoints.formats.lightning_file import is_lightning
from indexer.checkpoints.formats.listing import HISTORY, LISTING, read_listing
from indexer.checkpoints.formats.plain import plain_files, read_plain
from indexer.checkpoints.run import Run
from indexer.errors import CheckpointError

_ACCEPTED = (
    f"expected {LISTING}; checkpoint-N/ folders of Hugging Face's Trainer; *.ckpt of Lightning in it, in checkpoints/ "
    "or in lightning_logs/version_N/checkpoints/; or *.pt, *.pth, *.tar, *.bin, *.safetensors"
)


def open_run(folder: Path) -> Run:
    """Return the run in a folder; no weights are read yet.

    Raises:
        CheckpointError: there is no run, or one that cannot be read.
    """
    if not folder.is_dir():
        is_so = "is a file, and no folder" if folder.exists() else "does not exist"
        raise CheckpointError(f"{str(folder)!r} {is_so}; {_ACCEPTED}")
    if (folder / LISTING).is_file():
        return read_listing(folder)
    if trainer_checkpoints(folder):
        return read_trainer(folder)
    if has_weights(folder):
        raise CheckpointError(
            f"{str(folder)!r} is one checkpoint and no run; give the folder that its checkpoint-N/ folders are in, or "
            f"list its file in {LISTING}"
        )
    files = lightning_files(folder)
    if files and is_lightning(files[0]):
        return read_lightning(folder, files)
    if any(folder.glob(f"*{HISTORY}")):
        raise CheckpointError(
            f"{str(folder)!r} is a recording that has no checkpoint yet: {LISTING} is written with the first. Let the "
            "training go on or resume it; to read its files as they are, move those called *.history.safetensors away"
        )
    if plain_files(folder):
        return read_plain(folder)
    raise CheckpointError(f"{str(folder)!r} has no checkpoints; {_ACCEPTED}")
