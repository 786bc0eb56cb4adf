"""Going on with a training from a checkpoint."""

import os

from f2fd_core.config import UserError
from f2fd_core.network import checkpoint
from f2fd_core.runtime import console
from f2fd_core.runtime.run_folder import check_resumable, model_in


def resume(training):
    """Bring a :class:`~f2fd_core.training.state.Training` to the newest checkpoint of its folder,
    if there is one. Raises UserError if it can't go on from that."""
    path, state = checkpoint.newest(training.checkpoints, console.warn)
    if state is None:
        model = model_in(training.config.output)
        if os.path.exists(model):
            raise UserError(
                f"{model} is there, but no checkpoint to resume from; expected one, "
                "or --overwrite to start again"
            )
        console.say(f"no checkpoint in {training.config.output} yet: starting from the beginning")
        return
    if "network" not in state:
        raise UserError(
            f"{path} was written by an older F2Fd, from which a training can't be "
            "resumed; expected --overwrite, or it as the --initial-model"
        )
    try:
        earlier = check_resumable(state, training.config, training.volumes, path)
        training.load_state_dict(state, earlier)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{path} is damaged: it is not the state of a training "
            f"({(str(error).splitlines() or [type(error).__name__])[0]})"
        )
    console.say(f"resuming from {path}")
