"""Tomograms before and after denoising or deconvolving."""

from pyworkflow.protocol.params import EnumParam, LabelParam
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer
from tomo.objects import Tomogram
from tomo.viewers.viewers_data import TomoDataViewer

from f2fd_core.config import UserError
from f2fd_scipion.protocols import ProtF2FdDeconvolve, ProtF2FdDenoise
from f2fd_scipion.protocols.protocol_base import volume_file
from f2fd_scipion.protocols.protocol_tomograms import TOMOGRAMS
from f2fd_scipion.viewers.comparison import Comparison, voxels


class F2FdDenoiseViewer(ProtocolViewer):
    """Sections before and after, a tomogram at a time, and the viewer for tomograms."""

    _label = "before and after"
    _targets = [ProtF2FdDenoise, ProtF2FdDeconvolve]
    _environments = [DESKTOP_TKINTER]

    def _defineParams(self, form):
        form.addSection(label="Before and after")
        form.addParam(
            "tomogram",
            EnumParam,
            choices=self._tsIds(),
            default=0,
            label="Before and after",
            help="Sections of the chosen tomogram as it was and as it is now, on the "
            "same gray scale, and what was removed, which should show noise only. "
            "Where the missing wedge was filled, the result is beside them, to be "
            "compared in XZ; what it has more is predicted, not measured. "
            "Where the standard deviation over the predictions was written, it is "
            "shown, too: where it is high, trust the result less.",
        )
        form.addParam(
            "showTomograms",
            LabelParam,
            label="Open the list of new tomograms",
            help="Opens the list of tomograms, from which each can be viewed.",
        )

    def _getVisualizeDict(self):
        return {"tomogram": self._showSections, "showTomograms": self._showTomograms}

    def _validate(self):
        return [] if self._tsIds() else ["No tomogram is finished yet."]

    def _tsIds(self):
        return sorted(self.protocol.getDone())

    def _showSections(self, paramName=None):
        tsId = self.getEnumText("tomogram")  # more may have been finished since the form opened
        before, after = (
            volume_file(tomograms.getItem(Tomogram.TS_ID_FIELD, tsId))
            for tomograms in (self.protocol.inTomos.get(), getattr(self.protocol, TOMOGRAMS))
        )
        deviation, filled = self.protocol.getDeviation(tsId), self.protocol.getFilled(tsId)
        try:
            return [
                Comparison(
                    voxels(before),
                    voxels(after),
                    deviation and voxels(deviation),
                    tsId,
                    filled=filled and voxels(filled),
                )
            ]
        except (OSError, UserError) as error:
            return [self.errorMessage(f"{tsId} can't be shown: {error}", tsId)]

    def _showTomograms(self, paramName=None):
        viewer = TomoDataViewer(
            project=self.getProject(), protocol=self.protocol, parent=self.formWindow
        )
        return viewer._visualize(getattr(self.protocol, TOMOGRAMS))
