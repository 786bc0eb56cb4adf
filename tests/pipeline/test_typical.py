"""Which of many tomograms a model is trained on."""

import numpy as np
import pytest
import torch
from conftest import Memory

from f2fd_core import fourier
from f2fd_core.pipeline.typical import features_of, outliers, typical


def tomogram(noise, signal, seed):
    """Smooth dark blobs in white noise."""
    generator = torch.Generator().manual_seed(seed)
    shape = (48, 48, 48)
    radius = fourier.radial_frequency(shape)
    power = torch.exp(-((radius / 0.05) ** 2))
    field = fourier.synthesise(power.sqrt(), shape, shape, 1, generator)[0]
    field = -torch.relu(field / field.std() - 0.5)
    values = signal * (field - field.mean()) / field.std()
    values += noise * torch.randn(shape, generator=generator)
    return Memory((values - values.mean()) / values.std())


def test_an_outlier_is_not_trained_on_and_named():
    """Among tomograms of one kind the one of noise alone stands out, and no other."""
    usual = [tomogram(1.0, 0.5 + 0.02 * seed, seed) for seed in range(7)]
    noise, like = tomogram(1.0, 0.0, 20), tomogram(1.0, 0.5, 33)
    for other, found in ((noise, [3]), (like, [])):
        features = [features_of(volume) for volume in [*usual[:3], other, *usual[3:]]]
        numbers = [one.number for one in typical(features)]
        assert len(set(numbers)) == 3 and (3 not in numbers or other is like)
        assert [number for number, _ in outliers(features)] == found


def test_the_chosen_are_the_middle_and_then_what_is_unlike():
    """Points on a line: the median first, then the ends of the inner four fifths."""
    features = [np.array([float(value)]) for value in (0, 1, 2, 3, 4, 5, 6, 7, 8, 100)]
    first, second, third = (one.number for one in typical(features))
    assert first in (4, 5) and {second, third} <= {0, 1, 7, 8} and abs(second - third) >= 6
    assert [one.number for one in typical(features[:2])] == [0, 1]
    # Copies teach nothing more.
    assert len(typical([np.ones(3)] * 5)) == 1


@pytest.mark.parametrize("factor", [1.0, 1e3])
def test_features_do_not_depend_on_units(factor):
    """They are of standardised voxels."""
    volume = tomogram(1.0, 0.5, 3)
    scaled = Memory(factor * volume.array / np.std(factor * volume.array))
    np.testing.assert_allclose(features_of(scaled), features_of(volume), rtol=1e-3, atol=1e-3)
