"""The folder of a training: what an earlier run left, what may be resumed, and what ends a run."""

import contextlib
import glob
import os
import shutil

from f2fd_core.config import TrainConfig, UserError, brief, flag
from f2fd_core.runtime import files, lock

# Folders in a training's.
MASKS = "masks"
WEDGE_FOLDER = "wedge"
ROUNDS = 2
"""How often the network that fills the missing wedge goes on learning, each time from better
teachers, in a folder of its own: wedge/1, wedge/2."""
RESULTS = (
    "model.pt",
    "log.csv",
    "checkpoints",
    "previews",
    MASKS,
    WEDGE_FOLDER,
    "loss.png",
    "slices.png",
    "histogram.png",
    "spectrum.png",
)
STOP = "stop"
TRAINING_LOCK = "training"
SAME_INTENSITY = 1e-5
CHANGEABLE = (
    "tomograms",
    "half_maps",
    "ground_truth",
    "sampling_masks",
    "initial_model",
    "output",
    "voxel_size",
    "fill_wedge",
    "tilt_range",
    "steps",
    "epochs",
    "preset",
    "learning_rate",
    "stop_patience",
    "checkpoint_every",
    "resume",
    "overwrite",
    "device",
    "threads",
    "precision",
    "deterministic",
    "compile",
)
"""What a resumed run may change. Tomograms may have moved; their sizes are compared."""


def existing_results(config):
    """Names of what an earlier run left in the output folder.

    Raises UserError if there is something and neither resume nor overwrite is set.
    """
    present = [name for name in RESULTS if os.path.exists(os.path.join(config.output, name))]
    if present and not (config.resume or config.overwrite):
        raise UserError(
            f"{config.output} already holds a training ({', '.join(present)}); "
            "expected an empty folder, --resume to continue it or --overwrite to "
            "replace it"
        )
    return present


@contextlib.contextmanager
def exclusive_run(config):
    """Create the output folder and let no other run into it while the context lasts.

    Raises UserError if that can't be done or another run is there.
    """
    files.make_folder(config.output)
    with lock.held(os.path.join(config.output, TRAINING_LOCK)):
        yield


def prepare_folder(config):
    """Refuse or clear what an earlier run left in the output folder; create what is missing.

    Raises UserError if it can't be written or holds results, see :func:`existing_results`, or
    volumes that the training reads.
    """
    files.make_folder(config.output)
    present = existing_results(config)
    files.refuse_inputs(
        [os.path.join(config.output, name) for name in RESULTS],
        (
            *config.tomograms,
            *config.half_maps,
            *config.ground_truth,
            *(() if config.finds_specimen() else config.sampling_masks),
        ),
    )
    if config.overwrite:
        for name in present:
            path = os.path.join(config.output, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    withdraw_stop(config.output)
    for name in ("checkpoints", "previews"):
        os.makedirs(os.path.join(config.output, name), exist_ok=True)
    for pattern in [*RESULTS, "train.json", "checkpoints/step_*", "previews/step_*"]:
        files.sweep(os.path.join(glob.escape(config.output), pattern))


def model_in(output):
    """The model of a training in the folder ``output``."""
    return os.path.join(output, "model.pt")


def wedge_folder(output, number):
    """Where a training in the folder ``output`` learns to fill the missing wedge, in the round of
    this ``number``."""
    return os.path.join(output, WEDGE_FOLDER, str(number))


def stop_file(output):
    """The file whose presence ends a training after its step, with a model, and all trainings that
    would follow it."""
    return os.path.join(output, STOP)


def withdraw_stop(output):
    """Remove the :func:`stop_file`, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(stop_file(output))


def write_settings(config):
    """Write train.json, the full configuration, into the output folder."""
    path = os.path.join(config.output, "train.json")
    with files.replaced(path) as partial, open(partial, "w", encoding="utf-8") as stream:
        stream.write(config.to_json())


def scales(volumes):
    """By which tomograms are known again: [[mean, standard deviation]]."""
    return [[float(value) for value in volume.scale] for volume in volumes]


def check_settings(earlier, config, path):
    """Refuse to resume with settings with which the training of ``earlier``, the TrainConfig in
    ``path``, can't go on; raises UserError. ``config``: a TrainConfig, or what it is made of."""
    for name in config.to_dict():
        value = getattr(config, name)
        if name not in CHANGEABLE and getattr(earlier, name, value) != value:
            raise UserError(
                f"{flag(name)} is {value}; expected {getattr(earlier, name)} as in {path}, from "
                "which the training resumes"
            )


def check_resumable(state, config, volumes, path):
    """Refuse to resume with settings, or on tomograms, with which the checkpoint's training can't
    go on.

    Returns the checkpoint's TrainConfig.
    """
    shapes = [list(volume.shape) for volume in volumes]
    earlier = TrainConfig.create(state["config"])
    check_settings(earlier, config, path)
    if shapes != state["shapes"]:
        raise UserError(
            f"the tomograms have shapes {brief(shapes)}; expected "
            f"{brief(state['shapes'])} as in {path}, from which the training resumes"
        )
    # Checkpoints of older versions have none, or others in another place.
    for volume, found, known in zip(volumes, scales(volumes), state.get("scales", [])):
        if max(abs(one - other) for one, other in zip(found, known)) > SAME_INTENSITY * known[1]:
            raise UserError(
                f"{volume.source.path} has mean {found[0]:g} and standard deviation "
                f"{found[1]:g}; expected {known[0]:g} and {known[1]:g} as in {path}, "
                "from which the training resumes"
            )
    return earlier
