"""Sizes of the networks, as a user writes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

_LIMIT = 1024


class EncoderSettings(BaseModel):
    """The encoder that both models share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    convolution: Annotated[
        Literal["so2", "tensor_product"], Field(description="so2 is fast; tensor_product is e3nn's, the reference.")
    ] = "so2"
    channels: Annotated[int, Field(ge=1, le=_LIMIT, description="Channels of every irrep on atoms.")] = 16
    edge_channels: Annotated[int, Field(ge=1, le=_LIMIT, description="Channels of every irrep on edges.")] = 16
    hidden: Annotated[int, Field(ge=1, le=_LIMIT, description="Width of the SO(2) maps for each |m|.")] = 48
    hidden_odd: Annotated[int, Field(ge=0, le=_LIMIT, description="Width of their mirror-odd part.")] = 12
    layers: Annotated[int, Field(ge=1, le=32, description="Message-passing layers.")] = 2
    gaussians: Annotated[int, Field(ge=2, le=_LIMIT, description="Radial basis functions.")] = 24
    message_cutoff: Annotated[float, Field(gt=0, le=100, description="Reach of a message, bohr.")] = 10.0
    average_neighbours: Annotated[
        float | None, Field(gt=0, description="Messages are divided by its root; None: from the training set.")
    ] = None


class HamiltonianSettings(BaseModel):
    """A Hamiltonian model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: EncoderSettings = EncoderSettings()
    readout_hidden: Annotated[int, Field(ge=1, le=_LIMIT, description="Width of the pair readout.")] = 48
    atom_hidden: Annotated[int, Field(ge=1, le=_LIMIT, description="Width of the readout on atoms.")] = 32
    loss_power: Annotated[
        float, Field(ge=0, le=2, description="Errors weigh as (spread of their channel)^power; 0 all alike, 2 in Eh.")
    ] = 1.0
    overlap_threshold: Annotated[
        float, Field(gt=0, le=0.1, description="Pairs are predicted as far as any overlap exceeds this.")
    ] = 1e-6


class DensitySettings(BaseModel):
    """A density model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: EncoderSettings = EncoderSettings()
    readout_hidden: Annotated[int, Field(ge=1, le=_LIMIT, description="Width of the readout.")] = 48
    loss_power: Annotated[
        float, Field(ge=0, le=2, description="Of loss: coefficients, as for Hamiltonians; 2 is the plain square.")
    ] = 1.5
    start: Annotated[
        Literal["h0", "free_atoms"],
        Field(description="What is corrected and looked at: the density of H0's orbitals, or free atoms alone."),
    ] = "h0"
    loss: Annotated[
        Literal["coefficients", "coulomb", "overlap"],
        Field(description="Error of standardised coefficients, or of the molecule's density in one of these metrics."),
    ] = "coefficients"
