"""The scripts under benchmarks/: that they run, and what they print."""

import concurrent.futures
import dataclasses
import functools
import importlib
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY, data
from scipy.ndimage import gaussian_filter

from f2fd_core import DenoiseConfig, SimulateConfig, TrainConfig, denoise
from f2fd_core.commands.half_maps import MORE_NOISE
from f2fd_core.commands.inputs import open_volumes
from f2fd_core.data import mrc
from f2fd_core.evaluation.metrics import correlation, score
from f2fd_core.network import checkpoint
from f2fd_core.runtime.run_folder import prepare_folder
from f2fd_core.simulation.microscope import simulate_volumes
from f2fd_core.training.trainer import fit

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DOCUMENTS = BENCHMARKS.parent / "docs"
SHAPE = (32, 48, 48)


@pytest.fixture
def script(monkeypatch):
    """A script's module by its name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def printed(script, capsys):
    """Run a script in this process: (name, arguments) -> the cells of the table it prints."""

    def run(name, *arguments):
        script(name).main([str(argument) for argument in arguments])
        return table(capsys.readouterr().out)

    return run


def table(text):
    """The cells of a Markdown table's rows, without its head."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return rows[2:]


def correlation_of_input(seed, snr=0.1):
    volumes = simulate_volumes(SimulateConfig(shape=SHAPE, snr=snr, seed=seed))
    return correlation(*(torch.from_numpy(volumes[name]) for name in ("tomogram", "clean")))


def program(name, *arguments):
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def quick(script, monkeypatch):
    """Trainings of the default take two steps."""
    harness = script("harness")
    train = harness.trained

    def trained(folder, **settings):
        return train(folder, **dict(settings, steps=2, checkpoint_every=1))

    monkeypatch.setattr(harness, "trained", trained)


@pytest.fixture
def real_halves(script, tmp_path, monkeypatch):
    """A folder of boxes of the form of the real ones, but fewer and smaller; four fifths of the
    variance are white noise."""
    boxes, side = 2, 32
    for name, value in (("BOXES", boxes), ("SIDE", side), ("MARGIN", 4)):
        monkeypatch.setattr(script("real"), name, value)
    signal, *noises = np.random.default_rng(0).normal(size=(3,) + (side,) * 3).astype("f4")
    signal = gaussian_filter(signal, 1, mode="wrap")
    signal /= signal.std()
    for half, noise in zip(("even", "odd"), noises):
        for box in range(boxes):
            path = tmp_path / f"box{box}_{half}.mrc"
            mrc.write_volume(str(path), np.roll(signal + 2 * noise, box, 0), 14.56)
    return tmp_path


@pytest.mark.slow
def test_methods_side_by_side(script, quick, real_halves, monkeypatch):
    """Only what is missing is made; the pretrained weights are ahead of a filter."""
    quality, path = script("quality"), real_halves / "rows.csv"
    monkeypatch.setattr(quality, "SHAPE", SHAPE)
    for method in ("half-maps", "noise2noise"):
        quality.Rows(path).add(case=quality.LAMELLA, seed=0, method=method, correlation=0.5)
    given = ["methods", str(path), "--cases", "cell", "--seeds", "2", "--methods", "input"]
    quality.main([*given, "gaussian"])
    first = path.read_text()
    quality.main([*given, "gaussian", "pretrained", "--lamella", str(real_halves)])
    assert path.read_text().startswith(first)
    rows = quality.Rows(path).rows[2:]
    assert [row["method"] for row in rows[:3]] == ["input", "gaussian", "pretrained"]
    noisy, filtered, start = (float(row["correlation"]) for row in rows[:3])
    assert noisy == pytest.approx(correlation_of_input(2), abs=1e-4)
    assert noisy < filtered < start
    real = {row["method"]: row for row in rows[3:]}
    assert set(real) == {"input", "gaussian", "tv", "pretrained", "default"}
    # Where they make nothing better than the start, that is the model.
    assert real["default"]["setting"] in ("0 steps", "2 steps")
    # The halves of the boxes correlate by 0.2, with the signal by the root of that.
    assert float(real["input"]["correlation"]) == pytest.approx(0.2**0.5, abs=0.05)
    assert float(real["gaussian"]["correlation"]) > 0.6


@pytest.mark.slow
def test_steps_and_left_out_boxes_of_a_real_cell(printed, quick, real_halves):
    rows = printed("real", "lamella", real_halves, "--steps", 1)
    names = ["even as it is", "the pretrained weights", "1 steps, seed 0"]
    assert [row[0] for row in rows] == names
    assert float(rows[0][1]) == pytest.approx(0.2**0.5, abs=0.05)
    assert float(rows[0][2]) == float(rows[0][3]) == 0 != float(rows[1][2])
    rows = printed("real", "lamella", real_halves, "--steps", 1, "--left-out")
    assert [row[0] for row in rows[1:]] == [
        f"half-maps of the other four, {way}, 1 steps, seed 0"
        for way in ("noise_matched", "noise2noise")
    ]


@pytest.mark.parametrize(
    "name, found, document",
    [
        ("quality", "quality.csv", "quality.md"),
        ("trust", "trust.json", "check.md"),
        ("wedge", "wedge.txt", "wedge.md"),
    ],
)
def test_documents_hold_what_was_found(name, found, document, script, tmp_path):
    text = (DOCUMENTS / document).read_text(encoding="utf-8")
    copied, picture = tmp_path / document, tmp_path / "picture.png"
    copied.write_text(text, encoding="utf-8")
    drawn = [] if name == "wedge" else ["--picture", str(picture)]
    data = str(DOCUMENTS / "data" / found)
    script("pictures").main([name, data, "--document", str(copied), *drawn])
    assert copied.read_text(encoding="utf-8") == text
    assert picture.exists() == bool(drawn)


@pytest.mark.pictures
@pytest.mark.parametrize("name", ["memory", "unusual"])
def test_what_was_found_is_drawn(name, script, tmp_path):
    picture, document = tmp_path / "picture.png", tmp_path / "document.md"
    found = str(DOCUMENTS / "data" / f"{name}.txt")
    script("pictures").main([name, found, "--picture", str(picture)])
    assert picture.stat().st_size > 5000
    with pytest.raises(SystemExit):
        script("pictures").main([name, found, "--document", str(document)])
    assert not document.exists()


@pytest.mark.slow
def test_estimates_beside_the_truth(script, printed, quick, monkeypatch, tmp_path):
    trust = script("trust")
    monkeypatch.setattr("f2fd_core.checking.start.STEPS", 2)
    output = tmp_path / "rows.json"
    rows = printed(*("trust", "--cases", "cell@0.3", "--shape", 32, 32, 32, "--output", output))
    models = ["pretrained", "25 steps", trust.AUTOMATIC, "200 steps"]
    assert [row[2] for row in rows] == [*models, trust.WITH_HALVES]
    for row, known in zip(json.loads(output.read_text()), rows):
        assert known[3:5] == [f"{row[key]:.3f}" for key in ("true", "estimate")]
        assert 0 < row["low"] <= row["estimate"] <= row["high"] <= 1 and 0 < row["true"] < 1
    right, pairs = trust.ranked(
        [
            dict(case="cell", seed=3, true=true, estimate=estimate)
            for true, estimate in ((0.5, 0.4), (0.6, 0.7), (0.605, 0.3))
        ]
    )
    assert (right, pairs) == (1, 2)
    found = trust.summaries(
        [
            dict(case=case, model=trust.AUTOMATIC, true=0.5, estimate=0.5 + off, low=0.45, high=0.9)
            for case, off in (("cell", 0.1), ("cell", -0.02), (trust.HARDEST, 0.3))
        ]
    )
    every, but = found.values()
    assert every == pytest.approx((3, 0.14, 0.3, 1.0)) and but == pytest.approx((2, 0.06, 0.1, 1))


@pytest.mark.slow
def test_tomograms_drawn_at_random(script, quick, capsys):
    """The scores are against tilts that are dense; what is counted below is what the rows have."""
    trust, shape, seeds = script("trust"), (32, 32, 32), (200, 201)
    trust.main(["drawn", "--shape", *map(str, shape), "--seeds", *map(str, seeds)])
    text = capsys.readouterr().out
    rows = table(text)
    configs = [trust.drawn(seed, shape)[0] for seed in seeds]
    assert configs[0] != configs[1]
    for row, config in zip(rows, configs):
        noisy, clean = (
            simulate_volumes(one)[name]
            for one, name in (
                (config, "tomogram"),
                (
                    dataclasses.replace(
                        config, tilt_step=0.5, dose=config.dose * 0.5 / config.tilt_step
                    ),
                    "clean",
                ),
            )
        )
        assert float(row[2]) == pytest.approx(
            np.corrcoef(noisy.ravel(), clean.ravel())[0, 1], abs=1e-3
        )
        assert float(row[3]) >= float(row[2]) - 0.01
    values = np.array([row[2:6] for row in rows], float)
    for name, other in (("input", 0), ("pretrained weights", 2)):
        (line,) = [line for line in text.splitlines() if f"beside the {name}" in line]
        gain = values[:, 3] - values[:, other]
        assert float(line.split(": ")[1].split(",")[0]) == pytest.approx(gain.mean(), abs=1e-3)
        assert line.endswith(f"{(gain < -trust.DIFFERENT).sum()} of 2")


@pytest.mark.slow
def test_published_sample_run_on_a_folder_of_its_form(script, capsys, phantom, tmp_path):
    folder = tmp_path / "shrec" / "model_0"
    folder.mkdir(parents=True)
    density = data(phantom["density"])
    mrc.write_volume(str(folder / "grandmodel.mrc"), density[8:-8], 10.0)
    mrc.write_volume(str(folder / "reconstruction.mrc"), data(phantom["tomogram"]), 10.0)
    run, out = script("real").main, str(tmp_path / "out")
    short = ["--steps", "3", "--published-epochs", "1", "--features", "2", "--device", "cpu"]
    assert run(["shrec", str(folder.parent), "--output", out, "--methods", "default", *short]) == 0
    lines = {line.split("|")[1].strip(): line for line in capsys.readouterr().out.splitlines()[2:]}
    assert list(lines)[:2] == ["input", "default"]
    assert "| 0.10 | 6.98 |" in lines["publication: F2Fd"]
    # Matter is dark in the reconstruction and bright in the grand model.
    assert float(lines["input"].split("|")[4]) > 0.1
    assert run(["shrec", str(tmp_path), "--output", str(tmp_path / "out2")]) == 2
    said = capsys.readouterr().err
    assert "reconstruction.mrc" in said and "10.2312/3dor.20211307" in said


@pytest.mark.slow
def test_memory_is_measured_run_by_run():
    """Started from a small program: of a large one's memory a part would count as theirs."""
    done = program(
        "performance.py", "memory", "--shapes", "24,32,40", "--commands", "denoise", "deconvolve"
    )
    assert done.returncode == 0, done.stderr
    rows = table(done.stdout)
    assert [row[2] for row in rows] == ["denoise", "deconvolve"]
    denoising, filtering = (float(row[3]) for row in rows)
    # Each run counts for itself: the filter needs no network.
    assert 0.05 < filtering < denoising < 4
    for row in rows:
        assert float(row[4]) == pytest.approx(3 * 4 * 24 * 32 * 40 / 2**30 + 1.5, abs=0.01)
        assert float(row[5]) == pytest.approx(float(row[3]) / float(row[4]), abs=0.01)


@pytest.mark.slow
def test_rates_and_the_work_behind_them(script, capsys):
    sizes = ["--shape", *SHAPE, "--tile-size", 32, "--patch-size", 16, "--predictions", 1]
    words = ["rate", *sizes, "--repeats", 1, "--threads", 1, "--device", "cpu"]
    script("performance").main(list(map(str, words)))
    said = capsys.readouterr().out
    # Layers of 8 to 64 channels, by hand: 2 x 2 x 2 voxels are one of the first level's, and each
    # level down has an eighth of the voxels.
    levels = (
        8 * 16 + 16 * 16 + 48 * 16 + 16 * 16,
        16 * 32 + 32 * 32 + 96 * 32 + 32 * 32,
        32 * 64 + 64 * 64,
    )
    expected = 2 * (
        27 * sum(count / 8**level for level, count in enumerate(levels, 1))
        + 16 * 32 / 8
        + 27 * 4 * 4
        + 4
    )
    assert f"{expected / 1e3:.1f} thousand operations" in said
    seconds = [
        float(line.split("|")[2])
        for line in said.splitlines()
        if "training step" in line or line.startswith("| - ")
    ]
    assert len(seconds) == 6 and min(seconds) > 0


@pytest.mark.slow
def test_the_strength_of_noise_is_known_better_to_the_faces(printed):
    given = ["--shape", 48, 96, 96, "--cases", "uneven", "--windows", 16]
    centres, faces = printed("ablation", "profile", *given)
    assert (centres[2], faces[2]) == ("centres", "faces")
    borders, spreads = ([float(row[column]) for row in (centres, faces)] for column in (3, 4))
    assert borders[0] > borders[1] > 1.0 and spreads[0] > 1.5 * spreads[1]


@pytest.mark.slow
def test_the_noise_is_known_better_where_signal_is_looked_for(script, capsys):
    given = ["--shape", 48, 96, 96, "--cases", "crowded@1", "--seeds", 5]
    script("ablation").main(["noise", *map(str, given)])
    said = capsys.readouterr().out
    lines = [line.split("|") for line in said.splitlines() if line.startswith("| ")]
    plain, default = (
        lines[0].index(f" {name} ") for name in ("signal that varies not looked at", "default")
    )
    highest = next(line for line in lines if "highest" in line[1])
    assert float(highest[plain]) > float(highest[default]) > 0.8


@pytest.mark.slow
def test_streaks_show_in_what_half_maps_differ_by(script, printed, monkeypatch):
    """Those of tilts, if the specimen is thick; those of frames have noise alone."""
    ablation, thick = script("ablation"), "cell, 2.5 times as thick"
    kinds = {name: ablation.OF_TILTS[name] for name in ("cell", thick)}
    monkeypatch.setattr(ablation, "OF_TILTS", kinds)
    rows = printed("ablation", "half-maps", "--cases", "insertion", "--shape", 48, 96, 96)
    assert rows[0][:2] == ["insertion, 6", "frames"]
    ratios = {(row[0].replace(", 6", ""), row[1]): float(row[2]) for row in rows}
    assert all(ratio < MORE_NOISE for (_, kind), ratio in ratios.items() if kind == "frames")
    assert ratios[thick, "tilts"] > max(MORE_NOISE, 1.1 * ratios[thick, "frames"])
    assert ratios["cell", "tilts"] < MORE_NOISE


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_every_variant_of_the_ablation_runs(part, script, printed, monkeypatch):
    ablation = script("ablation")
    monkeypatch.setattr(
        ablation, "TrainConfig", functools.partial(TrainConfig, patch_size=16, batch_size=2)
    )
    names = list(ablation.VARIANTS)[part::4]
    rows = printed("ablation", "--shape", 32, 32, 32, "--steps", 1, "--variants", *names)
    assert [row[1] for row in rows] == names


@pytest.mark.slow
def test_variants_differ_from_the_default(printed):
    names = ["default", "all that is left out", "true spectrum", "1 pooling"]
    rows = printed("ablation", "--shape", *SHAPE, "--steps", 2, "--variants", *names)
    assert [row[1] for row in rows] == names
    default, first, measured, shallow = rows
    assert measured[7:10] == ["1.00"] * 3
    # The noise is known before there is a network; the result is the network's.
    assert default[7:10] == shallow[7:10] != measured[7:10]
    assert default[2:7] != shallow[2:7] and first[7:10] != default[7:10]


@pytest.mark.slow
def test_the_start_is_made_of_shapes(script, monkeypatch, tmp_path):
    """Of the default network, and the closer to what is noise-free the more steps it learned; what
    it learns from is standardised."""
    start = script("make_pretrained")
    networks = []
    for steps in (1, 12):
        path = str(tmp_path / (f"{steps}.pt"))
        start.main(
            [
                path,
                "--steps",
                str(steps),
                "--specimens",
                "1",
                "--shape",
                "48",
                "48",
                "48",
                "--batch-size",
                "4",
                "--device",
                "cpu",
            ]
        )
        network, config = checkpoint.restore(checkpoint.load(path), path)
        assert config.network_features() == TrainConfig().network_features()
        networks.append(network)
    future = concurrent.futures.Future()
    future.set_result(start.simulated(1000, (48, 48, 48)))
    specimens = start.Specimens([future], (48, 48, 48), torch.device("cpu"))
    monkeypatch.setattr(start, "CUT", 0)
    monkeypatch.setattr(start, "RAMPS", 0)
    monkeypatch.setattr(start, "PATCHES", (48,))
    noisy, clean, _ = specimens.examples(40 * 48**3, np.random.default_rng(0))
    full = clean.flatten(1).any(1)
    assert float(noisy[full].flatten(1).var(1).mean()) == pytest.approx(1.2, abs=0.2)
    assert 0 < float((clean.flatten(1).var(1) / noisy.flatten(1).var(1)).mean()) < 0.7
    with torch.inference_mode():
        first, last = (
            float((network(noisy.unsqueeze(1))[:, 0] - clean).square().mean())
            for network in networks
        )
    assert last < first


def test_patches_of_the_start_are_parts_of_their_tomograms(script):
    """Of the specimen and kind that were asked for, and turned only by mirroring."""
    start = script("make_pretrained")
    futures = [concurrent.futures.Future() for _ in range(2)]
    shape = (6, 7, 8)
    for number, future in enumerate(futures):
        future.set_result(
            np.arange(4 * 6 * 7 * 8, dtype=np.float32).reshape(4, *shape) + 10**4 * number
        )
    specimens = start.Specimens(futures, shape, torch.device("cpu"))
    chosen, kinds = np.array([0, 1, 1, 0] * 8), np.array([0, 3, 1, 1] * 8)
    patches, first = specimens.patches(chosen, 4, np.random.default_rng(0), kinds, 0)
    # All kinds are cut at the same places.
    assert ((patches - first) == torch.tensor(kinds * 6 * 7 * 8)[:, None, None, None]).all()
    steps = set()
    for patch, specimen, kind in zip(patches, chosen, kinds):
        assert (patch // 10**4 == specimen).all()
        assert ((patch % 10**4) // (6 * 7 * 8) == kind).all()
        steps.add(tuple(float(patch.diff(dim=axis).unique()) for axis in range(3)))
    assert steps == set(itertools.product((-56.0, 56.0), (-8.0, 8.0), (-1.0, 1.0)))


@pytest.mark.slow
def test_membranes_segmented(script, printed, phantom, tmp_path, monkeypatch):
    """Dice by its formula, and a table of all volumes of a benchmark's folder."""
    membranes = script("segmentation")
    monkeypatch.setattr(membranes, "SIDE", 32)
    mask = torch.from_numpy(data(phantom["membrane"])) > 0.5
    half = mask & (torch.arange(mask.shape[2]) < mask.shape[2] // 2)
    share = float(half.sum() / mask.sum())
    found = membranes.dice(torch.nn.Identity(), half.float(), mask, torch.device("cpu"))
    assert found == pytest.approx(2 * share / (share + 1)) and 0.2 < found < 0.9
    folder = tmp_path / "cell"
    folder.mkdir()
    for name in ("tomogram", "clean", "membrane", "odd"):
        (folder / (name + ".mrc")).symlink_to(phantom[name])
    ((case, noisy, clean),) = printed("segmentation", tmp_path, "--steps", 1, "--foreign-noise")
    assert case == "cell" and 0 <= float(noisy) <= 1 and 0 <= float(clean) <= 1


@pytest.mark.slow
def test_a_judged_training_knows_how_good_it_is(script, phantom, tmp_path, monkeypatch):
    """What is noted at a validation is what its model makes of the tomogram, and where the rule
    ends, beyond which it goes on."""
    curve = script("quality")
    monkeypatch.setattr("f2fd_core.training.stopping.LEAST_STEPS", 30)
    monkeypatch.setattr("f2fd_core.training.stopping.MOST_EPOCHS", 1)
    config = TrainConfig(
        tomograms=(phantom["tomogram"],),
        output=str(tmp_path / "run"),
        **dict(TINY, steps=0, checkpoint_every=50),
    )
    prepare_folder(config)
    training = curve.Endless(config, open_volumes(config), [], torch.device("cpu"), torch.float32)
    training.most = 50
    clean = torch.from_numpy(data(phantom["clean"]))
    with curve.Judge(training, lambda volume: score(volume, clean)) as judge:
        fit(training, judge)
    # Where the rule ends there is a validation, too.
    assert [row[0] for row in judge.rows] == [30, 50]
    assert min(row[2] for row in judge.rows) == training.best.loss
    assert 0 < judge.rows[0][1] < judge.rows[1][1]
    assert training.ended == (30, 30)
    found = judge.rows[-1][3]
    (model,) = (tmp_path / "run" / "checkpoints").glob("*50*")
    (result,) = denoise(
        DenoiseConfig(
            model=str(model),
            tomograms=(phantom["tomogram"],),
            output=str(tmp_path / "out"),
            device="cpu",
        )
    )
    assert found == pytest.approx(correlation(torch.from_numpy(data(result)), clean), abs=0.002)
    assert found > correlation(torch.from_numpy(data(phantom["tomogram"])), clean)


@pytest.mark.slow
def test_growth_is_reported_for_each_unit(printed):
    rows = printed(
        "performance",
        "scaling",
        "--shapes",
        "32,32,32",
        "32,32,64",
        "--steps",
        1,
        2,
        "--device",
        "cpu",
    )
    assert [row[:2] for row in rows] == [
        ["denoising, 4 predictions", "0.0 million voxels"],
        ["denoising, 4 predictions", "0.1 million voxels"],
        ["denoising, 8 predictions", "0.0 million voxels"],
        ["denoising, 16 predictions", "0.0 million voxels"],
        ["training", "1 steps"],
        ["training", "2 steps"],
    ]
    assert float(rows[-1][2]) == pytest.approx(2 * float(rows[-1][3].split()[0]), abs=0.06)


def test_reliability_shows_what_did_not_pass(script):
    """A test that failed once has failed, however often it passed."""
    shown = script("reliability_table").Table()
    shown.marks = {"one": ("Ctrl-C", "goes on"), "two": ("full disk", "nothing lost")}
    for test, when, outcome, times in (
        ("one", "call", "passed", 3),
        ("one", "call", "failed", 4),
        ("one", "setup", "passed", 9),
        ("two", "setup", "skipped", 0),
        ("else", "call", "failed", 1),
    ):
        shown.pytest_runtest_logreport(
            SimpleNamespace(
                nodeid=test,
                when=when,
                outcome=outcome,
                passed=outcome == "passed",
                user_properties=[("times", times)],
            )
        )
    assert table(shown.markdown()) == [
        ["Ctrl-C", "7", "goes on **failed**"],
        ["full disk", "0", "nothing lost **skipped**"],
    ]


@pytest.mark.slow
def test_unusual_tomograms_hold_the_plain_one(script):
    """Where a case is scored, minus what was laid over it, and nothing else."""
    unusual = script("quality")
    random = np.random.default_rng(2)
    unit, clean = random.normal(size=(64, 48, 48)), random.normal(size=(64, 48, 48))
    for name, made in unusual.UNUSUAL.items():
        case = made(unit, clean)
        left = (case.values - case.laid_over)[case.scored]
        sign = -1 if name == "bright matter" else 1
        # Each of its voxels is the specimen's there; the specimen stands for which one that is.
        place = dict(zip(clean.ravel(), unit.ravel()))
        expected = [place[sign * value] for value in case.truth[case.scored]]
        np.testing.assert_allclose(sign * left, expected, atol=1e-9, err_msg=name)
        assert case.scored.mean() > 0.1, name


@pytest.mark.slow
def test_unusual_tomograms_are_scored(script, printed, monkeypatch):
    unusual = script("quality")
    monkeypatch.setattr(unusual, "SHAPE", SHAPE)
    plain, bright = printed("quality", "unusual", "--cases", "plain", "bright matter", "--steps", 2)
    assert plain[0] == "plain"
    for column in (2, 3):
        assert float(bright[column]) == pytest.approx(float(plain[column]), abs=0.1)
        assert float(plain[column]) > 0.5


def own_is_clean(harness, monkeypatch):
    """Let the result of this version be what is without noise, and of another one the tomogram."""

    def by_version(code, tomograms, folder):
        if code != harness.HERE:
            return tomograms, 1.0
        return [path.replace("tomogram", "clean") for path in tomograms], 1.0

    monkeypatch.setattr(harness, "by_version", by_version)


@pytest.mark.parametrize("given", ((), ("--interpolated",)))
def test_an_oblique_tilt_axis_is_compared_by_the_results(given, script, printed, monkeypatch):
    harness = script("harness")
    own_is_clean(harness, monkeypatch)
    monkeypatch.setattr(harness, "results", lambda model, tomograms, folder: tomograms)
    rows = printed(
        "quality", "oblique", "elsewhere", "--shape", *(16, 48, 48), "--angles", 0, 40, *given
    )
    versions = ("pretrained", "other", "this")
    assert [row[1:3] for row in rows] == [
        [degrees, version] for degrees in ("0", "40") for version in versions
    ]
    for start, other, this in (rows[:3], rows[3:]):
        assert start[3:5] == other[3:5]
        assert 0.05 < float(other[3]) < 0.9 and other[4] == "+0.000 (0)"
        assert float(this[3]) == 1.0


def test_small_boxes_of_a_real_cell_are_compared_by_the_results(
    script, printed, real_halves, monkeypatch
):
    harness, real = script("harness"), script("real")
    monkeypatch.setattr(harness, "results", lambda model, paths, folder: paths)
    judged = []

    def by_version(code, tomograms, folder):
        judged.append(tomograms)
        return tomograms, 1.0

    monkeypatch.setattr(harness, "by_version", by_version)
    rows = printed("real", "small", real_halves, "--side", 16)
    assert [row[0] for row in rows] == [
        "even as it is",
        "best Gaussian",
        "the pretrained weights",
        "default, this version",
    ]
    as_it_is, best, *others = (float(row[1]) for row in rows)
    assert as_it_is == pytest.approx(0.2**0.5, abs=0.07) and best > as_it_is
    assert others == [as_it_is, as_it_is]
    (paths,) = judged
    assert len(paths) == real.BOXES * 8


def test_versions_are_compared_by_their_results(script, printed, monkeypatch):
    """The one whose result is the tomogram itself changes nothing."""
    own_is_clean(script("harness"), monkeypatch)
    for other, this in (
        printed(
            "quality", "versions", "elsewhere", "--cases", "cell", "--shape", *SHAPE, "--seeds", 2
        ),
    ):
        assert float(other[3]) == pytest.approx(correlation_of_input(2), abs=6e-4)
        assert other[4] == "+0.000 (0)"
        assert float(this[3]) == 1.0 and float(this[4].split()[0]) >= 0


@pytest.mark.slow
def test_nothing_but_the_wedge_is_filled(printed):
    rows = printed(
        *("wedge", "--shape", *SHAPE, "--cases", "cell@0.3", "empty", "--seeds", 3), *("--steps", 2)
    )
    denoised, nothing, filled = rows[:3]
    power, contrast, beyond = 7, 9, 10
    assert float(nothing[power]) == float(nothing[beyond]) == 0 < float(filled[power])
    outside = [float(row[contrast]) ** 2 - float(row[beyond]) ** 2 for row in rows[:3]]
    assert outside == pytest.approx([outside[0]] * 3, abs=2e-3)
    assert rows[3][1] == "f2fd check says" and all(float(cell) >= -1 for cell in rows[3][2:])
    # Of a tomogram of noise there is no truth.
    assert [row[0] for row in rows[4:]] == ["empty, 3"] * 3 and rows[4][2] == "nan"


@pytest.mark.slow
def test_tilts_of_a_real_cell_that_are_taken_away(printed, real_halves):
    rows = printed("wedge", "tilts", real_halves, "--steps", 1)
    assert [row[0] for row in rows] == [
        "even, all tilts",
        "denoised, seed 0",
        "nothing there, seed 0",
        "filled, seed 0",
    ]
    # The share of the signal's power, which the Gaussian filter has left, by shell.
    assert [float(value) for value in rows[0][1:]] == pytest.approx([0.9, 0.7, 0.15], abs=0.15)


def test_the_cone_of_the_wedge(script):
    """A third of Fourier space for tilts up to 60 degrees; what is taken away from it, and only
    that, is missing in the scores."""
    wedge = script("wedge")
    random = torch.Generator().manual_seed(1)
    volume = torch.randn((48, 48, 48), generator=random)
    cone = ~wedge.measured(volume.shape, 60)
    share = float(wedge.without_wedge(volume, 60).var() / volume.var())
    # The directions within 30 degrees of Z in the plane across the tilt axis, in a cubic band.
    assert share == pytest.approx(1 - math.tan(math.radians(30)) / 2, abs=0.03)
    noise = torch.randn(volume.shape, generator=random)
    within = noise - wedge.without_wedge(noise, 60)
    for other, expected in ((volume, 1.0), (volume + within, 0.5**0.5)):
        *shells, everything, power = wedge.in_cone(other, volume, cone, 10.0)
        assert everything == pytest.approx(expected, abs=0.03)
        assert shells[1:] == pytest.approx([expected] * 3, abs=0.2)
        assert power == pytest.approx(1 / expected**2, rel=0.1)


def test_membranes_parallel_to_the_slab_are_flat(script):
    wedge = script("wedge")
    mask = np.zeros((32, 40, 40), bool)
    mask[10:14, :, :20] = True
    mask[:, :, 30:34] = True
    flat = wedge.flat_membranes(mask)
    inner = (slice(None), slice(8, -8), slice(None))
    assert flat[inner][:, :, 4:16][mask[inner][:, :, 4:16]].mean() > 0.9
    assert not flat[:, :, 30:34].any()
