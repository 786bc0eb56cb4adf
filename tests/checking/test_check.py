"""What a check measures, on signals and filters of which all is known; then the command itself."""

import dataclasses
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from conftest import Memory, data, synthesised

from f2fd_core import CheckConfig, TrainConfig, UserError, fourier
from f2fd_core.checking import invention, planted, start
from f2fd_core.checking.error import Estimate, resolution
from f2fd_core.checking.examine import DENOISED, REFERENCE, correlations, shells_of
from f2fd_core.checking.halves import independent_halves
from f2fd_core.checking.parts import MOST_VOXELS, parts_of
from f2fd_core.checking.places import CELL, Places, cell_means, smoothed
from f2fd_core.checking.run import check
from f2fd_core.checking.shells import DIFFERENCE, TOMOGRAM, Whole, Windowed
from f2fd_core.checking.verdict import MARKS, verdict
from f2fd_core.cli import main
from f2fd_core.data import mrc
from f2fd_core.data.half_maps import HalfMaps
from f2fd_core.data.rescaling import Rescaling
from f2fd_core.data.volume import Volume
from f2fd_core.network import checkpoint
from f2fd_core.noise import NoiseModel, Spectrum
from f2fd_core.perturbation import Perturbation

SHAPE = (48, 64, 72)
EVERYWHERE = ((0, 0, 0), SHAPE)


def signal_power(k):
    return 10 * torch.exp(-((k / 0.1) ** 2))


def noise_power(k):
    return 0.5 + 0.5 * torch.exp(-((k / 0.3) ** 2))


def wiener(k):
    """The linear filter with the least error."""
    return signal_power(k) / (signal_power(k) + noise_power(k))


class Filter:
    """A denoiser that multiplies the Fourier coefficients of a volume by a function of |k|."""

    def __init__(self, volume, gain):
        self.perturbation = Perturbation(volume, None)
        self.gain = gain

    def once(self):
        return self

    def context(self, part):
        return part

    def without_context(self, box, added=None, tomogram=True):
        values = self.perturbation.volume.region(*box) * tomogram + (0 if added is None else added)
        spectrum = torch.fft.rfftn(torch.from_numpy(values.astype(np.float32)))
        gain = self.gain(fourier.radial_frequency(box[1]))
        return torch.fft.irfftn(spectrum * gain, s=tuple(box[1])).numpy()

    def __call__(self, part, added=None, tomogram=True):
        return self.without_context(part, added, tomogram)


def noise_model(power=noise_power, window=(32, 32, 32)):
    grid = fourier.grid_of(window)
    values = power(grid.radius)
    level = grid.ratio(values, torch.ones_like(values))
    return NoiseModel(window, Spectrum(values, 0.8 * level, 1.2 * level), values)


@pytest.fixture(scope="module")
def known():
    """(volume, its signal): signal and noise of known spectra."""
    signal = synthesised(signal_power, SHAPE, 1).numpy()
    volume = Memory(signal + synthesised(noise_power, SHAPE, 2).numpy())
    volume.voxel_size = 10.0
    return volume, signal


def estimated(volume, gains):
    denoisers = {name: Filter(volume, gain) for name, gain in gains.items()}
    return shells_of(denoisers, noise_model(), 0, lambda: None, [EVERYWHERE])


def true(signal, result):
    return np.corrcoef(signal.ravel(), result.ravel())[0, 1]


@pytest.mark.parametrize(
    "gain",
    [
        wiener,
        lambda k: wiener(k) ** 3,
        lambda k: wiener(k) ** 0.3,
        lambda k: 0.2 + 0 * k,
        lambda k: -wiener(k),
    ],
)
def test_the_correlation_with_the_truth_is_estimated_without_it(known, gain):
    """Beside the best filter, those that smooth too much or too little, and the opposite sign."""
    volume, signal = known
    shells = estimated(volume, {DENOISED: gain, REFERENCE: wiener})[Whole]
    found = correlations(shells, [DENOISED, REFERENCE])
    result = Filter(volume, gain)(EVERYWHERE)
    assert found[DENOISED]["estimate"] == pytest.approx(true(signal, result), abs=0.03)
    assert found["tomogram"]["estimate"] == pytest.approx(true(signal, volume.array), abs=0.03)
    for values in found.values():
        assert values["low"] <= values["estimate"] <= values["high"]


def test_shells_show_the_noise_and_where_the_result_is_right(known):
    volume, signal = known
    shells = estimated(volume, {DENOISED: wiener})[Whole]
    estimate = Estimate(shells, [DENOISED])
    k = torch.from_numpy(shells.frequencies)
    expected = noise_power(k).numpy() * shells.count
    np.testing.assert_allclose(estimate.noise[4:30], expected[4:30], rtol=0.1)
    np.testing.assert_allclose(
        estimate.responses[DENOISED][2:20], wiener(k).numpy()[2:20], atol=0.03
    )
    curve, right = estimate.shell_correlation(DENOISED), np.sqrt(wiener(k).numpy())
    np.testing.assert_allclose(curve[2:8], right[2:8], atol=0.1)
    crossing = resolution(shells.frequencies, curve, 10.0)
    assert crossing == pytest.approx(10 / shells.frequencies[np.argmax(right < 0.5)], rel=0.1)


class Threshold(Filter):
    """A denoiser that keeps the voxels that stand out."""

    def without_context(self, box, added=None, tomogram=True):
        values = self.perturbation.volume.region(*box) * tomogram + (0 if added is None else added)
        return values / (1 + np.exp(-6 * (np.abs(values) - self.gain)))


def test_what_is_kept_of_the_noise_is_known_where_the_response_is_not_linear():
    """Stein's lemma, of noise whose covariance with the result can be measured: noise alone."""
    power = 1.0
    noise = synthesised(lambda k: power + 0 * k, SHAPE, 3).numpy()
    volume = Memory(noise)
    model = noise_model(lambda k: power + 0 * k)
    denoiser = Threshold(volume, 3.0)
    shells = shells_of({DENOISED: denoiser}, model, 0, lambda: None, [EVERYWHERE])[Whole]
    measured = (denoiser(EVERYWHERE) * noise).sum()
    expected = (shells.response(DENOISED) * shells.count).sum() * power
    assert expected == pytest.approx(measured, rel=0.04)


class Halves(Memory):
    """Half-maps of a volume: its noise and another of the same spectrum are in them."""


def test_half_maps_make_the_estimate_certain_unless_they_differ_by_more_than_noise(
    known, monkeypatch
):
    volume, signal = known
    halves = Halves(volume.array)
    halves.voxel_size = 10.0
    monkeypatch.setattr("f2fd_core.checking.examine.HalfMaps", Halves)
    found = {}
    for streaks in (0, 0.5):
        other = (1 + streaks) * synthesised(noise_power, SHAPE, 7).numpy()
        halves.difference = lambda start, size, other=other: other
        shells = estimated(halves, {DENOISED: wiener})[Whole]
        found[streaks] = correlations(shells, [DENOISED])[DENOISED]
        estimate = Estimate(shells, [DENOISED])
        assert estimate.by_half_maps == (streaks == 0)
        if not streaks:  # where what half-maps show is mostly chance, more is known without them
            truth = signal_power(torch.from_numpy(shells.frequencies)).numpy() * shells.count
            chance = np.sqrt(shells.chance())
            measured = shells[TOMOGRAM, TOMOGRAM] - shells.known_noise()
            weak, strong = truth < chance, (truth > 5 * chance) & (shells.count > 1000)
            assert weak.sum() > 10 and strong.sum() > 3
            np.testing.assert_allclose(estimate.signal[strong], measured[strong], rtol=0.1)
            errors = [np.square((one - truth)[weak]).sum() for one in (estimate.signal, measured)]
            assert errors[0] < 0.3 * errors[1]
            assert abs(estimate.signal.sum() - truth.sum()) < 3 * np.sqrt(shells.chance().sum())
        assert found[streaks]["low"] < found[streaks]["estimate"] < found[streaks]["high"]
    result = true(signal, Filter(volume, wiener)(EVERYWHERE))
    assert found[0]["low"] <= result <= found[0]["high"]
    widths = [one["high"] - one["low"] for one in found.values()]
    assert widths[0] < 0.6 * widths[1]


@pytest.mark.parametrize("kind", [Whole, Windowed])
def test_how_far_the_power_of_noise_and_of_half_maps_is_apart_by_chance(kind):
    """Over many pairs of volumes of noise that fills half of each shell, as beside a wedge."""
    shape, differences, chance = (32, 32, 32), [], []
    z, _, x = fourier.axis_frequencies(shape)
    seen = z.abs()[:, None, None] < x.abs()[None, None, :]
    for seed in range(40):
        shells, arrays = kind(shape), {}
        for number, name in enumerate((TOMOGRAM, DIFFERENCE)):
            white = synthesised(lambda k: 1 + 0 * k, shape, 2 * seed + number)
            arrays[name] = torch.fft.irfftn(torch.fft.rfftn(white) * seen, s=shape).numpy()
        pairs = [(name, name) for name in arrays]
        shells.add(arrays, pairs)
        differences.append(shells[pairs[0]] - shells[pairs[1]])
        chance.append(shells.chance())
    found = np.mean(chance, 0)[3:14] / np.var(differences, 0)[3:14]
    assert np.median(found) == pytest.approx(1, abs=0.4)


@pytest.mark.parametrize(("values", "contrast", "rate"), [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0)])
def test_invention_is_what_comes_of_noise(values, contrast, rate):
    result = synthesised(noise_power, SHAPE, 3).numpy()
    null = values * synthesised(noise_power, SHAPE, 4).numpy()
    found = invention.invention([result], [null])
    assert found["contrast"] == pytest.approx(contrast, abs=0.02)
    assert found["rate"] == pytest.approx(rate, abs=0.1)
    assert found["result"]["share"] == pytest.approx(invention.STRONGEST, rel=0.05)


def test_a_grid_is_what_repeats():
    smooth = synthesised(signal_power, SHAPE, 8).numpy()
    place = np.indices(SHAPE)
    for pattern in (place.sum(0) % 2, place[1] % 4 == 0, (place[0] % 8) * (place[2] % 2)):
        pattern = (pattern - pattern.mean()) / pattern.std()
        assert invention.grid(smooth + 0.1 * pattern) == pytest.approx(0.1, rel=0.1)
    assert invention.grid(smooth) < 0.05 * smooth.std()
    assert invention.grid(smooth[:12]) == 0


def test_things_are_connected_across_faces_edges_and_corners():
    values = np.zeros((8, 8, 8))
    values[1, 1, 1] = values[2, 2, 2] = -2  # of either sign
    values[6, 6, 1:6] = 1.5
    found = invention.things(values, 1)
    assert (found["count"], found["largest"], found["peak"]) == (2, 5, 2)


@pytest.mark.parametrize("name", planted.SHAPES)
def test_planted_structures_have_their_size_and_contrast(name):
    values = planted.structure(name, 10.0, np.random.default_rng(1))
    assert 0.9 < values.max() <= 1 and values.min() >= 0
    reach = [
        np.ptp(np.flatnonzero(values.max(tuple({0, 1, 2} - {axis})) > 0.3)) * 10
        for axis in range(3)
    ]
    assert 0.6 * planted.SHAPES[name][0] < max(reach) <= planted.SHAPES[name][0] + 20
    for axis in range(3):  # room around it
        assert values.take([0, -1], axis).max() < 0.1


def test_what_is_planted_comes_out_of_what_keeps_all_and_not_of_what_keeps_nothing(monkeypatch):
    monkeypatch.setattr(planted, "PLACES", 2)
    volume = Memory(synthesised(noise_power, SHAPE, 5).numpy())
    volume.voxel_size = 10.0
    steps = []
    kept, halved, none = (
        planted.plant(
            Filter(volume, lambda k, gain=gain: gain + 0 * k),
            noise_model(),
            -1.0,
            0,
            lambda: steps.append(1),
        )
        for gain in (1, 0.4, 0)
    )
    assert len(steps) == 3 * planted.predictions(volume)
    for name in planted.fitting(volume):
        np.testing.assert_allclose(kept[name]["recovered"], 1, atol=1e-4)
        np.testing.assert_allclose(kept[name]["likeness"], 1, atol=1e-4)
        np.testing.assert_allclose(kept[name]["beside"], 0, atol=1e-3)
        np.testing.assert_allclose(halved[name]["recovered"], 0.4, atol=1e-4)
        assert [one[name]["from"] for one in (kept, halved, none)] == [0.1, None, None]


def test_what_no_tilt_shows_is_not_planted():
    window = (32, 32, 32)
    grid = fourier.grid_of(window)
    z, _, x = torch.meshgrid(*fourier.axis_frequencies(window), indexing="ij")
    power = (z.abs() <= 1.7 * x.abs() + 0.02).float()
    level = grid.ratio(power, torch.ones_like(power))
    noise = NoiseModel(window, Spectrum(power, level, level), power)
    values = synthesised(lambda k: 1 + 0 * k, window, 6).numpy()
    spectrum = torch.fft.rfftn(torch.from_numpy(planted.as_measured(values, noise))).abs() ** 2
    missing = (power == 0) & (grid.radius < 0.5)
    assert float(spectrum[missing].sum()) < 1e-6 * float(spectrum.sum())
    assert float(spectrum[power > 0].mean()) == pytest.approx(np.prod(window), rel=0.1)


def test_large_tomograms_are_checked_in_parts():
    assert parts_of(SHAPE) == [EVERYWHERE]
    parts = parts_of((200, 900, 1000))
    assert len({size for _, size in parts}) == 1 and len(set(parts)) == len(parts) > 5
    assert sum(np.prod(size) for _, size in parts) <= MOST_VOXELS
    for first, size in parts:
        assert all(
            0 <= at <= length - side for at, side, length in zip(first, size, (200, 900, 1000))
        )


def test_maps_have_each_place_its_value(tmp_path):
    shape = (40, 64, 48)
    ramp = np.broadcast_to(np.arange(64.0)[None, :, None], shape)
    places = Places(shape)
    places.put((0, 0, 0), cell_means(ramp[:, :32]))
    places.put((0, 32, 0), cell_means(ramp[:, 32:]))
    assert np.isfinite(places.cells).all()
    path = str(tmp_path / "ramp.mrc")
    mrc.write_volume(str(tmp_path / "like.mrc"), np.random.rand(*shape).astype(np.float32), 7.0)
    places.write(path, mrc.open_volume(str(tmp_path / "like.mrc")), "a map")
    written = data(path)
    inner = slice(CELL // 2, -CELL // 2)
    np.testing.assert_allclose(written[:, inner], ramp[:, inner], atol=1e-4)
    np.testing.assert_allclose(places.section(20), written[20], atol=1e-6)
    like = mrc.open_volume(str(tmp_path / "like.mrc"))
    assert mrc.open_volume(path).voxel_size == like.voxel_size
    # A constant stays one, smoothed or not, and cells of no part have the nearest value.
    np.testing.assert_allclose(smoothed(np.full((3, 4, 5), 2.0)), 2)
    partly = Places((2 * CELL, 4 * CELL, CELL))
    partly.put((0, 0, 0), np.full((2, 1, 1), 3.0))
    np.testing.assert_allclose(partly.section(5), 3)


@pytest.mark.parametrize("factor", [0.6, 1.5])
def test_maps_of_a_rescaled_tomogram_are_on_its_own_grid(write, tmp_path, factor):
    """A ramp by place is the same ramp there, whatever the voxels that were looked at."""
    shape = (40, 64, 48)
    own = mrc.open_volume(write(np.random.rand(*shape), voxel_size=7.0))
    rescaling = Rescaling(shape, factor)
    place = np.interp(np.arange(rescaling.scaled[1]), rescaling.places(1, np.arange(64)), range(64))
    places = Places(rescaling.scaled)
    ramp = np.broadcast_to(place[None, :, None], rescaling.scaled)
    places.put((0, 0, 0), cell_means(ramp))
    places.write(str(tmp_path / "map.mrc"), own, "a map", rescaling)
    written = mrc.open_volume(str(tmp_path / "map.mrc"))
    assert written.shape == shape and written.voxel_size == own.voxel_size
    inner = slice(14, 38)  # between the middles of the first and the last whole cell
    expected = np.broadcast_to(np.arange(64.0)[None, :, None], shape)[:, inner]
    np.testing.assert_allclose(written.data[:, inner], expected, atol=0.1)


def test_nothing_is_measured_that_the_voxels_of_the_file_can_not_show(write):
    """Brought to smaller voxels, a tomogram has nothing beyond its own Nyquist frequency."""
    volume = Volume(write(synthesised(noise_power, (24, 32, 36), 1), voxel_size=20.0))
    finer, coarser = volume.rescaled(10.0), volume.rescaled(30.0)
    assert (volume.nyquist, finer.nyquist, coarser.nyquist) == (0.5, 0.25, 0.5)
    shells = Whole(finer.shape, finer.nyquist)
    everything = ((0, 0, 0), finer.shape)
    shells.add({"x": finer.region(*everything)}, [("x", "x")])
    all_shells = Whole(finer.shape)
    all_shells.add({"x": finer.region(*everything)}, [("x", "x")])
    assert len(shells.frequencies) < 0.6 * len(all_shells.frequencies)
    assert shells["x", "x"].sum() > 0.97 * all_shells["x", "x"].sum()
    assert Windowed(finer.shape, finer.nyquist).frequencies.max() < 0.25


GOOD = {
    "correlation": {
        name: {"estimate": value, "low": value - 0.05, "high": value + 0.05}
        for name, value in (
            ("denoised", 0.8),
            ("start", 0.75),
            ("reference", 0.79),
            ("tomogram", 0.3),
            ("gaussian", 0.5),
        )
    },
    "shells": {
        "resolution": 40.0,
        "noise_share": [0.3, 0.9],
        "removed_over_noise": [0.7, 1.0],
        "response": [0.5, 0.1],
    },
    "invention": {"contrast": 0.03, "rate": 0.0, "grid": 0.001},
    "seams": 0.02,
    "half_maps": False,
    "opposite": False,
    "planted": {"sphere": {"from": 0.5}},
}


def changed(*path, value):
    numbers = json.loads(json.dumps(GOOD))
    inner = numbers
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return numbers


@pytest.mark.parametrize(
    ("path", "value", "place", "mark"),
    [
        (("correlation", "start", "estimate"), 0.85, 0, "red"),
        (("correlation", "gaussian", "estimate"), 0.9, 0, "red"),
        (("correlation", "reference", "estimate"), 0.9, 0, "yellow"),
        (("opposite",), True, 0, "yellow"),
        (("invention", "contrast"), 0.3, 2, "yellow"),
        (("invention", "contrast"), 0.6, 2, "red"),
        (("invention", "rate"), 0.05, 2, "yellow"),
        (("invention", "rate"), 0.2, 2, "red"),
        (("planted", "sphere", "from"), 2.0, 3, "yellow"),
        (("planted", "sphere", "from"), None, 3, "red"),
        (("shells", "removed_over_noise"), [2.0, 1.0], 4, "yellow"),
        (("shells", "removed_over_noise"), [3.0, 1.0], 4, "red"),
        (("shells", "response"), [0.5, -0.2], 4, "red"),
        (("invention", "grid"), 0.05, 4, "yellow"),
        (("invention", "grid"), 0.2, 4, "red"),
        (("seams",), 0.15, 4, "yellow"),
        (("seams",), 0.4, 4, "red"),
    ],
)
def test_each_defect_has_its_mark(path, value, place, mark):
    assert [entry["mark"] for entry in verdict(GOOD)] == ["green"] * 5
    marks = [entry["mark"] for entry in verdict(changed(*path, value=value))]
    assert marks[place] == mark
    # An estimate is worth nothing where much is invented.
    expected = [
        "red" if (place, mark) == (2, "red") and number < 2 else "green" for number in range(5)
    ]
    expected[place] = mark
    assert marks == expected


def test_a_poor_result_is_said_to_be_poor():
    numbers = json.loads(json.dumps(GOOD))
    for found in numbers["correlation"].values():
        found["estimate"] *= 0.4
    assert verdict(numbers)[1]["mark"] == "red"


# ------------------------------ The command -------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """A check in seconds: hardly any training of its own, one place for each structure."""
    monkeypatch.setattr(start, "STEPS", 1)
    monkeypatch.setattr(planted, "PLACES", 1)


def run(*arguments):
    return main(["check", *map(str, arguments), "--device", "cpu", "--threads", "1"])


@pytest.mark.slow
@pytest.mark.pictures
def test_the_report_is_one_page_with_all_in_it(quick, phantom, tiny_model, tmp_path, capsys):
    model, tomogram = tiny_model / "model.pt", phantom["tomogram"]
    output = tmp_path / "out"
    assert run(model, tomogram, "--output", output) == 0
    said = capsys.readouterr().err
    assert "estimated correlation with the truth" in said and "report.html" in said
    page = (output / "report.html").read_text(encoding="utf-8")
    found = json.loads((output / "report.json").read_text(encoding="utf-8"))
    numbers = found[tomogram]
    assert [entry["mark"] in MARKS for entry in numbers["verdict"]] == [True] * 5
    for entry in numbers["verdict"]:
        assert entry["sentence"].replace("'", "&#x27;") in page
    assert not re.search(r"(src|href)=.?(?!data:|#)\w", page) and "<script" not in page
    assert page.count("data:image/png;base64,") == 4
    folder = output / "tomogram"
    like = mrc.open_volume(tomogram)
    for name in ("error.mrc", "removed.mrc"):
        written = mrc.open_volume(str(folder / name))
        assert written.shape == like.shape and written.voxel_size == like.voxel_size
        assert np.isfinite(written.data).all()
    error = data(str(folder / "error.mrc"))
    assert 0 <= error.min() <= error.max() <= 1
    # Refused, skipped, and made again of another model.
    assert run(model, tomogram, "--output", output) == 2
    assert "exists already" in capsys.readouterr().err
    assert run(model, tomogram, "--output", output, "--resume") == 0
    assert "was checked: skipped" in capsys.readouterr().err
    other = tiny_model / "checkpoints" / "step_00000003.pt"
    assert run(other, tomogram, "--output", output, "--resume") == 0
    assert "skipped" not in capsys.readouterr().err
    again = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert again[tomogram]["about"]["step"] == 3


@pytest.mark.slow
def test_a_rescaled_tomogram_is_checked_at_the_models_voxel_size(
    quick, phantom, tiny_model, write, tmp_path, capsys
):
    """As one that was rescaled before; the maps are on the tomogram's own grid."""
    own = write(data(phantom["tomogram"])[:, :48, :48], "own.mrc", voxel_size=8.0)
    rescaled = Rescaling(data(own).shape, 0.8).there(data(own))
    before = write(rescaled, "before.mrc", voxel_size=10.0)
    model, output = tiny_model / "model.pt", tmp_path / "out"
    assert run(model, own, before, "--output", output, "--rescale") == 0
    assert "results may suffer" not in capsys.readouterr().err
    found = json.loads((output / "report.json").read_text(encoding="utf-8"))
    inside, outside = found[own], found[before]
    for key in ("correlation", "planted"):
        for name, expected in outside[key].items():
            for value in {"estimate", "low", "high", "recovered"} & set(expected):
                np.testing.assert_allclose(inside[key][name][value], expected[value], atol=2e-3)
    assert inside["shells"]["frequency"] == outside["shells"]["frequency"]
    assert (inside["about"]["voxel_size"], inside["about"]["checked_at"]) == (8, 10)
    assert inside["about"]["shape"] == list(data(own).shape)
    page = (output / "report.html").read_text(encoding="utf-8")
    assert page.count("8 Å, rescaled to 10 Å for the check") == 1
    for name in ("error.mrc", "removed.mrc"):
        written = mrc.open_volume(str(output / "own" / name))
        assert written.shape == data(own).shape and written.voxel_size == (8, 8, 8)
        other = data(str(output / "before" / name))
        assert data(written.path).mean() == pytest.approx(other.mean(), abs=0.02)
    # Without it there is a warning, and with it another report.
    assert run(model, own, "--output", output, "--resume") == 0
    said = capsys.readouterr().err
    assert "trained at 10 Å; results may suffer; --rescale avoids it" in said
    assert "skipped" not in said


@pytest.mark.slow
@pytest.mark.parametrize("voxel_size", [10.0, 8.0])
def test_half_maps_and_independent_halves(quick, phantom, tiny_model, write, tmp_path, voxel_size):
    halves = [
        write(data(phantom[name]), f"{name}.mrc", voxel_size=voxel_size) for name in ("odd", "even")
    ]
    path = check(
        CheckConfig(
            model=str(tiny_model / "model.pt"),
            half_maps=tuple(halves),
            output=str(tmp_path / "out"),
            independent=True,
            rescale=True,
            device="cpu",
            threads=1,
        )
    )
    (numbers,) = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8")).values()
    curve = np.array(numbers["halves"]["fsc"])
    assert np.abs(curve).max() <= 1.001 and curve.mean() > 0.1
    assert np.mean(numbers["halves"]["fsc_before"][1:4]) > 0.7
    assert max(numbers["halves"]["frequency"]) < 0.05  # Nyquist at the model's voxel size
    assert os.path.exists(os.path.join(tmp_path, "out", "odd", "odd", "model.pt"))
    with open(path, encoding="utf-8") as stream:
        assert stream.read().count("data:image/png;base64,") == 5


@pytest.mark.slow
def test_halves_that_differ_by_more_than_noise_are_as_none(
    quick, phantom, tiny_model, write, tmp_path, capsys
):
    """Such as those of every other tilt of a thick specimen, which differ by streaks."""
    odd, even, whole = (data(phantom[name]) for name in ("odd", "even", "tomogram"))
    streaks = np.roll(odd - even, [side // 2 for side in odd.shape], (0, 1, 2)) / 2
    paths = write(odd + streaks, "odd.mrc"), write(even - streaks, "even.mrc")
    model, reports = tiny_model / "model.pt", []
    for halves in ((), ("--half-maps", *paths)):
        output = tmp_path / str(len(halves))
        assert run(model, write(whole, "whole.mrc"), *halves, "--output", output) == 0
        (numbers,) = json.loads((output / "report.json").read_text(encoding="utf-8")).values()
        reports.append(numbers)
    assert "differ by more than noise" in capsys.readouterr().err
    alone, both = (numbers["correlation"]["denoised"] for numbers in reports)
    assert both == {key: pytest.approx(value, abs=0.002) for key, value in alone.items()}
    assert "several networks" in reports[1]["verdict"][1]["sentence"]


def test_halves_have_the_ctf_of_their_tomogram(phantom, tmp_path, monkeypatch):
    """By whose name it stands in the file of CTFs, which has none for either half."""
    table = tmp_path / "ctf.csv"
    table.write_text("tomogram,defocus\nTS_1,3.5\nTS_2,4.5\n")
    trained = TrainConfig(tomograms=("TS_1.mrc",), deconvolve=True, ctf="other.csv")
    halves = [Volume(phantom[side]) for side in ("odd", "even")]
    asked = []
    monkeypatch.setattr(
        "f2fd_core.checking.halves.train", lambda config: asked.append(config) or "m.pt"
    )
    monkeypatch.setattr("f2fd_core.checking.halves.denoise", lambda config: list(config.tomograms))
    config = CheckConfig(model="model.pt", device="cpu", ctf=str(table))
    independent_halves(config, HalfMaps(halves, "TS_2.mrc"), trained, str(tmp_path))
    assert [(one.defocus, one.ctf) for one in asked] == [(4.5, "")] * 2


@pytest.mark.slow
@pytest.mark.reliability(
    "a task of several that check a set killed", "the page has what the others checked"
)
def test_tasks_of_a_queue_share_the_tomograms(
    quick, phantom, write, tiny_model, tmp_path, monkeypatch
):
    """Each writes the page with what is there; what one that died leaves, --resume does."""
    part = data(phantom["tomogram"])[:32, :32, :32]
    paths = [write(part, f"{name}.mrc") for name in "abc"]

    def checked(**more):
        check(
            CheckConfig(
                model=str(tiny_model / "model.pt"),
                tomograms=tuple(paths),
                output=str(tmp_path / "out"),
                device="cpu",
                threads=1,
                **more,
            )
        )
        return set(json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8")))

    for name, value in (("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("RANK", "1")
    assert checked() == {paths[1]}
    monkeypatch.setenv("RANK", "0")
    assert checked() == set(paths)
    with pytest.raises(UserError, match="out/a exists already"):
        checked()
    # Alone, after a task that died.
    (tmp_path / "out" / "b" / "report.json").unlink()
    monkeypatch.delenv("WORLD_SIZE")
    kept = (tmp_path / "out" / "a" / "report.json").stat().st_mtime_ns
    assert checked(resume=True) == set(paths)
    assert (tmp_path / "out" / "a" / "report.json").stat().st_mtime_ns == kept


def test_what_can_not_be_checked_is_refused(phantom, tiny_model, tmp_path):
    def config(**more):
        return CheckConfig(
            **dict(
                dict(
                    model=str(tiny_model / "model.pt"),
                    tomograms=(phantom["tomogram"],),
                    device="cpu",
                    output=str(tmp_path / "out"),
                ),
                **more,
            )
        )

    state = checkpoint.load(str(tiny_model / "model.pt"))
    masked = str(tmp_path / "masked.pt")
    network, trained = checkpoint.restore(state, "")
    checkpoint.save(
        masked,
        network.state_dict(),
        dataclasses.replace(trained, perturbation="self2self"),
        1,
        10.0,
    )
    tiny = str(tmp_path / "tiny.mrc")
    mrc.write_volume(tiny, np.random.rand(24, 24, 40).astype(np.float32), 10.0)
    for settings, words in (
        (config(model=masked), "the perturbation self2self.*expected a model of"),
        (config(tomograms=(str(tmp_path / "none.mrc"),)), "none.mrc"),
        (config(model=phantom["tomogram"]), "not an F2Fd model"),
        (config(tomograms=(tiny,)), "has 24 x 24 x 40 voxels .*; expected at least 32768"),
        (
            config(rescale=True, voxel_size=4.0),
            "has 16 x 21 x 29 voxels of 10 Å .*; expected at least 32768",
        ),
        (config(tile_size=36), "--tile-size is 36; expected a multiple of"),
    ):
        with pytest.raises(UserError, match=words):
            check(settings)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="--independent is given without --half-maps"):
        config(independent=True)
    with pytest.raises(UserError, match="would be replaced"):
        folder = tmp_path / "tomogram"
        folder.mkdir()
        inside = str(folder / "tomogram.mrc")
        shutil.copy(phantom["tomogram"], inside)
        check(config(tomograms=(inside,), output=str(tmp_path), overwrite=True))


def test_a_tomogram_without_noise_is_named_and_the_others_are_checked(
    quick, phantom, tiny_model, tmp_path, capsys
):
    """There is nothing by which its error could be estimated."""
    clean = phantom["clean"]
    model, output = str(tiny_model / "model.pt"), tmp_path / "out"
    config = CheckConfig(
        model=model,
        tomograms=(clean, phantom["tomogram"]),
        output=str(output),
        device="cpu",
        threads=1,
    )
    with pytest.raises(UserError, match="clean.mrc: hardly any noise.*expected tomograms as"):
        check(config)
    assert set(json.loads((output / "report.json").read_text(encoding="utf-8"))) == {
        phantom["tomogram"]
    }
    alone = dataclasses.replace(config, tomograms=(clean,), output=str(tmp_path / "alone"))
    for _ in range(2):
        with pytest.raises(UserError, match="clean.mrc: hardly any noise"):
            check(alone)
        assert not (tmp_path / "alone" / "report.html").exists()
    capsys.readouterr()
    assert main(["denoise", model, clean, "--device", "cpu", "--output", str(tmp_path)]) == 0
    assert "estimated correlation" not in capsys.readouterr().err


@pytest.mark.slow
def test_the_missing_wedge_has_its_part_of_the_report(quick, phantom, filler, tmp_path):
    output = tmp_path / "out"
    assert run(filler / "model.pt", phantom["tomogram"], "--output", output) == 0
    (numbers,) = json.loads((output / "report.json").read_text(encoding="utf-8")).values()
    assert numbers["wedge"]["tilt_range"] == pytest.approx([-60, 60], abs=4)
    title, sentence = (numbers["verdict"][-1][key] for key in ("title", "sentence"))
    assert title == "Is the wedge right?" and "is predicted, not measured" in sentence
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "Missing wedge</h3>" in page and page.count("data:image/png;base64,") == 5


@pytest.mark.slow
def test_denoising_ends_with_a_verdict(phantom, tiny_model, tmp_path, capsys):
    """Numbers beside the result, and a warning where the model is worse than its start."""
    arguments = [
        "denoise",
        str(tiny_model / "model.pt"),
        phantom["tomogram"],
        "--device",
        "cpu",
        "--threads",
        "1",
        "--output",
    ]
    assert main([*arguments, str(tmp_path)]) == 0
    said = capsys.readouterr().err
    found = json.loads((tmp_path / "tomogram_check.json").read_text(encoding="utf-8"))
    assert found["worse"] == (
        found["denoised"]["estimate"]
        < max(found[name]["estimate"] for name in ("tomogram", "gaussian", "start")) - 0.01
    )
    assert (f"warning: {phantom['tomogram']}: the estimated" in said) == found["worse"]
    value = found["denoised"]
    assert f"{value['estimate']:.2f} ({value['low']:.2f} to {value['high']:.2f})" in said
    assert main([*arguments, str(tmp_path)]) == 2
    finer = ["--voxel-size", "8", "--rescale"]
    assert main([*arguments, str(tmp_path / "finer"), *finer]) == 0
    assert "correlation with the truth, at 10 Å, is" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed")
@pytest.mark.pictures
def test_the_page_opens_in_a_browser(quick, phantom, tiny_model, tmp_path):
    path = check(
        CheckConfig(
            model=str(tiny_model / "model.pt"),
            tomograms=(phantom["tomogram"],),
            output=str(tmp_path / "out"),
            device="cpu",
            threads=1,
        )
    )
    for width in (1200, 390):
        picture = tmp_path / (f"{width}.png")
        subprocess.run(
            [
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                f"--user-data-dir={tmp_path / 'browser'}",
                f"--window-size={width},3000",
                f"--screenshot={picture}",
                "file://" + path,
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
        from matplotlib import image

        pixels = image.imread(str(picture))[..., :3]
        # The marks' colours and, of the pictures, many shades are there.
        assert len(np.unique((255 * pixels).astype(np.uint8).reshape(-1, 3), axis=0)) > 500
        assert pixels.shape[1] == width and pixels[-1].std() < 0.5
