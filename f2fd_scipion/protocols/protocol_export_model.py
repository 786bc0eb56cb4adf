"""Export a model for 'f2fd denoise' or another project."""

import os
import shutil

from pwem.protocols import EMProtocol
from pyworkflow import BETA
from pyworkflow.protocol import PathParam, StringParam
from pyworkflow.utils import Message

from f2fd_core.runtime import files
from f2fd_scipion.form import add_model
from f2fd_scipion.objects import citations_of


class ProtF2FdExportModel(EMProtocol):
    """Export an F2Fd model to a file outside of the project.

    The file works with 'f2fd denoise' on the command line and with 'import F2Fd model'.
    """

    _label = "export F2Fd model"
    _devStatus = BETA

    def _defineParams(self, form):
        form.addSection(label=Message.LABEL_INPUT)
        add_model(form, "Model to export.")
        form.addParam(
            "folder",
            PathParam,
            important=True,
            label="Folder",
            help="Existing folder in which the file is written.",
        )
        form.addParam(
            "fileName",
            StringParam,
            default="f2fd_model.pt",
            label="File name",
            help="An existing file is never replaced; the export is then refused.",
        )

    def _insertAllSteps(self):
        self._insertFunctionStep(self.exportStep, self._target(), needsGPU=False)

    def exportStep(self, path):
        """Copy the model under a temporary name, which becomes ``path`` unless that is there."""
        partial = path + files.PARTIAL
        with files.removed_after(partial):
            files.create(partial)
            shutil.copyfile(self.inModel.get().getPath(), partial)
            if os.path.exists(path):
                raise FileExistsError(f"{path} exists already; it is kept: give another name.")
            files.finish(partial, path)
        return [path]

    def _target(self):
        return os.path.join(self.folder.get("").strip(), self.fileName.get("").strip())

    def _validate(self):
        errors = []
        folder, name = self.folder.get("").strip(), self.fileName.get("").strip()
        if not os.path.isdir(folder):
            errors.append(f"Folder: '{folder}' is not a folder.")
        if not name or os.path.basename(name) != name:
            errors.append(f"File name: '{name}' is not the name of a file in that folder.")
        elif os.path.exists(self._target()) and not self.isFinished():
            errors.append(f"{self._target()} exists already; it is kept: give another name.")
        model = self.inModel.get()
        if model is not None and not os.path.exists(model.getPath()):
            errors.append(f"Model: its file {model.getPath()} does not exist.")
        return errors

    def _summary(self):
        if not self.isFinished():
            return ["Not exported yet."]
        return [f"Exported to {self._target()}", *self.inModel.get().describe()]

    def _citations(self):
        return citations_of(self.inModel.get())
