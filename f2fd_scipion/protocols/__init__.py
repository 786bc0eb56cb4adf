from f2fd_scipion.protocols.protocol_denoise import ProtF2FdDenoise
from f2fd_scipion.protocols.protocol_import_model import ProtF2FdImportModel
from f2fd_scipion.protocols.protocol_train import ProtF2FdTrain

__all__ = ["ProtF2FdDenoise", "ProtF2FdImportModel", "ProtF2FdTrain"]
