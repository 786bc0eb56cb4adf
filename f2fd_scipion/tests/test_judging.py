"""The protocols that judge denoised tomograms: by a check, or against a reference."""

import csv
import dataclasses
import os
from unittest import mock

import mrcfile
import numpy as np

from f2fd_scipion.protocols import ProtF2FdCheck, ProtF2FdEvaluate
from f2fd_scipion.tests import project
from f2fd_scipion.tests.project import SET_VOXEL_SIZE
from f2fd_scipion.tests.simulation import SHAPES
from f2fd_scipion.viewers import F2FdCheckViewer, F2FdEvaluateViewer


class TestF2FdJudging(project.ProjectTests):
    def testCheck(self):
        """The model, hardly trained, is said to be bad; the outputs are maps of the error."""
        imported, _ = self.importCopies("checked", {"x": self.path("second")})
        self.setHalfMaps(imported.Tomograms, {"x": self.halves("second")})
        check = self.launch(
            ProtF2FdCheck,
            inTomos=imported.Tomograms,
            inModel=self.fillingModel(),
            tilt_range=60.0,
            binThreads=1,
            precision=1,
        )
        (error,) = check.tomograms
        self.assertEqual(error.getSamplingRate(), SET_VOXEL_SIZE)
        values = mrcfile.read(error.getFileName())
        self.assertEqual(values.shape, SHAPES["second"])
        self.assertTrue(0 <= values.min() < values.max() <= 1)
        numbers = check.getReports()["x"]
        self.assertTrue(numbers["half_maps"])
        self.assertEqual(numbers["verdict"][0]["mark"], "red")
        found = numbers["correlation"]["denoised"]["estimate"]
        heading, row, wedge = check.summary()[1:]
        self.assertRegex(heading, r"Is it better\?.*Is the wedge right\?")
        self.assertEqual(row.count(" | "), heading.count(" | "))
        for said in (wedge, check.methods()[1]):
            self.assertRegex(said, f"hidden from the model.* {numbers['wedge']['mean']:.2f}\\.$")
        self.assertRegex(row, f"^x \\| red \\| .* \\| {found:.2f} \\(")
        self.assertIn(f"is {found:.2f}", check.methods()[0])
        with open(check.getPage("x"), encoding="utf-8") as stream:
            self.assertEqual(
                stream.read().count("data:image/png;base64,"), len(check.getPictures("x"))
            )
        viewer = self.viewer(F2FdCheckViewer, check)
        self.assertEqual(viewer.getParam("tomogram").choices, ["x"])
        self.drawInMemory()
        (picture,) = viewer._getVisualizeDict()["showPictures"]("showPictures")
        picture.choose(1)
        with mock.patch("webbrowser.open") as browser:
            viewer._getVisualizeDict()["showPage"]("showPage")
        browser.assert_called_once_with("file://" + os.path.abspath(check.getPage("x")))
        masked = self.newProtocol(
            ProtF2FdCheck, inTomos=imported.Tomograms, inModel=self.train.model
        )
        trained = self.train.model.getTrainConfig()
        with mock.patch.object(
            type(self.train.model),
            "getTrainConfig",
            return_value=dataclasses.replace(trained, perturbation="self2self"),
        ):
            self.assertIn("expected a model of the perturbation", " ".join(masked.validate()))

    def testScoresOfManyTomogramsAreSummedUp(self):
        evaluate = self.newProtocol(ProtF2FdEvaluate, inTomos=self.denoise.tomograms)
        curves = [
            {"frequency": [0.1, 0.3, 0.4][:count], "correlation": [1.0, 0.5, 0.2][:count]}
            for count in (2, 3)
        ]
        scores = {
            f"t{number:02d}": dict.fromkeys(
                ("noisy", "denoised"),
                {"correlation": 0.5 + number / 100, "fsc": curves[number % 2]},
            )
            for number in range(40)
        }
        with mock.patch.object(ProtF2FdEvaluate, "getScores", return_value=scores):
            self.assertEqual(
                evaluate.table(),
                [["", "correlation"]]
                + [[state, "0.695 (0.500 to 0.890)"] for state in ("before", "denoised")],
            )
            self.assertEqual(evaluate.table("t07")[1], ["before", "0.570"])
            self.assertEqual(len(evaluate.summary()), 4)
            viewer = self.viewer(F2FdEvaluateViewer, evaluate)
            self.assertEqual(len(viewer.getParam("tomogram").choices), 41)
            axes = self.drawn(viewer._getVisualizeDict()["showShells"]()).figure.axes[0]
            self.assertEqual((len(axes.lines), len(axes.collections)), (3, 2))  # means and ranges

    def testScoresAgainstAReference(self):
        evaluate = self.newProtocol(ProtF2FdEvaluate, inTomos=self.denoise.tomograms)
        self.assertIn(
            "no half-maps (odd and even) of first, second, which the comparison",
            " ".join(evaluate.validate()),
        )
        evaluate.references.set(self.truths.Tomograms)
        evaluate.noisyTomos.set(self.imported.Tomograms)
        self.assertEqual(evaluate.validate(), [])
        self.launchProtocol(evaluate)
        heading, *rows = evaluate.table("first")
        self.assertEqual(heading, ["", "correlation", "PSNR (dB)", "SSIM", "mean FSC"])
        self.assertEqual([row[0] for row in rows], ["before", "denoised"])
        noisy, clean = (
            np.array(mrcfile.read(os.path.join(self.data, "first", name)))
            for name in ("tomogram.mrc", "clean.mrc")
        )
        self.assertAlmostEqual(
            float(rows[0][1]), np.corrcoef(noisy.ravel(), clean.ravel())[0, 1], places=3
        )
        viewer = self.viewer(F2FdEvaluateViewer, evaluate)
        for number in range(len(SHAPES) + 1):
            viewer.tomogram.set(number)
            for name, show in viewer._getVisualizeDict().items():
                plotter = self.drawn(show(name))
            self.assertEqual(len(plotter.figure.axes[0].lines), 3)
        with open(evaluate._getExtraPath("scores.csv"), newline="") as stream:
            table = list(csv.DictReader(stream))
        self.assertEqual(
            [(row["tsId"], row["state"]) for row in table],
            [(tsId, state) for tsId in sorted(SHAPES) for state in ("before", "denoised")],
        )
        self.assertEqual(f"{float(table[0]['correlation']):.3f}", rows[0][1])
        only, _ = self.importCopies("other", {"other": self.path("first")})
        evaluate.noisyTomos.set(only.Tomograms)
        self.assertEqual(
            evaluate.validate(), ["Tomograms before denoising: there is none for first, second."]
        )
