"""Names of the axes of a canvas tensor ``[batch, seq]`` and of tensors that extend it."""

BATCH = 0
SEQ = 1
