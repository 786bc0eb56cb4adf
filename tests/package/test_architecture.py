"""The rules of CONTRIBUTING.md on the code: what may import what, lengths, constants."""

import ast
import re
from pathlib import Path

import f2fd_core

ENGINE = Path(f2fd_core.__file__).parent
RULE = re.compile(r"^```\n(config.*?)\n```", re.MULTILINE | re.DOTALL)


def levels():
    """{room: its level}, from CONTRIBUTING.md."""
    text = (ENGINE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rule = RULE.search(text).group(1)
    return {
        room: level
        for level, rooms in enumerate(rule.split("<"))
        for room in re.findall(r"\w+", rooms)
    }


def imported(path):
    """The modules of the engine that a file imports, each as a tuple of its names' parts."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "f2fd_core":
            for name in node.names:
                yield (*node.module.split("."), name.name)[1:]


def room_of(parts):
    return parts[0] if not parts[0].startswith("__") else None


def test_every_import_points_downwards():
    order = levels()
    rooms = {
        path.stem
        for path in ENGINE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert {room for room in rooms if not room.startswith("__")} == set(order)
    upwards = []
    for path in sorted(ENGINE.rglob("*.py")):
        relative = path.relative_to(ENGINE)
        here = relative.with_suffix("").parts[0]
        if here in order:
            upwards += [
                f"{relative} imports {'.'.join(parts)}"
                for parts in imported(path)
                if room_of(parts) in order
                and room_of(parts) != here
                and order[room_of(parts)] >= order[here]
            ]
    assert not upwards


def test_no_room_has_a_circle():
    """Nor do two modules import each other, directly or by way of others."""
    files = {path.relative_to(ENGINE).with_suffix("").parts: path for path in ENGINE.rglob("*.py")}
    edges = {
        name: {
            parts[:length]
            for parts in imported(path)
            for length in (len(parts), len(parts) - 1)
            if parts[:length] in files
        }
        for name, path in files.items()
    }

    def reach(name, seen):
        for other in edges[name] - seen:
            seen.add(other)
            reach(other, seen)
        return seen

    assert not [".".join(name) for name in files if name in reach(name, set())]


def test_files_are_short():
    """One job a file: none has more than 320 lines."""
    lengths = {
        str(path.relative_to(ENGINE)): len(path.read_text(encoding="utf-8").splitlines())
        for path in ENGINE.rglob("*.py")
    }
    assert not {name: length for name, length in lengths.items() if length > 320}


def test_functions_are_short():
    """None has more than 60 lines."""
    long = []
    for path in ENGINE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
                and node.end_lineno - node.lineno >= 60
            ):
                long.append(f"{path.relative_to(ENGINE)}:{node.name}")
    assert not long


def assignments():
    """(file and line, names) of everything in capitals that the modules assign."""
    for path in sorted(ENGINE.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], (ast.Name, ast.Tuple)):
                names = {
                    name.id for name in ast.walk(node.targets[0]) if isinstance(name, ast.Name)
                }
                if all(name.isupper() for name in names):
                    yield f"{path.relative_to(ENGINE)}:{node.lineno}", names


def test_a_constant_has_a_line():
    """With room for what it is and where it comes from."""
    assert not [(place, names) for place, names in assignments() if len(names) > 1]


def test_a_constant_has_one_name_and_one_place():
    """A name means the same in all of the engine."""
    places = {}
    for place, names in assignments():
        for name in names:
            places.setdefault(name, []).append(place)
    assert len(places) > 100
    assert not {name: found for name, found in places.items() if len(found) > 1}
