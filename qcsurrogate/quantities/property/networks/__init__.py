"""Networks for properties behind one interface; each file names the paper it follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from qcsurrogate.data.graphs import GraphSettings
from qcsurrogate.quantities.property.networks.base import AtomFeatures, FeatureWidths, PropertyNetwork
from qcsurrogate.quantities.property.networks.electronic import ElectronicRows, ElectronicStart
from qcsurrogate.quantities.property.networks.heads import PropertyHeads
from qcsurrogate.quantities.property.networks.invariant import InvariantNetwork
from qcsurrogate.quantities.property.networks.naive import NaiveNetwork
from qcsurrogate.quantities.property.networks.settings import NetworkSettings
from qcsurrogate.quantities.property.networks.so2 import SO2Network, TensorProductNetwork
from qcsurrogate.quantities.property.networks.targets import TargetSpec
from qcsurrogate.quantities.property.networks.vector import VectorNetwork

__all__ = [
    "NETWORKS",
    "AtomFeatures",
    "ElectronicRows",
    "ElectronicStart",
    "FeatureWidths",
    "NetworkSettings",
    "PropertyHeads",
    "PropertyNetwork",
    "TargetSpec",
    "build_network",
    "graph_settings",
]

NETWORKS: Final[Mapping[str, type[PropertyNetwork]]] = {
    "naive": NaiveNetwork,
    "invariant": InvariantNetwork,
    "vector": VectorNetwork,
    "tensor_product": TensorProductNetwork,
    "so2": SO2Network,
}


def build_network(
    elements: Sequence[int], settings: NetworkSettings, start: ElectronicStart | None = None
) -> PropertyNetwork:
    """The network that the settings name, untrained; ``start`` with electronic inputs only."""
    return NETWORKS[settings.network](elements, settings, start)


def graph_settings(settings: NetworkSettings, start: ElectronicStart | None = None) -> GraphSettings:
    """The graphs of the network that the settings name, in training and in prediction."""
    return NETWORKS[settings.network].graph_settings(settings, start)
