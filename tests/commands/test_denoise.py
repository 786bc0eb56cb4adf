import dataclasses
import os
import shutil
import time

import mrcfile
import numpy as np
import pytest
import torch
from conftest import TINY, data

from f2fd_core import DenoiseConfig, TrainConfig, UserError, __version__, denoise, train
from f2fd_core.commands import denoise as denoising
from f2fd_core.config import tta_flips
from f2fd_core.data import mrc
from f2fd_core.data.rescaling import Rescaling
from f2fd_core.evaluation.metrics import correlation
from f2fd_core.network import checkpoint
from f2fd_core.prediction import predictor
from f2fd_core.prediction.predictor import Predictor, tiling
from f2fd_core.runtime import files


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
@pytest.mark.parametrize("perturbation", ["noise_matched", "noise2noise"])
def test_turned_predictions_against_a_loop(batch_size, perturbation):
    """Every half-map in each of the four positions; the outputs are turned back."""
    flips = tta_flips(TrainConfig(perturbation=perturbation))
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
    repeated = 2 if perturbation == "noise2noise" else 1
    expected = [number * positions[number // repeated % 4] for number in range(10)]
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


@pytest.mark.pictures
def test_header_and_intensities_are_the_inputs(quick_denoise, small, tmp_path):
    source = tmp_path / "own name.mrc"
    values = data(small["tomogram"]) * 50 + 1000
    with mrcfile.new(source) as stream:
        stream.set_data(values.astype(np.int16))
        stream.voxel_size = (8.5, 8.5, 8.5)
        for axis, value in zip("xyz", (10, 20, 30)):
            stream.header.origin[axis] = value
            stream.header[f"n{axis}start"] = -value
    result = quick_denoise(source, tmp_path / "out", std=True)
    assert result == str(tmp_path / "out" / "own name_denoised.mrc")
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == [
        "own name_denoised.mrc",
        "own name_slices.png",
        "own name_std.mrc",
    ]
    for path in (result, str(tmp_path / "out" / "own name_std.mrc")):
        assert mrcfile.validate(path)
        with mrcfile.open(path) as stream:
            assert stream.data.dtype == np.float32 and stream.data.shape == values.shape
            assert float(stream.voxel_size.x) == pytest.approx(8.5)
            assert [float(stream.header.origin[axis]) for axis in "xyz"] == [10, 20, 30]
            assert [int(stream.header[f"n{axis}start"]) for axis in "xyz"] == [-10, -20, -30]
            *_, label, made_of = stream.get_labels()
            assert made_of.startswith("F2Fd model=")
            assert label.startswith(f"F2Fd {__version__}: denoised by ")
            assert label.rstrip().endswith("/model.pt")
    assert data(result).mean() == pytest.approx(values.mean(), abs=0.05 * values.std())
    assert data(str(tmp_path / "out" / "own name_std.mrc")).min() >= 0


@pytest.mark.slow
def test_same_seed_same_result_other_seed_other(quick_denoise, small, tmp_path):
    results = [
        data(quick_denoise(small["tomogram"], tmp_path / str(number), seed=seed, predictions=5))
        for number, seed in enumerate((1, 1, 2))
    ]
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


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
    """Up to its faces, since the network sees what is around them; its place is told."""
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


@pytest.mark.parametrize("region", [(0, 0, 0, 49, 64, 72), (40, 0, 0, 9, 1, 1), (0, 0, 0, 0, 8, 8)])
def test_a_region_outside_is_refused(quick_denoise, phantom, tmp_path, region):
    with pytest.raises(UserError, match="--region is .* which has 48 x 64 x 72 voxels"):
        quick_denoise(phantom["tomogram"], tmp_path / "out", region=region)
    assert not (tmp_path / "out").exists()


def test_existing_results_are_kept_overwritten_or_skipped(quick_denoise, small, tmp_path, capsys):
    result = quick_denoise(small["tomogram"], tmp_path)
    before, made = data(result), os.stat(result).st_mtime_ns
    with pytest.raises(UserError, match="exists already; it is kept"):
        quick_denoise(small["tomogram"], tmp_path, seed=5)
    capsys.readouterr()
    quick_denoise(small["tomogram"], tmp_path, batch_size=1, resume=True)
    assert os.stat(result).st_mtime_ns == made
    assert f"{result} is finished: skipped" in capsys.readouterr().err
    quick_denoise(small["tomogram"], tmp_path, predictions=1, overwrite=True)
    assert not np.array_equal(data(result), before)


@pytest.mark.reliability(
    "denoising resumed with another model, tomogram or other settings",
    "one sentence, exit code 2; the earlier result is kept",
)
def test_a_result_of_something_else_is_not_resumed(tiny_model, small, tmp_path):
    """Of another model, another tomogram of that name, other settings, or of nobody knows what."""
    tomogram = shutil.copyfile(small["tomogram"], tmp_path / "tomogram.mrc")
    other = shutil.copyfile(tiny_model / "model.pt", tmp_path / "other.pt")
    config = DenoiseConfig(
        model=str(tiny_model / "model.pt"),
        tomograms=(str(tomogram),),
        output=str(tmp_path / "out"),
        device="cpu",
        region=(0, 0, 0, 8, 16, 16),
        resume=True,
    )
    (result,) = denoise(config)
    before = data(result)
    denoise(dataclasses.replace(config, model=str(other)))  # a copy is no other one
    state = checkpoint.load(str(other))
    network, trained = checkpoint.restore(state, str(other))
    checkpoint.save(str(other), network.state_dict(), trained, 7, state["voxel_size"])

    def refused(words, **changes):
        with pytest.raises(
            UserError, match=(f"tomogram_denoised.mrc was made of {words}; it is kept")
        ):
            denoise(dataclasses.replace(config, **changes))
        np.testing.assert_array_equal(data(result), before)

    refused("other settings", region=())
    refused("another model and other settings", model=str(other), seed=1)
    shutil.copyfile(small["odd"], tomogram)
    refused("another tomogram")
    with mrcfile.mmap(result, "r+") as stream:
        stream.header.nlabl, stream.header.label[:] = 0, b""
    refused("what it does not say")


@pytest.mark.reliability(
    "results that would replace an input, with --overwrite",
    "one sentence, exit code 2; the input is kept",
)
def test_no_input_is_replaced(tiny_model, small, tmp_path):
    """Not even with --overwrite, by whatever path."""
    paths = [
        str(shutil.copyfile(small["tomogram"], tmp_path / name))
        for name in ("x.mrc", "x_denoised.mrc")
    ]
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="the input .*x_denoised.mrc would be replaced"):
        denoise(
            DenoiseConfig(
                model=str(tiny_model / "model.pt"),
                tomograms=tuple(paths),
                output=str(tmp_path / "link"),
                overwrite=True,
            )
        )
    np.testing.assert_array_equal(data(paths[1]), data(small["tomogram"]))


@pytest.mark.slow
@pytest.mark.reliability(
    "picture of the user's that has the name of a result",
    "one sentence, exit code 2; the picture is kept",
)
@pytest.mark.pictures
def test_pictures_of_the_user_are_kept(quick_denoise, small, tmp_path):
    picture = tmp_path / "tomogram_slices.png"
    picture.write_bytes(b"mine")
    for options in (dict(), dict(resume=True)):
        with pytest.raises(UserError, match="tomogram_slices.png exists already; it is kept"):
            quick_denoise(small["tomogram"], tmp_path, predictions=1, **options)
    assert picture.read_bytes() == b"mine"
    result = quick_denoise(small["tomogram"], tmp_path, predictions=1, overwrite=True)
    os.remove(result)  # as if killed between the picture and the tomogram
    quick_denoise(small["tomogram"], tmp_path, predictions=1, resume=True)
    assert os.path.exists(result)


def test_a_bad_tomogram_is_found_before_anything_is_computed(tiny_model, phantom, tmp_path):
    with pytest.raises(UserError, match="missing.mrc does not exist"):
        denoise(
            DenoiseConfig(
                model=str(tiny_model / "model.pt"),
                output=str(tmp_path / "out"),
                tomograms=(phantom["tomogram"], "missing.mrc"),
            )
        )
    assert not (tmp_path / "out").exists()


def test_two_tomograms_of_one_name_are_refused(tiny_model, phantom, tmp_path):
    with pytest.raises(UserError, match="two tomograms are called tomogram"):
        denoise(
            DenoiseConfig(
                model=str(tiny_model / "model.pt"),
                output=str(tmp_path / "out"),
                tomograms=(phantom["tomogram"], "other/tomogram.mrc"),
            )
        )


def test_another_voxel_size_than_the_models_is_reported(
    quick_denoise, small, write, tmp_path, capsys
):
    quick_denoise(write(data(small["tomogram"]), voxel_size=14.0), tmp_path / "out")
    assert "14 Å, but the model was trained at 10 Å" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("voxel_size", [20.0, 6.0])
def test_a_rescaled_tomogram_is_denoised_at_the_models_voxel_size(
    quick_denoise, small, write, tmp_path, voxel_size, capsys
):
    """As one that was rescaled before, and the result after; on the tomogram's own grid."""
    tomogram = write(data(small["tomogram"]), "own.mrc", voxel_size=voxel_size)
    inside = quick_denoise(tomogram, tmp_path / "a", rescale=True, std=True)
    said = capsys.readouterr().err
    assert "results may suffer" not in said
    rescaling = Rescaling(data(tomogram).shape, voxel_size / 10)
    before = write(rescaling.there(data(tomogram)), "before.mrc", voxel_size=10.0)
    outside = quick_denoise(before, tmp_path / "b", std=True)
    expected = rescaling.back(data(outside))
    np.testing.assert_allclose(data(inside), expected, atol=2e-4 * expected.std())
    found = mrc.open_volume(inside)
    assert found.shape == data(tomogram).shape and found.voxel_size[0] == voxel_size
    deviation = data(files.companion(inside, files.DEVIATION))
    assert deviation.min() >= 0 and deviation.std() > 0
    # A part is that of the whole.
    part = quick_denoise(tomogram, tmp_path / "c", rescale=True, region=(5, 8, 9, 16, 24, 20))
    np.testing.assert_array_equal(data(part), data(inside)[5:21, 8:32, 9:29])


def test_tile_size_must_suit_the_network(tiny_model, phantom, tmp_path):
    with pytest.raises(UserError, match="--tile-size is 20; expected a multiple of 8"):
        denoise(
            DenoiseConfig(
                model=str(tiny_model / "model.pt"),
                output=str(tmp_path),
                tomograms=(phantom["tomogram"],),
                tile_size=20,
            )
        )


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


@pytest.mark.slow
def test_reading_ahead_changes_nothing(tiny_model, small, write, tmp_path, monkeypatch):
    """Where a GPU computes, the next tiles and the next tomogram's noise are prepared meanwhile."""
    second = write(data(small["tomogram"])[:, ::-1].copy(), "second.mrc")
    results = []
    for apart in (False, True):
        for room in ("commands.denoise", "prediction.predictor"):
            monkeypatch.setattr(
                f"f2fd_core.{room}.runs_asynchronously", lambda device, apart=apart: apart
            )
        results.append(
            denoise(
                DenoiseConfig(
                    model=str(tiny_model / "model.pt"),
                    tomograms=(small["tomogram"], second),
                    output=str(tmp_path / str(apart)),
                    predictions=5,
                    tile_size=16,
                    device="cpu",
                )
            )
        )
    for plain, ahead in zip(*results):
        np.testing.assert_array_equal(data(plain), data(ahead))


def test_two_devices_give_what_one_gives(tiny_model, small, tmp_path):
    results = []
    for device in ("cpu", "cpu,cpu"):
        (path,) = denoise(
            DenoiseConfig(
                model=str(tiny_model / "model.pt"),
                tomograms=(small["tomogram"],),
                tile_size=32,
                output=str(tmp_path / device),
                device=device,
                std=True,
                predictions=5,
            )
        )
        results.append((mrcfile.read(path), mrcfile.read(path.replace("_denoised", "_std"))))
    for one, two in zip(*results):
        np.testing.assert_array_equal(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_devices_have_tomograms_of_their_own_and_share_the_rest(
    tiny_model, small, write, tmp_path, monkeypatch, count
):
    values = data(small["tomogram"])
    paths = [write(np.roll(values, number, 0), f"rolled{number}.mrc") for number in range(count)]
    workers = {}
    one = denoising.denoise_tomogram

    def noted(box, perturbation, path, predictors, *rest):
        workers[path] = list(predictors)
        one(box, perturbation, path, predictors, *rest)

    monkeypatch.setattr(denoising, "denoise_tomogram", noted)
    alone, together = (
        denoise(
            DenoiseConfig(
                model=str(tiny_model / "model.pt"),
                tomograms=tuple(paths),
                device=device,
                predictions=5,
                output=str(tmp_path / device),
            )
        )
        for device in ("cpu", "cpu,cpu")
    )
    for path, other in zip(alone, together):
        np.testing.assert_array_equal(data(path), data(other))
    assert [len(workers[path]) for path in together] == [1, 1, 2][:count]


def test_a_tomogram_that_fails_ends_those_on_other_devices(
    tiny_model, small, write, tmp_path, monkeypatch
):
    paths = [write(data(small["tomogram"]), name) for name in ("endless.mrc", "failing.mrc")]
    one = denoising.denoise_tomogram

    def failing(box, perturbation, *rest):
        if "failing" in perturbation.volume.source.path:
            while not (tmp_path / "out" / "endless_denoised.mrc.part").exists():
                time.sleep(0.01)
            raise UserError("this one fails")
        one(box, perturbation, *rest)

    monkeypatch.setattr(denoising, "denoise_tomogram", failing)
    with pytest.raises(UserError, match="this one fails"):
        denoise(
            DenoiseConfig(
                model=str(tiny_model / "model.pt"),
                tomograms=tuple(paths),
                output=str(tmp_path / "out"),
                device="cpu,cpu",
                predictions=10**7,
            )
        )
    assert list((tmp_path / "out").iterdir()) == []


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
        if size[2] == 72:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return moments(self, perturbation, start, size)

    monkeypatch.setattr(Predictor, "predict_tile", greedy)
    (path,) = denoise(DenoiseConfig(output=str(tmp_path / "halved"), tile_size=96, **options))
    assert (
        f"starting {phantom['tomogram']} again with tiles of 64 voxels" in capsys.readouterr().err
    )
    np.testing.assert_array_equal(mrcfile.read(path), mrcfile.read(small))

    def never(self, *_):
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Predictor, "predict_tile", never)
    with pytest.raises(UserError, match="does not suffice even for tiles of 64 voxels"):
        denoise(DenoiseConfig(output=str(tmp_path / "never"), tile_size=96, **options))
    assert not list((tmp_path / "never").iterdir())


@pytest.mark.slow
def test_a_deviation_map_that_is_missing_is_not_skipped(quick_denoise, phantom, tmp_path):
    """Denoised without one, then resumed with one."""
    options = dict(resume=True, predictions=2)
    result = quick_denoise(phantom["tomogram"], tmp_path, **options)
    made = os.stat(result).st_mtime_ns
    assert os.stat(quick_denoise(phantom["tomogram"], tmp_path, **options)).st_mtime_ns == made
    quick_denoise(phantom["tomogram"], tmp_path, std=True, **options)
    assert data(tmp_path / "tomogram_std.mrc").max() > 0


def test_a_result_of_too_much_contrast_is_reported(tiny_model, small, tmp_path, capsys):
    """A network that makes more of a tomogram than there is does not suit it."""
    state = checkpoint.load(str(tiny_model / "model.pt"))
    network, trained = checkpoint.restore(state, "model.pt")
    with torch.no_grad():
        network.last[-1].weight.mul_(1000)
    wild = str(tmp_path / "wild.pt")
    checkpoint.save(wild, network.state_dict(), trained, state["step"], state["voxel_size"])
    told = []
    for name, model in (("tame", str(tiny_model / "model.pt")), ("wild", wild)):
        denoise(
            DenoiseConfig(
                model=model,
                tomograms=(small["tomogram"],),
                device="cpu",
                output=str(tmp_path / name),
            )
        )
        told.append("times the standard deviation of the tomogram" in capsys.readouterr().err)
    assert told == [False, True]


@pytest.mark.slow
def test_tasks_of_a_queue_share_the_tomograms(tiny_model, small, tmp_path, monkeypatch, capsys):
    """Each result is made by one task, as one task alone makes it; a task may have none."""
    paths = [str(tmp_path / f"{name}.mrc") for name in "abc"]
    for path in paths:
        os.symlink(small["tomogram"], path)
    options = dict(
        model=str(tiny_model / "model.pt"), tomograms=tuple(paths), device="cpu", tile_size=32
    )
    alone = denoise(DenoiseConfig(output=str(tmp_path / "alone"), **options))
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "1")
    made = []
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        capsys.readouterr()
        made.append(denoise(DenoiseConfig(output=str(tmp_path / "shared"), **options)))
        assert f"task {rank + 1} of 4 has {len(made[-1])} of the tomograms" in (
            capsys.readouterr().err
        )
    assert [len(paths) for paths in made] == [1, 1, 1, 0]
    for one, other in zip(alone, sum(made, [])):
        assert os.path.basename(one) == os.path.basename(other)
        np.testing.assert_array_equal(data(one), data(other))
    # What one name for two tomograms would lose is refused, whoever has them.
    os.makedirs(tmp_path / "more")
    os.symlink(small["tomogram"], tmp_path / "more" / "a.mrc")
    options["tomograms"] += (str(tmp_path / "more" / "a.mrc"),)
    with pytest.raises(UserError, match="two tomograms are called a"):
        denoise(DenoiseConfig(output=str(tmp_path / "other"), **options))


def test_names_and_types_of_the_results(tiny_model, small, tmp_path):
    """What goes with a result follows its name; its voxels differ by their rounding only."""
    usual = dict(
        model=str(tiny_model / "model.pt"), tomograms=(small["tomogram"],), device="cpu", std=True
    )
    (plain,) = denoise(DenoiseConfig(output=str(tmp_path / "a"), **usual))
    (other,) = denoise(
        DenoiseConfig(
            output=str(tmp_path / "b"), result_name="f2fd {name}", dtype="float16", **usual
        )
    )
    assert sorted(os.listdir(tmp_path / "b")) == ["f2fd tomogram.mrc", "f2fd tomogram_std.mrc"]
    assert data(other).dtype == np.float16
    np.testing.assert_allclose(data(other), data(plain), rtol=1e-3, atol=1e-4 * data(plain).std())
    with pytest.raises(UserError, match="b/f2fd tomogram.mrc exists already"):
        denoise(DenoiseConfig(output=str(tmp_path / "b"), result_name="f2fd {name}", **usual))
    with pytest.raises(UserError, match="was made of other settings"):
        denoise(
            DenoiseConfig(
                output=str(tmp_path / "b"), result_name="f2fd {name}", resume=True, **usual
            )
        )


@pytest.mark.parametrize("pattern", ["denoised", "", "a/{name}", "{tsId}"])
def test_a_pattern_that_names_no_file_is_refused(pattern):
    with pytest.raises(UserError, match="--result-name is .*expected a file's name with {name}"):
        DenoiseConfig(result_name=pattern)


def test_results_of_a_pattern_are_no_input(tiny_model, small, write, tmp_path, capsys):
    """A second run on ``*.mrc`` of a folder that has them leaves them out."""
    first = write(data(small["tomogram"]), "a.mrc")
    write(data(small["odd"]), "clean_a.mrc")
    folder = os.path.dirname(first)
    (result,) = denoise(
        DenoiseConfig(
            model=str(tiny_model / "model.pt"),
            tomograms=(first, os.path.join(folder, "clean_a.mrc")),
            output=str(tmp_path / "out"),
            result_name="clean_{name}",
            device="cpu",
        )
    )
    assert os.path.basename(result) == "clean_a.mrc"
    assert "clean_a.mrc is left out" in capsys.readouterr().err


def test_half_maps_beside_their_mean(small, tmp_path, tiny_model):
    """Each is denoised as it would be alone, in a folder of its own."""
    halves = small["odd"], small["even"]
    usual = dict(model=str(tiny_model / "model.pt"), device="cpu")
    (mean,) = denoise(
        DenoiseConfig(
            tomograms=(small["tomogram"],),
            half_maps=halves,
            denoise_halves=True,
            output=str(tmp_path / "a"),
            **usual,
        )
    )
    assert os.path.basename(mean) == "tomogram_denoised.mrc"
    for folder, half in zip(("odd", "even"), halves):
        (alone,) = denoise(
            DenoiseConfig(tomograms=(half,), output=str(tmp_path / "b" / folder), **usual)
        )
        beside = tmp_path / "a" / folder / os.path.basename(alone)
        np.testing.assert_array_equal(data(str(beside)), data(alone))
    with pytest.raises(UserError, match="--denoise-halves is given without --half-maps"):
        DenoiseConfig(tomograms=("a.mrc",), denoise_halves=True)
    os.remove(mean)
    config = DenoiseConfig(
        tomograms=(small["tomogram"],),
        half_maps=halves,
        denoise_halves=True,
        output=str(tmp_path / "a"),
        **usual,
    )
    with pytest.raises(UserError, match="a/odd/odd_denoised.mrc exists already"):
        denoise(config)
    assert not os.path.exists(mean)
    for _ in range(2):  # and where all is finished
        assert denoise(dataclasses.replace(config, resume=True)) == [mean]
