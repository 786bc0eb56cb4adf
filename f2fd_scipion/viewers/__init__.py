import matplotlib

from f2fd_scipion.viewers.viewer_check import F2FdCheckViewer
from f2fd_scipion.viewers.viewer_denoise import F2FdDenoiseViewer
from f2fd_scipion.viewers.viewer_evaluate import F2FdEvaluateViewer
from f2fd_scipion.viewers.viewer_model import F2FdModelViewer
from f2fd_scipion.viewers.viewer_train import F2FdTrainViewer

__all__ = [
    "F2FdCheckViewer",
    "F2FdDenoiseViewer",
    "F2FdEvaluateViewer",
    "F2FdModelViewer",
    "F2FdTrainViewer",
]

# Windows are drawn whenever they are looked at, so settings of their own would not last: LaTeX,
# for which a matplotlibrc may ask, would take a tsId for a formula.
matplotlib.rcParams["text.usetex"] = False
