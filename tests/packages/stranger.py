"""What a stranger writes against the installed wheel: mypy --strict must accept it.

The ignored line is wrong on purpose: if the wheel came without types, mypy would call the comment
unused.
"""

from pathlib import Path
from typing import assert_type

from stpm.runtime import Detector, Region, Result

detector = Detector(Path("bottle.stpm"))
result = detector("part.png")
assert_type(result, Result)
assert_type(result.score, float)
assert_type(result.is_anomalous, bool)
regions: list[Region] = list(result.regions)
detector(3.5)  # type: ignore[arg-type]
