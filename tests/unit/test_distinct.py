"""Distinct values as NumPy finds them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from braidrec.distinct import distinct


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint64])
@given(data=st.data())
def test_as_numpy(dtype: type, data: st.DataObject) -> None:
    values = data.draw(arrays(dtype, st.integers(0, 40), elements=st.integers(0, 30)))
    before = values.copy()
    found = distinct(values)
    np.testing.assert_array_equal(found, np.unique(values))
    assert found.dtype == dtype
    np.testing.assert_array_equal(values, before)
