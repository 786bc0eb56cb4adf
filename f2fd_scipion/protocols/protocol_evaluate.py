"""Score denoised tomograms against a reference, or their half-maps against each other."""

import csv
import json
import os

from pyworkflow.protocol import PointerParam
from pyworkflow.utils import Message

from f2fd_core.config import EvaluateConfig
from f2fd_scipion import engine
from f2fd_scipion.protocols.protocol_base import (
    ProtF2FdBase,
    half_maps,
    mean_and_range,
    missing_files,
    repeated,
    volume_file,
    without_partner,
)

SCORES = "scores.json"
TABLE = "scores.csv"
WORDS = {
    "correlation": "correlation",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "fsc_mean": "mean FSC",
    "membrane_average_precision": "membranes",
}
STATES = {
    "noisy": "before",
    "denoised": "denoised",
    "half_maps_before": "half-maps before",
    "half_maps": "denoised half-maps",
}
COMPANIONS = {
    "reference": ("references", "Noise-free tomograms"),
    "noisy": ("noisyTomos", "Tomograms before denoising"),
    "membrane": ("membraneMasks", "Membrane masks"),
}
"""{the engine's parameter: (the form's, its label)}."""


class ProtF2FdEvaluate(ProtF2FdBase):
    """Evaluate denoised tomograms.

    With noise-free tomograms (of a simulation, say): correlation, PSNR, SSIM, Fourier shell
    correlation and, with masks of the membranes, the average precision of a membrane map, before
    and after denoising. Without: the Fourier shell correlation between the denoised half-maps
    and, if the tomograms before denoising are given, between theirs.
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
        form.addParam(
            "inTomos",
            PointerParam,
            pointerClass="SetOfTomograms",
            important=True,
            label="Denoised tomograms",
            help="Tomograms to evaluate.",
        )
        form.addParam(
            "references",
            PointerParam,
            pointerClass="SetOfTomograms",
            allowsNull=True,
            label=COMPANIONS["reference"][1],
            help="References of the same sizes, matched by tsId. Without them, the "
            "half-maps of the denoised tomograms are compared.",
        )
        form.addParam(
            "noisyTomos",
            PointerParam,
            pointerClass="SetOfTomograms",
            allowsNull=True,
            label=COMPANIONS["noisy"][1],
            help="Scored as well, for comparison; without noise-free tomograms, their half-maps "
            "are.",
        )
        form.addParam(
            "membraneMasks",
            PointerParam,
            pointerClass="SetOfTomoMasks",
            allowsNull=True,
            condition="references is not None",
            label=COMPANIONS["membrane"][1],
            help="Adds the average precision with which a ridge filter detects the membranes, at "
            "the scale that suits the noise-free tomogram best.",
        )

    # -------------------------- Steps ----------------------------------------
    def _insertAllSteps(self):
        self._insertFunctionStep(self.evaluateStep, needsGPU=False)

    def evaluateStep(self):
        """Score all tomograms; {tsId: what the engine reports} goes to scores.json, and the
        scores to scores.csv, too."""
        score = self._scoreHalfMaps if self.references.get() is None else self._score
        companions = {
            name: {item.getTsId(): item.clone() for item in self._chosen(name)}
            for name in COMPANIONS
        }
        found = {
            tomogram.getTsId(): score(
                tomogram,
                {name: items[tomogram.getTsId()] for name, items in companions.items() if items},
            )
            for tomogram in self.inTomos.get()
        }
        path, table = (self._getExtraPath(name) for name in (SCORES, TABLE))
        with open(path, "w", encoding="utf-8") as stream:
            json.dump(found, stream, indent=2)
        rows = self._rows()
        with open(table, "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(
                [["tsId", "state", *rows[0][2]]]
                + [[tsId, state, *scores.values()] for tsId, state, scores in rows]
            )
        return [path, table]

    @staticmethod
    def _score(tomogram, companions):
        arguments = ["evaluate", volume_file(tomogram)]
        for name, item in companions.items():
            arguments += ["--" + name, volume_file(item)]
        return engine.ask(arguments)

    @staticmethod
    def _scoreHalfMaps(tomogram, companions):
        """What the engine reports of both half-maps, after and before denoising."""
        pairs = {"half_maps": half_maps(tomogram)}
        if "noisy" in companions:
            pairs["half_maps_before"] = half_maps(companions["noisy"])
        return {
            name: engine.ask(["evaluate", odd, "--half-map", even])["half_maps"]
            for name, (odd, even) in pairs.items()
        }

    def _chosen(self, name):
        """The set chosen for a parameter of the engine; () without one."""
        return getattr(self, COMPANIONS[name][0]).get() or ()

    def _supply(self):
        return {}

    # -------------------------- Information ----------------------------------
    def getScores(self):
        """{tsId: {state, one of STATES: scores}}; {} before the end."""
        path = self._getExtraPath(SCORES)
        if not os.path.exists(path):
            return {}
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)

    def _rows(self):
        """(tsId, state, {score: value}) of each tomogram before and after denoising."""
        return [
            (
                tsId,
                words,
                {
                    label: found[state][name]
                    for name, label in WORDS.items()
                    if name in found[state]
                },
            )
            for tsId, found in sorted(self.getScores().items())
            for state, words in STATES.items()
            if state in found
        ]

    def table(self, tsId=None):
        """Rows of text: a heading, then the scores before and after denoising; of one tomogram, or
        their mean and range over all. [] before the end."""
        rows = [row for row in self._rows() if tsId in (None, row[0])]
        table = [["", *scores] for _, _, scores in rows[:1]]
        for state in dict.fromkeys(state for _, state, _ in rows):
            found = [scores for _, other, scores in rows if other == state]
            table.append(
                [
                    state,
                    *(
                        mean_and_range([scores[name] for scores in found], "%.3f")
                        for name in found[0]
                    ),
                ]
            )
        return table

    def _inputErrors(self):
        tomograms = self.inTomos.get()
        if repeated(tomograms, "Denoised tomograms"):
            return repeated(tomograms, "Denoised tomograms")
        if self.references.get() is None:
            halves = "the comparison without noise-free tomograms"
            before, title = self.noisyTomos.get(), COMPANIONS["noisy"][1]
            errors = missing_files(tomograms, "Denoised tomograms", halves)
            if before is not None:
                errors += without_partner(tomograms.getTSIds(), before, title) or missing_files(
                    before, title, halves
                )
            return errors
        errors = missing_files(tomograms, "Denoised tomograms")
        for name, title in COMPANIONS.values():
            errors += without_partner(tomograms.getTSIds(), getattr(self, name).get(), title)
        return errors

    def _summary(self):
        rows = self.table()
        if not rows:
            return ["No scores yet."]
        return [" | ".join(row) for row in rows] + [
            f"The scores of each tomogram: {self._getExtraPath(TABLE)}"
        ]

    def _citations(self):
        return ["F2Fd", "Harauz1986"] + ([] if self.references.get() is None else ["Wang2004"])
