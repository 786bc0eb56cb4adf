"""What a parameter is, and what all configurations share: checks, presets, JSON."""

import dataclasses
import json
import math
import os
import reprlib
import sys
import typing
from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple

from f2fd_core.config import aliases

SECTIONS = INPUT, TRAINING, PERTURBATION, NETWORK, DECONVOLUTION, PREDICTION, RUN = (
    "Input",
    "Training",
    "Perturbation",
    "Network",
    "Deconvolution",
    "Prediction",
    "Run",
)
"""In the order of command line, forms and documentation, whatever class a parameter is of."""

LONGEST_PATH = 4096  # bytes, PATH_MAX of Linux
_REPR = reprlib.Repr()
_REPR.maxstring = 60


class UserError(ValueError):
    """A mistake in what the user gave, reported in one sentence; the command line exits with 2."""


def brief(value):
    """The repr of a value of whatever size and depth, cut to 80 characters."""
    text = _REPR.repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


@dataclass(frozen=True)
class Param:
    """What is known of one parameter beside its type and default.

    ``ge``, ``gt``, ``le`` and ``lt`` bound numbers. ``only`` = (other field, values...) says when
    the parameter applies at all; without values, when the other field, a yes or no, is yes.
    ``zero`` is what 0 stands for, and the command line takes the word, too. ``text`` is what a text
    without choices stands for, in the usage. ``original`` is the published program's name for the
    parameter, taken by the command line as an alias.

    The ``help`` explains each choice in a line of its own, "name: what it is".
    """

    label: str
    help: str
    section: str
    unit: str = ""
    ge: float = -math.inf
    gt: float = -math.inf
    le: float = math.inf
    lt: float = math.inf
    choices: Tuple[str, ...] = ()
    advanced: bool = False
    positional: bool = False
    length: int = 0
    zero: str = ""
    text: str = "FILE"
    only: Tuple[str, ...] = ()
    original: str = ""

    def full_help(self):
        """The help text with the unit and, for a conditional parameter, its condition."""
        parts = [self.help]
        if self.unit:
            parts.append(f"Unit: {self.unit}.")
        if self.only:
            values = " or ".join(f"'{value}'" for value in self.only[1:])
            parts.append(f"Used with {' '.join(filter(None, (self.only[0], values)))} only.")
        return ("\n" if self.choices else " ").join(parts)


def param(default, label, help, section, **more):
    """A dataclass field that carries its :class:`Param`."""
    return field(default=default, metadata={"param": Param(label, help, section, **more)})


def flag(name):
    """The command line's spelling of a field: ``patch_size`` -> ``--patch-size``."""
    return "--" + name.replace("_", "-")


def parameters(config_class):
    """Yield (name, type, default, Param) for every field of a configuration class, section by
    section.

    The type is bool, int, float, str or, for tuples, ``Tuple[item, ...]``.
    """
    hints = typing.get_type_hints(config_class)
    for item in sorted(
        dataclasses.fields(config_class),
        key=lambda item: SECTIONS.index(item.metadata["param"].section),
    ):
        yield item.name, hints[item.name], item.default, item.metadata["param"]


def item_type(annotation):
    """The type of a tuple's items, or None when the annotation is no tuple."""
    arguments = getattr(annotation, "__args__", None)
    return arguments[0] if arguments else None


def _system_takes(text):
    """Whether a text may be a path or a part of one on some system: not too long, without NUL and
    surrogates, except those that stand for bytes that are no UTF-8."""
    try:
        return len(text.encode("utf-8", "surrogateescape")) < LONGEST_PATH and "\0" not in text
    except UnicodeEncodeError:
        return False


def _checked(name, kind, value, spec, default=None):
    """Return ``value`` as the field's type, or raise a UserError that names the option."""
    item = item_type(kind)
    if item is not None:
        if item is not str and type(value) in (int, float):
            value = (value,)  # a parameter that once was a single number, such as --tilt-range
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{flag(name)} is {brief(value)}; expected a list")
        if spec.length and len(value) != spec.length and tuple(value) != default:
            raise UserError(f"{flag(name)} has {len(value)} values; expected {spec.length}")
        return tuple(_checked(name, item, entry, spec) for entry in value)
    if type(value) is int and abs(value) > sys.maxsize:
        raise UserError(f"{flag(name)} is {brief(value)}; expected a smaller number")
    if kind is float and type(value) is int:
        value = float(value)
    if kind is str and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if type(value) is not kind:
        kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        raise UserError(f"{flag(name)} is {brief(value)}; expected {kinds[kind]}")
    if kind is str and not _system_takes(value):
        raise UserError(f"{flag(name)} is {brief(value)}; expected a text that can be a path")
    value = aliases.VALUES.get(name, {}).get(value, value)
    if spec.choices and value not in spec.choices:
        raise UserError(
            f"{flag(name)} is {brief(value)}; expected one of {', '.join(spec.choices)}"
        )
    if kind in (int, float):
        if not math.isfinite(value):
            raise UserError(f"{flag(name)} is {value}; expected a finite number")
        for bound, words, holds in (
            (spec.ge, "at least", value >= spec.ge),
            (spec.gt, "above", value > spec.gt),
            (spec.le, "at most", value <= spec.le),
            (spec.lt, "below", value < spec.lt),
        ):
            if not holds:
                unit = f" (unit: {spec.unit})" if spec.unit else ""
                raise UserError(f"{flag(name)} is {value}; expected {words} {bound:g}{unit}")
    return value


@dataclass(frozen=True)
class Config:
    """What all configurations share: checks on creation, and JSON in both directions."""

    def __post_init__(self):
        for name, kind, default, spec in parameters(type(self)):
            object.__setattr__(self, name, _checked(name, kind, getattr(self, name), spec, default))
        self.check()

    def check(self):
        """Rules between fields; raises UserError."""

    @classmethod
    def presets(cls):
        """Named sets of values: {name: {field: value}}."""
        return {}

    @classmethod
    def implied(cls):
        """What giving a field (other than 0, no or nothing) implies: {field: {other: value}}."""
        return {}

    @classmethod
    def create(cls, explicit: Dict[str, Any], base: Optional[Dict[str, Any]] = None):
        """Build from what was given: ``explicit`` wins over its preset, that over ``base``.

        ``base`` is a configuration file's content, complete or not; the preset that it names
        fills in what it leaves out. Raises UserError for an unknown name or a bad value.
        """
        known = {item.name for item in dataclasses.fields(cls)}
        values = {}
        for layer in (base or {}, explicit):
            for name in layer:
                if name not in known:
                    raise UserError(f"{brief(name)} is no parameter of {cls.__name__}")
            preset = layer.get("preset")
            values.update(cls.presets().get(preset, {}) if type(preset) is str else {})
            for name, value in layer.items():
                values.update(cls.implied().get(name, {}) if value else {})
            values.update(layer)
        return cls(**values)

    def to_dict(self):
        """All fields as JSON types (tuples become lists)."""
        values = {name: getattr(self, name) for name, *_ in parameters(type(self))}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    def to_json(self):
        """All fields; bytes of file names that are no UTF-8 are spelled out, as JSON has it."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def read_json(path):
    """The dictionary in a configuration file; raises UserError when it holds none."""
    try:
        with open(path, "rb") as stream:  # of bytes, json finds the encoding and its mark
            values = json.load(stream)
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}")
    except RecursionError:
        raise UserError(
            f"{path} is nested too deeply; expected an object with one entry a parameter"
        )
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error})")
    if not isinstance(values, dict):
        raise UserError(
            f"{path} holds a {type(values).__name__}; expected an object with one entry a parameter"
        )
    return values
