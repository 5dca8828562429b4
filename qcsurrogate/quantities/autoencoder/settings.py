"""Sizes of an autoencoder, as a user writes them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from qcsurrogate.models.settings import EncoderSettings

SMALL_ENCODER = EncoderSettings(
    channels=16, edge_channels=4, hidden=16, hidden_odd=4, layers=1, gaussians=12, message_cutoff=6.0
)


class AutoencoderSettings(BaseModel):
    """A group-invariant autoencoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: EncoderSettings = SMALL_ENCODER
    l_max: Annotated[int, Field(ge=1, le=6, description="Highest l of the encoder's features.")] = 1
    embedding: Annotated[int, Field(ge=1, le=4096, description="Numbers of an embedding.")] = 128
    width: Annotated[int, Field(ge=1, le=4096, description="Of the perceptrons on molecules.")] = 512
    atom_width: Annotated[int, Field(ge=1, le=4096, description="Of the perceptrons on atoms.")] = 128
    vectors: Annotated[
        int, Field(ge=3, le=64, description="Equivariant vectors of a molecule; two make its frame.")
    ] = 8
    continuous: Annotated[
        bool,
        Field(
            description="Embeddings are continuous functions of positions; else symmetric molecules come back better."
        ),
    ] = True
    temperature: Annotated[
        float,
        Field(gt=0, le=10, description="Of the soft order of atoms that training differentiates, in model lengths."),
    ] = 0.03
    element_weight: Annotated[
        float, Field(ge=0, le=100, description="Of the elements' cross-entropy beside squared distances in lengths^2.")
    ] = 0.3
