"""Scores before and after denoising: a table and Fourier shell correlations."""

import numpy as np
from pwem.viewers import EmPlotter
from pyworkflow.protocol.params import EnumParam, LabelParam
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer

from f2fd_core.runtime.figures import literal
from f2fd_scipion.protocols import ProtF2FdEvaluate
from f2fd_scipion.protocols.protocol_evaluate import STATES

STYLES = {"noisy": "--", "denoised": "-", "half_maps_before": "--", "half_maps": "-"}
ALL = "all: mean and range"


class F2FdEvaluateViewer(ProtocolViewer):
    """The scores and Fourier shell correlations of one tomogram or of all."""

    _label = "scores"
    _targets = [ProtF2FdEvaluate]
    _environments = [DESKTOP_TKINTER]

    def _defineParams(self, form):
        form.addSection(label="Scores")
        form.addParam(
            "tomogram",
            EnumParam,
            choices=[ALL, *sorted(self.protocol.getScores())],
            default=0,
            label="Tomogram",
            help="The tomogram whose scores are shown, or all: their mean and range. The file "
            "scores.csv in the protocol's extra folder has the scores of each.",
        )
        form.addParam(
            "showTable", LabelParam, label="Table", help="The scores, before and after denoising."
        )
        form.addParam(
            "showShells",
            LabelParam,
            label="Fourier shell correlation",
            help="Against the noise-free tomogram, or between the half-maps. The latter "
            "shows what both halves agree on, not that it is right.",
        )

    def _getVisualizeDict(self):
        return {"showTable": self._showTable, "showShells": self._showShells}

    def _validate(self):
        return [] if self.protocol.getScores() else ["There are no scores yet."]

    def _chosen(self):
        """The chosen tsId, or None for all."""
        chosen = self.getEnumText("tomogram")
        return None if chosen == ALL else chosen

    def _showTable(self, paramName=None):
        heading, *rows = [list(map(literal, row)) for row in self.protocol.table(self._chosen())]
        plotter = EmPlotter(windowTitle="Scores", figsize=(11, 0.8 + 0.3 * len(rows)))
        axes = plotter.createSubPlot("", None, None)
        table = axes.table(rows, colLabels=heading, loc="center", cellLoc="center")
        table.auto_set_column_width(range(len(heading)))
        table.scale(1, 1.4)
        return [plotter]

    def _showShells(self, paramName=None):
        size = self.protocol.inTomos.get().getSamplingRate()
        plotter = EmPlotter(windowTitle="Fourier shell correlation", figsize=(8, 5))
        axes = plotter.createSubPlot("", "spatial frequency (1/Å)", "Fourier shell correlation")
        scores, chosen = self.protocol.getScores(), self._chosen()
        for state, style in STYLES.items():
            curves = [
                found[state]["fsc"]
                for tsId, found in scores.items()
                if state in found and chosen in (None, tsId)
            ]
            if not curves:
                continue
            # Tomograms of other sizes have other shells.
            frequency = max((curve["frequency"] for curve in curves), key=len)
            values = np.array(
                [np.interp(frequency, curve["frequency"], curve["correlation"]) for curve in curves]
            )
            frequency = np.array(frequency) / size
            (line,) = axes.plot(frequency, values.mean(0), linestyle=style, label=STATES[state])
            if len(curves) > 1:
                axes.fill_between(
                    frequency,
                    values.min(0),
                    values.max(0),
                    alpha=0.2,
                    linewidth=0,
                    color=line.get_color(),
                )
        # Usual thresholds: between half-maps, and against the truth.
        between_halves = all("half_maps" in found for found in scores.values())
        axes.axhline(0.143 if between_halves else 0.5, color="0.6", linewidth=0.8)
        axes.legend()
        return [plotter]
