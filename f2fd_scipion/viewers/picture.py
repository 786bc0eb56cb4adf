"""Show the pictures that the engine draws."""

import os

from matplotlib import image
from matplotlib.widgets import Slider
from pwem.viewers import EmPlotter

WIDTH = 12  # at most, in inches
PIXELS_PER_INCH = 100
SLIDER = 0.5  # inches


class Pictures(EmPlotter):
    """A window with picture files in their own proportions; with several, a slider chooses."""

    def __init__(self, paths, title):
        """``paths``: at least one; the last is shown first."""
        self.paths = paths
        pixels = image.imread(paths[-1])
        height, width = pixels.shape[:2]
        inches = min(WIDTH, width / PIXELS_PER_INCH)
        tall = inches * height / width
        room = SLIDER if len(paths) > 1 else 0
        super().__init__(windowTitle=title, figsize=(inches, tall + room))
        self.tightLayoutOn = False
        axes = self.createSubPlot("", None, None)
        axes.set_position([0, room / (tall + room), 1, tall / (tall + room)])
        self.image = axes.imshow(pixels)
        if len(paths) > 1:
            self.slider = Slider(
                self.figure.add_axes([0.15, 0.02, 0.6, 0.05]),
                "",
                1,
                len(paths),
                valinit=len(paths),
                valstep=1,
            )
            self.slider.on_changed(self.choose)
            self.choose(len(paths))

    def choose(self, number):
        """Show the picture of this number, counted from 1."""
        path = self.paths[int(number) - 1]
        self.image.set_data(image.imread(path))
        self.slider.valtext.set_text(os.path.splitext(os.path.basename(path))[0])
        self.figure.canvas.draw_idle()
