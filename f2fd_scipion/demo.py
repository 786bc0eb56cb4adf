"""A real Scipion project from nothing: import a tomogram, train on it, denoise it, score it.

python -m f2fd_scipion.demo --folder demo [--tomogram path.mrc] [--steps N]
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys

from f2fd_core.runtime import files
from f2fd_scipion import headless

PROJECT = "F2FdDemo"
SIMULATED = "simulated"
INPUT = "input"
SHAPE = (96, 160, 160)
GAIN = 2.0  # the correlation with the noise-free tomogram must grow by this factor
SCORES = (
    ("correlation", "correlation with the noise-free tomogram", "%.3f"),
    ("psnr", "PSNR after intensity matching (dB)", "%.2f"),
    ("ssim", "SSIM after intensity matching", "%.3f"),
    ("membrane_average_precision", "average precision of the membrane map", "%.3f"),
)


class DemoError(Exception):
    """The demo can't go on; the text says why."""


def _arguments(argv):
    parser = argparse.ArgumentParser(
        prog="python -m f2fd_scipion.demo",
        description="Run the F2Fd protocols in a Scipion project.",
    )
    parser.add_argument("--folder", default="demo", help="folder of the demo (default: demo)")
    parser.add_argument(
        "--tomogram",
        help="a tomogram of your own (MRC) instead of a simulated one; there are no scores then",
    )
    parser.add_argument(
        "--voxel-size", type=float, help="voxel size in Å of a tomogram whose header holds none"
    )
    parser.add_argument("--steps", type=int, default=100, help="training steps (default: 100)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulation (default: 1)")
    return parser.parse_args(argv)


def _engine(*arguments):
    """Run the engine with this Python and return what it printed."""
    command = [sys.executable, "-m", "f2fd_core", *map(str, arguments)]
    result = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        raise DemoError(f"'f2fd {arguments[0]}' failed, see above")
    return result.stdout


def _simulate(folder, seed):
    """Write a simulated cell into ``folder``; returns its tomogram."""
    _engine("simulate", folder, "--shape", *SHAPE, "--snr", 0.1, "--seed", seed, "--overwrite")
    return os.path.join(folder, "tomogram.mrc")


def _link(tomogram, folder):
    """Link a user's tomogram under a name that Scipion's import can take; returns the link."""
    if not os.path.isfile(tomogram):
        raise DemoError(f"{tomogram} is no file; expected a tomogram (MRC)")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    link = os.path.join(folder, re.sub(r"[^A-Za-z0-9_.-]", "_", files.stem(tomogram)) + ".mrc")
    os.symlink(os.path.abspath(tomogram), link)
    return link


def _voxel_size(tomogram, given):
    """The voxel size in Å to import with."""
    import mrcfile

    try:
        with mrcfile.open(tomogram, permissive=True, header_only=True) as mrc:
            size = float(mrc.voxel_size.x)
    except ValueError as error:
        raise DemoError(f"{tomogram} can't be read as MRC: {error}")
    if not (given or size):
        raise DemoError(f"{tomogram} holds no voxel size; give it with --voxel-size")
    return given or size


def _create_project():
    """A new, empty demo project in place of the earlier one; it becomes the working folder."""
    import pyworkflow
    from pyworkflow.project import Manager

    pyworkflow.Config.setDomain("pwem")
    manager = Manager()
    if manager.hasProject(PROJECT):
        manager.deleteProject(PROJECT)
    project = manager.createProject(PROJECT)
    os.chdir(project.path)
    return project


def _launch(project, protocol, label):
    """Run a protocol to its end; raises DemoError with the end of its log if it fails."""
    protocol.setObjLabel(label)
    print(f"Scipion runs '{label}' ...", flush=True)
    errors = protocol.validate()
    if errors:
        raise DemoError(f"'{label}' can't run: {' '.join(errors)}")
    project.launchProtocol(protocol, wait=True)
    if not protocol.isFinished():
        logs = "\n".join(
            protocol.getLogsLastLines(20, logFile=0) + protocol.getLogsLastLines(20, logFile=1)
        )
        raise DemoError(f"'{label}' failed: {protocol.getErrorMessage()}\n{logs}")
    return protocol


def _run(project, tomogram, voxel_size, steps):
    """Import, train, denoise and check; returns the denoised tomogram, its picture, and the
    finished protocol of the check."""
    from tomo.protocols import ProtImportTomograms

    from f2fd_scipion import engine
    from f2fd_scipion.protocols import ProtF2FdCheck, ProtF2FdDenoise, ProtF2FdTrain

    threads, on_gpu = os.cpu_count(), engine.usable_gpus([0]) > 0
    imported = _launch(
        project,
        project.newProtocol(
            ProtImportTomograms, filesPath=tomogram, filesPattern="", samplingRate=voxel_size
        ),
        "import tomogram",
    )
    train = _launch(
        project,
        project.newProtocol(
            ProtF2FdTrain,
            inTomos=imported.Tomograms,
            steps=steps,
            checkpoint_every=max(1, steps // 3),
            numberOfThreads=threads,
            useGpu=on_gpu,
        ),
        "train F2Fd",
    )
    inputs = dict(
        inTomos=imported.Tomograms, inModel=train.model, binThreads=threads, useGpu=on_gpu
    )
    denoise, check = (
        _launch(project, project.newProtocol(kind, **inputs), label)
        for kind, label in (
            (ProtF2FdDenoise, "denoise tomograms"),
            (ProtF2FdCheck, "check denoising"),
        )
    )
    denoised = denoise.tomograms.getFirstItem().getFileName()
    picture = files.companion(denoised, files.PICTURE)
    return os.path.abspath(denoised), os.path.abspath(picture), check


def _verdict(check):
    """Print what the check of the only tomogram says; returns its numbers and its page."""
    ((tsId, numbers),) = check.getReports().items()
    print("\nHow far can it be trusted? Without the truth, F2Fd says:")
    for entry in numbers["verdict"]:
        print(f"  {entry['mark']:<6}  {entry['title']} {entry['sentence']}")
    return numbers, os.path.abspath(check.getPage(tsId))


def _report(denoised, simulated, numbers):
    """Print the scores before and after, beside those that the check has estimated; returns the
    factor by which the correlation grew."""
    scores = json.loads(
        _engine(
            "evaluate",
            denoised,
            "--reference",
            os.path.join(simulated, "clean.mrc"),
            "--noisy",
            os.path.join(simulated, "tomogram.mrc"),
            "--membrane",
            os.path.join(simulated, "membrane.mrc"),
        )
    )
    before, after = scores["noisy"], scores["denoised"]
    print(f"\n{'':<45} {'before':>8} {'after':>8}")
    for name, words, style in SCORES:
        print(f"{words:<45} {style % before[name]:>8} {style % after[name]:>8}")
        if name == "correlation":
            found = numbers["correlation"]
            value = found["denoised"]
            print(
                f"{'  the same, as estimated without it':<45} "
                f"{found['tomogram']['estimate']:8.3f} {value['estimate']:8.3f} "
                f"({value['low']:.3f} to {value['high']:.3f})"
            )
    return after["correlation"] / before["correlation"]


def main(argv=None):
    """Run the demo; returns the exit code."""
    arguments = _arguments(argv)
    folder = os.path.abspath(arguments.folder)
    simulated = os.path.join(folder, SIMULATED)
    headless.set_environment(folder)
    try:
        if arguments.tomogram:
            tomogram = _link(arguments.tomogram, os.path.join(folder, INPUT))
        else:
            print(f"Simulating a tomogram of {' x '.join(map(str, SHAPE))} voxels ...", flush=True)
            tomogram = _simulate(simulated, arguments.seed)
        voxel_size = _voxel_size(tomogram, arguments.voxel_size)
        denoised, picture, check = _run(_create_project(), tomogram, voxel_size, arguments.steps)
        numbers, page = _verdict(check)
        gain = None if arguments.tomogram else _report(denoised, simulated, numbers)
    except DemoError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 1
    print(
        f"\nDenoised tomogram:         {denoised}\nSlices before and after:   {picture}\nHow "
        f"far to trust it:       {page}\nOpen the Scipion project:  make gui  (or: python -m "
        f"f2fd_scipion.gui --folder {arguments.folder})"
    )
    if gain is not None and gain < GAIN:
        print(
            (
                f"demo: error: the correlation grew by a factor of {gain:.2f}; expected at least "
                f"{GAIN:g}"
            ),
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
