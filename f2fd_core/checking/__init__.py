"""How far a denoised tomogram can be trusted, measured without a truth.

:mod:`~f2fd_core.checking.run` is the command, :mod:`~f2fd_core.checking.short` what others say at
their end. :mod:`~f2fd_core.checking.examine` measures: the error (:mod:`~f2fd_core.checking.error`)
from sums by Fourier shell (:mod:`~f2fd_core.checking.shells`), what comes of noise alone
(:mod:`~f2fd_core.checking.invention`) and of structures that are added
(:mod:`~f2fd_core.checking.planted`). :mod:`~f2fd_core.checking.verdict` judges, and
:mod:`~f2fd_core.checking.page` writes what a person reads.
"""
