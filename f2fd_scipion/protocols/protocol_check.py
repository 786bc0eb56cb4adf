"""Check how far denoised tomograms can be trusted."""

import os
import shutil

from pyworkflow.protocol import BooleanParam

import f2fd_scipion
from f2fd_core.config import CheckConfig, read_json
from f2fd_scipion.form import add_model
from f2fd_scipion.objects import citations_of
from f2fd_scipion.protocols.protocol_base import half_maps, mean_and_range
from f2fd_scipion.protocols.protocol_tomograms import ProtF2FdWithModel

ERROR = "_error.mrc"
REMOVED = "_removed.mrc"
NUMBERS = "_report.json"
PAGE = "_report.html"
PICTURES = ("_slices.png", "_shells.png", "_noise.png", "_planted.png", "_halves.png", "_wedge.png")


class ProtF2FdCheck(ProtF2FdWithModel):
    """Check how far a model's results can be trusted, without ground truth.

    For each tomogram: an estimate of the correlation with the truth beside those of the tomogram as
    it is, of the best Gaussian filter, of the pretrained weights and of a short training on this
    very tomogram; what the model makes of noise alone, and of structures that are added; what it
    removes; and a verdict in five sentences. If the model has learned to fill the missing wedge, a
    sixth says how far to believe that. The outputs are maps of the relative error, 0 where all is
    right and 1 where nothing is known.
    """

    _label = "check denoising"

    CONFIG = CheckConfig
    ENDING = ERROR
    OTHERS = (REMOVED, NUMBERS, PAGE, *PICTURES)
    SUPPLIED = dict(
        ProtF2FdWithModel.SUPPLIED,
        half_maps="the tomogram's own, if 'Use half-maps' is 'Yes' and it has some",
    )

    # -------------------------- Form -----------------------------------------
    def _defineParams(self, form):
        self._addTomograms(form, "The tomograms as they were before denoising.")
        add_model(
            form,
            "The model that denoises them. If it has learned to fill the missing wedge, what it "
            "predicts there is checked, too: in directions that were measured, but are hidden from "
            "it.",
        )
        form.addParam(
            "useHalfMaps",
            BooleanParam,
            default=True,
            label="Use half-maps",
            help="Where a tomogram has half-maps (odd and even), the noise is measured from their "
            "difference instead of being estimated, which makes the report far more reliable.",
        )
        self._addOwnCtfs(form)
        self._addEngineParams(form)
        self._addThreads(form)

    # -------------------------- Steps ----------------------------------------
    def _make(self, tsId, config, source):
        endings = {os.sep + ending[1:]: ending for ending in (ERROR, REMOVED, NUMBERS, *PICTURES)}
        self._runFor("check", tsId, config, endings)
        shutil.move(os.path.join(config.output, PAGE[1:]), self._getExtraPath(tsId + PAGE))

    def _asked(self, settings):
        return dict(super()._asked(settings), useHalfMaps=self.useHalfMaps.get())

    def _supply(self, tomogram=None):
        tomogram = tomogram or self.inTomos.get().getFirstItem()
        halves = half_maps(tomogram) if self.useHalfMaps else []
        return dict(super()._supply(tomogram), half_maps=halves)

    # -------------------------- Information ----------------------------------
    def _checkSettings(self, config):
        config.refuse_model(self.inModel.get().getTrainConfig())

    def getReports(self):
        """{tsId: the numbers of its report} of what is finished."""
        return {tsId: read_json(self._getExtraPath(tsId + NUMBERS)) for tsId in self.getDone()}

    def getPage(self, tsId):
        """The path of a tomogram's report, a page to be opened in a browser."""
        return self._getExtraPath(tsId + PAGE)

    def getPictures(self, tsId):
        """The paths of the pictures in a tomogram's report."""
        paths = [self._getExtraPath(tsId + ending) for ending in PICTURES]
        return [path for path in paths if os.path.exists(path)]

    def _summary(self):
        summary, reports = super()._summary(), self.getReports()
        if not reports:
            return summary
        # Those made before the model learned to fill the missing wedge say nothing of it.
        titles = dict.fromkeys(
            entry["title"] for numbers in reports.values() for entry in numbers["verdict"]
        )
        summary.append(f"tsId | {' | '.join(titles)} | correlation with the truth, estimated")
        for tsId, numbers in sorted(reports.items()):
            found = numbers["correlation"]["denoised"]
            marks = {entry["title"]: entry["mark"] for entry in numbers["verdict"]}
            summary.append(
                f"{tsId} | "
                f"{' | '.join(marks.get(title, '-') for title in titles)} | "
                f"{found['estimate']:.2f} ({found['low']:.2f} to "
                f"{found['high']:.2f})"
            )
        return summary + self._wedge(reports)

    @staticmethod
    def _wedge(reports):
        """A list of the sentence on how right the filled wedge is; empty if none was checked."""
        values = [numbers["wedge"]["mean"] for numbers in reports.values() if "wedge" in numbers]
        if not values:
            return []
        return [
            "What fills the missing wedge is predicted, not measured; in measured directions that "
            "were hidden from the model, its predictions have a mean Fourier shell correlation "
            f"with the signal of {mean_and_range(values, '%.2f')}."
        ]

    def _methods(self):
        reports = self.getReports()
        if not reports:
            return []
        values = [numbers["correlation"]["denoised"]["estimate"] for numbers in reports.values()]
        return [
            f"The denoising of {len(values)} tomograms by F2Fd, version "
            f"{f2fd_scipion.__version__}, was checked without ground truth: by Stein's estimate "
            "of the error with random probes, the correlation with the truth is "
            f"{mean_and_range(values, '%.2f')}."
        ] + self._wedge(reports)

    def _citations(self):
        filled = bool(self._wedge(self.getReports()))
        return [*citations_of(self.inModel.get(), filled), "Stein1981", "Ramani2008"]
