"""Predictions of tiles: their moments, orientations and borders, and the memory they take."""

import dataclasses

import mrcfile
import numpy as np
import pytest
import torch
from conftest import TINY, data

from f2fd_core import DenoiseConfig, TrainConfig, UserError, denoise, train
from f2fd_core.config import tta_flips
from f2fd_core.evaluation.metrics import correlation
from f2fd_core.prediction import predictor
from f2fd_core.prediction.predictor import Predictor, tiling


class Sum(torch.nn.Module):
    """A network with known dropout: the input times 1 / (1 - p) or 0, elementwise."""

    def __init__(self, probability):
        super().__init__()
        self.dropout = torch.nn.Dropout(probability)

    def forward(self, volumes):
        return self.dropout(volumes)


class Counting:
    """A perturbation whose k-th copy is the constant k."""

    axes = (0, 1, 2)

    def __init__(self):
        self.number = 0

    def copies(self, start, size, count, first=0, random=None):
        numbers = torch.arange(self.number, self.number + count, dtype=torch.float32)
        self.number += count
        return numbers[:, None, None, None].expand(count, *size)


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_moments_against_a_loop(batch_size):
    predictor = Predictor(
        Sum(0.0), torch.device("cpu"), torch.float32, 10, batch_size, with_variance=True
    )
    mean, variance = predictor.predict_tile(Counting(), (0, 0, 0), (2, 3, 4))
    np.testing.assert_allclose(mean, np.arange(10).mean())
    np.testing.assert_allclose(variance, np.arange(10).var(ddof=1), rtol=1e-6)


def test_dropout_is_on_and_new_in_every_prediction():
    class Ones(Counting):
        def copies(self, start, size, count, first=0, random=None):
            return torch.ones((count, *size))

    predictor = Predictor(
        Sum(0.5), torch.device("cpu"), torch.float32, 400, 100, with_variance=True
    )
    mean, variance = predictor.predict_tile(Ones(), (0, 0, 0), (6, 6, 6))
    assert mean.mean() == pytest.approx(1, abs=0.02)
    assert variance.mean() == pytest.approx(1, abs=0.02)


class Placed(torch.nn.Module):
    """A network whose output depends on the place."""

    def forward(self, volumes):
        return volumes * torch.arange(volumes[0].numel()).reshape(volumes.shape[1:])


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_turned_predictions_against_a_loop(batch_size):
    """In each of the four positions; the outputs are turned back."""
    flips = tta_flips(TrainConfig())
    predictor = Predictor(
        Placed(),
        torch.device("cpu"),
        torch.float32,
        10,
        batch_size,
        flips=flips,
        with_variance=True,
    )
    mean, variance = predictor.predict_tile(Counting(), (0, 0, 0), (2, 3, 4))
    place = np.arange(24).reshape(2, 3, 4)
    positions = [place, place[::-1, :, ::-1], place[::-1, ::-1], place[:, ::-1, ::-1]]
    expected = [number * positions[number % 4] for number in range(10)]
    np.testing.assert_allclose(mean, np.mean(expected, 0), rtol=1e-5)
    np.testing.assert_allclose(variance, np.var(expected, 0, ddof=1), rtol=1e-4)


@pytest.mark.slow
def test_a_turned_tomogram_gives_the_turned_result(tiny_model, phantom, write, tmp_path):
    """With all four positions, whatever the network has learned; with one it does not."""

    def difference(predictions):
        values = data(phantom["tomogram"])
        paths = [write(values, name="as-it-is"), write(values[::-1, :, ::-1].copy(), name="turned")]
        one, other = (
            data(path)
            for path in denoise(
                DenoiseConfig(
                    model=str(tiny_model / "model.pt"),
                    tomograms=tuple(paths),
                    predictions=predictions,
                    output=str(tmp_path / str(predictions)),
                    device="cpu",
                    precision="float32",
                    tile_size=96,
                )
            )
        )
        return np.abs(one - other[::-1, :, ::-1]).max() / one.std()

    assert difference(4) < 1e-3 < 0.05 < difference(1)


def test_no_noise_is_estimated_or_added_where_the_positions_suffice(small, tmp_path, monkeypatch):
    # Of the compact network, which hardly trained, too, does about the same with noise added.
    model = train(
        TrainConfig(
            **dict(
                TINY,
                network="compact",
                features=4,
                schedule="constant",
                learning_rate=1e-3,
                output=str(tmp_path),
                tomograms=(small["tomogram"],),
            )
        )
    )

    def denoised(seed, predictions):
        (path,) = denoise(
            DenoiseConfig(
                model=model,
                tomograms=(small["tomogram"],),
                device="cpu",
                seed=seed,
                predictions=predictions,
                output=str(tmp_path / (f"{seed}-{predictions}")),
            )
        )
        return data(path)

    more = [denoised(seed, 5) for seed in (1, 2)]
    assert not np.array_equal(*more)
    monkeypatch.setattr("f2fd_core.perturbation.KINDS", {})
    one, other = (denoised(seed, 4) for seed in (1, 2))
    np.testing.assert_array_equal(one, other)
    assert correlation(*(torch.from_numpy(volume) for volume in (one, more[0]))) > 0.9


def test_no_seams_between_tiles(quick_denoise, phantom, tmp_path):
    """Steps across the faces at which tiles begin and end are no larger than elsewhere."""
    result = data(quick_denoise(phantom["tomogram"], tmp_path))
    for axis, length in enumerate(result.shape):
        tiles = tiling(result.shape, 32, "compact").axes[axis]
        faces = {start for start, _ in tiles} | {start + 32 for start, _ in tiles}
        faces = sorted(faces - {0, length})
        steps = np.abs(np.diff(result, axis=axis)).mean(
            tuple(other for other in range(3) if other != axis)
        )
        assert faces
        at_faces = steps[[face - 1 for face in faces]]
        assert at_faces.mean() < 1.15 * np.median(steps[4:-4])


@pytest.mark.slow
def test_a_region_is_denoised_like_the_whole(blind_model, phantom, tmp_path):
    """Up to its faces, since the network sees what is around them; its place is given."""
    config = DenoiseConfig(
        model=blind_model,
        tomograms=(phantom["tomogram"],),
        device="cpu",
        output=str(tmp_path / "whole"),
        predictions=1,
        precision="float32",
    )
    (whole,) = denoise(config)
    first, shape = (8, 16, 10), (24, 32, 40)
    (part,) = denoise(
        dataclasses.replace(config, region=first + shape, output=str(tmp_path / "part"))
    )
    box = tuple(slice(at, at + side) for at, side in zip(first, shape))
    assert data(part).shape == shape
    np.testing.assert_allclose(data(part), data(whole)[box], atol=0.05 * data(whole).std())
    with mrcfile.open(whole) as one, mrcfile.open(part) as other:
        moved = [
            int(other.header[f"n{axis}start"]) - int(one.header[f"n{axis}start"]) for axis in "zyx"
        ]
        assert float(other.voxel_size.x) == float(one.voxel_size.x)
    assert tuple(moved) == first


@pytest.fixture(scope="module")
def blind_model(phantom, tmp_path_factory):
    """A model whose predictions have nothing random."""
    return train(
        TrainConfig(
            **dict(
                TINY,
                steps=60,
                checkpoint_every=60,
                perturbation="noise2void",
                patch_size=48,
                tomograms=(phantom["tomogram"],),
                output=str(tmp_path_factory.mktemp("blind")),
            )
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [dict(tile_size=predictor.SMALLEST_TILE), dict(tile_size=48), dict(precision="bfloat16")],
)
def test_fast_paths_give_what_the_plain_one_gives(blind_model, phantom, tmp_path, options):
    """Tiles, the smallest that are taken without being asked for and smaller ones, against the
    whole volume at once, bfloat16 against float32.

    (Networks that have learned from smaller patches than these know nothing but faces.)
    """
    results = [
        denoise(
            DenoiseConfig(
                **dict(
                    dict(
                        model=blind_model,
                        tomograms=(phantom["tomogram"],),
                        tile_size=96,
                        device="cpu",
                        precision="float32",
                        output=str(tmp_path / str(number)),
                    ),
                    **own,
                )
            )
        )[0]
        for number, own in enumerate((dict(), options))
    ]
    plain, fast = (torch.from_numpy(data(path)) for path in results)
    assert plain.std() > 0.05 * data(phantom["tomogram"]).std()
    assert not torch.equal(plain, fast)
    assert correlation(plain, fast) > 0.999


class Greedy(torch.nn.Module):
    """The identity, for which memory suffices for so many voxels at once only."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def forward(self, volumes):
        if volumes.numel() > self.most:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return volumes


def test_predictions_at_once_are_halved_until_they_fit(capsys):
    class Numbered:
        axes = (0, 1, 2)

        def copies(self, start, size, count, first, random):
            numbers = torch.arange(first, first + count, dtype=torch.float32)
            return numbers[:, None, None, None].expand(count, *size)

    predictor = Predictor(Greedy(3 * 8**3), torch.device("cpu"), torch.float32, 8, 8)
    (mean,) = predictor.predict_tile(Numbered(), (0, 0, 0), (8, 8, 8))
    assert predictor.batch_size == 2
    np.testing.assert_allclose(mean, np.arange(8).mean(), rtol=1e-6)
    assert "going on with 4" in capsys.readouterr().err


def test_copies_that_do_not_fit_halve_the_predictions_at_once_too():
    class Large:
        axes = (0, 1, 2)

        def copies(self, start, size, count, first, random):
            if count > 3:
                raise torch.cuda.OutOfMemoryError("out of memory")
            return torch.full((count, *size), 5.0)

    predictor = Predictor(
        torch.nn.Identity(), torch.device("cpu"), torch.float32, 8, 8, with_variance=True
    )
    mean, variance = predictor.predict_tile(Large(), (0, 0, 0), (8, 8, 8))
    assert predictor.batch_size == 2
    assert (mean == 5).all() and (variance == 0).all()


@pytest.mark.slow
def test_tiles_are_halved_until_they_fit(phantom, tmp_path, tiny_model, monkeypatch, capsys):
    """The result is that of the smaller tiles, and nothing of the larger ones is left."""
    options = dict(
        model=str(tiny_model / "model.pt"), tomograms=(phantom["tomogram"],), device="cpu"
    )
    (small,) = denoise(DenoiseConfig(output=str(tmp_path / "small"), tile_size=64, **options))
    moments = Predictor.predict_tile

    def greedy(self, perturbation, start, size):
        # That of the pretrained network, by which the noise is known, makes one.
        if self.predictions > 1 and size[2] == 72:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return moments(self, perturbation, start, size)

    monkeypatch.setattr(Predictor, "predict_tile", greedy)
    (path,) = denoise(DenoiseConfig(output=str(tmp_path / "halved"), tile_size=96, **options))
    assert (
        f"starting {phantom['tomogram']} again with tiles of 64 voxels" in capsys.readouterr().err
    )
    np.testing.assert_array_equal(mrcfile.read(path), mrcfile.read(small))

    def never(self, *place):
        if self.predictions > 1:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return moments(self, *place)

    monkeypatch.setattr(Predictor, "predict_tile", never)
    with pytest.raises(UserError, match="does not suffice even for tiles of 64 voxels"):
        denoise(DenoiseConfig(output=str(tmp_path / "never"), tile_size=96, **options))
    assert not list((tmp_path / "never").iterdir())
