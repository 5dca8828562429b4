"""Sizes of a property network, as a user writes them: one flat section, defaults of each network its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from qcsurrogate.errors import suggestion

NetworkName = Literal["naive", "invariant", "vector", "tensor_product", "so2"]

_LIMIT = 1024

DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "naive": {"layers": 4, "channels": 64},
    "invariant": {"layers": 2, "channels": 96},
    "vector": {"layers": 3, "channels": 48, "gaussians": 24, "message_cutoff": 10.0},
    "tensor_product": {
        "layers": 2, "channels": 16, "edge_channels": 16, "l_max": 2, "gaussians": 24, "message_cutoff": 10.0,
        "readout": 64,
    },
    "so2": {
        "layers": 2, "channels": 16, "edge_channels": 16, "hidden": 48, "hidden_odd": 12, "l_max": 2, "gaussians": 24,
        "message_cutoff": 10.0, "readout": 64, "inputs": "geometry", "h0_from": None,
    },
}  # fmt: skip
"""What each network can be told, and what it takes where it is not."""


class NetworkSettings(BaseModel):
    """A property network.

    A size that the network does not have is refused, and one that is not given is the network's own default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: Annotated[
        NetworkName,
        Field(
            description="naive: raw coordinates, no symmetry; invariant: distances; vector: scalars and vectors; "
            "tensor_product: e3nn; so2: the encoder of all other models."
        ),
    ] = "so2"
    layers: Annotated[int, Field(ge=1, le=32, description="Rounds of messages.")] = 2
    channels: Annotated[int, Field(ge=1, le=_LIMIT, description="Width of what atoms hold; of every irrep.")] = 16
    edge_channels: Annotated[int, Field(ge=1, le=_LIMIT, description="Channels of every irrep on edges.")] = 16
    hidden: Annotated[int, Field(ge=1, le=_LIMIT, description="Width of the SO(2) maps for each |m|.")] = 48
    hidden_odd: Annotated[int, Field(ge=0, le=_LIMIT, description="Width of their mirror-odd part.")] = 12
    l_max: Annotated[int, Field(ge=1, le=6, description="Highest angular momentum of the features.")] = 2
    gaussians: Annotated[int, Field(ge=2, le=_LIMIT, description="Radial basis functions.")] = 24
    message_cutoff: Annotated[float, Field(gt=0, le=100, description="Reach of a message, bohr.")] = 10.0
    readout: Annotated[int, Field(ge=1, le=_LIMIT, description="Width of the scalars that heads are given.")] = 64
    inputs: Annotated[
        Literal["geometry", "electronic"],
        Field(description="electronic: what H0 says of the molecule too, as Hamiltonian models use it."),
    ] = "geometry"
    h0_from: Annotated[
        str | None,
        Field(min_length=1, description="Of electronic inputs: a hamiltonian model, or a store, whose H0 is taken."),
    ] = None
    average_neighbours: Annotated[
        float | None, Field(gt=0, description="Messages are divided by its root; None: from the training set.")
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _own_defaults(cls, data: Any) -> Any:
        """Fill in what the named network takes by default, and refuse what it does not have."""
        if not isinstance(data, Mapping):
            return data
        name = data.get("network", "so2")
        if name not in DEFAULTS:
            return data  # the field says what is wrong
        own = DEFAULTS[name]
        for key, value in data.items():
            field = cls.model_fields.get(key)
            if field is None or key in own or key in ("network", "average_neighbours") or value == field.default:
                continue
            raise ValueError(
                f"network '{name}' has no setting '{key}'{suggestion(key, own)}; it has {', '.join(sorted(own))}"
            )
        return {**own, **data}

    @model_validator(mode="after")
    def _h0_is_named(self) -> Self:
        if (self.inputs == "electronic") != (self.h0_from is not None):
            raise ValueError(
                f"inputs '{self.inputs}' with h0_from {self.h0_from!r}; electronic inputs, and no others, need "
                "the path of a hamiltonian model or of a store in h0_from"
            )
        return self
