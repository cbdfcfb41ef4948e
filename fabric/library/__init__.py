"""What a communication library does: NCCL's choices and times, and published measurements of it. Imports physics."""
