"""The ``training`` section: optimisation, schedule, loss, devices."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from pet_mlip.config.base import Float, Int, Seconds, Section, as_list, defaults

Part = Literal["embeddings", "layers", "heads", "backbone"]
Parts = Annotated[list[Part], BeforeValidator(as_list, json_schema_input_type=Part | list[Part])]
"""One part of the network or a list of them."""


def _weights(value: Any) -> Any:
    """Weights by name."""
    for name, weight in value.items() if isinstance(value, dict) else ():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not 0 <= weight < float("inf"):
            raise ValueError(f"the weight of {name} must be a number at least 0")
    return value


Weights = Annotated[dict[str, Float], BeforeValidator(_weights)]


LARGEST_ENERGY_WEIGHT = 1.0
"""What ``energy: auto`` is where the energies of structures are alike."""


class LossConfig(Section):
    """Loss = sum of weight * mean penalty of (prediction - reference) / scale.

    The scale of the data (root mean square force of the training set; see the log) makes the three
    terms and the gradient clipping independent of units: a loss of about one is an untrained model.
    """

    kind: Literal["mse", "huber"] = Field(
        "mse", description="Penalty of an error: its square, or linear beyond huber_delta."
    )
    huber_delta: Float = Field(
        0.1, gt=0, description="Where huber turns linear, as a fraction of the scale of the data."
    )
    energy: Annotated[Float, Field(ge=0)] | Literal["auto"] = Field(
        "auto",
        description="Weight of the energy per atom (0: energies are not trained on). auto: 1, or "
        "less where energies differ so much between structures that they would rule the first "
        "epochs, in which forces are what teaches (crystals, many elements); always 1 with "
        "init_from.",
    )
    forces: Float = Field(
        1.0, ge=0, description="Weight of the force components (0: forces are not trained on)."
    )
    stress: Float = Field(
        10.0,
        ge=0,
        description="Weight of the stress components in eV/Å^3; without effect where no structure "
        "has a stress (0: stresses are not trained on).",
    )

    results: Weights = Field(
        default_factory=dict,
        description="Weights of the components of model.results, by name, as in {dipole: 5.0}; "
        "those not named have 1. Results of structures are compared per atom.",
    )

    @property
    def energy_weight(self) -> float:
        """Weight of the energy: the largest that auto may become, as long as no data decided."""
        return LARGEST_ENERGY_WEIGHT if self.energy == "auto" else self.energy

    def is_trained_on(self, label: Literal["energy", "forces", "stress"]) -> bool:
        """Whether a label has a weight."""
        return (self.energy_weight if label == "energy" else getattr(self, label)) > 0

    def weight_of_result(self, name: str) -> float:
        """Weight of a result that is no energy: 1 if none is given."""
        return self.results.get(name, 1.0)


class TrainingConfig(Section):
    """How the weights are optimised, for how long, and on what."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["epochs"]}, {"required": ["max_time"]}]}
    )

    epochs: Int | None = Field(None, gt=0, description="Passes through the training set, or null.")
    max_time: Seconds | None = Field(
        None,
        gt=0,
        description='Time limit for training and validation, "HH:MM:SS" or seconds, or null. The '
        "learning rate then follows the clock where that is ahead of the epochs.",
    )
    batch_size: Annotated[Int, Field(gt=0)] | Literal["auto"] = Field(
        "auto",
        description="Most structures per batch, over all devices. auto: as many as have about 64 "
        "atoms together, at most 32, at least one for each process; a CPU learns fastest so. A GPU "
        "wants larger ones.",
    )
    max_atoms_per_batch: Int | None = Field(
        2048, gt=0, description="Most atoms per batch, over all devices, or null for no limit."
    )
    memory_gb: Float | None = Field(
        None,
        gt=0,
        description="Memory in GB that a step of a process may take; larger batches are evaluated "
        "in parts, which changes nothing but round-off. null: a quarter of what is available.",
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "muon",
        description="muon: orthogonalised momentum for hidden matrices and AdamW for the rest, "
        "which takes less than half the steps to the same error; adamw: AdamW for everything.",
    )
    learning_rate: Annotated[Float, Field(gt=0)] | Literal["auto"] = Field(
        "auto",
        description="Largest learning rate. auto: 4e-3 with muon and 1e-3 with adamw; with "
        "init_from a quarter of that, or an eighth for fewer than 2,000 atoms in the training set.",
    )
    muon_other_rate: Float = Field(
        0.3,
        gt=0,
        description="With muon: learning rate of all but hidden matrices (embeddings, last layers, "
        "biases, norms; these are stepped by AdamW), as a fraction of learning_rate.",
    )
    warmup: Float = Field(
        0.03, ge=0, lt=1, description="Part of the training in which the learning rate rises."
    )
    weight_decay: Float = Field(
        0.01, ge=0, description="Decay of hidden matrices, times learning rate."
    )
    betas: tuple[Float, Float] = Field((0.9, 0.999), description="Momentum constants of AdamW.")
    ema_decay: Float = Field(
        0.999,
        ge=0,
        lt=1,
        description="Decay of the exponential moving average of the weights, which validation and "
        "the exported model use (0: the last weights).",
    )
    gradient_clip: Float | None = Field(
        1.0, gt=0, description="Largest norm of the loss gradient, or null for no limit."
    )
    loss: LossConfig = Field(defaults(LossConfig), description="Weights of the loss terms.")
    seed: Int = Field(0, ge=0, description="Of initial weights, data order, splits and rotations.")
    validate_every: Int = Field(1, gt=0, description="Epochs between two validations.")
    early_stopping: Int | None = Field(
        None, gt=0, description="Validations without improvement before training stops, or null."
    )
    checkpoint_minutes: Float = Field(
        5.0,
        gt=0,
        description="Longest time between two checkpoints; the first is written after a minute.",
    )
    init_from: str | None = Field(
        None,
        description="Checkpoint whose averaged weights are the starting point (fine-tuning), or "
        "the name of one that comes with the package (organic-xtb), or null. Its architecture is "
        "taken over, and its symmetrization unless that section is given; the composition baseline "
        "is fitted again (see data.baseline).",
    )
    freeze: Parts = Field(
        default_factory=list,
        description="Parts of the network that fine-tuning leaves as they are: embeddings (of the "
        "elements), layers (message passing), heads (energies from features), backbone "
        "(embeddings and layers).",
    )
    add_species: bool = Field(
        False,
        description="Fine-tuning: let the data have elements that the checkpoint lacks. Their "
        "embeddings start from the mean of all others, their baseline from the data.",
    )
    drop_species: bool = Field(
        False,
        description="Fine-tuning: leave out the checkpoint's elements that the training set lacks, "
        "so that the exported model refuses them. They are kept otherwise.",
    )
    uncertainty_members: Int = Field(
        8,
        ge=0,
        description="Members of the ensemble that tells how uncertain forces are; 0: the model "
        "does not know its uncertainty. It is found after the training, outside of max_time.",
    )
    precision: Literal["float32", "float64", "tf32"] = Field(
        "float32",
        description="Of the network; tf32 is float32 with faster, coarser products on GPUs. "
        "Geometry, baselines and the loss are always float64.",
    )
    accelerator: Literal["auto", "cpu", "gpu"] = Field("auto", description="Kind of device.")
    devices: Int | Literal["auto"] = Field(
        1, description="Processes per node (CPU) or GPUs per node; auto: all GPUs."
    )
    num_nodes: Int = Field(1, gt=0, description="Nodes of a distributed training.")

    @property
    def largest_rate(self) -> float:
        """The largest learning rate, once the data have decided what ``auto`` is."""
        assert self.learning_rate != "auto"
        return self.learning_rate

    @property
    def structures_per_batch(self) -> int:
        """The batch size, once the data have decided what ``auto`` is."""
        assert self.batch_size != "auto"
        return self.batch_size

    @model_validator(mode="after")
    def _bounded(self) -> TrainingConfig:
        if self.epochs is None and self.max_time is None:
            raise ValueError('set epochs (such as 500), max_time (such as "01:00:00"), or both')
        return self

    @model_validator(mode="after")
    def _fine_tuning(self) -> TrainingConfig:
        for name in ("freeze", "add_species", "drop_species"):
            if getattr(self, name) and self.init_from is None:
                raise ValueError(f"{name} is for fine-tuning; give a checkpoint as init_from")
        return self


class LoggingConfig(Section):
    """Where progress is written besides metrics.csv and train.log, which always are."""

    tensorboard: bool = Field(False, description="Also write TensorBoard events.")
    wandb: bool = Field(False, description="Also log to Weights & Biases.")
    wandb_project: str = Field("pet_mlip", description="Project name at Weights & Biases.")
    name: str | None = Field(None, description="Name of the run there; null: the output folder's.")
    progress: bool = Field(True, description="Show a progress bar in terminals.")
