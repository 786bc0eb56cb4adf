"""The report as one page that opens anywhere: HTML with its pictures in it."""

import base64
import os
from html import escape

from f2fd_core import __version__
from f2fd_core.checking import pictures
from f2fd_core.checking.examine import DENOISED, GAUSSIAN, REFERENCE, START
from f2fd_core.checking.shells import TOMOGRAM
from f2fd_core.runtime import files

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; margin: 0 auto; max-width: 62rem;
       padding: 1rem; }
h1, h2, h3 { line-height: 1.2; }
h2 { border-top: 1px solid #ccc; padding-top: 1rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem; }
th, td { border-bottom: 1px solid #ddd; padding: 0.3rem 0.7rem; text-align: left;
         vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; }
.mark { border-radius: 0.3rem; color: #fff; display: inline-block; font-weight: bold;
        min-width: 4rem; padding: 0.1rem 0.5rem; text-align: center; }
.green { background: #1a7f37; } .yellow { background: #9a6700; } .red { background: #b42318; }
.rule, .caption { color: #555; font-size: 0.87rem; }
.wide { overflow-x: auto; }
"""
CAPTIONS = {
    pictures.SLICES: "The central section. The error is relative to what should be there: 0 is "
    "right, 1 means that nothing of it is known. Where removed and denoised are "
    "alike (red) signal was removed, where they are opposite (blue) too much of "
    "something was made.",
    pictures.SHELLS: "Left: above the gray line (0.5) more is right than wrong. Middle: a response "
    "below 0 turns the sign of weak signal; removed and denoised have little in "
    "common if what was removed is noise. Right: above 1 signal was removed where "
    "the tomogram is not all noise.",
    pictures.NOISE: "What looks like structure on the right was made of noise alone; it is drawn "
    "in the same shades of gray as the denoised tomogram.",
    pictures.PLANTED: "Structures of known shape, added to this tomogram at many places. Above the "
    "gray line at least half of the contrast comes out.",
    pictures.WEDGE: "The central plane across the tilt axis, depth upwards. What the tilts did not "
    "measure is predicted in the filled one. Below: as many directions that were measured were "
    "hidden from the network, too, and what it predicts there is compared with the tomogram; gray "
    "line: the least for a green mark.",
    pictures.HALVES: "Both half-maps, each denoised by a model that has never seen the other: what "
    "they agree in was not made up by one model alone.",
}
NAMES = {
    TOMOGRAM: "the tomogram as it is",
    GAUSSIAN: "the best Gaussian filter",
    START: "the pretrained weights",
    REFERENCE: "a short training on this tomogram",
    DENOISED: "this model",
}


def _mark(mark):
    return f'<span class="mark {mark}">{mark}</span>'


def _table(heading, rows):
    cells = [f"<tr>{''.join(f'<th>{escape(text)}</th>' for text in heading)}</tr>"]
    cells += [f"<tr>{''.join(row)}</tr>" for row in rows]
    return f'<div class="wide"><table>{"".join(cells)}</table></div>'


def _number(text):
    return f'<td class="number">{text}</td>'


def _text(text):
    return f"<td>{escape(text)}</td>"


def _verdict(numbers):
    rows = []
    for entry in numbers["verdict"]:
        rows.append(
            [
                f"<td>{_mark(entry['mark'])}</td>",
                f"<td><strong>{escape(entry['title'])}</strong> {escape(entry['sentence'])}"
                f"<br><span class='rule'>{escape(entry['rule'])}</span></td>",
            ]
        )
    return _table(("", "Verdict"), rows)


def _correlations(found):
    rows = [
        [
            _text(name),
            *(_number(f"{found[key][column]:.3f}") for column in ("estimate", "low", "high")),
        ]
        for key, name in NAMES.items()
    ]
    return _table(("correlation with the truth", "estimated", "at least", "at most"), rows)


def _planted(planted):
    contrasts = next(iter(planted.values()))["contrast"]
    rows = [
        [_text(name), *(_number(f"{100 * share:.0f} %") for share in found["recovered"])]
        for name, found in planted.items()
    ]
    return _table(
        ("share that comes out, at a contrast of", *(f"{one:g}" for one in contrasts)), rows
    )


def _invention(found):
    rows = [
        [
            _text(words),
            _number(f"{100 * found[key]['share']:.2f} %"),
            _number(f"{found[key]['largest']}"),
            _number(f"{found[key]['peak']:.2f}"),
        ]
        for words, key in (("the denoised tomogram", "result"), ("of noise alone", "null"))
    ]
    return _table(
        ("what stands out in", "share of the voxels", "largest thing (voxels)", "strongest value"),
        rows,
    )


def _picture(folder, name):
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        return ""
    with open(path, "rb") as stream:
        content = base64.b64encode(stream.read()).decode()
    return (
        f'<p><img src="data:image/png;base64,{content}" '
        f'alt="{escape(CAPTIONS[name])}"><br><span '
        f'class="caption">{escape(CAPTIONS[name])}</span></p>'
    )


def _section(number, name, numbers, folder):
    about = numbers["about"]
    own, checked = about["voxel_size"], about["checked_at"]
    rescaled = "" if own == checked else f", rescaled to {checked:g} Å for the check"
    parts = [
        f'<h2 id="t{number}">{escape(os.path.basename(name))}</h2>',
        _verdict(numbers),
        _picture(folder, pictures.SLICES),
        "<h3>Error</h3>",
        _correlations(numbers["correlation"]),
        _picture(folder, pictures.SHELLS),
        "<h3>Invention</h3>",
        _invention(numbers["invention"]),
        _picture(folder, pictures.NOISE),
    ]
    if numbers["planted"]:
        parts += [
            "<h3>Planted structures</h3>",
            _planted(numbers["planted"]),
            _picture(folder, pictures.PLANTED),
        ]
    if "wedge" in numbers:
        parts += ["<h3>Missing wedge</h3>", _picture(folder, pictures.WEDGE)]
    if "halves" in numbers:
        parts += ["<h3>Independent halves</h3>", _picture(folder, pictures.HALVES)]
    parts.append(
        f'<p class="caption">{escape(numbers["words"].capitalize())}. Tomogram '
        f"{escape(about['tomogram'])} of {' x '.join(map(str, about['shape']))} voxels "
        f"(Z, Y, X) of {own:g} Å{rescaled}; model {escape(about['model'])}, step "
        f"{about['step']}. Maps by place are error.mrc and removed.mrc in the folder "
        f"{escape(folder)}.</p>"
    )
    return "\n".join(parts)


def _overview(found):
    rows = [
        [
            f'<td><a href="#t{number}">{escape(os.path.basename(name))}</a></td>',
            *(f"<td>{_mark(entry['mark'])}</td>" for entry in numbers["verdict"]),
            _number(f"{numbers['correlation'][DENOISED]['estimate']:.2f}"),
        ]
        for number, (name, (numbers, _)) in enumerate(found.items())
    ]
    titles = [entry["title"] for entry in next(iter(found.values()))[0]["verdict"]]
    return _table(("tomogram", *titles, "correlation"), rows)


def write(path, found):
    """Write the page of {tomogram: (numbers, folder of its pictures)}."""
    sections = [_section(number, name, *one) for number, (name, one) in enumerate(found.items())]
    overview = _overview(found) if len(found) > 1 else ""
    about = (
        f"Measured by F2Fd {__version__} on the tomogram itself, without a truth. The "
        "figures are estimates; their ranges say how well they are known."
    )
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1"><title>How far to trust it</title>'
        f"<style>{STYLE}</style></head>\n<body>\n"
        "<h1>How far can the denoised tomogram be trusted?</h1>\n"
        f"<p>{about}</p>\n{overview}\n" + "\n".join([*sections, "</body>", "</html>", ""])
    )
    with files.replaced(path) as partial, open(
        partial, "w", encoding="utf-8", errors="backslashreplace"
    ) as stream:
        stream.write(text)
