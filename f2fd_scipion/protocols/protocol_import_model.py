"""Import a model that was trained elsewhere."""

import os
import shutil
from enum import Enum

from pwem.protocols import EMProtocol
from pyworkflow import BETA
from pyworkflow.protocol import PathParam
from pyworkflow.utils import Message

from f2fd_core.config import PRETRAINED
from f2fd_scipion import engine
from f2fd_scipion.objects import F2FdModel, citations_of


class F2FdImportOutputs(Enum):
    model = F2FdModel


class ProtF2FdImportModel(EMProtocol):
    """Import an F2Fd model: model.pt or a checkpoint, from 'f2fd train' or another project."""

    _label = "import F2Fd model"
    _devStatus = BETA
    _possibleOutputs = F2FdImportOutputs

    def _defineParams(self, form):
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam(
            "filePath",
            PathParam,
            label="Model file",
            important=True,
            help="File written by a training of F2Fd: model.pt or one in the folder checkpoints. "
            "Or the word pretrained: the weights that come with F2Fd, as they are. The file is "
            "checked and copied into the project.",
        )

    def _insertAllSteps(self):
        self._insertFunctionStep(self.importStep, self._path(), needsGPU=False)

    def importStep(self, path):
        info = engine.describe(path)
        copy = self._getExtraPath(os.path.basename(path))
        shutil.copyfile(path, copy)
        model = F2FdModel(path=copy)
        model.setInfo(info)
        self._defineOutputs(**{F2FdImportOutputs.model.name: model})

    def _path(self):
        """The model file as it was typed or chosen, without blanks around it."""
        path = self.filePath.get("").strip()
        return PRETRAINED if path == "pretrained" and not os.path.exists(path) else path

    def _validate(self):
        if not os.path.isfile(self._path()):
            return [f"Model file: '{self._path()}' is not a file."]
        problem = engine.problem()
        return [problem] if problem else []

    def _summary(self):
        model = getattr(self, F2FdImportOutputs.model.name, None)
        if model is None:
            return ["No model yet."]
        return [f"Imported from {self._path()}", *model.describe()]

    def _citations(self):
        return citations_of(getattr(self, F2FdImportOutputs.model.name, None))
