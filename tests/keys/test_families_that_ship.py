"""What a table mentions besides its weights exists: a name with a slip in it would be passed over in silence."""

import pytest

from lora_mmap.families import key_tables
from lora_mmap.families.dialects import DIALECTS

TABLES = key_tables()
PATTERNS = {rule.pattern for rule in TABLES.rules}

every_family = pytest.mark.parametrize("family", TABLES.families.values(), ids=list(TABLES.families))


@every_family
def test_namings(family):
    namings = {naming for weights in family.weights for naming in weights.names}
    assert {naming.name for naming in family.namings} <= namings
    assert {naming for pair in family.duplicates for naming in pair} <= namings
    for dialect, wanted in (family.written or {}).items():
        assert dialect in DIALECTS
        assert set(wanted.split()) <= namings


@every_family
def test_widths_are_of_paths(family):
    assert set(family.widths or ()) <= PATTERNS


@every_family
def test_text_encoders_are_families(family):
    assert {encoder.family for encoder in (family.text_encoders or {}).values()} <= TABLES.families.keys()
