"""Parameters by which commands take the tomograms of a copick project."""

from dataclasses import dataclass

from f2fd_core.config.parameter import INPUT, Config, param


@dataclass(frozen=True)
class ProjectConfig(Config):
    """The tomograms of a copick project, beside or instead of files."""

    copick: str = param(
        "",
        "copick project",
        "Configuration (JSON) of a copick project whose tomograms are used: those of the runs "
        "named in place of TOMOGRAMS, or all. --voxel-size chooses among several voxel spacings. "
        "The results of f2fd denoise and f2fd run go into the project, as tomograms of the type "
        "<type>-f2fd; pictures and everything else go to the output folder.",
        INPUT,
        advanced=True,
    )
    tomo_type: str = param(
        "",
        "Tomogram type",
        "Type of the tomograms in the copick project.",
        INPUT,
        advanced=True,
        text="TYPE",
    )
