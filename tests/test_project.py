"""The project itself: imports run one way, what is locked is whole, and the documents tell the truth."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from specsem import cli, errors

ROOT = Path(__file__).parent.parent
LABORATORY = ("specsem.training", "specsem.evaluation")
COMMAND_LINE = "specsem/cli.py"
HEAVY = {"torch", "torchvision", "open_clip", "timm"}


# -- imports ------------------------------------------------------------------------------------------------


def modules() -> list[str]:
    """Every module of the two packages, relative to the root."""
    paths = [path for package in ("specsem", "app") for path in (ROOT / package).rglob("*.py")]
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def imports(module: str) -> Iterator[str]:
    """Every name that the module imports anywhere, lazily or for typing too, as an absolute dotted name.

    ``from a import b`` gives both ``a`` and ``a.b``: b may be a module. Names given to ``import_module`` or
    ``__import__`` as text count as well.
    """
    package = module.removesuffix("/__init__.py").removesuffix(".py").split("/")
    if not module.endswith("/__init__.py"):
        package = package[:-1]
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                yield node.args[0].value


def within(name: str, package: str) -> bool:
    """Whether a dotted name is this package or lies in it."""
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("module", modules())
def test_imports_run_one_way(module: str) -> None:
    names = set(imports(module))
    if module.startswith("specsem/"):
        assert not [name for name in names if within(name, "app")], "specsem knows nothing of the service"
    if not module.startswith(("specsem/training/", "specsem/evaluation/")):
        wrong = [name for name in names for package in LABORATORY if within(name, package)]
        assert not wrong, "inference and service never import training or evaluation"
    if module not in {"app/ray_app.py", "app/bulk.py"}:
        assert not [name for name in names if within(name, "ray")], "only two files import ray"
    if module.startswith("specsem/media/"):
        heavy = [name for name in names if name.split(".")[0] in HEAVY]
        assert not heavy, "the decoder's process must not pay for torch"


def test_the_client_is_a_leaf() -> None:
    """It comes with an extra, and whoever scores or serves must do without it; connectors are clients."""
    importers = [
        module
        for module in modules()
        if not module.startswith(("specsem/client/", "app/connectors/"))
        and any(within(name, "specsem.client") for name in imports(module))
    ]
    assert importers == []
    program = "import sys, specsem.client; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {*HEAVY, "av", "fastapi", "sqlalchemy"}.isdisjoint(loaded.stdout.split())


def test_only_the_command_line_reaches_elsewhere_by_name() -> None:
    """Its table is the one documented way around the rule; nobody else may import by text."""
    for module in modules():
        source = (ROOT / module).read_text(encoding="utf-8")
        if module.startswith("specsem/") and "import_module" in source:
            assert module == COMMAND_LINE
    assert set(cli.COMMANDS_ELSEWHERE) == {
        "settings",
        "serve",
        "serve on ray",
        "worker",
        "bulk",
        "keys",
        "webhooks",
        "signing",
        "verify",
        "audit",
        "answers",
        "calibrations",
        "recalibrate",
        "connect",
        "hma push",
        "hma look up",
        "train",
        "ablate",
        "evaluate",
        "references",
        "scaling",
    }


@pytest.mark.parametrize("command", sorted(cli.COMMANDS_ELSEWHERE))
def test_what_the_command_line_names_exists(command: str) -> None:
    module, name = cli.COMMANDS_ELSEWHERE[command].split(":")
    path = ROOT / (module.replace(".", "/") + ".py")
    defined = {
        node.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    assert name in defined


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    program = "import sys, specsem.cli, specsem.media; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(loaded.stdout.split())


PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}


def calls(module: str) -> Iterator[ast.Call]:
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


@pytest.mark.parametrize("module", modules())
def test_nothing_is_unpickled(module: str) -> None:
    """Whoever writes a pickle that is read here runs code here; ``torch.load`` can be told to run none."""
    assert PICKLES.isdisjoint(name.split(".")[0] for name in imports(module))
    for call in calls(module):
        given = {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert given.get("allow_pickle", "False") == "False"
        if ast.unparse(call.func) == "torch.load":
            assert given.get("weights_only") == "True", f"line {call.lineno}"


# -- what is locked -----------------------------------------------------------------------------------------


def pins(lock: str) -> dict[str, list[str]]:
    """Name -> what is pinned of it (version and marker), once for each marker."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "requirements" / lock).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith((" ", "#")):
            name, pinned = line.rstrip(" \\").split("==", 1)
            found.setdefault(name, []).append(pinned)
    return found


@pytest.mark.parametrize("lock", ["runtime.txt", "dev.txt", "image.txt", "build.txt", "audit.txt", "uv.txt"])
def test_a_lock_holds_versions_and_hashes_and_nothing_else(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    for line in text.splitlines():
        assert re.fullmatch(r"#.*|[a-z0-9.\-]+==\S+( ; .+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line), (
            line
        )
    assert "://" not in text
    for requirement in re.split(r"\n(?=[a-z0-9])", text)[1:]:
        assert "--hash=sha256:" in requirement


def test_developing_adds_to_running_and_changes_nothing() -> None:
    runtime, dev = pins("runtime.txt"), pins("dev.txt")
    assert {name: dev.get(name) for name in runtime} == runtime


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        found = {re.split(r"[\[<>=~! ;]", requirement)[0] for requirement in requirements}
        return {re.sub(r"[-_.]+", "-", name).lower() for name in found} - {"specsem"}

    extras = project["optional-dependencies"]
    assert names(project["dependencies"]) <= pins("runtime.txt").keys()
    assert names(extras["dev"] + extras["lab"]) <= pins("dev.txt").keys()


# -- documents ----------------------------------------------------------------------------------------------


def document(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", document("Makefile"), re.MULTILINE))


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_make_command_named_exists(name: str) -> None:
    commands = re.findall(r"(?:^|`|\$ )make ([a-z][a-z-]*)", document(name), re.MULTILINE)
    assert commands
    assert set(commands) <= make_targets()


def test_links_of_the_readme_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", document("README.md"))
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_readme_names_every_error_code_once() -> None:
    described = re.findall(r"^\| `([a-z_]+)` \|", document("README.md"), re.MULTILINE)
    known = errors.MediaError.__subclasses__()
    codes = {error.code for error in known if error.__module__ == errors.__name__}
    assert codes <= set(described)
    assert len(described) == len(set(described))


def test_the_licence_is_whole() -> None:
    text = document("LICENSE")
    assert "Version 2.0, January 2004" in text
    assert "APPENDIX: How to apply the Apache License to your work" in text
