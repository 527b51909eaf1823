from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BaseTensor:
    file: Any
    header: Any
    offset: int
    dtype: str

    def check_unchanged(self) -> None: ...


class BaseCheckpoint:
    @classmethod
    def open(cls, source: Any) -> BaseCheckpoint:
        return cls()

    def find(self, names: Any, geometry: Any) -> BaseTensor | None:
        return None
