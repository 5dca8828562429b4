"""Each layer by itself: orders, bond-frame symmetry, cutoffs, heads."""

from __future__ import annotations

import math

import pytest
import torch

from qcsurrogate.conventions import wigner_d
from qcsurrogate.data.graphs import bond_frames, flat_wigner
from qcsurrogate.nn.head import DegreeHead
from qcsurrogate.nn.layout import FeatureLayout, Row, bond_order
from qcsurrogate.nn.linear import DegreeLinear
from qcsurrogate.nn.norm import EquivariantRMSNorm
from qcsurrogate.nn.radial import RadialBasis, smooth_cutoff
from qcsurrogate.nn.rotation import BondRotation
from qcsurrogate.nn.scatter import HAS_TORCH_SCATTER, gather, scatter_sum
from qcsurrogate.nn.so2 import FromHidden, HiddenGate, ToHidden

LAYOUT = FeatureLayout(3, 2)
D = torch.float64


def rotated(layout: FeatureLayout, matrix: torch.Tensor) -> torch.Tensor:
    """Block-diagonal action of an orthogonal matrix on features, parity of each irrep included."""
    blocks = []
    improper = torch.linalg.det(matrix) < 0
    for l, natural in layout.degrees:
        block = wigner_d(l, matrix)
        blocks.append(-block if improper and not natural else block)
    return torch.block_diag(*blocks)


def turn_about_z(angle: float, *, mirror: bool = False) -> torch.Tensor:
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], dtype=D)
    return turn @ torch.diag(torch.tensor([1.0, -1.0, 1.0], dtype=D)) if mirror else turn


def test_bond_order_is_a_signed_permutation() -> None:
    order = LAYOUT.bond_order
    assert sorted(order.index.tolist()) == list(range(LAYOUT.n_rows))
    assert sum(order.sizes) == LAYOUT.n_rows
    assert set(order.sign.tolist()) == {1.0, -1.0}


def test_bond_order_pairs_natural_plus_with_pseudo_minus() -> None:
    rows = [Row(1, m, True) for m in (-1, 0, 1)] + [Row(1, m, False) for m in (-1, 0, 1)]
    order = bond_order(rows)
    named = [(rows[k].m, rows[k].natural, s) for k, s in zip(order.index.tolist(), order.sign.tolist(), strict=True)]
    assert named == [
        (0, True, 1.0),
        (0, False, 1.0),
        (1, True, 1.0),
        (-1, False, 1.0),
        (-1, True, 1.0),
        (1, False, -1.0),
    ]


@pytest.mark.parametrize("mirror", [False, True])
def test_so2_maps_respect_turns_and_mirrors_of_the_bond(mirror: bool) -> None:
    torch.manual_seed(0)
    order = LAYOUT.bond_order
    into, gate, out = (
        ToHidden(order, 4, 8, 3).double(),
        HiddenGate(8, 3, 3).double(),
        FromHidden(order, 2, 8, 3).double(),
    )
    for module in (into, gate, out):
        for parameter in module.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    features = torch.randn(5, LAYOUT.n_rows, 4, dtype=D)
    action = rotated(LAYOUT, turn_about_z(0.7, mirror=mirror))
    signs = order.sign.double().view(-1, 1)

    def layer(x: torch.Tensor) -> torch.Tensor:
        y = torch.empty(5, LAYOUT.n_rows, 2, dtype=D)
        y[:, order.index] = out(*gate(*into(x[:, order.index] * signs))) * signs
        return y

    torch.testing.assert_close(layer(action @ features), action @ layer(features), atol=1e-12, rtol=0)


@pytest.mark.parametrize("mirror", [False, True])
def test_layers_in_the_molecules_frame_are_equivariant(mirror: bool) -> None:
    torch.manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=D))[0]
    if (torch.linalg.det(rotation) < 0) != mirror:
        rotation = -rotation
    action = rotated(LAYOUT, rotation)
    features = torch.randn(5, LAYOUT.n_rows, 4, dtype=D)
    norm, linear = EquivariantRMSNorm(LAYOUT, 4).double(), DegreeLinear(LAYOUT, 4, 6).double()
    norm.gain.data += 0.3 * torch.randn_like(norm.gain)
    for layer in (norm, linear):
        torch.testing.assert_close(layer(action @ features), action @ layer(features), atol=1e-12, rtol=0)
    wanted = [(1, True), (0, True), (2, False), (1, True)]
    head = DegreeHead(LAYOUT, 4, wanted).double()
    blocks = [wigner_d(l, rotation) * (1.0 if n or not mirror else -1.0) for l, n in wanted]
    torch.testing.assert_close(
        head(action @ features), head(features) @ torch.block_diag(*blocks).T, atol=1e-12, rtol=0
    )


def test_head_refuses_irreps_that_the_features_lack() -> None:
    with pytest.raises(ValueError, match=r"no irrep \(l, natural\) = \(4, True\); raise l_max"):
        DegreeHead(LAYOUT, 4, [(4, True)])


def test_bond_rotation_is_orthogonal_and_takes_the_bond_to_z() -> None:
    torch.manual_seed(0)
    vectors = torch.cat([torch.randn(4, 3, dtype=D), torch.eye(3, dtype=D), -torch.eye(3, dtype=D)])
    frames = bond_frames(vectors)
    taken = torch.einsum("nab,nb->na", frames, vectors) / vectors.norm(dim=1, keepdim=True)
    torch.testing.assert_close(taken, torch.tensor([0.0, 0.0, 1.0], dtype=D).expand(len(vectors), 3))
    assert (torch.linalg.det(frames) > 0).all()
    matrix = BondRotation(LAYOUT)(flat_wigner(3, frames))
    identity = torch.eye(LAYOUT.n_rows, dtype=D).expand_as(matrix)
    torch.testing.assert_close(matrix @ matrix.transpose(1, 2), identity, atol=1e-12, rtol=0)


def test_smooth_cutoff_ends_with_two_zero_derivatives() -> None:
    r = torch.tensor([0.0, 3.0, 5.9999, 6.0, 8.0], dtype=D, requires_grad=True)
    values = smooth_cutoff(r, 6.0)
    assert values[0] == 1.0
    assert values[3] == 0.0
    assert values[4] == 0.0
    slope = torch.autograd.grad(values.sum(), r)[0]
    assert abs(float(slope[2])) < 1e-7 < abs(float(slope[1]))


def test_radial_basis_tells_pairs_of_elements_apart() -> None:
    torch.manual_seed(0)
    basis = RadialBasis(2, 8, 6.0)
    lengths = torch.full((3,), 2.0)
    out = basis(lengths, torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]))
    assert out.shape == (3, basis.n_out)
    assert torch.equal(out[0, :8], out[1, :8])
    assert not torch.allclose(out[0, 8:], out[1, 8:])
    assert not torch.allclose(out[1, 8:], out[2, 8:])


def test_scatter_sum_adds_rows_of_one_index() -> None:
    values = torch.arange(12, dtype=D).view(4, 3)
    summed = scatter_sum(values, torch.tensor([2, 0, 2, 2]), 4, use_torch_scatter=False)
    torch.testing.assert_close(
        summed, torch.stack([values[1], torch.zeros(3, dtype=D), values[[0, 2, 3]].sum(0), torch.zeros(3, dtype=D)])
    )


@pytest.mark.skipif(not HAS_TORCH_SCATTER, reason="the extra 'scatter' (torch-scatter) is not installed")
def test_both_scatter_paths_agree() -> None:
    torch.manual_seed(0)
    values, index = torch.randn(50, 4, 3, dtype=D), torch.randint(0, 9, (50,))
    torch.testing.assert_close(
        scatter_sum(values, index, 9, use_torch_scatter=True), scatter_sum(values, index, 9, use_torch_scatter=False)
    )


def test_gather_is_indexing_with_its_gradient() -> None:
    torch.manual_seed(0)
    values = torch.randn(5, 2, dtype=D, requires_grad=True)
    index = torch.tensor([4, 0, 4, 2])
    assert torch.equal(gather(values, index), values[index])
    assert torch.autograd.gradcheck(lambda x: gather(x, index), (values,))
    assert torch.autograd.gradgradcheck(lambda x: gather(x, index).square(), (values,))
