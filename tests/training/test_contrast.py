"""Tomograms of the other contrast than those that a model has learned from."""

import numpy as np
import pytest
from conftest import data

from f2fd_core import DenoiseConfig, SimulateConfig, denoise
from f2fd_core.config import PRETRAINED  # a model that has learned from dark matter
from f2fd_core.simulation.microscope import simulate_volumes


def tomogram(**change):
    config = dict(dict(shape=(32, 64, 64), snr=0.3, seed=3), **change)
    return simulate_volumes(SimulateConfig(**config))["tomogram"]


def denoised(path, output):
    (result,) = denoise(
        DenoiseConfig(
            model=PRETRAINED,
            tomograms=(path,),
            output=str(output),
            device="cpu",
            precision="float32",
            predictions=2,
        )
    )
    return data(result)


@pytest.mark.slow
def test_the_network_is_inverted_for_a_tomogram_of_the_other_contrast(write, tmp_path, capsys):
    values = tomogram()
    usual = denoised(write(values, "dark.mrc"), tmp_path / "one")
    assert "contrast" not in capsys.readouterr().err
    other = denoised(write(-values, "bright.mrc"), tmp_path / "two")
    assert (
        "bright.mrc has the opposite contrast of what the model has learned from"
        in capsys.readouterr().err
    )
    np.testing.assert_allclose(other, -usual, atol=2e-3 * usual.std())


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    (
        dict(specimen="empty"),
        dict(snr=0.02),
        dict(specimen="spheres"),
        dict(specimen="crowded", sirt_iterations=10),
        dict(specimen="crowded", reconstruction="insertion", tilt_range=(-50.0, 65.0)),
    ),
)
def test_no_false_alarm(change, write, tmp_path, capsys):
    denoised(write(tomogram(**change)), tmp_path)
    assert "contrast" not in capsys.readouterr().err
