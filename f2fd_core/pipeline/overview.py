"""The page of ``f2fd run``: a picture and a verdict of each tomogram, the doubtful ones first."""

import json
import os
from html import escape
from urllib.parse import quote

from f2fd_core import __version__
from f2fd_core.runtime import files

OVERVIEW_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em}"
    "img{max-width:100%}table{border-collapse:collapse}td,th{padding:.3em .8em;text-align:left;"
    "border-bottom:1px solid #ddd}td.number{text-align:right}.worse{color:#b00020;font-weight:600}"
)
PAGE_COLUMNS = (
    ("denoised", "denoised"),
    ("tomogram", "as it is"),
    ("gaussian", "best Gaussian filter"),
    ("start", "pretrained weights"),
)


def _verdict(path):
    """What the short form of a check has found; None without it."""
    place = files.companion(path, files.VERDICT)
    if not os.path.exists(place):
        return None
    with open(place, encoding="utf-8") as stream:
        return json.load(stream)


def _number(found, name):
    if found is None:
        return "<td class='number'></td>"
    return f"<td class='number'>{found[name]['estimate']:.2f}</td>"


def write(page, results, chosen, model):
    """Write the page of a run.

    Parameters
    ----------
    page : str
        Its path.
    results : dict of str to str
        {tomogram: path of its denoised file}.
    chosen : dict of str to str
        {tomogram: why the model was trained on it}.
    model : str
        The model's path.
    """
    verdicts = {name: _verdict(path) for name, path in results.items()}
    order = sorted(results, key=lambda name: _rank(verdicts[name]))
    rows, figures = [], []
    for number, name in enumerate(order):
        found = verdicts[name]
        words = "worse than what it should improve on" if found and found["worse"] else ""
        cells = "".join(_number(found, column) for column, _ in PAGE_COLUMNS)
        mark = " (trained on)" if name in chosen else ""
        rows.append(
            f"<tr><td><a href='#t{number}'>{escape(os.path.basename(name))}</a>{mark}</td>{cells}"
            f"<td class='worse'>{words}</td></tr>"
        )
        picture = os.path.relpath(
            files.companion(results[name], files.PICTURE), os.path.dirname(page)
        )
        figures.append(
            f"<h2 id='t{number}'>{escape(os.path.basename(name))}</h2>"
            f"<p>{escape(name)} &rarr; {escape(results[name])}</p>"
            f"<p><img loading='lazy' src='{quote(picture)}' alt='Sections before and after "
            "denoising, and what was removed'></p>"
        )
    heads = "".join(f"<th>{escape(title)}</th>" for _, title in PAGE_COLUMNS)
    why = "".join(f"<li>{escape(name)}: {escape(text)}</li>" for name, text in chosen.items())
    text = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><title>F2Fd: {len(results)} tomograms'
        f"</title><style>{OVERVIEW_STYLE}</style></head><body>"
        f"<h1>{len(results)} denoised tomograms</h1>"
        f"<p>F2Fd {__version__}; model {escape(model)}, trained on:</p><ul>{why}</ul>"
        "<p>Estimated correlation with the noise-free tomogram (1: the same), the doubtful ones "
        "first. The estimates are of a part in the middle; <code>f2fd check</code> looks at all of "
        "a tomogram.</p>"
        f"<table><tr><th>tomogram</th>{heads}<th></th></tr>{''.join(rows)}</table>"
        f"{''.join(figures)}</body></html>\n"
    )
    with files.replaced(page) as partial, open(
        partial, "w", encoding="utf-8", errors="backslashreplace"
    ) as stream:
        stream.write(text)


def _rank(found):
    """Results that are worse than what they should improve on first, then by the estimate."""
    return (2, 0.0) if found is None else (not found["worse"], found["denoised"]["estimate"])
