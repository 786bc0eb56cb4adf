"""What a person sees: viewers, wizards and the window itself."""

import contextlib
import json
import os
import shutil
import struct
import subprocess
import sys
from unittest import mock

import mrcfile
import numpy as np

from f2fd_scipion import engine
from f2fd_scipion.protocols import (
    ProtF2FdCheck,
    ProtF2FdDeconvolve,
    ProtF2FdDenoise,
    ProtF2FdEvaluate,
    ProtF2FdExportModel,
    ProtF2FdTrain,
)
from f2fd_scipion.protocols.protocol_base import NO_TOMOGRAM
from f2fd_scipion.tests import project
from f2fd_scipion.tests.project import ONE_THREAD
from f2fd_scipion.tests.simulation import SHAPES
from f2fd_scipion.viewers import F2FdDenoiseViewer, F2FdEvaluateViewer, F2FdTrainViewer
from f2fd_scipion.viewers.comparison import Comparison, voxels
from f2fd_scipion.viewers.viewer_train import TrainingPlot
from f2fd_scipion.wizards import F2FdPatchSizeWizard, F2FdPreviewWizard, preview
from f2fd_scipion.wizards.patch_size import suggested


@contextlib.contextmanager
def display():
    """A display in memory, with a window manager if there is one; yields its number."""
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1600x1000x24"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with open(read) as stream:
        number = ":" + stream.readline().strip()
    manager = (
        subprocess.Popen(
            ["openbox"], env=dict(os.environ, DISPLAY=number), stderr=subprocess.DEVNULL
        )
        if shutil.which("openbox")
        else None
    )
    try:
        yield number
    finally:
        for process in (manager, server):
            if process:
                process.terminate()
                process.wait()


class TestF2FdViews(project.ProjectTests):
    def testTrainingViewer(self):
        viewer = self.viewer(F2FdTrainViewer, self.train)
        shown = viewer._getVisualizeDict()
        self.assertEqual(
            set(shown), {"showGain", "showScores", "showSlices", "showHistogram", "showSpectrum"}
        )
        for name, show in shown.items():
            plotter = self.drawn(show(name))
            if name == "showScores":
                ssim = plotter.figure.axes[0].lines[1].get_ydata()
                np.testing.assert_allclose(
                    ssim, [float(row["ssim"]) for row in self.log(self.train)]
                )

    def testAPlotOfTheTrainingIsDrawnAgainAsTheLogGrows(self):
        path = os.path.join(self.getOutputPath(), "log.csv")
        with open(self.train._getExtraPath("log.csv")) as stream:
            lines = stream.readlines()
        with open(path, "w") as stream:
            stream.writelines(lines[:4])
        self.drawInMemory()
        plot = TrainingPlot(path)
        self.assertEqual(len(plot.figure.axes[0].lines[0].get_xdata()), 3)
        with open(path, "w") as stream:
            stream.writelines(lines[:6] + [lines[6][:9]])  # the last line is being written
        plot.refresh()
        self.assertEqual(len(plot.figure.axes[0].lines[0].get_xdata()), 5)

    def testDenoisingViewer(self):
        viewer = self.viewer(F2FdDenoiseViewer, self.denoise)
        self.assertEqual(viewer.getParam("tomogram").choices, sorted(SHAPES))
        # What is finished while the form is open doesn't shift the choices.
        later = mock.patch.object(ProtF2FdDenoise, "getDone", return_value=["a", *SHAPES])
        later.start()
        self.addCleanup(later.stop)
        for number, tsId in enumerate(sorted(SHAPES)):
            viewer.tomogram.set(number)
            shown = self.drawn(viewer._getVisualizeDict()["tomogram"]("tomogram"))
            before, after, deviation = (
                np.array(mrcfile.read(path), dtype=np.float32)
                for path in (
                    self.path(tsId),
                    self.denoise._getExtraPath(tsId + "_denoised.mrc"),
                    self.denoise._getExtraPath(tsId + "_std.mrc"),
                )
            )
            for axis, direction in enumerate(("XY", "XZ", "YZ")):
                shown.turn(direction)
                shown.place.set_val(3)
                for name, volume in (
                    ("before", before),
                    ("denoised", after),
                    ("removed", before - after),
                    ("standard deviation", deviation),
                ):
                    section = volume.take(3, axis)
                    np.testing.assert_array_equal(
                        shown.images[name].get_array(), section.T if direction == "YZ" else section
                    )
                    self.assertEqual(shown.images[name].origin, "lower")
                    bottom, top = shown.panels[name].get_ylim()
                    self.assertLess(bottom, top)  # the first row is at the bottom
                limits = shown.images["before"].get_clim()
                self.assertEqual(limits, shown.images["denoised"].get_clim())
                shown.contrast.set_val(1)
                self.assertAlmostEqual(
                    np.diff(shown.images["before"].get_clim())[0], np.diff(limits)[0] / 2, places=5
                )
                shown.contrast.set_val(0)

    def testUnsignedBytesOfImodAreShownAsSuch(self):
        path = os.path.join(self.getOutputPath(), "imod.mrc")
        values = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
        with mrcfile.new(path) as stream:
            stream.set_data(values.view(np.int8))
        with open(path, "r+b") as stream:
            stream.seek(152)
            stream.write(struct.pack("<ii", 1146047817, 0))  # IMOD's stamp, no flag for signed ones
        np.testing.assert_array_equal(voxels(path), values)

    def testWizardsWaitForTheFirstTomogram(self):
        empty = self.emptySet()
        train = self.newProtocol(ProtF2FdTrain, inTomos=empty)
        denoise = self.newProtocol(
            ProtF2FdDenoise, inTomos=empty, inModel=self.train.model, numberOfThreads=3
        )
        for wizard, protocol in ((F2FdPatchSizeWizard, train), (F2FdPreviewWizard, denoise)):
            form = mock.Mock(protocol=protocol)
            wizard().show(form)
            form.showError.assert_called_once_with(NO_TOMOGRAM)

    def testPatchSizesThatAreSuggested(self):
        """By what the training starts from; where that is random, by the thinnest side."""
        compact, published = {"network": 0}, {"network": 1}
        for thinnest, values, expected, reason in (
            (300, {}, 48, "pretrained"),
            (40, {}, 48, "pretrained"),
            (300, {"start": 1}, 48, "300"),
            (40, {"start": 1}, 40, "40"),
            (40, {"features": 24}, 40, "40"),
            (45, compact, 40, "45"),
            (10, compact, 16, "10"),
            (300, published, 64, "300"),
            (40, published, 32, "40"),
            (300, {"initialModel": self.train.model}, 16, "initial model"),
        ):
            protocol = self.newProtocol(ProtF2FdTrain, patch_size=20, **values)
            size, hint = suggested(protocol, thinnest)
            self.assertEqual(size, expected, values)
            self.assertIn(reason, hint)
        form = mock.Mock(
            protocol=self.newProtocol(ProtF2FdTrain, inTomos=self.imported.Tomograms, batch_size=0)
        )
        F2FdPatchSizeWizard().show(form)
        form.showError.assert_called_once_with("'Patches per batch' is 0; expected at least 1.")

    def testThePreviewIsAPartOfTheResult(self):
        denoise = self.newProtocol(
            ProtF2FdDenoise,
            inTomos=self.imported.Tomograms,
            inModel=self.train.model,
            useGpu=False,
            **ONE_THREAD,
        )
        with mock.patch.object(preview, "DEPTH", 8), mock.patch.object(preview, "SIDE", 32):
            before, after, first = preview.denoised_part(denoise, "second", 31, 2)
        np.testing.assert_array_equal(before, mrcfile.read(self.path("second"))[24:, 8:40, 4:36])
        whole = mrcfile.read(self.denoise._getExtraPath("second_denoised.mrc"))
        self.assertEqual((first, after.shape), ([24, 8, 4], (8, 32, 32)))
        self.drawInMemory()
        shown = Comparison(before, after, first=first)  # numbered as in the whole
        self.assertEqual((shown.place.val, shown.place.valmin, shown.place.valmax), (28, 24, 31))
        shown.place.set_val(31)
        np.testing.assert_array_equal(shown.images["denoised"].get_array(), after[7])
        # Not by a multiple of 2: what a hardly trained network gives repeats with folded blocks.
        right, shifted = (
            np.corrcoef(after.ravel(), whole[24:, y : y + 32, 4:36].ravel())[0, 1] for y in (8, 1)
        )
        self.assertGreater(right, max(2 * shifted, 0.6))
        with self.assertRaisesRegex(engine.EngineError, "--tile-size is 20"):
            denoise.tile_size.set(20)
            preview.denoised_part(denoise, "second", 31, 2)

    def testWhatAPersonSeesAndClicks(self):
        """The project window itself, on a display in memory."""
        if not shutil.which("Xvfb"):
            self.skipTest("Xvfb, for a window without a screen, is not installed")
        evaluate = self.launch(
            ProtF2FdEvaluate,
            inTomos=self.denoise.tomograms,
            references=self.truths.Tomograms,
            noisyTomos=self.imported.Tomograms,
        )
        folder = os.environ.get("F2FD_TEST_SCREENSHOTS") or self.getOutputPath("screenshots")
        os.makedirs(folder, exist_ok=True)
        export = self.launch(
            ProtF2FdExportModel,
            inModel=self.train.model,
            fileName="seen.pt",
            folder=self.getOutputPath(),
        )
        runs = [str(run.getObjId()) for run in (self.train, self.denoise, evaluate, export)]
        with display() as number, open(os.path.join(folder, "window.log"), "w") as log:
            code = subprocess.call(
                [
                    sys.executable,
                    "-m",
                    "f2fd_scipion.tests.window",
                    folder,
                    self.proj.getShortName(),
                    *runs,
                ],
                stdout=log,
                stderr=log,
                timeout=100,
                env=dict(os.environ, DISPLAY=number, OMP_NUM_THREADS="1"),
            )
        with open(os.path.join(folder, "window.log")) as log:
            self.assertTrue(os.path.exists(os.path.join(folder, "seen.json")), log.read()[-3000:])
        with open(os.path.join(folder, "seen.json")) as stream:
            seen = json.load(stream)
        self.assertEqual((code, seen["error"]), (0, ""))
        self.assertEqual(
            seen["tree"],
            [
                "F2Fd - " + protocol._label
                for protocol in (
                    ProtF2FdTrain,
                    ProtF2FdDenoise,
                    ProtF2FdCheck,
                    ProtF2FdDeconvolve,
                    ProtF2FdEvaluate,
                    ProtF2FdExportModel,
                )
            ],
        )
        self.assertEqual(len(seen["forms"]), 7)
        self.assertEqual(seen["wizards"], ["patch_size", "predictions"])
        self.assertEqual(seen["patch_size"], 32)
        self.assertEqual(seen["preview"], [[32, 48, 48]] * 2)
        self.assertEqual((seen["section"], seen["predictions"]), (20, 2))
        self.assertEqual(seen["export"], export.getObjLabel())
        self.assertEqual(
            {name: count for name, count in seen["views"].items() if " " in name},
            dict.fromkeys(
                [
                    "train showGain",
                    "train showScores",
                    "train showSlices",
                    "train showHistogram",
                    "train showSpectrum",
                    "denoise tomogram",
                    "evaluate showTable",
                    "evaluate showShells",
                ],
                1,
            ),
        )

    def testViewersOfUnfinishedRunsSaySo(self):
        self.drawInMemory()
        for viewerClass, protocolClass in (
            (F2FdTrainViewer, ProtF2FdTrain),
            (F2FdEvaluateViewer, ProtF2FdEvaluate),
            (F2FdDenoiseViewer, ProtF2FdDeconvolve),
            (F2FdDenoiseViewer, ProtF2FdDenoise),
        ):
            protocol = self.newProtocol(protocolClass)
            self.saveProtocol(protocol)
            viewer = viewerClass(project=self.proj, protocol=protocol)
            viewer.setProtocol(protocol)
            self.assertEqual(len(viewer._validate()), 1)
