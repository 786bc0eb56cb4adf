"""Tomograms before and after denoising."""
import os

from pyworkflow.protocol.params import EnumParam, LabelParam
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer
from tomo.viewers.viewers_data import TomoDataViewer

from f2fd_scipion.protocols import ProtF2FdDenoise
from f2fd_scipion.protocols.protocol_denoise import SLICES
from f2fd_scipion.protocols.protocol_tomograms import TOMOGRAMS
from f2fd_scipion.viewers.picture import show_picture


class F2FdDenoiseViewer(ProtocolViewer):
    """Slices before and after, a tomogram at a time, and the viewer for tomograms."""
    _label = "denoising viewer"
    _targets = [ProtF2FdDenoise]
    _environments = [DESKTOP_TKINTER]

    def _defineParams(self, form):
        form.addSection(label="Denoised tomograms")
        form.addParam("tomogram", EnumParam, choices=self._tsIds(), default=0,
                      label="Slices before and after",
                      help="Central slices of the chosen tomogram: as it was, denoised, and what "
                           "was removed. The last should show noise only.")
        form.addParam("showTomograms", LabelParam, label="Open the denoised tomograms",
                      help="Opens the list of tomograms, from which each can be viewed.")

    def _getVisualizeDict(self):
        return {"tomogram": self._showSlices, "showTomograms": self._showTomograms}

    def _validate(self):
        return [] if self._tsIds() else ["No tomogram is denoised yet."]

    def _tsIds(self):
        return sorted(self.protocol.getDone())

    def _showSlices(self, paramName=None):
        tsId = self._tsIds()[self.tomogram.get()]
        path = self.protocol._getExtraPath(tsId + SLICES)
        if not os.path.exists(path):
            return [self.errorMessage("The picture %s is gone." % path, tsId)]
        return [show_picture(path, tsId)]

    def _showTomograms(self, paramName=None):
        viewer = TomoDataViewer(project=self.getProject(), protocol=self.protocol,
                                parent=self.formWindow)
        return viewer._visualize(getattr(self.protocol, TOMOGRAMS))
