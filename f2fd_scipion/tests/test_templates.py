"""The workflow templates load into a project as Scipion loads them."""

import json

from pyworkflow import Config
from pyworkflow.template import TemplateList
from pyworkflow.tests import BaseTest, setupTestProject

CHAIN = [
    ("ProtF2FdTrain", "inTomos", "Tomograms"),
    ("ProtF2FdDenoise", "inTomos", "Tomograms"),
    ("ProtF2FdDenoise", "inModel", "model"),
    ("ProtMemBrainSeg", "inTomograms", "tomograms"),
]
GRAPHS = {
    "denoise_and_segment": (
        {"samplingRate": 8.5},
        ["ProtImportTomograms", "ProtF2FdTrain", "ProtF2FdDenoise", "ProtMemBrainSeg"],
        CHAIN,
    ),
    "reconstruct_denoise_and_segment": (
        {"samplingRate": 1.35, "voltage": 200.0},
        [
            "ProtImportTs",
            "ProtAreTomoAlignRecon",
            "ProtF2FdTrain",
            "ProtF2FdDenoise",
            "ProtMemBrainSeg",
        ],
        [("ProtAreTomoAlignRecon", "inputSetOfTiltSeries", "outputTiltSeries"), *CHAIN],
    ),
    "stream_and_denoise": (
        {"samplingRate": 1.35, "voltage": 200.0, "dataStreaming": True},
        [
            "ProtImportMovies",
            "ProtMotionCorrNewStreaming",
            "ProtComposeTS",
            "ProtAreTomoAlignRecon",
            "ProtF2FdImportModel",
            "ProtF2FdDenoise",
        ],
        [
            ("ProtMotionCorrNewStreaming", "inputMovies", "outputMovies"),
            ("ProtComposeTS", "inputMicrographs", "micrographs"),
            ("ProtAreTomoAlignRecon", "inputSetOfTiltSeries", "tiltSeries"),
            ("ProtF2FdDenoise", "inTomos", "Tomograms"),
            ("ProtF2FdDenoise", "inModel", "model"),
        ],
    ),
}
"""{template: (values given, classes of the runs, [(run, its input, the output it points to)])}."""
VALUES = {"folder": "/", "voxel": "8.5", "voltage": "200"}
PARENTS = {
    ("ProtF2FdTrain", "inTomos"): ("ProtImportTomograms", "ProtAreTomoAlignRecon"),
    ("ProtF2FdDenoise", "inTomos"): ("ProtImportTomograms", "ProtAreTomoAlignRecon"),
    ("ProtF2FdDenoise", "inModel"): ("ProtF2FdTrain", "ProtF2FdImportModel"),
    ("ProtMemBrainSeg", "inTomograms"): ("ProtF2FdDenoise",),
    ("ProtAreTomoAlignRecon", "inputSetOfTiltSeries"): ("ProtImportTs", "ProtComposeTS"),
    ("ProtMotionCorrNewStreaming", "inputMovies"): ("ProtImportMovies",),
    ("ProtComposeTS", "inputMicrographs"): ("ProtMotionCorrNewStreaming",),
}


class TestF2FdTemplates(BaseTest):
    @classmethod
    def setUpClass(cls):
        setupTestProject(cls)
        Config.getDomain().getProtocols()
        listed = TemplateList()
        listed.addPluginTemplates()
        cls.templates = {
            template.name: template for template in listed.templates if template.source == "F2Fd"
        }

    def testScipionListsThem(self):
        self.assertEqual(set(self.templates), set(GRAPHS))
        for template in self.templates.values():
            self.assertIn("denoise", template.description)

    def testTheyLoadWithTheirGraph(self):
        known = Config.getDomain().getProtocols()
        for name, (values, classes, links) in GRAPHS.items():
            with self.subTest(template=name):
                template = self.templates[name]
                template.replaceEnvVariables()
                template.parseContent()
                fields = {field.getAlias() for field in template.getParams().values()}
                for alias, value in VALUES.items():
                    if alias in fields:
                        template.setParamValue(alias, value)
                template._replaceFields()
                text = "".join(template.getContent())
                for step in json.loads(text):
                    asked = {
                        parameter
                        for parameter, _ in known[
                            step["object.className"]
                        ]().iterDefinitionAttributes()
                    }
                    self.assertEqual(
                        [
                            key
                            for key in step
                            if key not in asked
                            and "." not in key
                            and key not in ("runMode", "numberOfThreads")
                        ],
                        [],
                    )
                runs = {
                    run.getClassName(): run
                    for run in self.proj.loadProtocols(jsonStr=text).values()
                }
                self.assertEqual(list(runs), classes)
                for parameter, value in values.items():
                    self.assertEqual(runs[classes[0]].getAttributeValue(parameter), value)
                for run, parameter, output in links:
                    pointer = getattr(runs[run], parameter)
                    self.assertIn(pointer.getObjValue().getClassName(), PARENTS[run, parameter])
                    self.assertEqual(pointer.getExtended(), output)
                    # What the parent makes, by the name that it has for it.
                    made = pointer.getObjValue()._possibleOutputs
                    names = made if isinstance(made, dict) else {item.name for item in made}
                    self.assertIn(output, names)
