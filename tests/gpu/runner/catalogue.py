"""What cases there are: read from the files without importing them.

A case is a function under one of the decorators of `harness`; what the decorator says must be literals, or names of the file for literals.
"""

import ast
from dataclasses import dataclass, field
from pathlib import Path

# What each kind of case may say, with what holds when it does not.
OPTIONS = {
    "case": {
        # The relative error (Euclidean norm) up to which outputs are the same; 0: every bit.
        "tolerance": 0.0,
        # In a process of its own, which ends after it.
        "fresh": False,
        # Further environment variables: the case is fresh.
        "env": {},
        # When nothing else runs, one side after the other: it takes all of the GPU's memory, or watches how much there is.
        "alone": False,
        "limit_s": 90,
    },
    "speed": {
        # Native time over vgpu's, at least.
        "target": None,
        # Or: how many seconds vgpu may add.
        "added_s": None,
        # Of the outputs after the warm-up.
        "tolerance": 0.0,
        # Each sample in a process of its own, without warm-up: what happens once in a process.
        "fresh": False,
        "env": {},
        "limit_s": 180,
    },
    "figure": {
        "unit": "",
        "most": None,
        # Or: by how much vgpu's figure may be above native's.
        "added": None,
        # A figure above `most` is a failure, not only a target that was missed.
        "must": False,
        "fresh": True,
        "env": {},
        "limit_s": 90,
    },
}


class Broken(Exception):
    """A file of cases that cannot be read."""


@dataclass
class Case:
    """One named case."""

    file: Path
    name: str
    kind: str
    options: dict = field(default_factory=dict)

    @property
    def group(self):
        """What its file is called."""
        return self.file.stem

    @property
    def label(self):
        """How it is chosen and shown."""
        return f"{self.group}/{self.name}"

    @property
    def fresh(self):
        """Whether it wants a process of its own."""
        return bool(self.options["fresh"] or self.options["env"] or self.options.get("alone"))

    @property
    def alone(self):
        """Whether nothing may run beside it: what is timed or measured, too."""
        return self.kind != "case" or self.options["alone"]

    def __getattr__(self, name):
        try:
            return self.__dict__["options"][name]
        except KeyError:
            raise AttributeError(name) from None


def read(file):
    """The cases of one file, in order."""
    try:
        tree = ast.parse(file.read_text(), str(file))
    except SyntaxError as error:
        raise Broken(f"{file}: {error}") from error
    cases, names, constants = [], set(), {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            constants[node.targets[0].id] = node.value
        if not isinstance(node, ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            if not (isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name)):
                continue
            kind = decorator.func.id
            if kind not in OPTIONS:
                continue
            if node.name in names:
                raise Broken(f"{file}: two cases are called {node.name}")
            names.add(node.name)
            cases.append(Case(file, node.name, kind, _options(file, node.name, kind, decorator, constants)))
    return cases


def _options(file, name, kind, decorator, constants):
    options = dict(OPTIONS[kind])
    for keyword in decorator.keywords:
        if keyword.arg not in options:
            raise Broken(f"{file}: {name}: @{kind} knows no {keyword.arg}")
        value = keyword.value
        if isinstance(value, ast.Name):
            value = constants.get(value.id, value)
        try:
            options[keyword.arg] = ast.literal_eval(value)
        except ValueError as error:
            raise Broken(f"{file}: {name}: {keyword.arg} is no literal") from error
    if decorator.args:
        raise Broken(f"{file}: {name}: @{kind} takes keywords only")
    if kind == "speed" and options["target"] is None and options["added_s"] is None:
        raise Broken(f"{file}: {name}: a speed without target")
    return options


def choose(cases, only, kinds):
    """Those whose labels contain one of the words of `only` (all for none), of these kinds."""
    return [
        case
        for case in cases
        if case.kind in kinds and (not only or any(word in case.label for word in only))
    ]
