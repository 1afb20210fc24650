# pandas 3 has no stubs, and what a checker guesses from its source is wrong at chained calls: untyped here.
from typing import Any

def __getattr__(name: str) -> Any: ...
