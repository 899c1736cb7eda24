"""Rules about the source that no linter knows, read from the syntax trees.

Each rule is a function from a file to its violations. The last tests plant a violation of each, so that a rule which
has gone blind is noticed.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from quill.errors import QuillError

SOURCE = Path(__file__).resolve().parents[2] / "src" / "quill"
LONGEST_FILE_IN_LINES = 400

MAY_CALL = {
    # Decision 0002: the edge commits a unit; nothing else ends a transaction.
    "commit": ("kit/database.py", "kit/sessions.py", "kit/sqlite.py", "unit.py", "migrations/"),
    # For a call whose whole work is one conditional change.
    "commit_with": ("auth/sign_in.py",),
    "rollback": ("kit/database.py", "kit/sessions.py", "kit/sqlite.py", "unit.py", "migrations/"),
    "checkpoint": ("unit.py", "intents/"),
    # Decision 0014: one engine, prepared in one place. Migrations run alone.
    "create_engine": ("kit/database.py", "migrations/"),
    "create_async_engine": ("kit/database.py", "migrations/"),
    "async_engine_from_config": ("migrations/",),
}

# What is asked of the tables is in one place of each slice, so that indexes, locks and rights can be judged together.
MAY_SELECT = ("adapters/", "kit/", "migrations/")


class Source(NamedTuple):
    """A file of the program: its path below ``src/quill``, and its text."""

    path: str
    text: str

    @property
    def nodes(self) -> Iterator[ast.AST]:
        return ast.walk(ast.parse(self.text))


def overlong(source: Source) -> Iterator[str]:
    if source.path.startswith("migrations/versions/"):
        return
    lines = len(source.text.splitlines())
    if lines > LONGEST_FILE_IN_LINES:
        yield f"{lines} lines"


def misplaced_calls(source: Source) -> Iterator[str]:
    for node in source.nodes:
        if isinstance(node, ast.Call):
            name = _called(node)
            if name in MAY_CALL and not source.path.startswith(MAY_CALL[name]):
                yield f"line {node.lineno}: {name}()"


def misplaced_selects(source: Source) -> Iterator[str]:
    is_queries = any(part in {"queries", "queries.py"} for part in source.path.split("/"))
    if is_queries or source.path.startswith(MAY_SELECT):
        return
    for node in source.nodes:
        if isinstance(node, ast.Call) and (_called(node) == "select" or _is_written_select(node)):
            yield f"line {node.lineno}: {_called(node)}()"


def _is_written_select(node: ast.Call) -> bool:
    texts = (found.value for found in ast.walk(node) if isinstance(found, ast.Constant))
    written = " ".join(text for text in texts if isinstance(text, str)).lstrip().lower()
    return _called(node) in {"text", "exec_driver_sql"} and written.startswith(("select", "with"))


def relative_imports(source: Source) -> Iterator[str]:
    for node in source.nodes:
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"line {node.lineno}"


def lazy_relationships(source: Source) -> Iterator[str]:
    for node in source.nodes:
        if isinstance(node, ast.Call) and _called(node) == "relationship":
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            lazy = keywords.get("lazy")
            if not (isinstance(lazy, ast.Constant) and lazy.value == "raise"):
                yield f'line {node.lineno}: relationship() without lazy="raise"'


def undocumented(source: Source) -> Iterator[str]:
    if source.path.startswith("migrations/versions/"):
        return
    tree = ast.parse(source.text)
    if source.text.strip() and ast.get_docstring(tree) is None:
        yield "the module"
    yield from _undocumented_within(tree)


def _undocumented_within(parent: ast.Module | ast.ClassDef) -> Iterator[str]:
    for node in parent.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        is_overload = any(_named(decorator) == "overload" for decorator in getattr(node, "decorator_list", []))
        if ast.get_docstring(node) is None and not is_overload:
            yield f"line {node.lineno}: {node.name}"
        if isinstance(node, ast.ClassDef):
            yield from _undocumented_within(node)


def _called(node: ast.Call) -> str | None:
    return _named(node.func)


def _named(node: ast.expr) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


RULES: list[Callable[[Source], Iterator[str]]] = [
    overlong,
    misplaced_calls,
    misplaced_selects,
    relative_imports,
    lazy_relationships,
    undocumented,
]
FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_file_breaks_the_rule(rule: Callable[[Source], Iterator[str]]) -> None:
    assert FILES
    sources = [Source(file.relative_to(SOURCE).as_posix(), file.read_text()) for file in FILES]
    found = [f"{source.path}: {violation}" for source in sources for violation in rule(source)]
    assert not found, "\n".join(found)


def test_every_error_code_belongs_to_one_class() -> None:
    def below(parent: type[QuillError]) -> Iterator[type[QuillError]]:
        for child in parent.__subclasses__():
            yield child
            yield from below(child)

    # Codes are a promise to clients; a class made by a test is not part of it.
    classes: set[type[QuillError]] = {QuillError}
    classes.update(error for error in below(QuillError) if error.__module__.startswith("quill."))
    without_code = [error.__name__ for error in classes if "code" not in vars(error)]
    codes = [error.code for error in classes]
    assert not without_code
    assert sorted(codes) == sorted(set(codes))


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (overlong, "app.py", "x = 1\n" * 401),
        (misplaced_calls, "patients/service.py", "async def f(s):\n    await s.commit()\n"),
        (misplaced_calls, "patients/service.py", "async def f(s):\n    await s.rollback()\n"),
        (misplaced_calls, "letters/service.py", "async def f(unit):\n    await unit.checkpoint()\n"),
        (misplaced_calls, "app.py", "engine = create_async_engine('sqlite://')\n"),
        (misplaced_selects, "patients/service.py", "rows = sa.select(Patient)\n"),
        (misplaced_selects, "patients/service.py", "rows = Patient.__table__.select()\n"),
        (misplaced_selects, "cli/doctor.py", "now = sa.text(\"SELECT julianday('now')\")\n"),
        (misplaced_selects, "cli/doctor.py", "now = connection.exec_driver_sql(' select ' f'{what}')\n"),
        (relative_imports, "app.py", "from . import kit\n"),
        (lazy_relationships, "patients/models.py", "letters = relationship('Letter')\n"),
        (undocumented, "app.py", "x = 1\n"),
        (undocumented, "app.py", '"""Doc."""\ndef f(): ...\n'),
        (undocumented, "app.py", '"""Doc."""\nclass C:\n    """Doc."""\n    async def f(self): ...\n'),
    ],
)
def test_rule_finds_a_planted_violation(rule: Callable[[Source], Iterator[str]], path: str, text: str) -> None:
    assert list(rule(Source(path, text)))


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (misplaced_calls, "unit.py", "async def f(s):\n    await s.commit()\n"),
        (misplaced_calls, "intents/service.py", "async def f(unit):\n    await unit.checkpoint()\n"),
        (misplaced_selects, "patients/queries.py", "rows = sa.select(Patient)\n"),
        (misplaced_selects, "identity/queries/people.py", "rows = sa.select(Person)\n"),
        (misplaced_selects, "adapters/fhir/embedded.py", "rows = sa.select(Resource)\n"),
        (misplaced_selects, "patients/models.py", "LIVE = sa.text('is_active')\n"),
        (misplaced_selects, "access/service.py", "tied = sa.exists().where(condition)\n"),
        (lazy_relationships, "patients/models.py", "names = relationship('Name', lazy='raise')\n"),
        (undocumented, "migrations/versions/1.py", "x = 1\n"),
        (undocumented, "app.py", '"""Doc."""\ndef _f(): ...\n'),
    ],
)
def test_rule_allows_what_it_should(rule: Callable[[Source], Iterator[str]], path: str, text: str) -> None:
    assert not list(rule(Source(path, text)))
