"""Deconvolve tomograms with a Wiener-like filter."""

import f2fd_scipion
from f2fd_core.config import DeconvolveConfig
from f2fd_scipion.protocols.protocol_base import volume_file
from f2fd_scipion.protocols.protocol_tomograms import ProtF2FdTomograms

DECONVOLVED = "_deconvolved.mrc"
SLICES = "_deconvolved_slices.png"


class ProtF2FdDeconvolve(ProtF2FdTomograms):
    """Deconvolve tomograms: a Wiener-like filter lifts the low frequencies that the contrast
    transfer function dampens. Nothing is trained, and it takes seconds a tomogram.

    This is not needed to train on deconvolved tomograms: 'train F2Fd' has the filter among its
    parameters, and denoising then applies it automatically.
    """

    _label = "deconvolve tomograms"

    CONFIG = DeconvolveConfig
    ENDING = DECONVOLVED
    OTHERS = (SLICES,)
    CORRECTS_CTF = True
    ON_GPU = False
    SUPPLIED = {
        "tomograms": "one tomogram of the input set at a time",
        "output": "a temporary folder; the results go to the extra folder, named by tsId",
        "voxel_size": "the input set's sampling rate",
        "overwrite": "always on: a step that runs again replaces its result",
        "threads": "the protocol's number of threads",
        "ctf": "the CTFs, by tsId",
        "voltage": "the acquisition",
        "spherical_aberration": "the acquisition",
        "amplitude_contrast": "the acquisition",
    }
    INSTEAD = {"defocus": "inCtfs", "phase_shift": "inCtfs"}

    def _defineParams(self, form):
        self._addTomograms(form, "Tomograms to filter, of any size.")
        self._addCtfs(
            form,
            "Each tomogram is filtered with its own defocus and phase shift (medians over its "
            "images).",
        )
        self._addEngineParams(form)
        self._addThreads(form)

    def _make(self, tsId, config, source):
        self._runFor("deconvolve", tsId, config, {DECONVOLVED: DECONVOLVED, SLICES: SLICES})

    def _supply(self, tomogram=None):
        tomograms = self.inTomos.get()
        tomogram = tomogram or tomograms.getFirstItem()
        return {
            "tomograms": [volume_file(tomogram)],
            "output": self._getTmpPath(tomogram.getTsId()),
            "voxel_size": tomograms.getSamplingRate(),
            "overwrite": True,
            "threads": self.binThreads.get(),
            **self._ctfValues(tomogram),
        }

    def _warnings(self):
        return super()._warnings() + self._deconvolutionWarnings()

    def _methods(self):
        if not self.getDone():
            return []
        config = self._configure(self._supply())
        defoci = [self._recorded(tsId)["defocus"] for tsId in self.getDone()]
        ends = " to ".join(f"{defocus:.3g}" for defocus in sorted({min(defoci), max(defoci)}))
        return [
            f"{len(self.getDone())} tomograms at {config.voxel_size:.2f} Å/px were deconvolved "
            f"with the Wiener-like filter of F2Fd, version {f2fd_scipion.__version__}: defocus "
            f"{ends} µm, strength {config.strength:g}, falloff {config.snr_falloff:g}."
        ]

    def _citations(self):
        return ["Tegunov2019"]
