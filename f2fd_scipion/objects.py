"""What the plugin's protocols hand to each other."""

import json

from pwem.objects import EMObject
from pyworkflow.object import Boolean, Float, Integer, String

from f2fd_core.config import TrainConfig

CITATIONS = {
    "noise_matched": ("Lehtinen2018", "Pang2021"),
    "fourier_masks": ("Lehtinen2018", "Quan2020"),
    "self2self": ("Quan2020",),
    "noise2void": ("Krull2019",),
    "noise2noise": ("Lehtinen2018", "Buchholz2019"),
}


def citations(perturbation, deconvolve, fill_wedge=False, half_maps=False):
    """Keys of what to cite for a training with a perturbation, on deconvolved tomograms or not, for
    filling the missing wedge or not, and with half-maps or not."""
    lessons = perturbation == "noise_matched" and not half_maps
    return [
        "F2Fd",
        *CITATIONS[perturbation],
        *(["Zhang2022"] if lessons else []),
        *(["Tegunov2019"] if deconvolve else []),
        *(["Chen2021", "Liu2022"] if fill_wedge else []),
    ]


def citations_of(model, fill_wedge=False):
    """Keys of what to cite for an F2FdModel, or None where there is none yet, and for filling the
    missing wedge with it or not."""
    if model is None:
        return ["F2Fd"]
    config = model.getTrainConfig()
    return citations(config.perturbation, config.deconvolve, fill_wedge, bool(config.half_maps))


class F2FdModel(EMObject):
    """A trained model: its file and what is worth knowing before it is used."""

    def __init__(self, path=None, **kwargs):
        super().__init__(**kwargs)
        self._path = String(path)
        self._method = String()
        self._patchSize = Integer()
        self._samplingRate = Float()
        self._steps = Integer()
        self._fillsWedge = Boolean(False)
        self._config = String()

    def setInfo(self, info):
        """Take over what ``f2fd info`` printed about the model file (a dictionary)."""
        config = info["config"]
        self._method.set(
            f"{config['preset']} ({config['perturbation']}, {config['network']} network)"
        )
        self._patchSize.set(config["patch_size"])
        self._samplingRate.set(info["voxel_size"])
        self._steps.set(info["step"])
        self._fillsWedge.set(info.get("fills_wedge", False))
        self._config.set(json.dumps(config))

    def getPath(self):
        """The model file, relative to the project."""
        return self._path.get()

    def getFiles(self):
        return {self.getPath()}

    def getMethod(self):
        return self._method.get()

    def getPatchSize(self):
        """Side of the training patches, in voxels."""
        return self._patchSize.get()

    def getSamplingRate(self):
        """Voxel size of the training tomograms, in Å."""
        return self._samplingRate.get()

    def getSteps(self):
        """Training steps behind the model."""
        return self._steps.get()

    def fillsWedge(self):
        """Whether it has learned to fill the missing wedge."""
        return bool(self._fillsWedge)

    def getTrainConfig(self):
        """The engine's settings with which the model was trained."""
        return TrainConfig.stored(json.loads(self._config.get()))

    def describe(self):
        """What is worth knowing of the model, in lines for a summary."""
        config = self.getTrainConfig()
        return [
            f"Method: *{self.getMethod()}*",
            f"Training steps: *{self.getSteps()}*, patches of *{self.getPatchSize()}* voxels",
            f"Started from: {config.origin()}",
            f"Tomograms: *{len(config.names())}* at *{self.getSamplingRate():.2f}* Å/px",
            *(["It has learned to fill the missing wedge."] if self.fillsWedge() else []),
        ]

    def __str__(self):
        if self.getPath() is None:
            return "F2FdModel (no model yet)"
        return (
            f"F2FdModel ({self.getMethod()}, {self.getSteps()} steps, patches of "
            f"{self.getPatchSize()} voxels, {self.getSamplingRate():.2f} Å/px)"
        )
