"""Denoise tomograms with a trained model."""

import itertools
import json
import os

from pyworkflow.protocol import BooleanParam
from tomo.objects import SetOfTomograms

import f2fd_scipion
from f2fd_core.config import DenoiseConfig, UserError, read_json, tta_flips, unperturbed
from f2fd_core.runtime.files import DENOISED_ENDING, DEVIATION, FILLED, PICTURE, VERDICT
from f2fd_scipion import engine
from f2fd_scipion.form import add_model
from f2fd_scipion.objects import citations_of
from f2fd_scipion.protocols.protocol_base import (
    ProtF2FdBase,
    half_maps,
    mean_and_range,
    missing_files,
)
from f2fd_scipion.protocols.protocol_tomograms import FILLED_TOMOGRAMS, ProtF2FdWithModel

SHELLS = "_fsc.json"
# Not "_odd_denoised.mrc", since another tomogram's tsId may end with "_odd".
HALVES = ("_denoised_odd.mrc", "_denoised_even.mrc")
FILLING = (
    "In copies of them, the missing wedge was filled with predictions of a network that had "
    "learned from the denoised tomogram, rotated by 90 degrees about the tilt axis."
)
PREDICTED = "What lies in the missing wedge is predicted, not measured."


class ProtF2FdDenoise(ProtF2FdWithModel):
    """Denoise tomograms with an F2Fd model, in their own intensity units.

    A tomogram that fails is reported with the reason and skipped; continuing the protocol tries
    the failed ones again and keeps what is finished and was made with the same settings.
    """

    _label = "denoise tomograms"

    _possibleOutputs = dict(
        ProtF2FdWithModel._possibleOutputs, **{FILLED_TOMOGRAMS: SetOfTomograms}
    )

    CONFIG = DenoiseConfig
    ENDING = DENOISED_ENDING
    OTHERS = (PICTURE, DEVIATION, FILLED, SHELLS, VERDICT, *HALVES)
    SUPPLIED = dict(
        ProtF2FdWithModel.SUPPLIED,
        half_maps="none: the tomogram itself is denoised, by models of half-maps, too",
        denoise_halves="'Denoise the half-maps, too', by tsId",
        result_name="always the tsId",
        region="always the whole tomogram; the preview of 'Predictions' looks at a part",
    )

    GPU_HELP = (
        ProtF2FdBase.GPU_HELP + " With more threads, several tomograms are denoised side "
        "by side, and the GPUs are divided among them: with 3 threads, one of which only "
        "hands out the work, two GPUs denoise a tomogram each. While the set is still "
        "growing it takes one thread more, which waits for new tomograms."
    )

    # -------------------------- Form -----------------------------------------
    def _defineParams(self, form):
        self._addTomograms(form, "Tomograms to denoise, of any size.")
        add_model(
            form,
            "Model from 'train F2Fd' or 'import F2Fd model'. It suits tomograms similar to those "
            "it was trained on.",
        )
        form.addParam(
            "denoiseHalves",
            BooleanParam,
            default=False,
            label="Denoise the half-maps, too",
            help="Also denoise the half-maps of each tomogram, which takes three times as long. "
            "The result comes with them, and the Fourier shell correlation between them is "
            "reported beside that between the original ones. Without it the results have no "
            "half-maps.",
        )
        self._addOwnCtfs(form)
        self._addEngineParams(form)
        self._addThreads(form)

    # -------------------------- Steps ----------------------------------------
    def _make(self, tsId, config, source):
        errors = self._halfMapErrors([source])  # which may have come after the check of the form
        if errors:
            raise UserError(" ".join(errors).rstrip("."))
        own = (DENOISED_ENDING, PICTURE, VERDICT) + ((DEVIATION,) if config.std else ())
        own += (FILLED,) if config.fill_wedge else ()
        self._runFor("denoise", tsId, config, dict(zip(own, own)))
        if not self.denoiseHalves:
            return []
        for name, path in zip(HALVES, half_maps(source)):
            alone = {"tomograms": [path], "std": False, "fill_wedge": False}
            half = DenoiseConfig.create(alone, config.to_dict())
            self._runFor("denoise", tsId, half, {DENOISED_ENDING: name})
        halves = [self._getExtraPath(tsId + name) for name in HALVES]
        after, before = (
            engine.ask(["evaluate", odd, "--half-map", even])["half_maps"]
            for odd, even in (halves, half_maps(source))
        )
        with open(self._getExtraPath(tsId + SHELLS), "w", encoding="utf-8") as stream:
            json.dump(dict(after, before=before), stream)
        return halves

    def _asked(self, settings):
        return dict(super()._asked(settings), denoiseHalves=self.denoiseHalves.get())

    # -------------------------- Outputs --------------------------------------
    def _made(self):
        return dict(super()._made(), **({FILLED_TOMOGRAMS: FILLED} if self.fill_wedge else {}))

    def _outputSet(self, name):
        tomograms = super()._outputSet(name)
        if name == FILLED_TOMOGRAMS:
            tomograms.setObjLabel("missing wedge filled (predicted)")
            tomograms.setObjComment(PREDICTED)
        return tomograms

    # -------------------------- Values for the engine ------------------------
    def _supply(self, tomogram=None):
        return dict(super()._supply(tomogram), region=[], half_maps=[])

    # -------------------------- Information ----------------------------------
    def _checkSettings(self, config):
        config.for_model(self.inModel.get().getTrainConfig())

    def _inputErrors(self):
        errors = super()._inputErrors() + self._halfMapErrors(self.inTomos.get())
        if self.fill_wedge and not self.inModel.get().fillsWedge():
            errors.append(
                "Fill the missing wedge: the model has not learned it; choose 'No', or continue "
                "its training with 'Learn to fill the missing wedge'."
            )
        return list(dict.fromkeys(errors))

    def _halfMapErrors(self, tomograms):
        """Which half-maps are missing of these tomograms, if any are needed."""
        if not self.denoiseHalves:
            return []
        return missing_files(tomograms, "Tomograms", halves="'Denoise the half-maps, too'")

    def _summary(self):
        summary = super()._summary()
        if not self.getDone():
            return summary
        filled = [f"*{FILLED_TOMOGRAMS}* are the same tomograms. {PREDICTED}"]
        return [
            *summary,
            f"Model: {self.inModel.get()}",
            *self._verdict(),
            *self._shellSummary(),
            *(filled if self.fill_wedge else []),
        ]

    def _verdict(self):
        """Sentences on how right the results are, by the short form of 'check denoising'."""
        paths = {tsId: self._getExtraPath(tsId + VERDICT) for tsId in self.getDone()}
        found = {tsId: read_json(path) for tsId, path in paths.items() if os.path.exists(path)}
        if not found:
            return []
        means = {
            name: mean_and_range([one[name]["estimate"] for one in found.values()], "%.2f")
            for name in ("denoised", "tomogram", "gaussian", "start")
        }
        worse = sorted(tsId for tsId, one in found.items() if one["worse"])
        return [
            f"Estimated correlation with the truth: {means['denoised']}; of the tomograms as "
            f"they are {means['tomogram']}, of the best Gaussian filter {means['gaussian']}, of "
            f"the pretrained weights {means['start']}. 'Check denoising' reports more."
        ] + ([f"*The model is worse than one of these for {', '.join(worse)}.*"] if worse else [])

    def _shellSummary(self):
        """A sentence on the Fourier shell correlation between half-maps, before and after."""
        found = {"denoised": [], "original": []}
        for tsId in self.getDone():
            path = self._getExtraPath(tsId + SHELLS)
            if os.path.exists(path):
                shells = read_json(path)
                found["denoised"].append(self._resolution(shells))
                if "before" in shells:  # not in those of earlier versions
                    found["original"].append(self._resolution(shells["before"]))
        return [
            (
                f"The Fourier shell correlation between the {state} half-maps falls to 0.143 "
                f"at {mean_and_range(values, '%.1f')} Å."
            )
            for state, values in found.items()
            if values
        ]

    def _resolution(self, shells):
        """Where a Fourier shell correlation falls to 0.143, in Å; Nyquist's if it stays above."""
        return self.inTomos.get().getSamplingRate() / (shells["fsc_0.143"] or 0.5)

    def _methods(self):
        if not self.getDone():
            return []
        model = self.inModel.get()
        trained = model.getTrainConfig()
        config = self._configure(self._supply()).for_model(trained)
        source = (
            "the tomogram itself"
            if unperturbed(trained, config.predictions)
            else "newly perturbed copies of the tomogram"
        )
        turns = itertools.cycle(tta_flips(trained))
        turned = len(set(itertools.islice(turns, config.predictions))) > 1
        turns = ", turned by 180 degrees about its axes in turn" if turned else ""
        return [
            f"{len(self.getDone())} tomograms at {self.inTomos.get().getSamplingRate():.2f} "
            f"Å/px were denoised with F2Fd, version {f2fd_scipion.__version__}: the mean of "
            f"{config.predictions} predictions from {source}{turns}, by a model trained with "
            f"the method {model.getMethod()} in {model.getSteps()} steps from "
            f"{trained.origin()}, in overlapping tiles of {config.tile_size} voxels."
        ] + ([FILLING] if self.fill_wedge else [])

    def _citations(self):
        return citations_of(self.inModel.get(), self.fill_wedge.get())
