"""What a training looks like, also while it runs."""
import csv
import os

import numpy as np
from pwem.viewers import EmPlotter
from pyworkflow.protocol.params import LabelParam
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer

from f2fd_scipion.protocols import ProtF2FdTrain
from f2fd_scipion.viewers.picture import show_picture

LOG = "log.csv"
PICTURES = {"showSlices": ("slices.png", "Slices before and after denoising"),
            "showHistogram": ("histogram.png", "Intensities before and after denoising"),
            "showSpectrum": ("spectrum.png", "Power spectrum of the tomogram and of its noise")}
SCORES = {"ssim": ("structural similarity (SSIM)", "input_ssim"),
          "psnr": ("peak signal-to-noise ratio (dB)", "input_psnr")}
MEAN_OF = 20  # the smoothed curve averages over one part in so many of the run


def running_mean(values, width):
    """Mean over ``width`` neighbours, shorter than ``values`` by width - 1."""
    return np.convolve(values, np.ones(width) / width, mode="valid")


class F2FdTrainViewer(ProtocolViewer):
    """Loss, learning rate, scores and preview of a training."""
    _label = "training viewer"
    _targets = [ProtF2FdTrain]
    _environments = [DESKTOP_TKINTER]

    def _defineParams(self, form):
        form.addSection(label="Training")
        form.addParam("showLoss", LabelParam, label="Loss and learning rate",
                      help="The loss of every training step and its running mean. It ends above "
                           "zero, since the target of the training is noisy itself.")
        if "ssim" in self._readLog():
            form.addParam("showScores", LabelParam, label="Scores against the noise-free tomogram",
                          help="SSIM and PSNR of the training patches, before and after.")
        form.addParam("showSlices", LabelParam, label="Slices before and after",
                      help="Central slices of the first tomogram at the last checkpoint.")
        form.addParam("showHistogram", LabelParam, label="Histogram of intensities",
                      help="Intensities of these slices before and after denoising.")
        if os.path.exists(self.protocol._getExtraPath(PICTURES["showSpectrum"][0])):
            form.addParam("showSpectrum", LabelParam, label="Noise spectrum",
                          help="The power of the first tomogram and of its noise, as estimated, "
                               "from low to high frequency.")

    def _getVisualizeDict(self):
        shown = {name: self._showPicture for name in PICTURES if self.hasAttribute(name)}
        shown["showLoss"] = self._showLoss
        if self.hasAttribute("showScores"):
            shown["showScores"] = self._showScores
        return shown

    def _validate(self):
        return [] if self._readLog() else ["There is no training step to show yet."]

    def _readLog(self):
        """{column: array with one value a step, NaN if none} of log.csv; empty without a step."""
        path = self.protocol._getExtraPath(LOG)
        if not os.path.exists(path):
            return {}
        with open(path, newline="") as stream:
            rows = list(csv.DictReader(stream))
        return {name: np.array([float(row[name] or "nan") for row in rows])
                for name in rows[0]} if rows else {}

    def _plotSmoothed(self, axes, steps, values, color, label):
        width = max(1, len(steps) // MEAN_OF)
        axes.plot(steps[width - 1:], running_mean(values, width), color=color,
                  label="%s, mean of %d" % (label, width) if width > 1 else label)

    def _showLoss(self, paramName=None):
        log = self._readLog()
        plotter = EmPlotter(windowTitle="F2Fd training", figsize=(8, 5))
        axes = plotter.createSubPlot("Loss", "training step", "loss")
        axes.plot(log["step"], log["loss"], color="0.75", linewidth=0.8)
        self._plotSmoothed(axes, log["step"], log["loss"], "C0", "loss")
        axes.legend(loc="upper right")
        rate = axes.twinx()
        rate.plot(log["step"], log["learning_rate"], color="C1", linestyle="--")
        rate.set_ylabel("learning rate", color="C1")
        rate.set_ylim(bottom=0)
        return [plotter]

    def _showScores(self, paramName=None):
        log = self._readLog()
        plotter = EmPlotter(x=2, y=1, windowTitle="F2Fd training", figsize=(8, 7))
        for name, (words, before) in SCORES.items():
            axes = plotter.createSubPlot("", "training step", words)
            self._plotSmoothed(axes, log["step"], log[before], "0.6", "input")
            self._plotSmoothed(axes, log["step"], log[name], "C0", "denoised")
            axes.legend()
        return [plotter]

    def _showPicture(self, paramName):
        name, title = PICTURES[paramName]
        path = self.protocol._getExtraPath(name)
        if not os.path.exists(path):
            return [self.infoMessage("%s is drawn at the first checkpoint." % name, title)]
        return [show_picture(path, title)]
