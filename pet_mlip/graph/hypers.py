"""Hyperparameters of PET, under metatrain's names."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pet_mlip.results import Results

WIDTH_SHARE = 0.7
"""Default width of the cutoff switch, over the cutoff."""
ADAPTIVE_WIDTH = 0.5
"""The same with adaptive cutoffs, in Å."""
SMALLEST_TRIAL_CUTOFF = 0.5
"""Where the grid of trial cutoffs starts, in Å."""


class PETHypers(BaseModel):
    """Architecture of one PET model (arXiv:2305.19302; names as in metatrain)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cutoff: float = Field(
        5.0,
        gt=0,
        description="Radius of an atom's environment in Å. If it is not "
        "given, neither are widths, and atoms have more than 28 neighbours within it on average, a "
        "training takes the radius within which they have so many.",
    )
    cutoff_function: Literal["Bump", "Cosine"] = Field(
        "Bump", description="Smooth switch from 1 to 0 over the last cutoff_width of the cutoff."
    )
    cutoff_width: float | None = Field(
        None,
        gt=0,
        description="Width of the cutoff switch in Å; null: 0.7 times the cutoff, or 0.5 Å with "
        "adaptive cutoffs, which are shorter. Wide ones learn crystals in far fewer steps; "
        "published models have 0.5.",
    )
    num_neighbors_adaptive: float | None = Field(
        None,
        gt=0,
        description="If set, each atom has a cutoff of its own, at most `cutoff`, within which it "
        "has about this many neighbours; a pair's cutoff is the mean of both atoms'. The model "
        "then reaches one cutoff further.",
    )
    adaptive_cutoff_method: Literal["exact", "solver", "grid"] = Field(
        "exact",
        description="How an atom's cutoff is found: root of the neighbour count, the same after "
        "ten Newton steps, converged or not (published models), or an average over trial cutoffs "
        "(older published models).",
    )
    cutoff_width_adaptive: float = Field(
        1.0, gt=0, description="Width in Å of the switch that counts an atom's neighbours."
    )
    d_pet: int = Field(64, gt=0, description="Width of edge features and attention tokens.")
    d_node: int = Field(64, gt=0, description="Width of node features.")
    d_head: int = Field(64, gt=0, description="Width of the energy heads.")
    d_feedforward: int = Field(128, gt=0, description="Hidden width of the token MLP.")
    num_heads: int = Field(4, gt=0, description="Attention heads.")
    num_attention_layers: int = Field(2, gt=0, description="Attention layers per GNN layer.")
    num_gnn_layers: int = Field(2, gt=0, description="Message-passing layers.")
    normalization: Literal["RMSNorm", "LayerNorm"] = Field("LayerNorm", description="Token norm.")
    activation: Literal["SwiGLU", "SiLU"] = Field("SiLU", description="Of the token MLP.")
    transformer_type: Literal["PreLN", "PostLN"] = Field(
        "PostLN", description="Whether tokens are normalised before or after attention and MLP."
    )
    attention_temperature: float = Field(
        1.0, gt=0, description="Divides the attention scores, besides sqrt(head width)."
    )
    featurizer_type: Literal["feedforward", "residual"] = Field(
        "residual",
        description="residual: energies from every GNN layer (2023 paper); feedforward: from the "
        "last one, with messages that mix both directions of an edge (current uPET models).",
    )
    zbl: bool = Field(
        False,
        description="Add the Ziegler-Biersack-Littmark repulsion of the nuclei, switched off at "
        "the sum of the covalent radii.",
    )
    system_conditioning: bool = Field(
        False, description="Let energies depend on the total charge and the spin multiplicity."
    )
    max_charge: int = Field(10, ge=0, description="Largest total charge, of either sign.")
    max_spin_multiplicity: int = Field(10, gt=0, description="Largest spin multiplicity 2S + 1.")
    num_radial: int = Field(
        8,
        ge=0,
        description="Radial Bessel functions of the distance beside the distance itself in the "
        "edge embedding; 0 as in metatrain. A few resolve bond lengths from the first step on.",
    )
    density_channels: int = Field(
        16,
        ge=0,
        description="Channels of the neighbour density, through which each neighbour sees the "
        "angles to all others: learns in fewer steps and from fewer data. 0 as in metatrain.",
    )
    density_degree: int = Field(
        4, ge=0, le=8, description="Largest degree of the Legendre polynomials of these angles."
    )
    density_bound: float | None = Field(
        10.0,
        gt=0,
        description="Root mean square that what a neighbour is told by the density cannot exceed; "
        "usual values are about 1. null for no bound.",
    )
    direction_share: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Share of the embedding's hidden channels that see directions, and so are "
        "averaged over frames; the others know distances, species, messages and angles. 1 as in "
        "metatrain.",
    )
    results: Results = Field(
        default_factory=dict,
        description="What the model predicts besides the energy: names such as [dipole, charges] "
        "(dipole, polarizability, charges, magmoms), or names with rank, per_atom and unit, as in "
        "{shielding: {rank: 2, per_atom: true, unit: ppm}}. See docs/results.md.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "PETHypers":
        if self.d_pet % self.num_heads != 0:
            raise ValueError(
                f"d_pet ({self.d_pet}) must be a multiple of num_heads ({self.num_heads})"
            )
        if self.switch_width > self.cutoff:
            raise ValueError(
                f"cutoff_width ({self.switch_width} Å) must not exceed cutoff ({self.cutoff} Å)"
            )
        if self.adaptive_cutoff_method == "grid" and self.cutoff <= SMALLEST_TRIAL_CUTOFF:
            raise ValueError(
                f"adaptive_cutoff_method grid tries cutoffs from {SMALLEST_TRIAL_CUTOFF} Å on, so "
                f"cutoff ({self.cutoff} Å) must be larger"
            )
        return self

    @property
    def switch_width(self) -> float:
        """Width of the cutoff switch in Å."""
        if self.cutoff_width is not None:
            return self.cutoff_width
        if self.num_neighbors_adaptive is not None:
            return min(ADAPTIVE_WIDTH, self.cutoff)
        return WIDTH_SHARE * self.cutoff

    @property
    def message_range(self) -> int:
        """How many edges away an atom can influence an atomic energy through messages.

        The feedforward featurizer exchanges messages after its last layer too, so that its reach
        is one edge longer.
        """
        return self.num_gnn_layers + (1 if self.featurizer_type == "feedforward" else 0)

    @property
    def interaction_range(self) -> int:
        """How many cutoffs away an atom can influence an atomic energy.

        With adaptive cutoffs, whether two atoms are neighbours depends on the neighbours of both,
        which is one cutoff more than messages reach.
        """
        return self.message_range + (1 if self.num_neighbors_adaptive is not None else 0)
