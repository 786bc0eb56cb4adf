"""What people do to runs and their files: delete, copy, stop, restart, continue, move."""

import glob
import os
import shutil
import tempfile

import mrcfile
import numpy as np
from pyworkflow.project import Project
from pyworkflow.protocol import MODE_RESTART
from tomo.objects import SetOfTomograms, Tomogram

from f2fd_scipion.protocols import ProtF2FdDenoise, ProtF2FdEvaluate, ProtF2FdTrain
from f2fd_scipion.tests import project
from f2fd_scipion.tests.project import ONE_THREAD, SET_VOXEL_SIZE, SMALL, reliability
from f2fd_scipion.tests.simulation import SHAPES

NOT_RUN = reliability(
    "Scipion: two tomograms with one tsId; an input deleted before denoising",
    "one sentence, before the run",
)


def content(path):
    with open(path, "rb") as stream:
        return stream.read()


class TestF2FdRuns(project.ProjectTests):
    @reliability(
        "Scipion: a training copied, run, deleted, and the first restarted",
        "nothing of the others is touched",
    )
    def testCopyingDeletingAndRestarting(self):
        train = self.launch(ProtF2FdTrain, inTomos=self.imported.Tomograms, **SMALL)
        before = content(train.model.getPath())
        copied = self.proj.copyProtocol(train)
        self.launchProtocol(copied)
        self.assertNotEqual(copied.model.getPath(), train.model.getPath())
        for one, other in zip(self.log(copied), self.log(train)):
            self.assertEqual((one["step"], one["loss"]), (other["step"], other["loss"]))
        folder = copied.getPath()
        self.proj.deleteProtocol(copied)
        self.assertFalse(os.path.exists(folder))
        self.assertEqual(content(train.model.getPath()), before)
        for tomogram in self.imported.Tomograms:
            self.assertTrue(os.path.exists(tomogram.getFileName()))
        train.steps.set(4)
        train.seed.set(7)
        train.runMode.set(MODE_RESTART)
        self.launchProtocol(train)
        self.assertEqual([row["step"] for row in self.log(train)], ["0", "1", "2", "3"])
        self.assertEqual(train.model.getSteps(), 4)
        self.assertNotIn("resuming from", self.stdout(train))

    @reliability(
        "Scipion: denoising stopped and continued beside a training",
        "finished tomograms are kept, the others made",
    )
    def testStoppingAndContinuingBesideAnotherRun(self):
        beside = self.newProtocol(ProtF2FdTrain, inTomos=self.imported.Tomograms, **SMALL)
        self.proj.launchProtocol(beside, wait=False)
        denoise = self.newProtocol(
            ProtF2FdDenoise,
            inTomos=self.imported.Tomograms,
            inModel=self.train.model,
            **dict(ONE_THREAD, predictions=20),
        )
        self.proj.launchProtocol(denoise, wait=False)
        first, second = (denoise._getExtraPath(tsId + "_denoised.mrc") for tsId in SHAPES)
        self.waitFor(lambda: os.path.exists(first), denoise)
        self.waitFor(lambda: len(self.updated(denoise).getDone()) == 1, denoise)
        # Not while Scipion writes its record of the steps, which its own stop would spoil.
        self.waitFor(lambda: glob.glob(denoise._getTmpPath("second", "*.part")), denoise)
        self.proj.stopProtocol(denoise)
        self.assertTrue(denoise.isAborted())
        self.assertFalse(os.path.exists(second))
        kept = os.stat(first).st_mtime_ns
        self.resume(denoise)
        self.checkDenoised(denoise, SHAPES)
        self.assertEqual(os.stat(first).st_mtime_ns, kept)
        self.waitFor(lambda: self.updated(beside).isFinished(), beside)
        for one, other in zip(self.log(beside), self.log(self.train)):
            self.assertEqual((one["step"], one["loss"]), (other["step"], other["loss"]))

    @NOT_RUN
    def testTwoTomogramsOfOneName(self):
        twins = SetOfTomograms.create(self.getOutputPath())
        twins.setSamplingRate(SET_VOXEL_SIZE)
        for tsId in SHAPES:
            tomogram = Tomogram()
            tomogram.setSamplingRate(SET_VOXEL_SIZE)
            tomogram.setLocation(self.path(tsId))
            tomogram.setTsId("twin")
            twins.append(tomogram)
        twins.write()
        sentence = "%s: every tomogram needs its own tsId, but some are repeated: twin (2 times)."
        denoise = self.newProtocol(ProtF2FdDenoise, inTomos=twins, inModel=self.train.model)
        self.assertEqual(denoise.validate(), [sentence % "Tomograms"])
        train = self.newProtocol(ProtF2FdTrain, inTomos=twins)
        self.assertEqual(train.validate(), [])
        train.groundTruth.set(self.truths.Tomograms)
        self.assertIn(sentence % "Tomograms", train.validate())
        evaluate = self.newProtocol(
            ProtF2FdEvaluate, inTomos=twins, references=self.truths.Tomograms
        )
        self.assertEqual(evaluate.validate(), [sentence % "Denoised tomograms"])

    @NOT_RUN
    def testWhatWasDeletedIsMissed(self):
        imported, folder = self.importCopies("deleted", {tsId: self.path(tsId) for tsId in SHAPES})
        train = self.launch(ProtF2FdTrain, inTomos=imported.Tomograms, **dict(SMALL, steps=1))
        denoise = self.newProtocol(ProtF2FdDenoise, inTomos=imported.Tomograms, inModel=train.model)
        self.assertEqual(denoise.validate(), [])
        os.remove(os.path.join(folder, "second.mrc"))
        (error,) = denoise.validate()
        self.assertIn("Tomograms: files are missing: second (", error)
        shutil.copyfile(self.path("second"), os.path.join(folder, "second.mrc"))
        os.remove(train.model.getPath())
        (error,) = denoise.validate()
        self.assertEqual(error, f"Model: its file {train.model.getPath()} does not exist.")

    @reliability("Scipion: project moved to another folder", "runs go on there")
    def testAMovedProject(self):
        place = tempfile.TemporaryDirectory(prefix="f2fd_moved_")
        self.addCleanup(place.cleanup)
        old, new = self.proj.path, os.path.join(place.name, "my möved 50% project")
        shutil.copytree(old, new, symlinks=True)
        before = {path: os.lstat(path).st_mtime_ns for path in self.files(old)}
        try:
            moved = Project(self.proj.getDomain(), new)
            moved.load()
            train = moved.getProtocol(self.train.getObjId())
            denoise = moved.newProtocol(ProtF2FdDenoise, **ONE_THREAD)
            denoise.setObjLabel("after the move")
            denoise.inTomos.set(moved.getProtocol(self.imported.getObjId()).Tomograms)
            denoise.inModel.set(train.model)
            denoise.useGpu.set(False)
            moved.launchProtocol(denoise, wait=True)
            self.assertTrue(denoise.isFinished(), denoise.getErrorMessage())
            denoise = moved.getProtocol(denoise.getObjId())
            for tomogram in denoise.tomograms:
                here, there = (
                    mrcfile.read(os.path.join(place, path))
                    for place, path in (
                        (new, tomogram.getFileName()),
                        (old, self.denoise._getExtraPath(tomogram.getTsId() + "_denoised.mrc")),
                    )
                )
                np.testing.assert_array_equal(here, there)
        finally:
            os.chdir(old)
        self.assertEqual(before, {path: os.lstat(path).st_mtime_ns for path in self.files(old)})

    @staticmethod
    def files(folder):
        """All files of a project's runs."""
        return [
            os.path.join(place, name)
            for place, _, names in os.walk(os.path.join(folder, "Runs"))
            for name in names
        ]
