"""How tomograms lie, and that the result does not depend on it."""

from itertools import permutations

import numpy as np
import pytest
import torch
from conftest import Memory, data, noise_if_known

from f2fd_core import DenoiseConfig, SimulateConfig, TrainConfig, denoise, fourier
from f2fd_core.commands.inputs import open_volumes
from f2fd_core.data import mrc
from f2fd_core.data.batches import batch_of
from f2fd_core.data.orientation import back, turned
from f2fd_core.data.patches import all_patches
from f2fd_core.noise import NoiseSettings, axes_of_volume
from f2fd_core.noise.orientation import tilt_axis_angle
from f2fd_core.noise.spectrum import without_signal_near_axis
from f2fd_core.perturbation.base import Pairs
from f2fd_core.simulation.microscope import simulate_volumes
from f2fd_core.training.validation import ValidationCubes

ORDERS = list(permutations(range(3)))


def lying(array, axes):
    """A volume whose depth, tilt axis and direction across lie along ``axes``."""
    return np.ascontiguousarray(array.transpose(back(axes)))


@pytest.mark.parametrize("axes", ORDERS)
def test_the_missing_wedge_shows_how_a_volume_lies(axes, small):
    assert axes_of_volume(Memory(lying(data(small["tomogram"]), axes))) == axes


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2, 1), (1, 0, 2)])
@pytest.mark.parametrize(
    "change",
    (
        dict(sirt_iterations=10),
        dict(reconstruction="insertion"),
        dict(specimen="empty", tilt_range=(-50.0, 65.0)),
        dict(thickness=80, tilt_range=57.0),
    ),
)
def test_whatever_the_reconstruction(axes, change):
    volume = simulate_volumes(SimulateConfig(shape=(32, 64, 64), snr=0.3, seed=3, **change))
    assert axes_of_volume(Memory(lying(volume["tomogram"], axes))) == axes


@pytest.mark.slow
def test_real_tomograms_lie_as_expected(real_data):
    for path in [*real_data.glob("microtubule_*.mrc"), *real_data.glob("lamella/box*_all.mrc")]:
        (volume,) = open_volumes(TrainConfig(tomograms=(str(path),)))
        assert volume.axes == (0, 1, 2) and volume.orientation() == ""


def test_volumes_without_a_missing_wedge_show_nothing(write, capsys):
    noise = np.random.default_rng(0).normal(size=(24, 40, 32)).astype(np.float32)
    assert axes_of_volume(Memory(noise)) is None
    open_volumes(TrainConfig(tomograms=(write(noise),)))
    assert capsys.readouterr().err == ""
    (volume,) = open_volumes(TrainConfig(tomograms=(write(noise.transpose(1, 0, 2), "deep.mrc"),)))
    assert volume.axes == (0, 1, 2)
    assert (
        "deep.mrc has 40 x 24 x 32 voxels (Z, Y, X), and its spectrum has no missing wedge"
        in capsys.readouterr().err
    )


def test_turning_and_turning_back():
    volume = torch.randn(2, 3, 4, 5)
    for axes in ORDERS:
        assert torch.equal(turned(turned(volume, axes), back(axes)), volume)
        np.testing.assert_array_equal(lying(turned(volume[0], axes).numpy(), axes), volume[0])


@pytest.mark.parametrize("size", [(6, 8, 10), (5, 7, 9), (6, 7, 8)])
def test_power_is_turned_like_its_volume(size):
    volume = torch.randn(size)
    for axes in ORDERS:
        power, turned_size = fourier.turned_power(torch.fft.rfftn(volume).abs() ** 2, size, axes)
        expected = torch.fft.rfftn(turned(volume, axes)).abs() ** 2
        assert turned_size == turned(volume, axes).shape
        torch.testing.assert_close(power, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("axes", [(0, 2, 1), (1, 0, 2)])
def test_noise_is_estimated_alike_however_a_volume_lies(axes, small):
    values = data(small["tomogram"])
    usual, other = (
        noise_if_known(volume, 0.5 * volume, NoiseSettings(profile=False))
        for volume in (values, lying(values, axes))
    )
    expected, _ = fourier.turned_power(usual.power, usual.window, back(axes))
    torch.testing.assert_close(other.power, expected, rtol=0.02, atol=1e-4 * float(expected.max()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ((0, 2, 1), "along Z and its tilt axis along X"),
        ((1, 0, 2), "along Y and its tilt axis along Z"),
    ],
)
def test_the_network_sees_a_tomogram_as_it_should_lie(
    axes, words, tiny_model, phantom, write, tmp_path, capsys
):
    values = data(phantom["tomogram"])
    paths = write(values, "usual.mrc"), write(lying(values, axes), "other.mrc")
    usual, other = denoise(
        DenoiseConfig(
            model=str(tiny_model / "model.pt"),
            tomograms=paths,
            output=str(tmp_path / "out"),
            device="cpu",
            precision="float32",
            tile_size=96,
        )
    )
    assert f"other.mrc has its depth {words}, as its missing wedge shows" in capsys.readouterr().err
    assert mrc.open_volume(other).shape == mrc.open_volume(paths[1]).shape
    expected = lying(data(usual), axes)
    np.testing.assert_allclose(data(other), expected, atol=1e-3 * expected.std())


SIDE = 16


class Ramp(torch.nn.Module):
    """Learned nothing but to make deeper voxels brighter."""

    def forward(self, volumes):
        return volumes * torch.arange(SIDE)[:, None, None]


class Lying:
    """Pairs of ones and what :class:`Ramp` makes of them in a volume whose axes are ``axes``."""

    def __init__(self, axes):
        self.axes, self.shape, self.independent = axes, (32, 32, 32), True

    def pairs(self, start, size, count, random):
        ones = torch.ones(count, *size)
        return Pairs(ones, turned(Ramp()(turned(ones, self.axes)), back(self.axes)))

    independent_pairs = pairs


@pytest.mark.parametrize("axes", ORDERS)
def test_a_training_sees_a_tomogram_as_it_should_lie(axes):
    config = TrainConfig(patch_size=SIDE, augmentation="none")
    volume = Lying(axes)
    batch = batch_of([(0, (8, 8, 8))], [volume], [volume], [], config)
    assert torch.equal(batch.targets, Ramp()(batch.inputs))
    held_out = ValidationCubes([volume.shape], all_patches([volume.shape], SIDE), SIDE, 0)
    found = held_out.validate(Ramp(), [volume], torch.device("cpu"), torch.float32)
    assert found.loss == 0 < found.power


def of_an_axis(size, degrees, power):
    """``power`` of the distance to a tilt axis that is so many ``degrees`` from Y, towards X."""
    z, y, x = torch.meshgrid(*fourier.axis_frequencies(size), indexing="ij")
    across = np.cos(np.radians(degrees)) * x - np.sin(np.radians(degrees)) * y
    return power(torch.hypot(across, z).clamp(min=0.7 / min(size)))


@pytest.mark.parametrize("size", [(40, 40, 40), (32, 48, 41)])
@pytest.mark.parametrize("degrees", [0, -70, -25, 15, 45, 90])
@pytest.mark.parametrize("power", [lambda q: q, lambda q: 1 / q])
def test_the_tilt_axis_is_found_wherever_in_xy_it_lies(size, degrees, power):
    """Noise of a back-projection is weak along it, that of SIRT-like filters strong."""
    angle = tilt_axis_angle(of_an_axis(size, degrees, power), size)
    assert np.cos(2 * np.radians(angle - degrees)) > np.cos(2 * np.radians(6))
    assert tilt_axis_angle(torch.ones(*size[:2], size[2] // 2 + 1), size) == 0


@pytest.mark.parametrize("degrees", [0, -25, 45])
def test_signal_is_looked_for_near_the_axis_that_is_found(degrees):
    """What is too much there is no noise, and nowhere else anything is missed."""
    size = (40, 40, 40)
    noise = of_an_axis(size, degrees, lambda q: q)
    near = of_an_axis(size, degrees, lambda q: (q > 0.03) & (q < 0.08))
    radius = fourier.grid_of(size).radius
    band = (radius > 0.2) & (radius < 0.48)
    level = noise + 0.1 * near
    shells = len(fourier.grid_of(size).frequencies)
    found = without_signal_near_axis(level, torch.ones(shells), size, (0, 1, 2))
    assert found[band & near].mean() < 0.8 * level[band & near].mean()
    far = of_an_axis(size, degrees, lambda q: q > 0.2) & band
    assert float(found[far].mean() / noise[far].mean()) == pytest.approx(1, abs=0.03)
