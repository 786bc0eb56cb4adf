"""Discovery, installation, environment and the engine's command line."""

import importlib
import os
import shlex
import subprocess
import sys
import textwrap
from types import SimpleNamespace
from unittest import mock

import matplotlib
import pwem
import pyworkflow
from PIL import Image
from pwem.viewers import EmPlotter
from pyworkflow.gui.project.viewprotocols_extra import ProtocolTreeConfig
from pyworkflow.tests import BaseTest
from pyworkflow.utils.process import buildRunCommand

import f2fd_core
import f2fd_scipion
from f2fd_core import config
from f2fd_scipion import engine, viewers
from f2fd_scipion.constants import F2FD_ENV_ACTIVATION, F2FD_HOME, F2FD_TORCH_INDEX
from f2fd_scipion.objects import citations

AWKWARD = ["a b", "50%", "%(GPU)s", "ü€.mrc", "it's", '"q"', "$HOME", "`id`", "a;b", "\\", "*"]
CLASSES = {
    "protocols": ("ProtF2FdTrain", "ProtF2FdDenoise", "ProtF2FdImportModel"),
    "objects": ("F2FdModel",),
    "viewers": ("F2FdTrainViewer", "F2FdDenoiseViewer"),
}
SHOW_ARGUMENTS = 'python() { printf \'%s\\n\' "$CUDA_VISIBLE_DEVICES" "$@"; }'


def activation(text):
    """The variable F2FD_ENV_ACTIVATION with another value, for a 'with'."""
    plugin = f2fd_scipion.Plugin
    return mock.patch.dict(plugin.getVars(), {F2FD_ENV_ACTIVATION: text})


class QueuedProtocol:
    """Scipion's queue for each step: its runJob returns, whatever became of the job."""

    def __init__(self, folder):
        self.folder, self.job = folder, {}

    def _getLogsPath(self):
        return self.folder

    def getStderrLog(self):
        return os.path.join(self.folder, "run.stderr")

    def runJob(self, program, arguments, **options):
        """Append to files what the job writes, {name: text}."""
        for name, text in self.job.items():
            with open(os.path.join(self.folder, name), "a") as stream:
                stream.write(text)


class TestF2FdPlugin(BaseTest):
    @classmethod
    def setUpClass(cls):
        cls.domain = pyworkflow.Config.getDomain()
        cls.domain.getPlugins()
        cls.plugin = f2fd_scipion.Plugin

    def testClassesAreFound(self):
        found = {
            "protocols": self.domain.getProtocols(),
            "objects": self.domain.getObjects(),
            "viewers": self.domain.getViewers(),
        }
        for kind, names in CLASSES.items():
            for name in names:
                self.assertIn(name, found[kind])
        self.assertNotIn("ProtF2FdBase", found["protocols"])

    def testPluginIsKnownByItsName(self):
        module = self.domain.getPlugins()["f2fd_scipion"]
        self.assertEqual(module._pluginInstance.getName(), "F2Fd")
        self.assertEqual(module._pluginInstance.getPath(), os.path.dirname(module.__file__))
        self.assertTrue(issubclass(module.Plugin, pwem.Plugin))

    def testProtocolsAreInTheTree(self):
        views = ProtocolTreeConfig.load(self.domain, "")
        places = {}

        def walk(node, path):
            for child in node.childs:
                places.setdefault(child.value, path)
                walk(child, path + (child.text,))

        walk(views["Tomography"], ())
        self.assertEqual(places["ProtF2FdTrain"], ("Tomograms", "Denoise"))
        self.assertEqual(places["ProtF2FdDenoise"], ("Tomograms", "Denoise"))
        self.assertEqual(places["ProtF2FdImportModel"], ("Imports",))
        places.clear()
        walk(views["All"], ())
        self.assertEqual(places["ProtF2FdTrain"], ("F2Fd",))

    def testWindowsShowTsIdsAsTheyAre(self):
        """Also where a matplotlibrc asks for LaTeX."""
        self.addCleanup(matplotlib.rcParams.update, {"text.usetex": False})
        matplotlib.rcParams["text.usetex"] = True
        importlib.reload(viewers)
        EmPlotter.setBackend("Agg")
        scores = {"denoised": {"fsc": {"frequency": [0, 0.5], "correlation": [1, 0]}}}
        viewer = mock.Mock()
        viewer.protocol.getScores.return_value = {"$$": scores, "a$_$": scores}
        viewer.protocol.table.return_value = [["tsId"], ["$$"], ["a$_$"]]
        viewer.protocol.inTomos.get().getSamplingRate.return_value = 10.0
        viewer._chosen.return_value = None
        for show in (viewers.F2FdEvaluateViewer._showTable, viewers.F2FdEvaluateViewer._showShells):
            (plotter,) = show(viewer)
            plotter.figure.canvas.draw()

    def testLogoIsASmallSquarePicture(self):
        path = self.domain.getProtocols()["ProtF2FdTrain"].getPluginLogoPath()
        with Image.open(path) as logo:
            self.assertEqual(logo.size[0], logo.size[1])
        self.assertLess(os.path.getsize(path), 20000)

    def testCitationsAreInTheBibliography(self):
        for name in ("ProtF2FdTrain", "ProtF2FdDenoise", "ProtF2FdImportModel"):
            protocol = self.domain.getProtocols()[name]()
            texts = protocol.getCitations()
            self.assertEqual(len(texts), len(protocol._citations()))
            for text in texts.values():
                self.assertNotIn("Error", text)

    def testEveryMethodsCitationsAreThereAndTheirLinksCanBeOpened(self):
        known = self.domain.getPlugins()["f2fd_scipion"]._bibtex
        for perturbation in config.PERTURBATIONS:
            cited = citations(perturbation, deconvolve=True, fill_wedge=True)
            self.assertLess(set(cited), set(known))
        for entry in known.values():
            for link in (entry.get("doi"), entry.get("url")):
                self.assertTrue(link is None or link.startswith("https://"), link)

    def testNothingHereNeedsTorch(self):
        code = """
            import sys
            sys.modules["torch"] = None
            from f2fd_scipion import headless
            headless.set_environment(sys.argv[1])
            import pyworkflow
            pyworkflow.Config.setDomain("pwem")
            import f2fd_scipion.demo, f2fd_scipion.gui, f2fd_scipion.engine, f2fd_scipion.objects
            import f2fd_scipion.protocols, f2fd_scipion.viewers
            assert f2fd_scipion.Plugin.getName
        """
        self.setupTestOutput()
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), self.getOutputPath()], check=True
        )

    def testTheTestsLoadWithoutPytest(self):
        code = """
            import sys, unittest
            sys.modules["pytest"] = None
            import f2fd_scipion.tests
            folder, = f2fd_scipion.tests.__path__
            loader = unittest.TestLoader()
            suite = loader.discover(folder, "test*.py", folder + "/../..")
            assert suite.countTestCases() > 50 and not loader.errors, loader.errors
        """
        subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)

    def testHeadlessEnvironmentComesTooLateOnceScipionIsThere(self):
        self.setupTestOutput()
        with self.assertRaises(RuntimeError):
            f2fd_scipion.headless.set_environment(self.getOutputPath())

    def testArgumentsReachTheEngineUnchanged(self):
        for gpus in ([], [1], [0, 2]):
            with activation(SHOW_ARGUMENTS):
                program, arguments = engine.command(AWKWARD, gpu=bool(gpus))
            text = buildRunCommand(program, arguments, 1, gpuList=gpus)
            shown = subprocess.run(
                ["/bin/sh", "-c", text],
                check=True,
                capture_output=True,
                text=True,
                env={"PATH": os.environ["PATH"]},
            )
            lines = shown.stdout.splitlines()
            self.assertEqual(lines[0], ",".join(map(str, gpus)))
            self.assertEqual(lines[1:], ["-m", "f2fd_core"] + AWKWARD)
            with activation(SHOW_ARGUMENTS), mock.patch.dict(
                os.environ, {"CUDA_VISIBLE_DEVICES": ""}
            ):
                self.assertEqual(engine.call(AWKWARD, gpus=gpus).splitlines(), lines)

    def testTheEnginesEnvironmentReportsWhichGpusItSees(self):
        with activation("python() { echo hello; echo $CUDA_VISIBLE_DEVICES | tr -d ,; }"):
            self.assertEqual(engine.usable_gpus([1, 3]), 13)
        with activation("python() { echo 2; return 1; }"):  # torch can't be imported
            self.assertEqual(engine.usable_gpus([0]), 0)

    def testPartsOfAGpuDontCount(self):
        said = SimpleNamespace(
            returncode=0,
            stdout="GPU 0: NVIDIA A100\n  MIG 3g.20gb Device 0:\n"
            "  MIG 3g.20gb Device 1:\nGPU 1: NVIDIA A100\n",
        )
        with mock.patch.object(engine.subprocess, "run", return_value=said):
            self.assertEqual(engine.gpus(), 2)

    def testAFailedJobInAQueueIsNoticed(self):
        self.setupTestOutput()
        protocol = QueuedProtocol(self.getOutputPath())
        result = os.path.join(self.getOutputPath(), "result.mrc")
        protocol.job = {"before.err": "f2fd: error: of an earlier job\n", result: "voxels"}
        engine.run(protocol, [], result)
        protocol.job = {}
        with self.assertRaisesRegex(engine.EngineError, "ended without writing .*result.mrc"):
            engine.run(protocol, [], result)
        protocol.job = {
            "before.err": "f2fd: error: of a.mrc\nf2fd: error: of b.mrc\n",
            "new.err": "f2fd: error: of c.mrc\n",
        }
        for name in "abc":
            with self.assertRaisesRegex(engine.EngineError, f"^of {name}.mrc$"):
                engine.run(protocol, [], result, about=[name + ".mrc"])

    def testEmptyActivationMeansThisPython(self):
        with activation(""), mock.patch.dict(os.environ, {"PYTHONPATH": "/somewhere"}):
            program, _ = engine.command([], gpu=False)
            self.assertEqual(shlex.split(program), [sys.executable, "-m", "f2fd_core"])
            self.assertEqual(self.plugin.getEnviron()["PYTHONPATH"], "/somewhere")

    def testOtherEnvironmentsDontSeeThePythonPath(self):
        with activation(". here"), mock.patch.dict(os.environ, {"PYTHONPATH": "/somewhere"}):
            self.assertNotIn("PYTHONPATH", self.plugin.getEnviron())

    def testProblemsOfTheEnvironmentAreNamed(self):
        with activation(""):
            self.assertEqual(engine.problem(), "")
        with activation(". /no/such/activate"):
            self.assertIn("/no/such/activate", engine.problem())
            self.assertIn(F2FD_ENV_ACTIVATION, engine.problem())
        with activation("python() { echo '[null, true]'; }"):
            self.assertIn("no f2fd_core", engine.problem())
        with activation("python() { echo '[\"0.1\", false]'; }"):
            self.assertIn("no torch", engine.problem())
        with activation("python() { echo '[\"0.1\", true]'; }"):
            self.assertIn(
                f"has F2Fd 0.1, but this plugin is {f2fd_scipion.__version__}", engine.problem()
            )

    def testInstallationIsMissedOnlyWhereItWouldBeUsed(self):
        with mock.patch.dict(self.plugin.getVars(), {F2FD_HOME: "/no/such/home"}):
            with activation(self.plugin._installedActivation()):
                self.assertIn("/no/such/home", " ".join(self.plugin.validateInstallation()))
            with activation(""):
                self.assertEqual(self.plugin.validateInstallation(), [])

    def testInstallationCommand(self):
        env = mock.Mock()
        for conda in ("", "eval hook &&"):
            with mock.patch.object(
                pyworkflow.Config, "CONDA_ACTIVATION_CMD", conda
            ), mock.patch.object(self.plugin, "_condaActivationCmd", conda):
                self.plugin.defineBinaries(env)
            options = env.addPackage.call_args[1]
            ((command, flag),) = options["commands"]
            syntax = subprocess.run(["/bin/sh", "-n", "-c", command], check=False)
            self.assertEqual(syntax.returncode, 0)
            # Scipion uninstalls the package's folder, so all of the environment must be in it.
            self.assertEqual("conda create -y -p env" in command, bool(conda))
            self.assertEqual("-m venv env" in command, not conda)
            self.assertIn("pip install ./f2fd_core", command)
            self.assertTrue(command.endswith(" && f2fd info && touch " + flag))
            self.assertTrue(options["default"])
            self.assertEqual(options["tar"], "void.tgz")
            # Conda need not be on the PATH: it is made known by its activation, or not used.
            self.assertFalse(options.get("neededProgs"))

    def testTorchComesFromTheIndexThatIsNamed(self):
        self.assertNotIn("--index-url", self.plugin._installation())
        with mock.patch.dict(self.plugin.getVars(), {F2FD_TORCH_INDEX: "file:///my wheels"}):
            command = self.plugin._installation()
        torch, engine_ = (
            command.index(text)
            for text in (
                "pip install torch --index-url 'file:///my wheels'",
                "pip install ./f2fd_core",
            )
        )
        self.assertLess(torch, engine_)

    def testTheEngineIsInstalledFromThisPluginsOwn(self):
        folder = "/a folder/check'out/f2fd_core"
        with mock.patch.object(f2fd_core, "__file__", folder + "/__init__.py"):
            self.assertIn(f"cp -R {shlex.quote(folder)} . ", self.plugin._installation())

    def testTheInstallationHasTheUsersVariables(self):
        env = mock.Mock()
        variables = {"PATH": "/bin", "HTTPS_PROXY": "proxy", "PYTHONPATH": "/somewhere"}
        with mock.patch.dict(os.environ, variables, clear=True):
            self.plugin.defineBinaries(env)
        del variables["PYTHONPATH"]  # Scipion's own packages, which the engine must not see
        self.assertEqual(env.addPackage.call_args[1]["vars"], variables)
