"""Names that the plugin's modules share."""

from f2fd_core import __version__

F2FD = "f2fd"
ENVIRONMENT = f"{F2FD}-{__version__}"
INSTALLED = f"{ENVIRONMENT}_installed"

# Variables of Scipion's configuration
F2FD_HOME = "F2FD_HOME"
F2FD_ENV_ACTIVATION = "F2FD_ENV_ACTIVATION"
F2FD_TORCH_INDEX = "F2FD_TORCH_INDEX"
