import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import reference

import f2fd_core
from f2fd_core import cli, config
from f2fd_core.config import (
    BenchmarkConfig,
    DeconvolveConfig,
    DenoiseConfig,
    SimulateConfig,
    TrainConfig,
    UserError,
    aliases,
    read_json,
)

BLOCK = (
    "import sys\n"
    "class Block:\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name.split('.')[0] in {blocked}: raise ImportError('blocked ' + name)\n"
    "sys.meta_path.insert(0, Block())\n"
)


def import_with_blocked(blocked, modules):
    code = BLOCK.format(blocked=blocked) + "import " + ", ".join(modules)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_config_needs_only_the_standard_library():
    result = import_with_blocked(
        {"torch", "numpy", "mrcfile", "matplotlib"}, ["f2fd_core.config", "f2fd_core.cli"]
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_engine_never_imports_scipion():
    modules = [
        module.name
        for module in pkgutil.walk_packages(f2fd_core.__path__, "f2fd_core.")
        if not module.name.endswith("__main__")
    ]
    assert {"f2fd_core.commands.train", "f2fd_core.config.train"} <= set(modules)
    result = import_with_blocked({"pyworkflow", "pwem", "tomo"}, modules)
    assert result.returncode == 0, result.stderr


def test_the_block_of_these_tests_does_block():
    assert import_with_blocked({"json"}, ["json.tool"]).returncode == 1


@pytest.mark.parametrize(
    "values",
    [
        {"tomograms": ["a b.mrc", "ü.mrc"], "output": "x", "steps": 7, "learning_rate": 1},
        {"tomograms": [os.fsdecode(b"no UTF-8: \xff \\xff \xfc.mrc")]},
        {"preset": "published", "steps": 3},
        {"preset": "published"},
    ],
)
def test_json_round_trip(values):
    first = TrainConfig.create(values)
    assert TrainConfig.create(json.loads(first.to_json())) == first


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_with_and_without_a_byte_order_mark(encoding, tmp_path):
    path = tmp_path / "train.json"
    path.write_text('{"output": "ü"}', encoding=encoding)
    assert read_json(str(path)) == {"output": "ü"}


def test_a_recorded_name_that_is_no_utf8_is_taken_up_again(tmp_path):
    first = TrainConfig(tomograms=("ü\udcff.mrc",), output="x")
    (tmp_path / "train.json").write_text(first.to_json(), encoding="utf-8")
    assert TrainConfig.create({}, config.recorded(str(tmp_path))) == first


def test_published_preset_sets_the_sample_run():
    published = TrainConfig.create({"preset": "published"})
    expected = dict(
        epochs=50,
        inversion_probability=0.1,
        mask_probability=0.5,
        dropout=0.8,
        block_size=8,
        pool_size=20,
        samples_per_patch=6,
        batch_size=2,
        patch_size=64,
        optimizer="adam",
        learning_rate=1e-4,
        clip=True,
        tv_weight=0.0,
        perturbation="fourier_masks",
        network="published",
        renew_pool=False,
    )
    assert {name: getattr(published, name) for name in expected} == expected
    assert published.network_features() == 48
    filled = DenoiseConfig().for_model(published)
    assert (filled.predictions, filled.batch_size, filled.pool_size, filled.tile_size) == (
        100,
        10,
        20,
        64,
    )


def test_explicit_options_win_over_preset_and_file(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"preset": "published", "patch_size": 96}))
    settings, _ = cli.parse(
        [
            "train",
            "a.mrc",
            "--output",
            "o",
            "--config",
            str(path),
            "--dropout",
            "0.3",
            "--steps",
            "5",
        ]
    )
    assert (settings.patch_size, settings.dropout, settings.steps, settings.epochs) == (
        96,
        0.3,
        5,
        0,
    )
    assert settings.features == 48


def test_resume_takes_up_the_recorded_settings(tmp_path):
    first = TrainConfig(tomograms=("a.mrc",), output=str(tmp_path), features=5, overwrite=True)
    (tmp_path / "train.json").write_text(first.to_json())
    settings, _ = cli.parse(["train", "--output", str(tmp_path), "--resume", "--steps", "7"])
    assert (settings.tomograms, settings.features, settings.steps) == (("a.mrc",), 5, 7)
    assert settings.resume and not settings.overwrite
    fresh, _ = cli.parse(["train", "b.mrc", "--output", str(tmp_path)])
    assert fresh.features == 0 and not fresh.overwrite


def test_original_names_are_aliases():
    names = {
        "train": {
            "epochs": ("epochs", 3),
            "p": ("inversion_probability", 0.2),
            "Vmask_pct": ("mask_probability", 0.4),
            "dropout_p": ("dropout", 0.6),
            "volumetric_scale_factor": ("block_size", 4),
            "total_samples": ("pool_size", 12),
            "n_bernoulli_samples": ("samples_per_patch", 5),
            "batch_size": ("batch_size", 3),
            "subtomo_length": ("patch_size", 96),
            "n_features": ("features", 16),
            "lr": ("learning_rate", 0.01),
            "alpha": ("tv_weight", 0.5),
            "Vmask_probability": ("block_probability", 0.25),
            "dataset": ("perturbation", "fourier_masks"),
        },
        "denoise": {
            "total_samples_prediction": ("pool_size", 9),
            "n_bernoulli_samples_prediction": ("batch_size", 3),
            "predict_N_times": ("predictions", 30),
        },
    }
    for command, originals in names.items():
        for original, (field, value) in originals.items():
            settings, _ = cli.parse([command, "--" + original, str(value)])
            assert getattr(settings, field) == value
    assert cli.parse(["train", "--no-clip", "--clip"])[0].clip is True
    assert cli.parse(["train", "--deconv_kwargs"])[0].deconvolve is True


def other_value(field, kind, default, spec):
    """A valid value of a field that is not its default."""
    if field in ("patch_size", "tile_size", "shape"):
        return (96, 104, 112) if config.item_type(kind) else 96
    item = config.item_type(kind)
    if item:
        one = spec.choices[-1] if spec.choices else {str: "one.mrc", int: 5, float: 0.5}[item]
        return (one,) * (spec.length or 1)
    if kind is bool:
        return not default
    if kind is str:
        return next((choice for choice in spec.choices if choice != default), "text of {name}")
    if kind is int:
        return default + 1
    return default * 0.75 or max(spec.ge, 0.1)


def test_every_option_reaches_its_field():
    for command, (config_class, _) in cli.COMMANDS.items():
        for field, kind, default, spec in config.parameters(config_class):
            if spec.positional or field in (
                "ground_truth",
                "half_maps",
                "perturbation",
                "reference",
                "membrane",
            ):
                continue
            value = other_value(field, kind, default, spec)
            words = [config.flag(field)]
            if kind is bool:
                words = ["--no-" + words[0][2:]] if default else words
            else:
                words += [str(item) for item in (value if isinstance(value, tuple) else [value])]
            if value == "published":
                words += ["--patch-size", "64"]
            if command == "benchmark" and field != "tomogram":
                words += ["--tomogram", "one.mrc"]
            if field == "sampling_masks":
                words = ["one.mrc", *words]
            if field == "idle":
                words += ["--watch"]
            if field == "denoise_halves":
                words += ["--half-maps", "odd.mrc", "even.mrc"]
            if command == "run" and field in ("defocus", "ctf"):
                words += ["--deconvolve"]
            settings, _ = cli.parse([command, *words])
            assert getattr(settings, field) == value != default


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"perturbation": "self2self", "block_size": 49},
            "--block-size is 49; expected at most --patch-size, which is 48",
        ),
        ({"batch_size": 0}, "--batch-size is 0; expected at least 1"),
        ({"steps": "many"}, "--steps is 'many'; expected a whole number"),
        ({"steps": True}, "--steps is True; expected a whole number"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan; expected a finite number"),
        ({"learning_rate": 0}, "--learning-rate is 0.0; expected above 0"),
        ({"noise_scale": 0.01}, "--noise-scale is 0.01; expected 0 (automatic) or at least 0.05"),
        ({"dropout": 1.0}, "--dropout is 1.0; expected below 1"),
        (
            {"network": "huge"},
            "--network is 'huge'; expected one of compact, published, unshuffled",
        ),
        ({"patch_size": 50}, "--patch-size is 50; expected a multiple of 8"),
        (
            {"network": "published", "patch_size": 48},
            "--patch-size is 48; expected a multiple of 32",
        ),
        (
            {"start": "pretrained", "network": "compact"},
            "--start is pretrained, with the network "
            "compact of 8 features; expected unshuffled of 16, or random",
        ),
        (
            {"start": "pretrained", "features": 24},
            "--start is pretrained, with the network unshuffled of 24 ",
        ),
        (
            {"start": "pretrained", "initial_model": "model.pt"},
            "--start is pretrained and --initial-model is model.pt; expected one of them",
        ),
        ({"tomograms": "a.mrc"}, "--tomograms is 'a.mrc'; expected a list"),
        (
            {"perturbation": "fourier_masks", "samples_per_patch": 6, "pool_size": 11},
            "--pool-size is 11; expected at least 12",
        ),
        ({"sphere_min": 0.2, "sphere_max": 0.1}, "--sphere-min is 0.2; expected at most"),
        ({"resume": True, "overwrite": True}, "--resume and --overwrite exclude each other"),
        ({"ground_truth": ["a"], "tomograms": ["a", "b"]}, "--ground-truth names 1 volumes"),
        (
            {"half_maps": ["a", "b", "c"]},
            "--half-maps names 3 files; expected two for each tomogram",
        ),
        (
            {"half_maps": ["a", "b"], "tomograms": ["c", "d"]},
            "--half-maps names 2 files; expected two",
        ),
        (
            {"half_maps": ["a", "b"], "perturbation": "self2self"},
            "--perturbation is self2self and --half-maps names 2 files; expected noise_matched or "
            "noise2noise with ",
        ),
        (
            {"perturbation": "noise2noise", "tomograms": ["a"]},
            "--perturbation is noise2noise and --half-maps names no files; expected two a tomogram",
        ),
        (
            {"half_maps": ["a", "b"], "ground_truth": ["c", "d"]},
            "--ground-truth names 2 volumes; expected 1, one for each tomogram",
        ),
        (
            {"deconvolve": True, "tomograms": ["a"]},
            "--defocus is 0; expected the tomograms' defocus",
        ),
        ({"point_probability": 0.0}, "--point-probability is 0.0; expected above 0"),
        ({"blind_share": 0.6}, "--blind-share is 0.6; expected at most 0.5"),
        ({"stpes": 3}, "'stpes' is no parameter of TrainConfig"),
    ],
)
def test_bad_values_get_one_sentence(values, words):
    with pytest.raises(UserError) as caught:
        TrainConfig.create(values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config_class", [TrainConfig, DenoiseConfig, DeconvolveConfig, SimulateConfig, BenchmarkConfig]
)
def test_a_defocus_in_angstrom_is_refused_with_the_unit(config_class):
    assert config_class.create({"defocus": 100.0}).defocus == 100
    with pytest.raises(
        UserError,
        match=r"--defocus is 30000.0; expected at most 100 "
        r"\(unit: µm\)",
    ):
        config_class.create({"defocus": 30000})


def test_values_go_by_their_earlier_names_too():
    for option, values in aliases.VALUES.items():
        command, base = ("benchmark", ["out"]) if option == "methods" else ("train", [])
        for before, now in values.items():
            one, other = (
                getattr(cli.parse([command, *base, "--" + option, value])[0], option)
                for value in (before, now)
            )
            assert one == other != before
    assert set(aliases.OLD_PERTURBATIONS.values()) == set(config.PERTURBATIONS)


def test_options_go_by_their_earlier_names_too(tmp_path):
    """On the command line, in a file, and in the settings of a model; today's name wins there."""
    path = tmp_path / "settings.json"
    for before, now in aliases.OPTIONS.items():
        kind, default = next(
            (kind, default)
            for name, kind, default, _ in config.parameters(TrainConfig)
            if name == now
        )
        value = not default if kind is bool else "cpu"
        path.write_text(json.dumps({before: value}))
        given = (
            ["--no-" + before.replace("_", "-")]
            if kind is bool and default
            else [config.flag(before), str(value)]
        )
        for arguments in (given, ["--config", str(path)]):
            assert getattr(cli.parse(["train", *arguments])[0], now) == value
        assert getattr(TrainConfig.stored({before: value}), now) == value
        assert getattr(TrainConfig.stored({before: default, now: value}), now) == value


@pytest.mark.parametrize("config_class", [SimulateConfig, TrainConfig, DenoiseConfig])
def test_help_has_a_line_for_each_choice(config_class):
    for name, _, _, spec in config.parameters(config_class):
        lines = spec.full_help().splitlines()
        assert [line.split(":")[0] for line in lines[1 : len(spec.choices) + 1]] == list(
            spec.choices
        ), name


def test_half_maps_are_for_noise_matched_pairs_or_for_noise2noise():
    given = {"half_maps": ["odd.mrc", "even.mrc"]}
    for more, perturbation in (
        ({}, "noise_matched"),
        ({"perturbation": "noise2noise"}, "noise2noise"),
    ):
        made = TrainConfig.create(dict(given, **more))
        assert made.perturbation == perturbation
        assert made.names() == ("odd.mrc",)
    assert TrainConfig.create(dict(given, tomograms=["a.mrc"])).names() == ("a.mrc",)
    # No half-maps, as the form gives them for other perturbations, imply nothing.
    published = TrainConfig.create({"preset": "published", "half_maps": [], "tomograms": ["a.mrc"]})
    assert published.perturbation == "fourier_masks"
    settings, _ = cli.parse(["train", "--half-maps", "odd.mrc", "even.mrc", "--output", "o"])
    assert (settings.half_maps, settings.perturbation) == (("odd.mrc", "even.mrc"), "noise_matched")


def test_recorded_half_maps_and_perturbation_are_taken_up(tmp_path):
    """A configuration file with half-maps, and one without to which they are given."""
    for recorded, words in (
        (dict(half_maps=("a.mrc", "b.mrc"), perturbation="noise2noise"), []),
        (
            dict(perturbation="fourier_masks"),
            ["--half-maps", "a.mrc", "b.mrc", "--perturbation", "noise2noise"],
        ),
    ):
        path = tmp_path / "train.json"
        path.write_text(TrainConfig(**recorded).to_json())
        settings, _ = cli.parse(["train", "--config", str(path), *words])
        assert (settings.half_maps, settings.perturbation) == (("a.mrc", "b.mrc"), "noise2noise")


def test_what_is_left_of_a_denoising_without_the_finished_tomograms():
    halves = tuple(f"{name}_{half}" for name in "abc" for half in ("odd", "even"))
    for tomograms in ((), ("a", "b", "c")):
        whole = DenoiseConfig(tomograms=tomograms, half_maps=halves, seed=7)
        names = whole.names()
        assert names == (tomograms or halves[::2])
        left = whole.without({names[1]})
        assert left.half_maps == halves[:2] + halves[4:]
        assert left.tomograms == tuple(name for name in tomograms if name != "b")
        assert left.names() == (names[0], names[2]) and left.seed == 7
        assert whole.without(set()) == whole
        assert whole.without(set(names)).names() == ()
    plain = DenoiseConfig(tomograms=("a", "b")).without({"a"})
    assert (plain.tomograms, plain.half_maps) == (("b",), ())


@pytest.mark.parametrize(
    ("trained", "values", "words"),
    [
        (
            {"perturbation": "self2self"},
            {"half_maps": ["a", "b"]},
            "--half-maps names 2 files; expected "
            "none for a model trained with the perturbation self2self",
        ),
        (
            {},
            {"defocus": 2.5},
            "--defocus is 2.5; expected 0, since the model was trained on tomograms "
            "that were not deconvolved",
        ),
        (
            {"network": "published", "patch_size": 64},
            {"tile_size": 72},
            "--tile-size is 72; expected a multiple of 32 for the model's published network",
        ),
    ],
)
def test_denoising_has_to_suit_the_model(trained, values, words):
    with pytest.raises(UserError) as caught:
        DenoiseConfig.create(values).for_model(TrainConfig.create(trained))
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("trained", "predictions"),
    [
        ({}, 4),
        ({"augmentation": "none"}, 4),
        ({"perturbation": "self2self"}, 20),
        ({"perturbation": "noise2void"}, 4),
        ({"perturbation": "noise2void", "augmentation": "none"}, 1),
        ({"perturbation": "noise2void", "augmentation": "none", "dropout": 0.1}, 4),
        ({"perturbation": "noise2noise"}, 4),
        ({"perturbation": "noise2noise", "augmentation": "none"}, 1),
        ({"preset": "published"}, 100),
        ({"preset": "published", "perturbation": "self2self"}, 100),
    ],
)
def test_predictions_as_the_model_wants_them(trained, predictions):
    trained = TrainConfig.create(trained)
    assert DenoiseConfig().for_model(trained).predictions == predictions
    assert DenoiseConfig(predictions=6).for_model(trained).predictions == 6


def test_the_word_for_zero_is_taken_and_reported():
    words = {}
    for command, (config_class, _) in cli.COMMANDS.items():
        for field, kind, _, spec in config.parameters(config_class):
            if spec.zero:
                settings, _ = cli.parse([command, config.flag(field), spec.zero])
                assert getattr(settings, field) == 0 and type(getattr(settings, field)) is kind
                with pytest.raises(UserError, match=f"invalid {kind.__name__} value"):
                    cli.parse([command, config.flag(field), spec.zero + "?"])
                words[command, field] = spec.zero
    assert words["train", "epochs"] == "by steps" and words["denoise", "threads"] == "all"
    assert "| `--epochs` | Epochs | `epochs` | 0 (by steps) |" in reference.table(TrainConfig)
    # A word that is none for this option is no number, either.
    with pytest.raises(UserError, match="--epochs"):
        cli.parse(["train", "--epochs", "all"])


def test_help_says_with_what_a_parameter_is_used():
    helps = {name: spec.full_help() for name, _, _, spec in config.parameters(TrainConfig)}
    assert helps["block_size"].endswith(
        "Used with perturbation 'fourier_masks' or 'self2self' only."
    )
    assert helps["defocus"].endswith("Used with deconvolve only.")
    assert "Used with" not in helps["deconvolve"]


def test_shape_needs_three_sides():
    with pytest.raises(UserError, match="--shape has 2 values; expected 3"):
        SimulateConfig(shape=(32, 32))


@pytest.mark.parametrize(
    ("words", "tilt_range"),
    [
        (["out", "--tilt-range", "57"], (57.0,)),
        (["--tilt-range", "57", "out"], (57.0,)),
        (["--tilt-range=57", "out"], (57.0,)),
        (["out", "--tilt-range", "-50", "65"], (-50.0, 65.0)),
        (["--tilt-range", "-50", "65", "out", "--seed", "3"], (-50.0, 65.0)),
    ],
)
def test_a_tilt_range_is_one_angle_or_two_and_a_folder_may_follow(words, tilt_range):
    settings, _ = cli.parse(["simulate", *words])
    assert (settings.output, settings.tilt_range) == ("out", tilt_range)
    assert SimulateConfig.create(json.loads(settings.to_json())) == settings


def test_a_single_number_stands_for_a_list_of_one():
    """As a tilt range is in files and programs for earlier versions; a name stands for none."""
    assert SimulateConfig.create({"tilt_range": 57}).tilt_range == (57.0,)
    with pytest.raises(UserError, match="--shape has 1 values; expected 3"):
        SimulateConfig(shape=32)
    with pytest.raises(UserError, match="--tilt-range is True; expected a list"):
        SimulateConfig(tilt_range=True)


@pytest.mark.reliability("a simulation whose settings do not go together", "one sentence")
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tilt_range": -60}, "--tilt-range is -60; expected above 0, or two angles"),
        ({"tilt_range": (-90, 60)}, "--tilt-range is -90.0; expected above -90"),
        ({"tilt_range": (1, 2, 3)}, "--tilt-range has 3 values; expected one angle, or two"),
        ({"tilt_range": ()}, "--tilt-range has 0 values; expected one angle, or two"),
        (
            {"tilt_range": (65, -50)},
            "--tilt-range is 65 -50 and --tilt-step is 3; expected at least 1 multiples of ",
        ),
        (
            {"tilt_range": 2, "half_maps": "tilts"},
            "--tilt-range is 2 and --tilt-step is 3; expected at least 2 multiples of the step in",
        ),
        (
            {"reconstruction": "insertion", "sirt_iterations": 5},
            "--sirt-iterations is 5 and --reconstruction is insertion; expected 0 iterations, or ",
        ),
    ],
)
def test_tilts_and_reconstructions_that_cannot_be(values, words):
    with pytest.raises(UserError) as caught:
        SimulateConfig.create(values)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_std_needs_two_predictions():
    with pytest.raises(UserError, match="--predictions is 1; expected at least 2 for --std"):
        DenoiseConfig(predictions=1, std=True).for_model(TrainConfig())
    with pytest.raises(UserError, match="--predictions is 1; expected at least 2 for --std"):
        DenoiseConfig(std=True).for_model(
            TrainConfig(perturbation="noise2void", augmentation="none")
        )


def test_the_reference_has_the_current_arguments():
    page = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")
    assert reference.renewed(page) == page, "run: make table"


@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        ({}, True),
        ({"patch_size": 40}, False),
        ({"patch_size": 40, "start": "shapes"}, True),
        ({"start": "random"}, False),
        ({"features": 8}, False),
        ({"network": "compact"}, False),
        ({"perturbation": "fourier_masks"}, False),
        ({"preset": "published"}, False),
        ({"initial_model": "model.pt"}, False),
    ],
)
def test_what_the_automatic_start_suits(options, shapes):
    """The network, method and patches that learned from shapes, unless a model is given; both
    have learned before."""
    config = TrainConfig.create(options)
    assert config.starts_pretrained() is shapes
    assert config.pretrained() is (shapes or "initial_model" in options)


def test_what_a_training_starts_from_is_reported():
    assert "simulated tomograms" in TrainConfig().origin()
    assert TrainConfig(network="compact").origin() == "random weights"
    assert TrainConfig(initial_model="other.pt").origin() == "the model other.pt"
