"""Constants of the frame ensembles and the choice of symmetrization."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ClosestPairsHypers(BaseModel):
    """Constants of the closest-pairs ensemble (docs/theory, section ECSE)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: float = Field(0.6, gt=0, description="Range of cost in Å over which a frame fades out.")
    margin: float = Field(
        0.07,
        ge=0,
        description="Cost in Å above the level at which a frame is gone. Smooths crystals, where "
        "many frames cost the same.",
    )
    axis_cost: float = Field(
        2.0,
        ge=1,
        description="Cost of each Å to the neighbour on the axis; an Å to the other one costs 1.",
    )
    collinear: float = Field(
        0.05, ge=0.001, lt=1, description="sin^2 of the angle below which a pair makes no frame."
    )
    collinear_width: float = Field(
        0.4, gt=0, description="Range of sin^2 over which a pair becomes eligible."
    )
    oblique: float = Field(0.3, ge=0, description="Cost in Å of a pair, times cos^2 of its angle.")
    handedness: float = Field(
        0.5, ge=0, description="Cost in Å of the mirror image on the wrong side."
    )
    handedness_width: float = Field(
        1.0, gt=0, description="|zeta| from which on the sides are told apart entirely."
    )
    fallback: float = Field(
        0.5, gt=0, le=1, description="Total score below which the collinear fallback fades in."
    )


class SymmetrizationHypers(BaseModel):
    """Which rotations an environment is evaluated in, in training and afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ensemble: Literal["none", "closest_pairs"] = Field(
        "closest_pairs",
        description="Frame ensemble: closest_pairs, or none (the plain, unsymmetrized model).",
    )
    closest_pairs: ClosestPairsHypers = Field(
        ClosestPairsHypers(), description="Constants of closest_pairs."
    )
    train: Literal["structure", "full"] = Field(
        "full",
        description="Frames in training: the whole ensemble (full), or, for ensemble: none, one "
        "random O(3) matrix per structure (structure).",
    )

    @property
    def inference(self) -> str:
        """Where the average is taken: ``plain`` (nowhere) or ``environment``."""
        return "plain" if self.ensemble == "none" else "environment"

    @model_validator(mode="after")
    def _trainable(self) -> "SymmetrizationHypers":
        if self.ensemble == "none" and self.train == "full":
            raise ValueError(
                "train: full takes the frames of an ensemble, but ensemble is none; choose "
                "train: structure, or ensemble: closest_pairs"
            )
        if self.ensemble != "none" and self.train == "structure":
            raise ValueError(
                "train: structure turns whole structures, but the model is evaluated in the frames "
                "of an ensemble; choose train: full, or ensemble: none"
            )
        return self
