"""What needs environments of its own: the installation, and membrane segmentation (membrain-seg).

'make test-downstream' prepares them and sets F2FD_TEST_MEMBRAIN, the folder of a virtual
environment with membrain-seg, and F2FD_TEST_TORCH, the requirement for PyTorch. Skipped without.
"""

import os
import shlex
import subprocess
import unittest
from unittest import mock

import mrcfile
import numpy as np
from pyworkflow import Config
from pyworkflow.tests import setupTestOutput, setupTestProject
from tomo.protocols import ProtImportTomograms
from tomo.tests.test_base_centralized_layer import TestBaseCentralizedLayer

import f2fd_scipion
from f2fd_scipion import engine
from f2fd_scipion.constants import F2FD_ENV_ACTIVATION, INSTALLED
from f2fd_scipion.protocols import ProtF2FdDenoise, ProtF2FdTrain
from f2fd_scipion.tests.simulation import SHAPES, simulated

MEMBRAIN = os.environ.get("F2FD_TEST_MEMBRAIN")
TORCH = os.environ.get("F2FD_TEST_TORCH")
CHECKPOINT = "untrained.ckpt"
MAKE_CHECKPOINT = """
import sys, torch, pytorch_lightning
from membrain_seg.segmentation.networks.unet import SemanticSegmentationUnet
torch.manual_seed(0)
network = SemanticSegmentationUnet()
trainer = pytorch_lightning.Trainer(max_epochs=0, accelerator="cpu", logger=False,
                                    enable_checkpointing=False)
trainer.strategy.connect(network)
trainer.save_checkpoint(sys.argv[1])
"""
VOXEL_SIZE = 10.0
ORIGIN = (-10.0, 20.0, -30.5)


@unittest.skipUnless(MEMBRAIN, "make test-downstream sets F2FD_TEST_MEMBRAIN")
class TestF2FdDownstream(TestBaseCentralizedLayer):
    """Import, train, denoise and segment with the real membrain-seg.

    Its weights are random here: this shows that the chain holds, not how good the masks are.
    """

    @classmethod
    def setUpClass(cls):
        setupTestProject(cls)
        x, y, z = (-shift for shift in ORIGIN)
        cls.imported = cls.launchProtocol(
            cls.newProtocol(
                ProtImportTomograms,
                filesPath=os.path.join(simulated(), "tomograms"),
                filesPattern="*.mrc",
                samplingRate=VOXEL_SIZE,
                setOrigCoord=True,
                x=x,
                y=y,
                z=z,
            )
        )

    def testDenoisedTomogramsAreSegmented(self):
        tomograms = self.imported.Tomograms
        train = self.launchProtocol(
            self.newProtocol(
                ProtF2FdTrain,
                inTomos=tomograms,
                steps=6,
                patch_size=16,
                batch_size=2,
                useGpu=False,
                numberOfThreads=2,
            )
        )
        denoise = self.launchProtocol(
            self.newProtocol(
                ProtF2FdDenoise, inTomos=tomograms, inModel=train.model, useGpu=False, binThreads=2
            )
        )
        self.setupTestOutput()
        folder = self.getOutputPath()
        subprocess.run(
            [
                os.path.join(MEMBRAIN, "bin", "python"),
                "-c",
                MAKE_CHECKPOINT,
                os.path.join(folder, CHECKPOINT),
            ],
            check=True,
        )
        protocols = Config.getDomain().getProtocols()
        segment = self.newProtocol(
            protocols["ProtMemBrainSeg"],
            inTomograms=denoise.tomograms,
            slidingWindowSize=64,
            testTimeAugmentation=False,
            segmentationThreshold=-1000.0,
        )
        variables = {
            "MEMBRAIN_SEG_ENV_ACTIVATION": ". "
            + shlex.quote(os.path.join(MEMBRAIN, "bin", "activate")),
            "MODEL_MODELS_HOME": folder,
            "MEMBRAIN_SEG_MODEL": CHECKPOINT,
        }
        plugin = segment.getPlugin()
        with mock.patch.dict(os.environ, variables), mock.patch.dict(
            plugin.getVars(), variables
        ), mock.patch.object(plugin, "getCondaActivationCmd", return_value=""):
            self.launchProtocol(segment)
        masks = segment.tomoMasks
        self.assertEqual(masks.getSize(), len(SHAPES))
        self.assertAlmostEqual(masks.getSamplingRate(), VOXEL_SIZE, places=3)
        for mask in masks:
            source = denoise.tomograms.getItem("_tsId", mask.getTsId())
            self.assertEqual(mask.getVolName(), source.getFileName())
            self.assertEqual(mask.getShiftsFromOrigin(), source.getShiftsFromOrigin())
            self.assertEqual(tuple(mask.getShiftsFromOrigin()), ORIGIN)
            with mrcfile.open(mask.getFileName(), permissive=True) as segmented:
                self.assertEqual(segmented.data.shape, SHAPES[mask.getTsId()])
                self.assertAlmostEqual(float(segmented.voxel_size.x), VOXEL_SIZE, places=3)
                self.assertEqual(set(np.unique(segmented.data)), {1})  # all are above -1000


@unittest.skipUnless(TORCH, "make test-downstream sets F2FD_TEST_TORCH")
class TestF2FdInstallation(TestBaseCentralizedLayer):
    @classmethod
    def setUpClass(cls):
        setupTestOutput(cls)
        Config.getDomain().getProtocols()  # gives the plugin its variables

    def testTheInstallationMakesAnEngineThatRuns(self):
        folder = self.getOutputPath("f2fd with spaces")
        os.makedirs(folder)
        constraint = os.path.join(self.getOutputPath(), "constraint.txt")  # pip splits at spaces
        with open(constraint, "w") as stream:
            stream.write(TORCH + "\n")
        plugin = f2fd_scipion.Plugin
        with mock.patch.object(Config, "CONDA_ACTIVATION_CMD", ""):
            command = plugin._installation()
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run(
            command,
            shell=True,
            check=True,
            cwd=folder,
            env=dict(environment, PIP_CONSTRAINT=constraint),
        )
        self.assertTrue(os.path.exists(os.path.join(folder, INSTALLED)))
        activation = ". " + shlex.quote(os.path.join(folder, "env", "bin", "activate"))
        with mock.patch.dict(plugin.getVars(), {F2FD_ENV_ACTIVATION: activation}):
            self.assertEqual(engine.problem(), "")
            self.assertEqual(engine.ask(["info"])["torch"].split("+")[0], TORCH.split("==")[-1])
