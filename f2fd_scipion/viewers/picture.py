"""Show the pictures that the engine draws."""
from matplotlib import image
from pwem.viewers import EmPlotter

WIDTH = 12  # at most, in inches
PIXELS_PER_INCH = 100


def show_picture(path, title):
    """A plotter (window) with a picture file in its own proportions."""
    pixels = image.imread(path)
    height, width = pixels.shape[:2]
    inches = min(WIDTH, width / PIXELS_PER_INCH)
    plotter = EmPlotter(windowTitle=title, figsize=(inches, inches * height / width))
    axes = plotter.createSubPlot("", "", "")
    axes.imshow(pixels)
    axes.axis("off")
    axes.set_position([0, 0, 1, 1])
    plotter.tightLayoutOn = False
    return plotter
