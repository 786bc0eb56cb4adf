"""Denoising in a real project."""

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
from f2fd_scipion.constants import F2FD_ENV_ACTIVATION
from f2fd_scipion.protocols import ProtF2FdDenoise, ProtF2FdTrain
from f2fd_scipion.tests import project
from f2fd_scipion.tests.project import AWKWARD_NAME, ONE_THREAD, SET_VOXEL_SIZE, SMALL
from f2fd_scipion.tests.simulation import SHAPES


class TestF2FdDenoising(project.ProjectTests):
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
        denoise.binThreads.set(1)

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
