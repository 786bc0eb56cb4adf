"""The pretrained network, and the settings with which it learns in short from a tomogram."""

from f2fd_core.config import PRETRAINED, TrainConfig
from f2fd_core.network.checkpoint import load, restore
from f2fd_core.training.contrast import is_opposite

# As few as a training has that ends by itself: what is learned later is less than what an estimate
# without a truth can show.
STEPS = 60


def settings_of(config, folder):
    """The TrainConfig of a short training for a CheckConfig or another; ``folder``: its output,
    where nothing is written."""
    return TrainConfig(
        output=folder,
        steps=STEPS,
        seed=config.seed,
        device=config.device,
        precision=config.precision,
    )


def start_of(volume, settings, device, dtype):
    """The pretrained network, in the contrast of a standardised tomogram."""
    network = restore(load(PRETRAINED), PRETRAINED)[0].to(device)
    if is_opposite(network, volume, settings, device, dtype):
        network.invert()
    return network
