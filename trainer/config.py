"""The configuration of a training run: everything that decides it, in one YAML file.

An unknown key is refused with the nearest known name. What is left out is decided by a stated rule or by the
dataset; `python -m trainer plan CONFIG` prints what came of it before a step is run.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from schemas.config_model import Section, load_model
from schemas.storage import check_output, local_path

__all__ = [
    "CacheOptions",
    "CheckpointOptions",
    "Config",
    "Data",
    "EvaluateOptions",
    "LogOptions",
    "Model",
    "OptimizerOptions",
    "Parallel",
    "PhaseChange",
    "Schedule",
    "SpikeOptions",
    "load_config",
]

MIB, GIB = 1 << 20, 1 << 30
Beta = Annotated[float, Field(ge=0, lt=1)]
Weight = float | int | str  # decimal text; a YAML number is taken by the digits it was written with


class CacheOptions(Section):
    """Where remote shards are kept on this node; a local dataset is read in place."""

    folder: str = Field(default="~/.cache/gristmill", description="on a local disk; shared by the node's processes")
    max_bytes: int = Field(default=64 * GIB, gt=0, description="never exceeded, unfinished files counted")


class PhaseChange(Section):
    """What changes from a batch on; what is not given stays as it was."""

    batch: int = Field(gt=0, description="first batch of the phase")
    sequence_length: int | None = Field(default=None, ge=2)
    global_batch: int | None = Field(default=None, ge=1)
    packing: Literal["windows", "documents"] | None = None
    weights: dict[str, Weight] | None = None
    max_epochs: dict[str, Weight] | None = None
    at_cap: Literal["redistribute", "stop"] | None = None
    generation: int | dict[str, int] | None = None


class Data(Section):
    """Which samples the model sees, and in which order."""

    dataset: str | None = Field(default=None, description="a dataset's folder or bucket prefix")
    datasets: dict[str, str] | None = Field(
        default=None, description="several: name to folder; sources are NAME:SOURCE"
    )
    generation: int | dict[str, int] | None = Field(default=None, description="default: the newest when the run starts")
    sequence_length: int = Field(default=1024, ge=2, description="tokens a sequence, T")
    global_batch: int | None = Field(
        default=None, ge=1, description="sequences a step, G; default: see optim/optimizers.py"
    )
    packing: Literal["windows", "documents"] = Field(
        default="windows", description="windows: T tokens on end; documents: whole documents, best fit, padded"
    )
    mask: Literal["none", "documents"] = Field(
        default="none", description="documents: attention stays inside a document, positions restart"
    )
    weights: dict[str, Weight] = Field(default={}, description="share of the samples; default: by tokens")
    max_epochs: dict[str, Weight] = Field(default={}, description="how often a source may be repeated")
    at_cap: Literal["redistribute", "stop"] = "redistribute"
    phases: list[PhaseChange] = Field(default=[], description="changes during the run")
    workers: int = Field(default=1, ge=0, description="processes that assemble batches; 0: a thread of this process")
    cache: CacheOptions = CacheOptions()
    verify_shards: bool = Field(default=True, description="sha256 of a local shard at its first use; remote: always")
    on_lost_shard: Literal["stop", "skip"] = Field(default="stop", description="what a shard that stays bad does")

    @model_validator(mode="after")
    def _named(self) -> "Data":
        if (self.dataset is None) == (self.datasets is None):
            raise ValueError("give dataset or datasets, one of them")
        starts = [phase.batch for phase in self.phases]
        if starts != sorted(set(starts)):
            raise ValueError(f"phases begin at batches {starts}: they must rise")
        return self


class Model(Section):
    """The model's shape; default: some 4 million parameters, for a try on a CPU."""

    vocab_size: int | None = Field(default=None, ge=2, description="default: the dataset's, up to a multiple of 64")
    dim: int = Field(default=256, ge=2)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    kv_heads: int | None = Field(default=None, ge=1, description="default: heads")
    head_dim: int | None = Field(default=None, ge=2, description="default: dim / heads")
    ffn_dim: int | None = Field(default=None, ge=1, description="default: 8/3 dim, up to a multiple of 64")
    rope_theta: float = Field(default=10_000.0, gt=0)
    rope_scaling: dict[str, Any] | None = Field(default=None, description="as Hugging Face's rope_scaling")
    norm_eps: float = Field(default=1e-5, gt=0)
    qk_norm: bool = False
    tied: bool = Field(default=False, description="one matrix for embedding and output")
    attention: Literal["sdpa", "flex"] = "sdpa"
    start_from: str | None = Field(default=None, description="a Hugging Face folder whose weights are the start")
    check_tokenizer: bool = Field(default=True, description="refuse a start_from folder with another tokenizer")


class OptimizerOptions(Section):
    """How gradients become updates."""

    kind: Literal["adamw", "muon"] = "adamw"
    learning_rate: float | None = Field(default=None, gt=0, description="peak; default: see optim/optimizers.py")
    muon_learning_rate: float | None = Field(default=None, gt=0, description="of Muon's matrices; default: the same")
    weight_decay: float = Field(default=0.1, ge=0)
    decay_embeddings: bool = Field(default=True, description="whether weight_decay holds for the embedding too")
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    momentum: float = Field(default=0.95, ge=0, lt=1, description="Muon's")
    muon_dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="of the orthogonalization")
    clip: float | None = Field(default=1.0, gt=0, description="largest norm of the whole gradient; null: no clipping")


class Schedule(Section):
    """How long, and the learning rate on the way."""

    kind: Literal["cosine", "wsd"] = "cosine"
    steps: int | None = Field(default=None, ge=1, description="default: tokens, or one epoch of the data")
    tokens: float | None = Field(default=None, gt=0, le=1e18, description="in place of steps")
    warmup_steps: int | None = Field(default=None, ge=0, description="default: a hundredth of the steps, at least 10")
    decay_steps: int | None = Field(default=None, ge=0, description="wsd: the last steps; default: a fifth")
    decay: Literal["linear", "sqrt"] = Field(default="linear", description="wsd: 1 - p, or 1 - sqrt(p)")
    final: float = Field(default=0.1, ge=0, le=1, description="last learning rate over the peak; wsd decays to 0 of it")

    @model_validator(mode="after")
    def _one(self) -> "Schedule":
        if self.steps is not None and self.tokens is not None:
            raise ValueError("steps and tokens both say how long: give one of them")
        return self


class Parallel(Section):
    """How the work is laid over processes and devices."""

    replicas: int = Field(default=1, ge=1, description="HSDP: copies of the sharded model; the world divides by it")
    micro_batch: int | None = Field(default=None, ge=1, description="sequences at once a process; default: all its own")
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    compile: bool = False
    dtype: Literal["bfloat16", "float32"] | None = Field(default=None, description="default: bfloat16 on CUDA")
    check_memory: bool = Field(default=True, description="refuse what the device surely has too little memory for")
    deterministic: bool = Field(default=False, description="bit-equal runs on CUDA, at a price")
    threads: int | None = Field(default=None, ge=1, description="CPU threads a process; default: the cores, shared out")
    timeout_seconds: float = Field(default=1800, gt=0, description="after which a collective call gives up")


class SpikeOptions(Section):
    """What counts as a spike of the loss or the gradient norm, and what is done."""

    action: Literal["log", "skip", "rewind"] = Field(
        default="log", description="skip: no update; rewind: back to the last checkpoint, past those batches"
    )
    window: int = Field(default=64, ge=16, description="accepted steps that are looked back on")
    warmup: int = Field(default=32, ge=8, description="steps before the rule applies; of a phase, before it refuses")
    threshold: float = Field(default=8.0, gt=0, description="robust z-score: deviation over 1.4826 MAD")
    before: int = Field(default=0, ge=0, description="rewind: batches before the spike that are skipped too")
    most: int = Field(default=20, ge=1, description="skips or rewinds of a run; more stop it")


class CheckpointOptions(Section):
    """From where the run can be resumed."""

    every: int = Field(default=500, ge=1, description="steps")
    keep_last: int = Field(default=3, ge=1)
    keep_every: int | None = Field(default=None, ge=1, description="steps; those are never deleted")
    uri: str | None = Field(default=None, description="folder or bucket; default: OUTPUT/checkpoints")
    staging: str | None = Field(default=None, description="local folder to write in before an upload")

    @field_validator("uri")
    @classmethod
    def _can_be_written(cls, uri: str | None) -> str | None:
        if uri is not None:
            check_output(uri)
        return uri


class EvaluateOptions(Section):
    """What is measured beside the training loss."""

    every: int | None = Field(default=None, ge=1, description="steps; default: a twentieth of the run")
    max_tokens: int = Field(default=1 << 20, gt=0, description="of validation a source")
    files: dict[str, str] = Field(default={}, description="named plain-text files")
    prompts: list[str] = Field(default=[], description="texts to go on from")
    new_tokens: int = Field(default=64, ge=1, description="tokens of a sample")
    temperature: float = Field(default=0.8, ge=0)


class LogOptions(Section):
    """What is logged on the way."""

    every: int = Field(default=10, ge=1, description="steps a line")
    layer_norms_every: int | None = Field(default=100, ge=1, description="steps; null: never")
    tensorboard: bool = True
    hang_seconds: float = Field(default=600, gt=0, description="without a step: stacks, and the slow rank")


class Config(Section):
    """One training run."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    output: str = Field(
        description="local folder of metrics, report and, unless checkpoint.uri says other, checkpoints"
    )
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    device: Literal["cuda", "cpu"] | None = Field(default=None, description="default: cuda where there is one")
    data: Data
    model: Model = Model()
    optimizer: OptimizerOptions = OptimizerOptions()
    schedule: Schedule = Schedule()
    parallel: Parallel = Parallel()
    spikes: SpikeOptions = SpikeOptions()
    checkpoint: CheckpointOptions = CheckpointOptions()
    evaluate: EvaluateOptions = EvaluateOptions()
    log: LogOptions = LogOptions()

    @property
    def checkpoints_uri(self) -> str:
        """Where checkpoints lie."""
        return self.checkpoint.uri or f"{self.output.rstrip('/')}/checkpoints"

    @field_validator("output")
    @classmethod
    def _local(cls, output: str) -> str:
        if local_path(output) is None:
            raise ValueError("expected a local folder; checkpoints may go to a bucket by checkpoint.uri")
        return output


def load_config(path: str, overrides: Iterable[str] = ()) -> Config:
    """Load the configuration at `path`, changed by `key.path=value` overrides.

    Raises schemas.config_model.ConfigError with the place and the nearest known name.
    """
    return load_model(path, Config, overrides)
