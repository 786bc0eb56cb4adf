from f2fd_scipion.viewers.viewer_denoise import F2FdDenoiseViewer
from f2fd_scipion.viewers.viewer_evaluate import F2FdEvaluateViewer
from f2fd_scipion.viewers.viewer_train import F2FdTrainViewer

__all__ = ["F2FdDenoiseViewer", "F2FdEvaluateViewer", "F2FdTrainViewer"]
