"""How workers are started and ended: one small interface, one file per way. `process` is the default."""
