"""A patch size that suits what the training starts from, or the tomograms."""

from pyworkflow.wizard import Wizard

from f2fd_core.config import NETWORK_MULTIPLE, START_PATCH, TrainConfig, UserError
from f2fd_scipion.form import in_form_words, shown_values
from f2fd_scipion.protocols import ProtF2FdTrain
from f2fd_scipion.protocols.protocol_base import NO_TOMOGRAM, tomograms_of

LEARNED = "%s learned from patches of this size; thinner tomograms are padded"


def suggested(protocol, thinnest):
    """(Patch size, the reason for it) with the settings of a training's form.

    With random weights it is the default, or the largest that the tomograms have room for;
    ``thinnest``: the fewest voxels that one has along an axis. Raises UserError for settings that
    don't fit together.
    """
    initial = protocol.initialModel.get()
    if initial is not None:
        return initial.getPatchSize(), LEARNED % "the initial model"
    multiple = NETWORK_MULTIPLE[protocol.getEnumText("network")]
    spec = TrainConfig.__dataclass_fields__["patch_size"]
    wanted, least = (
        -(-int(size) // multiple) * multiple for size in (spec.default, spec.metadata["param"].ge)
    )
    config = TrainConfig.create(
        dict(shown_values(protocol, TrainConfig, protocol.SUPPLIED), patch_size=wanted)
    )
    if config.starts_pretrained():
        return START_PATCH, LEARNED % "the pretrained starting weights"
    return (
        max(least, min(wanted, thinnest // multiple * multiple)),
        f"the thinnest side of the tomograms has {thinnest} voxels",
    )


class F2FdPatchSizeWizard(Wizard):
    """Sets the patch size by what the training starts from or how thin the tomograms are."""

    _targets = [(ProtF2FdTrain, ["patch_size"])]

    def show(self, form, *params):
        protocol = form.protocol
        if protocol.inTomos.get() is None:
            form.showError(
                "Choose the tomograms first: the patch size may depend on how thin they are."
            )
            return
        tomograms = tomograms_of(protocol.inTomos.get())
        if not tomograms:
            form.showError(NO_TOMOGRAM)
            return
        try:
            size, reason = suggested(
                protocol, min(min(tomogram.getDim()) for tomogram in tomograms)
            )
        except UserError as error:
            form.showError(f"{in_form_words(error, TrainConfig)}.")
            return
        form.setVar("patch_size", size)
        form.showInfo(f"Patches of {size} voxels are set: {reason}.", "Patch size")
