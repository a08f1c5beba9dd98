"""Passes: execute, transform, execute, equal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwq import ir
from hwq.errors import ModelError
from hwq.formats import FixedPoint
from hwq.interp import run
from hwq.ir import nodes as n
from hwq.passes import HARDWARE_PASSES, AbsorbPad, DropDead, EnsureRequantize, FuseRequantize, PullCrop, apply_passes


def network(seed, form="scale", useless=False, raw=False):
    """A small network with every case that a pass treats."""
    rng = np.random.default_rng(seed)
    fmt = FixedPoint(4, 2)
    conv = n.Conv2d("conv", ("input",), rng.integers(-8, 8, (3, 3, 3, 2)), rng.integers(-200, 200, 3), fmt, pads=(1, 1, 1, 1))
    if form == "thresholds":
        act = n.Requantize("conv.act", ("conv",), lo=0, hi=7, thresholds=np.sort(rng.integers(-300, 300, (1, 7)), 1))
    elif form == "two":
        act = n.Requantize("conv.act", ("conv",), np.array([3]), np.array([8]), 6, -8, 7, np.array([7]))
    elif form == "channels":
        act = n.Requantize("conv.act", ("conv",), rng.integers(-9, 30, 3), rng.integers(-900, 900, 3), 7, 0, 15)
    else:
        act = n.Requantize("conv.act", ("conv",), np.array([5]), np.array([16]), -1 if form == "left" else 5, 0, 15)
    nodes: list[n.Node] = [n.Input("input", (), (4, 4, 2), 0, 15, 4), conv, act]
    if useless:
        nodes += [n.Pad("nopad", (nodes[-1].name,)), n.MaxPool2d("nopool", ("nopad",), (1, 1), (1, 1)),
                  n.Upsample("noup", ("nopool",), (1, 1)), n.Requantize("same", ("noup",), lo=-99, hi=99, frac_bits=act.frac_bits)]
    if raw:
        nodes += [n.GlobalAvgPool2d("gap", (nodes[-1].name,))]
    nodes += [n.Flatten("flat", (nodes[-1].name,))]
    if useless:
        nodes += [n.Flatten("flat2", ("flat",))]
    size = 3 if raw else 48
    nodes += [n.Linear("fc", (nodes[-1].name,), rng.integers(-8, 8, (5, size)), rng.integers(-99, 99, 5), fmt),
              n.Output("output", ("fc",))]
    return ir.Graph(tuple(nodes))


FORMS = ["scale", "left", "channels", "thresholds", "two"]


@pytest.mark.parametrize("item", [*HARDWARE_PASSES, None], ids=lambda p: p.name if p else "all")
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2 ** 31), st.sampled_from(FORMS), st.booleans(), st.booleans())
def test_output_is_kept(item, seed, form, useless, raw):
    graph = network(seed, form, useless, raw)
    x = np.random.default_rng(seed).integers(0, 16, (5, 4, 4, 2))
    after = item.apply(graph) if item else apply_passes(graph)
    np.testing.assert_array_equal(run(after, x)["output"], run(graph, x)["output"])
    assert graph.edges["output"].lo <= run(graph, x)["output"].min()


BORDERS = {"conv, no border": (n.Conv2d, (0, 0, 0, 0), 0, 5, True), "conv, the same code": (n.Conv2d, (1, 0, 1, 2), 5, 5, True),
           "conv, another code": (n.Conv2d, (1, 0, 1, 2), 0, 5, False), "sum, zeros": (n.AvgPool2d, (0, 1, 0, 1), 0, 0, True),
           "sum, another code": (n.AvgPool2d, (0, 0, 0, 0), 0, 5, False), "max": (n.MaxPool2d, (0, 0, 0, 0), 0, 0, False)}


@pytest.mark.parametrize("name", BORDERS)
def test_borders_are_absorbed_where_they_are_the_same(name):
    kind, pads, own, value, absorbed = BORDERS[name]
    rng = np.random.default_rng(3)
    more = dict(weight=rng.integers(-8, 8, (3, 2, 2, 2)), bias=rng.integers(-9, 9, 3), weight_format=FixedPoint(4, 0),
                pad_value=own) if kind is n.Conv2d else {}
    graph = ir.Graph((n.Input("input", (), (4, 3, 2), -8, 7), n.Pad("p", ("input",), (1, 2, 0, 1), value),
                      n.Pad("q", ("p",), (0, 1, 1, 0), value), kind("k", ("q",), **more, pads=pads), n.Output("output", ("k",))))
    after = AbsorbPad().apply(graph)
    assert after.by_name["k"].pads == (tuple(a + b for a, b in zip(pads, (1, 3, 1, 1), strict=True)) if absorbed else pads)
    assert [node.op for node in after] == ["Input", kind.__name__, "Output"] if absorbed \
        else ["Input", "Pad", kind.__name__, "Output"]
    x = rng.integers(-8, 8, (6, 4, 3, 2))
    np.testing.assert_array_equal(run(after, x)["output"], run(graph, x)["output"])
    assert after.edges["output"] == graph.edges["output"]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2 ** 31), st.data())
def test_crops_and_borders_move_and_nothing_changes(seed, data):
    """Chains of window operators, borders and crops."""
    rng, nodes = np.random.default_rng(seed), [n.Input("input", (), (7, 6, 2), -8, 7)]
    small, sides = st.integers(0, 2), st.integers(-2, 2)
    for k in range(data.draw(st.integers(2, 5))):
        kind = data.draw(st.sampled_from([n.Pad, n.Pad, n.Pad, n.Conv2d, n.MaxPool2d, n.AvgPool2d, n.Requantize]))
        size, step = (tuple(1 + data.draw(small) for _ in range(2)) for _ in range(2))
        pads = tuple(data.draw(sides if kind is n.Pad else small) for _ in range(4))
        more = {n.Pad: dict(pads=pads, value=data.draw(small)), n.Requantize: dict(lo=-8, hi=7),
                n.Conv2d: dict(weight=rng.integers(-2, 2, (2, *size, 2)), bias=rng.integers(-9, 9, 2), stride=step, pads=pads,
                               weight_format=FixedPoint(2, 0), pad_value=data.draw(small))}
        node = kind(f"n{k}", (nodes[-1].name,), **more.get(kind, dict(kernel=size, stride=step, pads=pads)))
        try:
            ir.Graph((*nodes, node, n.Output("output", (node.name,))))
        except ModelError:
            continue
        nodes.append(node)
    graph, x = ir.Graph((*nodes, n.Output("output", (nodes[-1].name,)))), rng.integers(-8, 8, (3, 7, 6, 2))
    for after in (PullCrop().apply(graph), AbsorbPad().apply(graph), apply_passes(graph)):
        np.testing.assert_array_equal(run(after, x)["output"], run(graph, x)["output"])


CROPS = {"behind a border": (n.Conv2d, 1, (2, 2, 2, 2), (0, -1, -1, -2), (2, 1, 1, 0), None),
         "beyond it": (n.Conv2d, 1, (1, 1, 1, 1), (-2, 0, 0, -1), (0, 1, 1, 0), (-1, 0, 0, 0)),
         "by the stride": (n.MaxPool2d, 2, (1, 0, 1, 0), (-1, 0, 0, -1), (0, 0, 1, 0), (-1, 0, 0, -2)),
         "sums": (n.AvgPool2d, 1, (0, 0, 0, 2), (0, 0, 0, -2), (0, 0, 0, 0), None),
         "of a border": (n.Pad, 1, (1, 1, 1, 1), (-3, -1, -1, -1), None, (-2, 0, 0, 0))}


@pytest.mark.parametrize("name", CROPS)
def test_crops_take_back_borders_and_go_in_front(name):
    kind, step, pads, crop, border, left = CROPS[name]
    rng = np.random.default_rng(3)
    more = dict(weight=rng.integers(-8, 8, (2, 3, 3, 2)), bias=rng.integers(-9, 9, 2), weight_format=FixedPoint(4, 0)) \
        if kind is n.Conv2d else {} if kind is n.Pad else dict(kernel=(3, 3))
    more |= {} if kind is n.Pad else dict(stride=(step, step))
    graph = ir.Graph((n.Input("input", (), (9, 9, 2), -8, 7), kind("k", ("input",), pads=pads, **more),
                      n.Requantize("q", ("k",), shift=1, lo=-8, hi=7), n.Pad("c", ("q",), crop), n.Output("output", ("c",))))
    after = apply_passes(graph, (PullCrop(),))
    assert [(node.name, node.pads) for node in after if hasattr(node, "pads")] == [
        *([("c", left)] if left else []), *([("k", border)] if border else [])]
    x = rng.integers(-8, 8, (6, 9, 9, 2))
    np.testing.assert_array_equal(run(after, x)["output"], run(graph, x)["output"])
    shared = graph.with_nodes([*graph.nodes[:-1], n.GlobalAvgPool2d("g", ("q",)), n.GlobalAvgPool2d("h", ("c",)),
                               n.Concat("j", ("g", "h")), n.Output("output", ("j",))])
    assert PullCrop().apply(shared).by_name["k"].pads == pads


def test_bias_moves_only_where_it_may():
    for form in FORMS:
        after = FuseRequantize().apply(network(1, form))
        assert bool(after.by_name["conv"].bias.any()) == (form == "two"), form


def test_useless_nodes_go():
    after = DropDead().apply(network(3, useless=True))
    assert [node.name for node in after] == ["input", "conv", "conv.act", "flat", "fc", "output"]


def test_every_sum_gets_a_requantization():
    after = EnsureRequantize().apply(network(3, raw=True))
    for node in after:
        if node.op in ("Conv2d", "Linear", "GlobalAvgPool2d"):
            assert [reader.op for reader in after.readers(node.name)] == ["Requantize"]
    assert after.edges["fc.identity"] == after.edges["output"]


def test_hardware_passes_leave_no_bias():
    after = apply_passes(network(5, "channels", useless=True, raw=True))
    assert not any(node.bias.any() for node in after if isinstance(node, n.Conv2d | n.Linear))
    assert apply_passes(after).by_name.keys() == after.by_name.keys()
