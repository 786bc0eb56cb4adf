"""What the protocols that make a new tomogram of each input one share."""

import json
import logging
import os
import shutil
from datetime import datetime

from pwem.convert.headers import setMRCSamplingRate
from pyworkflow.object import Set
from pyworkflow.protocol import LEVEL_ADVANCED, PointerParam, ProtStreamingBase
from pyworkflow.utils import Message, cleanPath, makePath, redStr
from tomo.objects import SetOfTomograms, Tomogram

from f2fd_core.config import UserError, read_json
from f2fd_core.runtime.files import DEVIATION, FILLED, fingerprint, replaced, stem
from f2fd_scipion.engine import EngineError
from f2fd_scipion.protocols.protocol_base import (
    ProtF2FdBase,
    missing_files,
    repeated,
    thin,
    volume_file,
)

logger = logging.getLogger(__name__)

FAILED = "_failed.txt"
RECORD = "_settings.json"
TOMOGRAMS = "tomograms"
FAILED_TOMOGRAMS = "failedTomograms"
FILLED_TOMOGRAMS = "filledTomograms"
STREAM_STATE = "_streamState"
RUN_ONLY = ("device", "threads", "batch_size", "compile", "output", "overwrite", "resume")
"""Settings on which no result depends."""


class ProtF2FdTomograms(ProtF2FdBase, ProtStreamingBase):
    """A protocol with a step for each tomogram of a set, which may still be growing.

    A tomogram that fails is reported with the reason and skipped; continuing the protocol tries
    the failed ones again and keeps what is finished and was made with the same settings, which is
    kept in a record of its own: Scipion compares steps by their places, which a growing set and
    failures shift. Subclasses set ``ENDING``, that of the new tomogram's file, ``OTHERS``, those
    of all files that may come with it, and ``CORRECTS_CTF``, whether it corrects for the contrast
    transfer function, and define ``_make`` and ``_supply``.
    """

    _possibleOutputs = {TOMOGRAMS: SetOfTomograms, FAILED_TOMOGRAMS: SetOfTomograms}
    ENDING = ""
    OTHERS = ()
    CORRECTS_CTF = False

    # -------------------------- Form -----------------------------------------
    def _addTomograms(self, form, help):
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam(
            "inTomos",
            PointerParam,
            pointerClass="SetOfTomograms",
            important=True,
            label="Tomograms",
            help=help + " The set may still be growing: tomograms are processed as they arrive.",
        )

    # EMProtocol has others, of its older way of streaming.
    _defineStreamingParams = ProtStreamingBase._defineStreamingParams

    def _addThreads(self, form):
        self._defineStreamingParams(form)
        # One hands out the work, one waits for new tomograms and one makes them.
        form.addParallelSection(threads=3, mpi=0, binThreads=4, binThreadsHelp=self._threadsHelp())

    def _getStreamingSleepOnWait(self):
        return max(1, super()._getStreamingSleepOnWait())  # 0 would look without a pause

    # -------------------------- Steps ----------------------------------------
    def _insertAllSteps(self):
        for path in self._failureFiles():
            cleanPath(path)
        if FILLED_TOMOGRAMS not in self._made():
            self._drop(FILLED_TOMOGRAMS)
        self._dropUnfinished()
        if self.inTomos.get().isStreamOpen():
            super()._insertAllSteps()
        else:
            self._insertClosing(self._insertNew(set(self.getDone())))

    def _dropUnfinished(self):
        """Leave in the outputs only what is in all of them, is there and was made with the settings
        of now."""
        found = {
            name: {tomogram.getTsId(): tomogram.clone() for tomogram in getattr(self, name, ())}
            for name in self._made()
        }
        done = set.intersection(*map(set, found.values()))
        kept = {
            tomogram.getTsId()
            for tomogram in self.inTomos.get()
            if tomogram.getTsId() in done
            and all(
                os.path.exists(volume_file(tomograms[tomogram.getTsId()]))
                for tomograms in found.values()
            )
            and self._recorded(tomogram.getTsId()) == self._asked(self._settings(tomogram))
        }
        for name, tomograms in found.items():
            if set(tomograms) - kept:
                self._renew(name, [tomograms[tsId] for tsId in tomograms if tsId in kept])

    def _settings(self, tomogram):
        """The fields of the engine's configuration for a tomogram."""
        return self._configure(self._supply(tomogram)).to_dict()

    def _asked(self, settings):
        """Those settings on which a tomogram's result depends."""
        return {name: value for name, value in settings.items() if name not in RUN_ONLY}

    def _recorded(self, tsId):
        """What was asked for when the tomogram was made; None if it wasn't."""
        path = self._getExtraPath(tsId + RECORD)
        return read_json(path) if os.path.exists(path) else None

    def _record(self, tsId, settings):
        with replaced(self._getExtraPath(tsId + RECORD)) as path, open(
            path, "w", encoding="utf-8"
        ) as stream:
            json.dump(self._asked(settings), stream)

    def stepsGeneratorStep(self):
        """Insert a step for each tomogram when it comes, until the input set is closed."""
        tomograms, taken, steps = self.inTomos.get(), set(self.getDone()), []
        while True:
            with self._lock:
                if tomograms.hasProperty(STREAM_STATE):  # not before its first tomogram
                    tomograms.loadAllProperties()
                closed = not tomograms.isStreamOpen()  # read first: nothing comes after it
            steps += self._insertNew(taken)
            if closed:
                self._insertClosing(steps)
                return
            self._streamingSleepOnWait()

    def _insertNew(self, taken):
        """Insert a step for each tomogram whose tsId is not yet ``taken``; returns the steps."""
        with self._lock:
            new = [
                tomogram.clone()
                for tomogram in self.inTomos.get()
                if tomogram.getTsId() not in taken
            ]
        taken.update(tomogram.getTsId() for tomogram in new)
        return [
            self._insertFunctionStep(
                self.tomogramStep,
                tomogram.getTsId(),
                str(datetime.now()),
                prerequisites=[],
                needsGPU=self.usesGpu(),
            )
            for tomogram in new
        ]

    def _insertClosing(self, steps):
        self._insertFunctionStep(
            self.closeStep, str(datetime.now()), prerequisites=steps, needsGPU=False
        )

    def tomogramStep(self, tsId, inserted):
        """Make one tomogram and add it to the output; a failure is recorded.

        ``inserted``: the time, so that Scipion never takes the step for one that was done.
        """
        try:
            for ending in (self.ENDING, RECORD, *self.OTHERS):
                cleanPath(self._getExtraPath(tsId + ending))
            with self._lock:  # The steps of several threads read the sets through one cursor.
                source = self.inTomos.get().getItem(Tomogram.TS_ID_FIELD, tsId)
                settings = self._settings(source)
            if settings["ctf"]:
                self._writeCtfs([source])
            halves = self._make(tsId, self.CONFIG.create(settings), source)
            self._record(tsId, settings)
            self._register(tsId, source, halves)
        except Exception as error:
            # Whatever stopped this tomogram must not stop the others: it is reported in the log, in
            # the summary and, when none came out, by the protocol's failure.
            logger.error(
                redStr(f"Tomogram {tsId} failed: {error}"),
                exc_info=not isinstance(error, (EngineError, UserError)),
            )
            with open(self._getExtraPath(tsId + FAILED), "w", encoding="utf-8") as stream:
                stream.write(str(error))

    def closeStep(self, inserted):
        """Close the outputs; ``inserted`` is that of the other steps."""
        self._registerFailed()
        if not self.getDone():
            raise EngineError(
                "No tomogram was produced. "
                + " ".join(f"{tsId}: {reason}." for tsId, reason in self._failures().items())
            )
        self._closeOutputSet()

    def _make(self, tsId, config, source):
        """Run the engine with its configuration for the tomogram ``source``.

        Returns the files of the new tomogram's half-maps, odd and even, or nothing.
        """
        raise NotImplementedError

    def _runFor(self, name, tsId, config, endings):
        """Run the engine's command and give its files, named by the input file, names by tsId.

        ``endings``: {of the engine's files that are kept: of their new names}; the first is
        always there, others may be.
        """
        inputs = (getattr(config, "half_maps", ()) or ()) + config.tomograms
        made = {
            os.path.join(config.output, stem(config.tomograms[0]) + ending): self._getExtraPath(
                tsId + own
            )
            for ending, own in endings.items()
        }
        makePath(config.output)
        self._runEngine(
            name,
            config,
            os.path.join(config.output, name + ".json"),
            next(iter(made)),
            about=inputs,
        )
        for path, result in made.items():
            if not os.path.exists(path):
                continue
            shutil.move(path, result)
            if result.endswith(".mrc"):
                setMRCSamplingRate(result, config.voxel_size)

    # -------------------------- Outputs --------------------------------------
    def _made(self):
        """{output set: ending of its tomograms' files}."""
        return {TOMOGRAMS: self.ENDING}

    def _register(self, tsId, source, halves):
        """Add the new tomogram to the output sets; its half-maps, if any, go with the first."""
        with self._lock:
            for name, ending in self._made().items():
                tomogram = Tomogram()
                tomogram.copyInfo(source)
                tomogram.setLocation(self._getExtraPath(tsId + ending))
                tomogram.setHalfMaps((name == TOMOGRAMS and halves) or [])
                tomogram.setCtfCorrected(source.ctfCorrected() or self.CORRECTS_CTF)
                tomograms = self._outputSet(name)
                tomograms.append(tomogram)
                tomograms.update(tomogram)
                tomograms.write()
                self._store(tomograms)

    def _registerFailed(self):
        """Renew the set of input tomograms of which nothing came out; without any there is none."""
        failures = self._failures()
        if not failures:
            self._drop(FAILED_TOMOGRAMS)
            return
        failed = [source.clone() for source in self.inTomos.get() if source.getTsId() in failures]
        for tomogram in failed:
            tomogram.setObjComment(failures[tomogram.getTsId()])
        self._renew(FAILED_TOMOGRAMS, failed)

    def _drop(self, name):
        """Take back the output set of this name, if there is one."""
        tomograms = getattr(self, name, None)
        if tomograms is not None:
            self.deleteOutput(tomograms)

    def copy(self, other, *args, **options):
        """Scipion's, by which a protocol learns what its run has made; it keeps what the run took
        back."""
        for name in (FAILED_TOMOGRAMS, FILLED_TOMOGRAMS):
            if not hasattr(other, name):
                self._drop(name)
        return super().copy(other, *args, **options)

    def _renew(self, name, items):
        """Let an output set have these tomograms and no others."""
        tomograms = self._outputSet(name)
        tomograms.clear()
        for tomogram in items:
            tomograms.append(tomogram)
        tomograms.write()
        self._store(tomograms)

    def getDone(self):
        """The tsIds of the output."""
        tomograms = getattr(self, TOMOGRAMS, None)
        return tomograms.getTSIds() if tomograms is not None and tomograms.getSize() else []

    def getDeviation(self, tsId):
        """The file of a tomogram's standard deviation map, or None."""
        return self._existing(tsId + DEVIATION)

    def getFilled(self, tsId):
        """The file of a tomogram with its missing wedge filled, or None."""
        return self._existing(tsId + FILLED)

    def _existing(self, name):
        path = self._getExtraPath(name)
        return path if os.path.exists(path) else None

    def _outputSet(self, name):
        """The output set of this name, opened for more, or a new one."""
        tomograms = getattr(self, name, None)
        if tomograms is not None:
            tomograms.enableAppend()
            tomograms.setStreamState(Set.STREAM_OPEN)
            return tomograms
        tomograms = SetOfTomograms.create(self._getPath(), prefix=name)
        tomograms.copyInfo(self.inTomos.get())
        tomograms.setStreamState(Set.STREAM_OPEN)
        self._defineOutputs(**{name: tomograms})
        for pointer in self._sources():
            self._defineSourceRelation(pointer, tomograms)
        return tomograms

    def _sources(self):
        """The pointers of which the outputs are made."""
        return [self.inTomos] + ([self.inCtfs] if self.inCtfs.get() is not None else [])

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
                reasons[os.path.basename(path)[: -len(FAILED)]] = stream.read()
        return reasons

    def _atOnce(self):
        # Threads that hand out the work or wait for tomograms make none; each step has its GPU.
        idle = 2 if self.inTomos.get().isStreamOpen() else 1
        making = max(1, self.numberOfThreads.get() - idle)
        return min(making, len(self.getGpuList())) if self.usesGpu() else making

    def _settingErrors(self):
        tomograms = self.inTomos.get()
        # The settings are checked with the first tomogram; a growing set may have none yet.
        return super()._settingErrors() if tomograms is None or tomograms.getSize() else []

    def _inputErrors(self):
        tomograms = self.inTomos.get()
        errors = (
            missing_files(tomograms, "Tomograms")
            + thin(tomograms, "Tomograms")
            + repeated(tomograms, "Tomograms")
            + self._ctfErrors(tomograms)
        )
        if tomograms.isStreamOpen() and self.numberOfThreads.get() < 3:
            errors.append(
                "Tomograms: the set is still growing, which takes at least 3 threads: one hands "
                "out the work and one waits for new tomograms."
            )
        return errors

    def _summary(self):
        failures = [f"*{tsId} failed*: {reason}" for tsId, reason in self._failures().items()]
        done = len(self.getDone())
        finished = (
            f"Finished *{done}* of *{self.inTomos.get().getSize()}* tomograms."
            if done
            else "No tomogram yet."
        )
        return [finished] + failures


class ProtF2FdWithModel(ProtF2FdTomograms):
    """The same with a model: ``inModel``."""

    INSTEAD = {"defocus": "inCtfs"}
    SUPPLIED = {
        "model": "the input model",
        "tomograms": "one tomogram of the input set at a time",
        "output": "a temporary folder; the results go to the extra folder, named by tsId",
        "voxel_size": "the input set's sampling rate",
        "resume": "always off: the protocol skips what is finished",
        "overwrite": "always on: a step that runs again replaces its result",
        "device": "the choice between GPU and CPU",
        "threads": "the protocol's number of threads",
        "ctf": "the CTFs, by tsId",
    }

    def _addOwnCtfs(self, form):
        self._addCtfs(
            form,
            "If the model was trained on deconvolved tomograms, each tomogram is deconvolved with "
            "its own defocus and phase shift (medians over its images).",
            expertLevel=LEVEL_ADVANCED,
        )

    def _sources(self):
        return [*super()._sources(), self.inModel]

    def _supply(self, tomogram=None):
        tomograms = self.inTomos.get()
        tomogram = tomogram or tomograms.getFirstItem()
        return {
            "model": self.inModel.get().getPath(),
            "tomograms": [volume_file(tomogram)],
            "output": self._getTmpPath(tomogram.getTsId()),
            "voxel_size": tomograms.getSamplingRate(),
            "resume": False,
            "overwrite": True,
            "device": self._device(),
            "threads": self.binThreads.get(),
            "ctf": self._ctfTable([tomogram])[0],
        }

    def _asked(self, settings):
        # A training that was continued has written another model to the same file.
        return dict(super()._asked(settings), model=fingerprint(settings["model"]))

    def _filters(self):
        """Whether the tomograms are deconvolved, as those of the model's training were."""
        return self.inModel.get().getTrainConfig().deconvolve

    def _inputErrors(self):
        errors = super()._inputErrors()
        if self.inCtfs.get() is not None and not self._filters():
            errors.append(
                "CTFs: the model was trained on tomograms that were not deconvolved; "
                "expected no CTFs."
            )
        path = self.inModel.get().getPath()
        if not os.path.exists(path):
            errors.append(f"Model: its file {path} does not exist.")
        return errors

    def _warnings(self):
        warnings = super()._warnings()
        tomograms, trained = self.inTomos.get(), self.inModel.get().getSamplingRate()
        differs = trained and abs(tomograms.getSamplingRate() / trained - 1) > 0.1
        if differs and not self.rescale:
            warnings.append(
                f"The tomograms have {tomograms.getSamplingRate():.2f} Å/px, but the "
                f"model was trained at {trained:.2f} Å/px: results may suffer; 'Rescale' avoids it."
            )
        return warnings
