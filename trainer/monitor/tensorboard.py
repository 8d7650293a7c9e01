"""The numbers of a run as TensorBoard files."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["TensorBoard"]


class TensorBoard:
    """A sink of events; see run_logger.py. `done`: steps of the state that the run goes on from."""

    def __init__(self, folder: str | Path, done: int) -> None:
        self.folder = Path(folder)
        self._open(done)

    def _open(self, done: int) -> None:
        # Imported here: it takes a second, and a run without TensorBoard need not have it installed.
        from torch.utils.tensorboard import SummaryWriter

        # TensorBoard then leaves out what earlier files of this folder hold from that step on.
        self.writer = SummaryWriter(str(self.folder), purge_step=done)  # type: ignore[no-untyped-call]

    def write(self, event: str, step: int, **values: Any) -> None:
        """Write the numbers, or the text, of an event."""
        if event == "rewind":
            self.close()
            self._open(values["to"])
        for name, value in _scalars(event, values):
            self.writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]
        if event == "sample":
            text = f"**{values['prompt']}**{values['text']}"
            self.writer.add_text("sample", text, step)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Flush and close the files."""
        self.writer.close()  # type: ignore[no-untyped-call]


def _scalars(event: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    if event == "step":
        for name, value in values.items():
            if isinstance(value, (int, float)) and name != "seconds_left":
                yield f"train/{name}", value
        for name, norm in values.get("layer_norms", {}).items():
            yield f"layer_norms/{name}", norm
    for kind, column in (("eval", "sets"), ("mixture", "sources")):
        if event == kind:
            for name, numbers in values[column].items():
                yield from ((f"{kind}/{name}/{key}", value) for key, value in numbers.items() if value is not None)
