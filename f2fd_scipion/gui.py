"""Open the demo's project in the Scipion window: python -m f2fd_scipion.gui --folder demo"""

import argparse
import os
import sys

from f2fd_scipion import headless
from f2fd_scipion.demo import PROJECT

VIEW = "Tomography"


def open_window():
    """The project window of the demo's project, with the tree of tomography protocols."""
    import pyworkflow

    pyworkflow.Config.setDomain("pwem")
    from pyworkflow.gui.project import ProjectWindow
    from pyworkflow.project import Manager

    project = Manager().loadProject(PROJECT)
    settings = project.getSettings()
    settings.setProtocolView(VIEW)
    settings.write()
    return ProjectWindow(project.path)


def main(argv=None):
    """Show the window until it is closed; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m f2fd_scipion.gui",
        description="Open the demo's project in the Scipion window.",
    )
    parser.add_argument("--folder", default="demo", help="folder of the demo (default: demo)")
    folder = parser.parse_args(argv).folder
    if not os.path.isdir(os.path.join(folder, "projects", PROJECT)):
        print(
            f"gui: error: there is no demo project in {folder}; run the demo first (make demo)",
            file=sys.stderr,
        )
        return 1
    headless.set_environment(folder)
    open_window().show()
    return 0


if __name__ == "__main__":
    sys.exit(main())
