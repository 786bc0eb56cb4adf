"""Makes the screenshots of Scipion that the documents show.

    make demo
    python tools/make_screenshots.py demo docs/scipion

Opens the demo's project in a window on a display in memory (Xvfb, openbox and ImageMagick), and
goes through it as a user would.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import tkinter
from tkinter import ttk

from PIL import Image

from f2fd_scipion import headless
from f2fd_scipion.demo import PROJECT

# (left, upper, right, lower) of what is kept of each screen of 1600 x 1000, and its colours.
PARTS = {
    "project": (0, 120, 1150, 900),
    "train": (20, 420, 880, 945),
    "preview": (20, 0, 1400, 985),
    "comparison": (20, 0, 1230, 570),
    "check": (20, 0, 1520, 990),
}
COLORS = 256
WIDEST = 1200
TREE = 420  # pixels for the names of the protocols
# Where windows are placed: a form, what it shows, and what it asks or says.
FORM = "+20+420"
SHOWN = "+20+0"
SAID = "+760+600"


def drive(folder, project):
    """Save the screens of a project, as the process of its window."""
    from matplotlib import pyplot

    from f2fd_scipion import protocols
    from f2fd_scipion.tests.window import DENOISE_GROUP, PAUSE, Driver
    from f2fd_scipion.wizards import F2FdPreviewWizard

    class Screens(Driver):
        def run(self, name):
            kind = getattr(protocols, f"ProtF2Fd{name}")
            return next(
                run for run in self.project.getRuns() if isinstance(run, kind) and run.isFinished()
            )

        def script(self):
            train, denoise, check = map(self.run, ("Train", "Denoise", "Check"))
            self.show_protocols()
            self.view._selectItemProtocol(denoise)
            yield
            self.shot("project")
            inputs = dict(inTomos=train.inTomos.get())
            for name, protocol in (
                ("train", self.project.newProtocol(protocols.ProtF2FdTrain, **inputs)),
                (
                    "denoise",
                    self.project.newProtocol(
                        protocols.ProtF2FdDenoise,
                        inModel=train.model,
                        useGpu=False,
                        binThreads=1,
                        **inputs,
                    ),
                ),
            ):
                form = yield from self.form(protocol)
                form.root.geometry(FORM)
                yield
                self.shot(name)
                if name == "denoise":
                    self.when(self.dialogs, self.use_preview)
                    F2FdPreviewWizard().show(form)
                form.close()
            for name, run, shown in (
                ("comparison", denoise, "tomogram"),
                ("check", check, "showPictures"),
            ):
                viewer = yield from self.opened(self.view._analyzeResults, run, None)
                viewer.root.geometry(FORM)
                yield
                viewer.visualizeDict[shown](shown)
                yield
                self.place_shown()
                yield
                if name == "check":
                    self.when(self.dialogs, self.close_verdict)
                    viewer.visualizeDict["showVerdict"]("showVerdict")
                else:
                    self.shot(name)
                pyplot.close("all")
                viewer.close()

        def show_protocols(self):
            found = self.widgets(self.root, tkinter.PanedWindow)
            (panes,) = [each for each in found if not isinstance(each, ttk.PanedWindow)]
            panes.sash_place(0, TREE, 1)
            items, tree = self.listed(DENOISE_GROUP), self.view.protTree
            tree.item(tree.parent(items[0]), open=True)
            for item in (*tree.get_children(), items[-1]):
                tree.see(item)

        def place_shown(self):
            pyplot.gcf().canvas.manager.window.wm_geometry(SHOWN)

        def close_verdict(self):
            self.dialogs()[0].geometry(SAID)
            self.shot("check")
            self.dialogs()[0]._handleResult(2)

        def use_preview(self):
            self.dialogs()[0].geometry(SAID)
            self.dialogs()[0].button.invoke()
            self.when(lambda: hasattr(self.dialogs()[0], "shown"), self.close_preview)

        def close_preview(self):
            self.place_shown()
            self.root.after(PAUSE, self.finish_preview)

        def finish_preview(self):
            self.shot("preview")
            self.dialogs()[0].shown.close()
            self.dialogs()[0]._handleResult(self.dialogs()[0].buttons[0][1])

    Screens(folder, project, {}).start()


def cropped(path, part, copy):
    """Write a part of a screen with few colours."""
    with Image.open(path) as picture:
        picture = picture.convert("RGB").crop(part)
        if picture.width > WIDEST:
            size = WIDEST, round(picture.height * WIDEST / picture.width)
            picture = picture.resize(size, Image.LANCZOS)
        picture.quantize(COLORS, kmeans=3, dither=Image.Dither.NONE).save(copy, optimize=True)


def main(argv=None):
    """Open a display and a window in it, and crop what was seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("demo", help="the demo's folder")
    parser.add_argument("output", help="folder of the screenshots")
    parser.add_argument("--drive", action="store_true", help="on the display that there is")
    options = parser.parse_args(argv)
    if options.drive:
        headless.set_environment(options.demo)
        drive(options.output, PROJECT)
    from f2fd_scipion.tests.test_views import display

    os.makedirs(options.output, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, display() as number:
        subprocess.run(
            [sys.executable, __file__, os.path.abspath(options.demo), folder, "--drive"],
            check=True,
            env=dict(os.environ, DISPLAY=number),
        )
        for name, part in PARTS.items():
            cropped(
                os.path.join(folder, name + ".png"),
                part,
                os.path.join(options.output, name + ".png"),
            )


if __name__ == "__main__":
    main()
