"""A set's half-maps, in training and in denoising."""

import os
from unittest import mock

import mrcfile
import numpy as np

from f2fd_core.config import UserError
from f2fd_scipion import engine
from f2fd_scipion.protocols import ProtF2FdDenoise, ProtF2FdEvaluate, ProtF2FdTrain
from f2fd_scipion.tests import project
from f2fd_scipion.tests.project import HALVES, NO_HALVES, ONE_THREAD, SMALL
from f2fd_scipion.tests.simulation import SHAPES


class TestF2FdHalfMaps(project.ProjectTests):
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
        self.assertIn("predictions from the tomogram itself", " ".join(denoise.methods()))
        # So are tomograms that have none.
        denoise = self.newProtocol(
            ProtF2FdDenoise, inTomos=self.imported.Tomograms, inModel=train.model
        )
        self.assertEqual(denoise.validate(), [])

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
