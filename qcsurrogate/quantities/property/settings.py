"""What a property model can be told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from qcsurrogate.quantities.property.networks import NetworkSettings
from qcsurrogate.quantities.property.networks.targets import Readout

Loss = Literal["huber", "absolute", "square"]


class PropertySettings(BaseModel):
    """A property model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    targets: Annotated[
        tuple[str, ...],
        Field(description="What is predicted: labels of the data by name, such as [U0, gap]; all in one network."),
    ] = ()
    encoder: NetworkSettings = NetworkSettings()
    readouts: Annotated[
        Mapping[str, Readout],
        Field(description="How a target is made of what atoms hold, where that is not to be as its kind suggests."),
    ] = {}
    weights: Annotated[
        Mapping[str, Annotated[float, Field(gt=0)]],
        Field(description="Weights of targets in the loss, whose errors are in units of their spread; 1 unless given."),
    ] = {}
    loss: Annotated[
        Loss, Field(description="Of standardised errors; huber: squares below 0.1, absolute values beyond.")
    ] = "huber"
