"""Training in a real project, at a small size."""

import contextlib
import json
import os
import sqlite3
from unittest import mock

import mrcfile
import numpy as np
from pyworkflow.protocol import MODE_RESTART, STATUS_RUNNING
from tomo.objects import SetOfTomoMasks, Tomogram, TomoMask

from f2fd_core.config import TrainConfig
from f2fd_core.filters.ctf_table import ctf_of
from f2fd_scipion.objects import F2FdModel
from f2fd_scipion.protocols import ProtF2FdDeconvolve, ProtF2FdDenoise, ProtF2FdTrain
from f2fd_scipion.tests import project
from f2fd_scipion.tests.project import HALVES, NO_HALVES, ONE_THREAD, ORIGIN, SET_VOXEL_SIZE, SMALL
from f2fd_scipion.tests.simulation import SHAPES
from f2fd_scipion.viewers import F2FdDenoiseViewer, F2FdTrainViewer


class TestF2FdTraining(project.ProjectTests):
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
        self.assertEqual(
            [os.path.basename(path) for path in recorded.ground_truth],
            [os.path.basename(path) for path in tomograms],
        )
        self.assertEqual(len(self.log(self.train)), 6)
        self.assertIn("ssim", self.log(self.train)[0])
        self.assertIn("6", " ".join(self.train.summary()))
        self.assertTrue(self.train.methods())
        self.assertEqual(
            self.proj.getSourceParents(model)[0].getObjId(), self.imported.Tomograms.getObjId()
        )

    def testContinuingTrainsOnAndLearnsToFillTheMissingWedge(self):
        train = self.launch(ProtF2FdTrain, inTomos=self.imported.Tomograms, **SMALL)
        denoise = self.newProtocol(
            ProtF2FdDenoise,
            inTomos=self.imported.Tomograms,
            inModel=train.model,
            fill_wedge=True,
            tilt_range=60.0,
            **ONE_THREAD,
        )
        self.assertEqual(
            denoise.validate(),
            [
                "Fill the missing wedge: the model has not learned it; choose 'No', or continue "
                "its training with 'Learn to fill the missing wedge'."
            ],
        )
        earlier = self.launch(
            ProtF2FdDenoise,
            inTomos=self.imported.Tomograms,
            inModel=train.model,
            useGpu=False,
            **ONE_THREAD,
        )
        results = [
            tomogram.getFileName() for tomogram in earlier.tomograms.iterItems(iterate=False)
        ]
        made = [os.stat(path).st_mtime_ns for path in results]
        before = self.log(train)
        train.steps.set(9)
        train.fill_wedge.set(True)
        self.resume(train)
        self.resume(earlier)  # of a model that is another one now
        for path, time in zip(results, made):
            self.assertGreater(os.stat(path).st_mtime_ns, time)
        after = self.log(train)
        self.assertEqual(after[:6], before)
        self.assertEqual(len(after), 9)
        self.assertEqual(train.model.getSteps(), 9)
        self.assertIn("resuming from", self.stdout(train))  # the log that is opened first
        self.assertNotIn("resuming from", self.stderr(train))
        for said in (train.summary(), train.methods(), train._citations()):
            self.assertRegex(" ".join(said), "fill the missing wedge|Liu2022")
        train.patch_size.set(24)
        self.assertEqual(
            train.validate(),
            [
                f"'Patch size' is 24; expected 16 as in {train._getExtraPath('train.json')}, from "
                "which the training resumes; or choose 'Restart' to train again."
            ],
        )
        train.runMode.set(MODE_RESTART)
        self.assertEqual(train.validate(), [])
        denoise.inModel.set(train.model)
        self.fill(denoise)

    def fill(self, denoise):
        """Fill the missing wedge, continue where a filled tomogram is gone, and then without."""
        self.assertEqual(denoise.validate(), [])
        self.launchProtocol(denoise)
        self.checkDenoised(denoise, SHAPES)
        self.checkFilled(denoise)
        for said in (denoise.summary(), denoise.methods(), denoise._citations()):
            self.assertRegex(" ".join(said), "predicted, not measured|was filled with|Liu2022")

        first, second = (denoise.getFilled(tsId) for tsId in SHAPES)
        kept = os.stat(first).st_mtime_ns
        os.remove(second)
        self.resume(denoise)
        self.checkFilled(denoise)
        self.assertEqual(os.stat(first).st_mtime_ns, kept)

        denoise.fill_wedge.set(False)
        self.resume(denoise)
        self.checkDenoised(denoise, SHAPES)
        self.assertFalse(os.path.exists(first) or os.path.exists(second))
        stored = self.proj.getProtocol(denoise.getObjId(), fromRuns=False)
        for protocol in (denoise, stored):
            self.assertEqual([name for name, _ in protocol.iterOutputAttributes()], ["tomograms"])
        self.assertNotIn("predicted", " ".join(denoise.summary()))

    def checkFilled(self, denoise):
        """Check the filled tomograms of a run against the denoised ones, and what is shown."""
        filled = denoise.filledTomograms
        self.checkTomograms(
            filled,
            expectedSetSize=len(SHAPES),
            expectedSRate=SET_VOXEL_SIZE,
            expectedOriginShifts=list(ORIGIN),
            expectedDimensions={tsId: list(shape[::-1]) for tsId, shape in SHAPES.items()},
            isHeterogeneousSet=True,
        )
        self.assertFalse(filled.isStreamOpen())
        self.assertIn("predicted, not measured", filled.getObjComment())
        for tomogram, other in zip(filled, denoise.tomograms):
            self.assertEqual(tomogram.getTsId(), other.getTsId())
            paths = (other.getFileName(), tomogram.getFileName())
            self.assertEqual(paths[1], denoise.getFilled(tomogram.getTsId()))
            one, two = map(mrcfile.read, paths)
            self.assertGreater(np.std(one - two), 0)
            self.assertGreater(np.corrcoef(one.ravel(), two.ravel())[0, 1], 0.5)
        viewer = self.viewer(F2FdDenoiseViewer, denoise)
        viewer.tomogram.set(sorted(SHAPES).index(tomogram.getTsId()))
        shown = self.drawn(viewer._getVisualizeDict()["tomogram"]("tomogram"))
        for axis, direction in ((0, "XY"), (1, "XZ")):
            shown.turn(direction)
            shown.place.set_val(3)
            image = shown.images["missing wedge filled (predicted)"]
            np.testing.assert_array_equal(image.get_array(), two.take(3, axis))
            self.assertEqual(image.get_clim(), shown.images["denoised"].get_clim())

    def testValidationSpeaksTheEnginesSentence(self):
        train = self.newProtocol(ProtF2FdTrain, inTomos=self.imported.Tomograms, patch_size=20)
        self.assertEqual(
            train.validate(),
            ["'Patch size' is 20; expected a multiple of 8 for the unshuffled network."],
        )
        train.patch_size.set(16)
        self.assertEqual(train.validate(), [])
        denoise = self.newProtocol(
            ProtF2FdDenoise, inTomos=self.imported.Tomograms, inModel=self.train.model, tile_size=20
        )
        self.assertEqual(len(denoise.validate()), 1)
        self.assertIn("'Tile size' is 20; expected a multiple of 8", denoise.validate()[0])
        denoise.tile_size.set(0)
        self.assertEqual(denoise.validate(), [])

    def testValidationNamesWhatIsMissing(self):
        train = self.newProtocol(ProtF2FdTrain)
        self.assertEqual(train.validate(), ["*Tomograms* cannot be EMPTY."])
        imported, folder = self.importCopies(
            "gone", {"here": self.path("first"), "gone": self.path("first")}
        )
        os.remove(os.path.join(folder, "gone.mrc"))
        train.inTomos.set(imported.Tomograms)
        train.groundTruth.set(self.truths.Tomograms)
        errors = " ".join(train.validate())
        self.assertIn("files are missing: gone (", errors)
        self.assertNotIn("here (", errors)
        self.assertIn("there is none for gone, here", errors)

    def testWhatTheMachineOrTheMethodHasNoRoomFor(self):
        imported, folder = self.importCopies("thin", {"x": self.path("first")})
        train = self.newProtocol(ProtF2FdTrain, inTomos=imported.Tomograms)
        denoise = self.newProtocol(
            ProtF2FdDenoise, inTomos=imported.Tomograms, inModel=self.train.model
        )
        with project.gpus(1):
            self.assertEqual(train.warnings() + train.validate() + denoise.validate(), [])
        with mock.patch.object(os, "sysconf", return_value=2**14):  # 256 MiB
            for protocol in (train, denoise):
                self.assertIn(
                    "The largest tomogram may need 2 GB of memory; this machine has 0 GB",
                    " ".join(protocol.warnings()),
                )
            both = self.newProtocol(
                ProtF2FdDenoise,
                inTomos=self.imported.Tomograms,
                inModel=self.train.model,
                useGpu=False,
            )
            self.assertIn(
                "The 2 largest tomograms, side by side, may need 3 GB", " ".join(both.warnings())
            )
        with mrcfile.new(os.path.join(folder, "x.mrc"), overwrite=True) as stream:
            stream.set_data(np.zeros((5, 40, 40), dtype=np.float32))
        sentence = (
            "Tomograms: at least 8 voxels are needed along every axis, but the thinnest side has "
            "fewer: x (5)."
        )
        self.assertEqual(train.validate(), [sentence])
        self.assertEqual(denoise.validate(), [sentence])

    def testTomogramsWhoseDepthMayNotBeAlongZ(self):
        train = self.newProtocol(ProtF2FdTrain, inTomos=self.imported.Tomograms)
        with project.gpus(1), mock.patch.object(Tomogram, "getDim", return_value=(40, 32, 48)):
            (warning,) = train.warnings()
        self.assertIn(
            "Z is not the thinnest side (X x Y x Z) of first (40 x 32 x 48), second", warning
        )

    def testGpuOrCpu(self):
        train = self.newProtocol(ProtF2FdTrain, inTomos=self.imported.Tomograms)
        self.assertEqual(train._configure(train._supply()).device, "all")
        slow = "No GPU is %s: on the CPU this takes many times longer."
        with project.gpus(1):
            self.assertEqual(train.warnings(), [])
        with project.gpus(None):
            self.assertEqual(train.warnings(), [slow % "found"])
            train._useQueue.set(True)  # this machine is not the one that computes
            self.assertEqual(train.warnings(), [])
            train._useQueue.set(False)
        train.gpuList.set("0 1 2 3 4")
        train.batch_size.set(4)
        self.assertIn("'Patches per batch' is 4; expected at least 5", " ".join(train.validate()))
        train.gpuList.set("0 1 2 3")
        self.assertEqual(train.validate(), [])
        with project.gpus(2):
            self.assertEqual(
                train.validate(),
                ["GPU IDs: there is no GPU 2, 3; this machine has 2, counted from 0."],
            )
        with project.gpus(4):
            self.assertEqual(train.validate(), [])
        with project.gpus(4, usable=0):
            (error,) = train.validate()
            self.assertIn(
                "this machine has 4, but PyTorch in the engine's environment sees none", error
            )
            train._useQueue.set(True)
            self.assertEqual(train.validate(), [])
            train._useQueue.set(False)
        for text in ("abc", "0;1", "-1", "0-", "0 1.5"):
            train.gpuList.set(text)
            self.assertEqual(
                train.validate(),
                [f"GPU IDs is '{text}'; expected numbers, such as '0' or '0 2 3'."],
            )
        for text in (" 0, 1", "0-1,3", "0 2 3"):
            train.gpuList.set(text)
            self.assertEqual(train.validate(), [])
        train.gpuList.set("")
        self.assertIn("No GPU is selected", " ".join(train.validate()))
        train.useGpu.set(False)
        self.assertEqual(train.validate(), [])
        self.assertEqual(train._configure(train._supply()).device, "cpu")
        self.assertEqual(train.warnings(), [slow % "used"])

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
        second = self.imported.Tomograms.getItem("_tsId", "second")
        train.inTomos.setExtended(f"Tomograms.{second.getObjId()}")
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

    def testTheSpecimenIsFound(self):
        """In a tomogram that is empty above: its mask is an output, by tsId."""
        path = os.path.join(self.getOutputPath(), "thick.mrc")
        values = np.random.default_rng(0).normal(size=(64, 64, 64)).astype(np.float32)
        values[:32] += 3 * np.kron(
            np.random.default_rng(1).normal(size=(4, 8, 8)), np.ones((8, 8, 8))
        )
        with mrcfile.new(path, overwrite=True) as stream:
            stream.set_data(values)
            stream.voxel_size = SET_VOXEL_SIZE
        imported, _ = self.importCopies("thick", {"thick": path})
        train = self.newProtocol(
            ProtF2FdTrain, inTomos=imported.Tomograms, findSpecimen=True, **SMALL
        )
        masks = SetOfTomoMasks.create(self.getOutputPath("thick"))
        item = TomoMask(tsId="thick")
        item.setLocation(path)
        masks.append(item)
        masks.write()
        train.masks.set(masks)
        self.assertIn("choose one of them", train.validate()[0])
        train.masks.set(None)
        self.launchProtocol(train)
        (mask,) = [item.clone() for item in train.specimenMasks]
        self.assertEqual(mask.getTsId(), "thick")
        found = mrcfile.read(mask.getFileName())
        self.assertGreater(found[:32].mean(), 0.9)
        self.assertLess(found[48:].mean(), 0.1)

    def testFinishingARunningTrainingKeepsItsModel(self):
        train = self.newProtocol(
            ProtF2FdTrain,
            inTomos=self.imported.Tomograms,
            fill_wedge=True,
            tilt_range=60.0,
            **dict(SMALL, steps=100000),
        )
        self.proj.launchProtocol(train, wait=False)
        log = train._getExtraPath("log.csv")
        self.waitFor(lambda: os.path.exists(log) and len(self.log(train)) > 7, train)
        self.assertRegex(train.summary()[0], r"Training step \*\d+\*, at most \*.+\* left")
        train.finishNow()
        self.waitFor(lambda: self.updated(train).isFinished(), train)
        steps = train.model.getSteps()
        self.assertEqual(steps, len(self.log(train)))
        self.assertTrue(train.model.getPath().endswith("model.pt"))
        # It had not begun to learn to fill the missing wedge, and does not begin.
        self.assertFalse(train.model.fillsWedge())
        self.assertFalse(os.path.exists(train._getExtraPath("wedge")))
        self.assertIn(
            "It can't fill the missing wedge: the training was ended before it learned that.",
            " ".join(train.summary()),
        )
        train.fill_wedge.set(False)
        train.steps.set(steps + 1)
        self.resume(train)
        self.assertNotIn("missing wedge", " ".join(train.summary()))
        self.assertEqual((train.model.getSteps(), len(self.log(train))), (steps + 1, steps + 1))

    def testTheSummarySaysHowFarATrainingIs(self):
        train = self.newProtocol(ProtF2FdTrain, inTomos=self.imported.Tomograms)
        self.saveProtocol(train)
        train.setStatus(STATUS_RUNNING)
        self.assertEqual(train.summary(), ["No training step yet."])
        train.makePathsAndClean()
        with open(train._getExtraPath("log.csv"), "w") as stream:
            stream.write(
                "step,explained_power,signal_power,seconds_left\n"
                "0,0.1,0.2,100\n49,0.3,0.4,721\n50,,,720\n51,,"
            )
        self.assertEqual(
            train.summary(),
            [
                "Training step *51*, at most *12 min* left.",
                "The network explains *75 %* of the signal.",
            ],
        )
        # It learns to fill the missing wedge after that; the newest log is that of what is running.
        train.fill_wedge.set(True)
        self.assertIn("Then it learns to fill the missing wedge", " ".join(train.summary()))
        rounds = train._getExtraPath("wedge", "2")
        os.makedirs(rounds)
        with open(os.path.join(rounds, "log.csv"), "w") as stream:
            stream.write("step,seconds_left\n0,60\n")
        self.assertEqual(
            train.summary(),
            [
                "Learning to fill the missing wedge: round *2* of *2*.",
                "Training step *1*, at most *60 s* left.",
                "The network explains *75 %* of the signal.",
            ],
        )
        train.finishNow()
        self.assertTrue(os.path.exists(train._getExtraPath("stop")))  # it ends all that is left
        # A damaged log is said, here and in the viewer.
        with open(train._getExtraPath("log.csv"), "a") as stream:
            stream.write('"\n')
        damaged = f"{train._getExtraPath('log.csv')} is damaged in line 5"
        self.assertIn(damaged, train.summary()[0])
        self.assertIn(damaged, F2FdTrainViewer(project=self.proj, protocol=train)._validate()[0])

    def testStoppingATrainingHandsOutItsNewestCheckpoint(self):
        train = self.newProtocol(
            ProtF2FdTrain, inTomos=self.imported.Tomograms, **dict(SMALL, steps=100000)
        )
        self.proj.launchProtocol(train, wait=False)
        self.waitFor(lambda: train.newestCheckpoint() and self.updated(train).isRunning(), train)
        self.proj.stopProtocol(train)
        self.assertTrue(train.isAborted())
        newest = train.newestCheckpoint()
        stored = self.proj.getProtocol(train.getObjId(), fromRuns=False)
        self.assertEqual(stored.model.getPath(), newest)
        self.assertEqual(stored.model.getSteps(), int(newest[-11:-3]))
        denoise = self.newProtocol(
            ProtF2FdDenoise, inTomos=self.imported.Tomograms, inModel=stored.model
        )
        self.assertEqual(denoise.validate(), [])
        train.steps.set(train.model.getSteps() + 1)
        self.resume(train)
        self.assertTrue(train.model.getPath().endswith("model.pt"))

    def testHalfMapsOfASet(self):
        imported, _ = self.importCopies("halves", {tsId: self.path(tsId) for tsId in SHAPES})
        self.setHalfMaps(imported.Tomograms, {tsId: self.halves(tsId) for tsId in SHAPES})
        train = self.launch(
            ProtF2FdTrain,
            inTomos=imported.Tomograms,
            perturbation=HALVES,
            initialModel=self.train.model,
            learning_rate=1e-4,
            **SMALL,
        )
        config = train.model.getTrainConfig()
        self.assertEqual(config.perturbation, "noise2noise")
        self.assertEqual(
            [os.path.basename(path) for path in config.tomograms],
            [tsId + ".mrc" for tsId in SHAPES],
        )
        self.assertEqual(list(config.half_maps), self.halves("first") + self.halves("second"))
        self.assertEqual(config.initial_model, self.train.model.getPath())
        self.assertEqual(len(self.log(train)), 6)
        denoise = self.launch(
            ProtF2FdDenoise, inTomos=imported.Tomograms, inModel=train.model, **ONE_THREAD
        )
        self.checkDenoised(denoise, SHAPES)
        for tomogram in imported.Tomograms:
            self.assertEqual(
                denoise._supply(tomogram)["half_maps"], self.halves(tomogram.getTsId())
            )
        # Tomograms that have none are denoised as they are, and so are all by other models.
        denoise = self.newProtocol(
            ProtF2FdDenoise, inTomos=self.imported.Tomograms, inModel=train.model
        )
        self.assertEqual(denoise.validate(), [])
        self.assertEqual(denoise._supply()["half_maps"], [])
        denoise = self.newProtocol(
            ProtF2FdDenoise, inTomos=imported.Tomograms, inModel=self.train.model
        )
        self.assertEqual(denoise.validate(), [])
        self.assertEqual(denoise._supply()["half_maps"], [])

    def testHalfMapsAreUsedByThemselves(self):
        """Without being asked for, where every tomogram of the set has them."""
        imported, _ = self.importCopies("known", {tsId: self.path(tsId) for tsId in SHAPES})
        train = self.newProtocol(ProtF2FdTrain, inTomos=imported.Tomograms)
        self.assertEqual(train._supply()["half_maps"], [])
        self.setHalfMaps(imported.Tomograms, {tsId: self.halves(tsId) for tsId in SHAPES})
        train = self.newProtocol(ProtF2FdTrain, inTomos=imported.Tomograms)
        config = train._configure(train._supply())
        self.assertEqual(config.perturbation, "noise_matched")
        self.assertEqual(list(config.half_maps), self.halves("first") + self.halves("second"))
        self.assertEqual(train.validate(), [])
        train.useHalfMaps.set(False)
        self.assertEqual(train._supply()["half_maps"], [])
        self.assertEqual(train.validate(), [])
        train.perturbation.set(HALVES)
        self.assertEqual(
            train.validate(),
            [
                "Use half-maps is 'No', but the perturbation 'noise2noise' needs them; choose "
                "'Yes' or another perturbation."
            ],
        )

    def testHalfMapsThatAreMissing(self):
        train = self.newProtocol(
            ProtF2FdTrain, inTomos=self.imported.Tomograms, perturbation=HALVES
        )
        self.assertEqual(train.validate(), [NO_HALVES])
        imported, folder = self.importCopies("halfgone", {"x": self.path("first")})
        gone = os.path.join(folder, "gone.mrc")
        self.setHalfMaps(imported.Tomograms, {"x": [self.halves("first")[0], gone]})
        train.inTomos.set(imported.Tomograms)
        self.assertEqual(train.validate(), [f"Tomograms: files are missing: x ({gone})."])
        train.perturbation.set(0)
        self.assertEqual(train.validate(), [])
        self.assertEqual(train._supply()["half_maps"], [])

    def testThePublishedMethodUsesItsOwnPerturbation(self):
        """Also where half-maps are there, and were asked for before that method was chosen."""
        imported, _ = self.importCopies("published", {"x": self.path("first")})
        self.setHalfMaps(imported.Tomograms, {"x": self.halves("first")})
        train = self.newProtocol(
            ProtF2FdTrain, inTomos=imported.Tomograms, perturbation=HALVES, preset=1
        )
        self.assertEqual(train.validate(), [])
        config = train._configure(train._supply())
        self.assertEqual(
            (config.preset, config.perturbation, config.half_maps),
            ("published", "fourier_masks", ()),
        )

    def testTheInitialModelMustBeThere(self):
        model = F2FdModel(path="gone/model.pt")
        train = self.newProtocol(ProtF2FdTrain, inTomos=self.imported.Tomograms)
        self.assertEqual(train._supply()["initial_model"], "")
        train.initialModel.set(model)
        self.assertEqual(
            train.validate(), ["Initial model: its file gone/model.pt does not exist."]
        )
        train.initialModel.set(self.train.model)
        self.assertEqual(train.validate(), [])
        self.assertEqual(train._supply()["initial_model"], self.train.model.getPath())

    def testWhatATrainingStartsFromAndRestsOnIsReported(self):
        self.assertIn("starting from random weights", self.train.methods()[0])
        initial = self.train.model
        train = self.newProtocol(
            ProtF2FdTrain, inTomos=self.imported.Tomograms, initialModel=initial
        )
        train.model = F2FdModel(path="model.pt")
        config = TrainConfig(initial_model=initial.getPath())
        train.model.setInfo({"step": 6, "voxel_size": 8.0, "config": config.to_dict()})
        self.assertIn(
            (f"starting from the model {initial.getPath()}, which had started from random weights"),
            train.methods()[0],
        )
        config = TrainConfig(
            perturbation="noise2void", start="random", deconvolve=True, defocus=3.0
        )
        train.model.setInfo({"step": 6, "voxel_size": 8.0, "config": config.to_dict()})
        denoise = self.newProtocol(ProtF2FdDenoise, inModel=train.model)
        self.assertEqual(denoise._citations(), ["F2Fd", "Krull2019", "Tegunov2019"])
        self.assertEqual(self.train._citations(), ["F2Fd", "Lehtinen2018", "Pang2021", "Zhang2022"])
        # With half-maps, nothing is learned from what the model makes of the tomogram.
        config = TrainConfig(half_maps=("odd.mrc", "even.mrc"))
        train.model.setInfo({"step": 6, "voxel_size": 8.0, "config": config.to_dict()})
        for protocol in (train, denoise):
            self.assertEqual(protocol._citations(), ["F2Fd", "Lehtinen2018", "Pang2021"])
        train.initialModel.set(None)
        train.model.setInfo({"step": 6, "voxel_size": 8.0, "config": TrainConfig().to_dict()})
        for said in (train.methods()[0], " ".join(train.summary())):
            self.assertIn("weights that have learned to denoise simulated tomograms", said)

    def testAProjectOfVersion11KeepsItsChoices(self):
        """The noise's profile, which was stored by another name, and the perturbation."""
        train = self.newProtocol(
            ProtF2FdTrain, inTomos=self.imported.Tomograms, noise_profile=False
        )
        train.perturbation.set(HALVES)
        self.proj.saveProtocol(train)
        path = self.proj.getDbPath()
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            renamed = database.execute(
                "UPDATE Objects SET name = replace(name, '.noise_profile', '.noise_gain') "
                "WHERE name LIKE ?",
                (f"{train.getObjId()}.noise_profile",),
            )
            self.assertEqual(renamed.rowcount, 1)
        loaded = self.proj.createMapper(path).selectById(train.getObjId())
        self.assertIs(loaded.noise_profile.get(), False)
        self.assertEqual(loaded.getEnumText("perturbation"), "noise2noise")

    def testDefocusIsForModelsOfDeconvolvedTomograms(self):
        denoise = self.newProtocol(
            ProtF2FdDenoise, inTomos=self.imported.Tomograms, inModel=self.train.model, defocus=3.0
        )
        self.assertEqual(
            denoise.validate(),
            [
                "'Defocus' is 3; expected 0, since the model was trained on tomograms that were "
                "not deconvolved."
            ],
        )
        train = self.newProtocol(ProtF2FdTrain, inTomos=self.imported.Tomograms, deconvolve=True)
        self.assertEqual(len(train.validate()), 1)
        self.assertIn("'Defocus' is 0; expected the tomograms' defocus", train.validate()[0])
        train.defocus.set(3.0)
        self.assertEqual(train.validate(), [])

    def testCtfsAreForTheDeconvolution(self):
        ctfs = self.ctfs({"first": [(20000, 20000, 0, True)], "second": [(40000, 40000, 90, True)]})
        train = self.newProtocol(ProtF2FdTrain, inTomos=self.imported.Tomograms, inCtfs=ctfs)
        self.assertEqual(
            train.validate(),
            [
                "CTFs: they are for the deconvolution, but 'Deconvolve first' is 'No'; choose "
                "'Yes' or no CTFs."
            ],
        )
        train.deconvolve.set(True)
        self.assertEqual(train.validate(), [])
        config = train._configure(train._supply())
        with project.gpus(1):
            self.assertEqual(train.warnings(), [])
        os.makedirs(train._getExtraPath(), exist_ok=True)
        train._writeCtfs(self.imported.Tomograms)
        own = {"first": (2.0, 0.0), "second": (4.0, 90.0)}
        for tomogram in self.imported.Tomograms:
            found = ctf_of(tomogram.getFileName(), config)
            self.assertEqual(
                (found["defocus"], found["phase_shift"], found["voltage"]),
                (*own[tomogram.getTsId()], 300),
            )

        denoise = self.newProtocol(
            ProtF2FdDenoise, inTomos=self.imported.Tomograms, inModel=self.train.model, inCtfs=ctfs
        )
        self.assertEqual(
            denoise.validate(),
            [
                "CTFs: the model was trained on tomograms that were not deconvolved; expected no "
                "CTFs."
            ],
        )
        model = F2FdModel(path=self.train.model.getPath())
        model.setInfo({"config": config.to_dict(), "voxel_size": SET_VOXEL_SIZE, "step": 6})
        denoise.inModel.set(model)
        self.assertEqual(denoise.validate(), [])
        os.makedirs(denoise._getExtraPath(), exist_ok=True)
        tables = set()
        for tomogram in self.imported.Tomograms:
            own_config = denoise._configure(denoise._supply(tomogram))
            denoise._writeCtfs([tomogram])
            found = ctf_of(tomogram.getFileName(), config, own_config)
            self.assertEqual((found["defocus"], found["phase_shift"]), own[tomogram.getTsId()])
            tables.add(own_config.ctf)
        # Results depend on what is in them, and so do their names.
        self.assertEqual(len(tables), 2)
        denoise.inCtfs.set(None)
        self.assertIn("since each tomogram of the training had a CTF", denoise.validate()[0])

    def testTheFilterKnowsWhatScipionKnows(self):
        imported, _ = self.importCopies("corrected", {"x": self.path("first")})
        tomograms = imported.Tomograms
        train = self.newProtocol(ProtF2FdTrain, inTomos=tomograms, deconvolve=True, defocus=3.0)
        deconvolve = self.newProtocol(ProtF2FdDeconvolve, inTomos=tomograms, defocus=3.0)
        with project.gpus(1):
            for protocol in (train, deconvolve):
                self.assertEqual(protocol.warnings(), [])
                tomograms.setCtfCorrected(True)
                self.assertEqual(
                    protocol.warnings(),
                    [
                        "Phases flipped is 'No', but the tomograms are marked as CTF-corrected; "
                        "expected 'Yes'."
                    ],
                )
                protocol.phase_flipped.set(True)
                self.assertEqual(protocol.warnings(), [])
                tomograms.getAcquisition().setVoltage(200)
                self.assertEqual(protocol._configure(protocol._supply()).voltage, 200)
                tomograms.getAcquisition().setVoltage(300)
                tomograms.setCtfCorrected(False)
            tomograms.setCtfCorrected(True)
            train.phase_flipped.set(False)
            train.deconvolve.set(False)
            self.assertEqual(train.warnings(), [])
