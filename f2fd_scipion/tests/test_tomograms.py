"""The protocols that make or judge tomograms, in a real project."""

import csv
import dataclasses
import glob
import os
import shlex
import shutil
import sys
import sysconfig
import venv
from unittest import mock

import mrcfile
import numpy as np
from pyworkflow.object import Set

import f2fd_core
import f2fd_scipion
from f2fd_core.config import UserError
from f2fd_scipion import engine
from f2fd_scipion.constants import F2FD_ENV_ACTIVATION
from f2fd_scipion.protocols import (
    ProtF2FdCheck,
    ProtF2FdDeconvolve,
    ProtF2FdDenoise,
    ProtF2FdEvaluate,
    ProtF2FdTrain,
)
from f2fd_scipion.tests import project
from f2fd_scipion.tests.project import AWKWARD_NAME, ONE_THREAD, ORIGIN, SET_VOXEL_SIZE, SMALL
from f2fd_scipion.tests.simulation import SHAPES
from f2fd_scipion.viewers import F2FdCheckViewer, F2FdEvaluateViewer


class TestF2FdTomograms(project.ProjectTests):
    def testDenoisedTomograms(self):
        self.checkDenoised(self.denoise, SHAPES)
        self.assertEqual(
            self.proj.getSourceParents(self.denoise.tomograms)[0].getObjId(),
            self.imported.Tomograms.getObjId(),
        )
        for tsId in SHAPES:
            with mrcfile.open(
                self.denoise._getExtraPath(tsId + "_denoised.mrc")
            ) as denoised, mrcfile.open(self.denoise._getExtraPath(tsId + "_std.mrc")) as std:
                self.assertEqual(denoised.data.shape, std.data.shape)
                self.assertGreater(denoised.data.std(), 0)
                self.assertAlmostEqual(float(std.voxel_size.x), SET_VOXEL_SIZE, places=3)
                self.assertGreaterEqual(std.data.min(), 0)
                self.assertGreater((std.data > 0).mean(), 0.99)
        self.assertIn("*2* of *2*", self.denoise.summary()[0])
        (verdict,) = [words for words in self.denoise.summary() if "with the truth" in words]
        self.assertRegex(verdict, r"truth: 0\.\d\d \(0\.\d\d to 0\.\d\d\); of the tomograms")

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

    def testDownstreamProtocolsAcceptTheOutput(self):
        wanted = {"ProtMemBrainSeg": "inTomograms", "ProtTomoSegmenTV": "inTomos"}
        protocols = self.proj.getDomain().getProtocols()
        present = [name for name in wanted if name in protocols]
        if not present:
            self.skipTest("neither membrain nor tomosegmemtv is installed")
        for name in present:
            protocol = self.newProtocol(protocols[name], **{wanted[name]: self.denoise.tomograms})
            home = protocol.getPlugin().getHome() or "no home"
            self.assertEqual(
                [
                    error
                    for error in protocol.validate()
                    if home not in error and error not in protocol.validateInstallation()
                ],
                [],
            )

    def testAFailingTomogramDoesntStopTheOthers(self):
        imported, folder = self.importCopies(
            "corrupt", {"a": self.path("first"), "b": self.path("first"), "c": self.path("second")}
        )
        broken = os.path.join(folder, "b.mrc")
        os.truncate(broken, 5000)
        denoise = self.launch(
            ProtF2FdDenoise,
            inTomos=imported.Tomograms,
            inModel=self.train.model,
            useGpu=False,
            numberOfThreads=3,
            **ONE_THREAD,
        )
        self.checkDenoised(denoise, {"a": SHAPES["first"], "c": SHAPES["second"]})
        (failed,) = denoise.failedTomograms
        self.assertEqual(
            (failed.getTsId(), os.path.realpath(failed.getFileName())),
            ("b", os.path.realpath(broken)),
        )
        self.assertIn("b.mrc", failed.getObjComment())
        summary = " ".join(denoise.summary())
        self.assertIn("*b failed*: ", summary)
        self.assertIn("b.mrc", summary)
        self.assertIn("5000", summary)  # the engine names the byte counts
        self.assertIn("Tomogram b failed", self.stderr(denoise))

        shutil.copyfile(self.path("second"), broken)
        times = self.times(denoise, "ac")
        self.resume(denoise)
        self.checkDenoised(
            denoise, {"a": SHAPES["first"], "b": SHAPES["second"], "c": SHAPES["second"]}
        )
        self.assertNotIn("failed", " ".join(denoise.summary()))
        stored = self.proj.getProtocol(denoise.getObjId(), fromRuns=False)
        for protocol in (denoise, stored):
            self.assertFalse(hasattr(protocol, "failedTomograms"))
            self.assertEqual([name for name, _ in protocol.iterOutputAttributes()], ["tomograms"])
        self.assertEqual(self.times(denoise, "ac"), times)

    @staticmethod
    def times(denoise, tsIds):
        """When the denoised tomograms were written."""
        return [
            os.stat(denoise._getExtraPath(tsId + "_denoised.mrc")).st_mtime_ns for tsId in tsIds
        ]

    def testContinuingMakesWhatIsAskedForNow(self):
        imported, _ = self.importCopies("asked", {"x": self.path("first")})
        tomograms = imported.Tomograms
        for tomogram in tomograms.iterItems(iterate=False):
            tomogram.setCtfCorrected(True)
            tomograms.update(tomogram)
        self.setHalfMaps(tomograms, {"x": self.halves("first")})
        denoise = self.launch(
            ProtF2FdDenoise,
            inTomos=tomograms,
            inModel=self.train.model,
            std=True,
            useGpu=False,
            **ONE_THREAD,
        )
        made = self.times(denoise, "x")
        self.assertTrue(denoise.getDeviation("x"))
        denoise.binThreads.set(2)
        denoise.batch_size.set(2)
        self.resume(denoise)
        self.assertEqual(self.times(denoise, "x"), made)

        denoise.denoiseHalves.set(True)
        denoise.std.set(False)
        self.resume(denoise)
        (result,) = denoise.tomograms
        odd, even = result.getHalfMaps(asList=True)
        self.assertFalse(np.array_equal(mrcfile.read(odd), mrcfile.read(even)))
        self.assertIsNone(denoise.getDeviation("x"))
        self.assertIn("the denoised half-maps", " ".join(denoise.summary()))
        self.assertTrue(denoise.tomograms.hasOddEven())
        self.assertTrue(result.ctfCorrected() and denoise.tomograms.ctfCorrected())

        denoise.denoiseHalves.set(False)
        self.resume(denoise)
        (result,) = denoise.tomograms
        self.assertFalse(result.hasHalfMaps() or os.path.exists(odd))
        self.assertNotIn("half-maps", " ".join(denoise.summary()))

    def testContinuingWithOtherSettingsKeepsNothingOfBefore(self):
        imported, folder = self.importCopies(
            "other_settings", {"a": self.path("second"), "b": self.path("second")}
        )
        denoise = self.launch(
            ProtF2FdDenoise,
            inTomos=imported.Tomograms,
            useGpu=False,
            inModel=self.train.model,
            **ONE_THREAD,
        )
        (before,) = self.times(denoise, "a")
        os.truncate(os.path.join(folder, "b.mrc"), 5000)
        denoise.predictions.set(1)
        self.resume(denoise)
        self.checkDenoised(denoise, {"a": SHAPES["second"]})
        self.assertGreater(self.times(denoise, "a"), [before])
        self.assertFalse(os.path.exists(denoise._getExtraPath("b_denoised.mrc")))
        (failed,) = denoise.failedTomograms
        self.assertEqual(failed.getTsId(), "b")
        self.assertIn("*1* of *2*", denoise.summary()[0])

    def testWithoutAnyResultTheProtocolFails(self):
        imported, folder = self.importCopies("all_corrupt", {"x": self.path("second")})
        os.truncate(os.path.join(folder, "x.mrc"), 5000)
        denoise = self.launchFailing(
            ProtF2FdDenoise, inTomos=imported.Tomograms, inModel=self.train.model, **ONE_THREAD
        )
        self.assertIn("No tomogram was produced", denoise.getErrorMessage())
        self.assertIn("x.mrc", denoise.getErrorMessage())
        self.assertFalse(denoise.getDone())

    def testAwkwardFileNamesInAnotherEnvironment(self):
        imported, _ = self.importCopies(
            "awkward", {"x": self.path("first"), "y": self.path("second")}
        )
        for number, tomogram in enumerate(imported.Tomograms.iterItems(iterate=False)):
            folder = os.path.join(os.path.dirname(tomogram.getFileName()), str(number))
            os.makedirs(folder)
            name = os.path.join(folder, AWKWARD_NAME)
            shutil.copyfile(tomogram.getFileName(), name)
            tomogram.setFileName(name)
            imported.Tomograms.update(tomogram)
        self.setHalfMaps(
            imported.Tomograms, {"x": self.halves("first"), "y": self.halves("second")}
        )
        activate, used = self.environment()
        variables = f2fd_scipion.Plugin.getVars()
        with mock.patch.dict(os.environ, {F2FD_ENV_ACTIVATION: activate}), mock.patch.dict(
            variables, {F2FD_ENV_ACTIVATION: activate}
        ):
            train = self.launch(ProtF2FdTrain, inTomos=imported.Tomograms, **SMALL)
            self.assertTrue(os.path.exists(used))
            denoise = self.launch(
                ProtF2FdDenoise, inTomos=imported.Tomograms, inModel=train.model, **ONE_THREAD
            )
        self.checkDenoised(denoise, {"x": SHAPES["first"], "y": SHAPES["second"]})

    def environment(self):
        """A virtual environment with awkward folders; returns its activation and a file that
        appears when its Python runs the engine."""
        folder = self.getOutputPath("my 100% engine's")
        venv.create(folder, with_pip=False)
        (packages,) = glob.glob(os.path.join(folder, "lib", "python*", "site-packages"))
        used = os.path.join(self.getOutputPath(), "used")
        paths = [
            os.path.dirname(os.path.dirname(f2fd_core.__file__)),
            sysconfig.get_paths()["purelib"],
        ] + [path for path in sys.path if path]
        with open(os.path.join(packages, "engine.pth"), "w") as stream:
            stream.write("\n".join(paths) + f"\nimport os; open({used!r}, 'w').close()\n")
        return f". {shlex.quote(os.path.join(folder, 'bin', 'activate'))}", used

    def testASetThatGrowsIsDenoisedAsItGrows(self):
        imported, _ = self.importCopies("growing", {"a": self.path("first")})
        tomograms = imported.Tomograms
        only = tomograms.getFirstItem().clone()

        def become(state):
            tomograms.setStreamState(state)
            tomograms.write()
            imported._store(tomograms)

        def grow(tsId, name):
            tomogram = only.clone()
            tomogram.cleanObjId()
            tomogram.setTsId(tsId)
            tomogram.setLocation(os.path.abspath(self.path(name)))
            tomograms.append(tomogram)
            tomograms.write()
            result = denoise._getExtraPath(tsId + "_denoised.mrc")
            self.waitFor(lambda: os.path.exists(result), denoise)
            self.waitFor(lambda: tsId in filled(), denoise)
            self.assertFalse(self.updated(denoise).isFinished())

        def filled():
            """{tsId: (path, shape)} of the filled tomograms so far."""
            return {
                tomogram.getTsId(): (tomogram.getFileName(), tomogram.getDim()[::-1])
                for tomogram in getattr(self.updated(denoise), "filledTomograms", ())
            }

        def looks():
            """How often it found nothing new, a second apart though the form says 0."""
            with open(denoise.getStdoutLog(), encoding="utf-8") as stream:
                return stream.read().count("sleeping 1 seconds")

        tomograms.enableAppend()
        tomograms.clear()
        become(Set.STREAM_OPEN)
        denoise = self.newProtocol(
            ProtF2FdDenoise,
            inTomos=tomograms,
            inModel=self.fillingModel(),
            numberOfThreads=2,
            streamingSleepOnWait=0,
            fill_wedge=True,
            tilt_range=60.0,
            **ONE_THREAD,
        )
        self.assertIn("at least 3 threads", " ".join(denoise.validate()))
        denoise.numberOfThreads.set(ProtF2FdDenoise().numberOfThreads.get())
        self.proj.scheduleProtocol(denoise)
        self.waitFor(lambda: os.path.exists(denoise.getStdoutLog()) and looks() > 1, denoise)
        grow("a", "first")
        grow("b", "second")
        become(Set.STREAM_CLOSED)
        self.waitFor(lambda: self.updated(denoise).isFinished(), denoise)
        denoise = self.updated(denoise)
        self.assertTrue(denoise.tomograms.isStreamClosed())
        shapes = {"a": SHAPES["first"], "b": SHAPES["second"]}
        self.checkDenoised(denoise, shapes)
        self.assertTrue(denoise.filledTomograms.isStreamClosed())
        both = {tsId: (denoise.getFilled(tsId), shape) for tsId, shape in shapes.items()}
        self.assertEqual(filled(), both)
        times = self.times(denoise, "ab")
        self.resume(denoise)
        self.checkDenoised(denoise, shapes)
        self.assertEqual(self.times(denoise, "ab"), times)
        self.assertEqual(filled(), both)

    def testHalfMapsAreDenoisedForTheResult(self):
        imported, _ = self.importCopies("both", {"x": self.path("first")})
        denoise = self.newProtocol(
            ProtF2FdDenoise,
            inTomos=imported.Tomograms,
            inModel=self.train.model,
            denoiseHalves=True,
            std=True,
            **ONE_THREAD,
        )
        self.assertIn("no half-maps (odd and even) of x", " ".join(denoise.validate()))
        with mock.patch.object(engine, "run") as run, self.assertRaisesRegex(
            UserError, r"no half-maps \(odd and even\) of x"
        ):
            # It came after the check of the form, as in a growing set.
            denoise._make(
                "x", denoise._configure(denoise._supply()), imported.Tomograms.getFirstItem()
            )
        run.assert_not_called()
        self.setHalfMaps(imported.Tomograms, {"x": self.halves("first")})
        self.assertEqual(denoise.validate(), [])
        self.launchProtocol(denoise)
        (result,) = denoise.tomograms
        odd, even = result.getHalfMaps(asList=True)
        self.assertTrue(odd.endswith("x_denoised_odd.mrc"), odd)
        self.assertTrue(even.endswith("x_denoised_even.mrc"), even)
        alone = os.path.join(self.getOutputPath(), "alone")
        engine.call(
            [
                "denoise",
                self.train.model.getPath(),
                *self.halves("first"),
                "--output",
                alone,
                "--predictions",
                "2",
                "--precision",
                "float32",
                "--device",
                "cpu",
            ]
        )
        for path, name in ((odd, "odd"), (even, "even")):
            np.testing.assert_allclose(
                mrcfile.read(path),
                mrcfile.read(os.path.join(alone, name + "_denoised.mrc")),
                atol=1e-4,
            )
        self.assertFalse(np.allclose(mrcfile.read(odd), mrcfile.read(even), atol=1e-2))
        for state in ("denoised", "original"):
            self.assertIn(
                f"The Fourier shell correlation between the {state} half-maps falls to",
                " ".join(denoise.summary()),
            )
        evaluate = self.launch(
            ProtF2FdEvaluate, inTomos=denoise.tomograms, noisyTomos=imported.Tomograms
        )
        scores = evaluate.getScores()["x"]
        after, before = scores["half_maps"], scores["half_maps_before"]
        self.assertEqual(set(after), {"fsc", "fsc_mean", "fsc_0.5", "fsc_0.143"})
        self.assertEqual(after["fsc"]["frequency"], before["fsc"]["frequency"])
        self.assertNotEqual(after["fsc"]["correlation"], before["fsc"]["correlation"])
        self.assertEqual(
            evaluate.table(),
            [
                ["", "mean FSC"],
                ["half-maps before", f"{before['fsc_mean']:.3f}"],
                ["denoised half-maps", f"{after['fsc_mean']:.3f}"],
            ],
        )
        evaluate.noisyTomos.set(self.imported.Tomograms)
        self.assertEqual(evaluate.validate(), ["Tomograms before denoising: there is none for x."])

    def testDeconvolvedTomograms(self):
        deconvolve = self.newProtocol(
            ProtF2FdDeconvolve, inTomos=self.imported.Tomograms, binThreads=1
        )
        self.assertIn("'Defocus' is 0; expected", " ".join(deconvolve.validate()))
        self.assertEqual(deconvolve.warnings(), [])
        deconvolve.defocus.set(3.0)
        self.assertEqual(deconvolve.validate(), [])
        self.launchProtocol(deconvolve)
        self.checkTomograms(
            deconvolve.tomograms,
            expectedSetSize=2,
            expectedSRate=SET_VOXEL_SIZE,
            expectedOriginShifts=list(ORIGIN),
            isHeterogeneousSet=True,
            ctfCorrected=True,
            expectedDimensions={tsId: list(shape[::-1]) for tsId, shape in SHAPES.items()},
        )
        for tomogram in deconvolve.tomograms:
            self.assertTrue(tomogram.ctfCorrected())
            before = mrcfile.read(self.path(tomogram.getTsId()))
            after = mrcfile.read(tomogram.getFileName())
            self.assertAlmostEqual(float(after.std() / before.std()), 1, places=2)
            self.assertGreater(np.corrcoef(before.ravel(), after.ravel())[0, 1], 0.1)
        self.assertIn("defocus 3 µm", " ".join(deconvolve.methods()))

    def testEachTomogramIsFilteredWithItsOwnCtf(self):
        """The medians over its images that are kept and have a CTF."""
        imported, _ = self.importCopies("ctf", {tsId: self.path(tsId) for tsId in SHAPES})
        ctfs = self.ctfs(
            {
                "first": [
                    (29000, 31000, 10, True),
                    (90000, 90000, 80, False),
                    (30000, 31000, 10, True),
                    (29000, 30000, 20, True),
                    (-999, -1, None, True),
                ],
                "second": [(40000, 44000, None, True)],
            }
        )
        imported._defineOutputs(tiltSeries=ctfs.getSetOfTiltSeries(), ctfs=ctfs)
        deconvolve = self.newProtocol(
            ProtF2FdDeconvolve,
            inTomos=imported.Tomograms,
            inCtfs=imported.ctfs,
            defocus=7.0,
            binThreads=1,
        )
        self.assertEqual(deconvolve.validate(), [])
        for name in ("defocus", "phase_shift"):
            self.assertFalse(deconvolve.evalParamCondition(name))
        expected = {"first": (3.0, 10.0), "second": (4.2, 0.0)}
        for tomogram in imported.Tomograms:
            config = deconvolve._configure(deconvolve._supply(tomogram))
            self.assertEqual((config.defocus, config.phase_shift), expected[tomogram.getTsId()])
        self.launchProtocol(deconvolve)
        for tsId, (defocus, phase_shift) in expected.items():
            alone = os.path.join(self.getOutputPath(), "alone")
            engine.call(
                [
                    "deconvolve",
                    self.path(tsId),
                    "--output",
                    alone,
                    "--defocus",
                    str(defocus),
                    "--phase-shift",
                    str(phase_shift),
                    "--voxel-size",
                    str(SET_VOXEL_SIZE),
                    "--threads",
                    "1",
                    "--overwrite",
                ]
            )
            np.testing.assert_array_equal(
                mrcfile.read(deconvolve._getExtraPath(tsId + "_deconvolved.mrc")),
                mrcfile.read(os.path.join(alone, "tomogram_deconvolved.mrc")),
            )
        self.assertIn("defocus 3 to 4.2 µm", " ".join(deconvolve.methods()))

    def testATomogramWithoutACtfIsNamed(self):
        ctfs = self.ctfs({"first": [(30000, 30000, 0, False)], "third": [(30000, 30000, 0, True)]})
        deconvolve = self.newProtocol(
            ProtF2FdDeconvolve, inTomos=self.imported.Tomograms, inCtfs=ctfs
        )
        sentence = "CTFs: there is no defocus for %s"
        self.assertEqual(deconvolve.validate(), [sentence % "first, second" + "."])
        with self.assertRaisesRegex(UserError, sentence % "first"):
            deconvolve._supply(self.imported.Tomograms.getFirstItem())

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
