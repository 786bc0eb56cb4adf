"""Protocol forms from the engine's dataclasses, and the forms' values back.

Parameters keep the engine's names, so that the same word stands in the form, in train.json and
on the command line. Choices are EnumParams, whose value is the index of the choice.
"""
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
        switches = {name for name, others in config_class.implied().items()
                    if set(others) & set(values)}
        for name in set(values) | switches:
            governed.setdefault(name, set()).add(preset)
    for name, _, _, spec in config.parameters(config_class):
        if spec.only:
            governed.setdefault(name, set()).update(governed.get(spec.only[0], ()))
    return governed


def _left_open(presets, specs):
    """The terms of a condition that none of these presets is chosen."""
    return ["%s != %d" % (PRESET, specs[PRESET].choices.index(preset)) for preset in presets]


def _condition(name, specs, governed):
    """Scipion's condition for a field: which presets leave it open, and what it is only for."""
    terms = _left_open(sorted(governed.get(name, ())), specs)
    if specs[name].only:
        other, *values = specs[name].only
        terms.append(" or ".join("%s == %d" % (other, specs[other].choices.index(value))
                                 for value in values) or other)
    return " and ".join("(%s)" % term for term in terms) or None


def _label(spec):
    """The label with the unit, unless it is in it already, and with what 0 stands for."""
    notes = [spec.unit] if spec.unit and spec.unit.lower() not in spec.label.lower() else []
    notes += ["0: " + spec.zero] if spec.zero else []
    return "%s (%s)" % (spec.label, ", ".join(notes)) if notes else spec.label


def _validators(spec):
    """Validators for the bounds of a number."""
    return [validator(bound, error="must be %s %g" % (words, bound))
            for validator, bound, words in ((params.GE, spec.ge, "at least"),
                                            (params.GT, spec.gt, "above"),
                                            (params.LE, spec.le, "at most"),
                                            (params.LT, spec.lt, "below"))
            if abs(bound) != float("inf")]


def _kind(name, kind, default, spec):
    """(parameter class, its own arguments) of a field."""
    if spec.choices:
        return params.EnumParam, {"choices": list(spec.choices),
                                  "default": spec.choices.index(default),
                                  "display": params.EnumParam.DISPLAY_HLIST}
    if kind in (int, float):
        return {int: params.IntParam, float: params.FloatParam}[kind], {
            "default": default, "validators": _validators(spec)}
    if kind in (bool, str):
        return {bool: params.BooleanParam, str: params.StringParam}[kind], {"default": default}
    raise TypeError("no form parameter for %s, a %s" % (name, kind))


def add_parameters(form, config_class, supplied):
    """Add every field of a configuration class, but those in ``supplied``, to its section.

    Sections come in the order of the fields; one that the form has already is continued. Fields
    on which others depend are added first, since Scipion looks up conditions on adding.
    """
    fields = [field for field in config.parameters(config_class) if field[0] not in supplied]
    specs = {name: spec for name, _, _, spec in fields}
    governed = governed_by_presets(config_class)
    leading = {spec.only[0] for spec in specs.values() if spec.only} | {PRESET}
    for name, kind, default, spec in sorted(fields, key=lambda field: field[0] not in leading):
        section = form.getSection(spec.section) or form.addSection(label=spec.section)
        parameter, arguments = _kind(name, kind, default, spec)
        section.addParam(name, parameter, label=_label(spec), help=spec.full_help(),
                         condition=_condition(name, specs, governed),
                         expertLevel=LEVEL_ADVANCED if spec.advanced else LEVEL_NORMAL,
                         **arguments)
    _add_hints(form, specs, governed)


def _add_hints(form, specs, governed):
    """Say why, where a whole tab is left to experts or set by a preset and so shows nothing."""
    tabs = {}
    for name, spec in specs.items():
        tabs.setdefault(spec.section, []).append(name)
    for tab, names in tabs.items():
        section, key = form.getSection(tab), tab.lower()
        if any(name not in specs for name, _ in section.iterParams()):
            continue  # what the protocol itself put there shows
        presets = sorted(set.intersection(*(governed.get(name, set()) for name in names)))
        for preset in presets:
            section.addParam("hint_%s_%s" % (key, preset), params.LabelParam,
                             label="The method '%s' sets everything here." % preset,
                             condition="%s == %d" % (PRESET, specs[PRESET].choices.index(preset)))
        if all(specs[name].advanced for name in names):
            terms = ["expertLevel == %d" % LEVEL_NORMAL] + _left_open(presets, specs)
            section.addParam("hint_%s_experts" % key, params.LabelParam,
                             label="The defaults suit most tomograms. The expert level 'Advanced' "
                                   "shows what can be set here.",
                             condition=" and ".join(terms))


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
    return not any(protocol.getParam(name).validate(protocol.getAttributeValue(name))
                   for name in values)


def in_form_words(error, config_class):
    """The engine's sentence with the form's labels in place of the command line's options."""
    labels = {config.flag(name): spec.label for name, _, _, spec in
              config.parameters(config_class)}
    return re.sub(r"--[a-z-]+", lambda found: "'%s'" % labels[found.group()]
                  if found.group() in labels else found.group(), str(error))
