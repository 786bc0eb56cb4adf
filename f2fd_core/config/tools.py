"""Parameters of ``f2fd evaluate``, ``deconvolve``, ``benchmark`` and ``info``."""

from dataclasses import dataclass
from typing import Tuple

from f2fd_core.config import filtering, shared
from f2fd_core.config.parameter import INPUT, RUN, TRAINING, Config, UserError, flag, param


@dataclass(frozen=True)
class EvaluateConfig(Config):
    """Score a denoised tomogram against a reference, or against its other half-map."""

    denoised: str = param(
        "", "Denoised tomogram", "The tomogram to score (MRC).", INPUT, positional=True
    )
    reference: str = param("", "Reference", "Noise-free volume of the same size (MRC).", INPUT)
    half_map: str = param(
        "",
        "Other half-map",
        "Without a reference: the tomogram's other half-map, denoised in the same way (MRC), for "
        "the Fourier shell correlation between the two.",
        INPUT,
    )
    noisy: str = param(
        "",
        "Noisy tomogram",
        "The tomogram before denoising (MRC), scored as well for comparison.",
        INPUT,
    )
    membrane: str = param(
        "",
        "Membrane mask",
        "Mask of the true membranes (MRC, above 0.5 inside). Adds the average precision with which "
        "a ridge filter detects them, at the scale that suits the reference best.",
        INPUT,
    )

    def check(self):
        if self.half_map and (self.reference or self.noisy or self.membrane):
            raise UserError(
                "--half-map is given with --reference, --noisy or --membrane; expected it alone"
            )


BENCHMARK_CASES = (
    "cell",
    "spheres",
    "crowded",
    "sirt",
    "insertion",
    "odd-tilts",
    "dose-weighted",
    "ctf-corrected",
    "uneven",
    "lowpass",
    "binned",
    "int8",
    "empty",
    "noisefree",
    "thick",
    "in-situ",
    "real-noise",
)
FILTERS = ("gaussian", "tv", "nlm", "deconvolve")
BENCHMARK_METHODS = FILTERS + (
    "noise_matched",
    "fourier_masks",
    "self2self",
    "noise2void",
    "noise2noise",
    "half-maps",
    "published",
)


@dataclass(frozen=True)
class BenchmarkConfig(Config):
    """Compare all methods on simulated tomograms or on one of your own."""

    output: str = shared.output(
        "Folder for the tables (scores.csv, scores.md), the picture and the volumes.",
        positional=True,
    )
    tomogram: str = param(
        "",
        "Tomogram",
        "One of your own tomograms (MRC) instead of simulated ones. Scores then need a reference "
        "or half-maps.",
        INPUT,
    )
    half_maps: Tuple[str, ...] = param(
        (),
        "Half-maps",
        "The tomogram's half-maps, odd and even (MRC). Adds the method noise2noise and, for the "
        "others, the Fourier shell correlation between the halves, each denoised by its own model.",
        INPUT,
    )
    reference: str = param(
        "",
        "Reference",
        "Volume of the same size (MRC) against which the results are scored.",
        INPUT,
    )
    membrane: str = param(
        "",
        "Membrane mask",
        "Mask of the membranes in your tomogram (MRC, above 0.5 inside).",
        INPUT,
    )
    voxel_size: float = shared.voxel_size()
    defocus: float = param(
        3.0,
        "Defocus",
        "Defocus of the simulation or of your tomogram, for the deconvolution.",
        INPUT,
        **dict(filtering.DEFOCUS, gt=0),
    )
    cases: Tuple[str, ...] = param(
        ("cell", "spheres"),
        "Cases",
        "Simulated tomograms: different specimens (cell, spheres, crowded, empty) and variants of "
        "the cell.\n"
        "sirt: SIRT-like reconstruction.\n"
        "insertion: direct Fourier insertion.\n"
        "odd-tilts: tilts from -50 to 65 degrees.\n"
        "dose-weighted: tilts of 3 e/Å², weighted by dose.\n"
        "ctf-corrected: inserted, with the CTF corrected.\n"
        "uneven: noise that changes with depth and towards the borders.\n"
        "lowpass, binned: without the highest frequencies.\n"
        "int8: rounded to 256 values.\n"
        "noisefree: without noise.\n"
        "thick: three times as thick and wide and half as long, scored against a reconstruction "
        "from many more tilts.\n"
        "in-situ: crowded, two and a half times as thick as the volume, with half-maps from odd "
        "and even tilts.\n"
        "real-noise: 64 x 64 x 64 voxels with the noise of a real cell, which is read from the "
        "folder lamella in the one that the environment variable F2FD_TEST_DATA names.",
        INPUT,
        choices=BENCHMARK_CASES,
    )
    shape: Tuple[int, ...] = param(
        (64, 128, 128),
        "Shape",
        "Size of the simulated volumes, Z Y X.",
        INPUT,
        unit="voxels",
        ge=32,
        le=4096,
        length=3,
    )
    snr: Tuple[float, ...] = param(
        (0.1,),
        "Signal-to-noise ratios",
        "Variance of the signal over the variance of the noise in the untilted projection.",
        INPUT,
        gt=0,
    )
    seeds: Tuple[int, ...] = param(
        (1,),
        "Seeds",
        "Seeds of the simulations; the tables give the mean over them.",
        INPUT,
        ge=0,
        lt=2**31,
    )
    methods: Tuple[str, ...] = param(
        BENCHMARK_METHODS[:-1],
        "Methods",
        "Methods to compare. gaussian, tv (total variation) and nlm (non-local means) need "
        "scikit-image; published is the complete published program, which takes a long time.",
        TRAINING,
        choices=BENCHMARK_METHODS,
    )
    steps: int = param(
        300,
        "Training steps",
        "Training steps of the default method, noise_matched.",
        TRAINING,
        unit="steps",
        ge=1,
    )
    equal: str = param(
        "time",
        "Equal budget",
        "What the other trained methods get as much of as the default: training time or steps.",
        TRAINING,
        choices=("time", "steps"),
    )
    start: str = param(
        "automatic",
        "Starting weights",
        "Starting weights of noise_matched and noise2noise: pretrained on random shapes "
        "(automatic, too) or random.",
        TRAINING,
        choices=shared.STARTS,
    )
    published_steps: int = param(
        0,
        "Published steps",
        "Training steps of the published program, in place of an equal budget. 0: as the others.",
        TRAINING,
        unit="steps",
        ge=0,
        zero="as the others",
    )
    threads: int = shared.threads()
    device: str = shared.device()
    overwrite: bool = shared.overwrite()

    def check(self):
        if not self.tomogram:
            for name in ("half_maps", "reference", "membrane"):
                if getattr(self, name):
                    raise UserError(f"{flag(name)} is given without --tomogram; expected both")
        if self.membrane and not self.reference:
            raise UserError("--membrane is given without --reference; expected both")
        if len(self.half_maps) not in (0, 2):
            raise UserError(
                f"--half-maps names {len(self.half_maps)} files; expected two, odd and even"
            )


@dataclass(frozen=True)
class DeconvolveConfig(Config):
    """Deconvolve tomograms with a Wiener-like filter; nothing is trained."""

    tomograms: Tuple[str, ...] = shared.tomograms(
        "Tomograms to filter (MRC or OME-Zarr), of any size."
    )
    output: str = shared.output("Folder for the filtered tomograms.")
    voxel_size: float = shared.voxel_size()
    defocus: float = filtering.filtering("defocus")
    phase_shift: float = filtering.filtering("phase_shift")
    voltage: float = filtering.filtering("voltage", advanced=True)
    spherical_aberration: float = filtering.filtering("spherical_aberration", advanced=True)
    amplitude_contrast: float = filtering.filtering("amplitude_contrast", advanced=True)
    ctf: str = filtering.by_tomogram()
    phase_flipped: bool = filtering.filtering("phase_flipped")
    strength: float = filtering.filtering("strength")
    snr_falloff: float = filtering.filtering("snr_falloff")
    highpass: float = filtering.filtering("highpass", advanced=True)
    threads: int = shared.threads()
    overwrite: bool = shared.overwrite()

    def check(self):
        filtering.check_defocus(self, bool(self.tomograms))


@dataclass(frozen=True)
class InfoConfig(Config):
    """Print versions, devices and memory, or describe a model file."""

    model: str = param("", "Model", "Model file to describe.", INPUT, positional=True)
    benchmark: bool = param(
        False,
        "Benchmark",
        "Measure for about half a minute how long training and denoising take on this machine "
        "with the default settings, and how much memory they need.",
        RUN,
    )
    shape: Tuple[int, ...] = param(
        (256, 512, 512),
        "Shape",
        "Size (Z Y X) of the tomogram for which --benchmark estimates this.",
        RUN,
        unit="voxels",
        ge=8,
        le=4096,
        length=3,
    )
    device: str = shared.device()
    threads: int = shared.threads()
