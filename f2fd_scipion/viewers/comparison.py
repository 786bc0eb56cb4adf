"""Tomograms before and after denoising, side by side, section by section.

Sections lie as in 3dmod: Y goes up or, in XZ, Z; Z goes to the right in YZ.
"""

import numpy as np
from matplotlib.widgets import RadioButtons, Slider
from pwem.viewers import EmPlotter

from f2fd_core.data import mrc

DIRECTIONS = ("XY", "XZ", "YZ")  # the sections across Z, Y and X
QUANTILES = (0.01, 0.99)
FILLED = "missing wedge filled (predicted)"
GRAY = "gray"
HEAT = "inferno"


def voxels(path):
    """The voxels of an MRC file, (Z, Y, X), read as they are looked at. Raises UserError."""
    return mrc.open_volume(path, voxel_size=1.0).data  # a header may hold no voxel size


class Comparison(EmPlotter):
    """A window with sections before, after and what was removed, and of the tomogram with its
    missing wedge filled and the standard deviation, where they are there.

    One slider moves all sections, another stretches the contrast, which is the same for all
    tomograms; buttons choose the direction.
    """

    def __init__(self, before, after, deviation=None, title="", first=(0, 0, 0), filled=None):
        """``before``, ``after`` and, if there are any, ``deviation`` and ``filled``: arrays
        (Z, Y, X); ``first``: their first voxel in the tomogram, by whose sections they are
        numbered."""
        names = ["before", "denoised", "removed"]
        names += [FILLED] if filled is not None else []
        names += ["standard deviation"] if deviation is not None else []
        count = len(names)
        super().__init__(x=1, y=count, windowTitle=title, figsize=(4 * count, 5))
        self.tightLayoutOn = False
        self.before, self.after, self.deviation, self.filled = before, after, deviation, filled
        self.first = first
        self.axis = 0
        self.panels = {name: self.createSubPlot(name, None, None) for name in names}
        self.images = {
            name: axes.imshow(
                np.zeros((1, 1)),
                cmap=HEAT if name == "standard deviation" else GRAY,
                interpolation="nearest",
                origin="lower",
            )
            for name, axes in self.panels.items()
        }
        self.figure.subplots_adjust(left=0.01, right=0.99, top=0.92, bottom=0.24, wspace=0.03)
        self.place = Slider(
            self.figure.add_axes([0.22, 0.12, 0.6, 0.04]), "section", 0, 1, valstep=1
        )
        self.contrast = Slider(
            self.figure.add_axes([0.22, 0.05, 0.6, 0.04]), "contrast", -2, 2, valinit=0
        )
        self.contrast.valtext.set_visible(False)
        self.place.vline.set_visible(False)  # which would mark the first section
        self.direction = RadioButtons(self.figure.add_axes([0.02, 0.02, 0.08, 0.18]), DIRECTIONS)
        self.place.on_changed(lambda _: self.refresh())
        self.contrast.on_changed(lambda _: self.refresh())
        self.direction.on_clicked(self.turn)
        self.turn(DIRECTIONS[0])

    def turn(self, direction):
        """Show the central section of a direction, one of DIRECTIONS."""
        self.axis = DIRECTIONS.index(direction)
        length, first = self.after.shape[self.axis], self.first[self.axis]
        self.place.valmin, self.place.valmax = first, first + max(length - 1, 1)
        self.place.ax.set_xlim(self.place.valmin, self.place.valmax)
        middle = first + length // 2
        before, after = (self._section(volume, middle) for volume in (self.before, self.after))
        # Between both: noise outweighs what is seen in one, and bleaches it in the other.
        (low, high), (darkest, brightest) = (
            np.quantile(part, QUANTILES) for part in (before, after)
        )
        self.centre = (darkest + brightest) / 2
        self.reach = max(np.sqrt((high - low) * (brightest - darkest)) / 2, 1e-30)
        self.place.set_val(middle)
        self.refresh()

    def _section(self, volume, number):
        section = np.asarray(
            volume.take(number - self.first[self.axis], self.axis), dtype=np.float32
        )
        return section.T if DIRECTIONS[self.axis] == "YZ" else section

    def refresh(self):
        """Draw the section at which the slider stands."""
        number = int(self.place.val)
        before, after = (self._section(volume, number) for volume in (self.before, self.after))
        reach = self.reach / 2**self.contrast.val
        shown = {
            "before": (before, self.centre - reach, self.centre + reach),
            "denoised": (after, self.centre - reach, self.centre + reach),
            "removed": (before - after, -reach, reach),
        }
        if self.filled is not None:
            filled = self._section(self.filled, number)
            shown[FILLED] = filled, self.centre - reach, self.centre + reach
        if self.deviation is not None:
            deviation = self._section(self.deviation, number)
            shown["standard deviation"] = deviation, 0, max(np.quantile(deviation, 0.99), 1e-30)
        for name, (section, low, high) in shown.items():
            image, (height, width) = self.images[name], section.shape
            image.set_data(section)
            image.set_extent((-0.5, width - 0.5, -0.5, height - 0.5))
            image.set_clim(low, high)
        self.figure.canvas.draw_idle()
