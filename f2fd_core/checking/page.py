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
    pictures.HALVES: "Both half-maps, each denoised by a model that has never seen the other: what "
                     "they agree in was not made up by one model alone.",
}
NAMES = {TOMOGRAM: "the tomogram as it is", GAUSSIAN: "the best Gaussian filter",
         START: "the pretrained weights", REFERENCE: "a short training on this tomogram",
         DENOISED: "this model"}


def _mark(mark):
    return '<span class="mark %s">%s</span>' % (mark, mark)


def _table(heading, rows):
    cells = ["<tr>%s</tr>" % "".join("<th>%s</th>" % escape(text) for text in heading)]
    cells += ["<tr>%s</tr>" % "".join(row) for row in rows]
    return '<div class="wide"><table>%s</table></div>' % "".join(cells)


def _number(text):
    return '<td class="number">%s</td>' % text


def _text(text):
    return "<td>%s</td>" % escape(text)


def _verdict(numbers):
    rows = []
    for entry in numbers["verdict"]:
        rows.append(["<td>%s</td>" % _mark(entry["mark"]),
                     "<td><strong>%s</strong> %s<br><span class='rule'>%s</span></td>"
                     % tuple(escape(entry[key]) for key in ("title", "sentence", "rule"))])
    return _table(("", "Verdict"), rows)


def _correlations(found):
    rows = [[_text(name), *(_number("%.3f" % found[key][column])
                            for column in ("estimate", "low", "high"))]
            for key, name in NAMES.items()]
    return _table(("correlation with the truth", "estimated", "at least", "at most"), rows)


def _planted(planted):
    contrasts = next(iter(planted.values()))["contrast"]
    rows = [[_text(name), *(_number("%.0f %%" % (100 * share)) for share in found["recovered"])]
            for name, found in planted.items()]
    return _table(("share that comes out, at a contrast of", *("%g" % one for one in contrasts)),
                  rows)


def _invention(found):
    rows = [[_text(words), _number("%.2f %%" % (100 * found[key]["share"])),
             _number("%d" % found[key]["largest"]), _number("%.2f" % found[key]["peak"])]
            for words, key in (("the denoised tomogram", "result"), ("of noise alone", "null"))]
    return _table(("what stands out in", "share of the voxels", "largest thing (voxels)",
                   "strongest value"), rows)


def _picture(folder, name):
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        return ""
    with open(path, "rb") as stream:
        content = base64.b64encode(stream.read()).decode()
    return ('<p><img src="data:image/png;base64,%s" alt="%s"><br><span class="caption">%s</span>'
            '</p>' % (content, escape(CAPTIONS[name]), escape(CAPTIONS[name])))


def _section(number, name, numbers, folder):
    about = numbers["about"]
    parts = ['<h2 id="t%d">%s</h2>' % (number, escape(os.path.basename(name))), _verdict(numbers),
             _picture(folder, pictures.SLICES), "<h3>Error</h3>",
             _correlations(numbers["correlation"]), _picture(folder, pictures.SHELLS),
             "<h3>Invention</h3>", _invention(numbers["invention"]),
             _picture(folder, pictures.NOISE)]
    if numbers["planted"]:
        parts += ["<h3>Planted structures</h3>", _planted(numbers["planted"]),
                  _picture(folder, pictures.PLANTED)]
    if "halves" in numbers:
        parts += ["<h3>Independent halves</h3>", _picture(folder, pictures.HALVES)]
    parts.append('<p class="caption">%s. Tomogram %s of %s voxels (Z, Y, X) of %g Å; model %s, '
                 'step %d. Maps by place are error.mrc and removed.mrc in the folder %s.</p>' % (
                     escape(numbers["words"].capitalize()), escape(about["tomogram"]),
                     " x ".join(map(str, about["shape"])), about["voxel_size"],
                     escape(about["model"]), about["step"], escape(folder)))
    return "\n".join(parts)


def _overview(found):
    rows = [['<td><a href="#t%d">%s</a></td>' % (number, escape(os.path.basename(name))),
             *("<td>%s</td>" % _mark(entry["mark"]) for entry in numbers["verdict"]),
             _number("%.2f" % numbers["correlation"][DENOISED]["estimate"])]
            for number, (name, (numbers, _)) in enumerate(found.items())]
    titles = [entry["title"] for entry in next(iter(found.values()))[0]["verdict"]]
    return _table(("tomogram", *titles, "correlation"), rows)


def write(path, found):
    """Write the page of {tomogram: (numbers, folder of its pictures)}."""
    sections = [_section(number, name, *one) for number, (name, one) in enumerate(found.items())]
    overview = _overview(found) if len(found) > 1 else ""
    about = ("Measured by F2Fd %s on the tomogram itself, without a truth. The figures are "
             "estimates; their ranges say how well they are known." % __version__)
    text = ('<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><meta name="viewport" '
            'content="width=device-width, initial-scale=1"><title>How far to trust it</title>'
            "<style>%s</style></head>\n<body>\n<h1>How far can the denoised tomogram be trusted?"
            "</h1>\n<p>%s</p>\n%s\n%s\n</body>\n</html>\n"
            % (STYLE, about, overview, "\n".join(sections)))
    with files.replaced(path) as partial, open(partial, "w", encoding="utf-8",
                                               errors="backslashreplace") as stream:
        stream.write(text)
