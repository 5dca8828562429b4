"""The autoencoder of molecules: what is invariant is, what is equivariant turns, and symmetric molecules do no harm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule as named
from torch import Tensor

from qcsurrogate.cli import main
from qcsurrogate.comparison.embedding_map import nearest, projected
from qcsurrogate.comparison.run import compare
from qcsurrogate.errors import DomainError, SpecError, StoreError
from qcsurrogate.pipeline import train_surrogate
from qcsurrogate.prediction.files import save_predictions
from qcsurrogate.prediction.reading import load_predictions
from qcsurrogate.prediction.surrogate import load
from qcsurrogate.quantities.autoencoder.group import frames, soft_frames, soft_order, straight_through
from qcsurrogate.quantities.autoencoder.model import AutoencoderModel
from qcsurrogate.quantities.autoencoder.settings import SMALL_ENCODER, AutoencoderSettings
from qcsurrogate.sources.collect import collect
from qcsurrogate.sources.selection.diversity import most_diverse
from qcsurrogate.store.spec import load_spec
from qcsurrogate.structures import Structure
from qcsurrogate.testing import assert_continuous, perturb, random_rotation
from tests.molecules import FLUOROSULFONAMIDE, WATER

SYMMETRIC = ("CH4", "C6H6", "CO2", "HCN", "NH3", "H2", "C2H6", "CF4", "trans-butane", "H2O")
ELEMENTS = (1, 6, 7, 8, 9, 16)


def small_settings(neighbours: float | None = 6.0) -> AutoencoderSettings:
    sizes = {"channels": 6, "edge_channels": 3, "hidden": 8, "hidden_odd": 3, "average_neighbours": neighbours}
    return AutoencoderSettings(
        encoder=SMALL_ENCODER.model_copy(update=sizes), embedding=10, width=24, atom_width=12, vectors=4
    )


def perturbed(*, continuous: bool) -> AutoencoderModel:
    torch.manual_seed(0)
    settings = small_settings().model_copy(update={"continuous": continuous})
    model = AutoencoderModel(ELEMENTS, 14, settings).double()
    perturb(model)
    return model


@pytest.fixture(scope="module")
def model() -> AutoencoderModel:
    return perturbed(continuous=True)


@pytest.fixture(scope="module", params=[True, False], ids=["continuous", "hard"])
def either(request: pytest.FixtureRequest) -> AutoencoderModel:
    return perturbed(continuous=request.param)


def of_ase(name: str) -> Structure:
    return replace(Structure.from_ase(named(name), 0, 0), name=name)


def moved(structure: Structure, seed: int) -> tuple[Structure, np.ndarray, np.ndarray, np.ndarray]:
    """The molecule turned, moved, its atoms in another order; and by what."""
    rng = np.random.default_rng(seed)
    rotation, shift, order = random_rotation(seed), 3.0 * rng.normal(size=3), rng.permutation(len(structure))
    places = (structure.positions @ rotation.T + shift)[order]
    return Structure(structure.atomic_numbers[order], places, name=structure.name), rotation, shift, order


def graph_of(model: AutoencoderModel, structures: list[Structure]) -> object:
    """As the network sees them where they are, not moved to the origin."""
    from qcsurrogate.data.graphs import collate

    return collate([model.graphs.graph(s) for s in structures])


@pytest.mark.parametrize("structure", [WATER, FLUOROSULFONAMIDE], ids=["water", "chiral"])
@pytest.mark.parametrize("seed", range(3))
def test_embedding_is_invariant_and_group_element_equivariant(
    either: AutoencoderModel, structure: Structure, seed: int
) -> None:
    model = either
    other, rotation, shift, order = moved(structure, seed)
    (own, element), (again, turned) = (model.encode(graph_of(model, [s])) for s in (structure, other))
    assert (own - again).abs().max() < 1e-9
    r, t = torch.as_tensor(rotation), torch.as_tensor(shift)
    torch.testing.assert_close(turned.rotation[0], r @ element.rotation[0], atol=1e-9, rtol=0)
    torch.testing.assert_close(turned.translation[0], r @ element.translation[0] + t, atol=1e-9, rtol=0)
    assert turned.slots[0].tolist() == element.slots[0, order].tolist()
    assert torch.linalg.det(element.rotation).item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_symmetric_molecules_come_back_the_same_from_every_pose(either: AutoencoderModel, name: str) -> None:
    model = either
    # the geometries are symmetric to six decimals: so far apart is what two choices of a direction lead to
    symmetry = 1e-5
    structure = of_ase(name)
    graph = graph_of(model, [structure])
    loss, embedding = model.loss(graph), model.encode(graph)[0]
    made = model.reconstruct(graph)
    distance = (made.positions - graph.positions).norm(dim=1)
    for seed in range(4):
        other, _, _, order = moved(structure, seed)
        turned = graph_of(model, [other])
        assert (model.encode(turned)[0] - embedding).abs().max() < (1e-9 if model.settings.continuous else symmetry)
        assert abs(model.loss(turned) - loss) < symmetry
        again = model.reconstruct(turned)
        # atoms that a symmetry exchanges may have changed their parts
        torch.testing.assert_close(
            (again.positions - turned.positions).norm(dim=1).sort().values,
            distance.sort().values,
            atol=symmetry,
            rtol=0,
        )
        assert len(order) == len(again.numbers)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_molecules_without_directions_have_finite_gradients(precision: torch.dtype) -> None:
    torch.manual_seed(0)
    model = AutoencoderModel(ELEMENTS, 14, small_settings())
    perturb(model)
    model.to(precision)
    atom = Structure(np.array([8]), np.zeros((1, 3)), name="O")
    model.loss(model.graph([*map(of_ase, SYMMETRIC), atom, WATER])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    alone = model.graph([atom])
    assert torch.isfinite(model.loss(alone))
    axes = model.encode(alone)[1].rotation[0]
    torch.testing.assert_close(axes @ axes.T, torch.eye(3, dtype=precision))


def test_in_single_precision_and_far_away(model: AutoencoderModel) -> None:
    single = AutoencoderModel(ELEMENTS, 14, small_settings())
    single.load_state_dict(model.state_dict())
    for structure in (WATER, FLUOROSULFONAMIDE):
        own = single.predict_arrays([structure])[0]
        for seed in range(3):
            other = moved(structure, seed)[0]
            far = other.moved(other.positions + 1000.0)
            assert np.abs(single.predict_arrays([far])[0] - own).max() < 1e-5 * max(1.0, np.abs(own).max())


def test_mirror_images_differ_unless_they_are_the_same_molecule(model: AutoencoderModel) -> None:
    def change(structure: Structure) -> float:
        own, mirrored = model.predict_arrays([structure, structure.moved(-structure.positions)])
        return float(np.abs(own - mirrored).max() / np.abs(own).max())

    assert change(FLUOROSULFONAMIDE) > 1e-2
    assert change(WATER) < 1e-12
    assert change(of_ase("NH3")) < 1e-12


def test_sizes_vary_within_a_batch(model: AutoencoderModel) -> None:
    structures = [WATER, of_ase("C6H6"), FLUOROSULFONAMIDE, of_ase("H2")]
    together = model.reconstruct(model.graph(structures))
    start = 0
    for k, structure in enumerate(structures):
        alone = model.reconstruct(model.graph([structure]))
        part = slice(start, start + len(structure))
        torch.testing.assert_close(together.positions[part], alone.positions, atol=1e-12, rtol=0)
        assert together.numbers[part].tolist() == alone.numbers.tolist()
        torch.testing.assert_close(together.embeddings[k], alone.embeddings[0], atol=1e-12, rtol=0)
        start += len(structure)
    errors = model.errors(model.graph(structures))
    assert errors["position_error"][1] == 4
    assert errors["wrong_elements"][1] == len(together.numbers) == start


def test_the_embedding_is_continuous_where_frame_and_order_are_not(model: AutoencoderModel) -> None:
    assert_continuous(model, WATER, WATER)
    # through the symmetric geometry, where the frame loses its second vector, and atoms change places in the order
    asymmetry = np.linspace(-1e-4, 1e-4, 41)
    for name in ("H2O", "CO2", "NH3"):
        structure = of_ase(name)
        path = []
        for step in asymmetry:
            places = structure.positions.copy()
            places[1] += step * np.array([0.3, 0.5, 0.8])
            path.append(structure.moved(places))
        embeddings = np.array(model.predict_arrays(path))
        jumps = np.abs(np.diff(embeddings, axis=0)).max(1)
        assert jumps.max() < 20 * max(np.median(jumps), 1e-6)


def test_the_soft_order_is_continuous_and_the_hard_one_sorts() -> None:
    scores = torch.tensor([[0.3, -1.0, 0.1, 9.0]], dtype=torch.float64, requires_grad=True)
    present = torch.tensor([[True, True, True, False]])
    slots, soft = soft_order(scores, present, 0.05)
    assert slots[0].tolist() == [2, 0, 1, 3]
    torch.testing.assert_close(soft.sum(1)[0], torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64))
    assert soft[0, 3].abs().max() == 0.0
    matrix = straight_through(slots, soft)
    assert matrix[0].detach().round(decimals=12).tolist() == torch.eye(4)[slots[0]].tolist()
    (gradient,) = torch.autograd.grad((matrix * torch.randn(1, 4, 4, dtype=torch.float64)).sum(), scores)
    assert gradient[0, :3].abs().max() > 0
    near = [
        soft_order(torch.tensor([[0.1 + d, 0.1]], dtype=torch.float64), present[:, :2], 0.05)[1] for d in (1e-9, -1e-9)
    ]
    assert (near[0] - near[1]).abs().max() < 1e-6


def test_frames_follow_their_vectors_and_fade_softly() -> None:
    vectors = torch.randn(50, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    lengths = vectors.norm(dim=1) * 1.5
    offsets = torch.randn(50, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    axes = frames(vectors, lengths, offsets)
    torch.testing.assert_close(axes.transpose(1, 2) @ axes, torch.eye(3, dtype=torch.float64).expand(50, 3, 3))
    torch.testing.assert_close(axes[..., 0], vectors[..., 0] / vectors[..., 0].norm(dim=1, keepdim=True))
    assert (axes - soft_frames(vectors, lengths)).abs().max() < 0.05
    faded = soft_frames(torch.zeros(1, 3, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))
    assert faded.abs().max() == 0.0


def test_the_map_of_embeddings_is_their_principal_components() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(40, 1)) * [3.0, 0, 0] + rng.normal(size=(40, 3)) * [0, 1.0, 0.1] + 7.0
    points, shares = projected(embeddings)
    assert abs(np.corrcoef(points[:, 0], embeddings[:, 0])[0, 1]) > 0.999
    assert 0.8 < shares[0] < 1.0
    assert shares.sum() <= 1.0
    one, none = projected(np.ones((1, 3)))
    assert (one.tolist(), none.tolist()) == ([[0.0, 0.0]], [0.0, 0.0])


def test_nearest_neighbours_of_embeddings() -> None:
    rows = np.random.default_rng(0).normal(size=(600, 4))
    index, distance = nearest(rows)
    apart = np.linalg.norm(rows[:, None] - rows, axis=2)
    np.fill_diagonal(apart, np.inf)
    assert index.tolist() == apart.argmin(1).tolist()
    np.testing.assert_allclose(distance, apart.min(1), atol=1e-12)
    assert nearest(rows[:5], rows)[0].tolist() == [0, 1, 2, 3, 4]
    assert nearest(rows[:1])[0].tolist() == [-1]


@pytest.fixture(scope="module")
def xyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve molecules without labels."""
    path = tmp_path_factory.mktemp("clouds") / "molecules.xyz"
    rng = np.random.default_rng(0)
    text = ""
    for k in range(12):
        atoms = named(("CH3CH2OH", "CH3OH", "H2O")[k % 3])
        lines = [
            f"{s} {x:.6f} {y:.6f} {z:.6f}"
            for s, (x, y, z) in zip(
                atoms.get_chemical_symbols(), atoms.positions + 0.03 * rng.normal(size=(len(atoms), 3)), strict=True
            )
        ]
        text += f"{len(atoms)}\nname=m{k}\n" + "\n".join(lines) + "\n"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def run(xyz: Path) -> Path:
    """A model trained for three steps on a file of structures."""
    sizes = small_settings(None).model_dump(mode="json")
    overrides = [f"model.{key}={value}" for key, value in sizes.items() if key != "encoder"]
    overrides += [f"model.encoder.{key}={value}" for key, value in sizes["encoder"].items() if value is not None]
    training = ("training.steps=3", "training.validate_every=3", "training.batch_size=4")
    train_surrogate("autoencoder", xyz, xyz.parent / "run", overrides=(*overrides, *training), quiet=True)
    return xyz.parent / "run"


@pytest.mark.filterwarnings("ignore:training set:UserWarning")
def test_a_file_without_labels_is_enough(run: Path, xyz: Path, tmp_path: Path) -> None:
    surrogate = load(run)
    predictions = surrogate.predict(xyz)
    embeddings = surrogate.embed([p.structure for p in predictions], batch_size=5)
    np.testing.assert_allclose(embeddings, [p.embedding for p in predictions], atol=1e-5)
    save_predictions(predictions, tmp_path / "a.npz")
    for own, read in zip(predictions, load_predictions(tmp_path / "a.npz"), strict=True):
        np.testing.assert_array_equal(own.embedding, read.embedding)
        assert own.reconstruction_rmsd == read.reconstruction_rmsd
        assert read.right_elements == own.right_elements


def test_reconstructions_stand_where_the_molecule_is(run: Path, xyz: Path) -> None:
    surrogate = load(run)
    structure = surrogate.predict(xyz)[0].structure
    shift = np.array([1e4, 0.0, -2e4])
    far = structure.moved(structure.positions + shift)
    own, moved_away = surrogate.predict([structure, far])
    apart = moved_away.reconstructed_positions - own.reconstructed_positions
    np.testing.assert_allclose(apart, np.tile(shift, (len(structure), 1)), atol=1e-3)


def test_what_is_larger_than_the_training_molecules_is_refused(run: Path, xyz: Path, tmp_path: Path) -> None:
    surrogate = load(run)
    with pytest.raises(DomainError, match="has 11 atoms; the largest training molecule of this autoencoder has 9"):
        surrogate.embed([of_ase("C3H8")])
    big = tmp_path / "two"
    big.mkdir()
    (big / "a.xyz").write_text(xyz.read_text())
    spec = tmp_path / "table.yaml"
    spec.write_text(
        f"structures: {{kind: file, path: {xyz}}}\n"
        "split: {kind: explicit, train: [m1, m2, m4], validation: [m0], test: [m3]}\n"
    )
    with pytest.raises(StoreError, match=r"'m0' of the split 'validation' .* has 9 atoms; expected at most 6"):
        train_surrogate("autoencoder", spec, tmp_path / "run", overrides=("training.steps=1",), quiet=True)


def test_embeddings_choose_diverse_structures(run: Path, xyz: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    text = "structures: {{kind: file, path: {}, subset: {{diverse: 3, embedding: {}}}}}\nmethod: {{basis: sto-3g}}\n"
    (tmp_path / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    spec.write_text(text.format(xyz, "model.safetensors"))
    loaded = load_spec(spec)
    assert loaded.structures.subset.embedding == str(tmp_path / "model.safetensors")
    assert loaded.identity()["structures"]["subset"]["embedding"] == "model.safetensors"
    chosen = [s.name for s in collect(loaded).structures]
    surrogate = load(run)
    everything = [p.structure for p in surrogate.predict(xyz)]
    rows = surrogate.embed(everything)
    picked = [int(np.random.default_rng(0).integers(12))]
    while len(picked) < 3:
        distances = np.linalg.norm(rows[:, None] - rows[picked], axis=2).min(1)
        picked.append(int(distances.argmax()))
    assert sorted(chosen) == sorted(everything[i].name for i in picked)
    with pytest.raises(SpecError, match=r"expected subset.diverse beside it"):
        load_spec(spec, {"structures.subset.diverse": None})


def test_a_card_with_a_map(
    tiny_store: Path, tiny_runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = [f"model.{key}={value}" for key, value in {"embedding": 5, "width": 8, "atom_width": 8}.items()]
    train_surrogate("autoencoder", tiny_store, tmp_path / "run", overrides=(*sizes, "training.steps=1"), quiet=True)
    assert main(["card", str(tiny_store), "--out", str(tmp_path / "card.md"), "--map", str(tmp_path / "run")]) == 0
    text = (tmp_path / "card.md").read_text()
    assert "![map of the molecules](card-map.svg)" in text
    assert "colour: gap (hartree)" in text
    assert (tmp_path / "card-map.svg").read_text().startswith("<?xml")
    assert main(["card", str(tiny_store), "--map", str(tmp_path / "run")]) == 2
    assert "--out" in capsys.readouterr().err
    assert main(["card", str(tiny_store), "--out", str(tmp_path / "b.md"), "--map", str(tiny_runs["density"])]) == 2
    assert not (tmp_path / "b.md").exists()


def test_only_an_autoencoder_embeds(tiny_runs: dict[str, Path]) -> None:
    structures = [WATER, of_ase("H2O")]
    with pytest.raises(SpecError, match="is a density model; expected an autoencoder"):
        most_diverse(structures, 1, 0, embedding=tiny_runs["density"])


def test_the_report_shows_molecules_beside_reconstructions(run: Path, xyz: Path, tmp_path: Path) -> None:
    metrics = compare([run], xyz, tmp_path / "report", split="train", quiet=True)
    figures = metrics["metrics"]["autoencoder"]
    assert {"reconstruction_rmsd", "wrong_elements", "wrong_size", "not_reconstructed", "extent"} <= set(figures)
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Molecules from their embeddings" in page
    assert "Map of the molecules" in page


def test_it_learns_four_points(model: AutoencoderModel) -> None:
    shapes = [
        Structure(np.ones(4, dtype=np.int64), np.array(points, dtype=np.float64))
        for points in (
            [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 1, 0)],
            [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, -1, 0)],
            [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0)],
        )
    ]
    torch.manual_seed(0)
    small = AutoencoderModel((1,), 4, small_settings(3.0))
    optimiser = torch.optim.Adam(small.parameters(), lr=5e-3)
    graph = small.graph(shapes * 4)

    def error() -> Tensor:
        made = small.reconstruct(graph)
        return (made.positions - graph.positions).square().mean()

    before = error().item()
    for _ in range(40):
        optimiser.zero_grad()
        small.loss(graph).backward()
        optimiser.step()
    assert error().item() < 0.5 * before
