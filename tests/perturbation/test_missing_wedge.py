import numpy as np
import pytest
import torch
from conftest import data

from f2fd_core.config import TrainConfig
from f2fd_core.data.volume import Volume
from f2fd_core.filters import wedge
from f2fd_core.network import checkpoint
from f2fd_core.perturbation import missing_wedge
from f2fd_core.perturbation.missing_wedge import Lessons, middle
from f2fd_core.runtime.randomness import Randomness

SIZE = (16, 16, 16)


@pytest.fixture(scope="module")
def lessons(phantom, tiny_model):
    _, state = checkpoint.newest(checkpoint.folder_in(str(tiny_model)), None)
    return Lessons(str(tiny_model / "model.pt"), "", 60.0, state["noise"])


@pytest.fixture(scope="module")
def perturbation(phantom, lessons):
    config = TrainConfig(tomograms=(phantom["tomogram"],), patch_size=16, features=8)
    return lessons(Volume(phantom["tomogram"]), config, torch.device("cpu"))


def test_the_teacher_is_the_denoised_tomogram(perturbation, quick_denoise, phantom, tmp_path):
    denoised = data(quick_denoise(phantom["tomogram"], tmp_path, tile_size=96))
    own = perturbation.volume.destandardise(perturbation.target.numpy())
    assert np.corrcoef(own.ravel(), denoised.ravel())[0, 1] > 0.999


def test_the_target_has_what_the_input_lacks_and_nothing_else_differs(perturbation):
    """The difference of a pair, but for the noise, lies beyond the tilts of the turned tomogram."""
    target, seen = (values.transpose(0, 2) for values in (perturbation.target, perturbation.seen))
    missing = ~wedge.measured(*target.shape[::2], (-60, 60))
    torch.testing.assert_close(wedge.part(target - seen, missing), target - seen, atol=1e-5, rtol=0)
    assert (target - seen).var() > 0.05 * target.var()


def test_pairs_are_turned_patches_with_fresh_noise_of_the_tomogram(perturbation, monkeypatch):
    monkeypatch.setattr(missing_wedge, "EMPTY", 0)
    start, count = (4, 20, 30), 200
    pairs = perturbation.pairs(start, SIZE, count, Randomness.of("cpu", 1))
    inside = tuple(slice(at, at + side) for at, side in zip(start, SIZE))
    assert torch.equal(pairs.targets[0], perturbation.target[inside].transpose(0, 2))
    assert torch.equal(pairs.targets[0], pairs.targets[-1])
    seen = perturbation.seen[inside].transpose(0, 2)
    noise = pairs.inputs - seen
    assert noise.mean(0).std() < 3 * noise.std() / count**0.5
    expected = perturbation.noise.sample(start, SIZE, count, Randomness.of("cpu", 2), "cpu")
    assert float(noise.var()) == pytest.approx(float(expected.var()), rel=0.1)


def test_some_pairs_are_noise_alone_and_nothing_is_to_be_made_of_it(perturbation):
    start = (4, 20, 30)
    made = [perturbation.pairs(start, SIZE, 1, Randomness.of("cpu", 3, n)) for n in range(200)]
    empty = [pairs for pairs in made if not pairs.targets.any()]
    assert len(empty) / len(made) == pytest.approx(missing_wedge.EMPTY, abs=0.07)
    noise = perturbation.noise.sample(start, SIZE, 200, Randomness.of("cpu", 2), "cpu")
    power = np.mean([float(pairs.inputs.square().mean()) for pairs in empty])
    assert power == pytest.approx(float(noise.square().mean()), rel=0.1)


def test_of_the_second_round_the_teacher_is_filled(perturbation, lessons, phantom):
    config = TrainConfig(tomograms=(phantom["tomogram"],), patch_size=16, features=8)
    filled = lessons._replace(filler=lessons.model)(
        Volume(phantom["tomogram"]), config, torch.device("cpu")
    )
    # Filled with what is there already: nothing changes.
    torch.testing.assert_close(filled.target, perturbation.target, atol=1e-4, rtol=0)


def test_the_middle_of_a_large_tomogram():
    assert middle((40, 50, 60), 10**6) == ((0, 0, 0), (40, 50, 60))
    first, size = middle((64, 900, 1000), 2**24)
    assert size == (64, 512, 512) and first == (0, 194, 244)
    assert middle((300, 300, 300), 10**6) == ((100, 100, 100), (100, 100, 100))


def test_patches_outside_the_middle_are_taken_from_inside(perturbation, monkeypatch):
    monkeypatch.setattr(missing_wedge, "EMPTY", 0)
    perturbation.first, perturbation.size = (0, 10, 20), (48, 40, 40)
    perturbation.target = perturbation.target[:, 10:50, 20:60]
    perturbation.seen = perturbation.seen[:, 10:50, 20:60]
    for start in ((0, 0, 0), (32, 48, 56), (8, 12, 24)):
        pairs = perturbation.pairs(start, SIZE, 1, Randomness.of("cpu", 1))
        assert pairs.targets[0].std() > 0
    inside = perturbation.target[8:24, 2:18, 4:20].transpose(0, 2)
    assert torch.equal(pairs.targets[0], inside)
