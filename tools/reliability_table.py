"""What was done to F2Fd, how often, and how that ended: docs/data/reliability.txt.

    python tools/reliability_table.py --cases 2000 --points 15 --output docs/data/reliability.txt

Runs the tests that are marked with ``reliability`` and makes a row of each. Needs what the tests
need. Returns 1 if one of them failed.
"""

import argparse
import os
import pathlib
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).parent.parent
NOT_PASSED = ("failed", "skipped")


class Table:
    """Collects what pytest reports of marked tests, as its plugin."""

    def __init__(self):
        self.marks, self.rows = {}, {}

    def pytest_collection_modifyitems(self, items):
        for item in items:
            mark = item.get_closest_marker("reliability")
            if mark and len(mark.args) != 2:
                raise pytest.UsageError(
                    f"{item.nodeid}: its mark does not say what it did, and how that ended"
                )
            if mark:
                self.marks[item.nodeid] = mark.args

    def pytest_runtest_logreport(self, report):
        if report.nodeid not in self.marks or report.when != "call" and report.passed:
            return
        times, outcomes = self.rows.setdefault(self.marks[report.nodeid], ([], set()))
        times.append(dict(report.user_properties).get("times", 1))
        outcomes.add(report.outcome)

    def markdown(self):
        lines = ["| What was done | Times | What came of it |", "|---|---:|---|"]
        for (tried, expected), (times, outcomes) in self.rows.items():
            found = [f"**{outcome}**" for outcome in NOT_PASSED if outcome in outcomes]
            lines.append(f"| {tried} | {sum(times)} | {' '.join([expected, *found])} |")
        return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000, help="files that hypothesis thinks of")
    parser.add_argument(
        "--points",
        type=int,
        default=15,
        help="moments at which a training, and a denoising, is hit by a signal",
    )
    parser.add_argument("--output", help="file for the table")
    options = parser.parse_args()
    os.environ.update(F2FD_TEST_CASES=str(options.cases), F2FD_TEST_POINTS=str(options.points))
    os.chdir(REPOSITORY)
    table = Table()
    code = pytest.main(["-q", "-m", "reliability"], plugins=[table])
    print(table.markdown())
    if options.output:
        pathlib.Path(options.output).write_text(table.markdown(), encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
