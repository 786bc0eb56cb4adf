"""The arguments of the command line, one for every field of a configuration class."""

import argparse
import itertools

from f2fd_core.config.aliases import names_before
from f2fd_core.config.parameter import UserError, flag, item_type, parameters


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are UserErrors."""

    def error(self, message):
        raise UserError(f"{message} (see '{self.prog} --help')")

    def parse_words(self, words):
        """Parse options and files in any order: what is no number behind an option of any number of
        numbers is a file, as in ``--tilt-range 60 OUTPUT``."""
        several = {
            name
            for action in self._actions
            if action.nargs == "+" and action.type in (int, float)
            for name in action.option_strings
        }
        order, option = [], None  # option: where such a one stands
        for word in words:
            if word.startswith("--"):
                option = len(order) if word in several else None
            elif option is not None and len(order) > option + 1 and not _is_number(word):
                order.insert(option, word)
                option += 1
                continue
            order.append(word)
        return self.parse_intermixed_args(order)


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(kind, zero):
    """A converter that also takes the word for what 0 stands for."""

    def convert(text):
        return kind(0 if text == zero else text)

    convert.__name__ = kind.__name__
    return convert


def add_arguments(parser, *config_classes):
    """Give the parser one argument for every field of the configuration classes.

    Absent options are absent from the namespace, so that a preset or a file can supply them.
    """
    groups = {}
    for name, kind, default, spec in itertools.chain(*map(parameters, config_classes)):
        group = groups.setdefault(spec.section, None) or parser.add_argument_group(spec.section)
        groups[spec.section] = group
        item = item_type(kind)
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
        names = [flag(other) for other in (name, *names_before(name))]
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
        kind = item or kind
        options["metavar"] = spec.text if kind is str else kind.__name__.upper()
        if spec.choices:
            options["metavar"] = f"{{{','.join(spec.choices)}}}"
        if item:
            options["nargs"] = spec.length or "+"
        group.add_argument(*names, **options)
