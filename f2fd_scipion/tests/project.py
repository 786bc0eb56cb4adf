"""A project that the tests share, with a trained model and denoised tomograms."""

import csv
import os
import shutil
import tempfile
import time
from unittest import mock

import mrcfile
from matplotlib import pyplot
from PIL import Image
from pwem.viewers import EmPlotter
from pyworkflow.object import Set
from pyworkflow.protocol import MODE_RESUME
from pyworkflow.tests import setupTestProject
from tomo.objects import (
    CTFTomo,
    CTFTomoSeries,
    SetOfCTFTomoSeries,
    SetOfTiltSeries,
    SetOfTomograms,
    TiltSeries,
    TomoAcquisition,
)
from tomo.protocols import ProtImportTomograms
from tomo.tests.test_base_centralized_layer import TestBaseCentralizedLayer

from f2fd_core.config import PERTURBATIONS
from f2fd_scipion import engine
from f2fd_scipion.protocols import ProtF2FdDenoise, ProtF2FdTrain
from f2fd_scipion.tests.simulation import simulated

SMALL = {
    "steps": 6,
    "patch_size": 16,
    "batch_size": 2,
    "checkpoint_every": 6,
    "numberOfThreads": 1,
    "precision": 1,
}
ONE_THREAD = {"binThreads": 1, "predictions": 2, "precision": 1}
SET_VOXEL_SIZE = 7.5  # not the headers'
ORIGIN = (-10.0, 20.0, -30.5)  # X, Y, Z in Å
HALVES = PERTURBATIONS.index("noise2noise")
NO_HALVES = (
    "Tomograms: there are no half-maps (odd and even) of first, second, which the "
    "perturbation 'noise2noise' needs."
)
AWKWARD_NAME = "50% of 'my' tömogram (1).mrc"


def reliability(tried, outcome):
    """Mark a test as a row of docs/data/reliability.txt; pytest, which Scipion lacks, learns it in
    conftest.py."""

    def mark(test):
        test.reliability = tried, outcome
        return test

    return mark


def gpus(found, usable=1):
    """A machine with so many GPUs (None: without a driver), of which PyTorch sees so many; for a
    'with'."""
    return mock.patch.multiple(engine, gpus=lambda: found, usable_gpus=lambda numbers: usable)


class ProjectTests(TestBaseCentralizedLayer):
    """The project is made once; tests look at its runs, or add runs of their own."""

    @classmethod
    def setUpClass(cls):
        if "proj" not in vars(ProjectTests):
            ProjectTests.make()
        os.chdir(cls.proj.path)

    @classmethod
    def make(cls):
        setupTestProject(cls)
        cls.data = simulated()
        cls.imported = cls.importTomograms(os.path.join(cls.data, "tomograms"))
        cls.truths = cls.importTomograms(os.path.join(cls.data, "truths"))
        cls.train = cls.launch(
            ProtF2FdTrain, inTomos=cls.imported.Tomograms, groundTruth=cls.truths.Tomograms, **SMALL
        )
        cls.denoise = cls.launch(
            ProtF2FdDenoise,
            inTomos=cls.imported.Tomograms,
            inModel=cls.train.model,
            std=True,
            **ONE_THREAD,
        )

    @classmethod
    def fillingModel(cls):
        """A model that has learned to fill the missing wedge; made when first asked for."""
        if "filling" not in vars(ProjectTests):
            ProjectTests.filling = cls.launch(
                ProtF2FdTrain,
                inTomos=cls.imported.Tomograms,
                fill_wedge=True,
                tilt_range=60.0,
                **SMALL,
            )
        return cls.filling.model

    @classmethod
    def launch(cls, protocolClass, **values):
        return cls.launchProtocol(cls.newProtocol(protocolClass, **values))

    @classmethod
    def resume(cls, protocol):
        """Scipion's 'Continue'."""
        protocol.runMode.set(MODE_RESUME)
        return cls.launchProtocol(protocol)

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
        return cls.launch(
            ProtImportTomograms,
            filesPath=folder,
            filesPattern="*.mrc",
            samplingRate=SET_VOXEL_SIZE,
            setOrigCoord=True,
            x=x,
            y=y,
            z=z,
        )

    def importCopies(self, name, tomograms):
        """Import copies of {tsId: tomogram's file}, which a test may change."""
        folder = self.getOutputPath(name)
        os.makedirs(folder)
        for tsId, path in tomograms.items():
            shutil.copyfile(path, os.path.join(folder, tsId + ".mrc"))
        return self.importTomograms(folder), folder

    def emptySet(self):
        """A set of tomograms that is still growing and has none yet."""
        tomograms = SetOfTomograms.create(self.getOutputPath(), prefix="empty")
        tomograms.setSamplingRate(SET_VOXEL_SIZE)
        tomograms.setStreamState(Set.STREAM_OPEN)
        tomograms.write()
        return tomograms

    def ctfs(self, images, voltage=300):
        """A set of CTFs, {tsId: [(defocus U, defocus V in Å, phase shift, enabled)]}."""
        folder = tempfile.mkdtemp(dir=self.getOutputPath())
        tiltSeries = SetOfTiltSeries.create(folder)
        tiltSeries.setAcquisition(TomoAcquisition(voltage=voltage))
        ctfs = SetOfCTFTomoSeries.create(folder)
        ctfs.setSetOfTiltSeries(tiltSeries)
        for tsId, values in images.items():
            tiltSeries.append(TiltSeries(tsId=tsId))
            series = CTFTomoSeries(tsId=tsId)
            ctfs.append(series)
            for index, (u, v, phase_shift, enabled) in enumerate(values):
                ctf = CTFTomo(index=index + 1, defocusU=u, defocusV=v, defocusAngle=0)
                ctf.setPhaseShift(phase_shift)
                ctf.setEnabled(enabled)
                series.append(ctf)
            series.write()
            ctfs.update(series)
        tiltSeries.write()
        ctfs.write()
        return ctfs

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
    def stdout(protocol):
        with open(protocol.getStdoutLog(), encoding="utf-8") as stream:
            return stream.read()

    @staticmethod
    def stderr(protocol):
        with open(protocol.getStderrLog(), encoding="utf-8") as stream:
            return stream.read()

    def path(self, tsId):
        return os.path.join(self.data, tsId, "tomogram.mrc")

    def checkDenoised(self, protocol, shapes):
        """Check the output against {tsId: shape (Z, Y, X)}."""
        self.checkTomograms(
            protocol.tomograms,
            expectedSetSize=len(shapes),
            expectedSRate=SET_VOXEL_SIZE,
            expectedOriginShifts=list(ORIGIN),
            expectedDimensions={tsId: list(shape[::-1]) for tsId, shape in shapes.items()},
            isHeterogeneousSet=len(set(shapes.values())) > 1,
        )
        self.assertEqual(sorted(protocol.tomograms.getTSIds()), sorted(shapes))
        for tomogram in protocol.tomograms:
            self.assertEqual(
                os.path.basename(tomogram.getFileName()), tomogram.getTsId() + "_denoised.mrc"
            )
            self.assertFalse(tomogram.hasHalfMaps())
            self.assertTrue(mrcfile.validate(tomogram.getFileName()))

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
        self.fail(f"it did not happen: {self.stdout(protocol)[-1000:]}")

    @staticmethod
    def drawInMemory():
        """Let figures need no display."""
        pyplot.close("all")
        EmPlotter.setBackend("Agg")

    def viewer(self, viewerClass, protocol):
        self.drawInMemory()
        viewer = viewerClass(project=self.proj, protocol=protocol)
        viewer.setProtocol(protocol)
        self.assertEqual(viewer.validate(), [])
        return viewer

    def drawn(self, views):
        """Save a viewer's only figure and check that it is a picture with more than one colour."""
        (plotter,) = views
        path = os.path.join(self.getOutputPath(), "view.png")
        plotter.figure.savefig(path)
        with Image.open(path) as picture:
            self.assertGreater(len(picture.getcolors(picture.width * picture.height)), 10)
        return plotter
