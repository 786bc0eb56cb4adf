"""What is said of a missing wedge, by networks whose worth is known."""

import numpy as np
import pytest
import torch
from conftest import Memory, synthesised

from f2fd_core.checking.wedge import examine_wedge, predictions
from f2fd_core.data.regions import crop
from f2fd_core.filters import wedge
from f2fd_core.perturbation.base import Perturbation

SHAPE = (60, 64, 72)
TILTS = (-60.0, 60.0)


def noise_power(k):
    return 0.02 + 0 * k


class White:
    """White noise of a known power, as a NoiseModel gives it."""

    def sample(self, start, size, count, random, device):
        values = torch.randn((count, *size), generator=random.device)
        return values * noise_power(torch.zeros(())) ** 0.5


class Knowing:
    """A network that knows the signal, whatever it is shown, with an error of its own; of what is
    ``added`` to a tomogram it makes the share ``passed``, and of all else nothing."""

    def __init__(self, volume, signal, error=0.0, passed=0.0, made_of_noise=0.0):
        self.perturbation = Perturbation(volume, None)
        self.signal, self.error = signal, error
        self.passed, self.made_of_noise = passed, made_of_noise

    def once(self):
        return self

    def volume_of(self, box):
        return self.perturbation.volume.region(*box).ravel()

    def without_context(self, box, added=None, tomogram=True):
        values = crop(self.signal, *box)
        if not tomogram and abs(np.corrcoef(added.ravel(), self.volume_of(box))[0, 1]) < 0.1:
            return self.made_of_noise * values
        if tomogram and added is not None:
            values = values + self.passed * added
        random = np.random.default_rng(0)
        return (values + self.error * random.normal(size=values.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def known():
    """(volume, signal): what tilts show of a signal, with noise; and the signal itself."""
    signal = synthesised(lambda k: 8 * torch.exp(-((k / 0.1) ** 2)), SHAPE, 1)
    shown = wedge.part(signal, wedge.measured(SHAPE[0], SHAPE[2], TILTS))
    volume = Memory((shown + synthesised(noise_power, SHAPE, 2)).numpy())
    volume.voxel_size = 10.0
    return volume, signal.numpy()


def examined(known, **traits):
    volume, signal = known
    filler = Knowing(volume, signal, **traits)
    steps = []
    found, planes = examine_wedge(
        filler, Knowing(volume, signal), White(), TILTS, -1.0, 0, lambda: steps.append(1)
    )
    assert len(steps) == predictions(volume)
    return found, planes


def test_who_knows_what_was_hidden_is_believed(known):
    found, planes = examined(known)
    curve = np.array([np.nan if one is None else one for one in found["fsc"]])
    assert found["mean"] > 0.95
    # Where hardly any signal is, nothing is said.
    frequency = np.array(found["frequency"]) * 10.0
    assert curve[frequency < 0.2].min() > 0.9
    assert np.isnan(curve[frequency > 0.35]).all() and not np.isnan(curve[frequency < 0.1]).any()
    assert found["invented"] == 0
    assert planes["filled"].shape == planes["tomogram"].shape == (SHAPE[0], SHAPE[2])


def test_the_correlation_is_that_with_the_signal_and_not_with_the_noisy_tomogram(known):
    """An error as large as the signal in some shells brings theirs to the root of a half."""
    found, _ = examined(known, error=1.0)
    expected = [
        (power / (power + 1.0)) ** 0.5
        for power in 8 * np.exp(-((np.array(found["frequency"]) * 100) ** 2))
    ]
    for one, other, frequency in zip(found["fsc"], expected, found["frequency"]):
        if one is not None and 0.004 < frequency < 0.02:
            assert one == pytest.approx(other, abs=0.12)


def test_who_knows_something_else_is_not(known):
    volume, signal = known
    found, _ = examined((volume, synthesised(lambda k: 1 + 0 * k, SHAPE, 5).numpy()))
    assert abs(found["mean"]) < 0.2
    opposite, _ = examined((volume, -signal))
    assert opposite["mean"] < -0.9


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_what_noise_alone_makes_is_reported(known, share):
    found, _ = examined(known, made_of_noise=share)
    assert found["invented"] == pytest.approx(share, abs=0.02)


def test_what_of_a_planted_structure_is_found_is_only_what_no_tilt_shows(known):
    """A network that leaves what it is shown as it is finds nothing in the wedge."""
    found, _ = examined(known, passed=1.0)
    assert found["planted"] and all(abs(value) < 0.05 for value in found["planted"].values())
