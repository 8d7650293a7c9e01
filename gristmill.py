"""The `gristmill` command: `gristmill train ...` is the trainer's, every other word the pipeline's.

The two know nothing of each other, and only the one that is asked for is imported. As an installed command it does not
look into the current folder, where a `trainer.py` of somebody's own would run in place of ours; so several processes
are started by `torchrun --nproc-per-node N --no-python gristmill train CONFIG`.
"""

import sys

__all__ = ["main"]


def main() -> int:
    """Run one command; returns its exit code."""
    if sys.argv[1:2] == ["train"]:
        from trainer.cli import main as train

        return train(sys.argv[2:], prog="gristmill train")
    from pipeline.cli import main as curate

    return curate()


if __name__ == "__main__":
    sys.exit(main())
