from f2fd_scipion.protocols.protocol_check import ProtF2FdCheck
from f2fd_scipion.protocols.protocol_deconvolve import ProtF2FdDeconvolve
from f2fd_scipion.protocols.protocol_denoise import ProtF2FdDenoise
from f2fd_scipion.protocols.protocol_evaluate import ProtF2FdEvaluate
from f2fd_scipion.protocols.protocol_export_model import ProtF2FdExportModel
from f2fd_scipion.protocols.protocol_import_model import ProtF2FdImportModel
from f2fd_scipion.protocols.protocol_train import ProtF2FdTrain

__all__ = [
    "ProtF2FdCheck",
    "ProtF2FdDeconvolve",
    "ProtF2FdDenoise",
    "ProtF2FdEvaluate",
    "ProtF2FdExportModel",
    "ProtF2FdImportModel",
    "ProtF2FdTrain",
]
