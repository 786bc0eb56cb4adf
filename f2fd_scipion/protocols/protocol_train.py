"""Train a model on one or several tomograms."""

import logging
import os
import re
from enum import Enum

import numpy as np
from pyworkflow.protocol import LEVEL_ADVANCED, MODE_RESUME, BooleanParam, PointerParam
from pyworkflow.utils import Message
from tomo.objects import SetOfTomoMasks, TomoMask

import f2fd_scipion
from f2fd_core.config import TrainConfig, UserError, recorded
from f2fd_core.runtime import console, train_log
from f2fd_core.runtime.run_folder import MASKS, ROUNDS, check_settings, wedge_folder
from f2fd_scipion import engine
from f2fd_scipion.objects import F2FdModel, citations, citations_of
from f2fd_scipion.protocols.protocol_base import (
    ProtF2FdBase,
    half_maps,
    missing_files,
    repeated,
    thin,
    tomograms_of,
    volume_file,
    without_partner,
)

logger = logging.getLogger(__name__)

MODEL_FILE = "model.pt"
CONFIG_FILE = "train.json"
LOG_FILE = "log.csv"
STOP_FILE = "stop"
HALVES = "the perturbation 'noise2noise'"
FILLING = (
    "A second network learned to fill the missing wedge from the denoised tomograms, rotated by 90 "
    "degrees about the tilt axis."
)
UNFILLED = (
    "It can't fill the missing wedge: the training was ended before it learned that. Continue the "
    "protocol with another number of training steps to go on."
)
CHECKPOINTS = "checkpoints"
CHECKPOINT = r"step_\d+\.pt"


class F2FdTrainOutputs(Enum):
    model = F2FdModel
    specimenMasks = SetOfTomoMasks


class ProtF2FdTrain(ProtF2FdBase):
    """Train an F2Fd model on tomograms.

    No half-maps or tilt series are needed: pairs of noisy copies are made from each reconstructed
    tomogram, and a network learns to predict one from the other. Where every tomogram of the set
    has half-maps they are used by themselves: they give the noise. The model then denoises these
    and similar tomograms with 'denoise tomograms'.
    """

    _label = "train F2Fd"
    _possibleOutputs = F2FdTrainOutputs

    CONFIG = TrainConfig
    SUPPLIED = {
        "tomograms": "the input set of tomograms",
        "output": "the protocol's extra folder",
        "ground_truth": "the set of noise-free tomograms, matched by tsId",
        "sampling_masks": "the set of masks, matched by tsId, or 'Find the specimen'",
        "half_maps": "those of the input set, if 'Use half-maps' is 'Yes' and every tomogram has "
        "them",
        "initial_model": "the initial model, if one is chosen",
        "voxel_size": "the input set's sampling rate",
        "resume": "always on: continuing the protocol continues its training",
        "overwrite": "always off: Scipion empties the run's folder on restart",
        "device": "the choice between GPU and CPU",
        "threads": "the protocol's number of threads",
        "ctf": "the CTFs, by tsId",
        "voltage": "the acquisition",
        "spherical_aberration": "the acquisition",
        "amplitude_contrast": "the acquisition",
    }
    INSTEAD = {"start": "initialModel", "defocus": "inCtfs", "phase_shift": "inCtfs"}

    @property
    def noise_gain(self):
        """What projects of version 1.1 store ``noise_profile`` as: Scipion fills the object that
        it finds under the stored name."""
        return self.noise_profile

    # -------------------------- Form -----------------------------------------
    def _defineParams(self, form):
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam(
            "inTomos",
            PointerParam,
            pointerClass="SetOfTomograms, Tomogram",
            important=True,
            label="Tomograms",
            help="Tomograms to train on: a set, a subset or a single one. Their sizes may differ. "
            "A few typical ones suffice for a whole data set.",
        )
        form.addParam(
            "useHalfMaps",
            BooleanParam,
            default=True,
            label="Use half-maps",
            help="How half-maps (odd and even) are used, if every tomogram has them.\n"
            "Yes: the noise is measured from their difference, unless they differ by more than "
            "noise, as those of odd and even tilts of a thick specimen do (the log says so); with "
            "the perturbation 'noise2noise' the network learns to predict one from the other.\n"
            "No: they are ignored, and the noise is estimated from the tomograms.",
        )
        form.addParam(
            "masks",
            PointerParam,
            pointerClass="SetOfTomoMasks",
            allowsNull=True,
            expertLevel=LEVEL_ADVANCED,
            label="Sampling masks",
            help="Train only on patches of which at least a twentieth is inside these masks "
            "(above 0.5), matched by tsId. This keeps empty regions out of the training.",
        )
        form.addParam(
            "findSpecimen",
            BooleanParam,
            default=False,
            expertLevel=LEVEL_ADVANCED,
            label="Find the specimen",
            help="Find the slab of each tomogram that contains the specimen, by its contrast, and "
            "train only there: for tomograms that are empty above and below it. The masks are an "
            "output; a tomogram in which no slab stands out has none.",
        )
        form.addParam(
            "groundTruth",
            PointerParam,
            pointerClass="SetOfTomograms",
            allowsNull=True,
            expertLevel=LEVEL_ADVANCED,
            label="Noise-free tomograms",
            help="For simulated data: the noise-free tomograms, matched by tsId. They "
            "are used for the scores in the log (SSIM, PSNR), never for training.",
        )
        form.addParam(
            "initialModel",
            PointerParam,
            pointerClass="F2FdModel",
            allowsNull=True,
            expertLevel=LEVEL_ADVANCED,
            label="Initial model",
            help="Start from the weights of this model, trained on similar tomograms, instead of "
            "the 'Starting weights'. The network must be the same.",
        )
        self._addCtfs(
            form,
            "'Deconvolve first' takes each tomogram's defocus and phase shift from them (medians "
            "over its images).",
            expertLevel=LEVEL_ADVANCED,
        )
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
        path = self._getExtraPath(MODEL_FILE)
        self._writeCtfs(tomograms_of(self.inTomos.get()))
        self._runEngine(
            "train", TrainConfig.create(settings), self._getExtraPath(CONFIG_FILE), path
        )
        self._registerModel(path)
        self._registerMasks()
        return [path]

    def _registerModel(self, path):
        model = F2FdModel(path=path)
        model.setInfo(engine.describe(path))
        self._defineOutputs(**{F2FdTrainOutputs.model.name: model})
        self._defineSourceRelation(self.inTomos, model)

    def _registerMasks(self):
        """Hand out the masks of the specimens that the engine has found, named by the tomograms'
        numbers."""
        folder = self._getExtraPath(MASKS)
        if not os.path.isdir(folder):
            return
        paths = {
            int(name.split("_")[0]): os.path.join(folder, name)
            for name in os.listdir(folder)
            if name.endswith(".mrc")
        }
        masks = SetOfTomoMasks.create(self._getPath())
        masks.setSamplingRate(self.inTomos.get().getSamplingRate())
        for number, tomogram in enumerate(tomograms_of(self.inTomos.get()), 1):
            if number in paths:
                mask = TomoMask()
                mask.copyInfo(tomogram)
                mask.setHalfMaps([])
                mask.setLocation(paths[number])
                mask.setVolName(volume_file(tomogram))
                masks.append(mask)
        self._defineOutputs(**{F2FdTrainOutputs.specimenMasks.name: masks})
        self._defineSourceRelation(self.inTomos, masks)

    # -------------------------- Stopping -------------------------------------
    def finishNow(self):
        """Let a training end after its present step, with the model that it has, and with what it
        has learned of the missing wedge."""
        with open(self._getExtraPath(STOP_FILE), "w"):
            pass

    def running(self):
        """What of a training is running, by the newest log: (0, its folder) for the training itself
        or, where it learns to fill the missing wedge, the round's number and folder."""
        folders = [self._getExtraPath()]
        folders += [wedge_folder(folders[0], number) for number in range(1, ROUNDS + 1)]
        logs = [os.path.join(folder, LOG_FILE) for folder in folders]
        written = [os.stat(path).st_mtime_ns if os.path.exists(path) else 0 for path in logs]
        number = written.index(max(written))
        return number, folders[number]

    def newestCheckpoint(self):
        """Path of the newest checkpoint, or None."""
        folder = self._getExtraPath(CHECKPOINTS)
        names = sorted(
            name
            for name in (os.listdir(folder) if os.path.isdir(folder) else ())
            if re.fullmatch(CHECKPOINT, name)
        )
        return os.path.join(folder, names[-1]) if names else None

    def setAborted(self):
        """Scipion's 'Stop': the newest checkpoint is handed out as the model."""
        super().setAborted()
        path = self.newestCheckpoint()
        if path is None:
            return
        try:
            self._registerModel(path)
        except engine.EngineError as error:
            logger.warning("The newest checkpoint can't be used as a model: %s", error)

    def _usesHalves(self):
        # A preset that sets the perturbation hides what was chosen before.
        return self._perturbation() == "noise2noise"

    def _perturbation(self):
        return (
            self.getEnumText("perturbation")
            if self.evalParamCondition("perturbation")
            else "fourier_masks"
        )

    def _halfMaps(self, tomograms):
        """The half-maps to learn from, if they are to be used: needed for 'noise2noise', and used
        by 'noise_matched' if all are there."""
        if not self.useHalfMaps:
            return []
        found = [half_maps(tomogram) for tomogram in tomograms]
        complete = all(len(pair) == 2 and all(map(os.path.exists, pair)) for pair in found)
        wanted = self._usesHalves() or self._perturbation() == "noise_matched" and complete
        return [path for pair in found for path in pair] if wanted else []

    # -------------------------- Values for the engine ------------------------
    def _supply(self):
        tomograms = tomograms_of(self.inTomos.get())
        return {
            "tomograms": [volume_file(tomogram) for tomogram in tomograms],
            "output": self._getExtraPath(),
            "ground_truth": self._matching(self.groundTruth),
            "sampling_masks": ["auto"] if self.findSpecimen else self._matching(self.masks),
            "half_maps": self._halfMaps(tomograms),
            "initial_model": self.initialModel.get().getPath() if self.initialModel.get() else "",
            "voxel_size": self.inTomos.get().getSamplingRate(),
            "resume": True,
            "overwrite": False,
            "device": self._device(),
            "threads": self.numberOfThreads.get(),
            "ctf": self._ctfTable(tomograms)[0],
            **self._optics(),
        }

    def _matching(self, pointer):
        """The files of a set in the order of the tomograms with the same tsIds; [] without one."""
        if pointer.get() is None:
            return []
        files = {item.getTsId(): volume_file(item) for item in pointer.get()}
        return [files[tomogram.getTsId()] for tomogram in tomograms_of(self.inTomos.get())]

    # -------------------------- Information ----------------------------------
    def _checkSettings(self, config):
        if self.usesGpu():
            config.check_devices(len(self.getGpuList()))
        if self.runMode.get() == MODE_RESUME and self.newestCheckpoint():
            earlier = TrainConfig.create({}, recorded(self._getExtraPath()))
            try:
                check_settings(earlier, config, self._getExtraPath(CONFIG_FILE))
            except UserError as error:
                raise UserError(f"{error}; or choose 'Restart' to train again")

    def _inputErrors(self):
        tomograms = tomograms_of(self.inTomos.get())
        errors = missing_files(tomograms, "Tomograms", halves=HALVES if self._usesHalves() else "")
        errors += thin(tomograms, "Tomograms")
        if self._usesHalves() and not self.useHalfMaps:
            errors.append(
                f"Use half-maps is 'No', but {HALVES} needs them; choose 'Yes' or "
                "another perturbation."
            )
        initial = self.initialModel.get()
        if initial is not None and not os.path.exists(initial.getPath()):
            errors.append(f"Initial model: its file {initial.getPath()} does not exist.")
        if self.inCtfs.get() is not None and not self.deconvolve:
            errors.append(
                "CTFs: they are for the deconvolution, but 'Deconvolve first' is 'No'; "
                "choose 'Yes' or no CTFs."
            )
        if self.findSpecimen and self.masks.get() is not None:
            errors.append("Find the specimen is 'Yes' with 'Sampling masks'; choose one of them.")
        errors += self._ctfErrors(tomograms)
        tsIds = {tomogram.getTsId() for tomogram in tomograms}
        if self.groundTruth.get() or self.masks.get():
            errors += repeated(tomograms, "Tomograms")
        return (
            errors
            + without_partner(tsIds, self.groundTruth.get(), "Noise-free tomograms")
            + without_partner(tsIds, self.masks.get(), "Sampling masks")
        )

    def _warnings(self):
        return super()._warnings() + self._deconvolutionWarnings()

    def _summary(self):
        model = getattr(self, F2FdTrainOutputs.model.name, None)
        if self.isActive():
            return self._progress()
        if model is None:
            return ["No model yet."]
        lacking = self.fill_wedge and not model.fillsWedge()
        return (
            model.describe()
            + ([UNFILLED] if lacking else [])
            + [
                "'Analyze results' shows the course of the training and slices before and after "
                "denoising."
            ]
        )

    def _progress(self):
        """How far the training is, by its logs."""
        number, folder = self.running()
        try:
            rows, latest = (
                train_log.read_log(os.path.join(each, LOG_FILE))
                for each in (self._getExtraPath(), folder)
            )
        except UserError as error:
            return [f"{error}."]
        if not latest:
            return ["No training step yet."]
        left = console.duration(train_log.column(latest, "seconds_left")[-1])
        shown = [f"Training step *{int(latest[-1]['step']) + 1}*, at most *{left}* left."]
        if number:
            shown.insert(0, f"Learning to fill the missing wedge: round *{number}* of *{ROUNDS}*.")
        elif self.fill_wedge:
            shown.append("Then it learns to fill the missing wedge, which takes twice as long.")
        explained = train_log.signal_explained(rows)
        return shown + [
            f"The network explains *{100 * share:.0f} %* of the signal."
            for share in explained[np.isfinite(explained)][-1:]
        ]

    def _methods(self):
        model = getattr(self, F2FdTrainOutputs.model.name, None)
        if model is None:
            return []
        config = model.getTrainConfig()
        return [
            f"A denoising model was trained with F2Fd, version {f2fd_scipion.__version__}, on "
            f"{len(config.names())} "
            f"{('tomogram' if len(config.names()) == 1 else 'tomograms')} at "
            f"{model.getSamplingRate():.2f} Å/px: method {model.getMethod()}, "
            f"{model.getSteps()} steps of {config.batch_size} patches of {config.patch_size} "
            f"voxels a side, optimizer {config.optimizer} with a learning rate of "
            f"{config.learning_rate:g}, starting from {self._origin()}."
        ] + ([FILLING] if model.fillsWedge() else [])

    def _origin(self):
        """What the training started from, and what the initial model had started from."""
        initial = self.initialModel.get()
        origin = self.model.getTrainConfig().origin()
        return (
            origin
            if initial is None
            else (f"{origin}, which had started from {initial.getTrainConfig().origin()}")
        )

    def _citations(self):
        made = getattr(self, F2FdTrainOutputs.model.name, None)
        if made is not None:
            return citations_of(made, self.fill_wedge.get())
        return citations(self._perturbation(), self.deconvolve.get(), self.fill_wedge.get())
