"""What goes wrong around a run, done to real ones: signals, full disks, changed files, second runs.

After each, nothing half-written has a final name, and the same command again gives what a run
without the fault gives, bit for bit.
"""

import os
import random
import shutil
import signal
import time

import matplotlib.figure
import mrcfile
import numpy as np
import pytest
from conftest import assert_same_weights, data
from processes import Run, assert_whole, finish

from f2fd_core import (
    BenchmarkConfig,
    DeconvolveConfig,
    SimulateConfig,
    TrainConfig,
    UserError,
    benchmark,
    deconvolve,
    simulate,
    train,
)
from f2fd_core.cli import ENDING_SIGNALS, main
from f2fd_core.filters import deconvolution
from f2fd_core.network import checkpoint
from f2fd_core.runtime import figures, lock, train_log

POINTS = int(os.environ.get("F2FD_TEST_POINTS", 3))
"""How often a training, and a denoising, is hit by a signal at a random moment."""
HITS_A_RUN = 3
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SAME = "one sentence; later the same"


HIT = pytest.mark.reliability(
    "training or denoising hit by SIGKILL, SIGTERM or SIGINT at a random moment",
    "the same command again: the same",
)
NO_ROOM = pytest.mark.reliability("no room on the disk for any of the files", SAME)
READ_ONLY = pytest.mark.reliability("output folder made read-only in the middle", SAME)
CUT_SHORT = pytest.mark.reliability(
    "tomogram cut short while it is denoised, and deconvolved",
    "one sentence that names it, no result",
)


def training(tomogram, output, **options):
    """The command line of a small training that has all that a large one has."""
    settings = dict(
        dict(
            steps=8,
            patch_size=16,
            batch_size=1,
            features=2,
            checkpoint_every=4,
            dropout=0.2,
            device="cpu",
            threads=1,
        ),
        **options,
    )
    words = ["train", tomogram, "--output", output, "--resume"]
    for name, value in settings.items():
        words += ["--" + name.replace("_", "-"), value]
    return words


def endless(tomogram, output, **options):
    return training(tomogram, output, **dict(dict(steps=10**6, checkpoint_every=10**6), **options))


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    """Folder of a training that nothing went wrong with."""
    folder = tmp_path_factory.mktemp("trained")
    finish(training(small["tomogram"], folder / "run"), folder)
    return folder / "run"


def denoising(trained, tomograms, output, **options):
    words = [
        "denoise",
        trained / "model.pt",
        *tomograms,
        "--output",
        output,
        "--resume",
        "--std",
        "--tile-size",
        32,
        "--device",
        "cpu",
        "--threads",
        1,
    ]
    for name, value in options.items():
        words += ["--" + name.replace("_", "-"), value]
    return words


@pytest.fixture(scope="module")
def denoised(trained, small, tmp_path_factory):
    """Folder of what nothing went wrong with."""
    folder = tmp_path_factory.mktemp("denoised")
    finish(denoising(trained, [small["tomogram"], small["odd"]], folder / "out"), folder)
    return folder / "out"


def assert_same_training(folder, trained, pictures=True):
    assert_same_weights(folder / "model.pt", trained / "model.pt")
    logs = [
        [(row["step"], row["loss"]) for row in train_log.read_log(str(place / "log.csv"))]
        for place in (folder, trained)
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 8
    expected = names(trained)
    assert names(folder) == [name for name in expected if pictures or not name.endswith(".png")]


def names(folder):
    return sorted(
        os.path.relpath(os.path.join(place, name), str(folder))
        for place, _, found in os.walk(str(folder))
        for name in found
    )


def assert_same_results(folder, denoised):
    assert names(folder) == names(denoised)
    for name in names(denoised):
        if name.endswith(".mrc"):
            np.testing.assert_array_equal(data(folder / name), data(denoised / name))


def hit(command, folder, check):
    """Hit a command by signals at POINTS random moments, and finish it after a few of them.

    ``command(output)`` is the command line for an output folder, which ``check`` gets when the
    command could finish. Returns the number of hits.
    """
    moments = random.Random(1)
    unhindered = finish(command(folder / "unhindered"), folder)
    seconds = time.monotonic() - unhindered.began
    hits = 0
    for output in (folder / str(number) for number in range(5 * POINTS)):
        for attempt in range(HITS_A_RUN):
            run = Run(command(output), folder)
            time.sleep(moments.random() * seconds)
            met = run.end(SIGNALS[hits % len(SIGNALS)])
            assert not run.sentences()
            if output.exists():
                assert_whole(output)
            if not met:
                # The unhindered run may have been slower than those that find all files read.
                seconds *= 0.8 if attempt == 0 else 1
                break
            hits += 1
        finish(command(output), folder)
        check(output)
        if hits >= POINTS:
            break
    assert hits >= POINTS
    return hits


@pytest.mark.slow
@HIT
def test_a_training_that_is_ended_any_time_can_be_finished(
    small, trained, tmp_path, record_property
):
    def command(output):
        return training(small["tomogram"], output)

    record_property(
        "times", hit(command, tmp_path, lambda output: assert_same_training(output, trained))
    )


@pytest.mark.slow
@HIT
def test_a_denoising_that_is_ended_any_time_can_be_finished(
    small, trained, denoised, tmp_path, record_property
):
    def command(output):
        return denoising(trained, [small["tomogram"], small["odd"]], output)

    record_property(
        "times", hit(command, tmp_path, lambda output: assert_same_results(output, denoised))
    )


@pytest.mark.slow
@pytest.mark.reliability(
    "SIGTERM, SIGINT, SIGHUP and SIGUSR1 while a tomogram is written",
    "one sentence; nothing is left but what was finished",
)
@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_a_run_that_is_asked_to_end_tidies_up(number, small, trained, tmp_path):
    run = Run(
        denoising(trained, [small["tomogram"]], tmp_path / "out", predictions=10**6), tmp_path
    )
    run.until(lambda: "0/2" in run.output())  # tiles
    assert (tmp_path / "out" / "tomogram_denoised.mrc.part").exists()
    time.sleep(0.2)
    assert run.end(number) and run.wait() == 128 + number
    ended = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert run.output().splitlines()[-1] == f"f2fd: {ended}; what was finished is kept"
    assert names(tmp_path / "out") == []


@pytest.mark.slow
@NO_ROOM
@pytest.mark.parametrize(
    ("room", "file"), [(1000, "train.json"), (10000, "spectrum.png"), (50000, "step_00000004.pt")]
)
def test_no_room_for_a_training(room, file, small, trained, tmp_path):
    command = training(small["tomogram"], tmp_path / "run")
    Run(command, tmp_path, room).refused(1, "cannot write ", file, "File too large")
    assert_whole(tmp_path / "run")
    assert not [name for name in names(tmp_path / "run") if name.endswith((".part", ".lock"))]
    finish(command, tmp_path)
    assert_same_training(tmp_path / "run", trained)


@pytest.mark.slow
@NO_ROOM
def test_no_room_for_the_log(small, tmp_path):
    """Without pictures, which need more room than many lines."""

    def command(folder):
        return training(
            small["tomogram"],
            tmp_path / folder,
            steps=60,
            checkpoint_every=60,
            perturbation="noise2void",
        )

    finish(command("whole"), tmp_path, pictures=False)
    run = Run(command("run"), tmp_path, 2000, pictures=False)
    run.refused(1, "cannot write ", "log.csv", "File too large")
    assert_whole(tmp_path / "run")
    finish(command("run"), tmp_path, pictures=False)
    assert_same_weights(tmp_path / "run" / "model.pt", tmp_path / "whole" / "model.pt")
    for folder in ("run", "whole"):
        rows = train_log.read_log(str(tmp_path / folder / "log.csv"))
        assert [int(row["step"]) for row in rows] == list(range(60))


@pytest.mark.slow
@NO_ROOM
def test_no_room_for_a_result(small, trained, denoised, tmp_path):
    command = denoising(trained, [small["tomogram"], small["odd"]], tmp_path / "out")
    Run(command, tmp_path, 100000).refused(
        1, "cannot write ", "tomogram_denoised.mrc", "File too large"
    )
    assert_whole(tmp_path / "out")
    assert not [name for name in names(tmp_path / "out") if name.endswith((".part", ".lock"))]
    finish(command, tmp_path)
    assert_same_results(tmp_path / "out", denoised)


@pytest.mark.slow
@NO_ROOM
def test_no_room_for_a_picture(small, trained, tmp_path):
    """Of a region, which needs less room than its picture."""

    def command(folder):
        return denoising(trained, [small["tomogram"]], tmp_path / folder) + [
            "--region",
            0,
            0,
            0,
            16,
            16,
            16,
        ]

    finish(command("whole"), tmp_path)
    assert os.path.getsize(tmp_path / "whole" / "tomogram_denoised.mrc") < 18000
    Run(command("out"), tmp_path, 18000).refused(1, "cannot write ", "slices.png", "File too large")
    assert names(tmp_path / "out") == []
    finish(command("out"), tmp_path)
    assert_same_results(tmp_path / "out", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.reliability(
    "memory limited (ulimit -v) for training, denoising and deconvolving",
    "done, or one sentence; never a hang",
)
@pytest.mark.parametrize("mebibytes", [1, 50, 140, 150])
@pytest.mark.parametrize("kind", ["train", "denoise", "deconvolve"])
def test_memory_that_does_not_suffice(kind, mebibytes, small, trained, tmp_path):
    command = {
        "train": training(small["tomogram"], tmp_path / "out"),
        "denoise": denoising(trained, [small["tomogram"]], tmp_path / "out"),
        "deconvolve": [
            "deconvolve",
            small["tomogram"],
            "--defocus",
            3,
            "--output",
            tmp_path / "out",
        ],
    }[kind]
    run = Run(command, tmp_path, more_memory=mebibytes << 20)
    if mebibytes < 100 or run.wait():
        smaller = {
            "train": "--patch-size or --batch-size",
            "deconvolve": "expected more",
            "denoise": "--tile-size or --batch-size",
        }[kind]
        run.refused(2, "memory that this process can have does not suffice", smaller)
    if (tmp_path / "out").exists():
        assert_whole(tmp_path / "out")


@pytest.mark.slow
@READ_ONLY
def test_a_folder_that_becomes_read_only(small, trained, tmp_path):
    command, output = training(small["tomogram"], tmp_path / "run"), tmp_path / "run"
    run = Run(command, tmp_path, pictures=False)
    run.until((output / "log.csv").exists)
    (output / "checkpoints").chmod(0o500)
    run.refused(1, "cannot write ", ".pt", "Permission denied")
    assert_whole(output)
    (output / "checkpoints").chmod(0o700)
    finish(command, tmp_path, pictures=False)
    assert_same_training(output, trained, pictures=False)


@pytest.mark.slow
@READ_ONLY
def test_a_result_folder_that_becomes_read_only(small, trained, denoised, tmp_path):
    output = tmp_path / "out"
    run = Run(
        denoising(trained, [small["tomogram"], small["odd"]], output, predictions=60), tmp_path
    )
    run.until((output / "tomogram_denoised.mrc.part").exists)
    output.chmod(0o500)
    run.refused(1, "cannot write ", "tomogram_", "Permission denied")
    output.chmod(0o700)
    assert_whole(output)
    finish(denoising(trained, [small["tomogram"], small["odd"]], output), tmp_path)
    assert_same_results(output, denoised)


@pytest.mark.slow
@pytest.mark.reliability(
    "folder that may not be written to, file that may not be read",
    "one sentence, before anything is computed",
)
def test_permissions_are_looked_at_first(small, tmp_path):
    (tmp_path / "closed").mkdir(0o500)
    Run(training(small["tomogram"], tmp_path / "closed"), tmp_path).refused(
        2, "output folder", "closed", "not writable"
    )
    Run(training(small["tomogram"], tmp_path / "closed" / "run"), tmp_path).refused(
        2, "cannot create the output folder", "closed/run", "Permission denied"
    )
    secret = shutil.copyfile(small["tomogram"], tmp_path / "secret.mrc")
    os.chmod(secret, 0)
    Run(training(secret, tmp_path / "run"), tmp_path).refused(
        2, "cannot read", "secret.mrc", "Permission denied"
    )
    assert not (tmp_path / "run").exists()


@pytest.fixture
def own(small, tmp_path):
    """A tomogram that may be spoilt."""
    return shutil.copyfile(small["tomogram"], tmp_path / "tomogram.mrc")


@pytest.mark.slow
@pytest.mark.reliability(
    "tomogram cut short, or overwritten, during a training", "one sentence that names it"
)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("cut", ["was cut to 2000 bytes while it was being read"]),
        ("overwritten", ["was overwritten while it was being read"]),
    ],
)
def test_a_tomogram_that_changes_during_a_training(fault, words, own, tmp_path):
    run = Run(endless(own, tmp_path / "run"), tmp_path, pictures=False)
    run.until(lambda: len(train_log.read_log(str(tmp_path / "run" / "log.csv"))) > 2)
    if fault == "cut":
        os.truncate(own, 2000)
    else:
        with mrcfile.mmap(own, "r+") as stream:
            stream.data[:] += 1
    run.refused(2, own, *words)
    assert_whole(tmp_path / "run")


@pytest.mark.slow
@CUT_SHORT
def test_a_tomogram_that_is_cut_during_denoising(own, trained, tmp_path):
    run = Run(denoising(trained, [own], tmp_path / "out", predictions=300), tmp_path)
    run.until((tmp_path / "out" / "tomogram_denoised.mrc.part").exists)
    os.truncate(own, 2000)
    run.refused(2, own, "was cut to 2000 bytes")
    assert names(tmp_path / "out") == []


@CUT_SHORT
def test_a_tomogram_that_is_cut_while_it_is_filtered(own, tmp_path, monkeypatch):
    spectrum_of = deconvolution.spectrum_of

    def cut(*arguments):
        os.truncate(own, 2000)
        return spectrum_of(*arguments)

    monkeypatch.setattr(deconvolution, "spectrum_of", cut)
    with pytest.raises(UserError, match="tomogram.mrc was cut to 2000 bytes while it was being"):
        deconvolve(DeconvolveConfig(tomograms=(str(own),), output=str(tmp_path / "out"), defocus=3))
    assert names(tmp_path / "out") == []


@pytest.mark.slow
@pytest.mark.reliability(
    "tomogram replaced or removed, or its header edited, during a training", "the same"
)
@pytest.mark.parametrize("fault", ["replaced", "removed", "header"])
def test_a_tomogram_that_goes_away_is_still_read(fault, own, trained, tmp_path):
    command = training(own, tmp_path / "run")
    run = Run(command, tmp_path, pictures=False)
    run.until((tmp_path / "run" / "log.csv").exists)
    if fault == "replaced":
        (tmp_path / "new.mrc").write_bytes(b"something else")
        os.replace(tmp_path / "new.mrc", own)
    elif fault == "removed":
        os.remove(own)
    else:
        with mrcfile.mmap(own, "r+") as stream:
            stream.voxel_size = 20
    assert run.wait() == 0, run.output()
    assert_same_training(tmp_path / "run", trained, pictures=False)


@pytest.mark.slow
@pytest.mark.reliability(
    "training resumed on another tomogram of the same size", "one sentence that names it"
)
def test_resuming_on_another_tomogram_is_refused(own, small, tmp_path):
    finish(training(own, tmp_path / "run"), tmp_path, pictures=False)
    shutil.copyfile(small["odd"], own)
    Run(training(own, tmp_path / "run", steps=9), tmp_path).refused(
        2, own, "has mean", "expected", "step_00000008.pt"
    )


@pytest.mark.slow
@pytest.mark.reliability(
    "second run into the folder of a running one",
    "refused with the first's process and start; a killed run's lock is taken over",
)
@pytest.mark.parametrize("kind", ["train", "denoise"])
def test_a_second_run_is_refused_until_the_first_is_gone(kind, small, trained, tmp_path):
    output = tmp_path / "out"
    if kind == "train":
        long, short = endless(small["tomogram"], output), training(small["tomogram"], output)
        locked = output / "training.lock"
    else:
        long, short = (
            denoising(trained, [small["tomogram"]], output, predictions=count)
            for count in (10**6, 2)
        )
        locked = output / "tomogram_denoised.mrc.lock"
    (tmp_path / "second").mkdir()
    first = Run(long, tmp_path, pictures=False)
    first.until(lambda: locked.exists() and locked.read_text().endswith("\n"))
    today = time.strftime("started at %Y-")
    Run(short, tmp_path / "second").refused(
        2, (f"is being written by process {first.process.pid} on "), today
    )
    assert first.end(signal.SIGKILL) and locked.exists()
    said = finish(short, tmp_path / "second", pictures=False).output()
    assert f"process {first.process.pid} on " in said and "which ended too early" in said
    assert not locked.exists()
    assert_whole(output)


@pytest.mark.reliability(
    "simulation or benchmark into a folder whose lock is held", "refused with the holder's process"
)
@pytest.mark.parametrize(
    ("name", "run", "config"),
    [("simulation", simulate, SimulateConfig), ("benchmark", benchmark, BenchmarkConfig)],
)
def test_other_folders_have_one_writer_too(name, run, config, tmp_path):
    with lock.held(str(tmp_path / name)), pytest.raises(
        UserError, match=f"{name} is being written by process {os.getpid()} on "
    ):
        run(config(output=str(tmp_path)))
    assert names(tmp_path) == []


@pytest.mark.slow
@pytest.mark.reliability("links to a user's file at temporary names", "the file stays as it is")
@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.pictures
def test_what_links_at_temporary_names_point_to_is_kept(link, small, trained, tmp_path):
    mine, stem = tmp_path / "mine", os.path.join("out", "tomogram")
    mine.write_bytes(b"kept")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoints").mkdir()
    commands = {
        (stem + "_denoised.mrc", stem + "_std.mrc", stem + "_slices.png"): denoising(
            trained, [small["tomogram"]], "out"
        ),
        (stem + "_deconvolved.mrc", stem + "_deconvolved_slices.png"): [
            "deconvolve",
            small["tomogram"],
            "--output",
            "out",
            "--defocus",
            3,
            "--overwrite",
        ],
        (
            "out/train.json",
            "out/log.csv",
            "out/spectrum.png",
            "out/model.pt",
            "out/loss.png",
            "out/checkpoints/step_00000001.pt",
            "out/previews/step_00000001.png",
        ): training(small["tomogram"], "out", steps=1, checkpoint_every=1),
        (stem + ".mrc", "out/clean.mrc"): ["simulate", "out", "--shape", 16, 16, 16, "--overwrite"],
    }
    for results, command in commands.items():
        places = [tmp_path / result for result in results]
        for place in places:
            place.parent.mkdir(exist_ok=True)
            link(str(mine), str(place) + ".part")
        finish([str(tmp_path / word) if word == "out" else word for word in command], tmp_path)
        for place in places:
            assert place.exists() and not os.path.samefile(place, mine)
    assert mine.read_bytes() == b"kept" and os.stat(mine).st_nlink == 1
    assert not [name for name in names(tmp_path) if name.endswith(".part")]


@pytest.mark.reliability(
    "links to a user's file at the names of locks", "one sentence; the file stays as it is"
)
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_no_lock_is_written_through_a_link(link, tmp_path):
    (tmp_path / "mine").write_bytes(b"kept")
    link(str(tmp_path / "mine"), str(tmp_path / "simulation.lock"))
    with pytest.raises(UserError, match="simulation.lock is a link to another file"):
        simulate(SimulateConfig(output=str(tmp_path), overwrite=True))
    assert (tmp_path / "mine").read_bytes() == b"kept"


@pytest.mark.parametrize("left", [b"\xff\xfe\x00lock", b"x" * 10**6, b"process 7 on \x1b[2J"])
def test_a_lock_with_other_content_is_taken_over_in_silence(left, tmp_path, capsys):
    (tmp_path / "run.lock").write_bytes(left)
    with lock.held(str(tmp_path / "run")), pytest.raises(
        UserError, match=f"being written by process {os.getpid()} on "
    ):
        lock.refuse_held([str(tmp_path / "run")])
    assert capsys.readouterr().err == "" and not (tmp_path / "run.lock").exists()


@pytest.mark.reliability("clock that runs backwards, checkpoints whose dates lie", "the same")
def test_the_clock_does_not_matter(small, tmp_path, monkeypatch):
    options = dict(
        steps=6,
        patch_size=16,
        batch_size=1,
        features=2,
        checkpoint_every=3,
        device="cpu",
        tomograms=(small["tomogram"],),
    )
    train(TrainConfig(output=str(tmp_path / "whole"), **options))
    seconds = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(seconds)))
    train(TrainConfig(output=str(tmp_path / "run"), **options))
    for step in (3, 6):
        os.utime(
            checkpoint.path_of(str(tmp_path / "run" / "checkpoints"), step),
            (10**9 - step, 10**9 - step),
        )
    path, _ = checkpoint.newest(str(tmp_path / "run" / "checkpoints"), pytest.fail)
    assert path.endswith("step_00000006.pt")
    more = dict(options, steps=8, resume=True)
    for folder in ("run", "whole"):
        train(TrainConfig(output=str(tmp_path / folder), **more))
    assert_same_weights(tmp_path / "run" / "model.pt", tmp_path / "whole" / "model.pt")
    rows = train_log.read_log(str(tmp_path / "run" / "log.csv"))
    passed = [float(row["seconds"]) for row in rows]
    assert passed == sorted(passed) and passed[0] > 0


@pytest.mark.slow
@pytest.mark.reliability(
    "a name with a formula and a byte that is not UTF-8, where matplotlibrc asks for LaTeX",
    "the pictures have the name as it is",
)
@pytest.mark.pictures
def test_any_name_is_written_and_drawn(small, tmp_path, monkeypatch):
    name = os.fsdecode(b"a$_$x$\\foo$$\xff")
    path = str(tmp_path / (name + ".mrc"))
    shutil.copyfile(small["tomogram"], path)
    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
    assert main([str(word) for word in training(path, tmp_path / "run", steps=1)]) == 0
    assert (
        main([str(word) for word in training(None, tmp_path / "run", steps=2) if word is not None])
        == 0
    )  # the name is taken from train.json
    assert (
        main(
            [
                "denoise",
                str(tmp_path / "run" / "model.pt"),
                path,
                "--output",
                str(tmp_path),
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    assert main(["deconvolve", path, "--output", str(tmp_path), "--defocus", "3"]) == 0
    assert {
        name + ending
        for ending in (
            "_denoised.mrc",
            "_slices.png",
            "_deconvolved.mrc",
            "_deconvolved_slices.png",
        )
    } <= set(os.listdir(tmp_path))
    assert matplotlib.rcParams["text.usetex"]


@pytest.mark.parametrize("name", ["a$_$b", "$$", "x$\\foo$", "a\\$b$", "a\udcffb"])
def test_names_are_drawn_as_they_are(name):
    figure = matplotlib.figure.Figure()
    drawn = figure.text(0, 0, figures.literal(name))
    expected = figure.text(0, 0, name.replace("\udcff", "?"), parse_math=False)
    assert drawn.get_window_extent().bounds == expected.get_window_extent().bounds


@pytest.mark.slow
def test_temporary_files_of_others_are_left_alone(small, tmp_path):
    for name in ("mine.part", "model.pt.part"):
        (tmp_path / name).write_text("kept")
    command = training(small["tomogram"], tmp_path, steps=1, checkpoint_every=1)
    finish(command, tmp_path, pictures=False)
    assert (tmp_path / "mine.part").read_text() == "kept"
    assert not (tmp_path / "model.pt.part").exists()


@pytest.mark.slow
@pytest.mark.reliability(
    "f2fd run killed while it trains, and while it denoises", "with --resume the same"
)
def test_a_whole_run_that_is_ended_can_be_finished(small, tmp_path):
    def command(output, *more):
        paths = [small[name] for name in ("tomogram", "odd", "even")]
        options = ["--steps", 6, "--threads", 1, "--device", "cpu"]
        return ["run", *paths, "--train-on", paths[0], "--output", output, *options, *more]

    finish(command(tmp_path / "whole"), tmp_path, pictures=False)
    out = tmp_path / "ended"
    run = Run(command(out), tmp_path, pictures=False)
    run.until(lambda: "step/s" in run.output())
    assert run.end(signal.SIGKILL)
    assert_whole(out)
    run = Run(command(out, "--resume"), tmp_path, pictures=False)
    run.until(lambda: "tomogram 2 of 3" in run.output())
    assert run.end(signal.SIGKILL)
    assert_whole(out)
    assert not (out / "overview.html").exists()
    finish(command(out, "--resume"), tmp_path, pictures=False)
    assert_whole(out)
    assert_same_weights(out / "training" / "model.pt", tmp_path / "whole" / "training" / "model.pt")
    for name in ("tomogram", "odd", "even"):
        one, other = (
            data(str(folder / "denoised" / f"{name}_denoised.mrc"))
            for folder in (out, tmp_path / "whole")
        )
        np.testing.assert_array_equal(one, other)
    assert (out / "overview.html").exists()
