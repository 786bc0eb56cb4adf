"""What a training looks like, also while it runs."""

import glob
import os

from pwem.viewers import EmPlotter
from pyworkflow.protocol.params import LabelParam
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer

from f2fd_core.config import UserError
from f2fd_core.runtime import figures, train_log
from f2fd_scipion.protocols import ProtF2FdTrain
from f2fd_scipion.protocols.protocol_train import LOG_FILE
from f2fd_scipion.viewers.picture import Pictures

PREVIEWS = "previews/step_*.png"
PICTURES = {
    "showSlices": (PREVIEWS, "Slices before and after denoising"),
    "showHistogram": ("histogram.png", "Intensities before and after denoising"),
    "showSpectrum": ("spectrum.png", "Power spectrum of the tomogram and of its noise"),
}
SCORES = {
    "ssim": ("structural similarity (SSIM)", "input_ssim"),
    "psnr": ("peak signal-to-noise ratio (dB)", "input_psnr"),
}
REFRESH = 5000  # milliseconds


class TrainingPlot(EmPlotter):
    """A window with what the training gained, drawn again as the log grows."""

    def __init__(self, path):
        super().__init__(windowTitle="F2Fd training", figsize=(8, 5))
        self.path = path
        self.drawn = 0
        self.refresh()
        self.timer = self.figure.canvas.new_timer(interval=REFRESH)
        self.timer.add_callback(self.refresh)
        self.timer.start()
        self.figure.canvas.mpl_connect("close_event", lambda event: self.timer.stop())

    def refresh(self):
        """Draw what the log holds by now."""
        rows = train_log.read_log(self.path)
        if len(rows) == self.drawn:
            return
        self.drawn = len(rows)
        self.figure.clear()
        figures.plot_training(self.figure.subplots(), rows)
        self.figure.canvas.draw_idle()


class F2FdTrainViewer(ProtocolViewer):
    """Gain, learning rate, scores and previews of a training."""

    _label = "training viewer"
    _targets = [ProtF2FdTrain]
    _environments = [DESKTOP_TKINTER]

    def _defineParams(self, form):
        form.addSection(label="Training")
        form.addParam(
            "showGain",
            LabelParam,
            label="Signal explained, and the learning rate",
            help="The share of the signal's power that the network is estimated to explain on the "
            "validation cubes, updated while the training runs: 0 % for predicting nothing, 100 % "
            "for the noise-free tomogram. Before the first estimate, and for the perturbations "
            "fourier_masks, self2self and noise2void, the loss of every step, which stays above "
            "zero because the target of the training is itself noisy.",
        )
        if any("ssim" in row for row in self._readLog()[:1]):
            form.addParam(
                "showScores",
                LabelParam,
                label="Scores against the noise-free tomogram",
                help="SSIM and PSNR of the training patches, before and after.",
            )
        form.addParam(
            "showSlices",
            LabelParam,
            label="Slices at each checkpoint",
            help="Central slices of the first tomogram before and after denoising.",
        )
        form.addParam(
            "showHistogram",
            LabelParam,
            label="Histogram of intensities",
            help="Intensities of these slices before and after denoising.",
        )
        if self._files("spectrum.png"):
            form.addParam(
                "showSpectrum",
                LabelParam,
                label="Noise spectrum",
                help="The power of the first tomogram and of its noise, as estimated, "
                "from low to high frequency.",
            )
        if self.protocol.isActive():
            form.addParam(
                "finish",
                LabelParam,
                label="Finish now, with the present model",
                help="The training ends after the current step, and its model can be used at once. "
                "To train further, continue the protocol with another number of training steps. "
                "With 'Learn to fill the missing wedge', everything that is left ends: the model "
                "fills it with what it has learned of that by then, or not at all if it has not "
                "begun to learn it.",
            )

    def _getVisualizeDict(self):
        shown = {name: self._showPictures for name in PICTURES if self.hasAttribute(name)}
        shown.update(
            (name, show)
            for name, show in (
                ("showGain", self._showGain),
                ("showScores", self._showScores),
                ("finish", self._finish),
            )
            if self.hasAttribute(name)
        )
        return shown

    def _validate(self):
        rows, problem = self._rowsAndProblem()
        return [] if rows else [problem or "There is no training step to show yet."]

    def _files(self, pattern):
        return sorted(glob.glob(os.path.join(glob.escape(self.protocol._getExtraPath()), pattern)))

    def _readLog(self):
        return self._rowsAndProblem()[0]

    def _rowsAndProblem(self):
        """(rows of the log, what is wrong with it)."""
        try:
            return train_log.read_log(self.protocol._getExtraPath(LOG_FILE)), ""
        except UserError as error:
            return [], f"{error}."

    def _showGain(self, paramName=None):
        return [TrainingPlot(os.path.abspath(self.protocol._getExtraPath(LOG_FILE)))]

    def _showScores(self, paramName=None):
        rows = self._readLog()
        steps = train_log.column(rows, "step")
        plotter = EmPlotter(x=2, y=1, windowTitle="F2Fd training", figsize=(8, 7))
        for name, (words, before) in SCORES.items():
            axes = plotter.createSubPlot("", "training step", words)
            for column, color, label in ((before, "0.6", "input"), (name, "C0", "denoised")):
                figures.plot_smoothed(axes, steps, train_log.column(rows, column), color, label)
            axes.legend()
        return [plotter]

    def _showPictures(self, paramName):
        pattern, title = PICTURES[paramName]
        paths = self._files(pattern)
        if not paths:
            return [self.infoMessage("This is drawn at the first checkpoint.", title)]
        return [Pictures(paths, title)]

    def _finish(self, paramName=None):
        self.protocol.finishNow()
        return [self.infoMessage("The training ends after the current step.", "F2Fd training")]
