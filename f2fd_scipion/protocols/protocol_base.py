"""What the protocols that compute with the engine share."""

import collections
import heapq
import os
import re

from pwem.protocols import EMProtocol
from pyworkflow import BETA
from pyworkflow.protocol import (
    GPU_LIST,
    LEVEL_ADVANCED,
    USE_GPU,
    BooleanParam,
    PointerParam,
    StringParam,
)
from tomo.objects import Tomogram

from f2fd_core.config import MINIMUM_SIDE, UserError, parameters
from f2fd_core.runtime.files import fingerprint
from f2fd_scipion import ctf, engine
from f2fd_scipion.form import add_parameters, in_form_words, shown_values, within_bounds

GPU_IDS = r"[\s,]*(\d+(-\d+)?([\s,]+|$))*"
MRC_MARK = ":mrc"
MEMORY_FACTOR = 3
MEMORY_BASE = 1.5
"""The engine's bound: so many times the tomogram in float32, and so many GiB."""
NO_TOMOGRAM = "Tomograms: the set is still empty; this needs its first tomogram."


def volume_file(tomogram):
    """The tomogram's file name, without the mark of a volume."""
    name = tomogram.getFileName()
    return name[: -len(MRC_MARK)] if name.endswith(MRC_MARK) else name


def volume_voxels(tomogram):
    """The number of voxels of a tomogram, by its header."""
    x, y, z = tomogram.getDim()
    return x * y * z


def tomograms_of(chosen):
    """A list of Tomograms: those of a chosen set, or the chosen one."""
    return [chosen] if isinstance(chosen, Tomogram) else [item.clone() for item in chosen]


def half_maps(tomogram):
    """The files of a tomogram's odd and even half-maps; none if it has none."""
    return list(tomogram.getHalfMaps(asList=True)) if tomogram.hasHalfMaps() else []


def mean_and_range(values, style):
    """The mean of some values and, of several, their range, each written in a ``style``."""
    mean = style % (sum(values) / len(values))
    return mean if len(values) == 1 else f"{mean} ({style % min(values)} to {style % max(values)})"


class ProtF2FdBase(EMProtocol):
    """A protocol whose form is made from one of the engine's configuration classes.

    Subclasses set ``CONFIG``, the class, and ``SUPPLIED``: {field that the form doesn't ask for:
    where its value comes from}, whose values ``_supply`` returns; ``INSTEAD``: {field: the form's
    own parameter that, once chosen, is used in its place}; ``ON_GPU``: whether the engine computes
    on a GPU.
    """

    _devStatus = BETA
    CONFIG = None
    SUPPLIED = {}
    INSTEAD = {}
    ON_GPU = True
    GPU_HELP = (
        "Numbers of the GPUs, separated by spaces; 0 is the first. Several share the work "
        "of every step."
    )

    def _addCtfs(self, form, help, **options):
        form.addParam(
            "inCtfs",
            PointerParam,
            pointerClass="SetOfCTFTomoSeries",
            allowsNull=True,
            label="CTFs",
            help="CTFs of the tilt series, matched by tsId, for the deconvolution. " + help,
            **options,
        )

    def _addEngineParams(self, form):
        add_parameters(form, self.CONFIG, self.SUPPLIED, self.INSTEAD)
        if not self.ON_GPU:
            return
        form.addHidden(
            USE_GPU,
            BooleanParam,
            default=True,
            expertLevel=LEVEL_ADVANCED,
            label="Use GPU",
            help="No: compute on the CPU, which takes many times longer.",
        )
        form.addHidden(
            GPU_LIST,
            StringParam,
            default="0",
            expertLevel=LEVEL_ADVANCED,
            label="GPU IDs",
            help=self.GPU_HELP,
        )

    @classmethod
    def _threadsHelp(cls):
        (spec,) = [spec for name, _, _, spec in parameters(cls.CONFIG) if name == "threads"]
        return spec.full_help()

    def _supply(self):
        """Values of the fields in SUPPLIED, as the engine takes them."""
        raise NotImplementedError

    def _configure(self, supplied):
        """The engine's configuration: the form's values and the ``supplied`` ones.

        Raises UserError, the engine's own sentence, for values that don't fit together.
        """
        return self.CONFIG.create(dict(shown_values(self, self.CONFIG, self.SUPPLIED), **supplied))

    def _device(self):
        # Scipion lets the engine see the step's own GPUs only.
        return "all" if self.usesGpu() else "cpu"

    def _runEngine(self, name, config, path, result, about=()):
        """Write the configuration to ``path`` and run the engine's command ``name`` with it.

        ``result``: a file that the command writes.
        """
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(config.to_json())
        try:
            engine.run(self, [name, "--config", path], result, gpu=self.usesGpu(), about=about)
        except engine.EngineError as error:
            raise engine.EngineError(in_form_words(error, self.CONFIG)) from error

    def _settingErrors(self):
        """What is wrong with the form's values, beyond what its validators say."""
        values = shown_values(self, self.CONFIG, self.SUPPLIED)
        if not self._hasInputs() or not within_bounds(self, values):
            return []
        try:
            self._checkSettings(self._configure(self._supply()))
        except UserError as error:
            return [f"{in_form_words(error, self.CONFIG)}."]
        return []

    def _checkSettings(self, config):
        """Further checks of a configuration; raises UserError."""

    def _validate(self):
        if self.usesGpu() and not re.fullmatch(GPU_IDS, self.gpuList.get("")):
            return [f"GPU IDs is '{self.gpuList.get()}'; expected numbers, such as '0' or '0 2 3'."]
        errors = self._inputErrors() if self._hasInputs() else []
        errors += [] if errors else self._settingErrors()
        problem = engine.problem()
        if problem:
            return errors + [problem]
        return errors + (self._gpuErrors() if self.usesGpu() else [])

    def _gpuErrors(self):
        """What is wrong with the choice of GPUs, as far as this machine knows."""
        wanted = self.getGpuList()
        if not wanted:
            return [
                "No GPU is selected; give its number under 'GPU IDs' or choose 'No' to compute on "
                "the CPU."
            ]
        found = None if self.useQueue() else engine.gpus()
        absent = [str(number) for number in wanted if found is not None and number >= found]
        if absent:
            return [
                (
                    f"GPU IDs: there is no GPU {', '.join(absent)}; this machine has {found}, "
                    "counted from 0."
                )
            ]
        if found and not engine.usable_gpus(wanted):
            return [
                f"GPU IDs: this machine has {found}, but PyTorch in the engine's environment sees "
                "none; its CUDA version must match the driver: set F2FD_TORCH_INDEX and install "
                "the engine again, or choose 'No' to compute on the CPU."
            ]
        return []

    def _hasInputs(self):
        """Whether all inputs that must be given are; Scipion itself reports those that aren't."""
        return all(
            getattr(self, name).get() is not None
            for name, param in self.getDefinition().iterPointerParams()
            if not param.allowsNull
        )

    def _inputErrors(self):
        """What is wrong with the inputs, in sentences."""
        return []

    def _warnings(self):
        warnings = self._memoryWarnings() if self._hasInputs() else []
        if self._hasInputs() and self.ON_GPU:
            warnings += deep(tomograms_of(self.inTomos.get()), "Tomograms")
        return warnings + self._cpuWarnings()

    def _cpuWarnings(self):
        """That this is going to be slow, as far as this machine knows."""
        if not self.ON_GPU:
            return []
        if not self.usesGpu():
            state = "used"
        elif not self.useQueue() and engine.gpus() is None:
            state = "found"
        else:
            return []
        return [f"No GPU is {state}: on the CPU this takes many times longer."]

    def _deconvolutionWarnings(self):
        """What Scipion knows of the tomograms and the deconvolution filter is not asked for."""
        if not self._hasInputs() or not self.evalParamCondition("phase_flipped"):
            return []
        warnings, tomograms = [], self.inTomos.get()
        if tomograms.ctfCorrected() and not self.phase_flipped:
            warnings.append(
                "Phases flipped is 'No', but the tomograms are marked as "
                "CTF-corrected; expected 'Yes'."
            )
        return warnings

    def _ctfErrors(self, tomograms):
        """Of which tomograms the chosen CTFs, if they are complete, have no defocus."""
        ctfs = self.inCtfs.get()
        if ctfs is None or ctfs.isStreamOpen():
            return []
        without = ctf.without_ctf(ctfs, [tomogram.getTsId() for tomogram in tomograms])
        return [f"CTFs: there is no defocus for {', '.join(without)}."] if without else []

    def _optics(self):
        """The engine's values of the microscope, {field: value}, as far as Scipion has them."""
        ctfs = self.inCtfs.get()
        sets = [None if ctfs is None else ctfs.getSetOfTiltSeries(), self.inTomos.get()]
        found = [ctf.optics(images.getAcquisition()) for images in sets if images is not None]
        return next(filter(None, found), {})

    def _ctfValues(self, tomogram):
        """The engine's values of a tomogram's CTF, {field: value}; without CTFs, those of the
        microscope."""
        ctfs = self.inCtfs.get()
        values = {} if ctfs is None else ctf.filter_values(ctfs, tomogram.getTsId())
        return dict(values, **self._optics())

    def _ctfTable(self, tomograms):
        """(path, text) of the file with these tomograms' CTFs, by which the engine filters each
        with its own; ("", "") without CTFs. It is named by its content, on which results depend."""
        if self.inCtfs.get() is None:
            return "", ""
        text = ctf.as_table(
            {
                path: self._ctfValues(tomogram)
                for tomogram in tomograms
                for path in (volume_file(tomogram), *half_maps(tomogram))
            }
        )
        return self._getExtraPath(f"ctf_{fingerprint(text=text)}.csv"), text

    def _writeCtfs(self, tomograms):
        path, text = self._ctfTable(tomograms)
        if path:
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(text)

    def _atOnce(self):
        """How many tomograms are in memory at a time."""
        return 1

    def _memoryWarnings(self):
        """Whether the machine's memory may not suffice for the largest tomograms."""
        sizes = [
            volume_voxels(tomogram)
            for tomogram in tomograms_of(self.inTomos.get())
            if os.path.exists(volume_file(tomogram))
        ]
        largest = heapq.nlargest(self._atOnce(), sizes)
        needed = sum(MEMORY_FACTOR * size * 4 / 2**30 + MEMORY_BASE for size in largest)
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        if self.useQueue() or needed <= there:
            return []
        which = (
            "The largest tomogram"
            if len(largest) == 1
            else f"The {len(largest)} largest tomograms, side by side,"
        )
        return [f"{which} may need {needed:.0f} GB of memory; this machine has {there:.0f} GB."]


def repeated(tomograms, title):
    """A sentence for tomograms that have the same tsId, by which everything is matched and named,
    as a list."""
    counts = collections.Counter(tomogram.getTsId() for tomogram in tomograms)
    found = [f"{tsId} ({count} times)" for tsId, count in sorted(counts.items()) if count > 1]
    return (
        [f"{title}: every tomogram needs its own tsId, but some are repeated: {', '.join(found)}."]
        if found
        else []
    )


def without_partner(tsIds, chosen, title):
    """A sentence for tsIds that a chosen set (or None) doesn't have, or for files of it that are
    not there, as a list."""
    if chosen is None:
        return []
    if repeated(chosen, title):
        return repeated(chosen, title)
    without = sorted(set(tsIds) - {item.getTsId() for item in chosen})
    return missing_files(chosen, title) + (
        [f"{title}: there is none for {', '.join(without)}."] if without else []
    )


def thin(tomograms, title):
    """A sentence on tomograms that are too thin for the engine, as a list."""
    found = [
        f"{tomogram.getTsId()} ({min(tomogram.getDim())})"
        for tomogram in tomograms
        if os.path.exists(volume_file(tomogram)) and min(tomogram.getDim()) < MINIMUM_SIDE
    ]
    return (
        [
            (
                f"{title}: at least {MINIMUM_SIDE} voxels are needed along every axis, but the "
                f"thinnest side has fewer: {', '.join(found)}."
            )
        ]
        if found
        else []
    )


def deep(tomograms, title):
    """A sentence on tomograms whose depth may not be along Z, as a list."""
    sides = {
        tomogram.getTsId(): tomogram.getDim()
        for tomogram in tomograms
        if os.path.exists(volume_file(tomogram))
    }
    found = [f"{tsId} ({x} x {y} x {z})" for tsId, (x, y, z) in sides.items() if z > min(x, y)]
    return (
        [
            f"{title}: the depth is expected along Z and the tilt axis along Y, but Z is not "
            f"the thinnest side (X x Y x Z) of {', '.join(found)}. The engine rotates tomograms "
            "that lie otherwise if their missing wedge shows it, and says so in its log; rotate "
            "the others first."
        ]
        if found
        else []
    )


def missing_files(tomograms, title, halves=""):
    """A sentence for a set of tomograms some of whose files are not there, as a list.

    ``halves``: what needs their half-maps, if they are needed.
    """
    missing, without = [], []
    for tomogram in tomograms:
        files = [volume_file(tomogram)] + (half_maps(tomogram) if halves else [])
        missing += [f"{tomogram.getTsId()} ({path})" for path in files if not os.path.exists(path)]
        if halves and len(half_maps(tomogram)) != 2:
            without.append(tomogram.getTsId())
    errors = [f"{title}: files are missing: {', '.join(missing)}."] if missing else []
    if without:
        errors.append(
            f"{title}: there are no half-maps (odd and even) of "
            f"{', '.join(without)}, which {halves} needs."
        )
    return errors
