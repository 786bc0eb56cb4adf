"""What is known of a model, for the protocols that have nothing else to show."""

from pyworkflow.viewer import DESKTOP_TKINTER, Viewer

from f2fd_scipion.protocols import ProtF2FdExportModel, ProtF2FdImportModel


class F2FdModelViewer(Viewer):
    """A message with the facts on an imported or exported model."""

    _label = "model"
    _targets = [ProtF2FdExportModel, ProtF2FdImportModel]
    _environments = [DESKTOP_TKINTER]

    def _visualize(self, protocol, **options):
        return [self.infoMessage("\n".join(protocol.summary()), protocol.getObjLabel())]
