"""Drive the project window as a user would, and write down what was seen.

    python -m f2fd_scipion.tests.window FOLDER PROJECT TRAIN DENOISE EVALUATE EXPORT

FOLDER gets the screenshots (if ImageMagick's 'import' is there) and seen.json; TRAIN, DENOISE,
EVALUATE and EXPORT are identifiers of finished runs in the project. Needs a display and Scipion's
environment variables.
"""

import json
import os
import shutil
import subprocess
import sys
import traceback
from tkinter.ttk import Notebook

PAUSE = 500  # milliseconds
PATIENCE = 240  # pauses until something has to be there
ENDED = object()
DENOISE_GROUP = ("Tomography", "Tomograms", "Denoise")


class Driver:
    """Takes the steps of :meth:`script` from within the window's own loop of events."""

    def __init__(self, folder, project, runs):
        import pyworkflow

        pyworkflow.Config.setDomain("pwem")
        from pyworkflow.gui.project import ProjectWindow
        from pyworkflow.gui.project.viewprotocols import FormWindow
        from pyworkflow.project import Manager

        self.folder, self.runs, self.seen, self.forms = folder, runs, {}, []
        original = FormWindow.__init__

        def noted(window, *args, **options):
            original(window, *args, **options)
            self.forms.append(window)

        FormWindow.__init__ = noted
        self.project = Manager().loadProject(project)
        settings = self.project.getSettings()
        settings.setProtocolView("Tomography")
        settings.write()
        self.window = ProjectWindow(self.project.path)
        self.root, self.view = self.window.root, self.window.viewWidget
        # Errors in callbacks go to the first of all windows, which Scipion's main window is not.
        self.root.nametowidget(".").report_callback_exception = lambda *error: self.end(
            "".join(traceback.format_exception(*error))
        )

    def start(self):
        script = self.script()

        def advance():
            if next(script, ENDED) is ENDED:
                self.end("")
            self.root.after(PAUSE, advance)

        self.root.after(4 * PAUSE, advance)
        self.window.show()

    def end(self, error):
        self.seen["error"] = error
        print(error, end="", file=sys.stderr)
        with open(os.path.join(self.folder, "seen.json"), "w") as stream:
            json.dump(self.seen, stream)
        os._exit(bool(error))  # threads and windows of all kinds may be open

    def shot(self, name):
        """Save what is on the screen."""
        self.root.update()
        if shutil.which("import"):
            subprocess.run(
                ["import", "-window", "root", os.path.join(self.folder, name + ".png")], check=True
            )

    def run(self, name):
        return self.project.getProtocol(self.runs[name])

    def opened(self, show, *arguments):
        """Call what opens a form, which only returns when everything is closed; the form."""
        count = len(self.forms)
        self.root.after(0, show, *arguments)
        while len(self.forms) == count:
            yield
        yield
        return self.forms[-1]

    def form(self, protocol):
        """Open a protocol's form."""
        return self.opened(self.view._openProtocolForm, protocol)

    @staticmethod
    def widgets(root, kind):
        """All widgets of a class within another one."""
        found, left = [], [root]
        while left:
            widget = left.pop()
            found += [widget] if isinstance(widget, kind) else []
            left += widget.winfo_children()
        return found

    def dialogs(self):
        from pyworkflow.gui.dialog import Dialog

        return self.widgets(self.root, Dialog)

    def shot_of_tabs(self, form, name):
        """Save what a form's tabs look like, one by one."""
        for tabs in self.widgets(form.root, Notebook):
            for tab in tabs.tabs():
                tabs.select(tab)
                self.shot(f"{name}_{tabs.tab(tab, 'text').strip().lower()}")

    def when(self, ready, then, patience=PATIENCE):
        """Call ``then`` as soon as ``ready()``, also from within a dialog that waits."""
        if ready():
            then()
        elif patience:
            self.root.after(PAUSE, self.when, ready, then, patience - 1)
        else:
            self.end(f"nothing happened: {[str(dialog.title()) for dialog in self.dialogs()]}")

    def listed(self, names):
        """The items below these names of the tree of protocols, one below the other."""
        tree = self.view.protTree
        items = tree.get_children()
        for name in names:
            items = [
                child
                for item in items
                if tree.item(item, "text").strip() == name
                for child in tree.get_children(item)
            ]
        return items

    def tree(self):
        """Names of the protocols that the tree lists under Tomograms > Denoise."""
        tree = self.view.protTree
        return [tree.item(item, "text").strip() for item in self.listed(DENOISE_GROUP)]

    def script(self):
        from f2fd_core.config.networks import NETWORK_FEATURES
        from f2fd_scipion import protocols
        from f2fd_scipion.wizards import F2FdPatchSizeWizard, F2FdPreviewWizard

        self.seen["tree"] = self.tree()
        self.shot("window")
        self.seen["forms"] = []
        for name in protocols.__all__:
            form = yield from self.form(self.project.newProtocol(getattr(protocols, name)))
            self.shot_of_tabs(form, "form_" + name)
            self.seen["forms"].append(form.root.title())
            form.close()

        tomograms = self.run("train").inTomos.get()
        train = self.project.newProtocol(
            protocols.ProtF2FdTrain,
            inTomos=tomograms,
            network=list(NETWORK_FEATURES).index("compact"),
        )
        form = yield from self.form(train)
        self.seen["wizards"] = sorted(form.wizards)
        self.when(self.dialogs, lambda: self.dialogs()[0]._handleResult(2))
        F2FdPatchSizeWizard().show(form)
        self.seen["patch_size"] = train.patch_size.get()
        form.close()

        denoise = self.project.newProtocol(
            protocols.ProtF2FdDenoise,
            inTomos=tomograms,
            inModel=self.run("train").model,
            useGpu=False,
            binThreads=1,
        )
        form = yield from self.form(denoise)
        self.seen["wizards"] += sorted(form.wizards)

        def close_preview():
            self.shot("preview")
            self.seen["preview"] = [list(part.shape) for part in self.dialogs()[0].outcome[:2]]
            self.seen["section"] = self.dialogs()[0].shown.place.val
            self.dialogs()[0].shown.close()
            self.dialogs()[0]._handleResult(self.dialogs()[0].buttons[0][1])

        def use_preview():
            self.dialogs()[0].predictions.set("2")
            self.dialogs()[0].button.invoke()
            self.when(lambda: hasattr(self.dialogs()[0], "shown"), close_preview)

        self.when(self.dialogs, use_preview)
        F2FdPreviewWizard().show(form)
        self.seen["predictions"] = denoise.predictions.get()
        form.close()

        def close_message():
            self.shot("view_export")
            self.seen["export"] = str(self.dialogs()[0].title())
            self.dialogs()[0]._handleResult(2)

        self.when(self.dialogs, close_message)
        self.view._analyzeResults(self.run("export"), None)

        self.seen["views"] = {}
        for name in ("train", "denoise", "evaluate"):
            viewer = yield from self.opened(self.view._analyzeResults, self.run(name), None)
            self.seen["views"][name] = viewer.root.title()
            for parameter in viewer.protocol._getVisualizeDict():
                if parameter != "showTomograms":  # another plugin's window
                    viewer.visualizeDict[parameter](parameter)
                    yield
                    self.shot(f"view_{name}_{parameter}")
                    import matplotlib.pyplot

                    self.seen["views"][f"{name} {parameter}"] = len(matplotlib.pyplot.get_fignums())
                    matplotlib.pyplot.close("all")
            viewer.close()


def main(argv=None):
    folder, project, *runs = sys.argv[1:] if argv is None else argv
    Driver(
        folder, project, dict(zip(("train", "denoise", "evaluate", "export"), map(int, runs)))
    ).start()


if __name__ == "__main__":
    main()
