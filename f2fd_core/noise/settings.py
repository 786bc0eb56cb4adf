"""How the noise is estimated."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NoiseSettings:
    """How the noise is estimated; docs/method.md ("The noise") says what each step is worth.

    Attributes
    ----------
    window : int
        Largest side (voxels) of the windows of Welch's method.
    share : float
        This share of the windows, those with the lowest power, counts as noise.
    lowest_frequency : float
        Cycles per voxel; below it noise fades out as far as there is signal.
    fading : float
        How steeply (a power of the frequency) noise fades out where all is signal.
    falling : bool
        Whether the level A(|k|) may fall towards Nyquist.
    by_angle : bool
        Whether the share of noise far from the tilt axis is found by the power near it.
    near_axis : bool
        Whether signal is looked for near the tilt axis, where all tilts add up.
    hardly_any : float
        The share of signal in a zone of angles up to which all of it counts as noise.
    profile : bool
        Whether the strength of the noise may change in space.
    matter_free : bool
        Whether places without matter are looked for.
    """

    window: int = 64
    share: float = 0.5
    lowest_frequency: float = 0.075
    fading: float = 3.0
    falling: bool = True
    by_angle: bool = True
    near_axis: bool = True
    hardly_any: float = 0.25
    profile: bool = True
    matter_free: bool = True


DEFAULT = NoiseSettings()
