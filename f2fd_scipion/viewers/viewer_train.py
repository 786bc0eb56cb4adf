"""What a training looks like, also while it runs."""
import csv
import glob
import os

import numpy as np
from pwem.viewers import EmPlotter
from pyworkflow.protocol.params import LabelParam
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer

from f2fd_scipion.protocols import ProtF2FdTrain
from f2fd_scipion.viewers.picture import Pictures

LOG = "log.csv"
PREVIEWS = "previews/step_*.png"
PICTURES = {"showSlices": (PREVIEWS, "Slices before and after denoising"),
            "showHistogram": ("histogram.png", "Intensities before and after denoising"),
            "showSpectrum": ("spectrum.png", "Power spectrum of the tomogram and of its noise")}
SCORES = {"ssim": ("structural similarity (SSIM)", "input_ssim"),
          "psnr": ("peak signal-to-noise ratio (dB)", "input_psnr")}
MEAN_OF = 20  # the smoothed curve averages over one part in so many of the run
REFRESH = 5000  # milliseconds


def read_log(path):
    """{column: array with one value a step, NaN if none} of log.csv; empty without a step."""
    if not os.path.exists(path):
        return {}
    with open(path, newline="") as stream:
        rows = list(csv.DictReader(stream))
    # The training may be writing its last line.
    rows = [row for row in rows if None not in row.values()]
    return {name: np.array([float(row[name] or "nan") for row in rows])
            for name in rows[0]} if rows else {}


def running_mean(values, width):
    """Mean over ``width`` neighbours, shorter than ``values`` by width - 1."""
    return np.convolve(values, np.ones(width) / width, mode="valid")


def plot_smoothed(axes, steps, values, color, label):
    width = max(1, len(steps) // MEAN_OF)
    axes.plot(steps[width - 1:], running_mean(values, width), color=color,
              label="%s, mean of %d" % (label, width) if width > 1 else label)


class LossPlot(EmPlotter):
    """A window with the loss and the learning rate, drawn anew as the log grows."""

    def __init__(self, path):
        super().__init__(windowTitle="F2Fd training", figsize=(8, 5))
        self.path = path
        self.axes = self.createSubPlot("Loss", "training step", "loss")
        self.rate = self.axes.twinx()
        self.drawn = 0
        self.refresh()
        self.timer = self.figure.canvas.new_timer(interval=REFRESH)
        self.timer.add_callback(self.refresh)
        self.timer.start()
        self.figure.canvas.mpl_connect("close_event", lambda event: self.timer.stop())

    def refresh(self):
        """Draw what the log holds by now."""
        log = read_log(self.path)
        if not log or len(log["step"]) == self.drawn:
            return
        self.drawn = len(log["step"])
        for axes in (self.axes, self.rate):
            axes.cla()
        self.axes.plot(log["step"], log["loss"], color="0.75", linewidth=0.8)
        plot_smoothed(self.axes, log["step"], log["loss"], "C0", "loss")
        checked = np.isfinite(log["validation_loss"])
        if checked.any():
            self.axes.plot(log["step"][checked], log["validation_loss"][checked], color="C3",
                           marker=".", label="on parts kept from the training")
        self.axes.set(title="Loss", xlabel="training step", ylabel="loss")
        self.axes.legend(loc="upper right")
        self.rate.plot(log["step"], log["learning_rate"], color="C1", linestyle="--")
        self.rate.set_ylabel("learning rate", color="C1")
        self.rate.yaxis.set_label_position("right")
        self.rate.set_ylim(bottom=0)
        self.figure.canvas.draw_idle()


class F2FdTrainViewer(ProtocolViewer):
    """Loss, learning rate, scores and previews of a training."""
    _label = "training viewer"
    _targets = [ProtF2FdTrain]
    _environments = [DESKTOP_TKINTER]

    def _defineParams(self, form):
        form.addSection(label="Training")
        form.addParam("showLoss", LabelParam, label="Loss and learning rate",
                      help="The loss of every training step and its running mean, drawn anew while "
                           "the training runs. It ends above zero, since the target of the "
                           "training is noisy itself.")
        if "ssim" in self._readLog():
            form.addParam("showScores", LabelParam, label="Scores against the noise-free tomogram",
                          help="SSIM and PSNR of the training patches, before and after.")
        form.addParam("showSlices", LabelParam, label="Slices at each checkpoint",
                      help="Central slices of the first tomogram before and after denoising.")
        form.addParam("showHistogram", LabelParam, label="Histogram of intensities",
                      help="Intensities of these slices before and after denoising.")
        if self._files("spectrum.png"):
            form.addParam("showSpectrum", LabelParam, label="Noise spectrum",
                          help="The power of the first tomogram and of its noise, as estimated, "
                               "from low to high frequency.")
        if self.protocol.isActive():
            form.addParam("finish", LabelParam, label="Finish now, with the model that it has",
                          help="The running training ends after its present step, and its model "
                               "can be used at once. To train on later, continue the protocol "
                               "with another number of training steps.")

    def _getVisualizeDict(self):
        shown = {name: self._showPictures for name in PICTURES if self.hasAttribute(name)}
        shown.update((name, show) for name, show in (
            ("showLoss", self._showLoss), ("showScores", self._showScores),
            ("finish", self._finish)) if self.hasAttribute(name))
        return shown

    def _validate(self):
        return [] if self._readLog() else ["There is no training step to show yet."]

    def _files(self, pattern):
        return sorted(glob.glob(os.path.join(glob.escape(self.protocol._getExtraPath()), pattern)))

    def _readLog(self):
        return read_log(self.protocol._getExtraPath(LOG))

    def _showLoss(self, paramName=None):
        return [LossPlot(os.path.abspath(self.protocol._getExtraPath(LOG)))]

    def _showScores(self, paramName=None):
        log = self._readLog()
        plotter = EmPlotter(x=2, y=1, windowTitle="F2Fd training", figsize=(8, 7))
        for name, (words, before) in SCORES.items():
            axes = plotter.createSubPlot("", "training step", words)
            plot_smoothed(axes, log["step"], log[before], "0.6", "input")
            plot_smoothed(axes, log["step"], log[name], "C0", "denoised")
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
        return [self.infoMessage("The training ends after its present step.", "F2Fd training")]
