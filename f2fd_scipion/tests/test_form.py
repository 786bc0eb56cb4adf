"""The forms say what the engine's dataclasses say, and give it back."""

import json
import os
from unittest import mock

from pyworkflow import Config
from pyworkflow.protocol import Group, params
from pyworkflow.tests import BaseTest

from f2fd_core.config import (
    CheckConfig,
    DeconvolveConfig,
    DenoiseConfig,
    EvaluateConfig,
    TrainConfig,
    UserError,
    parameters,
)
from f2fd_scipion import engine
from f2fd_scipion.form import in_form_words, shown_values
from f2fd_scipion.objects import F2FdModel
from f2fd_scipion.protocols import (
    ProtF2FdCheck,
    ProtF2FdDeconvolve,
    ProtF2FdDenoise,
    ProtF2FdEvaluate,
    ProtF2FdTrain,
)
from f2fd_scipion.protocols.protocol_base import ProtF2FdBase

PROTOCOLS = {
    ProtF2FdTrain: TrainConfig,
    ProtF2FdDenoise: DenoiseConfig,
    ProtF2FdDeconvolve: DeconvolveConfig,
    ProtF2FdEvaluate: EvaluateConfig,
    ProtF2FdCheck: CheckConfig,
}
BOUNDS = (("ge", 0, -1), ("gt", 1, 0), ("le", 0, 1), ("lt", -1, 0))  # bound, inside, outside

EMPTIED = {int: "should be an integer", float: "should be a float"}


def choice(name, value):
    """The number that a choice of the training has in the form."""
    return TrainConfig.__dataclass_fields__[name].metadata["param"].choices.index(value)


def places(protocol):
    """{parameter or group: (label of its tab, that of its group or "")}."""
    found = {}
    for section in protocol.iterDefinitionSections():
        for name, param in section.iterParams():
            found[name] = (section.getLabel(), "")
            if isinstance(param, Group):
                for member, _ in param.iterParams():
                    found[member] = (section.getLabel(), param.getLabel())
    return found


def shown(protocol, names):
    return [
        name
        for name in names
        if protocol.evalParamCondition(name) and protocol.evalExpertLevel(name)
    ]


def train_values(protocol):
    return shown_values(protocol, TrainConfig, ProtF2FdTrain.SUPPLIED)


class TestF2FdForms(BaseTest):
    @classmethod
    def setUpClass(cls):
        Config.getDomain().getProtocols()  # gives the protocols their plugin

    def eachAsked(self, check):
        """Call check(protocol, name, type, default, Param) for every field that a form asks for."""
        for protocolClass, config in PROTOCOLS.items():
            protocol = protocolClass()
            for name, kind, default, spec in parameters(config):
                if name not in protocolClass.SUPPLIED:
                    with self.subTest(protocol=protocolClass.__name__, field=name):
                        check(protocol, name, kind, default, spec)

    def testEveryFieldIsAskedForOrSupplied(self):
        for protocolClass, config in PROTOCOLS.items():
            names = {name for name, _, _, _ in parameters(config)}
            supplied = set(protocolClass.SUPPLIED)
            form = {name for name, _ in protocolClass().getDefinition().iterParams()}
            self.assertLessEqual(supplied, names)
            self.assertLessEqual(names - supplied, form)
            self.assertFalse(supplied & form)

    def testNoParameterHidesSomethingOfTheProtocol(self):
        taken = set(dir(ProtF2FdBase))
        self.eachAsked(lambda protocol, name, *_: self.assertNotIn(name, taken))

    def testDefaultsLabelsAndLevelsAreTheDataclasses(self):
        def check(protocol, name, kind, default, spec):
            param, value = protocol.getParam(name), protocol.getAttributeValue(name)
            self.assertEqual(spec.choices[value] if spec.choices else value, default)
            self.assertIs(type(value), int if spec.choices else kind)
            self.assertTrue(param.getLabel().startswith(spec.label))
            self.assertIn(spec.unit.lower(), param.getLabel().lower())
            self.assertEqual("0: " in param.getLabel(), bool(spec.zero))
            self.assertIn(spec.zero, param.getLabel())
            self.assertEqual(param.getHelp(), spec.full_help())
            self.assertEqual(param.isExpert(), spec.advanced)
            if spec.choices:
                self.assertEqual(param.choices, list(spec.choices))

        self.eachAsked(check)

    def testFieldsAreInTheTabOrGroupOfTheirSection(self):
        def check(protocol, name, kind, default, spec):
            tab, group = places(protocol)[name]
            self.assertEqual(group or tab, spec.section)

        self.eachAsked(check)
        self.assertEqual(places(ProtF2FdTrain())["seed"], ("Perturbation", "Run"))
        self.assertEqual(places(ProtF2FdDenoise())["seed"], ("Prediction", "Run"))

    def testValidatorsKnowTheBounds(self):
        checked = set()

        def check(protocol, name, kind, default, spec):
            param = protocol.getParam(name)
            self.assertEqual(param.validate(protocol.getAttributeValue(name)), [])
            if kind in EMPTIED and not spec.choices:
                self.assertEqual(param.validate(None), [EMPTIED[kind]])
            for bound, inside, outside in BOUNDS:
                limit = getattr(spec, bound)
                if abs(limit) != float("inf"):
                    checked.add(bound)
                    self.assertEqual(len(param.validate(kind(limit + outside))), 1)
                    if bound in ("ge", "le"):
                        self.assertEqual(param.validate(kind(limit + inside)), [])

        self.eachAsked(check)
        self.assertEqual(checked, {"ge", "gt", "le", "lt"})

    def testStreamingIsScipionsOwn(self):
        for protocol in (ProtF2FdDenoise(), ProtF2FdDeconvolve(), ProtF2FdCheck()):
            section = protocol.getDefinition().getSection("Streaming")
            self.assertEqual([name for name, _ in section.iterParams()], ["streamingSleepOnWait"])
            self.assertGreater(protocol.streamingSleepOnWait.get(), 0)

    def testRoundTripOfTheDefaults(self):
        for protocolClass, config in PROTOCOLS.items():
            values = shown_values(protocolClass(), config, protocolClass.SUPPLIED)
            self.assertEqual(config.create(values), config())

    def testRoundTripOfOtherValues(self):
        values = {
            "steps": 7,
            "patch_size": 32,
            "batch_size": 2,
            "learning_rate": 0.25,
            "schedule": "plateau",
            "clip": False,
            "perturbation": "fourier_masks",
            "pool_size": 8,
            "mask_probability": 0.25,
            "network": "published",
            "seed": 3,
        }
        protocol = ProtF2FdTrain()
        for name, value in values.items():
            getattr(protocol, name).set(choice(name, value) if isinstance(value, str) else value)
        config = TrainConfig.create(json.loads(json.dumps(train_values(protocol))))
        self.assertEqual({name: getattr(config, name) for name in values}, values)
        self.assertEqual(config, TrainConfig.create(values))

    def testParametersOfTheOtherPerturbationAreHiddenAndNotPassed(self):
        protocol = ProtF2FdTrain()
        protocol.noise_scale.set(2.0)
        self.assertTrue(protocol.evalParamCondition("noise_scale"))
        self.assertFalse(protocol.evalParamCondition("mask_probability"))
        self.assertEqual(train_values(protocol)["noise_scale"], 2.0)
        protocol.perturbation.set(choice("perturbation", "fourier_masks"))
        self.assertFalse(protocol.evalParamCondition("noise_scale"))
        self.assertTrue(protocol.evalParamCondition("mask_probability"))
        self.assertNotIn("noise_scale", train_values(protocol))

    def testEachPerturbationShowsItsOwnParameters(self):
        own = {
            "fourier_masks": {
                "mask_probability",
                "inversion_probability",
                "block_size",
                "sphere_min",
                "sphere_max",
                "pool_size",
                "renew_pool",
            },
            "self2self": {
                "point_probability",
                "block_probability",
                "mask_probability",
                "block_size",
            },
            "noise2void": {"blind_share", "blind_reach"},
            "noise2noise": set(),
        }
        protocol = ProtF2FdTrain()
        names = {
            name
            for name, _, _, spec in parameters(TrainConfig)
            if spec.only[:1] == ("perturbation",)
        }
        self.assertTrue(set.union(*own.values()) < names)
        for perturbation, expected in own.items():
            protocol.perturbation.set(choice("perturbation", perturbation))
            protocol.preset.set(choice("preset", "default"))
            self.assertEqual(
                {name for name in names if protocol.evalParamCondition(name)}, expected
            )
            self.assertEqual(names & set(train_values(protocol)), expected)
            protocol.preset.set(choice("preset", "published"))  # sets the perturbation itself
            self.assertEqual([name for name in names if protocol.evalParamCondition(name)], [])

    def testDeconvolvingAsksForTheDefocus(self):
        names = {"defocus", "phase_shift", "phase_flipped", "strength", "snr_falloff", "highpass"}
        protocol = ProtF2FdTrain()
        protocol.defocus.set(2.5)
        for preset in ("default", "published"):
            protocol.preset.set(choice("preset", preset))
            protocol.deconvolve.set(False)
            self.assertEqual(names & set(train_values(protocol)), set())
            protocol.deconvolve.set(True)
            self.assertTrue(all(protocol.evalParamCondition(name) for name in names))
            made = TrainConfig.create(dict(train_values(protocol), tomograms=["a.mrc"]))
            self.assertEqual((made.deconvolve, made.defocus), (True, 2.5))
        protocol.defocus.set(0)
        with self.assertRaises(UserError) as raised:
            TrainConfig.create(dict(train_values(protocol), tomograms=["a.mrc"]))
        self.assertIn("'Defocus' is 0; expected", in_form_words(raised.exception, TrainConfig))

    def testTheTiltsAreAskedForWhereTheMissingWedgeIsFilled(self):
        for protocolClass, config in PROTOCOLS.items():
            if "fill_wedge" in config.__dataclass_fields__:
                protocol = protocolClass()
                for yes in (False, True):
                    protocol.fill_wedge.set(yes)
                    values = shown_values(protocol, config, protocolClass.SUPPLIED)
                    self.assertEqual("tilt_range" in values, yes)
        protocol = ProtF2FdTrain()
        protocol.fill_wedge.set(True)
        protocol.perturbation.set(choice("perturbation", "noise2void"))
        with self.assertRaises(UserError) as raised:
            TrainConfig.create(dict(train_values(protocol), tomograms=["a.mrc"]))
        self.assertIn(
            "'Learn to fill the missing wedge' is given with 'Perturbation' noise2void; expected",
            in_form_words(raised.exception, TrainConfig),
        )

    def testWhatIsChosenInsteadOfAFieldHidesIt(self):
        protocol = ProtF2FdTrain()
        protocol.start.set(choice("start", "random"))
        self.assertEqual(train_values(protocol)["start"], "random")
        protocol.initialModel.set(F2FdModel(path="model.pt"))
        self.assertFalse(protocol.evalParamCondition("start"))
        self.assertNotIn("start", train_values(protocol))

    def testPublishedMethodHidesWhatItSets(self):
        protocol = ProtF2FdTrain()
        protocol.steps.set(5)
        protocol.noise_scale.set(2.0)
        protocol.preset.set(choice("preset", "published"))
        for name in [*TrainConfig.presets()["published"], "steps", "noise_scale"]:
            self.assertFalse(protocol.evalParamCondition(name), name)
        values = train_values(protocol)
        self.assertIn("seed", values)
        self.assertEqual(TrainConfig.create(values), TrainConfig.create({"preset": "published"}))

    def testNoTabIsEmpty(self):
        for protocolClass in PROTOCOLS:
            protocol = protocolClass()
            for level, preset in ((0, 0), (0, 1), (1, 0), (1, 1)):
                protocol.expertLevel.set(level)
                if protocol.hasAttribute("preset"):
                    protocol.preset.set(preset)
                for section in protocol.iterDefinitionSections():
                    names = shown(protocol, dict(section.iterParams()))
                    self.assertTrue(names, (section.getLabel(), level, preset))
                    hints = [name for name in names if name.startswith("hint_")]
                    self.assertEqual(
                        bool(hints),
                        (section.getLabel(), preset) == ("Perturbation", 1),
                        (section.getLabel(), names),
                    )
                    for name, param in section.iterParams():
                        if isinstance(param, Group):
                            self.assertEqual(
                                name in names,
                                bool(shown(protocol, dict(param.iterParams()))),
                                (name, level, preset),
                            )

    def testSentencesSpeakOfLabels(self):
        with self.assertRaises(UserError) as raised:
            TrainConfig.create({"patch_size": 20})
        sentence = in_form_words(raised.exception, TrainConfig)
        self.assertEqual(sentence, str(raised.exception).replace("--patch-size", "'Patch size'"))
        self.assertNotIn("--", sentence)
        self.assertEqual(
            in_form_words("--nonsense of --steps", TrainConfig), "--nonsense of 'Training steps'"
        )

    def testTheEnginesSentencesSpeakOfLabels(self):
        said = engine.EngineError("--patch-size is 24; expected 16")
        with mock.patch.object(engine, "run", side_effect=said), self.assertRaisesRegex(
            engine.EngineError, "^'Patch size' is 24; expected 16$"
        ):
            ProtF2FdTrain()._runEngine("train", TrainConfig(), os.devnull, "model.pt")

    def testValidatorsAndTheDataclassDontBothComplain(self):
        protocol = ProtF2FdTrain()
        protocol.batch_size.set(0)
        errors = [error for error in protocol.validate() if "batch" in error.lower()]
        self.assertEqual(errors, ["*Patches per batch* must be at least 1"])

    def testPointersAreNoEnumOrText(self):
        """What Scipion supplies as an object is chosen as one."""
        for name in ("inTomos", "groundTruth", "masks", "initialModel"):
            self.assertIsInstance(ProtF2FdTrain().getParam(name), params.PointerParam)
        for name in ("inTomos", "inModel"):
            self.assertIsInstance(ProtF2FdDenoise().getParam(name), params.PointerParam)
