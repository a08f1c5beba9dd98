"""What a graph refuses when it is made."""

import numpy as np
import pytest

from hwq.errors import ModelError
from hwq.formats import FixedPoint
from hwq.ir import Add, Graph, Input, Linear, MaxPool2d, Output

FC = Linear("fc", ("in",), weight=np.ones((2, 4)), bias=np.zeros(2), weight_format=FixedPoint(4, 0))


@pytest.mark.parametrize("loop", [MaxPool2d("x", ("x",)), Add("x", ("in", "x")), Add("x", ("in", "y"))])
def test_a_node_reads_earlier_nodes_only(loop):
    with pytest.raises(ModelError, match=f"{loop.op} 'x' reads '{loop.inputs[-1]}', which no earlier node makes"):
        Graph((Input("in", (), shape=(4,), lo=0, hi=15), FC, loop, Add("y", ("in", "in")), Output("out", ("fc",))))
