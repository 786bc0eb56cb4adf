"""Protocol forms from the engine's dataclasses, and the forms' values back.

Parameters keep the engine's names, so that the same word stands in the form, in train.json and
on the command line. Choices are EnumParams, whose value is the index of the choice.
"""

import math
import operator
import re

from pyworkflow.protocol import params
from pyworkflow.protocol.constants import LEVEL_ADVANCED, LEVEL_NORMAL

from f2fd_core import config

PRESET = "preset"


def governed_by_presets(config_class):
    """{field: names of the presets that close it}: what a preset sets is not asked for.

    Closed are also fields that would switch off what it sets (steps, for a preset in epochs), and
    those that depend on what it sets.
    """
    governed = {}
    for preset, values in config_class.presets().items():
        switches = {
            name for name, others in config_class.implied().items() if set(others) & set(values)
        }
        for name in set(values) | switches:
            governed.setdefault(name, set()).add(preset)
    for name, _, _, spec in config.parameters(config_class):
        if spec.only:
            governed.setdefault(name, set()).update(governed.get(spec.only[0], ()))
    return governed


def _left_open(presets, specs):
    """The terms of a condition that none of these presets is chosen."""
    return [f"{PRESET} != {specs[PRESET].choices.index(preset)}" for preset in presets]


def _condition(name, specs, governed, instead):
    """Scipion's condition for a field: which presets leave it open, what it is only for, and that
    nothing was chosen ``instead``."""
    terms = _left_open(sorted(governed.get(name, ())), specs)
    terms += [f"{instead[name]} is None"] if name in instead else []
    if specs[name].only:
        other, *values = specs[name].only
        terms.append(
            " or ".join(f"{other} == {specs[other].choices.index(value)}" for value in values)
            or other
        )
    return " and ".join(f"({term})" for term in terms) or None


def _label(spec):
    """The label with the unit, unless it is in it already, and with what 0 stands for."""
    notes = [spec.unit] if spec.unit and spec.unit.lower() not in spec.label.lower() else []
    notes += ["0: " + spec.zero] if spec.zero else []
    return f"{spec.label} ({', '.join(notes)})" if notes else spec.label


def _validator(holds, words, bound):
    """A validator for a bound; Scipion's own speaks of a field that was emptied, which is None."""

    def validate(value):
        return [] if value is None or holds(value, bound) else [f"must be {words} {bound:g}"]

    return validate


def _validators(spec):
    """Validators for the bounds of a number."""
    return [
        _validator(holds, words, bound)
        for holds, words, bound in (
            (operator.ge, "at least", spec.ge),
            (operator.gt, "above", spec.gt),
            (operator.le, "at most", spec.le),
            (operator.lt, "below", spec.lt),
        )
        if math.isfinite(bound)
    ]


def _kind(name, kind, default, spec):
    """(parameter class, its own arguments) of a field."""
    if spec.choices:
        return params.EnumParam, {
            "choices": list(spec.choices),
            "default": spec.choices.index(default),
            "display": params.EnumParam.DISPLAY_HLIST,
        }
    if kind in (int, float):
        return {int: params.IntParam, float: params.FloatParam}[kind], {
            "default": default,
            "validators": _validators(spec),
        }
    if kind in (bool, str):
        return {bool: params.BooleanParam, str: params.StringParam}[kind], {"default": default}
    raise TypeError(f"no form parameter for {name}, a {kind}")


def add_model(form, help):
    """Add ``inModel``, the model of a protocol, with its own ``help``."""
    form.addParam(
        "inModel",
        params.PointerParam,
        pointerClass="F2FdModel",
        important=True,
        label="Model",
        help=help,
    )


def add_parameters(form, config_class, supplied, instead):
    """Add every field of a configuration class, but those in ``supplied``, to its section.

    Sections come in the order of the fields; one that the form has already is continued. One with
    nothing for the normal level is no tab, but a group at the end of the last one. Scipion looks up
    conditions on adding: the preset is added first, and a field on which others depend comes before
    them in the dataclass.

    ``instead``: {field: the protocol's own parameter that, once chosen, is used in its place}.
    """
    fields = [field for field in config.parameters(config_class) if field[0] not in supplied]
    specs = {name: spec for name, _, _, spec in fields}
    governed = governed_by_presets(config_class)
    sections = {}
    for field in sorted(fields, key=lambda field: field[0] != PRESET):
        sections.setdefault(field[3].section, []).append(field)
    continued = {section for section in sections if form.hasSection(section)}
    folded = {
        section
        for section, members in sections.items()
        if section not in continued and all(spec.advanced for *_, spec in members)
    }

    for section, members in sorted(sections.items(), key=lambda item: item[0] in folded):
        closing = sorted(set.intersection(*(governed.get(name, set()) for name, *_ in members)))
        if section in folded:
            place = form.addGroup(
                section,
                expertLevel=LEVEL_ADVANCED,
                condition=" and ".join(_left_open(closing, specs)) or None,
            )
        elif section in continued:
            place = form.getSection(section)
        else:
            place = form.addSection(label=section)
        for name, kind, default, spec in members:
            parameter, arguments = _kind(name, kind, default, spec)
            place.addParam(
                name,
                parameter,
                label=_label(spec),
                help=spec.full_help(),
                condition=_condition(name, specs, governed, instead),
                expertLevel=LEVEL_ADVANCED if spec.advanced else LEVEL_NORMAL,
                **arguments,
            )
        for preset in closing if section not in folded | continued else ():
            place.addParam(
                f"hint_{section.lower()}_{preset}",
                params.LabelParam,
                label=f"{section}: set by the method '{preset}'.",
                condition=f"{PRESET} == {specs[PRESET].choices.index(preset)}",
            )


def shown_values(protocol, config_class, supplied):
    """{field: value} of what the form shows; what is hidden is left to its preset or default."""
    values = {}
    for name, _, _, spec in config.parameters(config_class):
        if name not in supplied and protocol.evalParamCondition(name):
            value = protocol.getAttributeValue(name)
            values[name] = spec.choices[value] if spec.choices else value
    return values


def within_bounds(protocol, values):
    """Whether the form's own validators, which report for themselves, accept the values."""
    return not any(
        protocol.getParam(name).validate(protocol.getAttributeValue(name)) for name in values
    )


def in_form_words(error, config_class):
    """The engine's sentence with the form's labels in place of the command line's options."""
    labels = {config.flag(name): spec.label for name, _, _, spec in config.parameters(config_class)}
    return re.sub(
        r"--[a-z-]+",
        lambda found: f"'{labels[found.group()]}'" if found.group() in labels else found.group(),
        str(error),
    )
