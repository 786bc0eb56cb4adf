"""The CTF and the deconvolution against formulas written down once more, with numpy."""

import dataclasses
import math
import weakref

import mrcfile
import numpy as np
import pytest
import torch
from bad_files import save
from conftest import TINY, assert_same_weights, data, labels, whole

from f2fd_core import (
    DeconvolveConfig,
    DenoiseConfig,
    TrainConfig,
    UserError,
    __version__,
    deconvolve,
    denoise,
    train,
)
from f2fd_core.commands.inputs import open_volumes
from f2fd_core.data import mrc
from f2fd_core.data.half_maps import HalfMaps
from f2fd_core.data.volume import Volume
from f2fd_core.filters import deconvolution
from f2fd_core.filters.ctf import contrast_transfer
from f2fd_core.filters.deconvolution import deconvolved
from f2fd_core.runtime.mapped import DiskArray

PLANCK = 6.62607e-34
LIGHT = 2.997925e8
ELECTRON_MASS = 9.10938e-31
CHARGE = 1.602177e-19
BLIND = dict(TINY, steps=3, perturbation="noise2void", dropout=0.0, precision="float32")


def ctf(frequency, defocus, phase_shift=0.0):
    """sin(chi) for frequencies in 1/Å, defocus in µm; 300 kV, Cs 2.7 mm, amplitude 0.07."""
    energy = 300e3 * CHARGE
    wavelength = 1e10 * PLANCK * LIGHT / math.sqrt(energy * (energy + 2 * ELECTRON_MASS * LIGHT**2))
    chi = (
        np.pi * wavelength * defocus * 1e4 * frequency**2
        - np.pi / 2 * 2.7e7 * wavelength**3 * frequency**4
    )
    return np.sin(chi + math.asin(0.07) + math.radians(phase_shift))


def filtered(
    volume,
    voxel_size,
    defocus,
    strength=1.0,
    snr_falloff=1.0,
    highpass=0.02,
    phase_flipped=False,
    phase_shift=0.0,
):
    """The published program's filter, coefficient by coefficient of the full spectrum."""
    grids = np.meshgrid(*[np.fft.fftfreq(side) for side in volume.shape], indexing="ij")
    radius = 2 * np.sqrt(sum(grid**2 for grid in grids))
    rise = 1 - np.cos(np.pi * np.minimum(1, radius / max(highpass, 1e-9)))
    if highpass == 0:
        rise[...] = 2
    snr = np.exp(-radius * snr_falloff * 100 / voxel_size) * 10**strength * rise + 1e-6
    transfer = ctf(radius / (2 * voxel_size), defocus, phase_shift)
    if phase_flipped:
        transfer = np.abs(transfer)
    spectrum = np.fft.fftn(volume - volume.mean()) * transfer / (transfer**2 + 1 / snr)
    result = np.fft.ifftn(spectrum).real
    return result * volume.std() / result.std() + volume.mean()


def test_contrast_transfer_has_its_known_values():
    def at(frequency, **more):
        return contrast_transfer(
            torch.as_tensor(frequency, dtype=torch.float64), **dict(dict(defocus=3.0), **more)
        ).numpy()

    assert at(0.0) == pytest.approx(0.07)
    assert at(0.0, phase_shift=90.0) == pytest.approx(math.sqrt(1 - 0.07**2))
    # 3 µm underfocus: chi + asin(0.07) = pi at 1 / 24.6 Å.
    assert at(1 / 24.7) > 0 > at(1 / 24.5)
    # In focus only the spherical aberration is left, which is negative.
    assert at(0.15, defocus=0.0) < at(0.0, defocus=0.0)
    frequency = np.linspace(0, 0.3, 500)
    for defocus in (0.0, 1.5, 6.0):
        np.testing.assert_allclose(
            at(frequency, defocus=defocus), ctf(frequency, defocus), atol=5e-3
        )


@pytest.mark.parametrize(
    "settings",
    [
        dict(defocus=3.0),
        dict(defocus=6.0, phase_flipped=True, highpass=0.3),
        dict(defocus=6.0, strength=0.5, snr_falloff=0.4, highpass=0.0),
        dict(defocus=1.0, phase_shift=90.0, strength=2.0),
    ],
)
@pytest.mark.parametrize("shape", [(16, 20, 24), (15, 21, 17)])
def test_the_filter_is_the_published_formula(shape, settings):
    volume = np.random.default_rng(0).normal(100, 3, shape)
    result = deconvolved(volume, 12.0, DeconvolveConfig(**settings))
    np.testing.assert_allclose(result, filtered(volume, 12.0, **settings), atol=3 * 2e-3)
    assert result.mean() == pytest.approx(volume.mean(), rel=1e-5)
    assert result.std() == pytest.approx(volume.std(), rel=1e-4)
    assert np.corrcoef(result.ravel(), volume.ravel())[0, 1] < 0.9


def test_flipped_phases_are_not_flipped_again():
    """Where the CTF changes sign, the plain filter does too, and the one for flipped doesn't."""
    volume = np.random.default_rng(1).normal(size=(24, 24, 24))
    radius = np.sqrt(sum(grid**2 for grid in np.meshgrid(*[np.fft.fftfreq(24)] * 3, indexing="ij")))
    negative = (ctf(radius / 10.0, 6.0) < -0.1) & (radius <= 0.5)
    assert negative.sum() > 1000
    for flipped in (False, True):
        result = deconvolved(
            volume, 10.0, DeconvolveConfig(defocus=6.0, phase_flipped=flipped, snr_falloff=0.1)
        )
        ratio = (np.fft.fftn(result) / np.fft.fftn(volume)).real[negative]
        assert (ratio > 0).all() if flipped else (ratio < 0).all()


@pytest.mark.pictures
def test_a_file_keeps_its_header_mean_and_contrast(small, tmp_path, capsys):
    source = tmp_path / "own name.mrc"
    values = (data(small["tomogram"]) * 500 + 300).astype(np.int16)
    with mrcfile.new(source) as stream:
        stream.set_data(values)
        stream.voxel_size = 8.5
        for axis, value in zip("xyz", (10, 20, 30)):
            stream.header.origin[axis] = value
            stream.header[f"n{axis}start"] = -value
    config = DeconvolveConfig(tomograms=(str(source),), output=str(tmp_path / "out"), defocus=3.0)
    (result,) = deconvolve(config)
    assert result == str(tmp_path / "out" / "own name_deconvolved.mrc")
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == [
        "own name_deconvolved.mrc",
        "own name_deconvolved_slices.png",
    ]
    assert mrcfile.validate(result)
    with mrcfile.open(result) as stream:
        assert stream.data.dtype == np.float32
        np.testing.assert_allclose(
            stream.data, filtered(values.astype(float), 8.5, 3.0), atol=2e-3 * values.std()
        )
        assert float(stream.voxel_size.x) == pytest.approx(8.5)
        *_, label = labels(stream)
        assert label.rstrip() == f"F2Fd {__version__}: deconvolved"
        assert [float(stream.header.origin[axis]) for axis in "xyz"] == [10, 20, 30]
        assert [int(stream.header[f"n{axis}start"]) for axis in "xyz"] == [-10, -20, -30]
        before = stream.data.copy()
    with pytest.raises(UserError, match="own name_deconvolved.mrc exists already; it is kept"):
        deconvolve(config)
    deconvolve(
        DeconvolveConfig(
            tomograms=(str(source),), output=str(tmp_path / "out"), defocus=5.0, overwrite=True
        )
    )
    assert not np.allclose(data(result), before)


def test_the_voxel_size_is_the_stated_one(small, tmp_path):
    """As for a model's record, what the user says wins over the header, here with 10 Å."""
    values = data(small["tomogram"]).astype(float)
    expected = filtered(values, 7.5, 3.0)
    (result,) = deconvolve(
        DeconvolveConfig(
            tomograms=(small["tomogram"],), defocus=3.0, output=str(tmp_path), voxel_size=7.5
        )
    )
    np.testing.assert_allclose(data(result), expected, atol=2e-3 * values.std())
    assert mrc.open_volume(result).voxel_size == (7.5, 7.5, 7.5)
    (volume,) = open_volumes(
        TrainConfig(
            tomograms=(small["tomogram"],), clip=False, voxel_size=7.5, deconvolve=True, defocus=3.0
        )
    )
    np.testing.assert_allclose(
        volume.destandardise(whole(volume)), expected, atol=2e-3 * values.std()
    )


def test_inputs_and_pictures_of_the_user_are_kept(small, write, tmp_path):
    own = tmp_path / "tomogram_deconvolved_slices.png"
    own.write_bytes(b"mine")
    config = DeconvolveConfig(tomograms=(small["tomogram"],), output=str(tmp_path), defocus=3.0)
    with pytest.raises(UserError, match="deconvolved_slices.png exists already; it is kept"):
        deconvolve(config)
    inputs = small["tomogram"], write(data(small["odd"]), "tomogram_deconvolved.mrc")
    with pytest.raises(UserError, match="the input .*_deconvolved.mrc would be replaced"):
        deconvolve(dataclasses.replace(config, tomograms=inputs, overwrite=True))
    assert own.read_bytes() == b"mine"
    np.testing.assert_array_equal(data(inputs[1]), data(small["odd"]))


def test_a_voxel_size_of_1_is_doubted(small, write, tmp_path, capsys):
    """The filter with it is another one, and many programs write 1 when they don't know."""
    config = DeconvolveConfig(
        tomograms=(write(data(small["tomogram"]), voxel_size=1.0),),
        output=str(tmp_path / "out"),
        defocus=3.0,
    )
    deconvolve(config)
    assert "volume.mrc has voxel size 1 Å in its header" in capsys.readouterr().err
    deconvolve(dataclasses.replace(config, voxel_size=1.0, overwrite=True))
    assert "voxel size" not in capsys.readouterr().err


def test_a_bad_tomogram_is_found_before_anything_is_computed(small, tmp_path):
    bad = data(small["tomogram"])
    bad[3, 2, 1] = np.inf
    for path, words in (
        (save(tmp_path / "bad.mrc", bad), "bad.mrc holds 1 NaN or infinite voxels"),
        ("missing.mrc", "missing.mrc does not exist"),
        ("other/tomogram.mrc", "two tomograms are called tomogram"),
    ):
        with pytest.raises(UserError, match=words):
            deconvolve(
                DeconvolveConfig(
                    tomograms=(small["tomogram"], path), defocus=3.0, output=str(tmp_path / "out")
                )
            )
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def files(small, tmp_path_factory):
    """The tomogram as 'f2fd deconvolve' filters it: {defocus: path}."""
    folder = tmp_path_factory.mktemp("files")
    return {
        defocus: deconvolve(
            DeconvolveConfig(
                tomograms=(small["tomogram"],), defocus=defocus, output=str(folder / str(defocus))
            )
        )[0]
        for defocus in (3.0, 5.0)
    }


@pytest.fixture(scope="module")
def models(small, files, tmp_path_factory):
    """Models trained with deconvolution and on the filtered file."""
    folder = tmp_path_factory.mktemp("models")
    return (
        train(
            TrainConfig(
                tomograms=(small["tomogram"],),
                output=str(folder / "inside"),
                deconvolve=True,
                defocus=3.0,
                **BLIND,
            )
        ),
        train(TrainConfig(tomograms=(files[3.0],), output=str(folder / "outside"), **BLIND)),
    )


def quick(model, path, output, **options):
    """Denoise with one prediction; returns the voxels."""
    return data(
        denoise(
            DenoiseConfig(
                model=model,
                tomograms=(path,),
                output=str(output),
                predictions=1,
                tile_size=40,
                device="cpu",
                precision="float32",
                **options,
            )
        )[0]
    )


@pytest.mark.slow
def test_deconvolution_before_training_is_training_on_the_filtered_file(models):
    assert_same_weights(*models)


def test_denoising_filters_as_the_training_did(models, files, small, tmp_path):
    inside, outside = models
    plain = quick(outside, files[3.0], tmp_path / "a")
    np.testing.assert_allclose(
        quick(inside, small["tomogram"], tmp_path / "b"), plain, atol=1e-5 * plain.std()
    )
    other = quick(outside, files[5.0], tmp_path / "c")
    np.testing.assert_allclose(
        quick(inside, small["tomogram"], tmp_path / "d", defocus=5.0),
        other,
        atol=1e-5 * other.std(),
    )
    assert np.abs(other - plain).max() > 0.1 * plain.std()
    with pytest.raises(UserError, match="--defocus is 5; expected 0"):
        quick(outside, files[3.0], tmp_path / "e", defocus=5.0)


def test_filtered_voxels_are_there_for_one_tomogram_at_a_time(models, small, tmp_path, monkeypatch):
    """Their temporary files are as large as the tomograms."""
    made, counts = [], []

    class Counted(DiskArray):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(weakref.ref(self.array.base))
            counts.append(sum(array() is not None for array in made))

    monkeypatch.setattr(deconvolution, "DiskArray", Counted)
    denoise(
        DenoiseConfig(
            model=models[0],
            output=str(tmp_path),
            predictions=1,
            device="cpu",
            tomograms=tuple(small[name] for name in ("tomogram", "odd", "even")),
        )
    )
    assert counts == [1, 1, 1]


def test_both_half_maps_are_filtered(small, tmp_path):
    halves = (small["odd"], small["even"])
    (inside,) = open_volumes(
        TrainConfig(half_maps=halves, perturbation="noise2noise", deconvolve=True, defocus=3.0)
    )
    files = deconvolve(DeconvolveConfig(tomograms=halves, output=str(tmp_path), defocus=3.0))
    outside = HalfMaps([Volume(path) for path in files])
    for number in (0, 1):
        np.testing.assert_allclose(
            inside.half(number, (1, 2, 3), (16, 16, 16)),
            outside.half(number, (1, 2, 3), (16, 16, 16)),
            atol=1e-5,
        )
