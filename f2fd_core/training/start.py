"""The weights that a training starts from."""

from f2fd_core.config import PRETRAINED, UserError
from f2fd_core.network import checkpoint
from f2fd_core.training.trainer import validation_of


def take_initial_weights(training):
    """Take over the weights that the configuration of a
    :class:`~f2fd_core.training.state.Training` names.

    Returns the voxel size (Å) at which the initial model was trained, None without one. Raises
    UserError if its network is another one.
    """
    if training.config.initial_model:
        return _load(training, training.config.initial_model)
    if training.config.starts_pretrained():
        _load(training, PRETRAINED)
        _choose_contrast(training)
    return None


def _networks(training):
    return {training.network, training.model()}


def _load(training, path):
    """Load the weights of a model file; returns the voxel size (Å) of its training."""
    state = checkpoint.load(path)
    network, trained = checkpoint.restore(state, path)
    config = training.config
    for name, here, there in (
        ("network", config.network, trained.network),
        ("features", config.network_features(), trained.network_features()),
    ):
        if here != there:
            raise UserError(f"--{name} is {here}; expected {there} as in the initial model {path}")
    for own in _networks(training):
        own.load_state_dict(network.state_dict())
    return state["voxel_size"]


def _choose_contrast(training):
    """Invert the network if it has the lower loss then: it has learned from dark matter only, and
    in these tomograms matter may be bright."""
    losses = []
    for _ in range(2):
        losses.append(validation_of(training, everywhere=True).loss)
        _invert(training)
    dark, bright = losses
    if bright < dark:
        _invert(training)


def _invert(training):
    for own in _networks(training):
        own.invert()
