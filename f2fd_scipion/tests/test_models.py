"""Models leave a project and enter another."""

import os
import shutil
from unittest import mock

from pyworkflow.viewer import DESKTOP_TKINTER

from f2fd_scipion.objects import F2FdModel
from f2fd_scipion.protocols import (
    ProtF2FdCheck,
    ProtF2FdDenoise,
    ProtF2FdExportModel,
    ProtF2FdImportModel,
)
from f2fd_scipion.tests import project


class TestF2FdModels(project.ProjectTests):
    def testAnExportedModelCanBeImportedAndNothingIsReplaced(self):
        folder = os.path.join(self.getOutputPath(), "my mödels 50%")
        os.makedirs(folder)
        export = self.newProtocol(
            ProtF2FdExportModel, inModel=self.train.model, folder=folder, fileName="mine.pt"
        )
        self.assertEqual(export.validate(), [])
        self.launchProtocol(export)
        path = os.path.join(folder, "mine.pt")
        self.assertEqual(os.listdir(folder), ["mine.pt"])
        with open(path, "rb") as one, open(self.train.model.getPath(), "rb") as other:
            self.assertEqual(one.read(), other.read())
        again = self.newProtocol(
            ProtF2FdExportModel, inModel=self.train.model, folder=folder, fileName="mine.pt"
        )
        self.assertEqual(
            again.validate(), [(f"{path} exists already; it is kept: give another name.")]
        )
        with self.assertRaisesRegex(FileExistsError, "exists already; it is kept"):
            again.exportStep(path)  # it came after the check
        self.assertEqual(os.listdir(folder), ["mine.pt"])
        again.fileName.set("../mine.pt")
        self.assertIn("is not the name of a file", " ".join(again.validate()))
        imported = self.launch(ProtF2FdImportModel, filePath=path)
        self.assertEqual(str(imported.model), str(self.train.model))
        for protocol in (export, imported):
            (viewerClass,) = self.proj.getDomain().findViewers(protocol, DESKTOP_TKINTER)
            (view,) = viewerClass(project=self.proj, protocol=protocol)._visualize(protocol)
            self.assertIn("Training steps: *6*", view.getMessage())
            self.assertIn("Started from: random weights", view.getMessage())

    def testImportedModelIsCheckedAndCopied(self):
        path = os.path.join(self.getOutputPath(), "a 50% mödel.pt")
        shutil.copyfile(self.train.model.getPath(), path)
        imported = self.launch(ProtF2FdImportModel, filePath=f" {path} ")  # as if pasted
        os.remove(path)
        self.assertTrue(os.path.exists(imported.model.getPath()))
        self.assertEqual(str(imported.model), str(self.train.model))
        denoise = self.newProtocol(
            ProtF2FdDenoise, inTomos=self.imported.Tomograms, inModel=imported.model
        )
        self.assertEqual(denoise.validate(), [])
        with project.gpus(1):
            self.assertEqual(denoise.warnings(), [])
        self.assertEqual(len(imported.validate()), 1)  # the file is gone

    def testTomogramsOfAnotherVoxelSizeAreRescaledOrWarnedOf(self):
        size = self.imported.Tomograms.getSamplingRate()
        for protocol_class in (ProtF2FdDenoise, ProtF2FdCheck):
            protocol = self.newProtocol(
                protocol_class, inTomos=self.imported.Tomograms, inModel=self.train.model
            )
            with project.gpus(1), mock.patch.object(
                type(self.train.model), "getSamplingRate", return_value=1.5 * size
            ):
                (warning,) = protocol.warnings()
                self.assertIn(f"trained at {1.5 * size:.2f} Å/px: results may suffer", warning)
                protocol.rescale.set(True)
                self.assertEqual(protocol.warnings(), [])
            self.assertTrue(protocol._configure(protocol._supply()).rescale)

    def testThePretrainedWeightsAreAModel(self):
        imported = self.launch(ProtF2FdImportModel, filePath="pretrained")
        self.assertEqual(os.path.basename(imported.model.getPath()), "pretrained.pt")
        denoise = self.newProtocol(
            ProtF2FdDenoise, inTomos=self.imported.Tomograms, inModel=imported.model
        )
        self.assertEqual(denoise.validate(), [])

    def testModelsOfEarlierVersionsAreUnderstood(self):
        model = F2FdModel(path="model.pt")
        model.setInfo(
            {
                "step": 400,
                "voxel_size": 8.0,
                "config": {
                    "preset": "default",
                    "perturbation": "noise_matched",
                    "spectrum_quantile": 0.5,
                    "refine_at": 200,
                    "patch_size": 48,
                    "network": "compact",
                },
            }
        )  # of version 1.0.0
        config = model.getTrainConfig()
        self.assertEqual(
            (config.perturbation, config.patch_size, config.network),
            ("noise_matched", 48, "compact"),
        )
        # Neither could be chosen then, and both have another default now.
        self.assertEqual((config.optimizer, config.averaging), ("adam", 0.0))

    def testWhatIsNoModelIsRefused(self):
        failed = self.launchFailing(ProtF2FdImportModel, filePath=self.path("first"))
        self.assertIn(f"{self.path('first')} is not an F2Fd model", failed.getErrorMessage())
        self.assertFalse(hasattr(failed, "model"))
