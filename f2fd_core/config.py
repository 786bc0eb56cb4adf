"""The one definition of every parameter: command line, Scipion form, help and documentation.

Only the standard library, and Python 3.8: the Scipion plugin imports this module in an
environment that has neither torch nor numpy.
"""
import dataclasses
import json
import math
import os
import typing
from dataclasses import dataclass, field
from typing import Any, Dict, Tuple

INPUT, TRAINING, PERTURBATION, NETWORK, DECONVOLUTION, PREDICTION, RUN = (
    "Input", "Training", "Perturbation", "Network", "Deconvolution", "Prediction", "Run")


class UserError(ValueError):
    """A mistake in what the user gave, told in one sentence; the command line exits with 2."""


@dataclass(frozen=True)
class Param:
    """What is known of one parameter beside its type and default.

    ``ge``, ``gt``, ``le`` and ``lt`` bound numbers. ``only`` = (other field, values...) says when
    the parameter applies at all; without values, when the other field, a yes or no, is yes.
    ``zero`` is what 0 stands for, and the command line takes the word, too. ``original`` is the
    published program's name for it, taken by the command line as an alias, as is ``alias``.
    """
    label: str
    help: str
    section: str
    unit: str = ""
    ge: float = -math.inf
    gt: float = -math.inf
    le: float = math.inf
    lt: float = math.inf
    choices: Tuple[str, ...] = ()
    advanced: bool = False
    positional: bool = False
    length: int = 0
    zero: str = ""
    only: Tuple[str, ...] = ()
    original: str = ""
    alias: str = ""

    def full_help(self):
        """The help text with the unit and, for a conditional parameter, its condition."""
        parts = [self.help]
        if self.unit:
            parts.append("Unit: %s." % self.unit)
        if self.only:
            values = " or ".join("'%s'" % value for value in self.only[1:])
            parts.append("Used with %s only." % " ".join(filter(None, (self.only[0], values))))
        return " ".join(parts)


def param(default, label, help, section, **more):
    """A dataclass field that carries its :class:`Param`."""
    return field(default=default, metadata={"param": Param(label, help, section, **more)})


def flag(name):
    """The command line's spelling of a field: ``patch_size`` -> ``--patch-size``."""
    return "--" + name.replace("_", "-")


def parameters(config_class):
    """Yield (name, type, default, Param) for every field of a configuration class.

    The type is bool, int, float, str or, for tuples, ``Tuple[item, ...]``.
    """
    hints = typing.get_type_hints(config_class)
    for item in dataclasses.fields(config_class):
        yield item.name, hints[item.name], item.default, item.metadata["param"]


def item_type(annotation):
    """The type of a tuple's items, or None when the annotation is no tuple."""
    arguments = getattr(annotation, "__args__", None)
    return arguments[0] if arguments else None


def _checked(name, kind, value, spec):
    """Return ``value`` as the field's type, or raise a UserError that names the option."""
    item = item_type(kind)
    if item is not None:
        if not isinstance(value, (list, tuple)):
            raise UserError("%s is %r; expected a list" % (flag(name), value))
        if spec.length and len(value) != spec.length:
            raise UserError("%s has %d values; expected %d" % (flag(name), len(value), spec.length))
        return tuple(_checked(name, item, entry, spec) for entry in value)
    if kind is float and type(value) is int:
        value = float(value)
    if kind is str and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if type(value) is not kind:
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        raise UserError("%s is %r; expected %s" % (flag(name), value, words[kind]))
    if spec.choices and value not in spec.choices:
        raise UserError("%s is '%s'; expected one of %s"
                        % (flag(name), value, ", ".join(spec.choices)))
    if kind in (int, float):
        if not math.isfinite(value):
            raise UserError("%s is %s; expected a finite number" % (flag(name), value))
        for bound, words, holds in ((spec.ge, "at least", value >= spec.ge),
                                    (spec.gt, "above", value > spec.gt),
                                    (spec.le, "at most", value <= spec.le),
                                    (spec.lt, "below", value < spec.lt)):
            if not holds:
                raise UserError("%s is %s; expected %s %g" % (flag(name), value, words, bound))
    return value


class Config:
    """What all configurations share: checks on creation, and JSON in both directions."""

    def __post_init__(self):
        for name, kind, _, spec in parameters(type(self)):
            object.__setattr__(self, name, _checked(name, kind, getattr(self, name), spec))
        self.check()

    def check(self):
        """Rules between fields; raises UserError."""

    @classmethod
    def presets(cls):
        """Named sets of values: {name: {field: value}}."""
        return {}

    @classmethod
    def implied(cls):
        """What giving a field (other than 0, no or nothing) implies: {field: {other: value}}."""
        return {}

    @classmethod
    def create(cls, explicit: Dict[str, Any], base: Dict[str, Any] = None):
        """Build from what was given: ``explicit`` wins over its preset, that over ``base``.

        ``base`` is a configuration file's content, complete or not; the preset that it names
        fills in what it leaves out. Raises UserError for an unknown name or a bad value.
        """
        known = {item.name for item in dataclasses.fields(cls)}
        values = {}
        for layer in (base or {}, explicit):
            for name in layer:
                if name not in known:
                    raise UserError("'%s' is no parameter of %s" % (name, cls.__name__))
            values.update(cls.presets().get(str(layer.get("preset")), {}))
            for name, value in layer.items():
                values.update(cls.implied().get(name, {}) if value else {})
            values.update(layer)
        return cls(**values)

    def to_dict(self):
        """All fields as JSON types (tuples become lists)."""
        return {name: list(value) if isinstance(value, tuple) else value
                for name, value in dataclasses.asdict(self).items()}

    def to_json(self):
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"


def read_json(path):
    """The dictionary in a configuration file; raises UserError when it holds none."""
    try:
        with open(path, encoding="utf-8") as stream:
            values = json.load(stream)
    except OSError as error:
        raise UserError("cannot read the configuration %s: %s" % (path, error.strerror))
    except ValueError as error:
        raise UserError("%s is not valid JSON (%s)" % (path, error))
    if not isinstance(values, dict):
        raise UserError("%s holds a %s; expected an object with one entry a parameter"
                        % (path, type(values).__name__))
    return values


def recorded(output):
    """What an earlier ``f2fd train`` recorded in its output folder; {} when there is nothing."""
    path = os.path.join(output, "train.json")
    return read_json(path) if os.path.exists(path) else {}


# Parameters that several commands share, word for word.

def _tomograms(help):
    return param((), "Tomograms", help, INPUT, positional=True)


def _half_maps(help):
    return param((), "Half-maps", help, INPUT, advanced=True)


FILTER = {
    "defocus": (0.0, "Defocus", "Defocus (positive: underfocus) of the tomogram's images, on "
                "average; 300 kV and Cs 2.7 mm are assumed.", dict(unit="µm", ge=0)),
    "phase_shift": (0.0, "Phase shift", "Phase shift of a phase plate; 0 without one.",
                    dict(unit="degrees", ge=0, le=180)),
    "phase_flipped": (False, "Phases flipped", "The CTF's phases were corrected already, before or "
                      "during the reconstruction.", {}),
    "strength": (1.0, "Strength", "The signal-to-noise ratio at low frequencies is taken to be 10 "
                 "to the power of this. Higher values lift low frequencies more.",
                 dict(ge=-10, le=10)),
    "snr_falloff": (1.0, "SNR falloff", "How fast the signal-to-noise ratio falls with frequency. "
                    "Higher values smooth more.", dict(ge=0)),
    "highpass": (0.02, "High-pass", "Frequencies below this share of Nyquist fade out, which takes "
                 "away slow gradients. 0: none.", dict(unit="share of Nyquist", ge=0, le=1)),
}


def _filter(name, **more):
    """A parameter of the deconvolution filter."""
    default, label, help, options = FILTER[name]
    return param(default, label, help, DECONVOLUTION, **dict(options, **more))


def _voxel_size():
    return param(0.0, "Voxel size", "Voxel size of the tomograms. It is needed when a header holds "
                 "none (0); results keep the one that a header has. 0: read it from the header.",
                 INPUT, unit="Å", ge=0, advanced=True)


def _seed():
    return param(0, "Random seed", "The same seed, input and machine give the same result.", RUN,
                 ge=0, lt=2 ** 31, advanced=True)


def _device():
    return param("auto", "Device", "Where to compute: auto (the first GPU, else the CPU with a "
                 "warning), cpu, cuda, cuda:N or N for GPU number N, several GPUs such as 0,1, or "
                 "all; they share the work.", RUN, alias="devices")


def _threads():
    return param(0, "CPU threads", "CPU threads of the engine. 0: all that the machine offers.",
                 RUN, ge=0, zero="all")


def _precision():
    return param("auto", "Precision", "Arithmetic of the network: bfloat16 is faster where the "
                 "hardware has it; auto uses it there and float32 elsewhere.", RUN,
                 choices=("auto", "float32", "bfloat16"), advanced=True)


def _deterministic():
    return param(False, "Deterministic", "Use only algorithms that give the same bits every time. "
                 "On the CPU that is so anyway; on a GPU it may be slower.", RUN, advanced=True)


def _compile():
    return param(False, "Compile the network", "Compile the network first (torch.compile), which "
                 "takes a minute or two. It may pay in long runs on a GPU; on the CPU it was "
                 "slower.", RUN, advanced=True)


def _overwrite():
    return param(False, "Overwrite", "Replace what an earlier run left in the output folder. "
                 "Without it, existing results are kept and the run is refused.", RUN)


def names_of(config):
    """The tomograms, or the odd half-maps where only half-maps are given."""
    return config.tomograms or config.half_maps[::2]


def check_half_maps(config):
    """Half-maps come in pairs, one pair a tomogram; raises UserError otherwise."""
    count = len(config.half_maps)
    if count % 2 or config.tomograms and count not in (0, 2 * len(config.tomograms)):
        raise UserError("--half-maps names %d files; expected two for each tomogram, odd and even"
                        % count)


def check_defocus(config, needed):
    """The deconvolution can't do without the defocus; raises UserError."""
    if needed and config.defocus == 0:
        raise UserError("--defocus is 0; expected the tomograms' defocus in µm, which the "
                        "deconvolution needs")


SAMPLE_RUN = dict(
    epochs=50, inversion_probability=0.1, mask_probability=0.5, dropout=0.8, block_size=8,
    pool_size=20, renew_pool=False, samples_per_patch=6, batch_size=2, patch_size=64, features=48,
    learning_rate=1e-4, clip=True, tv_weight=0.0, perturbation="masks", network="published",
    gradient_clip=0.0, loss="l2norm", schedule="plateau", averaging=0.0, stop_patience=100,
    augmentation="published", patch_shift=10, sphere_min=0.05, sphere_max=0.10)
"""The published program's sample run."""

PREDICTION_DEFAULTS = {
    "default": dict(predictions=4, batch_size=1, tile_size=96, pool_size=4),
    "published": dict(predictions=100, batch_size=10, tile_size=64, pool_size=20),
}
"""What 0 ("as the model's preset") means in :class:`DenoiseConfig`."""

DISTINCT_PREDICTIONS = {"points": 20, "halves": 2, "blindspot": 1}
"""Predictions of the default preset for these perturbations, whose copies lack more of the tomogram
or, without dropout, don't differ further."""

EXCLUSIVE = {"resume": {"overwrite": False}, "overwrite": {"resume": False}}
"""Giving one of these replaces the other where a recorded configuration has it."""

PERTURBATIONS = ("spectrum", "masks", "points", "blindspot", "halves")

NETWORK_MULTIPLE = {"compact": 8, "published": 32}
"""Patch and tile sides must be a multiple of this (2 to the number of poolings)."""

NETWORK_FEATURES = {"compact": 8, "published": 48}
"""What 0 features means."""


@dataclass(frozen=True)
class TrainConfig(Config):
    """Train one model on one or several tomograms."""

    tomograms: Tuple[str, ...] = _tomograms("Tomograms to train on (MRC), of any and also of "
                                            "different sizes.")
    output: str = param("", "Output folder", "Folder for the model, checkpoints, log and pictures.",
                        INPUT)
    ground_truth: Tuple[str, ...] = param(
        (), "Ground truth", "Noise-free volumes, one a tomogram and in the same order. Used for "
        "the scores in the log (SSIM, PSNR), never for training.", INPUT, advanced=True)
    half_maps: Tuple[str, ...] = _half_maps(
        "Two half-maps a tomogram (MRC), odd and even, in the tomograms' order: the network then "
        "learns from one half to the other (perturbation halves). The tomograms themselves need "
        "not be given.")
    voxel_size: float = _voxel_size()
    clip: bool = param(
        True, "Clip outliers", "Clip intensities to the 0.05 % and 99.95 % quantiles before "
        "standardising, so that gold beads and hot voxels don't set the scale.", INPUT,
        advanced=True, original="clip")

    preset: str = param(
        "default", "Method", "default: noise-matched perturbation with the compact network. "
        "published: every value of the published F2Fd's sample run, which takes far longer. "
        "Other options given beside it win over the preset.", TRAINING,
        choices=("default", "published"))
    initial_model: str = param(
        "", "Initial model", "Model file to start from instead of random weights, made on "
        "tomograms like these. Its network must be the one chosen here.", TRAINING, advanced=True)
    steps: int = param(
        0, "Training steps", "Number of training steps (batches). 0: as many as it takes until the "
        "loss on parts that are kept from the training is flat, and the best model of them.",
        TRAINING, unit="steps", ge=0, zero="auto")
    epochs: int = param(
        0, "Epochs", "Train for this many epochs instead of a number of steps; one epoch visits "
        "every patch of the grid once. 0: use the number of steps.", TRAINING, unit="epochs", ge=0,
        zero="by steps", advanced=True, original="epochs")
    patch_size: int = param(
        48, "Patch size", "Side of the cubic training patches. Larger patches see more context "
        "and need more memory. A multiple of 8 (compact network) or 32 (published network); "
        "tomograms thinner than a patch are padded by reflection.", TRAINING, unit="voxels", ge=16,
        original="subtomo_length")
    batch_size: int = param(
        4, "Patches per batch", "Patches in a batch. Larger batches train more smoothly and need "
        "more GPU memory.", TRAINING, ge=1, original="batch_size")
    samples_per_patch: int = param(
        1, "Pairs per patch", "Perturbed pairs of each patch in a batch; the network sees "
        "patches x pairs volumes a step.", TRAINING, ge=1, advanced=True,
        original="n_bernoulli_samples")
    learning_rate: float = param(
        1e-3, "Learning rate", "Learning rate of the Adam optimizer at the start.", TRAINING, gt=0,
        le=1, advanced=True, original="lr")
    schedule: str = param(
        "constant", "Learning rate schedule", "constant: stays, after a short rise. cosine: falls "
        "to zero along half a cosine, for a given number of steps. plateau: divided by 10 after 10 "
        "epochs without a lower loss (published).",
        TRAINING, choices=("constant", "cosine", "plateau"), advanced=True)
    averaging: float = param(
        0.1, "Average the weights over", "The model is the mean of the network's weights over this "
        "last share of the steps, which takes out the noise of single batches. 0: the last weights "
        "(published).", TRAINING, ge=0, le=0.5, zero="off", advanced=True)
    gradient_clip: float = param(
        0.5, "Gradient clipping", "Longer gradients are cut to this norm, which keeps an odd batch "
        "from spoiling the training. 0: never (published).", TRAINING, ge=0, advanced=True)
    loss: str = param(
        "mse", "Loss", "mse: mean squared error. l2norm: unsquared L2 norm of each sample's "
        "difference (published).", TRAINING, choices=("mse", "l2norm"), advanced=True)
    tv_weight: float = param(
        0.0, "Total variation weight", "Weight of the anisotropic total variation of the "
        "prediction in the loss. Above 0 smooths the result.", TRAINING, ge=0, advanced=True,
        original="alpha")
    stop_patience: int = param(
        0, "Stop after flat epochs", "Stop when the epoch's loss has not fallen by 0.0001 for "
        "this many epochs. 0: train all steps.", TRAINING, unit="epochs", ge=0, advanced=True)
    patch_shift: int = param(
        24, "Random shift of patches", "Each patch of the grid is shifted by up to this many "
        "voxels along every axis when it is drawn.", TRAINING, unit="voxels", ge=0, advanced=True)
    augmentation: str = param(
        "wedge", "Augmentation", "wedge: half turns about X and Y, which map the missing wedge "
        "onto itself. published: the same and quarter turns about Z, which don't. none: patches "
        "as they are.", TRAINING, choices=("wedge", "published", "none"), advanced=True)

    perturbation: str = param(
        "spectrum", "Perturbation", "How the noisy copies are made. spectrum: adds noise that has "
        "the tomogram's own noise spectrum to one copy and subtracts it from the other. masks: "
        "drops blocks of Fourier coefficients and inverts signs (published). points: hides voxels "
        "and predicts them from the others (Self2Self). blindspot: replaces voxels by neighbours "
        "and predicts them (Noise2Void). halves: no copies, one half-map predicts the other (as "
        "Cryo-CARE does).", PERTURBATION, choices=PERTURBATIONS, original="dataset")
    noise_scale: float = param(
        0.5, "Noise scale", "The input gets this many times the tomogram's noise added, the "
        "target has 1 / this subtracted. Below 1 the input keeps more signal.", PERTURBATION,
        ge=0.05, le=20, advanced=True, only=("perturbation", "spectrum"))
    spectrum_window: int = param(
        64, "Spectrum window", "Side of the windows on which the noise spectrum is estimated. "
        "Larger windows resolve finer spectra; small tomograms get smaller ones by themselves.",
        PERTURBATION, unit="voxels", ge=8, le=128, advanced=True, only=("perturbation", "spectrum"))
    spectrum_share: float = param(
        0.5, "Windows without signal", "Share of the windows, those with the lowest power, from "
        "which the noise is first estimated. More make a steadier estimate, fewer one that is less "
        "led astray by signal.", PERTURBATION, gt=0, le=1, advanced=True,
        only=("perturbation", "spectrum"))
    spared_frequency: float = param(
        0.1, "Spared low frequencies", "Below this frequency signal is everywhere and the noise "
        "cannot be told from it: the perturbation fades out there at first, and later continues "
        "there by a power law.", PERTURBATION,
        unit="cycles per voxel", ge=0, le=0.5, advanced=True, only=("perturbation", "spectrum"))
    noise_gain: bool = param(
        True, "Noise varies in space", "Measure how the noise's strength changes with depth and "
        "towards the borders, and make the copies' noise alike.", PERTURBATION, advanced=True,
        only=("perturbation", "spectrum"))
    refine_every: int = param(
        100, "Refine the spectrum every", "At the first four multiples of so many steps the noise "
        "spectrum is estimated anew from what the network removes, in which there is less and less "
        "signal. 0: never.", PERTURBATION, unit="steps", ge=0, zero="never", advanced=True,
        only=("perturbation", "spectrum"))
    point_probability: float = param(
        0.3, "Hidden points", "Probability that a voxel is hidden.", PERTURBATION, gt=0, lt=1,
        advanced=True, only=("perturbation", "points"))
    block_probability: float = param(
        0.0, "Blocks instead of points", "Probability that blocks of voxels are hidden in a copy, "
        "instead of single ones.", PERTURBATION, ge=0, le=1, advanced=True,
        only=("perturbation", "points"), original="Vmask_probability")
    blind_share: float = param(
        0.02, "Blind voxels", "Share of the voxels that are replaced by a neighbour and predicted.",
        PERTURBATION, gt=0, le=0.5, advanced=True, only=("perturbation", "blindspot"))
    blind_reach: int = param(
        0, "Structured mask", "Voxels to both sides of a blind one, along all three axes, that are "
        "replaced, too: as far as the noise of neighbours is alike. 0: the voxel alone.",
        PERTURBATION, unit="voxels", ge=0, le=8, advanced=True, only=("perturbation", "blindspot"))
    mask_probability: float = param(
        0.5, "Mask probability", "Probability that a block (of Fourier coefficients or, with "
        "points, of voxels) is dropped.", PERTURBATION, ge=0, lt=1, advanced=True,
        only=("perturbation", "masks", "points"), original="Vmask_pct")
    inversion_probability: float = param(
        0.1, "Sign inversion probability", "Probability that a Fourier coefficient changes sign.",
        PERTURBATION, ge=0, le=1, advanced=True, only=("perturbation", "masks"), original="p")
    block_size: int = param(
        8, "Block size", "Side of the blocks (of Fourier coefficients or, with points, of voxels) "
        "that are kept or dropped together.", PERTURBATION, unit="(Fourier) voxels", ge=1,
        advanced=True, only=("perturbation", "masks", "points"),
        original="volumetric_scale_factor")
    sphere_min: float = param(
        0.05, "Smallest kept sphere", "The sphere of low frequencies that is always kept holds at "
        "least this share of the spectrum's volume.", PERTURBATION, ge=0, le=0.5, advanced=True,
        only=("perturbation", "masks"))
    sphere_max: float = param(
        0.10, "Largest kept sphere", "The sphere of low frequencies that is always kept holds at "
        "most this share of the spectrum's volume.", PERTURBATION, ge=0, le=0.5, advanced=True,
        only=("perturbation", "masks"))
    pool_size: int = param(
        20, "Pool of samples", "Perturbed copies of the whole tomogram in a temporary file; each "
        "patch draws its pairs from them without replacement.", PERTURBATION, ge=2, advanced=True,
        only=("perturbation", "masks"), original="total_samples")
    renew_pool: bool = param(
        True, "Renew the pool", "Replace one copy of the pool by a new one at every step. The "
        "published program keeps the same copies throughout.", PERTURBATION, advanced=True,
        only=("perturbation", "masks"))

    network: str = param(
        "compact", "Network", "compact: a small U-Net with three poolings, fast on any machine. "
        "published: the published U-Net with partial convolutions and five poolings.", NETWORK,
        choices=("compact", "published"), advanced=True)
    features: int = param(
        0, "Features", "Feature maps at full resolution. More features cost time and memory in "
        "proportion to their square. 0: the network's own (compact 8, published 48).", NETWORK,
        ge=0, zero="automatic", advanced=True, original="n_features")
    dropout: float = param(
        0.0, "Dropout", "Dropout probability in the decoder, in training and in prediction.",
        NETWORK, ge=0, lt=1, advanced=True, original="dropout_p")

    deconvolve: bool = param(
        False, "Deconvolve first", "Filter the tomograms with the Wiener-like deconvolution before "
        "training; denoising then does the same.", DECONVOLUTION, advanced=True,
        original="deconv_kwargs")
    defocus: float = _filter("defocus", advanced=True, only=("deconvolve",))
    phase_shift: float = _filter("phase_shift", advanced=True, only=("deconvolve",))
    phase_flipped: bool = _filter("phase_flipped", advanced=True, only=("deconvolve",))
    strength: float = _filter("strength", advanced=True, only=("deconvolve",))
    snr_falloff: float = _filter("snr_falloff", advanced=True, only=("deconvolve",))
    highpass: float = _filter("highpass", advanced=True, only=("deconvolve",))

    seed: int = _seed()
    checkpoint_every: int = param(
        100, "Checkpoint every", "Steps between two checkpoints, from which a stopped run can be "
        "resumed; the preview in slices.png is drawn then, too.", RUN, unit="steps", ge=1,
        advanced=True)
    resume: bool = param(
        False, "Resume", "Continue from the newest checkpoint in the output folder.", RUN)
    overwrite: bool = _overwrite()
    device: str = _device()
    threads: int = _threads()
    precision: str = _precision()
    deterministic: bool = _deterministic()
    compile: bool = _compile()

    @classmethod
    def presets(cls):
        return {"published": SAMPLE_RUN}

    @classmethod
    def implied(cls):
        return dict(EXCLUSIVE, steps={"epochs": 0}, half_maps={"perturbation": "halves"})

    def check(self):
        multiple = NETWORK_MULTIPLE[self.network]
        if self.patch_size % multiple:
            raise UserError("--patch-size is %d; expected a multiple of %d for the %s network"
                            % (self.patch_size, multiple, self.network))
        if self.sphere_min > self.sphere_max:
            raise UserError("--sphere-min is %g; expected at most --sphere-max, which is %g"
                            % (self.sphere_min, self.sphere_max))
        if self.perturbation == "points" and self.block_size > self.patch_size:
            raise UserError("--block-size is %d; expected at most --patch-size, which is %d"
                            % (self.block_size, self.patch_size))
        if self.perturbation == "masks" and self.pool_size < 2 * self.samples_per_patch:
            raise UserError("--pool-size is %d; expected at least %d, twice --samples-per-patch"
                            % (self.pool_size, 2 * self.samples_per_patch))
        check_half_maps(self)
        names = self.names()
        if names and (self.perturbation == "halves") != bool(self.half_maps):
            raise UserError("--perturbation is %s and --half-maps names %d files; expected halves "
                            "with half-maps, and another without"
                            % (self.perturbation, len(self.half_maps)))
        if names and self.schedule == "cosine" and self.automatic():
            raise UserError("--schedule is cosine and --steps 0 (auto); expected a number of steps "
                            "or another schedule")
        if self.ground_truth and len(self.ground_truth) != len(names):
            raise UserError("--ground-truth names %d volumes; expected %d, one for each tomogram"
                            % (len(self.ground_truth), len(names)))
        check_defocus(self, self.deconvolve and bool(names))
        if self.resume and self.overwrite:
            raise UserError("--resume and --overwrite exclude each other; expected one of them")

    def names(self):
        """The paths by which the tomograms are called: their own, or those of the odd halves."""
        return names_of(self)

    def check_devices(self, count):
        """Every device needs a patch of each batch; raises UserError."""
        if self.batch_size < count:
            raise UserError("--batch-size is %d; expected at least %d, a patch for every device"
                            % (self.batch_size, count))

    def automatic(self):
        """Whether the number of steps is found during the training."""
        return not (self.steps or self.epochs)

    def refines(self):
        """Whether the noise spectrum is estimated again during the training."""
        return self.perturbation == "spectrum" and self.refine_every > 0

    def network_features(self):
        """Features of the network, with 0 replaced by the network's own number."""
        return self.features or NETWORK_FEATURES[self.network]

    def prediction_defaults(self):
        """What 0 means in a DenoiseConfig for models of this training, {field: value}."""
        defaults = dict(PREDICTION_DEFAULTS[self.preset])
        if self.preset == "default":
            distinct = DISTINCT_PREDICTIONS.get(self.perturbation, 0)
            least = defaults["predictions"] if self.dropout else 0
            defaults["predictions"] = max(distinct, least) or defaults["predictions"]
        return defaults


@dataclass(frozen=True)
class DenoiseConfig(Config):
    """Denoise tomograms with a trained model."""

    model: str = param("", "Model", "Model file that 'f2fd train' wrote (model.pt or a "
                       "checkpoint).", INPUT, positional=True)
    tomograms: Tuple[str, ...] = _tomograms("Tomograms to denoise (MRC), of any size.")
    output: str = param("", "Output folder", "Folder for the denoised tomograms and pictures.",
                        INPUT)
    half_maps: Tuple[str, ...] = _half_maps(
        "Two half-maps a tomogram (MRC), odd and even, for models that were trained on half-maps: "
        "both are denoised and averaged. The result has the tomogram's name if that is given, "
        "else the odd half's.")
    defocus: float = param(
        0.0, "Defocus", "Defocus of these tomograms, for models that were trained on deconvolved "
        "ones. 0: that of the training.", INPUT, unit="µm", ge=0, zero="as trained",
        advanced=True)
    voxel_size: float = _voxel_size()

    predictions: int = param(
        0, "Predictions", "Predictions that are averaged, each on a new noisy copy and with new "
        "dropout. More are smoother, in proportionally more time. 0: as the model's preset says "
        "(default 4, with points 20, halves 2, blindspot 1; published 100).", PREDICTION, ge=0,
        zero="automatic", original="predict_N_times")
    batch_size: int = param(
        0, "Predictions per batch", "Noisy copies of a tile that the network takes at once. Lower "
        "it if the GPU's memory does not suffice. 0: on the CPU as the model's preset says "
        "(default 1, published 10); on a GPU all that its free memory has room for (published at "
        "most 10).", PREDICTION, ge=0, zero="automatic", advanced=True,
        original="n_bernoulli_samples_prediction")
    tile_size: int = param(
        0, "Tile size", "Side of the cubic tiles in which the tomogram is denoised; they overlap "
        "and are blended. Lower it if the GPU's memory does not suffice. 0: as the model's preset "
        "says (default 96, published 64), smaller where a GPU's free memory is too small for it.",
        PREDICTION, unit="voxels", ge=0, zero="automatic",
        advanced=True)
    pool_size: int = param(
        0, "Pool of samples", "Perturbed copies of the whole tomogram in a temporary file, for "
        "models trained with masks. 0: as the model's preset says (default 4, published 20).",
        PREDICTION, ge=0, zero="automatic", advanced=True, original="total_samples_prediction")
    std: bool = param(
        False, "Standard deviation map", "Also write <name>_std.mrc, the standard deviation over "
        "the predictions: where it is high, trust the result less.", PREDICTION)

    seed: int = _seed()
    resume: bool = param(False, "Skip finished", "Skip tomograms whose denoised file exists.", RUN)
    overwrite: bool = _overwrite()
    device: str = _device()
    threads: int = _threads()
    precision: str = _precision()
    deterministic: bool = _deterministic()
    compile: bool = _compile()

    def check(self):
        if self.resume and self.overwrite:
            raise UserError("--resume and --overwrite exclude each other; expected one of them")
        check_half_maps(self)

    def names(self):
        """The paths by which the tomograms are called: their own, or those of the odd halves."""
        return names_of(self)

    def without(self, finished):
        """The same for the tomograms whose names are not among the ``finished``."""
        left = [number for number, name in enumerate(self.names()) if name not in finished]
        return dataclasses.replace(
            self, tomograms=tuple(self.tomograms[number] for number in left if self.tomograms),
            half_maps=tuple(path for number in left for path in
                            self.half_maps[2 * number:2 * number + 2]))

    @classmethod
    def implied(cls):
        return EXCLUSIVE

    def for_model(self, train_config):
        """Replace every 0 by the value of the model's preset and check against the model."""
        if (train_config.perturbation == "halves") != bool(self.half_maps):
            raise UserError("--half-maps names %d files; expected %s for a model trained with the "
                            "perturbation %s" % (len(self.half_maps), "none" if self.half_maps
                                                 else "two a tomogram", train_config.perturbation))
        if self.defocus and not train_config.deconvolve:
            raise UserError("--defocus is %g; expected 0, since the model was trained on tomograms "
                            "that were not deconvolved" % self.defocus)
        filled = dataclasses.replace(
            self, **{name: getattr(self, name) or value
                     for name, value in train_config.prediction_defaults().items()})
        if train_config.perturbation == "halves" and filled.predictions % 2:
            raise UserError("--predictions is %d; expected an even number, since the half-maps are "
                            "taken in turn" % filled.predictions)
        if filled.std and filled.predictions == 1:
            raise UserError("--predictions is 1; expected at least 2 for --std")
        multiple = NETWORK_MULTIPLE[train_config.network]
        if filled.tile_size % multiple:
            raise UserError("--tile-size is %d; expected a multiple of %d for the model's %s "
                            "network" % (filled.tile_size, multiple, train_config.network))
        return filled


@dataclass(frozen=True)
class SimulateConfig(Config):
    """Write a synthetic tomogram with its ground truth."""

    output: str = param("", "Output folder", "Folder for the simulated volumes.", INPUT,
                        positional=True)
    shape: Tuple[int, ...] = param((96, 192, 192), "Shape", "Size of the volume, Z Y X.", INPUT,
                                   unit="voxels", ge=16, length=3)
    voxel_size: float = param(10.0, "Voxel size", "Voxel size of the volume.", INPUT, unit="Å",
                              gt=0)
    snr: float = param(0.1, "Signal-to-noise ratio", "Variance of the signal over the variance of "
                       "the noise in the untilted projection.", INPUT, gt=0)
    specimen: str = param("cell", "Specimen", "cell: vesicles, sheets, macromolecules and spheres. "
                          "crowded: the same, a third of the volume full. spheres: spheres of "
                          "several sizes only. empty: nothing but noise.", INPUT,
                          choices=("cell", "crowded", "spheres", "empty"))
    tilt_range: float = param(60.0, "Tilt range", "Tilts run from minus to plus this angle.", INPUT,
                              unit="degrees", gt=0, le=90)
    tilt_step: float = param(3.0, "Tilt step", "Angle between two tilts.", INPUT, unit="degrees",
                             gt=0, le=30)
    defocus: float = param(3.0, "Defocus", "Defocus of the microscope (300 kV, Cs 2.7 mm).", INPUT,
                           unit="µm", ge=0)
    sirt_iterations: int = param(0, "SIRT-like filter", "Reconstruct with IMOD's SIRT-like filter "
                                 "for this many iterations, which passes low frequencies and "
                                 "dampens high ones. 0: weighted back-projection.", INPUT,
                                 unit="iterations", ge=0, zero="off")
    seed: int = _seed()
    overwrite: bool = _overwrite()


@dataclass(frozen=True)
class EvaluateConfig(Config):
    """Score a denoised tomogram against a reference."""

    denoised: str = param("", "Denoised tomogram", "The tomogram to score (MRC).", INPUT,
                          positional=True)
    reference: str = param("", "Reference", "Noise-free volume of the same size (MRC).", INPUT)
    noisy: str = param("", "Noisy tomogram", "The tomogram before denoising (MRC): scored too, "
                       "for comparison.", INPUT)
    membrane: str = param("", "Membrane mask", "Mask of the true membranes (MRC, above 0.5 "
                          "inside): adds the average precision of a ridge filter's membrane map.",
                          INPUT)


BENCHMARK_CASES = ("cell", "spheres", "crowded", "sirt", "uneven", "lowpass", "binned", "int8",
                   "empty", "noisefree")
FILTERS = ("gaussian", "tv", "nlm", "deconvolve")
BENCHMARK_METHODS = FILTERS + ("spectrum", "masks", "points", "blindspot", "halves", "published")


@dataclass(frozen=True)
class BenchmarkConfig(Config):
    """Compare all methods on simulated tomograms or on one of yours."""

    output: str = param("", "Output folder", "Folder for the tables (scores.csv, scores.md), the "
                        "picture and the volumes.", INPUT, positional=True)
    tomogram: str = param("", "Tomogram", "A tomogram of yours (MRC) instead of simulated ones. "
                          "Scores then need a reference or half-maps.", INPUT)
    half_maps: Tuple[str, ...] = param(
        (), "Half-maps", "Its half-maps, odd and even (MRC): adds the method 'halves', and for the "
        "others the Fourier shell correlation between both halves, each denoised by a model of "
        "its own.", INPUT)
    reference: str = param("", "Reference", "A volume of the same size (MRC) to score your "
                           "tomogram's results against.", INPUT)
    membrane: str = param("", "Membrane mask", "Mask of the membranes in your tomogram (MRC, above "
                          "0.5 inside).", INPUT)
    defocus: float = param(3.0, "Defocus", "Defocus of the simulation or of your tomogram, for the "
                           "deconvolution.", INPUT, unit="µm", gt=0)
    cases: Tuple[str, ...] = param(
        ("cell", "spheres"), "Cases", "Simulated tomograms. cell, spheres, crowded, empty: the "
        "specimen; the others are a cell: sirt: SIRT-like reconstruction; uneven: noise that "
        "changes with depth and towards the borders; lowpass, binned: without the highest "
        "frequencies; int8: rounded to 256 values; noisefree.", INPUT, choices=BENCHMARK_CASES)
    shape: Tuple[int, ...] = param((64, 128, 128), "Shape", "Size of the simulated volumes, Z Y "
                                   "X.", INPUT, unit="voxels", ge=32, length=3)
    snr: Tuple[float, ...] = param((0.1,), "Signal-to-noise ratios", "Variance of the signal over "
                                   "the variance of the noise in the untilted projection.", INPUT,
                                   gt=0)
    seeds: Tuple[int, ...] = param((1,), "Seeds", "Seeds of the simulations; the tables give the "
                                   "mean over them.", INPUT, ge=0, lt=2 ** 31)
    methods: Tuple[str, ...] = param(
        BENCHMARK_METHODS[:-1], "Methods", "What to compare. gaussian, tv (total variation) and "
        "nlm (non-local means) need scikit-image; published is the whole published program, which "
        "takes long.", TRAINING, choices=BENCHMARK_METHODS)
    steps: int = param(300, "Training steps", "Steps of the default method, spectrum.", TRAINING,
                       unit="steps", ge=1)
    equal: str = param("time", "Equal", "What the other learned methods get as much of as the "
                       "default: time of training, or steps.", TRAINING, choices=("time", "steps"))
    published_steps: int = param(
        0, "Published steps", "Steps of the published program, which counts neither in time nor in "
        "steps like the others. 0: as the others.", TRAINING, unit="steps", ge=0,
        zero="as the others")
    threads: int = _threads()
    device: str = _device()
    overwrite: bool = _overwrite()

    def check(self):
        if not self.tomogram:
            for name in ("half_maps", "reference", "membrane"):
                if getattr(self, name):
                    raise UserError("%s is given without --tomogram; expected both" % flag(name))
        if len(self.half_maps) not in (0, 2):
            raise UserError("--half-maps names %d files; expected two, odd and even"
                            % len(self.half_maps))


@dataclass(frozen=True)
class DeconvolveConfig(Config):
    """Filter tomograms with the Wiener-like deconvolution; no training."""

    tomograms: Tuple[str, ...] = _tomograms("Tomograms to filter (MRC), of any size.")
    output: str = param("", "Output folder", "Folder for the filtered tomograms.", INPUT)
    voxel_size: float = _voxel_size()
    defocus: float = _filter("defocus")
    phase_shift: float = _filter("phase_shift")
    phase_flipped: bool = _filter("phase_flipped")
    strength: float = _filter("strength")
    snr_falloff: float = _filter("snr_falloff")
    highpass: float = _filter("highpass", advanced=True)
    threads: int = _threads()
    overwrite: bool = _overwrite()

    def check(self):
        check_defocus(self, bool(self.tomograms))


@dataclass(frozen=True)
class InfoConfig(Config):
    """Print versions, devices and memory, or what a model file holds."""

    model: str = param("", "Model", "Model file to describe.", INPUT, positional=True)
    benchmark: bool = param(
        False, "Benchmark", "Measure this machine for about half a minute: how long training and "
        "denoising with the default settings take, and how much memory they need.", RUN)
    shape: Tuple[int, ...] = param((256, 512, 512), "Shape", "Size Z Y X of the tomogram that "
                                   "--benchmark speaks of.", RUN, unit="voxels", ge=8, length=3)
    device: str = _device()
    threads: int = _threads()
