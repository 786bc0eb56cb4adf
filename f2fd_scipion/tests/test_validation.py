"""What a form refuses or warns of before anything runs."""

import os
from unittest import mock

import mrcfile
import numpy as np
from tomo.objects import Tomogram

from f2fd_scipion.objects import F2FdModel
from f2fd_scipion.protocols import ProtF2FdDenoise, ProtF2FdTrain
from f2fd_scipion.tests import project


class TestF2FdValidation(project.ProjectTests):
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
