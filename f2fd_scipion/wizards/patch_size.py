"""A patch size that suits the tomograms."""
from pyworkflow.wizard import Wizard

from f2fd_core.config import NETWORK_MULTIPLE, START_NETWORK, START_PATCH, TrainConfig
from f2fd_scipion.protocols import ProtF2FdTrain
from f2fd_scipion.protocols.protocol_base import NO_TOMOGRAM, tomograms_of


def suggested(thinnest, network):
    """The default patch size, or the largest that a tomogram's thinnest side has room for.

    ``network``: the name of the network, of whose multiple it must be; the form's least is kept.
    For the network that has learned from shapes, patches as large as those are worth more than
    some that need not be padded.
    """
    multiple = NETWORK_MULTIPLE[network]
    spec = TrainConfig.__dataclass_fields__["patch_size"]
    wanted = -(-spec.default // multiple) * multiple
    least = START_PATCH if network == START_NETWORK[0] else int(spec.metadata["param"].ge)
    least = -(-least // multiple) * multiple
    return max(least, min(wanted, thinnest // multiple * multiple))


class F2FdPatchSizeWizard(Wizard):
    """Sets the patch size by the thinnest side of the tomograms."""
    _targets = [(ProtF2FdTrain, ["patch_size"])]

    def show(self, form, *params):
        protocol = form.protocol
        if protocol.inTomos.get() is None:
            form.showError("Choose the tomograms first: the patch size depends on how thin they "
                           "are.")
            return
        tomograms = tomograms_of(protocol.inTomos.get())
        if not tomograms:
            form.showError(NO_TOMOGRAM)
            return
        thinnest = min(min(tomogram.getDim()) for tomogram in tomograms)
        size = suggested(thinnest, protocol.getEnumText("network"))
        form.setVar("patch_size", size)
        form.showInfo("The thinnest side of the tomograms has %d voxels: patches of %d are set."
                      % (thinnest, size), "Patch size")
