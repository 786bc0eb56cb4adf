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
from f2fd_core.config.arguments import Parser, add_arguments
from f2fd_core.config.parameter import Config
from f2fd_core.runtime import console, listing, memory, project

# Ctrl-C, and what ends a terminal's session or a job in a queue.
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def _parsers():
    """The parser of ``f2fd`` itself, and those of the commands, {name: parser}."""
    parser = Parser(
        prog="f2fd", description="Denoise cryo-electron tomograms from one reconstructed volume."
    )
    parser.add_argument("--version", action="version", version="f2fd " + __version__)
    listed = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
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
                help="JSON file with any of these parameters; options override it",
            )
        projects = "tomograms" in config_class.__dataclass_fields__
        add_arguments(command, config_class, *([config.ProjectConfig] if projects else []))
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
        return argv[0], vars(commands[argv[0]].parse_words(argv[1 : cut + 1] + names))
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


def _run(settings):
    _require(settings, "tomograms", "output")
    from f2fd_core.pipeline.run import run

    run(settings)


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
    "run": (config.RunConfig, _run),
    "train": (config.TrainConfig, _train),
    "denoise": (config.DenoiseConfig, _denoise),
    "check": (config.CheckConfig, _check),
    "deconvolve": (config.DeconvolveConfig, _deconvolve),
    "simulate": (config.SimulateConfig, _simulate),
    "evaluate": (config.EvaluateConfig, _evaluate),
    "benchmark": (config.BenchmarkConfig, _benchmark),
    "info": (config.InfoConfig, _info),
}
# Where in the output folder the results of a command are, which STAR files name.
RESULT_FOLDERS = {"denoise": "", "run": "denoised"}


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
    if "tomograms" in config_class.__dataclass_fields__:
        copick = project.taken(explicit)
        if copick and command == "denoise":
            explicit.setdefault("output", copick.folder)
        if copick and command in RESULT_FOLDERS:
            run = copick.with_results(run, RESULT_FOLDERS[command])
    if "tomograms" in config_class.__dataclass_fields__ and not explicit.get("watch"):
        found = listing.found_for(explicit.get("tomograms", ()), explicit.get("half_maps", ()))
        for sentence in found.said:
            _say(sentence)
        explicit.update(
            {name: list(value) for name, value in zip(found._fields[:2], found) if value}
        )
        if not found.tomograms:
            explicit.pop("tomograms", None)
        if found.stars and command in RESULT_FOLDERS:
            run = _with_star_files(run, found.stars, RESULT_FOLDERS[command])
    return config_class.create(explicit, base), run


def _with_star_files(run, stars, folder):
    """The same as ``run``, and the STAR files again with the results, which are in this ``folder``
    of the output, in a column of their own."""

    def both(settings):
        from f2fd_core.runtime import distributed, files, star

        place = os.path.join(settings.output, folder)
        results = files.output_paths(settings.names(), place, settings.result_file)
        targets = {path: os.path.join(settings.output, os.path.basename(path)) for path in stars}
        if len(set(targets.values())) < len(targets):
            raise UserError(
                f"{' and '.join(stars)} have one name, and would both be written to "
                f"{settings.output}; expected separate runs"
            )
        group, _ = distributed.from_environment(os.environ)
        if group.size == 1:  # else it may be another task's of this very run
            files.refuse_existing(targets.values(), settings.overwrite or settings.resume)
        files.refuse_inputs(targets.values(), stars)
        run(settings)
        for path, target in targets.items():
            done, count = star.write_results(path, results, target)
            _say(f"{target} names the results of {done} of {count} tomograms")

    return both


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
    """One of the ENDING_SIGNALS, whose ``number`` it has."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _ending_in_order():
    """Let the first of the ENDING_SIGNALS raise :class:`Ended`, so that temporary files are
    removed; further ones are ignored from then on, until the process has ended."""

    def end(number, frame):
        for caught in before:
            signal.signal(caught, signal.SIG_IGN)
        before.clear()
        raise Ended(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in ENDING_SIGNALS:
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
