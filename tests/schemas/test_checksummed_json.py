"""JSON that vouches for itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.checksummed_json import seal, unseal

KEYS = st.text(max_size=5).filter(lambda key: key != "seal")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_what_was_sealed_comes_back(content: dict) -> None:
    assert unseal(seal(content)) == content


def test_no_flipped_bit_goes_unseen() -> None:
    content = {"rows": 15, "sha256": "c0ffee", "pieces": [{"start": 0, "end": 7}]}
    data = seal(content)
    for place in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            try:
                assert unseal(bytes(damaged)) == content  # white space
            except ValueError:
                continue


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b'{"rows": 1}', b'{"rows": 1, "seal": 5}', b"\xff"])
def test_what_was_not_sealed_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        unseal(data)
