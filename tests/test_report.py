from types import SimpleNamespace

from f2fd_core import report


def test_progress_where_there_is_no_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    seconds = iter(range(0, 1000, 8))
    monkeypatch.setattr(report, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    with report.progress(9, "step", 2) as bar:
        for number in range(7):
            bar.set_postfix(loss="%d" % number, refresh=False)
            bar.update()
    told = capsys.readouterr().err
    assert "\r" not in told
    lines = told.splitlines()
    assert len(lines) == 3 and all(line.startswith("f2fd: ") for line in lines)
    for line, words in zip(lines, (["2/9"], ["6/9", "loss=3"], ["9/9", "loss=6"])):
        assert all(word in line for word in words)


def test_progress_without_a_known_end(capsys):
    with report.progress(None, "step") as bar:
        bar.update()
    assert "1step" in capsys.readouterr().err.splitlines()[-1]
