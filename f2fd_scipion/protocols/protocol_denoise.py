"""Denoise tomograms with a trained model."""
import logging
import os
import shutil
from enum import Enum

from pwem.convert.headers import setMRCSamplingRate
from pyworkflow.object import Set
from pyworkflow.protocol import STEPS_PARALLEL, PointerParam
from pyworkflow.utils import Message, cleanPath, makePath, redStr
from tomo.objects import SetOfTomograms, Tomogram

from f2fd_core.config import DenoiseConfig
from f2fd_scipion.engine import EngineError
from f2fd_scipion.protocols.protocol_base import ProtF2FdBase, half_maps, missing_files, volume_file

logger = logging.getLogger(__name__)

DENOISED = "_denoised.mrc"
SLICES = "_slices.png"
DEVIATION = "_std.mrc"
FAILED = "_failed.txt"


class F2FdDenoiseOutputs(Enum):
    tomograms = SetOfTomograms


class ProtF2FdDenoise(ProtF2FdBase):
    """Denoise tomograms with an F2Fd model, in their own intensity units.

    A tomogram that fails is reported with the reason and skipped; continuing the protocol tries
    the failed ones again and keeps what is finished.
    """
    _label = "denoise tomograms"
    _possibleOutputs = F2FdDenoiseOutputs
    stepsExecutionMode = STEPS_PARALLEL

    CONFIG = DenoiseConfig
    SUPPLIED = {
        "model": "the input model",
        "tomograms": "one tomogram of the input set at a time",
        "half_maps": "the tomogram's own, for a model that was trained on half-maps",
        "output": "a temporary folder; the results go to the extra folder, named by tsId",
        "voxel_size": "the input set's sampling rate",
        "resume": "always off: Scipion's steps skip what is finished",
        "overwrite": "always on: a step that runs again replaces its result",
        "device": "the choice between GPU and CPU",
        "threads": "the protocol's number of threads",
    }

    GPU_HELP = (ProtF2FdBase.GPU_HELP + " With more threads, several tomograms are denoised side "
                "by side, and the GPUs are divided among them: with 3 threads, one of which only "
                "hands out the work, two GPUs denoise a tomogram each.")

    # -------------------------- Form -----------------------------------------
    def _defineParams(self, form):
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam("inTomos", PointerParam, pointerClass="SetOfTomograms", important=True,
                      label="Tomograms", help="Tomograms to denoise, of any size.")
        form.addParam("inModel", PointerParam, pointerClass="F2FdModel", important=True,
                      label="Model", help="Model from 'train F2Fd' or 'import F2Fd model'. It fits "
                                          "tomograms that resemble those of its training.")
        self._addEngineParams(form)
        form.addParallelSection(threads=1, mpi=0, binThreads=4,
                                binThreadsHelp=self._threadsHelp())

    # -------------------------- Steps ----------------------------------------
    def _insertAllSteps(self):
        for path in self._failureFiles():
            cleanPath(path)  # without its result file the step of a failed tomogram runs again
        steps = []
        for tomogram in self.inTomos.get():
            settings = self._configure(self._supply(tomogram)).to_dict()
            steps.append(self._insertFunctionStep(self.denoiseStep, tomogram.getTsId(), settings,
                                                  prerequisites=[], needsGPU=self.usesGpu()))
        self._insertFunctionStep(self.closeStep, prerequisites=steps, needsGPU=False)

    def denoiseStep(self, tsId, settings):
        """Denoise one tomogram and add it to the output; a failure is recorded.

        Returns the file whose presence tells that this was done: the denoised tomogram, or the
        reason for which there is none.
        """
        try:
            self._denoise(tsId, DenoiseConfig.create(settings))
            self._register(tsId)
            return [self._getExtraPath(tsId + DENOISED)]
        except Exception as error:
            # Whatever stopped this tomogram must not stop the others: it is told in the log, in
            # the summary and, when none came out, by the protocol's failure.
            logger.error(redStr("Tomogram %s failed: %s" % (tsId, error)),
                         exc_info=not isinstance(error, EngineError))
            path = self._getExtraPath(tsId + FAILED)
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(str(error))
            return [path]

    def closeStep(self):
        """Close the output. Returns the files on failures, so that it runs again with those."""
        if not self.getDenoised():
            raise EngineError("No tomogram could be denoised. %s" % " ".join(
                "%s: %s." % item for item in self._failures().items()))
        self._closeOutputSet()
        return self._failureFiles()

    def _denoise(self, tsId, config):
        """Run the engine and give its files, named by the input file, names by tsId."""
        tomogram = config.tomograms[0]
        inputs = config.half_maps or config.tomograms
        makePath(config.output)
        self._runEngine("denoise", config, os.path.join(config.output, "denoise.json"),
                        about=inputs)
        stem = os.path.splitext(os.path.basename(tomogram))[0]
        for ending in [DENOISED, SLICES] + ([DEVIATION] if config.std else []):
            result = self._getExtraPath(tsId + ending)
            shutil.move(os.path.join(config.output, stem + ending), result)
            if ending.endswith(".mrc"):
                setMRCSamplingRate(result, config.voxel_size)

    def _register(self, tsId):
        """Add the denoised tomogram to the output set, once."""
        with self._lock:
            if tsId in self.getDenoised():
                return
            source = self.inTomos.get().getItem(Tomogram.TS_ID_FIELD, tsId)
            tomogram = Tomogram()
            tomogram.copyInfo(source)
            tomogram.setLocation(self._getExtraPath(tsId + DENOISED))
            tomogram.setHalfMaps([])
            tomograms = self._outputSet()
            tomograms.append(tomogram)
            tomograms.update(tomogram)
            tomograms.write()
            self._store(tomograms)

    def getDenoised(self):
        """The tsIds of the output."""
        tomograms = getattr(self, F2FdDenoiseOutputs.tomograms.name, None)
        return tomograms.getTSIds() if tomograms is not None and tomograms.getSize() else []

    def _outputSet(self):
        """The output set, opened for more, or a new one."""
        name = F2FdDenoiseOutputs.tomograms.name
        tomograms = getattr(self, name, None)
        if tomograms is not None:
            tomograms.enableAppend()
            tomograms.setStreamState(Set.STREAM_OPEN)
            return tomograms
        tomograms = SetOfTomograms.create(self._getPath(), template="tomograms%s.sqlite")
        tomograms.copyInfo(self.inTomos.get())
        tomograms.setStreamState(Set.STREAM_OPEN)
        self._defineOutputs(**{name: tomograms})
        self._defineSourceRelation(self.inTomos, tomograms)
        self._defineSourceRelation(self.inModel, tomograms)
        return tomograms

    # -------------------------- Values for the engine ------------------------
    def _supply(self, tomogram=None):
        tomograms = self.inTomos.get()
        tomogram = tomogram or tomograms.getFirstItem()
        return {
            "model": self.inModel.get().getPath(),
            "tomograms": [volume_file(tomogram)],
            "half_maps": half_maps(tomogram) if self._usesHalves() else [],
            "output": self._getTmpPath(tomogram.getTsId()),
            "voxel_size": tomograms.getSamplingRate(),
            "resume": False,
            "overwrite": True,
            "device": self._device(),
            "threads": self.binThreads.get(),
        }

    def _usesHalves(self):
        return self.inModel.get().getTrainConfig().perturbation == "halves"

    # -------------------------- Information ----------------------------------
    def _failureFiles(self):
        folder = self._getExtraPath()
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        return [os.path.join(folder, name) for name in names if name.endswith(FAILED)]

    def _failures(self):
        """{tsId: reason} of the tomograms that failed."""
        reasons = {}
        for path in self._failureFiles():
            with open(path, encoding="utf-8") as stream:
                reasons[os.path.basename(path)[:-len(FAILED)]] = stream.read()
        return reasons

    def _checkSettings(self, config):
        config.for_model(self.inModel.get().getTrainConfig())

    def _inputErrors(self):
        errors = missing_files(self.inTomos.get(), "Tomograms", halves=self._usesHalves())
        path = self.inModel.get().getPath()
        if not os.path.exists(path):
            errors.append("Model: its file %s is not there." % path)
        return errors

    def _warnings(self):
        warnings = super()._warnings()
        tomograms, trained = self.inTomos.get(), self.inModel.get().getSamplingRate()
        if trained and abs(tomograms.getSamplingRate() / trained - 1) > 0.1:
            warnings.append("The tomograms have %.2f Å/px, but the model was trained at %.2f Å/px: "
                            "results may suffer." % (tomograms.getSamplingRate(), trained))
        return warnings

    def _summary(self):
        failures = ["*%s failed*: %s" % item for item in self._failures().items()]
        count = len(self.getDenoised())
        if not count:
            return ["No tomogram yet."] + failures
        return ["Denoised *%d* of *%d* tomograms." % (count, self.inTomos.get().getSize()),
                "Model: %s" % self.inModel.get()] + failures

    def _methods(self):
        count = len(self.getDenoised())
        if not count:
            return []
        return ["%d tomograms were denoised with F2Fd, method %s, %d training steps."
                % (count, self.inModel.get().getMethod(), self.inModel.get().getSteps())]

    def _citations(self):
        return ["F2Fd", "Lehtinen2018", "Pang2021", "Quan2020"]
