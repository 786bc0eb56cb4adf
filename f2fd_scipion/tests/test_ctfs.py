"""The deconvolution, and the CTFs that Scipion knows."""

import os

import mrcfile
import numpy as np

from f2fd_core.config import UserError
from f2fd_core.filters.ctf_table import ctf_of
from f2fd_scipion import engine
from f2fd_scipion.objects import F2FdModel
from f2fd_scipion.protocols import ProtF2FdDeconvolve, ProtF2FdDenoise, ProtF2FdTrain
from f2fd_scipion.tests import project
from f2fd_scipion.tests.project import ORIGIN, SET_VOXEL_SIZE
from f2fd_scipion.tests.simulation import SHAPES


class TestF2FdCtfs(project.ProjectTests):
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
