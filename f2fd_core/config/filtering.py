"""Parameters and rules of the deconvolution filter and the CTF that it undoes."""

from dataclasses import dataclass
from typing import Any, Dict, Tuple

from f2fd_core.config.parameter import DECONVOLUTION, INPUT, Config, UserError, param

DEFOCUS = dict(unit="µm", ge=0, le=100)
"""Above are defoci in Å, as most other programs have them."""

FILTER: Dict[str, Tuple[float, str, str, Dict[str, Any]]] = {
    "defocus": (0.0, "Defocus", "Mean defocus of the tilt series (positive: underfocus).", DEFOCUS),
    "phase_shift": (
        0.0,
        "Phase shift",
        "Phase shift of a phase plate; 0 without one.",
        dict(unit="degrees", ge=0, le=180),
    ),
    "voltage": (
        300.0,
        "Voltage",
        "Acceleration voltage of the microscope.",
        dict(unit="kV", ge=20, le=2000),
    ),
    "spherical_aberration": (
        2.7,
        "Spherical aberration",
        "Spherical aberration (Cs) of the microscope.",
        dict(unit="mm", ge=0, le=10),
    ),
    "amplitude_contrast": (
        0.07,
        "Amplitude contrast",
        "Amplitude contrast, as a fraction.",
        dict(ge=0, le=1),
    ),
    "phase_flipped": (
        False,
        "Phases flipped",
        "The phases were already flipped, before or during reconstruction.",
        {},
    ),
    "strength": (
        1.0,
        "Strength",
        "The signal-to-noise ratio at low frequencies is taken to be 10 to this power. Higher "
        "values lift low frequencies more.",
        dict(ge=-10, le=10),
    ),
    "snr_falloff": (
        1.0,
        "SNR falloff",
        "How fast the signal-to-noise ratio falls with frequency. Higher values smooth more.",
        dict(ge=0),
    ),
    "highpass": (
        0.02,
        "High-pass",
        "Frequencies below this fraction of Nyquist fade out, which removes slow gradients. 0: "
        "none.",
        dict(unit="fraction of Nyquist", ge=0, le=1),
    ),
}
CTF = ("defocus", "phase_shift", "voltage", "spherical_aberration", "amplitude_contrast")
"""Those that describe the microscope; each tomogram may have its own."""


def filtering(name, **more):
    """A parameter of the deconvolution filter."""
    default, label, help, options = FILTER[name]
    return param(default, label, help, DECONVOLUTION, **dict(options, **more))


def by_tomogram(section=DECONVOLUTION, **more):
    """The file with each tomogram's own CTF."""
    return param(
        "",
        "CTF by tomogram",
        "File with the CTF of each tomogram: CSV with one row per tomogram and the columns "
        f"tomogram (its path or file name) and any of {', '.join(CTF)}, in the units of these "
        "options; or RELION's tomograms.star, with the medians over each tilt series.",
        section,
        **more,
    )


def own_defocus():
    """The defocus for models of deconvolved tomograms."""
    return param(
        0.0,
        "Defocus",
        "Defocus of these tomograms, for models trained on deconvolved tomograms. 0: as in the "
        "training.",
        INPUT,
        zero="as trained",
        advanced=True,
        **DEFOCUS,
    )


FIRST: Dict[str, Any] = dict(advanced=True, only=("deconvolve",))
"""What holds for the filter's parameters where it comes before a training."""


@dataclass(frozen=True)
class FilteredConfig(Config):
    """A configuration whose tomograms may be filtered before anything else."""

    deconvolve: bool = param(
        False,
        "Deconvolve first",
        "Filter the tomograms with the Wiener-like deconvolution before "
        "training; denoising then does the same.",
        DECONVOLUTION,
        advanced=True,
        original="deconv_kwargs",
    )
    defocus: float = filtering("defocus", **FIRST)
    phase_shift: float = filtering("phase_shift", **FIRST)
    voltage: float = filtering("voltage", **FIRST)
    spherical_aberration: float = filtering("spherical_aberration", **FIRST)
    amplitude_contrast: float = filtering("amplitude_contrast", **FIRST)
    ctf: str = by_tomogram(**FIRST)
    phase_flipped: bool = filtering("phase_flipped", **FIRST)
    strength: float = filtering("strength", **FIRST)
    snr_falloff: float = filtering("snr_falloff", **FIRST)
    highpass: float = filtering("highpass", **FIRST)


def check_own_ctf(config, trained):
    """Raise UserError for a defocus or CTFs where the TrainConfig ``trained`` has no deconvolution,
    and for none where each tomogram of the training had its own."""
    if not trained.deconvolve:
        for given, words in (
            (config.defocus, f"--defocus is {config.defocus:g}; expected 0"),
            (config.ctf, f"--ctf is {config.ctf}; expected none"),
        ):
            if given:
                raise UserError(
                    f"{words}, since the model was trained on tomograms that were not deconvolved"
                )
    elif not (trained.defocus or config.defocus or config.ctf):
        raise UserError(
            "--defocus is 0; expected the tomograms' defocus, or --ctf, since each tomogram of the "
            "training had a CTF of its own"
        )


def check_defocus(config, needed):
    """The deconvolution can't do without the defocus; raises UserError."""
    if needed and config.defocus == 0 and not config.ctf:
        raise UserError(
            "--defocus is 0; expected the tomograms' defocus in µm, which the deconvolution "
            "needs, or --ctf"
        )
