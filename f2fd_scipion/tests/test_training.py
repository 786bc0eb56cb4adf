"""Training in a real project, at a small size."""

import contextlib
import json
import os
import sqlite3

import mrcfile
import numpy as np
from pyworkflow.protocol import MODE_RESTART
from tomo.objects import SetOfTomoMasks, TomoMask

from f2fd_core.config import TrainConfig
from f2fd_scipion.objects import F2FdModel
from f2fd_scipion.protocols import ProtF2FdDenoise, ProtF2FdTrain
from f2fd_scipion.tests import project
from f2fd_scipion.tests.project import HALVES, ONE_THREAD, ORIGIN, SET_VOXEL_SIZE, SMALL
from f2fd_scipion.tests.simulation import SHAPES
from f2fd_scipion.viewers import F2FdDenoiseViewer


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
