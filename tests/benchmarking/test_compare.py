import csv
import multiprocessing
import os

import mrcfile
import numpy as np
import pytest
import torch

from f2fd_core import BenchmarkConfig, UserError, benchmark, fourier
from f2fd_core.benchmarking import compare, methods
from f2fd_core.benchmarking.cases import RECONSTRUCTED, _simulation, simulated_case
from f2fd_core.benchmarking.compare import means, scores_of
from f2fd_core.data import mrc
from f2fd_core.evaluation.metrics import correlation, crossing, fourier_shell_correlation
from f2fd_core.simulation.microscope import simulate_volumes

SHAPE = (32, 48, 48)


def read(path):
    return np.array(mrc.open_volume(path).data, dtype=np.float64)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A case by its name, as {volume's name: array}, with the case itself."""
    made = {}

    def simulated(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            config = BenchmarkConfig(output=str(folder), shape=SHAPE)
            one = simulated_case(name, config, 0.1, 1, str(folder))
            made[name] = one, {path.stem: read(str(path)) for path in folder.glob("*.mrc")}
        return made[name]

    return simulated


def test_uneven_noise_changes_with_depth_and_the_specimen_does_not(case):
    (_, even), (_, uneven) = case("cell"), case("uneven")
    np.testing.assert_array_equal(even["clean"], uneven["clean"])
    ratio = (uneven["tomogram"] - uneven["clean"]).std((1, 2)) / (
        even["tomogram"] - even["clean"]
    ).std((1, 2))
    assert ratio[-1] / ratio[0] > 1.5
    np.testing.assert_allclose(uneven["tomogram"], (uneven["odd"] + uneven["even"]) / 2, atol=1e-5)


@pytest.mark.parametrize("name", RECONSTRUCTED)
def test_a_cell_tilted_or_reconstructed_otherwise_is_the_same_specimen(case, name):
    (_, usual), (_, other) = case("cell"), case(name)
    np.testing.assert_array_equal(usual["density"], other["density"])
    assert np.corrcoef(usual["clean"].ravel(), other["clean"].ravel())[0, 1] > 0.5
    assert not np.allclose(usual["clean"], other["clean"], atol=0.05 * usual["clean"].std())


def test_low_passed_volumes_have_an_empty_band(case):
    _, volumes = case("lowpass")
    high = fourier.radial_frequency(SHAPE) > 0.3
    for name in ("tomogram", "clean", "odd", "even"):
        power = torch.fft.rfftn(torch.from_numpy(volumes[name])).abs() ** 2
        assert power[high].sum() < 1e-6 * power.sum()


@pytest.mark.slow
def test_binned_volumes_have_the_asked_size_and_the_mean_of_eight_voxels(case):
    one, volumes = case("binned")
    assert volumes["tomogram"].shape == SHAPE
    assert mrc.open_volume(one.tomogram).voxel_size[0] == pytest.approx(10.0)


@pytest.mark.slow
def test_thick_tomograms_are_scored_without_streaks(case):
    """Their reference shows the same specimen, from six times as many tilts."""
    one, volumes = case("thick")
    assert volumes["tomogram"].shape == (3 * SHAPE[0], SHAPE[1] // 2, 3 * SHAPE[2])
    noise_free = simulate_volumes(_simulation("thick", BenchmarkConfig(shape=SHAPE), 1e9, 1))
    streaks = noise_free["tomogram"] - volumes["clean"]
    shells = [
        fourier.shell_means(
            torch.fft.rfftn(torch.from_numpy(volume).float()).abs() ** 2, volume.shape
        )
        for volume in (streaks, volumes["clean"])
    ]
    frequency, share = shells[0][0], shells[0][1] / shells[1][1]
    # Slices 3 degrees apart overlap up to 1 / (96 x 0.052) = 0.2 cycles per voxel.
    assert share[frequency < 0.1].max() < 0.03
    assert share[(frequency > 0.2) & (frequency < 0.4)].min() > 0.1
    assert one.reference and one.membrane


def test_rounded_volumes_have_few_values(case):
    _, volumes = case("int8")
    assert 50 < len(np.unique(volumes["tomogram"])) <= 256
    assert len(np.unique(volumes["clean"])) > 1000


def test_cases_without_noise_or_signal(case):
    one, volumes = case("noisefree")
    np.testing.assert_array_equal(volumes["tomogram"], volumes["clean"])
    assert scores_of(one.tomogram, one)["correlation"] == pytest.approx(1)
    empty, _ = case("empty")
    assert empty.reference is None and empty.membrane is None
    assert scores_of(empty.tomogram, empty) == {"contrast": 1.0}


@pytest.fixture
def without_processes(monkeypatch):
    """Methods run in this process: to start one takes longer than a small method does."""
    monkeypatch.setattr(compare, "in_own_process", methods.run)


def rows_of(folder):
    with open(folder / "scores.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_all_kinds_of_methods_on_a_simulated_tomogram(tmp_path, without_processes):
    pytest.importorskip("skimage")
    config = BenchmarkConfig(
        output=str(tmp_path),
        shape=SHAPE,
        cases=("cell",),
        steps=3,
        methods=("noise_matched", "noise2noise", "gaussian", "tv", "nlm", "deconvolve"),
        device="cpu",
    )
    table = benchmark(config)
    rows = {row["method"]: row for row in rows_of(tmp_path)}
    # Filters first, then the default method, whose time the others get.
    assert list(rows) == [
        "input",
        "gaussian",
        "tv",
        "nlm",
        "deconvolve",
        "noise_matched",
        "noise2noise",
        "reference",
    ]
    folder = tmp_path / "cell_snr0.1_seed1"
    best = float(rows.pop("reference")["membrane_average_precision"])
    assert 1 >= best > float(rows["input"]["membrane_average_precision"])
    clean = torch.from_numpy(read(str(folder / "clean.mrc")))
    for name, row in rows.items():
        path = folder / (f"{('tomogram' if name == 'input' else name)}.mrc")
        found = correlation(torch.from_numpy(read(str(path))), clean)
        assert float(row["correlation"]) == pytest.approx(found, abs=1e-4)
        assert mrc.open_volume(str(path)).voxel_size[0] == pytest.approx(10.0)
    for name in ("gaussian", "tv", "nlm"):
        assert float(rows[name]["correlation"]) > float(rows["input"]["correlation"])
        assert rows[name]["setting"]
    assert rows["noise_matched"]["steps"] == "3" and int(rows["noise2noise"]["steps"]) >= 1
    assert float(rows["noise_matched"]["train_seconds"]) > 0
    assert table == (tmp_path / "scores.md").read_text(encoding="utf-8").rstrip("\n")
    assert (tmp_path / "methods.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(UserError, match="exists already"):
        benchmark(config)


@pytest.mark.slow
def test_equal_steps(tmp_path, without_processes):
    benchmark(
        BenchmarkConfig(
            output=str(tmp_path),
            shape=SHAPE,
            cases=("cell",),
            steps=3,
            methods=("self2self", "noise_matched"),
            equal="steps",
            device="cpu",
        )
    )
    assert [row["steps"] for row in rows_of(tmp_path)] == ["", "3", "3", ""]


@pytest.mark.slow
def test_the_default_and_half_maps_start_from_shapes_alike(tmp_path, without_processes):
    """After a single step they know what shapes teach; random weights, and the other methods,
    which start with them, don't."""
    found = {}
    for start in ("random", "shapes"):
        folder = tmp_path / start
        benchmark(
            BenchmarkConfig(
                output=str(folder),
                shape=SHAPE,
                steps=1,
                equal="steps",
                start=start,
                cases=("cell",),
                device="cpu",
                methods=("noise_matched", "noise2noise", "fourier_masks"),
            )
        )
        found[start] = {
            row["method"]: float(row["correlation"])
            for row in rows_of(folder)
            if row["correlation"]
        }
    assert found["shapes"]["fourier_masks"] == found["random"]["fourier_masks"]
    for method in ("noise_matched", "noise2noise"):
        assert found["shapes"][method] > found["random"][method] + 0.2


@pytest.mark.slow
def test_a_method_takes_memory_of_its_own(tmp_path):
    """In its process, so that what others took before does not count: a filter trains nothing."""
    benchmark(
        BenchmarkConfig(
            output=str(tmp_path),
            shape=SHAPE,
            cases=("cell",),
            steps=3,
            methods=("self2self", "gaussian"),
            device="cpu",
        )
    )
    _, filtered, learned, _ = rows_of(tmp_path)
    assert 0.05 < float(filtered["peak_gib"]) < float(learned["peak_gib"]) < 8


def test_a_tomogram_of_ones_own_with_half_maps(phantom, tmp_path, without_processes):
    benchmark(
        BenchmarkConfig(
            output=str(tmp_path),
            tomogram=phantom["tomogram"],
            steps=2,
            device="cpu",
            half_maps=(phantom["odd"], phantom["even"]),
            methods=("deconvolve",),
        )
    )
    rows = {row["method"]: row for row in rows_of(tmp_path)}
    odd, even = (
        torch.from_numpy(read(str(tmp_path / "volumes" / (f"deconvolve_half_{n}.mrc"))))
        for n in (0, 1)
    )
    expected = crossing(*fourier_shell_correlation(odd.float(), even.float()), 0.143)
    assert float(rows["deconvolve"]["fsc_halves_0.143"]) == pytest.approx(expected, rel=1e-3)
    assert rows["deconvolve"]["correlation"] == ""


def test_columns_of_the_picture_are_one_method_each(monkeypatch):
    """Also where a case lacks one, or has one that the first has not."""
    monkeypatch.setattr(compare, "_section", lambda path: path)
    drawn = []
    monkeypatch.setattr(compare.figures, "draw_grid", lambda grid, path: drawn.extend(grid))
    rows = [
        dict(case=case, snr=1.0, seed=1, method=method, correlation=0.5)
        for case in ("cell", "sirt")
        for method in ("input", "tv", "noise2noise")
    ]
    compare.draw(
        {
            ("cell", 1.0): {"input": "a", "tv": "b", "reference": "c"},
            ("sirt", 1.0): {"input": "d", "noise2noise": "e", "reference": "f"},
        },
        rows,
        "",
    )
    assert [(label, [cell and cell[:2] for cell in cells]) for label, cells in drawn] == [
        ("cell, SNR 1", [("input", "a"), ("tv", "b"), None, ("reference", "c")]),
        ("sirt, SNR 1", [("input", "d"), None, ("noise2noise", "e"), ("reference", "f")]),
    ]


def test_means_are_over_the_seeds_only():
    rows = [
        dict(case="cell", snr=snr, seed=seed, method=method, correlation=snr + seed, steps=seed)
        for snr in (0.1, 1.0)
        for seed in (1, 2)
        for method in ("input", "noise_matched")
    ]
    found = means(rows)
    assert [(row["snr"], row["method"], row["seeds"]) for row in found] == [
        (0.1, "input", 2),
        (0.1, "noise_matched", 2),
        (1.0, "input", 2),
        (1.0, "noise_matched", 2),
    ]
    assert found[1]["correlation"] == pytest.approx(1.6)
    assert found[1]["psnr"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(reference="r.mrc"), "--reference is given without --tomogram"),
        (dict(tomogram="t.mrc", half_maps=("a.mrc",)), "--half-maps names 1 files; expected two"),
        (dict(tomogram="t.mrc", membrane="m.mrc"), "--membrane is given without --reference"),
        (dict(cases=("cell", "sponge")), "--cases is 'sponge'; expected one of cell"),
        (dict(methods=("magic",)), "--methods is 'magic'; expected one of"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(UserError, match=words):
        BenchmarkConfig(output="x", **options)


def test_a_reference_of_another_size_is_refused_before_anything_runs(phantom, small, tmp_path):
    with pytest.raises(
        UserError,
        match=r"clean.mrc has shape \(24, 40, 32\); expected "
        r"\(40, 48, 72\)",
    ):
        benchmark(
            BenchmarkConfig(
                output=str(tmp_path),
                tomogram=phantom["tomogram"],
                reference=small["clean"],
                methods=("deconvolve",),
            )
        )
    assert not list(tmp_path.rglob("*.mrc"))


def is_daemon(*_):
    return multiprocessing.current_process().daemon


@pytest.mark.slow
def test_the_process_of_a_method_may_start_others_and_its_death_is_reported(monkeypatch):
    monkeypatch.setattr(methods, "run", is_daemon)
    assert methods.in_own_process("self2self") is False
    monkeypatch.setattr(methods, "run", os._exit)
    with pytest.raises(UserError, match="process of the method 1 was killed"):
        methods.in_own_process(1)


def test_a_tomogram_without_a_voxel_size(phantom, tmp_path, without_processes):
    path = str(tmp_path / "sizeless.mrc")
    mrc.write_volume(path, read(phantom["tomogram"]).astype(np.float32), 10.0)
    with mrcfile.open(path, mode="r+") as volume:
        volume.voxel_size = 0
    options = dict(
        output=str(tmp_path / "out"),
        tomogram=path,
        reference=phantom["clean"],
        methods=("deconvolve",),
    )
    with pytest.raises(UserError, match="--voxel-size"):
        benchmark(BenchmarkConfig(**options))
    benchmark(BenchmarkConfig(voxel_size=12.0, **options))
    result = mrc.open_volume(str(tmp_path / "out" / "volumes" / "deconvolve.mrc"))
    assert result.voxel_size[0] == pytest.approx(12.0)
