"""The docstrings below the fields of a model or the members of an enum, for the CRDs and the references.

Pydantic can collect them too, but does so whenever a model is imported, which would cost each start 0.2 s.
"""

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise


@cache
def field_docs(model: type) -> dict[str, str]:
    """Return the docstring of each field or member that the class itself declares, by its name."""
    (declaration,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    if not isinstance(declaration, ast.ClassDef):
        return {}
    found = {}
    for statement, below in pairwise(declaration.body):
        match statement, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = inspect.cleandoc(text)
            case _:
                pass
    return found
