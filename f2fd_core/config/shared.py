"""Parameters and rules that several commands share, word for word."""

import dataclasses
import os
from typing import Any, Dict, Tuple

from f2fd_core.config.parameter import INPUT, PREDICTION, RUN, Config, UserError, brief, param
from f2fd_core.config.prediction import PRETRAINED

MINIMUM_SIDE = 8
"""Voxels that a tomogram must have along every axis."""

VOXEL_SIZES = 0.1, 10000.0
"""The smallest and the largest voxel size (Å) that a tomogram can have."""

STARTS = ("automatic", "random", "pretrained")
"""What a training may start from. Scipion remembers a choice by its place."""

AUTOMATIC = ("auto",)
"""In the place of file names: they are found."""

EXCLUSIVE = {"resume": {"overwrite": False}, "overwrite": {"resume": False}}
"""Giving one of these replaces the other where a recorded configuration has it."""


def tomograms(help):
    """The tomograms of a command, with its own ``help``."""
    named = (
        "Files, folders, patterns in quotes ('*.mrc'), lists (.txt, one path per line) or RELION's "
        "tomograms.star."
    )
    return param((), "Tomograms", f"{help} {named}", INPUT, positional=True)


def model():
    """The model of a command."""
    return param(
        "",
        "Model",
        "Model file that 'f2fd train' wrote (model.pt or a checkpoint), or pretrained: the weights "
        "that come with F2Fd, as they are.",
        INPUT,
        positional=True,
    )


def half_maps(help):
    """Their half-maps, with its own ``help``."""
    named = (
        "auto: those beside the tomograms, by the names of AreTomo, WarpTools, RELION, IMOD or "
        "cryoCARE."
    )
    return param((), "Half-maps", f"{help} {named}", INPUT, advanced=True)


def denoise_halves():
    """Whether the half-maps are denoised by themselves, too."""
    return param(
        False,
        "Denoise the half-maps, too",
        "Also denoise each half-map by itself, into the folders odd and even of the output folder. "
        "One model makes both, so what it invents is in both.",
        INPUT,
        advanced=True,
    )


def voxel_size():
    """The voxel size, Å."""
    return param(
        0.0,
        "Voxel size",
        "Voxel size of the tomograms and of the results. Needed when a header has none or a wrong "
        "one. 0: read it from the header.",
        INPUT,
        unit="Å",
        ge=0,
        le=VOXEL_SIZES[1],
        advanced=True,
    )


def rescale(help):
    """Whether tomograms of other voxel sizes are resampled, with a command's own ``help``."""
    return param(False, "Rescale", help, INPUT, advanced=True)


def tilt_range(section=INPUT, **more):
    """The largest tilt angle, beside what needs it."""
    return param(
        0.0,
        "Largest tilt angle",
        "The tilts run from minus to plus this angle; what lies beyond is the missing wedge. 0: "
        "found in each tomogram's spectrum.",
        section,
        unit="degrees",
        ge=0,
        lt=90,
        zero="automatic",
        advanced=True,
        **more,
    )


def seed():
    """The seed of all random numbers."""
    return param(
        0,
        "Random seed",
        "The same seed, input and machine give the same result.",
        RUN,
        ge=0,
        lt=2**31,
        advanced=True,
    )


def output(help, **more):
    """The folder that results go to."""
    return param("", "Output folder", help, INPUT, text="FOLDER", **more)


def device():
    """Where to compute."""
    return param(
        "auto",
        "Device",
        "Where to compute: auto (the first GPU, else the CPU with a warning), cpu, cuda, cuda:N or "
        "N for GPU number N, several GPUs such as 0,1, or all. Several share the work.",
        RUN,
        text="DEVICE",
    )


def threads():
    """The number of CPU threads."""
    return param(
        0,
        "CPU threads",
        "CPU threads of the engine. 0: as many as the environment variable OMP_NUM_THREADS says "
        "or, if it is not set, all that the machine offers, shared by the processes of a training.",
        RUN,
        ge=0,
        zero="all",
    )


def precision():
    """The arithmetic of the network."""
    return param(
        "auto",
        "Precision",
        "Arithmetic of the network.\n"
        "auto: bfloat16 where the hardware supports it, float32 elsewhere.\n"
        "float32: more precise.\n"
        "bfloat16: faster where the hardware supports it.",
        RUN,
        choices=("auto", "float32", "bfloat16"),
        advanced=True,
    )


def deterministic():
    """Whether the same bits are wanted every time."""
    return param(
        False,
        "Deterministic",
        "Use only algorithms that give the same bits every time, as the CPU always does. On a GPU "
        "this may be slower, and denoising also needs a fixed tile size and number of predictions "
        "per batch, which otherwise depend on its free memory.",
        RUN,
        advanced=True,
    )


def compile():
    """Whether the network is compiled first."""
    return param(
        False,
        "Compile the network",
        "Compile the network first (torch.compile), which "
        "takes a minute or two. It may pay in long runs on a GPU; on the CPU it was "
        "slower.",
        RUN,
        advanced=True,
    )


def dtype():
    """The type of the results' voxels."""
    return param(
        "float32",
        "Data type",
        "Type of the results' voxels.\n"
        "float32: the tomogram's own units.\n"
        "float16: the same in half the space; MRC mode 12, which older programs can't read.\n"
        "int8: a quarter of the space, in 255 steps; the header's labels hold the scale.",
        PREDICTION,
        choices=("float32", "float16", "int8"),
        advanced=True,
    )


def result_name():
    """The pattern of the results' names."""
    return param(
        "{name}_denoised",
        "Names of the results",
        "Name of a result without its ending; {name} stands for the tomogram's.",
        INPUT,
        advanced=True,
        text="NAME",
    )


def overwrite():
    """Whether earlier results may be replaced."""
    return param(
        False,
        "Overwrite",
        "Replace the results of an earlier run in the output folder. Without it, existing results "
        "are kept and the run is refused.",
        RUN,
    )


class TomogramsConfig(Config):
    """A configuration that has ``tomograms``, ``half_maps``, ``resume`` and ``overwrite``."""

    tomograms: Tuple[str, ...]
    half_maps: Tuple[str, ...]
    resume: bool
    overwrite: bool

    def check(self):
        if self.resume and self.overwrite:
            raise UserError("--resume and --overwrite exclude each other; expected one of them")
        check_half_maps(self)

    def names(self):
        """The paths by which the tomograms are called: their own, or those of the odd halves."""
        return self.tomograms or self.half_maps[::2]

    def inputs(self):
        """The files that each tomogram is read from, a list of tuples: itself, or its half-maps."""
        return list(zip(self.half_maps[::2], self.half_maps[1::2])) or [
            (path,) for path in self.tomograms
        ]

    def whole_of(self, path):
        """The name of the tomogram of which a file is a half-map; its own, if it is none."""
        if path in self.half_maps:
            return self.names()[self.half_maps.index(path) // 2]
        return path

    def without(self, names):
        """The same without the tomograms of these ``names``."""
        left = [number for number, name in enumerate(self.names()) if name not in names]
        fewer: Dict[str, Any] = {
            "tomograms": tuple(self.tomograms[number] for number in left if self.tomograms),
            "half_maps": tuple(
                path for number in left for path in self.half_maps[2 * number : 2 * number + 2]
            ),
        }
        return dataclasses.replace(self, **fewer)

    @classmethod
    def implied(cls):
        return EXCLUSIVE


class ResultsConfig(TomogramsConfig):
    """The same with ``result_name``, the pattern of the results' names, and what else is made of a
    tomogram: ``denoise_halves``, ``predictions`` and ``std``."""

    result_name: str
    denoise_halves: bool
    predictions: int
    std: bool

    def check(self):
        super().check()
        if self.denoise_halves and self.names() and not self.half_maps:
            raise UserError("--denoise-halves is given without --half-maps; expected both")
        if self.std and self.predictions == 1:
            raise UserError("--predictions is 1; expected at least 2 for --std")
        if "{name}" not in self.result_name or os.sep in self.result_name:
            raise UserError(
                f"--result-name is {brief(self.result_name)}; expected a file's name with "
                "{name} for the tomogram's, such as {name}_denoised"
            )

    @property
    def result_file(self):
        """The same pattern with the ending of the files."""
        return self.result_name + ".mrc"


class ModelConfig(TomogramsConfig):
    """The same with a ``model``; "pretrained" is the path of :data:`PRETRAINED`, unless there is a
    file of that name."""

    model: str

    def check(self):
        super().check()
        if self.model == "pretrained" and not os.path.exists(self.model):
            object.__setattr__(self, "model", PRETRAINED)


def check_half_maps(config):
    """Half-maps come in pairs, one pair a tomogram; raises UserError otherwise."""
    count = len(config.half_maps)
    if count % 2 or config.tomograms and count not in (0, 2 * len(config.tomograms)):
        raise UserError(
            f"--half-maps names {count} files; expected two for each tomogram, odd and even"
        )
