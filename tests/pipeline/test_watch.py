"""f2fd run --watch: what comes is denoised once it is whole, and what is bad stops nothing."""

import dataclasses
import os
import shutil
import threading
import time

import numpy as np
import pytest

from f2fd_core import RunConfig, SimulateConfig, UserError, run, simulate
from f2fd_core.data import mrc
from f2fd_core.network import checkpoint
from f2fd_core.pipeline import watch as watching

PATIENCE = 240


@pytest.fixture(scope="module")
def tomogram(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    return simulate(SimulateConfig(output=str(folder), shape=(24, 32, 40), snr=0.3))


@pytest.fixture
def session(tmp_path, monkeypatch):
    """A folder that is looked at often, and its configuration."""
    monkeypatch.setattr(watching, "POLL", 0.05)
    monkeypatch.setattr(watching, "SETTLED", 0.3)
    (tmp_path / "in").mkdir()
    config = RunConfig(
        tomograms=(str(tmp_path / "in"),),
        output=str(tmp_path / "out"),
        watch=True,
        idle=PATIENCE / 60,
        steps=1,
        device="cpu",
    )
    return tmp_path / "in", tmp_path / "out", config


def wait_for(path):
    end = time.monotonic() + PATIENCE
    while not os.path.exists(path):
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.02)


def meanwhile(out, function):
    """Run ``function`` beside the watch, and end it then; returns what it raised, in a list."""
    errors = []

    def act():
        try:
            function()
        except BaseException as error:
            errors.append(error)
        finally:
            out.mkdir(exist_ok=True)
            (out / "stop").touch()

    thread = threading.Thread(target=act)
    thread.start()
    return thread, errors


@pytest.mark.slow
@pytest.mark.reliability(
    "a tomogram that is still being written, and one with NaN, in a watched folder",
    "left alone until whole; reported; the others go on",
)
def test_tomograms_are_denoised_once_they_are_whole(session, tomogram, capsys):
    folder, out, config = session
    table = folder.parent / "ctf.csv"
    table.write_text("tomogram,defocus\nfirst,2\nhalf_written,3\nbad,3\n")
    config = dataclasses.replace(config, deconvolve=True, ctf=str(table))
    whole = open(tomogram["tomogram"], "rb").read()
    shutil.copy(tomogram["tomogram"], folder / "first.mrc")
    (folder / "half_written.mrc").write_bytes(whole[: len(whole) // 2])
    denoised = out / "denoised"

    def microscope():
        wait_for(denoised / "first_denoised.mrc")
        assert not (denoised / "half_written_denoised.mrc").exists()
        with open(folder / "half_written.mrc", "ab") as stream:
            stream.write(whole[len(whole) // 2 :])
        mrc.write_volume(str(folder / "bad.mrc"), np.zeros((24, 32, 40)), 10.0)
        with open(folder / "bad.mrc", "r+b") as stream:
            stream.seek(1024)
            stream.write(np.full((24, 32, 40), np.nan, "<f4").tobytes())
        wait_for(denoised / "half_written_denoised.mrc")
        wait_for(out / "overview.html")

    thread, errors = meanwhile(out, microscope)
    page = run(config)
    thread.join()
    assert not errors, errors
    assert not (out / "stop").exists()
    said = capsys.readouterr().err
    assert (
        "half_written.mrc is truncated" in said
        and "half_written.mrc is left out until the file changes" in said
    )
    assert "bad.mrc holds 30720 NaN or infinite voxels" in said
    text = open(page, encoding="utf-8").read()
    assert text.count("<h2 ") == 2 and "bad.mrc" not in text
    trained = checkpoint.load(str(out / "training" / "model.pt"))["config"]["tomograms"]
    assert trained == [str(folder / "first.mrc")]

    # The same command goes on: what is finished stays, what has come since is made.
    before = (denoised / "first_denoised.mrc").stat().st_mtime_ns
    shutil.copy(tomogram["odd"], folder / "later.mrc")
    said = []

    def microscope_later():
        end = time.monotonic() + PATIENCE
        while "no rows for later" not in "".join(said):
            assert time.monotonic() < end, "later.mrc was not missed in the table"
            said.append(capsys.readouterr().err)
            time.sleep(0.02)
        with open(table, "a") as stream:
            stream.write("later,4\n")
        wait_for(denoised / "later_denoised.mrc")

    thread, errors = meanwhile(out, microscope_later)
    run(config)
    thread.join()
    assert not errors, errors
    assert (denoised / "first_denoised.mrc").stat().st_mtime_ns == before


def test_half_maps_are_waited_for(session, tomogram):
    """A tomogram is there with both of them."""
    folder, _, config = session
    config = RunConfig(**dict(config.to_dict(), half_maps=["auto"]))
    shutil.copy(tomogram["tomogram"], folder / "a.mrc")
    shutil.copy(tomogram["odd"], folder / "a_ODD.mrc")
    assert watching.arrivals(config) == []
    shutil.copy(tomogram["even"], folder / "a_EVN.mrc")
    (arrival,) = watching.arrivals(config)
    assert [os.path.basename(path) for path in (arrival.path, *arrival.half_maps)] == [
        "a.mrc",
        "a_ODD.mrc",
        "a_EVN.mrc",
    ]
    shutil.copy(tomogram["tomogram"], folder / "a_denoised.mrc")
    assert len(watching.arrivals(config)) == 1


def test_it_ends_when_nothing_comes(session):
    folder, _, config = session
    config = RunConfig(**dict(config.to_dict(), idle=0.005))
    with pytest.raises(UserError, match=f"{folder} had no whole tomogram"):
        run(config)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (dict(half_maps=("a", "b")), "--half-maps names 2 files with --watch; expected auto"),
        (dict(watch=False), "--idle is 4 without --watch; expected both"),
        (dict(result_name="x"), "--result-name is 'x'"),
        (dict(resume=True, overwrite=True), "--resume and --overwrite exclude each other"),
        (dict(denoise_halves=True), "--denoise-halves is given without --half-maps"),
        (dict(half_maps=("auto",), result_name="x"), "--result-name is 'x'"),
        (dict(half_maps=("auto",), deconvolve=True), "--defocus is 0; expected the tomograms'"),
    ],
)
def test_bad_options_of_a_watch(session, more, words):
    with pytest.raises(UserError, match=words):
        RunConfig(**dict(session[2].to_dict(), **more))


def test_half_maps_that_will_come_can_be_denoised(session):
    config = dataclasses.replace(session[2], half_maps=("auto",), denoise_halves=True)
    assert config.watch and config.denoise_halves


@pytest.mark.reliability("a file of CTFs that is not there, given to a watch", "one sentence")
def test_the_ctfs_have_to_be_there(session):
    config = dataclasses.replace(session[2], deconvolve=True, ctf=str(session[0] / "ctf.csv"))
    with pytest.raises(UserError, match="cannot read the CTFs .*ctf.csv: No such file"):
        run(config)
    assert not session[1].exists()
