"""Train a model on one or several tomograms."""
import os
from enum import Enum

from pyworkflow.protocol import LEVEL_ADVANCED, PointerParam
from pyworkflow.utils import Message

from f2fd_core.config import TrainConfig
from f2fd_scipion import engine
from f2fd_scipion.objects import F2FdModel
from f2fd_scipion.protocols.protocol_base import ProtF2FdBase, half_maps, missing_files, volume_file

MODEL_FILE = "model.pt"
CONFIG_FILE = "train.json"


class F2FdTrainOutputs(Enum):
    model = F2FdModel


class ProtF2FdTrain(ProtF2FdBase):
    """Train an F2Fd model on tomograms.

    No half-maps or tilt series are needed: pairs of noisy copies are made from each reconstructed
    tomogram, and a network learns to predict one from the other. The model then denoises these
    and similar tomograms with 'denoise tomograms'.
    """
    _label = "train F2Fd"
    _possibleOutputs = F2FdTrainOutputs

    CONFIG = TrainConfig
    SUPPLIED = {
        "tomograms": "the input set of tomograms",
        "output": "the protocol's extra folder",
        "ground_truth": "the set of noise-free tomograms, matched by tsId",
        "half_maps": "those of the input set, for the perturbation 'halves'",
        "initial_model": "the initial model, if one is chosen",
        "voxel_size": "the input set's sampling rate",
        "resume": "always on: continuing the protocol continues its training",
        "overwrite": "always off: Scipion empties the run's folder on restart",
        "device": "the choice between GPU and CPU",
        "threads": "the protocol's number of threads",
    }

    # -------------------------- Form -----------------------------------------
    def _defineParams(self, form):
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam("inTomos", PointerParam, pointerClass="SetOfTomograms", important=True,
                      label="Tomograms",
                      help="Tomograms to train on, of any and also of different sizes. A few "
                           "typical ones suffice for a whole data set.")
        form.addParam("groundTruth", PointerParam, pointerClass="SetOfTomograms", allowsNull=True,
                      expertLevel=LEVEL_ADVANCED, label="Noise-free tomograms",
                      help="For simulated data: the noise-free tomograms, matched by tsId. They "
                           "are used for the scores in the log (SSIM, PSNR), never for training.")
        form.addParam("initialModel", PointerParam, pointerClass="F2FdModel", allowsNull=True,
                      expertLevel=LEVEL_ADVANCED, label="Initial model",
                      help="Start from this model, made on similar tomograms, instead of from "
                           "random weights. The network must be the same.")
        self._addEngineParams(form)
        form.addParallelSection(threads=4, mpi=0, binThreadsHelp=self._threadsHelp())

    # -------------------------- Steps ----------------------------------------
    def _insertAllSteps(self):
        # The settings are an argument, so that continuing with others trains on.
        self._insertFunctionStep(self.trainStep, self._configure(self._supply()).to_dict())

    def trainStep(self, settings):
        """Train, or continue from the newest checkpoint, and hand out the model.

        ``settings`` are the fields of a TrainConfig.
        """
        self._runEngine("train", TrainConfig.create(settings), self._getExtraPath(CONFIG_FILE))
        path = self._getExtraPath(MODEL_FILE)
        model = F2FdModel(path=path)
        model.setInfo(engine.describe(self, path, self._getExtraPath()))
        self._defineOutputs(**{F2FdTrainOutputs.model.name: model})
        self._defineSourceRelation(self.inTomos, model)
        return [path]

    def _usesHalves(self):
        # A preset that sets the perturbation hides what was chosen before.
        return (self.evalParamCondition("perturbation")
                and self.getEnumText("perturbation") == "halves")

    # -------------------------- Values for the engine ------------------------
    def _supply(self):
        tomograms = self.inTomos.get()
        files = {tomogram.getTsId(): volume_file(tomogram) for tomogram in tomograms}
        halves = [path for tomogram in tomograms if self._usesHalves()
                  for path in half_maps(tomogram)]
        truths = {truth.getTsId(): volume_file(truth) for truth in self.groundTruth.get() or ()}
        return {
            "tomograms": list(files.values()),
            "output": self._getExtraPath(),
            "ground_truth": [truths[tsId] for tsId in files] if truths else [],
            "half_maps": halves,
            "initial_model": self.initialModel.get().getPath() if self.initialModel.get() else "",
            "voxel_size": tomograms.getSamplingRate(),
            "resume": True,
            "overwrite": False,
            "device": self._device(),
            "threads": self.numberOfThreads.get(),
        }

    # -------------------------- Information ----------------------------------
    def _checkSettings(self, config):
        if self.usesGpu():
            config.check_devices(len(self.getGpuList()))

    def _inputErrors(self):
        tomograms, truths = self.inTomos.get(), self.groundTruth.get()
        errors = missing_files(tomograms, "Tomograms", halves=self._usesHalves())
        initial = self.initialModel.get()
        if initial is not None and not os.path.exists(initial.getPath()):
            errors.append("Initial model: its file %s is not there." % initial.getPath())
        if truths is not None:
            errors += missing_files(truths, "Noise-free tomograms")
            without = sorted(set(tomograms.getTSIds()) - set(truths.getTSIds()))
            if without:
                errors.append("Noise-free tomograms: there is none for %s." % ", ".join(without))
        return errors

    def _summary(self):
        model = getattr(self, F2FdTrainOutputs.model.name, None)
        if model is None:
            return ["No model yet."]
        return ["Method: *%s*" % model.getMethod(),
                "Training steps: *%d*, patches of *%d* voxels" % (model.getSteps(),
                                                                  model.getPatchSize()),
                "Tomograms: *%d* at *%.2f* Å/px" % (self.inTomos.get().getSize(),
                                                    model.getSamplingRate()),
                "'Analyze results' shows the loss and slices before and after denoising."]

    def _methods(self):
        model = getattr(self, F2FdTrainOutputs.model.name, None)
        if model is None:
            return []
        return ["A denoising model was trained with F2Fd, method %s, on %d tomograms at %.2f Å/px "
                "in %d steps." % (model.getMethod(), self.inTomos.get().getSize(),
                                  model.getSamplingRate(), model.getSteps())]

    def _citations(self):
        return ["F2Fd", "Lehtinen2018", "Pang2021", "Quan2020"]
