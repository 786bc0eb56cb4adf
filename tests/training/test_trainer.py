"""Steps of a training, and their batches."""

import shutil

import numpy as np
import pytest
import torch
from conftest import TINY, Memory, assert_same_weights, data, weights

from f2fd_core import DenoiseConfig, TrainConfig, UserError, denoise, fourier, train
from f2fd_core.commands import train as training
from f2fd_core.data.batches import batch_of
from f2fd_core.data.volume import Volume
from f2fd_core.evaluation.metrics import correlation
from f2fd_core.network import checkpoint
from f2fd_core.network.unet import UnshuffledUNet
from f2fd_core.perturbation import noise_matched
from f2fd_core.perturbation.real_space import Self2Self
from f2fd_core.runtime import figures
from f2fd_core.training import state, trainer


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        dict(perturbation="noise_matched", dropout=0.3),
        dict(perturbation="fourier_masks", samples_per_patch=2, pool_size=5),
    ],
)
def test_batches_prepared_in_the_background_are_the_same(phantom, tmp_path, options, monkeypatch):
    for apart in (False, True):
        monkeypatch.setattr(state, "runs_asynchronously", lambda device, apart=apart: apart)
        train(
            TrainConfig(
                output=str(tmp_path / str(apart)),
                tomograms=(phantom["tomogram"],),
                **dict(TINY, **options),
            )
        )
    assert_same_weights(tmp_path / "False" / "model.pt", tmp_path / "True" / "model.pt")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_compiled_equals_eager(small, tmp_path, monkeypatch):
    noise = noise_matched.noise_of(
        Volume(small["tomogram"]), TrainConfig(tomograms=(small["tomogram"],)), "cpu"
    )
    monkeypatch.setattr(noise_matched, "noise_of", lambda *_: noise)
    monkeypatch.setattr(UnshuffledUNet, "POOLINGS", 1)  # less to compile
    options = dict(TINY, tomograms=(small["tomogram"],), precision="float32")
    models = [
        train(TrainConfig(output=str(tmp_path / str(compile)), compile=compile, **options))
        for compile in (False, True)
    ]
    for name, eager in weights(models[0]).items():
        torch.testing.assert_close(weights(models[1])[name], eager, rtol=1e-3, atol=1e-4)
    results = [
        denoise(
            DenoiseConfig(
                model=models[0],
                tomograms=(small["tomogram"],),
                output=str(tmp_path / (f"out{compile}")),
                tile_size=32,
                predictions=2,
                compile=compile,
            )
        )[0]
        for compile in (False, True)
    ]
    eager, compiled = (torch.from_numpy(data(path)) for path in results)
    assert correlation(compiled, eager) > 0.999


def test_all_parts_of_a_patch_are_turned_alike():
    """Inputs, targets, weights and truth; here the truth is the tomogram itself."""
    torch.manual_seed(0)
    volume = Memory(torch.randn(24, 32, 32))
    config = TrainConfig(
        perturbation="self2self",
        patch_size=16,
        patch_shift=0,
        samples_per_patch=2,
        augmentation="published",
    )
    perturbation = Self2Self(volume, config)
    region = torch.from_numpy(volume.region((8, 4, 2), (16, 16, 16)))
    unturned = []
    for _ in range(20):
        batch = batch_of(
            [(0, (0, 0, 0)), (0, (8, 4, 2))], [volume], [perturbation], [volume], config
        )
        assert batch.inputs.shape == (4, 1, 16, 16, 16)
        assert torch.equal(batch.targets, batch.truth)
        assert torch.equal(batch.inputs, batch.targets * (1 - batch.weights))
        assert torch.equal(batch.targets[2], batch.targets[3])
        unturned.append(torch.equal(batch.targets[2, 0], region))
    assert any(unturned) and not all(unturned)


@pytest.mark.pictures
def test_the_spectrum_is_drawn_once_and_when_its_noise_is_lowered(phantom, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "draw_spectrum", lambda noise, *_: drawn.append(noise["noise"]))
    config = TrainConfig(**dict(TINY, tomograms=(phantom["tomogram"],), output=str(tmp_path)))
    run = training.open_for_training(config)
    (perturbation,) = run.perturbations
    with training.Writer(run) as writer:
        writer.draw_spectrum()
        assert len(drawn) == 1
        perturbation.lower(torch.full_like(perturbation.lowered, 0.5))
        writer.draw_spectrum()
    np.testing.assert_allclose(drawn[1], np.multiply(drawn[0], 0.5), rtol=1e-5)
    assert len(drawn) == 2


def test_noise_taken_for_too_much_is_lowered_where_the_network_shows_it(phantom):
    """A network that turns the sign of half of what is added at high frequencies, and passes half
    elsewhere."""
    config = TrainConfig(**dict(TINY, tomograms=(phantom["tomogram"],), output="unused"))
    run = training.open_for_training(config)
    (perturbation,) = run.perturbations
    before = perturbation.noise.power.clone()
    frequencies = fourier.grid_of((config.patch_size,) * 3).frequencies
    high = frequencies > 0.3
    trainer.lower_noise(run, perturbation, torch.where(high, -0.5, 0.5))
    excess = 1.5 / (1 - 0.5 * perturbation.scale**2)
    radius = fourier.radial_frequency(perturbation.noise.window)
    there = before > 0
    ratio, radius = perturbation.noise.power[there] / before[there], radius[there]
    torch.testing.assert_close(
        ratio[radius > 0.4], torch.full_like(ratio, 1 / excess)[radius > 0.4], rtol=1e-4, atol=0
    )
    torch.testing.assert_close(ratio[radius < 0.2], torch.ones_like(ratio)[radius < 0.2])
    # It is part of the state, and lowering is not done twice.
    other = training.open_for_training(config).perturbations[0]
    other.load_state_dict(perturbation.state_dict())
    torch.testing.assert_close(other.noise.power, perturbation.noise.power)


def test_gradients_are_clipped_and_never_for_the_published_method(phantom, tmp_path):
    """A clip of almost nothing leaves the steps, which are scale-free, but not the optimizer's
    memory of the gradients."""
    norms = {}
    for clip in (0.0, 1e-3):
        folder = tmp_path / str(clip)
        train(
            TrainConfig(
                **dict(
                    TINY,
                    tomograms=(phantom["tomogram"],),
                    output=str(folder),
                    steps=1,
                    gradient_clip=clip,
                )
            )
        )
        state = checkpoint.load(str(folder / "checkpoints" / "step_00000001.pt"))["optimizer"]
        # After one step the mean is (1 - 0.9) times the gradient.
        norms[clip] = float(
            sum(
                (10 * moment["momentum"]).square().sum() for moment in state["state"].values()
            ).sqrt()
        )
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-3)
    assert norms[0.0] > 2e-3
    assert TrainConfig.create({"preset": "published"}).gradient_clip == 0


def test_too_little_gpu_memory_for_a_step_is_reported(small, tmp_path, monkeypatch):
    def take_step(run):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, "train_step", take_step)
    with pytest.raises(
        UserError,
        match="for a step of 6 patches of 16 voxels; expected a smaller "
        "--batch-size, --samples-per-patch or --patch-size",
    ):
        train(
            TrainConfig(
                **dict(
                    TINY, tomograms=(small["tomogram"],), output=str(tmp_path), samples_per_patch=3
                )
            )
        )
