"""Score denoised tomograms against a reference, or their half-maps against each other."""
import json
import os

from pyworkflow.protocol import PointerParam
from pyworkflow.utils import Message

from f2fd_core.config import EvaluateConfig
from f2fd_scipion import engine
from f2fd_scipion.protocols.protocol_base import (
    ProtF2FdBase,
    half_maps,
    missing_files,
    repeated,
    volume_file,
    without_partner,
)

SCORES = "scores.json"
WORDS = {"correlation": "correlation", "psnr": "PSNR (dB)", "ssim": "SSIM",
         "fsc_mean": "mean FSC", "membrane_average_precision": "membranes"}
COMPANIONS = {"reference": ("references", "Noise-free tomograms"),
              "noisy": ("noisyTomos", "Tomograms before denoising"),
              "membrane": ("membraneMasks", "Membrane masks")}
"""{the engine's parameter: (the form's, its label)}."""


class ProtF2FdEvaluate(ProtF2FdBase):
    """Evaluate denoised tomograms.

    With noise-free tomograms (of a simulation, say): correlation, PSNR, SSIM, Fourier shell
    correlation and, with masks of the membranes, the average precision of a membrane map, before
    and after denoising. Without: the Fourier shell correlation between the denoised half-maps.
    """
    _label = "evaluate denoising"

    CONFIG = EvaluateConfig
    ON_GPU = False
    SUPPLIED = {
        "denoised": "one tomogram of the input set at a time",
        "half_map": "the tomogram's own, where there is no set of noise-free tomograms",
        "reference": "the set of noise-free tomograms, matched by tsId",
        "noisy": "the set of tomograms before denoising, matched by tsId",
        "membrane": "the set of membrane masks, matched by tsId",
    }

    # -------------------------- Form -----------------------------------------
    def _defineParams(self, form):
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam("inTomos", PointerParam, pointerClass="SetOfTomograms", important=True,
                      label="Denoised tomograms", help="Tomograms to evaluate.")
        form.addParam("references", PointerParam, pointerClass="SetOfTomograms", allowsNull=True,
                      label=COMPANIONS["reference"][1],
                      help="References of the same sizes, matched by tsId. Without them, the "
                           "half-maps of the denoised tomograms are compared.")
        form.addParam("noisyTomos", PointerParam, pointerClass="SetOfTomograms", allowsNull=True,
                      condition="references is not None", label=COMPANIONS["noisy"][1],
                      help="They are scored, too, for comparison.")
        form.addParam("membraneMasks", PointerParam, pointerClass="SetOfTomoMasks",
                      allowsNull=True, condition="references is not None",
                      label=COMPANIONS["membrane"][1],
                      help="Adds the average precision of a ridge filter's membrane map, at the "
                           "scale that tells the reference's membranes best.")

    # -------------------------- Steps ----------------------------------------
    def _insertAllSteps(self):
        self._insertFunctionStep(self.evaluateStep, needsGPU=False)

    def evaluateStep(self):
        """Score all tomograms; {tsId: what the engine tells} goes to scores.json."""
        companions = {name: {item.getTsId(): volume_file(item) for item in self._chosen(name)}
                      for name in COMPANIONS}
        found = {}
        for tomogram in self.inTomos.get():
            tsId = tomogram.getTsId()
            arguments = ["evaluate", volume_file(tomogram)]
            if self.references.get() is None:
                odd, even = half_maps(tomogram)
                arguments = ["evaluate", odd, "--half-map", even]
            else:
                for name, files in companions.items():
                    arguments += ["--" + name, files[tsId]] if files else []
            found[tsId] = engine.ask(arguments)
        path = self._getExtraPath(SCORES)
        with open(path, "w", encoding="utf-8") as stream:
            json.dump(found, stream, indent=2)
        return [path]

    def _chosen(self, name):
        """The set chosen for a parameter of the engine; () without one."""
        return getattr(self, COMPANIONS[name][0]).get() or ()

    def _supply(self):
        return {}

    # -------------------------- Information ----------------------------------
    def getScores(self):
        """{tsId: {"denoised", "noisy" or "half_maps": scores}}; {} before the end."""
        path = self._getExtraPath(SCORES)
        if not os.path.exists(path):
            return {}
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)

    def table(self):
        """Rows of text: a heading, then one row for each tomogram before and after denoising."""
        rows = []
        for tsId, found in sorted(self.getScores().items()):
            for state in ("noisy", "denoised", "half_maps"):
                if state in found:
                    values = {words: found[state][name] for name, words in WORDS.items()
                              if name in found[state]}
                    rows = rows or [["tsId", "", *values]]
                    rows.append([tsId, state.replace("_", "-"),
                                 *("%.3f" % value for value in values.values())])
        return rows

    def _inputErrors(self):
        tomograms = self.inTomos.get()
        if repeated(tomograms, "Denoised tomograms"):
            return repeated(tomograms, "Denoised tomograms")
        if self.references.get() is None:
            return missing_files(tomograms, "Denoised tomograms",
                                 halves="the comparison without noise-free tomograms")
        errors = missing_files(tomograms, "Denoised tomograms")
        for name, title in COMPANIONS.values():
            errors += without_partner(tomograms.getTSIds(), getattr(self, name).get(), title)
        return errors

    def _summary(self):
        rows = self.table()
        return [" | ".join(row) for row in rows] if rows else ["No scores yet."]

    def _citations(self):
        return ["F2Fd", "Harauz1986"] + ([] if self.references.get() is None else ["Wang2004"])
