"""Scores before and after denoising: a table and Fourier shell correlations."""
from pwem.viewers import EmPlotter
from pyworkflow.protocol.params import LabelParam
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer

from f2fd_core.report import literal
from f2fd_scipion.protocols import ProtF2FdEvaluate

STYLES = {"noisy": "--", "denoised": "-", "half_maps": "-"}


class F2FdEvaluateViewer(ProtocolViewer):
    """The scores of all tomograms and their Fourier shell correlations."""
    _label = "scores"
    _targets = [ProtF2FdEvaluate]
    _environments = [DESKTOP_TKINTER]

    def _defineParams(self, form):
        form.addSection(label="Scores")
        form.addParam("showTable", LabelParam, label="Table",
                      help="All scores, before and after denoising.")
        form.addParam("showShells", LabelParam, label="Fourier shell correlation",
                      help="Against the noise-free tomogram, or between the half-maps. The latter "
                           "tells what both halves agree in, not that it is true.")

    def _getVisualizeDict(self):
        return {"showTable": self._showTable, "showShells": self._showShells}

    def _validate(self):
        return [] if self.protocol.getScores() else ["There are no scores yet."]

    def _showTable(self, paramName=None):
        heading, *rows = [list(map(literal, row)) for row in self.protocol.table()]
        plotter = EmPlotter(windowTitle="Scores", figsize=(8, 0.8 + 0.3 * len(rows)))
        axes = plotter.createSubPlot("", None, None)
        table = axes.table(rows, colLabels=heading, loc="center", cellLoc="center")
        table.scale(1, 1.4)
        return [plotter]

    def _showShells(self, paramName=None):
        size = self.protocol.inTomos.get().getSamplingRate()
        plotter = EmPlotter(windowTitle="Fourier shell correlation", figsize=(8, 5))
        axes = plotter.createSubPlot("", "spatial frequency (1/Å)", "Fourier shell correlation")
        for number, (tsId, found) in enumerate(sorted(self.protocol.getScores().items())):
            for state, style in STYLES.items():
                if state in found:
                    curve = found[state]["fsc"]
                    axes.plot([at / size for at in curve["frequency"]], curve["correlation"],
                              color="C%d" % (number % 10), linestyle=style,
                              label="%s, %s" % (literal(tsId), state.replace("_", "-")))
        axes.axhline(0.143, color="0.6", linewidth=0.8)
        axes.legend(fontsize=7)
        return [plotter]
