"""The one definition of every parameter: command line, Scipion form, help and documentation.

Only the standard library, and Python 3.8: the Scipion plugin imports this module in an
environment that has neither torch nor numpy.
"""

from f2fd_core.config.aliases import names_before
from f2fd_core.config.check import CheckConfig
from f2fd_core.config.denoise import DenoiseConfig
from f2fd_core.config.filtering import CTF
from f2fd_core.config.migrations import GONE, migrate, recorded
from f2fd_core.config.networks import (
    NETWORK_MULTIPLE,
    START_NETWORK,
    START_PATCH,
    START_PERTURBATIONS,
)
from f2fd_core.config.parameter import UserError, brief, flag, item_type, parameters, read_json
from f2fd_core.config.perturbing import PERTURBATIONS
from f2fd_core.config.prediction import (
    PREDICTION_DEFAULTS,
    PRETRAINED,
    WEDGE_PRESERVING_FLIPS,
    prediction_defaults,
    tta_flips,
    unperturbed,
)
from f2fd_core.config.project import ProjectConfig
from f2fd_core.config.run import RunConfig
from f2fd_core.config.shared import MINIMUM_SIDE, VOXEL_SIZES
from f2fd_core.config.simulate import SimulateConfig
from f2fd_core.config.tools import (
    FILTERS,
    BenchmarkConfig,
    DeconvolveConfig,
    EvaluateConfig,
    InfoConfig,
)
from f2fd_core.config.train import TrainConfig

__all__ = [
    "CTF",
    "FILTERS",
    "WEDGE_PRESERVING_FLIPS",
    "MINIMUM_SIDE",
    "NETWORK_MULTIPLE",
    "PERTURBATIONS",
    "PREDICTION_DEFAULTS",
    "PRETRAINED",
    "START_NETWORK",
    "START_PATCH",
    "START_PERTURBATIONS",
    "BenchmarkConfig",
    "CheckConfig",
    "DeconvolveConfig",
    "DenoiseConfig",
    "EvaluateConfig",
    "InfoConfig",
    "ProjectConfig",
    "RunConfig",
    "SimulateConfig",
    "TrainConfig",
    "UserError",
    "VOXEL_SIZES",
    "brief",
    "flag",
    "item_type",
    "parameters",
    "prediction_defaults",
    "tta_flips",
    "unperturbed",
    "read_json",
    "names_before",
    "recorded",
    "migrate",
    "GONE",
]
