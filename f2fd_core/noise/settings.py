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
        This share of the windows, those with the lowest power, gives the level.
    counted : float
        So much of what is left out counts as noise: in crowded cells networks leave out signal.
    varying : bool
        Whether what varies over the windows of what is left out counts as signal.
    removed : bool
        Whether it is measured how much of the noise the network removes.
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
    counted: float = 0.9
    varying: bool = True
    removed: bool = True
    near_axis: bool = True
    hardly_any: float = 0.25
    profile: bool = True
    matter_free: bool = True


DEFAULT = NoiseSettings()
