"""The command line ``f2fd``, generated from the configuration classes.

Heavy imports happen inside the commands, so that ``--help`` and bad options answer at once.
"""

import argparse
import contextlib
import io
import json
import os
import signal
import sys
import threading
from typing import Any, Callable, Dict, Tuple, Type

from f2fd_core import __version__, config
from f2fd_core.config import UserError
from f2fd_core.config.parameter import Config
from f2fd_core.runtime import console, memory

# Ctrl-C, and what ends a terminal's session or a job in a queue.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message} (see '{self.prog} --help')")


def _number(kind, zero):
    """A converter that also takes the word for what 0 stands for."""

    def convert(text):
        return kind(0 if text == zero else text)

    convert.__name__ = kind.__name__
    return convert


def add_arguments(parser, config_class):
    """Give the parser one argument for every field of a configuration class.

    Absent options are absent from the namespace, so that a preset or a file can supply them.
    """
    groups = {}
    for name, kind, default, spec in config.parameters(config_class):
        group = groups.setdefault(spec.section, None) or parser.add_argument_group(spec.section)
        groups[spec.section] = group
        item = config.item_type(kind)
        text = spec.full_help()
        if default not in ("", ()):
            shown = " ".join(map(str, default)) if item else default
            text += f" Default: {(str(shown).lower() if kind is bool else shown)}."
        options = {"help": text.replace("%", "%%"), "default": argparse.SUPPRESS}
        if spec.positional:
            options.update(nargs="*" if item else "?", metavar=name.upper())
            group.add_argument(name, **options)
            continue
        options["dest"] = name
        names = [config.flag(other) for other in (name, *config.names_before(name))]
        if spec.original and "--" + spec.original not in names:
            names.append("--" + spec.original)
        if kind is bool:
            # Both spellings work; the help shows the one that changes something.
            negative = dict(options, help=options["help"] if default else argparse.SUPPRESS)
            if default:
                options["help"] = argparse.SUPPRESS
            group.add_argument(*names, action="store_true", **options)
            negations = ["--no-" + other[2:] for other in names]
            group.add_argument(*negations, action="store_false", **negative)
            continue
        options["type"] = _number(kind, spec.zero) if spec.zero else item or kind
        options["metavar"] = (item or kind).__name__.upper()
        if spec.choices:
            options["metavar"] = f"{{{','.join(spec.choices)}}}"
        if item:
            options["nargs"] = spec.length or "+"
        group.add_argument(*names, **options)


def _parsers():
    """The parser of ``f2fd`` itself, and those of the commands, {name: parser}."""
    parser = _Parser(
        prog="f2fd", description="Denoise cryo-electron tomograms from one reconstructed volume."
    )
    parser.add_argument("--version", action="version", version="f2fd " + __version__)
    listed = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, (config_class, _) in COMMANDS.items():
        summary = (config_class.__doc__ or "").splitlines()[0]
        # No abbreviated options: --p is an original name, not short for --patch-size.
        command = listed.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        if config_class in (
            config.TrainConfig,
            config.DenoiseConfig,
            config.CheckConfig,
            config.DeconvolveConfig,
        ):
            command.add_argument(
                "--config",
                metavar="FILE",
                help="JSON file with any of these parameters; options given beside it win",
            )
        add_arguments(command, config_class)
        if config_class is config.TrainConfig:
            for gone in config.GONE:  # so that commands of earlier versions go on working
                command.add_argument(
                    config.flag(gone), dest=gone, help=argparse.SUPPRESS, default=argparse.SUPPRESS
                )
    return parser, listed.choices


def _parsed(argv):
    """(command, {field: value}); files may stand before, between and after the options."""
    parser, commands = _parsers()
    if argv and argv[0] in commands:
        # After "--" there are files only; argparse does not keep to that everywhere.
        cut = argv.index("--") if "--" in argv else len(argv)
        names = [
            os.path.join(".", name) if name.startswith("-") else name for name in argv[cut + 1 :]
        ]
        return argv[0], vars(commands[argv[0]].parse_intermixed_args(argv[1 : cut + 1] + names))
    parser.parse_args(argv)
    raise UserError(f"no command given; expected one of {', '.join(COMMANDS)} (see 'f2fd --help')")


def _require(settings, *names):
    for name in names:
        if not getattr(settings, name):
            spec = type(settings).__dataclass_fields__[name].metadata["param"]
            raise UserError(
                f"{(name.upper() if spec.positional else config.flag(name))} is "
                f"missing; expected: {spec.help}"
            )


def _train(settings):
    _require(settings, *(() if settings.half_maps else ("tomograms",)), "output")
    from f2fd_core.checking.short import report
    from f2fd_core.commands.train import train
    from f2fd_core.runtime.run_folder import model_in

    train(settings, lambda volumes: report(model_in(settings.output), settings, volumes))


def _denoise(settings):
    _require(settings, "model", *(() if settings.half_maps else ("tomograms",)), "output")
    from f2fd_core.checking.short import report
    from f2fd_core.commands.denoise import denoise

    denoise(settings, lambda volumes: report(settings.model, settings, volumes, write=True))


def _check(settings):
    _require(settings, "model", *(() if settings.half_maps else ("tomograms",)), "output")
    from f2fd_core.checking.run import check

    check(settings)


def _deconvolve(settings):
    _require(settings, "tomograms", "output")
    from f2fd_core.commands.deconvolve import deconvolve

    deconvolve(settings)


def _simulate(settings):
    _require(settings, "output")
    from f2fd_core.commands.simulate import simulate

    simulate(settings)


def _evaluate(settings):
    _require(settings, "denoised", *(() if settings.half_map else ("reference",)))
    from f2fd_core.commands.evaluate import evaluate

    print(json.dumps(evaluate(settings), indent=2))


def _benchmark(settings):
    _require(settings, "output")
    from f2fd_core.benchmarking.compare import benchmark

    print(benchmark(settings))


def _info(settings):
    from f2fd_core.commands.info import describe

    print(json.dumps(describe(settings), indent=2))


COMMANDS: Dict[str, Tuple[Type[Config], Callable[[Any], None]]] = {
    "train": (config.TrainConfig, _train),
    "denoise": (config.DenoiseConfig, _denoise),
    "check": (config.CheckConfig, _check),
    "deconvolve": (config.DeconvolveConfig, _deconvolve),
    "simulate": (config.SimulateConfig, _simulate),
    "evaluate": (config.EvaluateConfig, _evaluate),
    "benchmark": (config.BenchmarkConfig, _benchmark),
    "info": (config.InfoConfig, _info),
}


def parse(argv):
    """Return (configuration, function that runs it); raises UserError for bad options."""
    command, explicit = _parsed(argv)
    config_class, run = COMMANDS[command]
    base = {}
    path = explicit.pop("config", None)
    # An empty list of positionals is what argparse gives for "not given".
    explicit = {name: value for name, value in explicit.items() if value != []}
    for name in [name for name in config.GONE if name in explicit]:
        del explicit[name]
        _say(f"warning: {config.flag(name)} is ignored: the noise is estimated without it by now")
    if path:
        base = config.migrate(config.read_json(path), {})
        if command == "train":
            # The train.json of a run that was allowed to replace one does not allow it for itself.
            base.pop("overwrite", None)
    elif command == "train" and explicit.get("resume") and explicit.get("output"):
        base = config.recorded(explicit["output"])
    return config_class.create(explicit, base), run


def _say(message):
    print(console.line(message), file=sys.stderr)


def _prepare_output():
    """Let the standard streams take whatever is written to them."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # It is closed; the next file that is opened would take its place, and its output.
            stream = open(os.devnull, "w")
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as that of errors does by itself


class Ended(KeyboardInterrupt):
    """One of the ENDING signals, whose ``number`` it has."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _ending_in_order():
    """Let the first of the ENDING signals raise :class:`Ended`, so that temporary files are
    removed; further ones are ignored from then on, until the process has ended."""

    def end(number, frame):
        for caught in before:
            signal.signal(caught, signal.SIG_IGN)
        before.clear()
        raise Ended(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            # nohup, or a shell that starts a command in the background, has had it ignored.
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(argv=None):
    """Run one command; returns the exit code.

    0: done; 2: a mistake in what was given; 1: the system refused (a full disk, say) or a package
    is missing; 128 and its number: ended by a signal (130: Ctrl-C; 143: SIGTERM).
    """
    _prepare_output()
    try:
        with _ending_in_order():
            settings, run = parse(sys.argv[1:] if argv is None else argv)
            with memory.reported(settings):
                run(settings)
    except UserError as error:
        _say(f"error: {error}")
        return 2
    except ImportError as error:
        _say(
            f"error: {error} (for {sys.executable}); expected all packages of the engine: 'pip "
            "install ./f2fd_core' in the folder of F2Fd's source, or 'scipion3 installb f2fd'"
        )
        return 1
    except OSError as error:
        # Our own have one sentence, the system's a number, too.
        place = error.filename or "the system"
        _say(f"error: {error if error.errno is None else f'{place}: {error.strerror}'}")
        return 1
    except KeyboardInterrupt as error:
        number = getattr(error, "number", signal.SIGINT)
        interrupted = number == signal.SIGINT
        ended = "interrupted" if interrupted else f"ended by {signal.Signals(number).name}"
        _say(f"{ended}; what was finished is kept")
        return 128 + number
    return 0
