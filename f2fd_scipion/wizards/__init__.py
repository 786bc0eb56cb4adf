from f2fd_scipion.wizards.patch_size import F2FdPatchSizeWizard
from f2fd_scipion.wizards.preview import F2FdPreviewWizard

__all__ = ["F2FdPatchSizeWizard", "F2FdPreviewWizard"]
