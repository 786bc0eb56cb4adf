"""What the protocols that make a new tomogram of each input one share."""
import logging
import os
import shutil

from pwem.convert.headers import setMRCSamplingRate
from pyworkflow.object import Set
from pyworkflow.protocol import PointerParam, ProtStreamingBase
from pyworkflow.utils import Message, cleanPath, makePath, redStr
from tomo.objects import SetOfTomograms, Tomogram

from f2fd_scipion.engine import EngineError
from f2fd_scipion.protocols.protocol_base import ProtF2FdBase, missing_files, repeated, thin

logger = logging.getLogger(__name__)

FAILED = "_failed.txt"
DEVIATION = "_std.mrc"
TOMOGRAMS, FAILED_TOMOGRAMS = "tomograms", "failedTomograms"


class ProtF2FdTomograms(ProtF2FdBase, ProtStreamingBase):
    """A protocol with a step for each tomogram of a set, which may still be growing.

    A tomogram that fails is reported with the reason and skipped; continuing the protocol tries
    the failed ones again and keeps what is finished. Subclasses set ``ENDING``, that of the
    engine's results, and define ``_make`` and ``_supply``.
    """
    _possibleOutputs = {TOMOGRAMS: SetOfTomograms, FAILED_TOMOGRAMS: SetOfTomograms}
    ENDING = ""

    # -------------------------- Form -----------------------------------------
    def _addTomograms(self, form, help):
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam("inTomos", PointerParam, pointerClass="SetOfTomograms", important=True,
                      label="Tomograms", help=help + " The set may still be growing: each "
                      "tomogram is taken when it comes.")

    def _addThreads(self, form):
        self._defineStreamingParams(form)
        form.addParallelSection(threads=1, mpi=0, binThreads=4,
                                binThreadsHelp=self._threadsHelp())

    # -------------------------- Steps ----------------------------------------
    def _insertAllSteps(self):
        for path in self._failureFiles():
            cleanPath(path)  # without its result file the step of a failed tomogram runs again
        if self.inTomos.get().isStreamOpen():
            super()._insertAllSteps()
        else:
            self._insertClosing([self._insertTomogram(tomogram)
                                 for tomogram in self.inTomos.get()])

    def stepsGeneratorStep(self):
        """Insert a step for each tomogram when it comes, until the input set is closed."""
        tomograms, taken, steps = self.inTomos.get(), set(self.getDone()), []
        while True:
            with self._lock:
                tomograms.loadAllProperties()
                closed = not tomograms.isStreamOpen()  # read first: nothing comes after it
                new = [tomogram.clone() for tomogram in tomograms.iterItems()
                       if tomogram.getTsId() not in taken]
            for tomogram in new:
                taken.add(tomogram.getTsId())
                steps.append(self._insertTomogram(tomogram))
            if closed:
                self._insertClosing(steps)
                return
            self._streamingSleepOnWait()

    def _insertTomogram(self, tomogram):
        settings = self._configure(self._supply(tomogram)).to_dict()
        return self._insertFunctionStep(self.tomogramStep, tomogram.getTsId(), settings,
                                        prerequisites=[], needsGPU=self.usesGpu())

    def _insertClosing(self, steps):
        self._insertFunctionStep(self.closeStep, prerequisites=steps, needsGPU=False)

    def tomogramStep(self, tsId, settings):
        """Make one tomogram and add it to the output; a failure is recorded.

        Returns the file whose presence tells that this was done: the new tomogram, or the reason
        for which there is none.
        """
        try:
            with self._lock:  # The steps of several threads read the set through one cursor.
                source = self.inTomos.get().getItem(Tomogram.TS_ID_FIELD, tsId)
            halves = self._make(tsId, self.CONFIG.create(settings), source)
            self._register(tsId, source, halves)
            return [self._getExtraPath(tsId + self.ENDING)]
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
        """Close the outputs. Returns the files on failures, so that it runs again with those."""
        if not self.getDone():
            raise EngineError("No tomogram came out. %s" % " ".join(
                "%s: %s." % item for item in self._failures().items()))
        self._registerFailed()
        self._closeOutputSet()
        return self._failureFiles()

    def _make(self, tsId, config, source):
        """Run the engine with its configuration for the tomogram ``source``.

        Returns the files of the new tomogram's half-maps, odd and even, or nothing.
        """
        raise NotImplementedError

    def _runFor(self, name, tsId, config, endings):
        """Run the engine's command and give its files, named by the input file, names by tsId.

        ``endings``: of the engine's files that are kept.
        """
        inputs = (getattr(config, "half_maps", ()) or ()) + config.tomograms
        makePath(config.output)
        self._runEngine(name, config, os.path.join(config.output, name + ".json"), about=inputs)
        stem = os.path.splitext(os.path.basename(config.tomograms[0]))[0]
        for ending in endings:
            result = self._getExtraPath(tsId + ending)
            shutil.move(os.path.join(config.output, stem + ending), result)
            if ending.endswith(".mrc"):
                setMRCSamplingRate(result, config.voxel_size)

    # -------------------------- Outputs --------------------------------------
    def _register(self, tsId, source, halves):
        """Add the new tomogram to the output set, once."""
        with self._lock:
            if tsId in self.getDone():
                return
            tomogram = Tomogram()
            tomogram.copyInfo(source)
            tomogram.setLocation(self._getExtraPath(tsId + self.ENDING))
            tomogram.setHalfMaps(halves or [])
            tomograms = self._outputSet(TOMOGRAMS)
            tomograms.append(tomogram)
            tomograms.update(tomogram)
            tomograms.write()
            self._store(tomograms)

    def _registerFailed(self):
        """Renew the set of input tomograms of which nothing came out, if there were any."""
        failures, known = self._failures(), hasattr(self, FAILED_TOMOGRAMS)
        if not failures and not known:
            return
        failed = self._outputSet(FAILED_TOMOGRAMS)
        if known:
            failed.clear()
        for source in self.inTomos.get():
            if source.getTsId() in failures:
                tomogram = source.clone()
                tomogram.setObjComment(failures[source.getTsId()])
                failed.append(tomogram)
        failed.write()
        self._store(failed)

    def getDone(self):
        """The tsIds of the output."""
        tomograms = getattr(self, TOMOGRAMS, None)
        return tomograms.getTSIds() if tomograms is not None and tomograms.getSize() else []

    def getDeviation(self, tsId):
        """The file of a tomogram's standard deviation map, or None."""
        path = self._getExtraPath(tsId + DEVIATION)
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
        return [self.inTomos]

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

    def _settingErrors(self):
        tomograms = self.inTomos.get()
        # The settings are checked with the first tomogram; a growing set may have none yet.
        return super()._settingErrors() if tomograms is None or tomograms.getSize() else []

    def _inputErrors(self):
        tomograms = self.inTomos.get()
        errors = (missing_files(tomograms, "Tomograms") + thin(tomograms, "Tomograms")
                  + repeated(tomograms, "Tomograms"))
        if tomograms.isStreamOpen() and self.numberOfThreads.get() < 2:
            errors.append("Tomograms: the set is still growing, for which at least 2 threads are "
                          "needed: one waits for new tomograms.")
        return errors

    def _summary(self):
        failures = ["*%s failed*: %s" % item for item in self._failures().items()]
        done = len(self.getDone())
        told = ("Finished *%d* of *%d* tomograms." % (done, self.inTomos.get().getSize())
                if done else "No tomogram yet.")
        return [told] + failures
