"""A training that is still running: its summary, and how it is ended."""

import os

from pyworkflow.protocol import STATUS_RUNNING

from f2fd_scipion.protocols import ProtF2FdDenoise, ProtF2FdTrain
from f2fd_scipion.tests import project
from f2fd_scipion.tests.project import SMALL
from f2fd_scipion.viewers import F2FdTrainViewer


class TestF2FdWhileTraining(project.ProjectTests):
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
