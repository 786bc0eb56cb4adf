"""The report on how far denoised tomograms can be trusted."""

import os
import pathlib
import webbrowser

from pyworkflow.protocol.params import EnumParam, LabelParam
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer

from f2fd_scipion.protocols import ProtF2FdCheck
from f2fd_scipion.viewers.picture import Pictures


class F2FdCheckViewer(ProtocolViewer):
    """The verdict, the report and its pictures, a tomogram at a time."""

    _label = "report"
    _targets = [ProtF2FdCheck]
    _environments = [DESKTOP_TKINTER]

    def _defineParams(self, form):
        form.addSection(label="Report")
        form.addParam(
            "tomogram",
            EnumParam,
            choices=self._tsIds(),
            default=0,
            label="Tomogram",
            help="The tomogram whose report is shown.",
        )
        form.addParam(
            "showVerdict",
            LabelParam,
            label="Verdict",
            help="Five sentences, and a sixth if the model fills the missing wedge, each with a "
            "mark and the rule behind it.",
        )
        form.addParam(
            "showPictures",
            LabelParam,
            label="Pictures",
            help="The pictures of the report, with a slider to choose.",
        )
        form.addParam(
            "showPage",
            LabelParam,
            label="Open the report in the browser",
            help="A single page with all figures, which opens offline.",
        )

    def _getVisualizeDict(self):
        return {
            "showVerdict": self._showVerdict,
            "showPictures": self._showPictures,
            "showPage": self._showPage,
        }

    def _validate(self):
        return [] if self._tsIds() else ["No tomogram is finished yet."]

    def _tsIds(self):
        return sorted(self.protocol.getDone())

    def _chosen(self):
        return self.getEnumText("tomogram")

    def _showVerdict(self, paramName=None):
        entries = self.protocol.getReports()[self._chosen()]["verdict"]
        text = "\n\n".join(
            (f"{entry['mark'].upper()}: {entry['title']} {entry['sentence']}\n({entry['rule']})")
            for entry in entries
        )
        return [self.infoMessage(text, f"How far to trust {self._chosen()}")]

    def _showPictures(self, paramName=None):
        return [Pictures(self.protocol.getPictures(self._chosen())[::-1], self._chosen())]

    def _showPage(self, paramName=None):
        webbrowser.open(
            pathlib.Path(os.path.abspath(self.protocol.getPage(self._chosen()))).as_uri()
        )
        return []
