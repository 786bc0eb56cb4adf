"""The protocols in a real project, at a small size."""
import contextlib
import csv
import glob
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from unittest import mock

import mrcfile
import numpy as np
from PIL import Image
from pwem.viewers import EmPlotter
from pyworkflow.object import Set
from pyworkflow.protocol import MODE_RESUME
from pyworkflow.tests import setupTestProject
from tomo.objects import SetOfTomoMasks, TomoMask
from tomo.protocols import ProtImportTomograms
from tomo.tests.test_base_centralized_layer import TestBaseCentralizedLayer

import f2fd_core
import f2fd_scipion
from f2fd_core.config import PERTURBATIONS, TrainConfig, UserError
from f2fd_scipion import engine
from f2fd_scipion.constants import F2FD_ENV_ACTIVATION
from f2fd_scipion.objects import F2FdModel
from f2fd_scipion.protocols import (
    ProtF2FdDeconvolve,
    ProtF2FdDenoise,
    ProtF2FdEvaluate,
    ProtF2FdExportModel,
    ProtF2FdImportModel,
    ProtF2FdTrain,
)
from f2fd_scipion.tests.simulation import SHAPES, simulated
from f2fd_scipion.viewers import F2FdDenoiseViewer, F2FdEvaluateViewer, F2FdTrainViewer
from f2fd_scipion.viewers.viewer_train import LossPlot
from f2fd_scipion.wizards import preview
from f2fd_scipion.wizards.patch_size import suggested

SMALL = {"steps": 6, "patch_size": 16, "batch_size": 2, "checkpoint_every": 6,
         "numberOfThreads": 1, "precision": 1}
ONE_THREAD = {"binThreads": 1, "predictions": 2, "precision": 1}
SET_VOXEL_SIZE = 7.5  # not the headers'
ORIGIN = (-10.0, 20.0, -30.5)  # X, Y, Z in Å
HALVES = PERTURBATIONS.index("halves")
NO_HALVES = ("Tomograms: there are no half-maps (odd and even) of first, second, which the "
             "perturbation 'halves' needs.")
AWKWARD_NAME = "50% of 'my' tömogram (1).mrc"


@contextlib.contextmanager
def display():
    """A display in memory, with a window manager if there is one; yields its number."""
    read, write = os.pipe()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "1600x1000x24"],
                              pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with open(read) as stream:
        number = ":" + stream.readline().strip()
    manager = subprocess.Popen(["openbox"], env=dict(os.environ, DISPLAY=number),
                               stderr=subprocess.DEVNULL) if shutil.which("openbox") else None
    try:
        yield number
    finally:
        for process in (manager, server):
            if process:
                process.terminate()
                process.wait()


class TestF2FdProjects(TestBaseCentralizedLayer):
    """One project: tests look at the runs that setUpClass made, or add runs of their own."""

    @classmethod
    def setUpClass(cls):
        setupTestProject(cls)
        cls.data = simulated()
        cls.imported = cls.importTomograms(os.path.join(cls.data, "tomograms"))
        cls.truths = cls.importTomograms(os.path.join(cls.data, "truths"))
        cls.train = cls.launch(ProtF2FdTrain, inTomos=cls.imported.Tomograms,
                               groundTruth=cls.truths.Tomograms, **SMALL)
        cls.denoise = cls.launch(ProtF2FdDenoise, inTomos=cls.imported.Tomograms,
                                 inModel=cls.train.model, std=True, **ONE_THREAD)

    @classmethod
    def launch(cls, protocolClass, **values):
        return cls.launchProtocol(cls.newProtocol(protocolClass, **values))

    @classmethod
    def launchFailing(cls, protocolClass, **values):
        """Run a protocol that is to fail, and return it."""
        protocol = cls.newProtocol(protocolClass, **values)
        cls.proj.launchProtocol(protocol, wait=True)
        assert protocol.isFailed(), protocol.getStatus()
        return protocol

    @classmethod
    def importTomograms(cls, folder):
        x, y, z = (-shift for shift in ORIGIN)
        return cls.launch(ProtImportTomograms, filesPath=folder, filesPattern="*.mrc",
                          samplingRate=SET_VOXEL_SIZE, setOrigCoord=True, x=x, y=y, z=z)

    def importCopies(self, name, tomograms):
        """Import copies of {tsId: tomogram's file}, which a test may change."""
        folder = self.getOutputPath(name)
        os.makedirs(folder)
        for tsId, path in tomograms.items():
            shutil.copyfile(path, os.path.join(folder, tsId + ".mrc"))
        return self.importTomograms(folder), folder

    @staticmethod
    def setHalfMaps(tomograms, files):
        """Give a set's tomograms their half-maps, {tsId: [odd, even]}."""
        for tomogram in tomograms.iterItems(iterate=False):
            tomogram.setHalfMaps(files[tomogram.getTsId()])
            tomograms.update(tomogram)
        tomograms._hasOddEven.set(True)
        tomograms.write()

    def halves(self, tsId):
        return [os.path.join(self.data, tsId, name + ".mrc") for name in ("odd", "even")]

    def setUp(self):
        self.setupTestOutput()

    @staticmethod
    def log(protocol):
        with open(protocol._getExtraPath("log.csv"), newline="") as stream:
            return list(csv.DictReader(stream))

    @staticmethod
    def stderr(protocol):
        with open(protocol.getStderrLog(), encoding="utf-8") as stream:
            return stream.read()

    # -------------------------- Training --------------------------------------
    def testTrainingHasAModelAndItsRecord(self):
        model = self.train.model
        self.assertTrue(os.path.exists(model.getPath()))
        self.assertFalse(os.path.isabs(model.getPath()))
        self.assertEqual((model.getSteps(), model.getPatchSize()), (6, 16))
        with open(self.train._getExtraPath("train.json")) as stream:
            recorded = TrainConfig.create({}, json.load(stream))
        self.assertEqual(model.getTrainConfig(), recorded)
        self.assertEqual((recorded.steps, recorded.precision, recorded.threads), (6, "float32", 1))
        tomograms = [tomogram.getFileName() for tomogram in self.imported.Tomograms]
        self.assertEqual(list(recorded.tomograms), tomograms)
        self.assertEqual([os.path.basename(path) for path in recorded.ground_truth],
                         [os.path.basename(path) for path in tomograms])
        self.assertEqual(len(self.log(self.train)), 6)
        self.assertIn("ssim", self.log(self.train)[0])
        self.assertIn("6", " ".join(self.train.summary()))
        self.assertTrue(self.train.methods())
        self.assertEqual(self.proj.getSourceParents(model)[0].getObjId(),
                         self.imported.Tomograms.getObjId())

    def testContinuingTrainsOn(self):
        train = self.launch(ProtF2FdTrain, inTomos=self.imported.Tomograms, **SMALL)
        before = self.log(train)
        train.steps.set(9)
        train.runMode.set(MODE_RESUME)
        self.launchProtocol(train)
        after = self.log(train)
        self.assertEqual(after[:6], before)
        self.assertEqual(len(after), 9)
        self.assertEqual(train.model.getSteps(), 9)
        self.assertIn("resuming from", self.stderr(train))

    def testValidationSpeaksTheEnginesSentence(self):
        train = self.newProtocol(ProtF2FdTrain, inTomos=self.imported.Tomograms, patch_size=20)
        self.assertEqual(train.validate(), ["'Patch size' is 20; expected a multiple of 8 for the "
                                            "compact network."])
        train.patch_size.set(16)
        self.assertEqual(train.validate(), [])
        denoise = self.newProtocol(ProtF2FdDenoise, inTomos=self.imported.Tomograms,
                                   inModel=self.train.model, tile_size=20)
        self.assertEqual(len(denoise.validate()), 1)
        self.assertIn("'Tile size' is 20; expected a multiple of 8", denoise.validate()[0])
        denoise.tile_size.set(0)
        self.assertEqual(denoise.validate(), [])

    def testValidationNamesWhatIsMissing(self):
        train = self.newProtocol(ProtF2FdTrain)
        self.assertEqual(train.validate(), ["*Tomograms* cannot be EMPTY."])
        imported, folder = self.importCopies("gone", {"here": self.path("first"),
                                                      "gone": self.path("first")})
        os.remove(os.path.join(folder, "gone.mrc"))
        train.inTomos.set(imported.Tomograms)
        train.groundTruth.set(self.truths.Tomograms)
        errors = " ".join(train.validate())
        self.assertIn("no file is there for gone (", errors)
        self.assertNotIn("here (", errors)
        self.assertIn("there is none for gone, here", errors)

    def testWhatTheMachineOrTheMethodHasNoRoomFor(self):
        imported, folder = self.importCopies("thin", {"x": self.path("first")})
        train = self.newProtocol(ProtF2FdTrain, inTomos=imported.Tomograms)
        denoise = self.newProtocol(ProtF2FdDenoise, inTomos=imported.Tomograms,
                                   inModel=self.train.model)
        self.assertEqual(train.warnings() + train.validate() + denoise.validate(), [])
        with mock.patch.object(os, "sysconf", return_value=2 ** 14):  # 256 MiB
            self.assertIn("may need 2 GB of memory; this machine has 0 GB",
                          " ".join(train.warnings()))
        with mrcfile.new(os.path.join(folder, "x.mrc"), overwrite=True) as stream:
            stream.set_data(np.zeros((5, 40, 40), dtype=np.float32))
        sentence = ("Tomograms: every side needs at least 8 voxels, which the thinnest of x (5) "
                    "does not have.")
        self.assertEqual(train.validate(), [sentence])
        self.assertEqual(denoise.validate(), [sentence])

    def testGpuOrCpu(self):
        train = self.newProtocol(ProtF2FdTrain, inTomos=self.imported.Tomograms)
        self.assertEqual(train._configure(train._supply()).device, "all")
        self.assertEqual(train.warnings(), [])
        train.gpuList.set("0 1 2 3 4")
        train.batch_size.set(4)
        self.assertIn("'Patches per batch' is 4; expected at least 5", " ".join(train.validate()))
        train.gpuList.set("0 1 2 3")
        self.assertEqual(train.validate(), [])
        with mock.patch.object(engine, "gpus", return_value=2):
            self.assertEqual(train.validate(), ["GPU IDs: there is no GPU 2, 3; this machine has "
                                                "2, counted from 0."])
        train.gpuList.set("")
        self.assertIn("No GPU is named", " ".join(train.validate()))
        train.useGpu.set(False)
        self.assertEqual(train.validate(), [])
        self.assertEqual(train._configure(train._supply()).device, "cpu")
        self.assertIn("many times longer", " ".join(train.warnings()))

    def testASingleTomogramWithAMask(self):
        folder = self.getOutputPath("masked")
        os.makedirs(folder)
        mask = np.zeros(SHAPES["second"], dtype=np.int8)
        mask[:16, :16, :8] = 1
        masks = {tsId: os.path.join(folder, tsId + ".mrc") for tsId in ("second", "first")}
        for path in masks.values():
            with mrcfile.new(path) as stream:
                stream.set_data(mask)
        train = self.newProtocol(ProtF2FdTrain, inTomos=self.imported.Tomograms, **SMALL)
        train.inTomos.set(self.imported)
        train.inTomos.setExtended("Tomograms.%d" % self.imported.Tomograms.getItem(
            "_tsId", "second").getObjId())
        self.assertEqual(train.inTomos.get().getTsId(), "second")
        self.assertEqual(train.validate(), [])
        tomoMasks = SetOfTomoMasks.create(folder)
        tomoMasks.setSamplingRate(SET_VOXEL_SIZE)
        for tsId, path in masks.items():
            item = TomoMask()
            item.setTsId(tsId)
            item.setLocation(path)
            tomoMasks.append(item)
        tomoMasks.write()
        train.masks.set(tomoMasks)
        self.assertEqual(train.validate(), [])
        config = train._configure(train._supply())
        self.assertEqual([os.path.basename(path) for path in config.tomograms], ["second.mrc"])
        self.assertEqual(config.sampling_masks, (masks["second"],))
        train.masks.set(None)
        self.launchProtocol(train)
        self.assertIn("Tomograms: *1* at", " ".join(train.summary()))

    def testFinishingARunningTrainingKeepsItsModel(self):
        train = self.newProtocol(ProtF2FdTrain, inTomos=self.imported.Tomograms,
                                 **dict(SMALL, steps=100000))
        self.proj.launchProtocol(train, wait=False)
        log = train._getExtraPath("log.csv")
        self.waitFor(lambda: os.path.exists(log) and len(self.log(train)) > 7, train)
        train.finishNow()
        self.waitFor(lambda: self.updated(train).isFinished(), train)
        self.assertEqual(train.model.getSteps(), len(self.log(train)))
        self.assertTrue(train.model.getPath().endswith("model.pt"))

    def testStoppingATrainingHandsOutItsNewestCheckpoint(self):
        train = self.newProtocol(ProtF2FdTrain, inTomos=self.imported.Tomograms,
                                 **dict(SMALL, steps=100000))
        self.proj.launchProtocol(train, wait=False)
        self.waitFor(lambda: train.newestCheckpoint() and self.updated(train).isRunning(), train)
        self.proj.stopProtocol(train)
        self.assertTrue(train.isAborted())
        newest = train.newestCheckpoint()
        stored = self.proj.getProtocol(train.getObjId(), fromRuns=False)
        self.assertEqual(stored.model.getPath(), newest)
        self.assertEqual(stored.model.getSteps(), int(newest[-11:-3]))
        denoise = self.newProtocol(ProtF2FdDenoise, inTomos=self.imported.Tomograms,
                                   inModel=stored.model)
        self.assertEqual(denoise.validate(), [])
        train.steps.set(train.model.getSteps() + 1)
        train.runMode.set(MODE_RESUME)
        self.launchProtocol(train)
        self.assertTrue(train.model.getPath().endswith("model.pt"))

    # -------------------------- Half-maps, initial model ----------------------
    def testHalfMapsOfASet(self):
        imported, _ = self.importCopies("halves", {tsId: self.path(tsId) for tsId in SHAPES})
        self.setHalfMaps(imported.Tomograms, {tsId: self.halves(tsId) for tsId in SHAPES})
        train = self.launch(ProtF2FdTrain, inTomos=imported.Tomograms, perturbation=HALVES,
                            initialModel=self.train.model, learning_rate=1e-4, **SMALL)
        config = train.model.getTrainConfig()
        self.assertEqual(config.perturbation, "halves")
        self.assertEqual([os.path.basename(path) for path in config.tomograms],
                         [tsId + ".mrc" for tsId in SHAPES])
        self.assertEqual(list(config.half_maps), self.halves("first") + self.halves("second"))
        self.assertEqual(config.initial_model, self.train.model.getPath())
        self.assertEqual(len(self.log(train)), 6)
        denoise = self.launch(ProtF2FdDenoise, inTomos=imported.Tomograms, inModel=train.model,
                              **ONE_THREAD)
        self.checkDenoised(denoise, SHAPES)
        for tomogram in imported.Tomograms:
            self.assertEqual(denoise._supply(tomogram)["half_maps"],
                             self.halves(tomogram.getTsId()))
        # Half-maps are needed again, and for no other model are they used.
        denoise = self.newProtocol(ProtF2FdDenoise, inTomos=self.imported.Tomograms,
                                   inModel=train.model)
        self.assertEqual(denoise.validate(), [NO_HALVES])
        denoise = self.newProtocol(ProtF2FdDenoise, inTomos=imported.Tomograms,
                                   inModel=self.train.model)
        self.assertEqual(denoise.validate(), [])
        self.assertEqual(denoise._supply()["half_maps"], [])

    def testHalfMapsThatAreMissing(self):
        train = self.newProtocol(ProtF2FdTrain, inTomos=self.imported.Tomograms,
                                 perturbation=HALVES)
        self.assertEqual(train.validate(), [NO_HALVES])
        imported, folder = self.importCopies("halfgone", {"x": self.path("first")})
        gone = os.path.join(folder, "gone.mrc")
        self.setHalfMaps(imported.Tomograms, {"x": [self.halves("first")[0], gone]})
        train.inTomos.set(imported.Tomograms)
        self.assertEqual(train.validate(), ["Tomograms: no file is there for x (%s)." % gone])
        train.perturbation.set(0)
        self.assertEqual(train.validate(), [])
        self.assertEqual(train._supply()["half_maps"], [])

    def testThePublishedMethodUsesItsOwnPerturbation(self):
        """Also where half-maps are there, and were asked for before that method was chosen."""
        imported, _ = self.importCopies("published", {"x": self.path("first")})
        self.setHalfMaps(imported.Tomograms, {"x": self.halves("first")})
        train = self.newProtocol(ProtF2FdTrain, inTomos=imported.Tomograms, perturbation=HALVES,
                                 preset=1)
        self.assertEqual(train.validate(), [])
        config = train._configure(train._supply())
        self.assertEqual((config.preset, config.perturbation, config.half_maps),
                         ("published", "masks", ()))

    def testTheInitialModelMustBeThere(self):
        model = F2FdModel(path="gone/model.pt")
        train = self.newProtocol(ProtF2FdTrain, inTomos=self.imported.Tomograms)
        self.assertEqual(train._supply()["initial_model"], "")
        train.initialModel.set(model)
        self.assertEqual(train.validate(), ["Initial model: its file gone/model.pt is not there."])
        train.initialModel.set(self.train.model)
        self.assertEqual(train.validate(), [])
        self.assertEqual(train._supply()["initial_model"], self.train.model.getPath())

    def testDefocusIsForModelsOfDeconvolvedTomograms(self):
        denoise = self.newProtocol(ProtF2FdDenoise, inTomos=self.imported.Tomograms,
                                   inModel=self.train.model, defocus=3.0)
        self.assertEqual(denoise.validate(), [
            "'Defocus' is 3; expected 0, since the model was trained on tomograms that were not "
            "deconvolved."])
        train = self.newProtocol(ProtF2FdTrain, inTomos=self.imported.Tomograms, deconvolve=True)
        self.assertEqual(len(train.validate()), 1)
        self.assertIn("'Defocus' is 0; expected the tomograms' defocus", train.validate()[0])
        train.defocus.set(3.0)
        self.assertEqual(train.validate(), [])

    # -------------------------- Denoising -------------------------------------
    def path(self, tsId):
        return os.path.join(self.data, tsId, "tomogram.mrc")

    def checkDenoised(self, protocol, shapes):
        """Check the output against {tsId: shape (Z, Y, X)}."""
        self.checkTomograms(protocol.tomograms, expectedSetSize=len(shapes),
                            expectedSRate=SET_VOXEL_SIZE, expectedOriginShifts=list(ORIGIN),
                            expectedDimensions={tsId: list(shape[::-1])
                                                for tsId, shape in shapes.items()},
                            isHeterogeneousSet=len(set(shapes.values())) > 1)
        self.assertEqual(sorted(protocol.tomograms.getTSIds()), sorted(shapes))
        for tomogram in protocol.tomograms:
            self.assertEqual(os.path.basename(tomogram.getFileName()),
                             tomogram.getTsId() + "_denoised.mrc")
            self.assertFalse(tomogram.hasHalfMaps())
            self.assertTrue(mrcfile.validate(tomogram.getFileName()))

    def testDenoisedTomograms(self):
        self.checkDenoised(self.denoise, SHAPES)
        self.assertEqual(self.proj.getSourceParents(self.denoise.tomograms)[0].getObjId(),
                         self.imported.Tomograms.getObjId())
        for tsId in SHAPES:
            with mrcfile.open(self.denoise._getExtraPath(tsId + "_denoised.mrc")) as denoised, \
                    mrcfile.open(self.denoise._getExtraPath(tsId + "_std.mrc")) as std:
                self.assertEqual(denoised.data.shape, std.data.shape)
                self.assertGreater(denoised.data.std(), 0)
                self.assertAlmostEqual(float(std.voxel_size.x), SET_VOXEL_SIZE, places=3)
                self.assertGreaterEqual(std.data.min(), 0)
                self.assertGreater((std.data > 0).mean(), 0.99)
        self.assertIn("*2* of *2*", self.denoise.summary()[0])

    def testDownstreamProtocolsAcceptTheOutput(self):
        wanted = {"ProtMemBrainSeg": "inTomograms", "ProtTomoSegmenTV": "inTomos"}
        protocols = self.proj.getDomain().getProtocols()
        present = [name for name in wanted if name in protocols]
        if not present:
            self.skipTest("neither membrain nor tomosegmemtv is installed")
        for name in present:
            protocol = self.newProtocol(protocols[name],
                                        **{wanted[name]: self.denoise.tomograms})
            home = protocol.getPlugin().getHome() or "no home"
            self.assertEqual([error for error in protocol.validate() if home not in error
                              and error not in protocol.validateInstallation()], [])

    def testAFailingTomogramDoesntStopTheOthers(self):
        imported, folder = self.importCopies("corrupt", {
            "a": self.path("first"), "b": self.path("first"), "c": self.path("second")})
        broken = os.path.join(folder, "b.mrc")
        os.truncate(broken, 5000)
        denoise = self.launch(ProtF2FdDenoise, inTomos=imported.Tomograms,
                              inModel=self.train.model, useGpu=False, numberOfThreads=3,
                              **ONE_THREAD)
        self.checkDenoised(denoise, {"a": SHAPES["first"], "c": SHAPES["second"]})
        failed, = denoise.failedTomograms
        self.assertEqual((failed.getTsId(), os.path.realpath(failed.getFileName())),
                         ("b", os.path.realpath(broken)))
        self.assertIn("b.mrc", failed.getObjComment())
        summary = " ".join(denoise.summary())
        self.assertIn("*b failed*: ", summary)
        self.assertIn("b.mrc", summary)
        self.assertIn("5000", summary)  # the engine names the byte counts
        self.assertIn("Tomogram b failed", self.stderr(denoise))

        shutil.copyfile(self.path("second"), broken)
        times = {tsId: os.stat(denoise._getExtraPath(tsId + "_denoised.mrc")).st_mtime_ns
                 for tsId in "ac"}
        denoise.runMode.set(MODE_RESUME)
        self.launchProtocol(denoise)
        self.checkDenoised(denoise, {"a": SHAPES["first"], "b": SHAPES["second"],
                                     "c": SHAPES["second"]})
        self.assertNotIn("failed", " ".join(denoise.summary()))
        self.assertEqual(denoise.failedTomograms.getSize(), 0)
        for tsId, before in times.items():
            self.assertEqual(os.stat(denoise._getExtraPath(tsId + "_denoised.mrc")).st_mtime_ns,
                             before)

    def testWithoutAnyResultTheProtocolFails(self):
        imported, folder = self.importCopies("all_corrupt", {"x": self.path("second")})
        os.truncate(os.path.join(folder, "x.mrc"), 5000)
        denoise = self.launchFailing(ProtF2FdDenoise, inTomos=imported.Tomograms,
                                     inModel=self.train.model, **ONE_THREAD)
        self.assertIn("No tomogram came out", denoise.getErrorMessage())
        self.assertIn("x.mrc", denoise.getErrorMessage())
        self.assertFalse(denoise.getDone())

    def testAwkwardFileNamesInAnotherEnvironment(self):
        imported, _ = self.importCopies("awkward", {"x": self.path("first"),
                                                    "y": self.path("second")})
        for number, tomogram in enumerate(imported.Tomograms.iterItems(iterate=False)):
            folder = os.path.join(os.path.dirname(tomogram.getFileName()), str(number))
            os.makedirs(folder)
            name = os.path.join(folder, AWKWARD_NAME)
            shutil.copyfile(tomogram.getFileName(), name)
            tomogram.setFileName(name)
            imported.Tomograms.update(tomogram)
        self.setHalfMaps(imported.Tomograms, {"x": self.halves("first"),
                                              "y": self.halves("second")})
        activate, used = self.environment()
        variables = f2fd_scipion.Plugin.getVars()
        with mock.patch.dict(os.environ, {F2FD_ENV_ACTIVATION: activate}), \
                mock.patch.dict(variables, {F2FD_ENV_ACTIVATION: activate}):
            train = self.launch(ProtF2FdTrain, inTomos=imported.Tomograms, **SMALL)
            self.assertTrue(os.path.exists(used))
            denoise = self.launch(ProtF2FdDenoise, inTomos=imported.Tomograms,
                                  inModel=train.model, **ONE_THREAD)
        self.checkDenoised(denoise, {"x": SHAPES["first"], "y": SHAPES["second"]})

    def environment(self):
        """A virtual environment with awkward folders; returns its activation and a file that
        appears when its Python runs the engine."""
        folder = self.getOutputPath("my 100% engine's")
        venv.create(folder, with_pip=False)
        packages, = glob.glob(os.path.join(folder, "lib", "python*", "site-packages"))
        used = os.path.join(self.getOutputPath(), "used")
        paths = [os.path.dirname(os.path.dirname(f2fd_core.__file__)),
                 sysconfig.get_paths()["purelib"]] + [path for path in sys.path if path]
        with open(os.path.join(packages, "engine.pth"), "w") as stream:
            stream.write("\n".join(paths) + "\nimport os; open(%r, 'w').close()\n" % used)
        return ". '%s'" % os.path.join(folder, "bin", "activate").replace("'", "'\\''"), used

    def testASetThatGrowsIsDenoisedAsItGrows(self):
        imported, _ = self.importCopies("growing", {"a": self.path("first")})
        tomograms = imported.Tomograms

        def become(state):
            tomograms.setStreamState(state)
            tomograms.write()
            imported._store(tomograms)

        tomograms.enableAppend()
        become(Set.STREAM_OPEN)
        denoise = self.newProtocol(ProtF2FdDenoise, inTomos=tomograms, inModel=self.train.model,
                                   numberOfThreads=1, streamingSleepOnWait=1, **ONE_THREAD)
        self.assertIn("at least 2 threads", " ".join(denoise.validate()))
        denoise.numberOfThreads.set(3)
        self.proj.launchProtocol(denoise, wait=False)
        first = denoise._getExtraPath("a_denoised.mrc")
        self.waitFor(lambda: os.path.exists(first), denoise)
        self.assertFalse(self.proj._updateProtocol(denoise) and denoise.isFinished())
        second = tomograms.getFirstItem().clone()
        second.cleanObjId()
        second.setTsId("b")
        second.setLocation(os.path.abspath(self.path("second")))
        tomograms.append(second)
        tomograms.write()
        self.waitFor(lambda: os.path.exists(denoise._getExtraPath("b_denoised.mrc")), denoise)
        become(Set.STREAM_CLOSED)
        self.waitFor(lambda: self.updated(denoise).isFinished(), denoise)
        denoise = self.updated(denoise)
        self.assertTrue(denoise.tomograms.isStreamClosed())
        self.checkDenoised(denoise, {"a": SHAPES["first"], "b": SHAPES["second"]})

    def updated(self, protocol):
        self.proj._updateProtocol(protocol)
        return protocol

    def waitFor(self, happened, protocol):
        """Wait for something that a running protocol does; a minute is far too long."""
        for _ in range(600):
            if happened():
                return
            self.assertFalse(self.updated(protocol).isFailed(), protocol.getErrorMessage())
            time.sleep(0.1)
        self.fail("it did not happen: %s" % self.stderr(protocol)[-1000:])

    def testHalfMapsAreDenoisedForTheResult(self):
        imported, _ = self.importCopies("both", {"x": self.path("first")})
        denoise = self.newProtocol(ProtF2FdDenoise, inTomos=imported.Tomograms,
                                   inModel=self.train.model, denoiseHalves=True, std=True,
                                   **ONE_THREAD)
        self.assertIn("no half-maps (odd and even) of x", " ".join(denoise.validate()))
        self.setHalfMaps(imported.Tomograms, {"x": self.halves("first")})
        self.assertEqual(denoise.validate(), [])
        self.launchProtocol(denoise)
        result, = denoise.tomograms
        odd, even = result.getHalfMaps(asList=True)
        self.assertTrue(odd.endswith("x_odd_denoised.mrc"), odd)
        self.assertTrue(even.endswith("x_even_denoised.mrc"), even)
        alone = os.path.join(self.getOutputPath(), "alone")
        engine.call(["denoise", self.train.model.getPath(), *self.halves("first"), "--output",
                     alone, "--predictions", "2", "--precision", "float32", "--device", "cpu"])
        for path, name in ((odd, "odd"), (even, "even")):
            np.testing.assert_allclose(
                mrcfile.read(path), mrcfile.read(os.path.join(alone, name + "_denoised.mrc")),
                atol=1e-4)
        self.assertFalse(np.allclose(mrcfile.read(odd), mrcfile.read(even), atol=1e-2))
        self.assertIn("x: the Fourier shell correlation between the denoised half-maps",
                      " ".join(denoise.summary()))
        evaluate = self.launch(ProtF2FdEvaluate, inTomos=denoise.tomograms)
        scores = evaluate.getScores()["x"]["half_maps"]
        self.assertEqual(set(scores), {"fsc", "fsc_mean", "fsc_0.5", "fsc_0.143"})
        self.assertEqual(evaluate.table(), [["tsId", "", "mean FSC"],
                                            ["x", "half-maps", "%.3f" % scores["fsc_mean"]]])

    # -------------------------- Other protocols -------------------------------
    def testDeconvolvedTomograms(self):
        deconvolve = self.newProtocol(ProtF2FdDeconvolve, inTomos=self.imported.Tomograms,
                                      binThreads=1)
        self.assertIn("'Defocus' is 0; expected", " ".join(deconvolve.validate()))
        self.assertEqual(deconvolve.warnings(), [])
        deconvolve.defocus.set(3.0)
        self.assertEqual(deconvolve.validate(), [])
        self.launchProtocol(deconvolve)
        self.checkTomograms(deconvolve.tomograms, expectedSetSize=2, expectedSRate=SET_VOXEL_SIZE,
                            expectedOriginShifts=list(ORIGIN), isHeterogeneousSet=True,
                            expectedDimensions={tsId: list(shape[::-1])
                                                for tsId, shape in SHAPES.items()})
        for tomogram in deconvolve.tomograms:
            before = mrcfile.read(self.path(tomogram.getTsId()))
            after = mrcfile.read(tomogram.getFileName())
            self.assertAlmostEqual(float(after.std() / before.std()), 1, places=2)
            self.assertGreater(np.corrcoef(before.ravel(), after.ravel())[0, 1], 0.1)
        self.assertIn("defocus 3 µm", " ".join(deconvolve.methods()))

    def testScoresAgainstAReference(self):
        evaluate = self.newProtocol(ProtF2FdEvaluate, inTomos=self.denoise.tomograms)
        self.assertIn("no half-maps (odd and even) of first, second, which the comparison",
                      " ".join(evaluate.validate()))
        evaluate.references.set(self.truths.Tomograms)
        evaluate.noisyTomos.set(self.imported.Tomograms)
        self.assertEqual(evaluate.validate(), [])
        self.launchProtocol(evaluate)
        heading, *rows = evaluate.table()
        self.assertEqual(heading, ["tsId", "", "correlation", "PSNR (dB)", "SSIM", "mean FSC"])
        self.assertEqual([row[:2] for row in rows],
                         [[tsId, state] for tsId in sorted(SHAPES)
                          for state in ("noisy", "denoised")])
        noisy, clean = (np.array(mrcfile.read(os.path.join(self.data, "first", name)))
                        for name in ("tomogram.mrc", "clean.mrc"))
        self.assertAlmostEqual(float(rows[0][2]),
                               np.corrcoef(noisy.ravel(), clean.ravel())[0, 1], places=3)
        self.assertEqual(len(evaluate.summary()), 5)
        viewer = self.viewer(F2FdEvaluateViewer, evaluate)
        for name, show in viewer._getVisualizeDict().items():
            plotter = self.drawn(show(name))
        self.assertEqual(len(plotter.figure.axes[0].lines), 2 * len(SHAPES) + 1)
        only, _ = self.importCopies("other", {"other": self.path("first")})
        evaluate.noisyTomos.set(only.Tomograms)
        self.assertEqual(evaluate.validate(),
                         ["Tomograms before denoising: there is none for first, second."])

    def testAnExportedModelCanBeImportedAndNothingIsReplaced(self):
        folder = os.path.join(self.getOutputPath(), "my mödels 50%")
        os.makedirs(folder)
        export = self.newProtocol(ProtF2FdExportModel, inModel=self.train.model, folder=folder,
                                  fileName="mine.pt")
        self.assertEqual(export.validate(), [])
        self.launchProtocol(export)
        path = os.path.join(folder, "mine.pt")
        self.assertEqual(os.listdir(folder), ["mine.pt"])
        with open(path, "rb") as one, open(self.train.model.getPath(), "rb") as other:
            self.assertEqual(one.read(), other.read())
        again = self.newProtocol(ProtF2FdExportModel, inModel=self.train.model, folder=folder,
                                 fileName="mine.pt")
        self.assertEqual(again.validate(), ["%s exists already; it is kept: give another name."
                                            % path])
        again.fileName.set("../mine.pt")
        self.assertIn("is no name for a file", " ".join(again.validate()))
        imported = self.launch(ProtF2FdImportModel, filePath=path)
        self.assertEqual(str(imported.model), str(self.train.model))

    # -------------------------- Importing a model -----------------------------
    def testImportedModelIsCheckedAndCopied(self):
        path = os.path.join(self.getOutputPath(), "a 50% mödel.pt")
        shutil.copyfile(self.train.model.getPath(), path)
        imported = self.launch(ProtF2FdImportModel, filePath=path)
        os.remove(path)
        self.assertTrue(os.path.exists(imported.model.getPath()))
        self.assertEqual(str(imported.model), str(self.train.model))
        denoise = self.newProtocol(ProtF2FdDenoise, inTomos=self.imported.Tomograms,
                                   inModel=imported.model)
        self.assertEqual(denoise.validate(), [])
        self.assertEqual(denoise.warnings(), [])
        self.assertEqual(len(imported.validate()), 1)  # the file is gone

    def testWhatIsNoModelIsRefused(self):
        failed = self.launchFailing(ProtF2FdImportModel, filePath=self.path("first"))
        self.assertIn("%s is no F2Fd model" % self.path("first"), failed.getErrorMessage())
        self.assertFalse(hasattr(failed, "model"))

    # -------------------------- Viewers ---------------------------------------
    def viewer(self, viewerClass, protocol):
        EmPlotter.setBackend("Agg")
        viewer = viewerClass(project=self.proj, protocol=protocol)
        viewer.setProtocol(protocol)
        self.assertEqual(viewer.validate(), [])
        return viewer

    def drawn(self, views):
        """Save a viewer's only figure and check that it is a picture with more than one colour."""
        plotter, = views
        path = os.path.join(self.getOutputPath(), "view.png")
        plotter.figure.savefig(path)
        with Image.open(path) as picture:
            self.assertGreater(len(picture.getcolors(picture.width * picture.height)), 10)
        return plotter

    def testTrainingViewer(self):
        viewer = self.viewer(F2FdTrainViewer, self.train)
        shown = viewer._getVisualizeDict()
        self.assertEqual(set(shown), {"showLoss", "showScores", "showSlices", "showHistogram",
                                      "showSpectrum"})
        for name, show in shown.items():
            plotter = self.drawn(show(name))
            if name == "showLoss":
                loss = plotter.figure.axes[0].lines[0].get_ydata()
                np.testing.assert_allclose(loss, [float(row["loss"])
                                                  for row in self.log(self.train)])

    def testTheLossIsDrawnAnewAsTheLogGrows(self):
        path = os.path.join(self.getOutputPath(), "log.csv")
        with open(self.train._getExtraPath("log.csv")) as stream:
            lines = stream.readlines()
        with open(path, "w") as stream:
            stream.writelines(lines[:4])
        EmPlotter.setBackend("Agg")
        plot = LossPlot(path)
        self.assertEqual(len(plot.axes.lines[0].get_xdata()), 3)
        with open(path, "w") as stream:
            stream.writelines(lines[:6] + [lines[6][:9]])  # the last line is being written
        plot.refresh()
        self.assertEqual(len(plot.axes.lines[0].get_xdata()), 5)

    def testDenoisingViewer(self):
        viewer = self.viewer(F2FdDenoiseViewer, self.denoise)
        self.assertEqual(viewer.getParam("tomogram").choices, sorted(SHAPES))
        for number, tsId in enumerate(sorted(SHAPES)):
            viewer.tomogram.set(number)
            shown = self.drawn(viewer._getVisualizeDict()["tomogram"]("tomogram"))
            before, after, deviation = (
                np.array(mrcfile.read(path), dtype=np.float32)
                for path in (self.path(tsId), self.denoise._getExtraPath(tsId + "_denoised.mrc"),
                             self.denoise._getExtraPath(tsId + "_std.mrc")))
            for axis, direction in enumerate(("XY", "XZ", "YZ")):
                shown.turn(direction)
                shown.place.set_val(3)
                for name, volume in (("before", before), ("denoised", after),
                                     ("removed", before - after),
                                     ("standard deviation", deviation)):
                    np.testing.assert_array_equal(shown.images[name].get_array(),
                                                  volume.take(3, axis))
                limits = shown.images["before"].get_clim()
                self.assertEqual(limits, shown.images["denoised"].get_clim())
                shown.contrast.set_val(1)
                self.assertAlmostEqual(np.diff(shown.images["before"].get_clim())[0],
                                       np.diff(limits)[0] / 2, places=5)
                shown.contrast.set_val(0)

    def testPatchSizesThatAreSuggested(self):
        for thinnest, network, expected in ((300, "compact", 48), (40, "compact", 40),
                                            (45, "compact", 40), (10, "compact", 16),
                                            (300, "published", 64), (40, "published", 32)):
            self.assertEqual(suggested(thinnest, network), expected)

    def testThePreviewIsAPartOfTheResult(self):
        denoise = self.newProtocol(ProtF2FdDenoise, inTomos=self.imported.Tomograms,
                                   inModel=self.train.model, useGpu=False, **ONE_THREAD)
        with mock.patch.object(preview, "DEPTH", 8), mock.patch.object(preview, "SIDE", 40):
            before, after = preview.denoised_part(denoise, "second", 31, 2)
        np.testing.assert_array_equal(before, mrcfile.read(self.path("second"))[24:, 12:52, 4:44])
        whole = mrcfile.read(self.denoise._getExtraPath("second_denoised.mrc"))
        self.assertEqual(after.shape, (8, 40, 40))
        right, shifted = (np.corrcoef(after.ravel(), whole[24:, y:y + 40, 4:44].ravel())[0, 1]
                          for y in (12, 16))
        self.assertGreater(right, max(2 * shifted, 0.6))
        with self.assertRaisesRegex(UserError, "--tile-size is 20"):
            denoise.tile_size.set(20)
            preview.denoised_part(denoise, "second", 31, 2)

    def testWhatAPersonSeesAndClicks(self):
        """The project window itself, on a display in memory."""
        if not shutil.which("Xvfb"):
            self.skipTest("Xvfb, for a window without a screen, is not installed")
        evaluate = self.launch(ProtF2FdEvaluate, inTomos=self.denoise.tomograms,
                               references=self.truths.Tomograms,
                               noisyTomos=self.imported.Tomograms)
        folder = os.environ.get("F2FD_TEST_SCREENSHOTS") or self.getOutputPath("screenshots")
        os.makedirs(folder, exist_ok=True)
        runs = [str(run.getObjId()) for run in (self.train, self.denoise, evaluate)]
        with display() as number, open(os.path.join(folder, "window.log"), "w") as log:
            code = subprocess.call(
                [sys.executable, "-m", "f2fd_scipion.tests.window", folder,
                 self.proj.getShortName(), *runs], stdout=log, stderr=log, timeout=100,
                env=dict(os.environ, DISPLAY=number, OMP_NUM_THREADS="1"))
        with open(os.path.join(folder, "window.log")) as log:
            self.assertTrue(os.path.exists(os.path.join(folder, "seen.json")), log.read()[-3000:])
        with open(os.path.join(folder, "seen.json")) as stream:
            seen = json.load(stream)
        self.assertEqual((code, seen["error"]), (0, ""))
        self.assertEqual(seen["tree"], ["f2fd_scipion - " + protocol._label for protocol in (
            ProtF2FdTrain, ProtF2FdDenoise, ProtF2FdDeconvolve, ProtF2FdEvaluate,
            ProtF2FdExportModel)])
        self.assertEqual(len(seen["forms"]), 6)
        self.assertEqual(seen["wizards"], ["patch_size", "predictions"])
        self.assertEqual(seen["patch_size"], 32)
        self.assertEqual(seen["preview"], [[32, 64, 64]] * 2)
        self.assertEqual(seen["predictions"], 2)
        self.assertEqual(
            {name: count for name, count in seen["views"].items() if " " in name},
            dict.fromkeys(["train showLoss", "train showScores", "train showSlices",
                           "train showHistogram", "train showSpectrum", "denoise tomogram",
                           "evaluate showTable", "evaluate showShells"], 1))

    def testViewersOfUnfinishedRunsSaySo(self):
        EmPlotter.setBackend("Agg")
        for viewerClass, protocolClass in ((F2FdTrainViewer, ProtF2FdTrain),
                                           (F2FdEvaluateViewer, ProtF2FdEvaluate),
                                           (F2FdDenoiseViewer, ProtF2FdDeconvolve),
                                           (F2FdDenoiseViewer, ProtF2FdDenoise)):
            protocol = self.newProtocol(protocolClass)
            self.saveProtocol(protocol)
            viewer = viewerClass(project=self.proj, protocol=protocol)
            viewer.setProtocol(protocol)
            self.assertEqual(len(viewer._validate()), 1)
