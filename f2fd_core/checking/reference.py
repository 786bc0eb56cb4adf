"""What a network learns in short from a tomogram: what a model is compared with."""

from f2fd_core.training.start import take_initial_weights
from f2fd_core.training.state import Training
from f2fd_core.training.trainer import fit


def reference(volume, settings, device, dtype, step):
    """The pretrained network after the steps of ``settings``, see
    :func:`~f2fd_core.checking.start.settings_of`, on a standardised tomogram; ``step()`` is called
    after each."""
    training = Training(settings, [volume], [], device, dtype)
    take_initial_weights(training)
    fit(training, _Followed(step))
    network = training.model()
    best = training.last or training.best
    network.load_state_dict(best.model)
    return network.eval()


class _Followed:
    """Stands where a training's writer does, and writes nothing."""

    def __init__(self, step):
        self.step = step

    def after_step(self, row, seconds):
        self.step()
